"""IdMap beside a dict that does the same one key after the other, in all forms of keys, and calls that fail."""

import copy
import pickle
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import sparseopt as so
from sparseopt import _ids

KINDS = "int64", "str"
TEXTS = ["", "a", "b", "tea", "jam", "größe", "日本", "😀", "12345678", "123456789", "12345678x", "a" * 70, "é",
         "e\u0301", "\u07ff", "\u0800", "\uffff", "\U0010ffff"]
INTEGERS = [0, 1, -1, 7, 2**63 - 1, -2**63, 2**32, 2**40, 5, 6, 8, 9, 2**20, -7, 3, 4, 10, 11]


class Sequential:
    """What IdMap says it does, with dicts and one key at a time."""

    def __init__(self, admit):
        self.admit, self.clock, self.next = admit, 0, 1
        self.row, self.seen, self.free = {}, {}, []
        self.count, self.last = {}, {}

    def rows(self, keys, add):
        if add:
            self.clock += 1
        return [self.one(key, add) for key in keys]

    def one(self, key, add):
        if not add:
            return self.row.get(key, 0)
        if key not in self.row:
            self.seen[key] = self.seen.get(key, 0) + 1
            if self.seen[key] < self.admit:
                return 0
            if self.free:
                row = self.free.pop(0)
            else:
                row, self.next = self.next, self.next + 1
            self.row[key], self.count[row] = row, self.seen.pop(key) - 1
        row = self.row[key]
        self.count[row] += 1
        self.last[row] = self.clock
        return row

    def evict(self, n, by, keep):
        order = self.last if by == "last" else self.count
        freed = sorted((row for row in self.row.values() if row not in keep), key=lambda row: (order[row], row))[:n]
        self.row = {key: row for key, row in self.row.items() if row not in freed}
        self.free = freed + self.free
        return freed


def forms(kind):
    """Functions from a list of keys to keys in the forms that a map takes."""
    if kind == "int64":
        return [list, tuple, np.array, lambda keys: np.array(keys, object), lambda keys: np.array(keys).astype(">i8"),
                lambda keys: np.repeat(keys, 2)[::2], lambda keys: [np.int64(key) for key in keys]]
    found = [list, tuple, np.array, lambda keys: np.array(keys, object), lambda keys: np.array(keys).astype(">U80"),
             lambda keys: np.repeat(keys, 2)[::2], lambda keys: list(map(np.str_, keys))]
    if hasattr(np.dtypes, "StringDType"):
        found.append(lambda keys: np.array(keys, np.dtypes.StringDType()))
    try:
        import pyarrow as pa
    except ImportError:
        return found
    return [*found, lambda keys: pa.array(keys, "string"), lambda keys: pa.array(["x", *keys], "large_string")[1:],
            lambda keys: pa.chunked_array([keys[:1], keys[1:]], "string"), lambda keys: pa.chunked_array([keys])]


def state(ids):
    """All that a map holds, as plain data; the order of candidates and of free places for them does not count."""
    clock, free, rows, candidates = ids._map.parts()
    plain = {name: array.tolist() for name, array in rows.items()}
    ends = candidates.get("ends")
    keys = candidates["keys"].tolist() if ends is None else [
        candidates["texts"].tobytes()[start:stop] for start, stop in zip([0, *ends], ends, strict=False)]
    waiting = sorted((key, count) for key, count in zip(keys, candidates["counts"].tolist(), strict=True) if count)
    return ids.kind, ids.admit, clock, free, plain, waiting, len(ids), ids.n_rows


def check(ids, model):
    assert len(ids) == len(model.row)
    assert ids.n_rows == model.next
    in_order = sorted(model.row, key=model.row.get)
    assert list(ids) == in_order
    assert ids.keys([model.row[key] for key in in_order]).tolist() == in_order
    _, counts, last = ids._map.uses()
    assert {row: counts[row - 1] for row in model.row.values()} == {row: model.count[row] for row in model.row.values()}
    assert {row: last[row - 1] for row in model.row.values()} == {row: model.last[row] for row in model.row.values()}
    assert np.count_nonzero(counts) == len(model.row)


