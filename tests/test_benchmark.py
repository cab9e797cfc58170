"""The benchmark measures the same step of all contestants, a reference loop on the same rows, and their traffic."""

import json

import numpy as np
import pytest

from sparseopt import _kernels, cli
from sparseopt._bench import race as race_module
from sparseopt._bench.cases import FORMS, PER_SAMPLE, Case
from sparseopt._bench.race import Race

SMALL = {"table": 500, "rows": 60, "dim": 8}


@pytest.fixture(autouse=True)
def _few_batches(monkeypatch):
    monkeypatch.setattr(race_module, "_MOST_BATCHES", 16)     # a case with small batches would have thousands


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipf", [0.0, 1.1])
def test_a_batch_is_the_same_gradient_in_every_form(form, zipf):
    case = Case(**SMALL, form=form, zipf=zipf, order="random")
    race = Race(case, [])
    batch = race.batches[0]
    gradient = batch.gradient
    if form == "rows":
        dense = np.zeros((case.table, case.dim), np.float32)
        np.add.at(dense, gradient.rows, gradient.values)
    elif form == "matmul":
        dense = gradient.X.T @ gradient.dY
    else:
        dense = gradient if form == "dense" else gradient.toarray()
    again = np.zeros_like(dense)
    if form == "matmul":
        assert gradient.X.shape == (case.rows, case.table)
        assert np.diff(gradient.X.indptr).tolist() == [PER_SAMPLE] * case.rows
    else:
        np.add.at(again, batch.drawn, batch.values)
        np.testing.assert_allclose(dense, again, rtol=1e-5)
    np.testing.assert_array_equal(batch.unique, np.flatnonzero(dense.any(axis=1)))
    if not zipf and form != "matmul":
        assert race.touched == (case.table if form == "dense" else case.rows)


