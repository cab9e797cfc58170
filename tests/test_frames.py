"""Ratings from data frames of pandas, polars and pyarrow, and from dicts of columns."""

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pytest

from sparseopt.datasets import interactions

WHO, WHAT = ["eve", "ann", "eve", "bob"], [30, 7, 7, 2**60 + 1]
STARS, WHEN = [4.0, 2.5, 5.0, 1.0], ["2020-01-01T00:00:00", "2020-01-02T12:00:00", "2019-12-31T23:59:59", "2021-05-05"]
SECONDS = [1577836800.0, 1577966400.0, 1577836799.0, 1620172800.0]
COLUMNS = {"who": WHO, "what": WHAT, "stars": STARS, "when": WHEN}


def pandas(columns, **dtypes):
    frames = pytest.importorskip("pandas", reason="pandas is not installed")
    return frames.DataFrame(columns).astype(dtypes)


def polars(columns, **dtypes):
    frames = pytest.importorskip("polars", reason="polars is not installed")
    return frames.DataFrame(columns).with_columns(*(frames.col(name).cast(getattr(frames, dtype))
                                                    for name, dtype in dtypes.items()))


def pyarrow(columns):
    return pytest.importorskip("pyarrow", reason="pyarrow is not installed").table(columns)


def check(frame, times=SECONDS):
    found = interactions(frame, user="who", item="what", rating="stars", time="when")
    assert found.user_ids.tolist() == ["ann", "bob", "eve"]
    assert found.item_ids.tolist() == [7, 30, 2**60 + 1]
    assert (found.users.tolist(), found.items.tolist()) == ([2, 0, 2, 1], [1, 0, 0, 2])
    assert found.values.tolist() == STARS
    assert found.times.tolist() == times
    assert (found.counts, found.columns) == (False, "user: who; item: what; rating: stars; time: when")


@pytest.mark.parametrize("make", [dict, pandas, polars, pyarrow])
def test_every_kind_of_frame_gives_the_same_ratings(make):
    check(make(COLUMNS))


@pytest.mark.parametrize("who", ["str", "object", "category", "string[python]", "string[pyarrow]"])
@pytest.mark.parametrize("what", ["int64", "uint64", "Int64", "UInt64", "category", "int64[pyarrow]"])
@pytest.mark.parametrize("when", ["datetime64[ns]", "datetime64[s]", "datetime64[ns, UTC]", "category"])
def test_the_dtypes_of_pandas_are_read_alike(who, what, when):
    check(pandas(COLUMNS | {"stars": np.array(STARS)}, who=who, what=what, when=when, stars="Float64"))


@pytest.mark.parametrize("who", ["String", "Categorical"])
@pytest.mark.parametrize("what", ["Int64", "UInt64"])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
def test_the_dtypes_of_polars_are_read_alike(who, what, unit, zone):
    moments = [datetime.fromisoformat(when).replace(tzinfo=timezone.utc if zone else None) for when in WHEN]
    frame = polars(COLUMNS | {"when": moments}, who=who, what=what, stars="Float32")
    column = frame["when"].dt.cast_time_unit(unit)
    check(frame.with_columns(column.dt.convert_time_zone(zone) if zone else column))


def test_columns_of_arrow_in_chunks_and_with_dictionaries_are_read():
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = arrow.table(COLUMNS | {"who": arrow.array(WHO).dictionary_encode(),
                                   "when": arrow.array([datetime.fromisoformat(one) for one in WHEN])})
    check(arrow.concat_tables([table[:2], table[2:]]))


@pytest.mark.parametrize("when", [
    [1577836800, 1577966400, 1577836799, 1620172800], np.array(SECONDS) * 1e3, np.array(SECONDS) * 1e6,
    np.array(SECONDS, dtype=np.int64) * 10**9, np.array(WHEN, dtype="datetime64[s]"),
    [datetime.fromisoformat(one) for one in WHEN],
    [datetime.fromisoformat(one).replace(tzinfo=timezone.utc).astimezone(timezone(timedelta(hours=5))) for one in WHEN],
])
def test_times_of_every_kind_are_seconds_since_1970(when):
    check(COLUMNS | {"when": when})


def test_dates_are_midnight_of_utc():
    found = interactions({"u": [1, 2], "i": [1, 1], "t": [date(1970, 1, 2), date(1970, 1, 1)]}, "u", "i", time="t")
    assert found.times.tolist() == [86400.0, 0.0]
    found = interactions({"u": [1, 2], "i": [1, 1], "t": ["12/31/2009 7:49", "1/5/2010 0:00"]}, "u", "i", time="t")
    assert found.times.tolist() == [datetime(2009, 12, 31, 7, 49, tzinfo=timezone.utc).timestamp(),
                                    datetime(2010, 1, 5, tzinfo=timezone.utc).timestamp()]


