"""Trainings by command on shards and on a disk: the checkpoints of memory, resumed anywhere, and Ctrl-C."""

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sparseopt import checkpoint, cli

SETTINGS = {"ratings": ["--dim", "4", "--batch-size", "200"],
            "words": ["--dim", "4", "--batch-size", "500", "--tokens", "whitespace"]}
PLACES = [["--shards", "3"], ["--engine", "local"], ["--disk", "."], ["--disk", ".", "--cache-rows", "300"],
          ["--disk", ".", "--shards", "2", "--cache-rows", "300"]]


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with open("ratings.csv", "w", encoding="utf-8") as file:
        file.write("user,item,rating\n")
        for user in range(80):
            for item in rng.permutation(60)[:12]:
                file.write(f"u{user},i{item},{rng.integers(3, 6)}\n")
    with open("text.txt", "w", encoding="utf-8") as file:
        for _ in range(300):
            file.write(" ".join(f"w{word}" for word in rng.zipf(1.3, 12) % 90) + "\n")


def train(what, *options, status=0):
    command = ["train", what, "ratings.csv" if what == "ratings" else "text.txt"]
    assert cli.main([*command, *options, *([] if "--resume" in options else SETTINGS[what])]) == status


def checksum(folder):
    with open(f"{folder}/checkpoint.safetensors", "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def said(folder):
    with open(f"{folder}/run.json", encoding="utf-8") as file:
        return json.load(file)


@pytest.mark.parametrize(("what", "model"), [("ratings", "implicit"), ("ratings", "explicit"), ("words", "glove"),
                                             ("words", "skipgram"), ("words", "cbow")])
def test_every_place_writes_the_checkpoint_of_memory(what, model, capsys):
    train(what, "--model", model, "--epochs", "2", "--output", "memory")
    assert said("memory")["settings"]["tables"] is None
    before = sorted(os.listdir())
    for number, place in enumerate(PLACES):
        train(what, "--model", model, "--epochs", "2", "--output", f"place{number}", *place)
        assert checksum(f"place{number}") == checksum("memory"), place
    assert sorted(os.listdir()) == sorted([*before, *(f"place{number}" for number in range(len(PLACES)))])
    assert said("place0")["settings"]["tables"] == {"shards": 3, "workers": 1, "engine": "local"}
    assert said("place3")["settings"]["tables"] == {"disk": ".", "cache_rows": 300}


@pytest.mark.parametrize("what", SETTINGS)
def test_a_training_is_resumed_elsewhere_with_the_same_numbers(what, capsys):
    train(what, "--epochs", "4", "--output", "whole")
    train(what, "--epochs", "1", "--output", "parts")
    for epochs, place in ((2, ["--shards", "2"]), (3, []), (4, ["--disk", "."])):
        train(what, "--resume", "parts/checkpoint.safetensors", "--epochs", str(epochs), *place)
    whole, parts = (checkpoint.load(f"{folder}/checkpoint.safetensors") for folder in ("whole", "parts"))
    for name, table in whole.params.items():
        assert table.tobytes() == parts.params[name].tobytes()
    assert whole.metadata["losses"] == parts.metadata["losses"]
    assert [epoch["loss"] for epoch in said("parts")["epochs"]] == whole.metadata["losses"]


@pytest.mark.parametrize("what", SETTINGS)
def test_workers_resume_with_the_numbers_of_a_training_without_a_stop(what, capsys):
    place = ["--shards", "3", "--workers", "2"]
    train(what, "--epochs", "3", "--output", "whole", *place)
    train(what, "--epochs", "1", "--output", "parts", *place)
    train(what, "--resume", "parts/checkpoint.safetensors", "--epochs", "3", *place)
    whole, parts = (checkpoint.load(f"{folder}/checkpoint.safetensors") for folder in ("whole", "parts"))
    for name, table in whole.params.items():
        assert table.tobytes() == parts.params[name].tobytes()
    assert whole.metadata["losses"] == parts.metadata["losses"]


@pytest.mark.parametrize(("options", "message"), [
    (["--cache-rows", "10"], "--cache-rows says how many rows of a table on disk are in memory; it needs --disk"),
    (["--shards", "2", "--loss", "square"], "--shards does not go with --loss square"),
    (["--disk", ".", "--loss", "square"], "--disk does not go with --loss square"),
    (["--disk", ".", "--missed", "replay"], "--disk does not go with --missed replay"),
    (["--disk", "nowhere"], "--disk: nowhere is no folder"),
])
def test_options_that_do_not_go_together_are_refused(options, message, capsys):
    train("ratings", *options, status=2)
    assert message in capsys.readouterr().err
    assert not os.path.exists("ratings")


def test_ray_that_is_not_installed_is_named_with_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    train("ratings", "--engine", "ray", status=2)
    assert "pip install 'sparseopt[sharded]'" in capsys.readouterr().err


def test_a_cache_too_small_for_a_step_ends_with_status_1(capsys):
    train("ratings", "--disk", ".", "--cache-rows", "5", status=1)
    assert "5" in capsys.readouterr().err


ENGINES = [["--shards", "3", "--workers", "2"], ["--disk", "."],
           pytest.param(["--shards", "2", "--engine", "ray"], marks=pytest.mark.skipif(
               not importlib.util.find_spec("ray"), reason="engine ray needs the package ray"))]


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="processes are looked for in /proc")
@pytest.mark.parametrize("whole_group", [True, False])
@pytest.mark.parametrize("place", ENGINES)
def test_an_interrupt_keeps_the_work_and_leaves_no_process(place, whole_group, tmp_path):
    command = [sys.executable, "-m", "sparseopt.cli", "train", "ratings", "ratings.csv", "--epochs", "100000",
               "--output", "part", *SETTINGS["ratings"], *place]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               start_new_session=True, preexec_fn=heed_ctrl_c)
    try:
        until(lambda: process.poll() is not None or (os.path.exists("part/run.json") and said("part")["epochs"]))
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert "interrupted; the work so far is saved" in error
    assert " ".join(place) in error                         # the command that goes on
    assert said("part")["ended"] == "interrupted"
    done = len(said("part")["epochs"])
    assert done >= 1
    until(lambda: not processes_of(process.pid))
    assert sorted(os.listdir()) == ["part", "ratings.csv", "text.txt"]
    train("ratings", "--resume", "part/checkpoint.safetensors", "--epochs", str(done + 1))
    assert said("part")["ended"] == "finished"


def heed_ctrl_c():
    """Undo that a shell starts background jobs, and what they start, with Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def processes_of(session):
    """The processes that began in a session of the system, with their commands."""
    found = {}
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                with open(f"/proc/{number}/cmdline", encoding="utf-8", errors="replace") as file:
                    found[int(number)] = file.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