@pytest.mark.parametrize("zipf", [0.0, 1.1])
@pytest.mark.parametrize("rule", ["SGD", "RowwiseAdagrad", "Adam", "Ftrl"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("threads", "order"), [(1, "random"), (3, "rising")])
def test_the_reference_loop_adds_the_gradient_to_all_that_the_rule_writes(rule, zipf, dtype, threads, order):
    race = Race(Case(table=5000, rows=2000, dim=24, threads=threads, rule=rule, zipf=zipf, dtype=dtype,
                     order=order), [])
    batch = race.batches[0]
    expected = np.zeros((5000, 24), dtype)
    np.add.at(expected, batch.drawn, batch.values)
    references = [name for name in race.contestants if name.startswith("reference")]
    assert len(references) > 3
    for count, name in enumerate(references, start=1):
        before = [array.copy() for array in race.arrays]
        race.contestants[name].step(batch)
        for array, old in zip(race.arrays, before, strict=True):
            np.testing.assert_allclose(array, old + expected, rtol=1e-4, err_msg=name)
        touched = expected.any(axis=1)
        for array in [*race.numbers, *([] if race.steps is None else [race.steps])]:
            np.testing.assert_array_equal(array, count * touched)
    state = race.opt.state[0]
    assert len(race.arrays) + len(race.numbers) + (race.steps is not None) == 1 + len(state)


def test_the_reference_loop_of_a_dense_gradient_touches_all_rows():
    race = Race(Case(table=3000, rows=100, dim=16, form="dense", rule="SGD"), [])
    batch, before = race.batches[0], race.arrays[0].copy()
    race.contestants["reference (16, 4, False, 0, 0)"].step(batch)
    np.testing.assert_allclose(race.arrays[0], before + batch.gradient, rtol=1e-6)


def test_gradients_are_made_before_anything_is_timed():
    for form in FORMS:
        race = Race(Case(**SMALL, form=form), [])
        assert all("gradient" in vars(batch) for batch in race.batches), form


def test_the_traffic_is_every_value_once_and_every_touched_row_twice():
    race = Race(Case(**SMALL), [])
    assert race.bytes == 60 * (8 * 4) + 60 * 2 * (3 * 8 * 4 + 4)
    race = Race(Case(**SMALL, rule="RowwiseAdagrad", zipf=1.1, dtype="float64"), [])
    assert race.bytes == pytest.approx(60 * 8 * 8 + race.touched * 2 * (8 * 8 + 8))


@pytest.mark.parametrize("zipf", [0.0, 1.1])
@pytest.mark.parametrize("rule", ["SGD", "Adagrad", "Adam"])
def test_the_numpy_peer_does_our_step(rule, zipf):
    race = Race(Case(**SMALL, rule=rule, zipf=zipf, dtype="float64"), ["numpy"])
    table = race.arrays[0]
    theirs = race.contestants["NumPy"].step
    w = theirs.__closure__[theirs.__code__.co_freevars.index("w")].cell_contents
    np.testing.assert_array_equal(table, w)
    for batch in [*race.batches, *race.batches]:
        race.opt.step(batch.gradient)
        theirs(batch)
    np.testing.assert_allclose(w, table, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("zipf", [0.0, 1.1])
def test_the_torch_peer_does_our_step(zipf):
    pytest.importorskip("torch")
    race = Race(Case(**SMALL, rule="SGD", zipf=zipf, dtype="float64"), ["torch"])
    theirs = race.contestants["torch SGD sparse"].step
    parameter = theirs.__closure__[theirs.__code__.co_freevars.index("parameter")].cell_contents
    race.opt.param_groups[0]["lr"] = 1e-3
    for batch in race.batches:
        race.opt.step(batch.gradient)
        theirs(batch)
    np.testing.assert_allclose(parameter.detach().numpy(), race.arrays[0], rtol=1e-12, atol=1e-15)


def test_torch_takes_part_with_sparse_and_dense_steps():
    pytest.importorskip("torch")
    race = Race(Case(**SMALL), ["torch"])
    race.batches = race.batches[:8]
    assert {"torch SparseAdam", "torch dense Adam"} <= set(race.contestants)
    result = race.run(repeats=1, seconds=0.001)
    assert set(result.peers) == {"torch SparseAdam", "torch dense Adam"}


def test_extra_memory_counts_the_plan_and_the_scratch():
    rising = Race(Case(table=5000, rows=2000, dim=8), []).extra_memory()
    random = Race(Case(table=5000, rows=2000, dim=8, order="random"), []).extra_memory()
    few = Race(Case(table=5000, rows=100, dim=8, order="random"), []).extra_memory()
    runs = Race(Case(table=5000, rows=2000, dim=8, zipf=1.05), []).extra_memory()
    repeated = Race(Case(table=5000, rows=2000, dim=8, zipf=1.05, order="random"), []).extra_memory()
    copy = 4 * 2000                                         # of the row numbers
    assert copy <= rising < copy + 5000                     # no plan
    # One bit for each row of the table finds repeats.
    assert copy + 5000 / 8 <= random < copy + 5000 / 8 + 5000
    assert 4 * 8 * 100 <= few < 4 * 8 * 100 + 400 + 5000    # four words for each sorted row
    # Without a sort, the plan has two words for each touched row and one byte for each entry.
    assert 8 * 500 <= runs < 3 * 8 * 2000
    assert 4 * 8 * 2000 <= repeated < 5 * 8 * 2000 + 8192
    large = Race(Case(table=50_000, rows=2000, dim=8, zipf=1.05, order="random"), []).extra_memory()
    assert large < 5 * 8 * 2000 + 8192                      # this does not depend on the size of the table


@pytest.mark.parametrize("isa", _kernels.available)
def test_a_case_runs_on_the_instruction_set_it_names(isa):
    race = Race(Case(**SMALL, isa=isa), [])
    assert type(race.opt._parameters[0].sweep).__module__ == f"sparseopt._kernels.{isa}"
    assert _kernels.Sweep.__module__ == f"sparseopt._kernels.{_kernels.isa}"


@pytest.mark.parametrize(("axis", "value", "said"), [
    ("rule", "Adan", "rule is 'Adan'; it must be one of SGD"),
    ("form", "bsr", "form is 'bsr'; it must be one of rows"),
    ("order", "falling", "order is 'falling'"),
    ("dtype", "float16", "dtype is 'float16'"),
    ("isa", "neon9", "isa is 'neon9'"),
    ("dim", 0, "dim is 0; it must be at least 1"),
    ("threads", -1, "threads is -1; it must be at least 1"),
    ("threads", 5000, "threads is 5000; it must be an integer of at least 1 and at most 1024"),
    ("zipf", -0.5, "zipf is -0.5; it must be finite and at least 0"),
    ("zipf", float("nan"), "zipf is nan; it must be finite and at least 0"),
    ("missed", "replays", "missed is 'replays'; it must be one of skip, replay"),
    ("rows", 2_000_000, "rows is 2000000; with zipf=0 it must be at most 1000000, the rows of the table"),
])
def test_a_wrong_axis_is_named(axis, value, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        Case(**{axis: value})


def test_replay_runs_beside_skip_and_a_catch_up_of_all_rows():
    race = Race(Case(**SMALL, missed="replay"), ["forms"])
    assert race.opt.missed == "replay"
    assert race.opt.steps == 3000
    result = race.run(repeats=1, seconds=0.001)
    assert result.peers == ["missed skip", "catch_up()"]
    assert (race.opt.stale() >= 0).all()            # the reference loop has not changed the counts
    assert race.opt.stale().max() == race.opt.steps - 3000


def test_the_command_prints_a_line_a_case_and_draws(tmp_path, capsys):
    picture = tmp_path / "bench.png"
    status = cli.main(["bench", "--rule", "Adam,SGD", "--table", "1000", "--rows", "10,100", "--dim", "8",
                       "--repeats", "1", "--peers", "numpy", "--picture", str(picture)])
    assert status == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("dim 8, table 1000, zipf 0.0, order rising, form rows, dtype float32, threads 1, isa ")
    lines = [line.split() for line in out[1:]]
    assert [line[:2] for line in lines if line[0] in ("Adam", "SGD")] == [
        ["Adam", "10"], ["Adam", "100"], ["SGD", "10"], ["SGD", "100"]]
    assert picture.stat().st_size > 5000
    status = cli.main(["bench", "--table", "1000", "--rows", "10,100", "--repeats", "1", "--peers", "none", "--picture",
                       str(picture)])
    assert status == 0


def test_the_command_gives_programs_json(capsys):
    assert cli.main(["bench", "--rule", "SGD", "--table", "1000", "--rows", "10,100", "--repeats", "1",
                     "--peers", "numpy", "--format", "json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert [(one["rule"], one["rows"]) for one in measured] == [("SGD", 10), ("SGD", 100)]
    assert all(one["seconds_per_step"] > 0 and one["peers"]["NumPy"] > 0 for one in measured)


@pytest.mark.parametrize(("arguments", "said"), [
    (["--peers", "numpi"], "--peers names 'numpi'; it must name some of forms, torch, fbgemm, numpy, or be none"),
    (["--rule", "Adan"], "--rule is 'Adan'"),
    (["--picture", "no/such/folder.png"], "--picture is no/such/folder.png; its folder must exist"),
    (["--picture", "bench.xyz"], "--picture is bench.xyz"),
])
def test_the_command_says_what_is_wrong(arguments, said, capsys):
    assert cli.main(["bench", *arguments]) == 2
    assert said in capsys.readouterr().err
