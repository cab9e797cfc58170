"""What all commands share: tables for people and programs, the output folder, Ctrl-C, divergence, exit statuses."""

import argparse
import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from sparseopt import cli
from sparseopt.cli import _output, _run
from sparseopt.models import MatrixFactorization

COLUMNS = ["item", ("score", ".2f"), ("plays", ",d")]
ROWS = [("a\tb", 0.12345, 12345), ("größe\x1b[2J", float("nan"), None)]


@pytest.fixture
def ratings(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{user},{item},{rng.integers(1, 6)},{rng.integers(10**9)}"
             for user in range(40) for item in rng.permutation(30)[:10]]
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(["userId,movieId,rating,timestamp", *lines]))
    return path


def output(form=None):
    return _output.Output(argparse.Namespace(format=form))


def test_a_table_is_lines_with_tabs_where_stdout_is_no_terminal(capsys):
    output().table(COLUMNS, ROWS)
    assert capsys.readouterr().out.splitlines() == [
        "item\tscore\tplays", "a\\tb\t0.12\t12345", "größe\\x1b[2J\t-\t-"]


def test_a_table_as_json_has_numbers_and_the_texts_as_they_are(capsys):
    output("json").table(COLUMNS, ROWS)
    assert json.loads(capsys.readouterr().out) == [
        {"item": "a\tb", "score": 0.12345, "plays": 12345}, {"item": "größe\x1b[2J", "score": None, "plays": None}]


def test_messages_do_not_mix_with_tables(capsys):
    output("json").say("reading")
    assert capsys.readouterr() == ("", "reading\n")


def test_a_console_that_cannot_show_a_letter_gets_an_escape(monkeypatch):
    for form, said in (("plain", "gr\\xf6\\xdfe"), ("json", "gr\\u00f6\\u00dfe"), ("table", "gr\\xf6\\xdfe")):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
        output(form).table(["word"], [["größe"]])
        assert said.encode() in raw.getvalue(), form


@pytest.mark.parametrize("end", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_a_table_file_holds_all_rows_with_all_digits(end, tmp_path):
    path = tmp_path / "new" / f"table{end}"
    rows = [("größe, a", 1 / 3, 7), ('say "x"', np.float32(0.1), np.int64(8))]
    _output.check_table_path("--output", path)
    _output.write_table(path, COLUMNS, iter(rows))
    if end in (".csv", ".tsv"):
        with open(path, encoding="utf-8", newline="") as file:
            head, *read = csv.reader(file, delimiter="," if end == ".csv" else "\t")
        read = [dict(zip(head, (row[0], float(row[1]), int(row[2])), strict=True)) for row in read]
    elif end == ".parquet":
        read = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    else:
        text = path.read_text(encoding="utf-8")
        read = json.loads(text) if end == ".json" else list(map(json.loads, text.splitlines()))
    assert read == [{"item": name, "score": float(score), "plays": int(plays)} for name, score, plays in rows]


def test_a_table_file_without_rows_has_its_columns(tmp_path):
    for end in (".csv", ".json", ".parquet"):
        _output.write_table(tmp_path / f"t{end}", COLUMNS, [])
    assert (tmp_path / "t.csv").read_text() == "item,score,plays\n"
    assert json.loads((tmp_path / "t.json").read_text()) == []
    assert pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "t.parquet").column_names == [
        "item", "score", "plays"]


def test_a_path_that_no_table_can_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path, said in ((tmp_path / "t.xls", "must end in one of"), (tmp_path / "file" / "t.csv", "is no folder")):
        with pytest.raises(_output.UsageError, match=said):
            _output.check_table_path("--output", path)


def test_the_files_of_another_run_are_kept_without_overwrite(ratings, tmp_path, capsys):
    train = ["train", "ratings", str(ratings), "--dim", "2", "--epochs", "1", "--output", str(tmp_path / "run")]
    assert cli.main(train) == 0
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    capsys.readouterr()
    assert cli.main([*train, "--random-state", "1"]) == 2
    assert "--output: " in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before
    assert cli.main([*train, "--random-state", "1", "--overwrite"]) == 0
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() != before


def test_a_resumed_run_writes_beside_its_checkpoint_and_keeps_the_quality_of_all_epochs(ratings, tmp_path, capsys):
    folder = tmp_path / "run"
    train = ["train", "ratings", str(ratings), "--model", "explicit", "--dim", "2"]
    assert cli.main([*train, "--epochs", "2", "--output", str(folder)]) == 0
    capsys.readouterr()
    first = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert first["ended"] == "finished"
    assert first["settings"]["dim"] == 2
    assert first["command"].startswith("sparseopt train ratings")
    assert {"sparseopt", "numpy", "scipy", "python"} <= set(first["versions"])
    assert cli.main(["train", "ratings", str(ratings), "--model", "explicit", "--epochs", "3", "--format", "json",
                     "--resume", str(folder / "checkpoint.safetensors")]) == 0
    assert json.loads(capsys.readouterr().out) == []            # there is no table without held-out ratings
    again = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert again["epochs"][:2] == first["epochs"]
    assert [epoch["epoch"] for epoch in again["epochs"]] == [1, 2, 3]
    assert len(MatrixFactorization.load(folder / "checkpoint.safetensors").loss_curve_) == 3
    capsys.readouterr()


