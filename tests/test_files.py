"""A path holds the old file or the new file, and no temporary file stays beside it."""

import os
import socket
import stat
import subprocess
import sys

import numpy as np
import pytest

import sparseopt as so
from sparseopt import _files
from sparseopt.models.words import write_vectors

posix = pytest.mark.skipif(os.name != "posix", reason="files of POSIX")


def write(path, content=b"new"):
    with _files.replacing(path) as file:
        file.write(content)


def leftover_of(path):
    return path.with_name(f".{path.name}.{'0123456789abcdef'}.tmp")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.txt"


def test_the_old_content_is_there_until_the_block_ends(path):
    path.write_bytes(b"old")
    with _files.replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == [path.name]


# Between the opening of a file and the block that closes it, an interrupt leaves it open: garbage collection warns.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_instruction_leaves_the_old_or_the_new_file_alone(path):
    own = {_files.replacing.__wrapped__.__code__.co_filename, __file__}

    def trace(frame, event, _):
        if frame.f_code.co_filename not in own and "contextlib" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        return count

    def count(frame, event, _):
        nonlocal seen
        seen += event == "opcode"
        if seen == at:
            sys.settrace(None)
            raise KeyboardInterrupt
        return count

    before, at, seen, interrupted, contents = sys.gettrace(), 0, 0, 0, set()
    while seen >= at:
        at, seen = at + 1, 0
        path.write_bytes(b"old")
        sys.settrace(trace)
        try:
            write(path)
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(before)
        assert os.listdir(path.parent) == [path.name], f"at instruction {at}"
        contents.add(path.read_bytes())
    assert contents == {b"old", b"new"}
    assert interrupted > 100


@posix
def test_leftovers_of_killed_saves_of_this_name_alone_are_removed(path):
    # A process that dies while it writes.
    script = f"import os\nfrom sparseopt._files import replacing\nwith replacing({str(path)!r}):\n    os._exit(1)"
    assert subprocess.run([sys.executable, "-c", script], cwd=path.parent, check=False).returncode == 1
    assert len(os.listdir(path.parent)) == 1
    others = [*(leftover_of(path.with_name(name)) for name in ("file.txt.more", "file_txt")),
              path.with_name(".file.txt.tmp")]
    for other in others:
        other.touch()
    write(path)
    assert sorted(path.parent.iterdir()) == sorted([path, *others])


@posix
def test_what_another_save_of_the_name_writes_is_not_removed(path):
    with _files.replacing(path) as file:
        file.write(b"first")
        write(path, b"second")
        assert len(os.listdir(path.parent)) == 2
    assert path.read_bytes() == b"first"
    assert os.listdir(path.parent) == [path.name]


@posix
def test_a_temporary_that_another_save_took_for_a_leftover_is_made_again(path, monkeypatch):
    lock, locked = _files.fcntl.flock, []

    def late(file, how):
        if not locked:
            locked.append(os.unlink(next(path.parent.iterdir())))
        return lock(file, how)

    monkeypatch.setattr(_files.fcntl, "flock", late)
    write(path)
    assert locked
    assert path.read_bytes() == b"new"


def test_a_system_or_file_system_without_locks_writes_all_the_same(path, monkeypatch):
    if _files.fcntl is not None:
        def none(*_):
            raise OSError(95, "Operation not supported")
        monkeypatch.setattr(_files.fcntl, "flock", none)
        write(path, b"one")
        assert path.read_bytes() == b"one"
    monkeypatch.setattr(_files, "fcntl", None)
    write(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == [path.name]


def pipe(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


@posix
@pytest.mark.parametrize(("make", "kind"), [
    (os.mkdir, "folder"), (pipe, "pipe"), (unix_socket, "socket"),
    (lambda path: os.symlink("/dev/null", path), "device"), (lambda path: os.symlink(".", path), "folder")],
                         ids=["folder", "pipe", "socket", "link to a device", "link to a folder"])
def test_what_is_no_regular_file_is_neither_replaced_nor_read(make, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make("it")
    before = os.stat("it"), os.stat("/dev/null")
    opt = so.SGD(so.zeros((3, 2)))
    for refused in (lambda: so.save("it", opt), lambda: so.load("it"),
                    lambda: write_vectors("it", ["a"], np.ones((1, 2)))):
        with pytest.raises(OSError, match=f"it is a {kind}; it must be a regular file"):
            refused()
    assert os.listdir(tmp_path) == ["it"]
    after = os.stat("it"), os.stat("/dev/null")
    assert [(one.st_ino, one.st_mode) for one in before] == [(one.st_ino, one.st_mode) for one in after]


@posix
def test_of_a_link_the_file_that_it_leads_to_is_replaced(path, tmp_path):
    (tmp_path / "inner").mkdir()
    path.symlink_to("inner/real")
    for content in (b"first", b"second"):       # at first it leads to nothing
        write(path, content)
        assert path.is_symlink()
        assert (tmp_path / "inner" / "real").read_bytes() == content
    assert os.listdir(tmp_path / "inner") == ["real"]


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o400])
def test_a_temporary_is_never_open_to_more_than_its_target_is(path, mode, monkeypatch):
    path.touch()
    path.chmod(mode)
    chmod, seen = os.chmod, []

    def watched(name, wanted):
        seen.append(stat.S_IMODE(os.stat(name).st_mode))
        chmod(name, wanted)

    monkeypatch.setattr(os, "chmod", watched)
    mask = os.umask(0o022)
    try:
        with _files.replacing(path):
            seen.append(stat.S_IMODE(next(other for other in path.parent.iterdir() if other != path).stat().st_mode))
    finally:
        os.umask(mask)
    assert seen == [mode & ~0o022, mode]
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_vectors_that_cannot_all_be_written_leave_the_old_file(path):
    write_vectors(path, ["one", "two"], np.eye(2))
    before = path.read_bytes()
    assert before == b"2 2\none 1.0 0.0\ntwo 0.0 1.0\n"
    for words, vectors in ((["one"], np.eye(2)), (["one", "\ud800"], np.eye(2))):
        with pytest.raises(ValueError, match=r"a row for each|surrogates"):
            write_vectors(path, words, vectors)
        assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(("ending", "start"),
                         [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("", b"\x89PNG")])
def test_a_picture_is_written_whole_in_the_format_that_its_name_says(tmp_path, ending, start):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    path = tmp_path / ("picture." + ending if ending else "picture")
    _files.save_picture(figure, path)
    assert path.read_bytes().startswith(start)
    before = path.read_bytes()
    figure.draw = lambda renderer: 1 / 0
    with pytest.raises(ZeroDivisionError):
        _files.save_picture(figure, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]