def test_without_ratings_rows_count_and_repeated_pairs_add_up():
    found = interactions({"u": ["a", "b", "a"], "i": [1, 1, 1]}, "u", "i")
    assert (found.counts, found.times, found.merged, found.values.tolist()) == (True, None, 1, [1.0, 2.0])
    plays = {"u": ["a", "b", "a"], "i": [1, 1, 1], "plays": [3, 4, 5]}
    assert interactions(plays, "u", "i", "plays", weights=True).values.tolist() == [4.0, 8.0]
    assert interactions(plays, "u", "i", "plays").values.tolist() == [4.0, 5.0]
    assert interactions(plays, "u", "i", "plays", duplicates="first").values.tolist() == [3.0, 4.0]


def test_whole_floats_and_prices_of_decimals_are_read():
    found = interactions({"u": np.array([3.0, 1.0]), "i": np.array(["a", "b"]), "r": [Decimal("1.5"), Decimal(2)]},
                         "u", "i", "r")
    assert (found.user_ids.tolist(), found.user_ids.dtype, found.values.tolist()) == ([1, 3], np.int64, [1.5, 2.0])
    assert found.item_ids.dtype == object
    assert interactions({"u": [1, 2], "i": [1, 1], "liked": [True, False]}, "u", "i", "liked").values.tolist() == [1, 0]


GOOD = {"u": [1, 2, 3], "i": ["a", "b", "c"], "r": [1.0, 2.0, 3.0], "t": [1, 2, 3]}


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"u": [1, None, 3]}, ValueError, r"column 'u' \(user\) has 1 missing values, the first in row 1; such rows must"),
    ({"i": ["a", "b", None]}, ValueError, r"column 'i' \(item\) has 1 missing values, the first in row 2"),
    ({"r": [np.nan, 1.0, np.nan]}, ValueError, r"column 'r' \(rating\) has 2 missing values, the first in row 0"),
    ({"t": np.array(["2020-01-01", "NaT", "NaT"], "datetime64[s]")}, ValueError, r"'t' \(time\) has 2 missing values"),
    ({"u": [1, 2]}, ValueError, r"column 'i' \(item\) has 3 rows and column 'u' has 2; all columns must"),
    ({"u": [1.0, 2.5, 3.0]}, ValueError, r"column 'u' \(user\) has 2.5 in row 1; ids must be integers or texts"),
    ({"u": [1.0, 2.0, 2.0**60]}, ValueError, r"column 'u' \(user\) has 1.1529215046068\d+e\+18 in row 2; ids must be"),
    ({"u": np.array([1, 2, 2**64 - 1], np.uint64)}, ValueError, "'u' .* has 18446744073709551615 in row 2; ids"),
    ({"u": np.array([1, 2, 2**70], object)}, ValueError, "'u' .* has integers outside int64"),
    ({"u": [True, False, True]}, TypeError, "'u' .* has dtype bool; ids must be integers or texts"),
    ({"u": np.array([1, "b", 3], object)}, TypeError, "'u' .* has 'b' in row 1; ids must all be integers or all be"),
    ({"u": [1, "b", 3]}, TypeError, "'u' .* has 'b' in row 1; ids must all be integers or all be texts"),
    ({"i": ["a", float("nan"), "c"]}, ValueError, r"column 'i' \(item\) has 1 missing values, the first in row 1"),
    ({"u": [b"a", b"b", b"c"]}, TypeError, "'u' .* ids must be integers or texts"),
    ({"u": [[1], [2], [3]]}, ValueError, r"column 'u' \(user\) has shape \(3, 1\); it must have one dimension"),
    ({"r": ["1", "2", "3"]}, TypeError, r"'r' \(rating\) has '1' in row 0; ratings must be numbers"),
    ({"r": [1.0, np.inf, 2.0]}, ValueError, "'r' .* has inf in row 1; ratings must be finite"),
    ({"t": ["2020-01-01", "soon", "later"]}, ValueError, r"'t' \(time\) has 'soon' in row 1; it must be a number"),
    ({"t": [True, False, True]}, TypeError, "'t' .* has True in row 0, of dtype bool; times must all be numbers"),
    ({"t": [1.0, np.inf, 2.0]}, ValueError, "'t' .* has inf; times must be finite"),
    ({"u": [], "i": [], "r": [], "t": []}, ValueError, "frame has no rows"),
])
def test_a_column_that_cannot_be_right_is_named(change, error, message):
    interactions(GOOD, "u", "i", "r", "t")
    with pytest.raises(error, match=message):
        interactions(GOOD | change, "u", "i", "r", "t")


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: interactions(GOOD, "user", "i"), ValueError, "user is 'user', and frame has no such column; the .* are "
                                                          "'u', 'i', 'r', 't'"),
    (lambda: interactions(GOOD, "u", "u"), ValueError, "one column is named for two things: user='u', item='u'"),
    (lambda: interactions(GOOD, "u", 1), TypeError, "item is 1; it must be the name of a column"),
    (lambda: interactions(np.ones((3, 2)), "u", "i"), TypeError, "frame is a ndarray; it must be a data frame, or a"),
    (lambda: interactions(GOOD, "u", "i", weights=True), ValueError, "weights is True and rating is None"),
    (lambda: interactions(GOOD, "u", "i", weights=1), TypeError, "weights is 1; it must be True or False"),
    (lambda: interactions(GOOD, "u", "i", duplicates="best"), ValueError, "duplicates is 'best'"),
])
def test_a_wrong_argument_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "category", "int64[pyarrow]", "object"])
def test_values_that_pandas_takes_as_missing_are_named(dtype):
    frame = pandas({"u": [2**60 + 1, 2, 3], "i": ["a", "b", "c"]}, u=dtype)
    frame.loc[1, "u"] = None
    with pytest.raises(ValueError, match=r"column 'u' \(user\) has 1 missing values, the first in row 1"):
        interactions(frame, "u", "i")
    if dtype in ("Int64", "int64[pyarrow]"):
        assert interactions(frame.dropna(), "u", "i").user_ids.tolist() == [3, 2**60 + 1]