def test_a_copy_beside_the_checkpoint_is_resumed_without_loss_of_the_checkpoint(ratings, tmp_path, capsys):
    def resumed(*options):
        return cli.main(["train", "ratings", str(ratings), "--epochs", "3", "--resume", str(copy), *options])

    folder = tmp_path / "run"
    assert cli.main(["train", "ratings", str(ratings), "--epochs", "2", "--output", str(folder)]) == 0
    last, copy = folder / "checkpoint.safetensors", folder / "copy.safetensors"
    copy.write_bytes(last.read_bytes())
    assert resumed() == 2
    assert "has the files of another run" in capsys.readouterr().err
    assert last.read_bytes() == copy.read_bytes()
    assert resumed("--overwrite") == 0
    assert len(json.loads((folder / "run.json").read_text())["epochs"]) == 3
    last.unlink()
    assert resumed() == 0


def test_an_interrupt_keeps_the_work_and_ends_with_130(ratings, tmp_path, capsys, monkeypatch):
    calls = []

    def interrupt(self, *report):               # in the second batch of the third epoch
        calls.append(report)
        if report[0] == 2 and report[1] > 64:
            raise KeyboardInterrupt

    monkeypatch.setattr(_run.Bar, "show", interrupt)
    folder = tmp_path / "run"
    assert cli.main(["train", "ratings", str(ratings), "--model", "explicit", "--dim", "2", "--batch-size", "64",
                     "--epochs", "9", "--output", str(folder)]) == 130
    said = capsys.readouterr().err
    assert "--resume" in said
    assert "Traceback" not in said
    monkeypatch.undo()
    model = MatrixFactorization.load(folder / "checkpoint.safetensors")
    assert len(model.loss_curve_) == 2
    assert model.optimizer_.steps == 2 * 7 + 2           # 400 ratings in batches of 64
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["ended"] == "interrupted"
    assert cli.main(["train", "ratings", str(ratings), "--model", "explicit",
                     "--resume", str(folder / "checkpoint.safetensors")]) == 0
    assert len(MatrixFactorization.load(folder / "checkpoint.safetensors").loss_curve_) == 9


@pytest.mark.parametrize("rate", ["1e30", "1e3"])
def test_a_training_that_diverges_says_so_and_names_the_rate(rate, ratings, tmp_path, capsys):
    """1e30 leads to NaN in a gradient. With 1e3 all numbers stay finite for a while, but the loss grows."""
    assert cli.main(["train", "ratings", str(ratings), "--model", "explicit", "--dim", "2", "--optimizer", "sgd",
                     "--lr", rate, "--batch-size", "16", "--output", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "the training diverged in epoch 1" in said
    assert f"The learning rate is {float(rate):.3g}" in said
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_closed_pipe_is_no_traceback(ratings, tmp_path):
    assert cli.main(["train", "ratings", str(ratings), "--dim", "2", "--epochs", "1", "--output", str(tmp_path)]) == 0
    program = "import sys; from sparseopt import cli; sys.exit(cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "recommend", str(tmp_path / "checkpoint.safetensors"),
               *map(str, range(40)), "-n", "30"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert b"Traceback" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="the shell's way to close a stream")
def test_closed_streams_lose_their_lines_and_nothing_else(ratings, tmp_path):
    command = f'"{sys.executable}" -m sparseopt.cli train ratings "{ratings}" --epochs 1 --held-out 0.2 --output '
    how = {"shell": True, "capture_output": True, "text": True, "cwd": tmp_path}
    quiet = subprocess.run(f'{command} "{tmp_path / "a"}" 2>&-', **how)
    assert quiet.returncode == 0
    assert quiet.stdout.startswith("ratings held out\tmeasure\tvalue\tby popularity\n")
    mute = subprocess.run(f'{command} "{tmp_path / "b"}" >&-', **how)
    assert mute.returncode == 0
    assert "Traceback" not in mute.stderr


def test_names_of_files_need_not_be_utf_8(ratings, tmp_path, capsys):
    strange = tmp_path / os.fsdecode(b"r\xff.csv")
    try:
        ratings.rename(strange)
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    assert cli.main(["train", "ratings", str(strange), "--epochs", "1", "--output", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["file"] == str(strange)
    _output.write_table(tmp_path / "a.json", ["item"], [["\udcff"]])
    assert json.loads((tmp_path / "a.json").read_text()) == [{"item": "\udcff"}]
