"""The command, run as users run it."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import gensim
import numpy as np
import pytest

from sparseopt import __version__, cli

NOVELS = Path(__file__).parents[2] / "shared" / "data" / "novels"


def run(*arguments, folder):
    return subprocess.run([Path(sysconfig.get_path("scripts")) / "sparseopt", *map(str, arguments)], cwd=folder,
                          capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    result = run("train", "words", "--dim", 20, "--epochs", 3, "--neighbours", "string,nosuchword", folder=folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout + result.stderr


def test_training_prints_what_it_read_the_loss_and_neighbours(trained):
    _, printed = trained
    assert "Python's documentation" in printed
    assert "3 epochs, loss 0." in printed
    assert "pairs/s" in printed
    assert "nosuchword is not among the words" in printed


def test_gensim_loads_the_vectors(trained):
    folder, _ = trained
    vectors = gensim.models.KeyedVectors.load_word2vec_format(str(folder / "words" / "vectors.txt"))
    assert vectors.vector_size == 20
    assert len(vectors) > 3000
    assert vectors.most_similar("string", topn=3)


def test_the_loss_curve_is_a_picture(trained):
    folder, _ = trained
    picture = (folder / "words" / "loss.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 5000


def test_resuming_goes_on_to_the_bits_of_a_run_that_never_stopped(documentation, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(documentation[:60]))
    for name, epochs, more in [("half", 3, ("--dim", 20)), ("whole", 5, ("--dim", 20)),
                               ("more", 5, ("--resume", tmp_path / "half" / "checkpoint.safetensors"))]:
        result = run("train", "words", text, "--epochs", epochs, "--output", tmp_path / name, *more, folder=tmp_path)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "half/vectors.txt").read_bytes() != (tmp_path / "more/vectors.txt").read_bytes()
    assert (tmp_path / "whole/vectors.txt").read_bytes() == (tmp_path / "more/vectors.txt").read_bytes()


def test_resuming_on_another_text_is_refused(trained, tmp_path, capsys):
    folder, _ = trained
    other = tmp_path / "other.txt"
    other.write_text("one two three " * 20)
    checkpoint = folder / "words" / "checkpoint.safetensors"
    assert cli.main(["train", "words", str(other), "--output", str(tmp_path / "w"), "--resume", str(checkpoint)]) == 1
    assert "trained on other words" in capsys.readouterr().err


def test_resuming_takes_no_settings_that_the_checkpoint_has(trained, tmp_path, capsys):
    folder, _ = trained
    checkpoint = str(folder / "words" / "checkpoint.safetensors")
    for flag, value in (("--dim", "8"), ("--lr", "9"), ("--optimizer", "adam"), ("--window", "3"),
                        ("--random-state", "1")):
        assert cli.main(["train", "words", "--output", str(tmp_path / "w"), "--resume", checkpoint, flag, value]) == 2
        assert f"{flag} does not go with --resume" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "value", "message"), [
    ("--dim", "0", "0 is not allowed; the value must be an integer of at least 1"), ("--dim", "x", "x is not allowed"),
    ("--batch-size", "-5", "-5 is not allowed"), ("--x-max", "0", "0 is not allowed; the value must be a finite"),
    ("--window", "0", "0 is not allowed"), ("--optimizer", "adan", "'adan' is not allowed; the value must be one of"),
    ("--lr", "-1", "-1 is not allowed"), ("--lr", "nan", "nan is not allowed"), ("--missed", "never", "invalid choice"),
    ("--random-state", "-1", "-1 is not allowed"), ("--resume", "nosuch", "nosuch: there is no such file"),
])
def test_a_wrong_setting_is_named_before_a_file_is_read(flag, value, message, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_bytes(b"one\0two")              # reading would be another error
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "words", str(text), "--output", str(tmp_path / "w"), f"{flag}={value}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"argument {flag}: " in said
    assert message in said
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(("content", "message"), [
    (b"", "the file has no text; it must have at least one word"),
    (b"one\ntwo\0three", "line 2: it has a null byte"),
    (b"only a few words", "only 0 words are seen 5 times or more"),
])
def test_a_wrong_file_is_named_with_what_is_wrong(content, message, tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    assert cli.main(["train", "words", str(path), "--output", str(tmp_path / "w")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "text.txt" in error


def test_without_rich_and_matplotlib_the_command_prints_plain_lines(trained, tmp_path, monkeypatch, capsys):
    folder, _ = trained
    monkeypatch.setitem(sys.modules, "rich.console", None)
    vectors = str(folder / "words" / "vectors.txt")
    assert cli.main(["neighbours", vectors, "string", "-n", "2", "--format", "table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "word\tneighbour\tcosine"
    assert [line.split("\t")[0] for line in lines[1:]] == ["string", "string"]


def test_the_version_and_the_configuration_are_shown(tmp_path):
    assert run("--version", folder=tmp_path).stdout.strip() == f"sparseopt {__version__}"
    assert "instruction set" in run("config", folder=tmp_path).stdout


@pytest.mark.skipif(not NOVELS.is_dir(), reason=f"the novels are not at {NOVELS}")
def test_neighbours_in_novels_make_sense(tmp_path):
    war_and_peace = NOVELS / "2600-0.txt"
    result = run("train", "words", war_and_peace, "--min-count", 20, "--epochs", 6, "--dim", 50, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    vectors = gensim.models.KeyedVectors.load_word2vec_format(str(tmp_path / "words" / "vectors.txt"))
    assert {"princess", "mary", "bolkónski", "andrew"} & {word for word, _ in vectors.most_similar("prince", topn=10)}
    assert np.isfinite(vectors.vectors).all()