@st.composite
def calls(draw):
    kind = draw(st.sampled_from(KINDS))
    numbers = st.lists(st.integers(0, 17), max_size=20)
    call = st.one_of(
        st.tuples(st.just("rows"), numbers, st.integers(0, 20), st.sampled_from([True, True, False])),
        st.tuples(st.just("evict"), st.integers(0, 6), st.sampled_from(["last", "count"]), numbers),
        st.tuples(st.just("copy"), st.sampled_from(["copy", "deepcopy", "pickle"])))
    return kind, draw(st.integers(1, 3)), draw(st.lists(call, max_size=12))


@given(calls())
def test_a_map_does_what_a_dict_does_one_key_after_the_other(case):
    kind, admit, ops = case
    ids, model, universe = so.IdMap(kind, admit), Sequential(admit), TEXTS if kind == "str" else INTEGERS
    ways = forms(kind)
    for op in ops:
        if op[0] == "rows":
            keys, form = [universe[i] for i in op[1]], ways[op[2] % len(ways)]
            if keys:
                keys = form(keys) if keys else keys
            rows = ids.rows(keys, add=op[3])
            assert rows.dtype == np.int64
            assert rows.tolist() == model.rows([universe[i] for i in op[1]], op[3])
        elif op[0] == "evict":
            keep = [row for row in op[3] if row < model.next]
            n = min(op[1], len(set(model.row.values()) - set(keep)))
            assert ids.evict(n, by=op[2], keep=keep).tolist() == model.evict(n, op[2], keep)
        else:
            before = ids
            ids = (copy.copy(ids) if op[1] == "copy" else copy.deepcopy(ids) if op[1] == "deepcopy"
                   else pickle.loads(pickle.dumps(ids)))
            assert state(ids) == state(before)
        check(ids, model)


