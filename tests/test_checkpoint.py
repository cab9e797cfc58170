"""A resumed run gives the bits of a run without a stop, and no failure leaves half of a file or of an optimizer."""

import copy
import json
import math
import os
import random
import signal
import stat
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest

import sparseopt as so
from sparseopt import _tensors
from sparseopt.optimizers import OPTIMIZERS

safetensors_numpy = pytest.importorskip("safetensors.numpy")


def one(shape=(20, 5), dtype=np.float32):
    return lambda seed: so.normal(shape, dtype, seed=seed)


def mapping(seed):
    # A name may hold what separates the parts of a name inside the file.
    return {"user": so.normal((20, 5), seed=seed), "item/of step": so.normal((12, 3), np.float64, seed=seed + 1),
            "": so.normal(7, seed=seed + 2)}


def sequence(seed):
    return [so.normal((20, 5), seed=seed), so.normal((12, 3), seed=seed + 1)]


def named_groups(seed):
    return [{"params": {"user": so.normal((20, 5), seed=seed)}, "lr": 0.03},
            {"params": {"item": so.normal((12, 3), seed=seed), "tag": so.normal(9, seed=seed)}, "weight_decay": 0.02}]


def nameless_groups(seed):
    return [{"params": so.normal((20, 5), seed=seed), "lr": so.schedules.Exponential(0.1, 0.9)},
            {"params": [so.normal((12, 3), seed=seed), so.normal(9, seed=seed)]}]


