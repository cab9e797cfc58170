"""`train clicks`, `evaluate clicks`, `predict clicks` and `weights` on files as they are found."""

import csv
import json
import re
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from sparseopt import checkpoint, cli, evaluation
from sparseopt.datasets import ClickReader
from sparseopt.models import LogisticRegression

DOCS = Path(__file__).parents[1] / "docs" / "clicks.md"


def run(capsys, *arguments, status=0):
    """Run a command, check how it ends, and return its tables, and its messages in one line."""
    try:
        ended = cli.main([str(argument) for argument in arguments])
    except SystemExit as error:                 # argparse's own errors
        ended = error.code
    captured = capsys.readouterr()
    assert ended == status, captured.err
    return captured.out, " ".join(captured.err.split())


def quality(printed):
    """The numbers of the table of quality."""
    head, row = (line.split("\t") for line in printed.splitlines())
    return dict(zip(head, (float(value.rstrip("%").replace("-", "nan")) for value in row), strict=True))


def clicks_of(rng, z):
    return (rng.random(len(z)) < 1 / (1 + np.exp(-z))).astype(int)


def written(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def log(tmp_path):
    """A function that writes a log of a site and a price, where both tell something."""
    def write(name="train.csv", n=3000, seed=0, header="click,site,price"):
        rng = np.random.default_rng(seed)
        site, price = rng.integers(6, size=n), rng.lognormal(9, 0.7, n)
        click = clicks_of(rng, np.linspace(-2.5, 1.5, 6)[site] - 1.5 * (np.log(price) - 9))
        rows = [f"{c},{'abcdef'[s]},{p:.2f}" for c, s, p in zip(click, site, price, strict=True)]
        return written(tmp_path / name, [*([header] if header else []), *rows])
    return write


def criteo(path, n, seed, labels=True):
    """A file of the layout of Criteo's contest: tabs, no header, the label, 13 counts with gaps, 26 hex texts."""
    rng = np.random.default_rng(seed)
    counts = rng.lognormal(2, 1.5, (n, 13)).astype(int)
    texts = rng.zipf(1.5, (n, 26)) % 30
    click = clicks_of(rng, 1.5 * (np.log1p(counts[:, 0]) - 2) - 2 + 2.5 * (texts[:, 3] % 2))
    lines = []
    for i in range(n):
        cells = [str(click[i])] if labels else []
        cells += ["" if rng.random() < 0.2 and j else str(count) for j, count in enumerate(counts[i])]
        cells += [f"{zlib.crc32(bytes([j, *divmod(text, 256)])):08x}" for j, text in enumerate(texts[i].tolist())]
        lines.append("\t".join(cells))
    return written(path, lines), click


def avazu(path, n, seed, labels=True):
    """A file of the layout of Avazu's contest."""
    rng = np.random.default_rng(seed)
    ids = [f"C{i}" for i in range(14, 22)]
    names = ["id", "click", "hour", "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id",
             "app_domain", "app_category", "device_id", "device_ip", "device_model", "device_type",
             "device_conn_type", *ids]
    site, c14 = rng.zipf(1.6, n) % 40, rng.integers(375, 24052, n) // 500
    click = clicks_of(rng, -1.5 + 2.0 * (site % 2) + 1.5 * (c14 % 3 == 0))
    lines = [",".join(name for name in names if labels or name != "click")]
    for i in range(n):
        row = {"id": str(rng.integers(2**63)), "click": str(click[i]), "hour": f"141021{rng.integers(24):02d}",
               "C1": "1005", "banner_pos": str(rng.integers(2)), "site_id": f"{zlib.crc32(b'%d' % site[i]):08x}",
               **dict.fromkeys(names[6:14], "85f751fd"), "device_ip": f"{rng.integers(2**32):08x}", "device_type": "1",
               "device_conn_type": "0", **dict.fromkeys(ids, "-1"), "C14": str(c14[i])}
        lines.append(",".join(row[name] for name in names if labels or name != "click"))
    return written(path, lines), click


@pytest.mark.parametrize("layout", [criteo, avazu])
def test_the_page_names_one_command_that_trains_on_the_files_of_a_contest(layout, tmp_path, monkeypatch, capsys):
    name, test = ("train.txt", "test.txt") if layout is criteo else ("train.csv", "test.csv")
    text = DOCS.read_text(encoding="utf-8").partition(f"{layout.__name__.capitalize()}'s")[2]
    command = re.search(r"^sparseopt (train clicks .*)$", text, flags=re.M)[1].split()
    assert command[2] == name
    monkeypatch.chdir(tmp_path)
    layout(tmp_path / name, 8000, 1)
    layout(tmp_path / "held_out", 2000, 2)
    _, click = layout(tmp_path / test, 2000, 2, labels=False)
    printed, said = run(capsys, *command, "--test", "held_out")
    assert "tabs, no header; label: 0, the first column" in said or "commas, header; label: click" in said
    found = quality(printed)
    assert found["AUC"] > 0.66
    assert found["log-loss"] < 0.96 * found["of the mean alone"]
    assert quality(run(capsys, "evaluate", "clicks", "clicks/checkpoint.safetensors", "held_out")[0]) == found
    run(capsys, "predict", "clicks", "clicks/checkpoint.safetensors", test, "--output", "p.csv")
    with open("p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(1, 2001))
    assert evaluation.auc(click, [float(row["probability"]) for row in rows]) == pytest.approx(found["AUC"], abs=1e-4)


def test_a_log_without_a_header_is_judged_as_one_with_a_header(log, tmp_path, capsys):
    found = []
    for header in ("click,site,price", None):
        train, test = log(header=header), log("test.csv", seed=1, header=header)
        printed, said = run(capsys, "train", "clicks", train, "--numbers", "2", "--test", test, "--output",
                            tmp_path / str(header))
        found.append(quality(printed))
        assert ("no header" in said) == (header is None)
    assert found[0]["rows"] == found[1]["rows"] == 3000
    assert found[0]["AUC"] > 0.8
    assert found[1]["AUC"] == pytest.approx(found[0]["AUC"], abs=0.01)


def test_large_numbers_are_scaled_and_the_scale_is_kept_for_other_files(log, tmp_path, capsys):
    train, test = log(), log("test.csv", seed=1)
    for how in (["--numbers", "price"], ["--numbers", "auto"], ["--numbers", "price", "--numbers-as", "log"]):
        printed, said = run(capsys, "train", "clicks", train, *how, "--epochs", 5, "--test", test, "--overwrite",
                            "--output", tmp_path / "run")
        assert "numbers: price" in said
        assert quality(printed)["log-loss"] < 0.85 * quality(printed)["of the mean alone"]
        assert quality(printed)["calibration"] == pytest.approx(1, abs=0.1)
    _, said = run(capsys, "train", "clicks", train, "--output", tmp_path / "other")
    assert "column price looks like numbers, and is read as texts (--numbers price or auto)" in said


def test_one_pass_over_a_small_log_is_enough_to_be_calibrated(log, tmp_path, monkeypatch, capsys):
    train, test = log(), log("test.csv", seed=1)
    found = {}
    for name, small in (("small", 2**26), ("large", 0)):
        monkeypatch.setattr(cli.clicks, "_SMALL", small)
        printed, _ = run(capsys, "train", "clicks", train, "--numbers", "price", "--test", test, "--output",
                         tmp_path / name)
        found[name] = quality(printed)
    assert found["small"]["calibration"] == pytest.approx(1, abs=0.1)
    assert found["small"]["log-loss"] < found["large"]["log-loss"] - 0.03
    settings = [LogisticRegression.load(tmp_path / name / "checkpoint.safetensors").batch_size for name in found]
    assert settings == [128, 1024]


def test_one_class_is_an_error_that_names_the_column(tmp_path, capsys):
    path = written(tmp_path / "a.csv", ["click,site", "1,a", "1,b"])
    _, said = run(capsys, "train", "clicks", path, "--output", tmp_path / "run", status=1)
    assert "column click, has one value only, '1'" in said
    assert not (tmp_path / "run").exists()


def test_a_log_sorted_by_its_label_is_trained_with_a_warning(log, tmp_path, capsys):
    head, *rows = log().read_text().splitlines()
    path = written(tmp_path / "sorted.csv", [head, *sorted(rows)])
    _, said = run(capsys, "train", "clicks", path, "--chunk", 500, "--output", tmp_path / "a")
    assert "warning: the order of the rows tells the label. The label of 1 of 2,999 rows differs" in said
    _, said = run(capsys, "train", "clicks", log(), "--chunk", 500, "--output", tmp_path / "b")
    assert "the order of the rows" not in said
    _, said = run(capsys, "compare", "clicks", path, "--optimizers", "sgd", status=1)
    assert "If the rows are sorted by the label, shuffle the file" in said


def test_a_model_that_is_worse_than_the_mean_alone_is_said_to_be(log, tmp_path, capsys):
    train, test = log(), log("test.csv", seed=1)
    flipped = [f"{1 - int(row[0])}{row[1:]}" for row in test.read_text().splitlines()[1:]]
    run(capsys, "train", "clicks", train, "--output", tmp_path / "run")
    model = tmp_path / "run" / "checkpoint.safetensors"
    assert "worse than the mean" not in run(capsys, "evaluate", "clicks", model, test)[1]
    printed, said = run(capsys, "evaluate", "clicks", model, written(test, ["click,site,price", *flipped]))
    assert "warning: the model is worse than the mean of these rows alone" in said
    assert quality(printed)["log-loss"] > quality(printed)["of the mean alone"]


def test_the_quality_on_the_test_file_is_in_the_summary(log, tmp_path, capsys):
    train, test = log(), log("test.csv", seed=1)
    printed, _ = run(capsys, "train", "clicks", train, "--numbers", "price", "--epochs", 2, "--test", test, "--output",
                     tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "run.json").read_text())
    assert summary["quality"]["log_loss"] == pytest.approx(quality(printed)["log-loss"], abs=1e-5)
    assert [epoch["epoch"] for epoch in summary["epochs"]] == [1, 2]
    assert summary["epochs"][1]["auc"] == summary["quality"]["auc"]
    assert summary["epochs"][0]["loss"] > summary["epochs"][1]["loss"]
    assert summary["data"]["rows"] == 6000


@pytest.mark.parametrize(("arguments", "status", "said"), [
    (["--encoding", "utf-99"], 2, "encoding (--encoding) is 'utf-99'"),
    (["--sep", ""], 2, "sep (--sep) is ''"),
    (["--l1", "1", "--optimizer", "adam"], 2, "only Ftrl has an l1 penalty"),
    (["--numbers-as", "bins"], 2, "argument --numbers-as: invalid choice"),
    (["--n-features", "0"], 2, "argument --n-features: 0 is not allowed"),
    (["--label", "clicked"], 1, "'clicked' names no column, or several"),
    (["--numbers", "site"], 1, "line 2: column site has 'a'"),
    (["--sep", ";"], 1, "sep (--sep) must be the separator of the file"),
    (["--file-format", "libsvm"], 1, "line 1: could not convert string to float: b'click,site,price'"),
])
def test_what_is_wrong_with_an_option_is_said_and_nothing_is_written(arguments, status, said, tmp_path, capsys):
    path = written(tmp_path / "a.csv", ["click,site,price", "1,a,1", "0,b,2"])
    assert said in run(capsys, "train", "clicks", path, *arguments, "--output", tmp_path / "run", status=status)[1]
    assert not (tmp_path / "run").exists()


def test_a_test_file_that_does_not_fit_is_refused_before_training(log, tmp_path, capsys):
    test = written(tmp_path / "test.csv", ["click,place", "1,a", "0,b"])
    _, said = run(capsys, "train", "clicks", log(), "--test", test, "--output", tmp_path / "run", status=1)
    assert "test.csv: the column site, price is missing; the file has click, place" in said
    assert not (tmp_path / "run").exists()


class Killed(BaseException):
    pass


def at_chunk(monkeypatch, number, event):
    """Have `event` happen while this chunk of the training is trained."""
    train, chunks = LogisticRegression.partial_fit, []

    def partial_fit(self, *arguments, **named):
        chunks.append(1)
        if len(chunks) == number:
            event()
        return train(self, *arguments, **named)

    monkeypatch.setattr(LogisticRegression, "partial_fit", partial_fit)


@pytest.mark.parametrize("chunk", [1, 4, 7, 12])
def test_ctrl_c_keeps_the_work_and_a_resumed_stream_has_the_bits_of_one_that_never_stopped(
        chunk, log, tmp_path, monkeypatch, capsys):
    """Two files of 3 chunks each, the last one short, in 2 epochs."""
    files = [log("a.csv", 1100), log("b.csv", 1300, seed=1)]
    how = ["--numbers", "price", "--names", "--chunk", 500, "--batch-size", 64, "--epochs", 2]
    run(capsys, "train", "clicks", *files, *how, "--output", tmp_path / "whole")
    with monkeypatch.context() as patch:
        at_chunk(patch, chunk, lambda: signal.raise_signal(signal.SIGINT))
        _, said = run(capsys, "train", "clicks", *files, *how, "--output", tmp_path / "part", status=130)
    part = tmp_path / "part" / "checkpoint.safetensors"
    command = rf"sparseopt train clicks .*--resume {re.escape(str(part))}"
    assert re.search(rf"the work so far is saved, and training goes on behind .* with: {command}", said)
    assert "Traceback" not in said
    if chunk > 6:
        assert "--epochs is 1; the checkpoint is in epoch 2 already" in run(
            capsys, "train", "clicks", *files, "--resume", part, "--epochs", 1, status=2)[1]
    assert json.loads((tmp_path / "part" / "run.json").read_text())["ended"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    _, said = run(capsys, "train", "clicks", *files, "--resume", part)
    assert part.read_bytes() == (tmp_path / "whole" / "checkpoint.safetensors").read_bytes()
    whole, resumed = (json.loads((tmp_path / name / "run.json").read_text())["epochs"] for name in ("whole", "part"))
    for epoch, again in zip(whole, resumed, strict=True):
        assert {**epoch, "seconds": 0} == {**again, "seconds": 0}


def test_a_second_ctrl_c_ends_at_once_and_the_last_checkpoint_stays(log, tmp_path, monkeypatch, capsys):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_chunk(monkeypatch, 3, twice)
    files = [log("a.csv", 900), log("b.csv", 900)]
    run(capsys, "train", "clicks", *files, "--chunk", 500, "--output", tmp_path / "run", status=130)
    assert checkpoint.load(tmp_path / "run" / "checkpoint.safetensors").metadata["stream"]["file"] == 1


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_training_goes_on_behind_its_last_file(log, tmp_path, capsys):
    files = [log("a.csv", 900), log("b.csv", 900, seed=1)]
    program = ("import os, signal, sys\nfrom sparseopt import cli\nfrom sparseopt.models import LogisticRegression\n"
               "train, calls = LogisticRegression.partial_fit, []\n"
               "def partial_fit(*arguments, **named):\n"
               "    calls.append(1)\n"
               "    if len(calls) == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
               "    return train(*arguments, **named)\n"
               "LogisticRegression.partial_fit = partial_fit\n"
               "cli.main(sys.argv[1:])\n")
    how = ["train", "clicks", *map(str, files), "--numbers", "price", "--chunk", "500", "--output"]
    killed = subprocess.run([sys.executable, "-c", program, *how, str(tmp_path / "part")], cwd=tmp_path,
                            capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run(capsys, *how, tmp_path / "whole")
    _, said = run(capsys, "train", "clicks", *files, "--resume", tmp_path / "part" / "checkpoint.safetensors")
    assert f"training goes on behind row 0 of {files[1]}, in epoch 1 of 1" in said
    part, whole = ((tmp_path / name / "checkpoint.safetensors").read_bytes() for name in ("part", "whole"))
    assert part == whole


def test_a_checkpoint_comes_from_time_to_time(log, tmp_path, monkeypatch, capsys):
    path = log(n=1900)
    how = ["train", "clicks", path, "--numbers", "price", "--chunk", 500, "--output"]
    run(capsys, *how, tmp_path / "whole")

    def die():
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(cli.clicks, "_SAVED", -1)             # seconds
        at_chunk(patch, 3, die)
        with pytest.raises(Killed):
            run(capsys, *how, tmp_path / "part")
    part = tmp_path / "part" / "checkpoint.safetensors"
    assert f"training goes on behind row 1,000 of {path}" in run(capsys, "train", "clicks", path, "--resume", part)[1]
    assert part.read_bytes() == (tmp_path / "whole" / "checkpoint.safetensors").read_bytes()


def test_a_wrong_line_keeps_the_rows_before_and_training_goes_on_once_it_is_mended(log, tmp_path, capsys):
    path = log(n=1200)
    lines = path.read_text().splitlines()
    how = ["train", "clicks", path, "--numbers", "price", "--chunk", 500]
    run(capsys, *how, "--output", tmp_path / "whole")
    written(path, [*lines[:1101], "1,a,cheap", *lines[1102:]])
    _, said = run(capsys, *how, "--output", tmp_path / "part", status=1)
    assert "line 1102: column price has 'cheap'" in said
    assert "goes on behind row 1,000 of" in said
    assert json.loads((tmp_path / "part" / "run.json").read_text())["ended"] == "failed"
    written(path, lines)
    part = tmp_path / "part" / "checkpoint.safetensors"
    run(capsys, "train", "clicks", path, "--resume", part)
    assert part.read_bytes() == (tmp_path / "whole" / "checkpoint.safetensors").read_bytes()


def test_resuming_with_other_files_trains_on_these_from_their_first_row(log, tmp_path, capsys):
    first, second = log("a.csv", 1000), log("b.csv", 1000, seed=1)
    run(capsys, "train", "clicks", first, "--numbers", "price", "--output", tmp_path / "run")
    model = tmp_path / "run" / "checkpoint.safetensors"
    _, said = run(capsys, "train", "clicks", second, "--resume", model, "--output", tmp_path / "more")
    assert "as in the training: label: click (1 is a click, 0 is none); numbers: price" in said
    assert "1,000 rows, progressive loss" in said
    reader = ClickReader(numbers=["price"])
    expected = LogisticRegression(shuffle=False, batch_size=128)
    for path in (first, second):
        for X, y in reader.read(path, training=True):
            expected.partial_fit(X, y, classes=[False, True])
    resumed = LogisticRegression.load(tmp_path / "more" / "checkpoint.safetensors")
    assert resumed.coef_.tobytes() == expected.coef_.tobytes()
    for option in (["--label", "click"], ["--n-features", 10], ["--names"], ["--lr", 1]):
        assert f"{option[0]} does not go with --resume" in run(
            capsys, "train", "clicks", second, "--resume", model, *option, status=2)[1]
    empty = written(tmp_path / "empty.csv", ["click,site,price"])
    assert "empty.csv: there are no rows" in run(
        capsys, "train", "clicks", empty, "--resume", model, "--output", tmp_path / "none", status=1)[1]
    assert "is a checkpoint of LogisticRegression; without --model, the model is that of the" in run(
        capsys, "train", "clicks", second, "--resume", model, "--model", "fm", status=2)[1]


def test_a_new_log_under_the_name_of_an_interrupted_one_is_trained_from_its_first_row(
        log, tmp_path, monkeypatch, capsys):
    path = log(n=1200)
    with monkeypatch.context() as patch:
        at_chunk(patch, 1, lambda: signal.raise_signal(signal.SIGINT))
        run(capsys, "train", "clicks", path, "--chunk", 500, "--output", tmp_path / "run", status=130)
    model = tmp_path / "run" / "checkpoint.safetensors"
    other = log("other.csv", 1200, seed=2)
    for given, why in ((other, "other files are given now"), (log(n=1200, seed=1), "first lines of these files have")):
        _, said = run(capsys, "train", "clicks", given, "--resume", model, "--output", tmp_path / given.stem)
        assert why in said
        assert "1,200 rows, progressive loss" in said


def test_a_training_that_diverges_names_the_rate(log, tmp_path, capsys):
    _, said = run(capsys, "train", "clicks", log(), "--numbers", "price", "--optimizer", "sgd", "--lr", "1e6",
                  "--batch-size", 1, "--output", tmp_path / "run", status=1)
    assert "the training diverged in epoch 1" in said
    assert "The learning rate is 1e+06" in said
    assert json.loads((tmp_path / "run" / "run.json").read_text())["ended"] == "failed"


def test_predictions_need_no_labels_and_go_to_any_kind_of_table(log, tmp_path, capsys):
    train = log()
    rows = [line.split(",") for line in log("test.csv", 50, seed=1).read_text().splitlines()]
    unlabelled = written(tmp_path / "unlabelled.tsv", ["\t".join([row[2], row[1]]) for row in rows])
    run(capsys, "train", "clicks", train, "--numbers", "price", "--output", tmp_path / "run")
    model = tmp_path / "run" / "checkpoint.safetensors"
    for path in (tmp_path / "test.csv", unlabelled):
        run(capsys, "predict", "clicks", model, path, "--output", tmp_path / "p.jsonl")
        found = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
        (X, _), = ClickReader.from_state(checkpoint.load(model).metadata).read(path, labels=False)
        expected = LogisticRegression.load(model).predict_proba(X)[:, 1]
        assert [row["probability"] for row in found] == expected.tolist()
    printed, _ = run(capsys, "predict", "clicks", model, unlabelled, tmp_path / "test.csv", "--format", "json")
    table = json.loads(printed)
    assert [(row["file"], row["row"]) for row in table] == [
        (str(path), i) for path in (unlabelled, tmp_path / "test.csv") for i in range(1, 51)]
    said = run(capsys, "predict", "clicks", model, unlabelled, "--output", tmp_path / "p.xls", status=2)[1]
    assert "--output is" in said
    wrong = written(tmp_path / "wrong.csv", ["site,city", "a,Rome"])
    assert "the column price is missing" in run(capsys, "predict", "clicks", model, wrong, status=1)[1]


def test_a_file_whose_values_are_written_otherwise_is_said_before_it_is_judged(log, tmp_path, capsys):
    train = log()
    test = written(tmp_path / "test.csv", ["click,site,price", "1,A,5", "0,B,7"])
    _, said = run(capsys, "train", "clicks", train, "--numbers", "price", "--test", test, "--output", tmp_path / "run")
    warning = f"warning: {test}: none of the values of column site was in the first rows of the training: 'A', 'B'; "
    assert warning in said
    model = tmp_path / "run" / "checkpoint.safetensors"
    for command in ("evaluate", "predict"):
        assert warning in run(capsys, command, "clicks", model, test)[1]
        assert "warning: " not in run(capsys, command, "clicks", model, train)[1]


def test_weights_are_shown_by_the_names_of_features(log, tmp_path, capsys):
    run(capsys, "train", "clicks", log(), "--numbers", "price", "--names", "--epochs", 5, "--output", tmp_path / "run")
    model = tmp_path / "run" / "checkpoint.safetensors"
    coef = LogisticRegression.load(model).coef_[0]
    table = json.loads(run(capsys, "weights", model, "-n", 4, "--format", "json")[0])
    assert (table[0]["feature"], table[0]["number"]) == ("(intercept)", None)
    table = table[1:]
    assert [abs(row["weight"]) for row in table] == sorted((abs(row["weight"]) for row in table), reverse=True)
    assert len(table) == 4
    for row in table:
        assert row["number"] == zlib.crc32(row["feature"].encode()) % 2**20
        assert row["weight"] == coef[row["number"]]
    run(capsys, "weights", model, "--output", tmp_path / "weights.csv")
    with open(tmp_path / "weights.csv", newline="") as file:
        everything = {row["feature"]: float(row["weight"]) for row in csv.DictReader(file)}
    assert everything["(intercept)"] == LogisticRegression.load(model).intercept_[0]
    assert set(everything) == {"(intercept)", "price", *(f"site={site}" for site in "abcdef")}
    assert everything["site=f"] > everything["site=a"]
    printed, said = run(capsys, "weights", model, "price", "site=z")
    assert [line.split("\t")[0] for line in printed.splitlines()] == ["feature", "price", "site=z"]
    assert "site=z is not among the names of the training" in said
    assert "-n does not go with FEATURE" in run(capsys, "weights", model, "price", "-n", 3, status=2)[1]


def test_weights_without_names_have_numbers_and_features_that_collide_are_listed(log, tmp_path, capsys):
    path = log()
    run(capsys, "train", "clicks", path, "--skip", "price", "--output", tmp_path / "a")
    printed, said = run(capsys, "weights", tmp_path / "a" / "checkpoint.safetensors", "--format", "json")
    assert "no names of features; train with --names, or give a FEATURE" in said
    rows = json.loads(printed)[1:]              # after the intercept
    assert {row["number"] for row in rows} == {zlib.crc32(b"site=%c" % c) % 2**20 for c in b"abcdef"}
    assert {row["feature"] for row in rows} == {None}
    run(capsys, "train", "clicks", path, "--skip", "price", "--names", "--n-features", 1, "--output", tmp_path / "b")
    printed, _ = run(capsys, "weights", tmp_path / "b" / "checkpoint.safetensors", "site=a", "--format", "json")
    assert sorted(json.loads(printed)[0]["shares its weight with"].split(", ")) == [f"site={site}" for site in "bcdef"]
    svm = written(tmp_path / "log", ["1 3:1 7:1", "0 3:1", "0 3:1"])
    run(capsys, "train", "clicks", svm, "--output", tmp_path / "c")
    printed, _ = run(capsys, "weights", tmp_path / "c" / "checkpoint.safetensors", "--format", "json")
    assert {row["feature"] for row in json.loads(printed)} == {"(intercept)", "3", "7"}


def test_a_checkpoint_that_does_not_say_how_its_log_was_read_is_refused(tmp_path, capsys, log):
    X, y = next(ClickReader().read(log()))
    LogisticRegression().fit(X, y).save(tmp_path / "checkpoint")
    assert "it does not say how the log was read" in run(capsys, "evaluate", "clicks", tmp_path / "checkpoint", log(),
                                                         status=1)[1]


def test_compare_names_a_command_with_all_options_of_reading(tmp_path, log, capsys):
    path = log(header=None)
    how = ["--no-header", "--label", "0", "--numbers", "2", "--numbers-as", "log", "--sep", ",",
           "--encoding", "latin-1"]
    _, said = run(capsys, "compare", "clicks", path, *how, "--optimizers", "adagrad,ftrl", "--lr", "0.1", "--epochs", 2)
    command = re.search(r"on all of the data: sparseopt (.*)", said)[1].split()
    assert "no header; label: 0 (1 is a click, 0 is none); numbers: 2 (in steps" in run(
        capsys, *command, "--output", tmp_path / "run")[1]