@pytest.mark.parametrize("admit", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_many_keys_in_calls_of_many_sizes_are_as_in_a_dict(kind, admit):
    rng = np.random.default_rng(admit)
    ids, model = so.IdMap(kind, admit), Sequential(admit)
    for call in range(30):
        keys = (rng.zipf(1.2, rng.integers(0, 3000)) % 5000 * 2**40).tolist()
        if kind == "str":
            keys = [f"{'käse' * (key >> 40 & 7)}{key}" for key in keys]
        form = forms(kind)[call % len(forms(kind))] if keys else list
        assert ids.rows(form(keys), add=call % 5 != 4).tolist() == model.rows(keys, call % 5 != 4)
        if call % 7 == 6:
            n, keep = len(model.row) // 2, ids.rows(keys[:50], add=False)
            n = min(n, len(set(model.row.values()) - set(keep.tolist())))
            assert ids.evict(n, keep=keep).tolist() == model.evict(n, "last", set(keep.tolist()))
        check(ids, model)


def test_a_row_is_given_from_the_occurrence_that_admits_on():
    ids = so.IdMap("str", admit=3)
    assert ids.rows(["a", "b", "a", "a", "b", "a"]).tolist() == [0, 0, 0, 1, 0, 1]
    assert ids.rows(["b", "c"]).tolist() == [2, 0]
    assert ids.rows(["c", "c", "c"], add=False).tolist() == [0, 0, 0]
    assert ids.rows(["c", "c"]).tolist() == [0, 3]


def test_freed_rows_go_to_the_next_new_keys():
    ids = so.IdMap("int64")
    ids.rows([10, 20, 30, 40])
    ids.rows([10, 20])
    assert ids.evict(3).tolist() == [3, 4, 1]
    assert ids.rows([50, 60]).tolist() == [3, 4]
    assert ids.rows([70, 80]).tolist() == [1, 5]
    assert 30 not in ids
    assert list(ids) == [70, 20, 50, 60, 80]


def test_memory_of_evicted_texts_is_used_again():
    ids = so.IdMap("str")
    for turn in range(40):
        rows = ids.rows([f"{'x' * 100}{turn}.{i}" for i in range(1000)])
        assert ids.n_rows <= 2001
        assert ids.keys(rows[::100]).tolist() == [f"{'x' * 100}{turn}.{i}" for i in range(0, 1000, 100)]
        ids.evict(max(0, len(ids) - 1000), keep=rows)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_any_shape_keep_their_shape(kind):
    keys = np.arange(24).reshape(2, 3, 4)
    keys = keys.astype(str) if kind == "str" else keys
    ids = so.IdMap(kind)
    rows = ids.rows(keys)
    assert_array_equal(rows, np.arange(1, 25).reshape(2, 3, 4))
    assert_array_equal(ids.keys(rows), keys)
    assert_array_equal(ids.rows(keys[:, ::2], add=False), rows[:, ::2])
    assert ids.rows(keys[:0]).shape == (0, 3, 4)
    assert ids.rows([]).shape == (0,)


BAD = {
    "int64": [[1, True], [1, 2.0], [1, None], [2**63], [-2**63 - 1], ["1"], [1, "1"], [[1]], [np.float64(1)], [b"1"],
              np.array([1, 2**63], np.uint64), np.array([1.0, np.nan]), np.array([True]), np.array(["1"]),
              np.array([1, None], object), np.array(1), 1, {1, 2}, "1", None, np.ma.array([1]),
              np.array(["2020-01-01"], "M8[D]"), [np.bool_(True)]],
    "str": [["a", None], ["a", np.nan], ["a", 1], ["a", b"b"], ["a", "\ud800"], np.array(["a", "\udfff"]),
            np.array([1]), np.array([b"a"]), np.array(["a", None], object), np.array("a"), "a", b"a", {"a"}, None,
            [["a"]], np.array(["a", "\ud800"], object), np.ma.array(["a"])],
}


@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize(("kind", "bad"), [(kind, bad) for kind, all_ in BAD.items() for bad in all_])
def test_a_bad_key_is_refused_before_anything_changes(kind, bad, add):
    ids = so.IdMap(kind)
    ids.rows([1, 2] if kind == "int64" else ["x", "y"])
    before = state(ids)
    with pytest.raises((TypeError, ValueError), match="keys"):
        ids.rows(bad, add=add)
    assert state(ids) == before


def test_bad_keys_are_named_with_their_position():
    with pytest.raises(TypeError, match=r"keys has True at position 2; a key of this map must be an integer that fits"):
        so.IdMap().rows([5, 6, True])
    with pytest.raises(TypeError, match=r"keys have dtype float64; this map has keys of int64"):
        so.IdMap().rows(np.array([np.nan]))
    with pytest.raises(TypeError, match=r"keys has nan at position 1; a key of this map must be a str"):
        so.IdMap("str").rows(["a", np.nan])
    with pytest.raises(ValueError, match=r"keys has '\\ud800x' at position 200; a key must be text that UTF-8 can"):
        so.IdMap("str").rows(["a"] * 200 + ["\ud800x"])
    with pytest.raises(TypeError, match=r"keys is 'tea'; it must be a list or an array"):
        so.IdMap("str").rows("tea")


@pytest.mark.parametrize("admit", [1, 2, 3])
def test_a_bad_key_after_many_new_ones_leaves_the_map_as_it_was(admit):
    ids = so.IdMap("str", admit)
    ids.rows(["a", "a", "a", "b", "b", "c"] + [f"old {i}" for i in range(300)] * 3)
    ids.evict(100)
    before = state(ids)
    new = [f"new {i % 700}" for i in range(2000)] + ["c", "b", "old 3"] * 5
    for _ in range(2):
        with pytest.raises(ValueError, match="at position 2015"):
            ids.rows([*new, "\ud800"])
        assert state(ids) == before
    model = copy.deepcopy(ids)
    assert ids.rows(new).tolist() == [int(model.rows([key])[0]) for key in new]


def test_arrow_arrays_with_missing_or_broken_texts_are_refused():
    pa = pytest.importorskip("pyarrow", reason="keys in pyarrow's arrays need pyarrow")
    ids = so.IdMap("str")
    with pytest.raises(TypeError, match="keys has None at position 1"):
        ids.rows(pa.array(["a", None]))
    with pytest.raises(TypeError, match="keys have the pyarrow type 'int64'; this map has keys of str"):
        ids.rows(pa.array([1]))
    for raw in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ab\xe2\x82", b"\x80",
                b"longer than a word\xe9"):
        offsets = np.array([0, 1, 1 + len(raw)], np.int32)
        broken = pa.StringArray.from_buffers(2, pa.py_buffer(offsets), pa.py_buffer(b"x" + raw))
        with pytest.raises(ValueError, match="at position 1; a key must be text that UTF-8 can hold"):
            ids.rows(broken)
    assert len(ids) == 0
    assert ids.rows(pa.array([], "string")).shape == (0,)
    assert ids.rows(pa.array(["", ""], "string")).tolist() == [1, 1]