CASES = {
    **{name: (cls, one(), {}) for name, cls in OPTIMIZERS.items()},
    **{f"{name}, global count": (cls, one(), {"step_count": "global"}) for name, cls in OPTIMIZERS.items()},
    "Adam, amsgrad": (so.Adam, one(), {"amsgrad": True, "weight_decay": 0.1}),
    "AdamW, amsgrad": (so.AdamW, one(), {"amsgrad": True, "maximize": True}),
    "SGD, momentum": (so.SGD, one(), {"momentum": 0.9, "dampening": 0.1}),
    "SGD, nesterov": (so.SGD, one(), {"momentum": 0.9, "nesterov": True}),
    "RMSprop, centered with momentum": (so.RMSprop, one(), {"centered": True, "momentum": 0.5}),
    "Adagrad, lr_decay": (so.Adagrad, one(), {"lr_decay": 0.1, "initial_accumulator_value": 0.3}),
    "RowwiseAdagrad, lr_decay": (so.RowwiseAdagrad, one(), {"lr_decay": 0.1}),
    "NAdam, decoupled decay": (so.NAdam, one(), {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "Ftrl, l1 and l2": (so.Ftrl, one(), {"l1": 0.05, "l2": 0.1}),
    "Lion, maximize": (so.Lion, one(), {"maximize": True, "weight_decay": 0.1}),
    "float64": (so.Adam, one(dtype=np.float64), {}),
    "1-D": (so.Adam, one(20), {}),
    "one column": (so.RowwiseAdam, one((20, 1)), {}),
    "no rows": (so.Adam, one((0, 4)), {}),
    "mapping": (so.Adam, mapping, {}),
    "sequence": (so.Adagrad, sequence, {"max_grad_norm": 0.7}),
    "named groups": (so.AdamW, named_groups, {}),
    "nameless groups": (so.RMSprop, nameless_groups, {"momentum": 0.5}),
    "one nameless group": (so.Adam, lambda seed: [{"params": one()(seed)}], {}),
    "mapping, global count": (so.Adam, mapping, {"step_count": "global"}),
    "Exponential": (so.Adam, one(), {"lr": so.schedules.Exponential(0.1, 0.9)}),
    "Linear": (so.Ftrl, one(), {"lr": so.schedules.Linear(0.1, 0.01, 15)}),
    "Cosine": (so.SGD, one(), {"lr": so.schedules.Cosine(0.1, 15, warmup=12), "momentum": 0.9}),
    "nonfinite": (so.SGD, one(), {"nonfinite": "allow"}),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def build(case, seed=0):
    cls, params, options = case
    return cls(params(seed), **options)


def train(opt, steps):
    for step in range(steps[0], steps[1]):
        rng = np.random.default_rng(step)
        grads = {}
        for name, table in opt.params.items():
            k = min(6, len(table))
            rows = rng.integers(0, len(table), k) if k else np.empty(0, np.int64)
            grads[name] = so.RowGradient(rows, rng.standard_normal((k, *table.shape[1:])).astype(table.dtype))
        if opt._structure.kind != "mapping":
            grads = list(grads.values())
        opt.step(grads[0] if opt._structure.kind == "single" else grads)
    return opt


def bits(opt):
    """All that two optimizers must share to go on alike."""
    arrays = {("table", name): table for name, table in opt.params.items()}
    arrays |= {(name, key): array for name, state in opt.state.items() for key, array in state.items()}
    groups = [{**group, "params": list(group["params"])} for group in opt.param_groups]
    options = opt.step_count, opt.missed, opt.max_grad_norm, opt.nonfinite, opt.steps, opt.nonfinite_rows
    arrays = {key: (a.shape, a.dtype, a.tobytes()) for key, a in arrays.items()}
    return arrays, groups, options, copy.deepcopy(opt.metadata)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


@each_case
def test_a_run_loaded_as_a_new_optimizer_goes_on_with_the_same_bits(case, path):
    whole = train(build(case), (0, 20))
    so.save(path, train(build(case), (0, 10)))
    again = so.load(path)
    assert type(again) is case[0]
    assert bits(train(again, (10, 20))) == bits(whole)


@each_case
def test_a_run_loaded_into_an_optimizer_goes_on_with_the_same_bits(case, path):
    whole = train(build(case), (0, 20))
    so.save(path, train(build(case), (0, 10)))
    other = train(build(case, seed=5), (30, 37))
    other.param_groups[0]["lr"] = other.param_groups[0]["weight_decay"] = 0.5
    tables = list(other.params.values())
    assert so.load(path, other) is other
    assert all(a is b for a, b in zip(tables, other.params.values(), strict=True))
    assert bits(train(other, (10, 20))) == bits(whole)


@each_case
def test_a_state_dict_copied_and_loaded_goes_on_with_the_same_bits(case):
    opt = train(build(case), (0, 10))
    kept = copy.deepcopy(opt.state_dict())
    whole = bits(train(opt, (10, 20)))
    opt.load_state_dict(kept)
    assert bits(train(opt, (10, 20))) == whole
    other = build(case, seed=5)
    other.load_state_dict(kept)
    assert bits(train(other, (10, 20))) == whole


def test_a_state_dict_holds_the_live_arrays_and_a_loaded_one_is_not_shared():
    opt, other = build(CASES["mapping"]), build(CASES["mapping"], seed=5)
    state = opt.state_dict()
    assert state["params"]["user"] is opt.params["user"]
    other.load_state_dict(state)
    before = bits(opt)
    train(other, (0, 3))
    assert bits(opt) == before


def test_what_is_no_number_travels_too(path):
    opt = so.SGD(so.zeros((3, 2)), lr=0.5, nonfinite="skip", max_grad_norm=2.5)
    with pytest.warns(RuntimeWarning, match="left out"):
        opt.step(so.RowGradient([1, 2], [[1, 1], [math.nan, 1]]))
    opt.metadata["epoch"] = {"number": 3, "losses": [1.5, None], "name": "naïve 🙂"}
    so.save(path, opt)
    for again in (so.load(path), so.load(path, so.SGD(so.zeros((3, 2))))):
        assert (again.nonfinite, again.max_grad_norm, again.nonfinite_rows, again.steps) == ("skip", 2.5, 1, 1)
        assert again.metadata == {"epoch": {"number": 3, "losses": [1.5, None], "name": "naïve 🙂"}}
        assert again.param_groups[0]["lr"] == 0.5


def test_hyper_parameters_come_back_to_the_last_bit(path):
    opt = so.Adam(so.zeros((3, 2), np.float64), lr=0.1 + 0.2, betas=(1 / 3, 1 - 2**-53), eps=5e-324, weight_decay=1e308)
    so.save(path, opt)
    group = so.load(path).param_groups[0]
    assert (group["lr"], group["betas"]) == (0.1 + 0.2, (1 / 3, 1 - 2**-53))
    assert (group["eps"], group["weight_decay"]) == (5e-324, 1e308)


def test_a_rate_changed_during_the_run_is_the_one_that_is_stored(path):
    opt = train(build(CASES["named groups"]), (0, 3))
    opt.param_groups[1]["lr"] = 0.25
    so.save(path, opt)
    assert [group["lr"] for group in so.load(path).param_groups] == [0.03, 0.25]


@pytest.mark.parametrize(("theirs", "ours"), [("skip", "replay"), ("replay", "skip")])
def test_a_file_with_another_missed_is_refused_by_that_name(theirs, ours, path):
    so.save(path, so.Adam(np.zeros((3, 2)), missed=theirs))
    with pytest.raises(ValueError, match=f"state_dict has missed='{theirs}'; this optimizer has '{ours}'"):
        so.load(path, so.Adam(np.zeros((3, 2)), missed=ours))


@pytest.mark.parametrize("shape", [(0, 3000), (0, 0), (0,), (3, 0)])
def test_a_table_without_rows_or_columns_travels(shape, path):
    so.save(path, so.Adam(np.zeros(shape, np.float32)))
    assert so.load(path).params[0].shape == shape


def test_tables_of_a_loaded_optimizer_start_on_a_cache_line(path):
    so.save(path, build(CASES["mapping"]))
    again = so.load(path)
    assert [table.ctypes.data % 64 for table in again.params.values()] == [0, 0, 0]


def test_a_schedule_of_numpy_numbers_is_stored(path):
    schedule = so.schedules.Cosine(np.float32(0.5), steps=np.int64(10), warmup=np.int32(2))
    so.save(path, so.SGD(so.zeros((3, 2)), lr=schedule))
    again = so.load(path).param_groups[0]["lr"]
    assert [again(step) for step in range(12)] == [schedule(step) for step in range(12)]


def test_a_file_holds_the_arrays_under_plain_names_for_other_programs(path):
    opt = train(build(CASES["mapping"]), (0, 3))
    so.save(path, opt)
    stored = safetensors_numpy.load_file(path)
    assert set(stored) == {f"params/{name}" for name in opt.params} | {
        f"state/{name}/{key}" for name in opt.params for key in ("step", "exp_avg", "exp_avg_sq")}
    for name, table in opt.params.items():
        assert stored[f"params/{name}"].tobytes() == table.tobytes()
        for key, array in opt.state[name].items():
            assert stored[f"state/{name}/{key}"].tobytes() == array.tobytes()


# Files that are none of ours, or not whole.

def saved(path, case="mapping"):
    opt = train(build(CASES[case]), (0, 5))
    so.save(path, opt)
    return opt


def assert_refused(path, *, into=None, error=ValueError, match=None):
    """No load from `path` works, each says which path, and an optimizer loaded into keeps its bits."""
    into = train(build(CASES["mapping"], seed=5), (0, 3)) if into is None else into
    before = bits(into)
    for optimizer in (None, into):
        with pytest.raises(error, match=match) as caught:
            so.load(path, optimizer)
        assert str(path) in str(caught.value)
    assert bits(into) == before


def test_a_file_cut_short_anywhere_is_refused(path):
    saved(path)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for length in {*range(0, 12), *range(12, len(whole), 97), *range(header - 3, header + 4), len(whole) - 1}:
        path.write_bytes(whole[:length])
        assert_refused(path, match="no complete safetensors file")


@pytest.mark.parametrize("content", [
    b"", b"\0", b"\0" * 8, b"\0" * 4096, b"\xff" * 4096, b"PK\x03\x04" * 100, b"\x80\x04\x95N.", b"{}",
    np.random.default_rng(0).bytes(4096)], ids=lambda content: f"{len(content)} bytes {content[:4]!r}")
def test_a_file_of_something_else_is_refused(path, content):
    path.write_bytes(content)
    assert_refused(path, match="no complete safetensors file")


def test_a_file_with_more_behind_it_is_refused(path):
    saved(path)
    path.write_bytes(path.read_bytes() + b"\0" * 64)
    assert_refused(path, match="no complete safetensors file")


def test_a_safetensors_file_of_another_program_is_refused(path):
    for metadata in (None, {"format": "pt"}):
        safetensors_numpy.save_file({"weight": np.ones(3)}, path, metadata=metadata)
        assert_refused(path, match="not a checkpoint of sparseopt")


def rewrite(path, change):
    """Change the header, an object or a text, and the arrays of the file at `path`; its checksums are right again."""
    arrays = safetensors_numpy.load_file(path)
    raw = path.read_bytes()
    header = json.loads(json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])["__metadata__"]["sparseopt"])
    text = change if isinstance(change, str) else change(header, arrays) and json.dumps(header)
    _tensors.write(path, arrays, {"sparseopt": text})


def header_with(**values):
    return lambda header, _: [header.update(values)]


def option_with(**values):
    return lambda header, _: [header["options"].update(values)]


def group_with(**values):
    return lambda header, _: [header["param_groups"][0].update(values)]


def arrays_with(**values):
    return lambda _, tensors: [tensors.update({key.replace("__", "/"): array for key, array in values.items()})]


CHANGES = {
    "no JSON": "no JSON",
    "JSON of a list": "[1, 2]",
    "JSON of nothing": "{}",
    **{f"no {key}": lambda header, _, key=key: [header.pop(key)] for key in (
        "format", "structure", "optimizer", "param_groups", "options", "steps", "nonfinite_rows", "metadata", "lists")},
    "another format": header_with(format=1),
    "unknown optimizer": header_with(optimizer="Sgd"),
    "steps below 0": header_with(steps=-1),
    "steps a text": header_with(steps="many"),
    "nonfinite_rows null": header_with(nonfinite_rows=None),
    "metadata a number": header_with(metadata=3),
    "no groups": header_with(param_groups=[]),
    "groups a number": header_with(param_groups=3),
    "a group twice": lambda header, _: [header.update(param_groups=header["param_groups"] * 2)],
    "step_count unknown": option_with(step_count="sometimes"),
    "missed replay": option_with(missed="replay"),
    "max_grad_norm below 0": option_with(max_grad_norm=-1),
    "unknown option": option_with(colour="red"),
    "an option gone": lambda header, _: [header["options"].pop("nonfinite")],
    "lr below 0": group_with(lr=-1),
    "another optimizer's hyper-parameter": group_with(momentum=0.9),
    "unknown schedule": group_with(lr={"schedule": "Sine", "lr": 0.1}),
    "a schedule's field gone": group_with(lr={"schedule": "Exponential", "lr": 0.1}),
    "a schedule without a name": group_with(lr={"lr": 0.1}),
    **{f"a group's {key} gone": lambda header, _, key=key: [header["param_groups"][0].pop(key)]
       for key in ("params", "lr")},
    "a table gone": lambda _, tensors: [tensors.pop("params/user")],
    "a state array gone": lambda _, tensors: [tensors.pop("state/user/exp_avg")],
    "a table more": arrays_with(params__more=np.ones(3)),
    "a state array more": arrays_with(state__user__more=np.ones(3)),
    "a table of another dtype": arrays_with(params__user=np.ones((20, 5), np.float64)),
    "a table of another shape": arrays_with(params__user=np.ones((20, 6), np.float32)),
    "counts of another dtype": arrays_with(state__user__step=np.ones(20, np.int64)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_changed_by_hand_is_refused(path, change):
    saved(path)
    rewrite(path, change)
    assert_refused(path, error=(ValueError, TypeError, NotImplementedError))


def test_a_flipped_bit_anywhere_is_refused(path):
    saved(path, "SGD")
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in range(8) if position < 8 else [position % 8]:
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            with pytest.raises(ValueError, match=path.name):
                so.load(path)


def test_a_file_of_another_format_says_so(path):
    saved(path)
    rewrite(path, header_with(format=1))
    assert_refused(path, match="format 1; this version of sparseopt reads only format 2")
    # Format 1 had no checksums.
    raw = path.read_bytes()
    text = json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])["__metadata__"]["sparseopt"]
    safetensors_numpy.save_file(safetensors_numpy.load_file(path), path, metadata={"sparseopt": text})
    assert_refused(path, match="format 1; this version of sparseopt reads only format 2")


# Files that a stranger may have written, with correct checksums.

def sealed(header, data=b""):
    """A file with this header, an object or bytes, and a right checksum of it."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    raw = bytearray(len(text).to_bytes(8, "little") + text + data)
    start = 8 + len('{"__metadata__":{"crc32":"')
    place = slice(start, start + 8)
    raw[place] = b"0" * 8
    raw[place] = b"%08x" % zlib.crc32(raw[:8 + len(text)])
    return bytes(raw)


def parts(raw):
    """The header of a file and its data."""
    stop = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:stop]), raw[stop:]


def sums(header, data):
    places = {name: slice(*entry["data_offsets"]) for name, entry in header.items() if name != "__metadata__"}
    header["__metadata__"]["checksums"] = json.dumps({name: f"{zlib.crc32(data[place]):08x}"
                                                      for name, place in places.items()})
    return sealed(header, data)


def entry_with(**values):
    return lambda header, data: sealed({**header, "params/user": {**header["params/user"], **values}}, data)


def replaced(old, new):
    def change(header, data):
        text = json.dumps(header, separators=(",", ":"))
        assert old in text
        return sealed(text.replace(old, new, 1).encode(), data)
    return change


def moved(header, data):
    """Two arrays in each other's place."""
    one, other = header["params/user"], header["state/user/exp_avg"]
    one["data_offsets"], other["data_offsets"] = other["data_offsets"], one["data_offsets"]
    return sealed(header, data)


def longer(where):
    """A byte more, in front or behind, that no array has."""
    def change(header, data):
        if where == "front":
            for name, entry in header.items():
                if name != "__metadata__":
                    entry["data_offsets"] = [place + 1 for place in entry["data_offsets"]]
        return sealed(header, b"\0" + data if where == "front" else data + b"\0")
    return change


def empty_table(shape):
    def change(header, data):
        start = header["params/user"]["data_offsets"][0]
        for name, entry in header.items():
            if name != "__metadata__" and entry["data_offsets"][0] > start:
                entry["data_offsets"] = [place - 400 for place in entry["data_offsets"]]
        header["params/user"].update(shape=list(shape), data_offsets=[start, start])
        return sums(header, data[:start] + data[start + 400:])
    return change


STRANGERS = {
    "JSON nested deeply": lambda header, data: sealed(b'{"__metadata__":{"crc32":"00000000"},"a":' + b"[" * 100_000),
    "metadata nested deeply": replaced('\\"metadata\\": {}', '\\"metadata\\": {\\"a\\": ' + "[" * 100_000),
    "no rows of many columns": empty_table((0, 2**40)),
    "many rows of no columns": empty_table((2**40, 0)),
    "a shape larger than its bytes": entry_with(shape=[2**40, 2**40]),
    "a shape beyond all integers": entry_with(shape=[10**4000, 10**4000]),
    "lengths below 0": entry_with(shape=[-20, -5]),
    "lengths with a point": entry_with(shape=[20.0, 5.0]),
    "a length true": entry_with(shape=[True, 100]),
    "many dimensions": entry_with(shape=[1] * 1000),
    "a shape that is a text": entry_with(shape="ab"),
    "an unknown dtype": entry_with(dtype="F8_E4M3"),
    "a dtype that is a list": entry_with(dtype=["F32"]),
    "a dtype as large": entry_with(dtype="I32"),
    "offsets that overlap": entry_with(data_offsets=[0, 400]),
    "offsets backwards": entry_with(data_offsets=[800, 400]),
    "offsets beyond the file": entry_with(data_offsets=[2**62, 2**62 + 400]),
    "offsets below 0": entry_with(data_offsets=[-400, 0]),
    "an offset more": entry_with(data_offsets=[0, 0, 400]),
    "no offsets": entry_with(data_offsets=None),
    "arrays in each other's place": moved,
    "a byte in front": longer("front"),
    "a byte behind": longer("behind"),
    "an entry that is a number": lambda header, data: sealed({**header, "params/user": 3}, data),
    "a key twice": replaced('"dtype":"F32"', '"dtype":"F32","dtype":"F32"'),
    "a table twice": replaced('"params/user":', '"params/":'),
    "a name that is a number": replaced('\\"params\\": [\\"user\\"', '\\"params\\": [3'),
    "a name that is a list": replaced('\\"params\\": [\\"user\\"', '\\"params\\": [[]'),
    "no UTF-8": lambda header, data: sealed(
        json.dumps(header).encode().replace(b"params/user", b"params/us\xff"), data),
    "metadata that are no texts": lambda header, data: sealed(
        {"__metadata__": {**header["__metadata__"], "n": 3},
         **{k: v for k, v in header.items() if k != "__metadata__"}}, data),
    "a number beyond all": replaced('\\"lr\\": 0.001', '\\"lr\\": 1e999'),
    "a rate of infinity": replaced('\\"lr\\": 0.001', '\\"lr\\": Infinity'),
    "a rate that is no number": replaced('\\"lr\\": 0.001', '\\"lr\\": NaN'),
    "no number in the metadata": replaced('\\"metadata\\": {}', '\\"metadata\\": {\\"a\\": NaN}'),
    "an integer of many digits": replaced('\\"steps\\": 5', '\\"steps\\": ' + "9" * 5000),
    "a list that is nowhere": replaced('\\"lists\\": {}', '\\"lists\\": {\\"a\\": \\"str\\"}'),
    "a list of tables": replaced('\\"lists\\": {}', '\\"lists\\": {\\"a\\": \\"table\\"}'),
    "checksums that are gone": lambda header, data: sealed({**header, "__metadata__": {
        key: value for key, value in header["__metadata__"].items() if key != "checksums"}}, data),
    "a header that is longer than the file": lambda header, data:
        (10**9).to_bytes(8, "little") + sealed(header, data)[8:],
    "a header of exabytes": lambda header, data: b"\xff" * 8 + sealed(header, data)[8:],
}


@pytest.mark.parametrize("change", STRANGERS.values(), ids=STRANGERS)
def test_what_a_stranger_wrote_is_a_value_error(path, change):
    saved(path)
    path.write_bytes(change(*parts(path.read_bytes())))
    tracemalloc.start()
    try:
        assert_refused(path, match="^(?!.*header does not match its checksum)")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_header_of_more_than_100_megabytes_is_neither_written_nor_read(path, tmp_path):
    opt = build(CASES["SGD"])
    opt.metadata["long"] = "a" * 100_000_000
    with pytest.raises(ValueError, match="at most 100,000,000 go into a file"):
        so.save(path, opt)
    assert list(tmp_path.iterdir()) == []
    with open(path, "wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(200_000_000)
    assert_refused(path, match="no complete safetensors file")


def test_a_name_that_is_no_text_is_refused_before_anything_is_written(path, tmp_path):
    with pytest.raises(ValueError, match="without surrogates"):
        so.save(path, so.SGD({"a\ud800": so.zeros((3, 2))}))
    assert list(tmp_path.iterdir()) == []


def test_changes_at_random_end_in_a_value_error_or_a_whole_optimizer(path):
    rng = random.Random(0)
    values = [None, True, -1, 0, 1, 2**31 - 2, 2**63, 1.5, math.inf, "", "F32", [], {}, [0], [2**40, 0],
              {"a": 1}, "replay"]
    wholes = []
    for case in (CASES["mapping"], CASES["nameless groups"], (so.AdamW, one(), {"missed": "replay"})):
        opt = train(build(case), (0, 3))
        opt.metadata = {"words": [str(i) for i in range(1001)], "losses": [0.5] * 1001, "more": {"a": [1, {}]}}
        so.save(path, opt)
        wholes.append(path.read_bytes())

    def change(tree):
        places = []

        def walk(node):
            if not isinstance(node, (dict, list)):
                return
            for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
                places.append((node, key))
                walk(value)

        walk(tree)
        node, key = rng.choice(places)
        if rng.random() < 0.3:
            del node[key]
        else:
            node[key] = rng.choice(values)

    counts, messages = {"whole": 0, "refused": 0}, []
    for _ in range(1000):
        raw = bytearray(rng.choice(wholes))
        kind = rng.choice(["bytes", "cut", "header", "state", "data"])
        header, data = parts(raw)
        if kind == "bytes":
            raw[rng.randrange(len(raw))] ^= rng.randrange(1, 256)
        elif kind == "cut":
            del raw[rng.randrange(len(raw)):][:rng.randrange(1, 100)], raw[-rng.randrange(1, 100):]
        elif kind == "header":
            change(header)
            raw = sealed(header, data)
        elif kind == "state":
            state = json.loads(header["__metadata__"]["sparseopt"])
            change(state)
            header["__metadata__"]["sparseopt"] = json.dumps(state)
            raw = sealed(header, data)
        else:
            changed = bytearray(data)
            for _ in range(rng.randrange(1, 4)):
                changed[rng.randrange(len(data))] = rng.choice([0, 0x7F, 0xFF])
            raw = sums(header, bytes(changed))
        path.write_bytes(raw)
        try:
            so.load(path)
            counts["whole"] += 1
        except ValueError as error:
            counts["refused"] += 1
            messages.append(str(error))
    assert all(str(path) in message for message in messages)
    assert min(counts.values()) > 25


# Memory.

def traced(call):
    """The most memory that a call took beyond what was there, NumPy's arrays included."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_save_takes_no_copy_of_the_arrays_and_a_load_makes_them_once(path):
    opt = so.Adam({"user": so.normal((200_000, 64), seed=0), "item": so.normal((50_000, 3), np.float64, seed=1)})
    arrays = [*opt.params.values(), *(array for state in opt.state.values() for array in state.values())]
    size = sum(array.nbytes for array in arrays)
    assert traced(lambda: so.save(path, opt)) < 0.01 * size
    assert traced(lambda: so.load(path)) < 1.01 * size


def test_an_array_that_changes_while_it_is_written_is_in_the_file_as_one_of_both(path):
    """As where several processes train on one table in shared memory: the file can be read all the same."""
    table = so.zeros((300_000, 8))
    crc32, calls = zlib.crc32, []

    def while_others_train(*arguments):
        table[...] += 1
        calls.append(None)
        return crc32(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zlib, "crc32", while_others_train)
        so.save(path, so.SGD(table))
    assert len(calls) > 3
    assert len(np.unique(so.load(path).params[0])) > 1


# Metadata that grow with the data.

LISTS = {
    "texts": [str(i) for i in range(3000)],
    "texts of other letters": ["", "naïve", "🙂", "", "a\0b"] * 300,
    "empty texts": [""] * 1001,
    "integers": [*range(-1500, 1500), 2**63 - 1, -2**63],
    "integers beyond 64 bits": [2**63] * 1001,
    "numbers": [0.1, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf] * 200,
    "truths": [True, False] * 1000,
    "mixed": [1, 2.0, "3", None] * 1000,
    "integers and numbers": [1, 2.0] * 1000,
    "lists": [[1]] * 1001,
    "short": ["a", "\ud800"],
    "none": [],
}


def test_lists_come_back_equal_whether_they_are_long_or_short(path):
    opt = build(CASES["SGD"])
    opt.metadata = {**LISTS, "texts/of": list(map(str, range(1001))), "inner": {"long": list(range(1001))}}
    before = copy.deepcopy(opt.metadata)
    so.save(path, opt)
    assert opt.metadata == before
    for again in (so.load(path), so.load(path, build(CASES["SGD"], seed=5))):
        assert again.metadata == before
        assert list(again.metadata) == list(before)
        for name, values in LISTS.items():
            assert list(map(type, again.metadata[name])) == list(map(type, values))
        assert np.array_equal(np.signbit(again.metadata["numbers"]), np.signbit(before["numbers"]))


def test_long_lists_are_arrays_for_other_programs_and_not_in_the_header(path):
    opt = build(CASES["SGD"])
    opt.metadata = {"words": ["naïve", "b"] * 50_000, "counts": list(range(100_000))}
    so.save(path, opt)
    assert int.from_bytes(path.read_bytes()[:8], "little") < 3000
    stored = safetensors_numpy.load_file(path)
    assert stored["metadata/counts"].tolist() == opt.metadata["counts"]
    ends, text = stored["ends/words"], stored["metadata/words"].tobytes()
    assert text[ends[1]:ends[2]].decode() == "naïve"


def test_a_list_with_a_nan_is_stored_whatever_its_length(path):
    opt = build(CASES["SGD"])
    opt.metadata["losses"] = [1.0, math.nan]
    so.save(path, opt)
    np.testing.assert_array_equal(so.load(path).metadata["losses"], [1.0, math.nan])


def test_long_lists_of_texts_that_utf_8_cannot_hold_are_named(path, tmp_path):
    opt = build(CASES["SGD"])
    opt.metadata["words"] = [*map(str, range(2000)), "a\udc80"]
    with pytest.raises(TypeError, match=r"metadata\['words'\]\[2000\] is 'a\\udc80'.*surrogates"):
        so.save(path, opt)
    assert list(tmp_path.iterdir()) == []


def test_metadata_nested_too_deeply_are_refused_by_save(path, tmp_path):
    opt, deep = build(CASES["SGD"]), []
    for _ in range(100_000):
        deep = [deep]
    opt.metadata["deep"] = deep
    with pytest.raises(TypeError, match="metadata of the optimizer is not JSON"):
        so.save(path, opt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ends", [[-1, 3], [2, 1], [1, 2], [1, 2**62], [2**63 - 1, 3]], ids=str)
def test_texts_with_wrong_ends_are_refused(path, ends):
    saved(path)
    rewrite(path, lambda header, arrays: [
        header.update(lists={"words": "str"}, metadata={"words": None}),
        arrays.update({"metadata/words": np.frombuffer(b"abc", np.uint8), "ends/words": np.array(ends, np.int64)})])
    assert_refused(path, match="ends that do not fit its texts")


def test_a_missing_file_a_folder_and_what_is_no_path_are_named(path, tmp_path):
    assert_refused(path, error=FileNotFoundError)
    assert_refused(tmp_path, error=OSError)
    with pytest.raises(TypeError, match=r"[Pp]ath"):
        so.load(3)
    with pytest.raises(TypeError, match=r"[Pp]ath"):
        so.save(3, build(CASES["SGD"]))


@pytest.mark.parametrize(("stored", "other", "message"), [
    pytest.param((so.Adam, one(), {}), (so.AdamW, one(), {}), "is of Adam; this optimizer is AdamW", id="optimizer"),
    pytest.param((so.Adam, one((20, 5)), {}), (so.Adam, one((20, 6)), {}), r"\(20, 5\).*\(20, 6\)", id="shape"),
    pytest.param((so.Adam, one(20), {}), (so.Adam, one((20, 1)), {}), r"\(20,\).*\(20, 1\)", id="dimensions"),
    pytest.param((so.Adam, one(), {}), (so.Adam, one(dtype=np.float64), {}), "float32.*float64", id="dtype"),
    pytest.param((so.Adam, mapping, {}), (so.Adam, lambda seed: {"user": one()(seed)}, {}), "params.*item.*user",
                 id="names"),
    pytest.param((so.Adam, mapping, {}), (so.Adam, sequence, {}), "params", id="structure"),
    pytest.param((so.SGD, lambda seed: [one()(seed)], {}), (so.SGD, lambda seed: [one()(seed), one()(seed + 1)], {}),
                 "params", id="number of tables"),
    pytest.param((so.Adam, one(), {"amsgrad": True}), (so.Adam, one(), {}), "max_exp_avg_sq|amsgrad", id="amsgrad"),
    pytest.param((so.SGD, one(), {"momentum": 0.9}), (so.SGD, one(), {}), "momentum", id="momentum"),
    pytest.param((so.SGD, one(), {"momentum": 0.9}), (so.SGD, one(), {"momentum": 0.9, "nesterov": True}), "nesterov",
                 id="nesterov"),
    pytest.param((so.Adagrad, one(), {"lr_decay": 0.1}), (so.Adagrad, one(), {}), "step|lr_decay", id="lr_decay"),
    pytest.param((so.Adam, one(), {"step_count": "global"}), (so.Adam, one(), {}),
                 "step_count='global'; this optimizer has 'row'", id="step_count"),
    pytest.param((so.AdamW, named_groups, {}),
                 (so.AdamW, lambda seed: {k: v for g in named_groups(seed) for k, v in g["params"].items()}, {}),
                 "2 param_groups; this optimizer has 1", id="groups"),
    pytest.param((so.AdamW, named_groups, {}), (so.AdamW, lambda seed: named_groups(seed)[::-1], {}),
                 r"\['user'\].*\['item', 'tag'\]", id="order of groups"),
])
def test_an_optimizer_of_another_kind_is_refused_and_keeps_its_bits(path, stored, other, message):
    source = train(build(stored), (0, 5))
    so.save(path, source)
    target = train(build(other, seed=5), (0, 3))
    before = bits(target)
    with pytest.raises(ValueError, match=message) as caught:
        so.load(path, target)
    assert str(path) in str(caught.value)
    assert bits(target) == before
    with pytest.raises((ValueError, KeyError, TypeError), match=message):
        target.load_state_dict(source.state_dict())
    assert bits(target) == before


@pytest.mark.parametrize(("change", "message"), [
    ({"metadata": 3}, "metadata"), ({"metadata": None}, "metadata"), ({"steps": "many"}, "steps"),
    ({"steps": -1}, "steps"), ({"nonfinite_rows": None}, "nonfinite_rows"), ({"options": {}}, "step_count"),
    ({"optimizer": None}, "optimizer"), ({"params": []}, "params"), ({"state": {}}, "state"),
    ({"param_groups": [{}]}, "params"),
], ids=str)
def test_a_state_dict_changed_by_hand_is_refused_before_anything_is_written(change, message):
    state = train(build(CASES["mapping"]), (0, 5)).state_dict() | change
    target = train(build(CASES["mapping"], seed=5), (0, 3))
    before = bits(target)
    with pytest.raises((ValueError, KeyError, TypeError), match=message):
        target.load_state_dict(state)
    assert bits(target) == before


def test_only_an_optimizer_is_saved_and_loaded_into(path):
    with pytest.raises(TypeError, match="optimizer is a ndarray; it must be an Optimizer"):
        so.save(path, np.zeros(3))
    assert not path.exists()
    saved(path)
    with pytest.raises(TypeError, match="optimizer is a dict; it must be an Optimizer"):
        so.load(path, {})
    with pytest.raises(TypeError, match="state_dict is a list"):
        build(CASES["SGD"]).load_state_dict([])


# A rate that no file holds.

def fading(step):
    return 0.1 / (1 + step)


def test_a_foreign_schedule_is_saved_but_must_be_handed_in_again(path):
    case = (so.Adam, mapping, {"lr": fading})
    whole = train(build(case), (0, 20))
    so.save(path, train(build(case), (0, 10)))
    with pytest.raises(ValueError, match=r"lr was a callable.* lr=") as caught:
        so.load(path)
    assert str(path) in str(caught.value)
    assert bits(train(so.load(path, lr=fading), (10, 20))) == bits(whole)
    assert bits(train(so.load(path, build(case, seed=5)), (10, 20))) == bits(whole)
    assert so.load(path, lr=0.5).param_groups[0]["lr"] == 0.5


def test_lr_takes_the_place_of_any_stored_rate(path):
    saved(path, "named groups")
    opt = so.load(path, lr=0.125)
    assert [group["lr"] for group in opt.param_groups] == [0.125, 0.125]
    so.load(path, opt, lr=fading)
    assert [group["lr"] for group in opt.param_groups] == [fading, fading]
    so.load(path, opt)
    assert [group["lr"] for group in opt.param_groups] == [0.03, 0.001]


def test_a_bad_lr_is_refused_and_nothing_is_written(path):
    saved(path)
    target = train(build(CASES["mapping"], seed=5), (0, 3))
    before = bits(target)
    for lr, error in ((-1, ValueError), ("fast", (ValueError, TypeError))):
        for optimizer in (None, target):
            with pytest.raises(error, match="lr is"):
                so.load(path, optimizer, lr=lr)
    assert bits(target) == before


# Saves that fail.

def fails(what):
    def fail(*args, **keywords):
        raise OSError(28, f"no space left for {what}")
    return fail


@pytest.mark.parametrize(("breaks", "existing"), [
    *((breaks, existing) for breaks in ("metadata", "replace", "fsync", "write", "interrupt")
      for existing in (True, False)),
    ("chmod", True),        # a new file is created with its permissions
])
def test_a_failed_save_leaves_the_old_file_and_no_other(path, tmp_path, monkeypatch, breaks, existing):
    if existing:
        saved(path)
    before = path.read_bytes() if existing else None
    opt = train(build(CASES["mapping"], seed=5), (0, 3))
    error, message = OSError, "no space left"
    if breaks == "metadata":
        opt.metadata["tags"] = {1, 2}
        error, message = TypeError, "metadata"
    elif breaks == "interrupt":
        def interrupted(*_):
            raise KeyboardInterrupt("stop")
        monkeypatch.setattr(os, "replace", interrupted)
        error, message = KeyboardInterrupt, "stop"
    elif breaks == "write":
        resource = pytest.importorskip("resource")
        # A file larger than this raises EFBIG in the middle of the write.
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
        message = "File too large"
    else:
        monkeypatch.setattr(os, breaks, fails(breaks))
    try:
        with pytest.raises(error, match=message):
            so.save(path, opt)
    finally:
        monkeypatch.undo()
        if breaks == "write":
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, ignored)
    assert [file.name for file in tmp_path.iterdir()] == ([path.name] if existing else [])
    if existing:
        assert path.read_bytes() == before


def test_a_save_into_a_missing_folder_or_onto_a_folder_names_it_and_makes_nothing(tmp_path):
    opt = build(CASES["SGD"])
    with pytest.raises(FileNotFoundError, match="missing"):
        so.save(tmp_path / "missing" / "run.safetensors", opt)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        so.save(tmp_path / "folder", opt)
    assert [file.name for file in tmp_path.rglob("*")] == ["folder"]


def test_a_file_system_that_cannot_sync_its_folders_is_no_reason_to_fail(path, monkeypatch):
    # When the folder is synced, the new file is in its place; an error would say that the old one still is.
    sync = os.fsync

    def sync_files_only(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync_files_only)
    opt = saved(path)
    assert bits(so.load(path)) == bits(opt)


def test_a_save_changes_nothing_in_the_optimizer(path):
    opt = train(build((so.Adam, mapping, {"lr": fading})), (0, 3))
    before = bits(opt)
    so.save(path, opt)
    assert bits(opt) == before


def test_the_package_safetensors_is_not_needed(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    opt = saved(path)
    assert bits(so.load(path)) == bits(opt)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_replaced_file_keeps_its_permissions_and_a_new_one_has_the_usual_ones(path):
    mask = os.umask(0o027)
    try:
        saved(path)
        assert path.stat().st_mode & 0o7777 == 0o640
        for mode in (0o600, 0o666, 0o604):
            path.chmod(mode)
            saved(path)
            assert path.stat().st_mode & 0o7777 == mode
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)


def test_a_path_may_be_a_string_and_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opt = saved("run.safetensors")
    assert bits(so.load("run.safetensors")) == bits(opt)
    assert os.listdir(tmp_path) == ["run.safetensors"]


KILLS = 100
SERVER = """
import os, random, signal, sys, time
import sparseopt as so

path, kills = sys.argv[1], int(sys.argv[2])
folder = os.path.dirname(path)

def fill(opt, generation):
    opt.metadata["generation"] = generation
    for array in (opt.params["table"], *opt.state["table"].values()):
        array[...] = generation

opt = so.Adagrad({"table": so.zeros((1 << 14, 64))})
start = time.monotonic()
for generation in range(2):
    fill(opt, generation)
    so.save(path, opt)
one_save = (time.monotonic() - start) / 2
interrupted, generations = 0, set()
random.seed(0)
kill = 0
while kill < kills or min(interrupted, len(generations)) <= kills // 20:      # how many it takes, the machine decides
    kill += 1
    child = os.fork()
    if child == 0:
        generation = opt.metadata["generation"]
        while True:
            generation += 1
            fill(opt, generation)
            so.save(path, opt)
    time.sleep(random.uniform(0, 3 * one_save))
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, "the child ended by itself"
    opt = so.load(path)
    generation = opt.metadata["generation"]
    for array in (opt.params["table"], *opt.state["table"].values()):
        assert (array == generation).all(), f"after kill {kill}: generations mixed"
    generations.add(generation)
    for name in os.listdir(folder):
        if name != os.path.basename(path):
            interrupted += 1
            os.unlink(os.path.join(folder, name))
print(interrupted, len(generations))
"""


@pytest.mark.skipif(not hasattr(os, "fork") or not hasattr(signal, "SIGKILL"), reason="needs fork and SIGKILL")
def test_a_kill_at_any_moment_of_a_save_leaves_the_old_or_the_new_file(path):
    # One interpreter forks all the children: it has a single thread, so that a fork of it is whole.
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    # In a folder without sources, which would be imported in place of what is installed.
    done = subprocess.run([sys.executable, "-c", SERVER, str(path), str(KILLS)], env=os.environ | single,
                          cwd=path.parent, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    # Kills that came when nothing was being written, or all before the first file was, would show nothing.
    assert min(map(int, done.stdout.split())) > KILLS // 20