def test_values_that_polars_takes_as_missing_are_named():
    frame = polars({"u": [1, 2, None], "i": ["a", None, "c"], "r": [1.0, float("nan"), None]})
    for name, count, row in (("u", 1, 2), ("i", 1, 1), ("r", 2, 1)):
        with pytest.raises(ValueError, match=rf"column '{name}' .* has {count} missing values, the first in row {row}"):
            interactions(frame.with_columns(other=polars({"other": [1, 2, 3]})["other"]), "other", name)


def test_a_frame_of_polars_that_is_not_computed_yet_is_an_error_that_says_so():
    with pytest.raises(TypeError, match=r"frame is a LazyFrame, which is not computed yet; it must be frame.collect"):
        interactions(polars(COLUMNS).lazy(), "who", "what")


def test_a_name_that_pandas_has_twice_is_refused():
    frame = pandas(COLUMNS)
    frame.columns = ["who", "what", "stars", "what"]
    with pytest.raises(ValueError, match="item is 'what', and frame has 2 such columns"):
        interactions(frame, "who", "what")


def test_an_index_of_pandas_that_is_in_another_order_changes_nothing():
    check(pandas(COLUMNS).set_index(np.array([3, 1, 2, 1])))


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"u": np.ma.array([1, 2, 3], mask=[0, 1, 0])}, ValueError, "'u' .* has 1 missing values, the first in row 1"),
    ({"r": np.ma.array([1.0, 2.0, np.nan], mask=[0, 1, 0])}, ValueError, r"'r' \(rating\) has 2 missing values"),
    ({"u": [1, True, 2]}, TypeError, "'u' .* has True in row 1; ids must all be integers or all be texts"),
    ({"t": [1, True, 2]}, TypeError, "'t' .* has True in row 1, of dtype object; times must all be numbers"),
    ({"t": [1, "2020-01-01", 2]}, TypeError, "'t' .* has '2020-01-01' in row 1, of dtype object; times must all be"),
    ({"r": [1, "2", 3]}, TypeError, "'r' .* has '2' in row 1; ratings must be numbers"),
    ({"r": [1, 2, 10**400]}, TypeError, r"'r' .* has 10+\.\.\. in row 2; ratings must be numbers within float64"),
])
def test_numpy_hides_no_missing_value_and_no_cell_of_another_kind(change, error, message):
    with pytest.raises(error, match=message):
        interactions({**GOOD, **change}, "u", "i", "r", "t")


@pytest.mark.filterwarnings("error")
def test_ids_of_float16_are_read():
    assert interactions({"u": np.array([1, 2], np.float16), "i": [1, 1]}, "u", "i").user_ids.tolist() == [1, 2]


def test_a_column_of_pandas_may_have_the_name_of_a_method_of_other_frames():
    frame = pandas({"collect": [1, 2], "column_names": ["a", "b"]})
    assert interactions(frame, "collect", "column_names").item_ids.tolist() == ["a", "b"]


def test_integers_of_polars_that_numpy_has_no_dtype_for_are_an_error_that_names_the_column():
    pl = pytest.importorskip("polars", reason="polars is not installed")
    frame = pl.DataFrame({"u": pl.Series([1, 2], dtype=pl.Int128), "i": [1, 2]})
    with pytest.raises(TypeError, match=r"column 'u' \(user\) of the DataFrame cannot be read as an array"):
        interactions(frame, "u", "i")


@pytest.mark.parametrize("missing", [None, np.nan])
def test_a_missing_value_of_numpys_texts_is_no_id(missing):
    if not hasattr(np, "dtypes") or not hasattr(np.dtypes, "StringDType"):
        pytest.skip("NumPy 1 has no StringDType")
    texts = np.array(["a", missing, "b"], np.dtypes.StringDType(na_object=missing))
    with pytest.raises(ValueError, match=r"'u' \(user\) has 1 missing values, the first in row 1"):
        interactions({"u": texts, "i": [1, 2, 3]}, "u", "i")