def test_series_and_frames_columns_are_taken():
    pd = pytest.importorskip("pandas", reason="keys in pandas' columns need pandas")
    assert so.IdMap().rows(pd.Series([7, 8, 7])).tolist() == [1, 2, 1]
    assert so.IdMap("str").rows(pd.Series(["a", "b", "a"])).tolist() == [1, 2, 1]
    assert so.IdMap("str").rows(pd.Series(["a", "b", "a"], dtype="category")).tolist() == [1, 2, 1]
    with pytest.raises(TypeError, match="at position 1"):
        so.IdMap("str").rows(pd.Series(["a", None]))


@pytest.mark.parametrize(("rows", "error", "message"), [
    ([1, 0], IndexError, "rows has 0 at position 1, which is the row of no key"),
    ([-1], IndexError, "rows has -1 at position 0"),
    ([1, 2, 3], IndexError, "rows has 3 at position 2"),
    ([2**62], IndexError, "rows has 4611686018427387904"),
    ([1.0], TypeError, "rows have dtype float64"),
])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_a_key_is_an_error(kind, rows, error, message):
    ids = so.IdMap(kind)
    ids.rows([5, 6] if kind == "int64" else ["5", "6"])
    with pytest.raises(error, match=message):
        ids.keys(rows)


def test_a_freed_row_has_no_key():
    ids = so.IdMap()
    ids.rows([5, 6])
    ids.evict(1)
    with pytest.raises(IndexError, match="rows has 1 at position 0, which is the row of no key"):
        ids.keys([1])


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (dict(n=-1), ValueError, "n is -1"),
    (dict(n=1.0), TypeError, "n is 1.0"),
    (dict(n=4), ValueError, "n is 4; only 3 rows have a key and are not kept"),
    (dict(n=2, keep=[1, 2]), ValueError, "n is 2; only 1 rows have a key"),
    (dict(n=1, by="first"), ValueError, "by is 'first'"),
    (dict(n=1, keep=[4]), IndexError, "keep has 4; this map has rows from 0 to 3"),
    (dict(n=1, keep=[-1]), IndexError, "keep has -1"),
    (dict(n=1, keep=[1.0]), TypeError, "keep have dtype float64"),
    (dict(n=1, tables=["a"]), ValueError, "tables is .* and opt is None"),
    (dict(n=1, init=so.init.Constant(1.0)), ValueError, "init is .* and opt is None"),
])
def test_a_bad_eviction_is_refused(arguments, error, message):
    ids = so.IdMap()
    ids.rows([5, 6, 7])
    before = state(ids)
    with pytest.raises(error, match=message):
        ids.evict(**arguments)
    assert state(ids) == before


@pytest.mark.parametrize(("arguments", "error", "message"), [
    (dict(kind="int32"), ValueError, "kind is 'int32'; it must be 'int64' or 'str'"),
    (dict(kind=str), ValueError, "kind is <class 'str'>"),
    (dict(admit=0), ValueError, "admit is 0"),
    (dict(admit=2**63), ValueError, "admit is 9223372036854775808"),
    (dict(admit=1.5), TypeError, "admit is 1.5"),
])
def test_a_bad_map_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        so.IdMap(**arguments)


def test_add_must_be_a_bool():
    with pytest.raises(TypeError, match="add is 1; it must be True or False"):
        so.IdMap().rows([1], add=1)


def test_keys_are_looked_for_one_by_one_too():
    ids = so.IdMap("str", admit=2)
    ids.rows(["a", "a", "b"])
    assert "a" in ids
    assert "b" not in ids
    assert repr(ids) == "IdMap('str', admit=2: 1 keys)"
    with pytest.raises(TypeError, match="keys has 1 at position 0"):
        1 in ids  # noqa: B015


def test_an_eviction_is_refused_if_the_map_has_changed_since_the_rows_were_chosen():
    ids = so.IdMap()
    ids.rows([5, 6])
    version, _, _ = ids._map.uses()
    ids.rows([7])
    before = state(ids)
    with pytest.raises(RuntimeError, match="another call has changed this map"):
        ids._map.freed = np.array([1]), version
    assert state(ids) == before


def a_map(kind, admit=2):
    """A map with freed rows and candidates."""
    ids, keys = so.IdMap(kind, admit), np.arange(3000)
    text = (lambda numbers: [f"schlüssel {number}" for number in numbers]) if kind == "str" else list
    for batch in (keys[:2000], keys[1000:], keys[500:1500]):
        ids.rows(text(batch.tolist()))
    ids.evict(300)
    ids.evict(20, by="count")
    return ids, text([*range(400, 3100)])


@pytest.mark.parametrize("admit", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_map_in_the_metadata_is_saved_with_the_optimizer(kind, admit, tmp_path):
    ids, more = a_map(kind, admit)
    opt = so.Adam(so.zeros((ids.n_rows, 2)), lr=0.1)
    opt.metadata |= {"user/ids": ids, "empty": so.IdMap(kind), "note": "x"}
    so.save(tmp_path / "a.safetensors", opt)
    metadata = so.load(tmp_path / "a.safetensors").metadata
    assert list(metadata) == ["user/ids", "empty", "note"]
    again = metadata["user/ids"]
    assert state(again) == state(ids)
    assert state(metadata["empty"]) == state(so.IdMap(kind))
    assert_array_equal(again.rows(more), ids.rows(more))
    assert_array_equal(again.evict(500, by="count"), ids.evict(500, by="count"))
    assert state(again) == state(ids)


@pytest.mark.parametrize("how", ["file", "state_dict"])
def test_loading_fills_the_map_that_is_there(how, tmp_path):
    ids, more = a_map("str")
    opt = so.SGD(so.zeros((5, 1)), lr=1.0)
    opt.metadata["ids"] = ids
    before, kept = state(ids), copy.deepcopy(opt.state_dict())
    so.save(tmp_path / "a.safetensors", opt)
    for _ in range(2):                  # what was loaded changes later, and what was kept does not
        ids.rows(more)
        assert state(ids) != before
        if how == "file":
            so.load(tmp_path / "a.safetensors", opt)
        else:
            opt.load_state_dict(kept)
        assert opt.metadata["ids"] is ids
        assert state(ids) == before
    fresh = so.SGD(so.zeros((5, 1)), lr=1.0)
    fresh.load_state_dict(kept)
    assert fresh.metadata["ids"] is not kept["metadata"]["ids"]
    assert state(fresh.metadata["ids"]) == before


def test_early_stopping_restores_a_map():
    ids = so.IdMap()
    opt = so.SGD(so.zeros((5, 1)), lr=1.0)
    opt.metadata["ids"] = ids
    stopping = so.training.EarlyStopping(opt, patience=1)
    ids.rows([7, 8])
    stopping.step(1.0)
    ids.rows([9])
    stopping.restore()
    assert list(ids) == [7, 8]


def changed(name, change):
    def of(settings, arrays):
        if name in settings:
            settings[name] = change
        else:
            arrays[name] = change(arrays[name])
    return of


def with_first(value):
    def of(array):
        array[0] = value
        return array
    return of


DAMAGED = {
    "int64": [changed("kind", "float"), changed("kind", "str"), changed("admit", 0), changed("admit", "2"),
              changed("clock", -1), changed("clock", 1), changed("free_row", 2**40), changed("free_row", 0),
              changed("free_row", 1), changed("rows.counts", with_first(-1)), changed("rows.counts", with_first(0)),
              changed("rows.counts", lambda a: a[:-1]), changed("rows.last", with_first(2**62)),
              changed("rows.keys", lambda a: a[::-1][:-1]), changed("rows.keys", lambda a: a * 0),
              changed("rows.last", lambda a: a * 0 + 1), changed("candidates.counts", with_first(2)),
              changed("candidates.keys", lambda a: a * 0)],
    "str": [changed("rows.ends", lambda a: a[::-1]), changed("rows.texts", lambda a: a[:-1]),
            changed("rows.texts", with_first(0xFF)), changed("rows.texts", lambda a: np.append(a, a[:1])),
            changed("rows.ends", lambda a: a + 1), changed("rows.texts", lambda a: a * 0),
            changed("candidates.ends", with_first(-1))],
}


@pytest.mark.parametrize(("kind", "damage"), [(kind, damage) for kind, all_ in DAMAGED.items() for damage in all_])
def test_parts_that_no_map_has_are_refused(kind, damage):
    settings, arrays = _ids.to_parts(a_map(kind)[0])
    assert state(_ids.from_parts(dict(settings), arrays)) == state(a_map(kind)[0])
    damage(settings, arrays)
    with pytest.raises((ValueError, TypeError, KeyError)):
        _ids.from_parts(settings, arrays)


@pytest.mark.parametrize("kind", KINDS)
def test_any_changed_byte_of_a_file_with_a_map_is_an_error(kind, tmp_path):
    ids = so.IdMap(kind, admit=2)
    ids.rows([5, 6, 7, 5, 6] if kind == "int64" else ["5", "6", "7", "5", "6"])
    ids.evict(1)
    opt = so.SGD(so.zeros((1, 1)), lr=1.0)
    opt.metadata["ids"] = ids
    so.save(tmp_path / "a.safetensors", opt)
    whole = (tmp_path / "a.safetensors").read_bytes()
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        (tmp_path / "b.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"b\.safetensors"):
            so.load(tmp_path / "b.safetensors")


def two_tables(n_rows):
    return so.Adam({"user": np.ones((n_rows, 2), np.float32), "bias": np.ones(n_rows, np.float32)}, lr=0.1)


def test_evicted_rows_are_new_in_all_tables():
    ids, opt = so.IdMap(), two_tables(4)
    rows = ids.rows([5, 6, 7])
    opt.step({"user": so.RowGradient(rows, np.ones((3, 2))), "bias": so.RowGradient(rows, np.ones(3))})
    ids.rows([6])
    assert ids.evict(1, opt, keep=[1]).tolist() == [3]
    for name in ("user", "bias"):
        assert not opt.params[name][3].any()
        assert opt.params[name][1:3].all()
        assert opt.state[name]["step"].tolist() == [0, 1, 1, 0]
        assert not opt.state[name]["exp_avg"][3].any()
    assert ids.evict(1, opt, ["user"]).tolist() == [1]
    assert not opt.params["user"][1].any()
    assert opt.params["bias"][1].any()
    assert ids.evict(1, opt, init=so.init.Constant(0.5)).tolist() == [2]
    assert_array_equal(opt.params["user"][2], [0.5, 0.5])


@pytest.mark.parametrize(("tables", "n_rows", "error"), [(["users"], 9, KeyError), (None, 2, IndexError)])
def test_an_eviction_that_the_optimizer_refuses_changes_nothing(tables, n_rows, error):
    ids, opt = so.IdMap(), two_tables(n_rows)
    ids.rows([5, 6, 7])
    before = state(ids)
    with pytest.raises(error):
        ids.evict(3, opt, tables)
    assert state(ids) == before
    assert all(table.all() for table in opt.params.values())


def test_tables_of_several_kinds_of_keys_must_be_told_apart():
    users, opt = so.IdMap(), so.SGD({"user": np.ones((5, 2)), "item": np.ones((9, 2))}, lr=1.0)
    users.rows([7, 8])
    with pytest.raises(ValueError, match=r"different numbers of rows .*; tables must say which"):
        users.evict(1, opt)
    with pytest.raises(TypeError, match="opt is a dict; it must be None or an Optimizer"):
        users.evict(1, opt.params | {})
    with pytest.raises(TypeError, match=r"tables is 'user'; .* a sequence of names, such as \['user'\]"):
        users.evict(1, opt, "user")
    assert len(users) == 2
    users.evict(1, opt, ["user"])
    assert opt.params["item"].all()


def test_an_interrupted_eviction_has_happened_in_map_and_tables_or_in_none():
    class Interrupt(Exception):
        pass

    def handler(number, frame):
        raise Interrupt

    rng, ids, opt = np.random.default_rng(0), so.IdMap(), two_tables(2001)
    ids.rows(np.arange(2000))
    before, interrupted = signal.signal(signal.SIGALRM, handler), 0
    try:
        for _ in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 + rng.random() * 4e-4)
                try:
                    ids.evict(5, opt)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                interrupted += 1
            has_key = np.append(True, ids._map.uses()[1] > 0)
            assert_array_equal(opt.params["user"].any(axis=1), has_key)
            assert_array_equal(opt.params["bias"] != 0, has_key)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 10


@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_a_map(kind):
    rng = np.random.default_rng(0)
    work = [rng.integers(0, 3000, 20_000) for _ in range(4)]
    work = [keys.astype(str) for keys in work] if kind == "str" else work
    ids, results, errors = so.IdMap(kind), {}, []

    def run(number):
        try:
            results[number] = np.concatenate([ids.rows(part) for part in np.array_split(work[number], 50)])
            assert len(copy.copy(ids)) >= len(np.unique(work[number]))
            ids.rows(work[number], add=False)
            ids.keys(results[number][:10])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for number, keys in enumerate(work):
        assert_array_equal(ids.keys(results[number]), keys)
    assert sorted(ids.rows(np.unique(np.concatenate(work)), add=False)) == list(range(1, len(ids) + 1))
    assert ids._map.uses()[1].sum() == 80_000


def test_a_call_that_a_signal_interrupts_has_happened_or_not():
    class Interrupt(Exception):
        pass

    def handler(number, frame):
        raise Interrupt

    rng = np.random.default_rng(0)
    ids, model = so.IdMap("str", admit=2), Sequential(2)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        interrupted = 0
        for turn in range(400):
            keys = [f"k{key}" for key in rng.zipf(1.3, 300) % 400]
            clock = ids._map.parts()[0]
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.random() * 3e-4)
                try:
                    if turn % 3 == 2:
                        ids.evict(5)
                    else:
                        ids.rows(keys)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                interrupted += 1
            if turn % 3 == 2:
                if len(ids) < len(model.row):
                    model.evict(5, "last", ())
            elif ids._map.parts()[0] > clock:
                model.rows(keys, True)
            check(ids, model)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 10


SHORT_OF_MEMORY = """
import resource, sys
import numpy as np, sparseopt as so
kind = sys.argv[1]
ids = so.IdMap(kind, admit=int(sys.argv[2]))
old, new = np.arange(2000), np.arange(3 * 10**5)
old, new = (old.astype(str), new.astype(str)) if kind == "str" else (old, new)
ids.rows(old)
ids.rows(old)
before, size = ids._map.parts(), int(open("/proc/self/statm").read().split()[0]) * 4096
new = np.concatenate([old, new, new])
failed = 0
for room in range(0, 400_000_000, 3_000_000):
    resource.setrlimit(resource.RLIMIT_AS, (size + room, -1))
    try:
        rows = ids.rows(new)
    except MemoryError:
        failed += 1
    else:
        break
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    after = ids._map.parts()
    assert before[:2] == after[:2] and len(ids) == 2000, "the map has changed"
    assert all((before[2][name] == after[2][name]).all() for name in before[2]), "rows have changed"
    assert not after[3]["counts"].any(), "candidates have changed"
assert failed > 1, failed
assert len(ids) == 3 * 10**5
assert (ids.rows(new, add=False)[-len(ids):] == np.arange(1, len(ids) + 1)).all()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of memory as on Linux")
@pytest.mark.parametrize("admit", ["1", "2"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_without_enough_memory_leaves_the_map_as_it_was(kind, admit, tmp_path):
    done = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY, kind, admit], cwd=tmp_path, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
