"""Ratings, and the reader of ratings on files of all layouts. pyarrow and the plain reader give the same."""

import gzip
import json
import sys
from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from sparseopt.datasets import Ratings, _columns, _tables, read_ratings
from sparseopt.datasets.ratings import read_titles

HEAD = "userId,movieId,rating,timestamp\n"
FIELDS = "users", "items", "values", "times", "user_ids", "item_ids"


def written(folder, text, name="ratings.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def same(found, expected):
    for name in FIELDS:
        assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)
    assert (found.counts, found.merged, found.left_out) == (expected.counts, expected.merged, expected.left_out)


def test_ratings_are_numbered_by_their_ids(tmp_path):
    ratings = read_ratings(written(tmp_path, HEAD + "20,7,4.5,100\n3,9,1,50\n20,9,2.0,101\n\n"))
    assert_array_equal(ratings.user_ids, [3, 20])
    assert_array_equal(ratings.item_ids, [7, 9])
    assert_array_equal(ratings.matrix().toarray(), [[0, 1], [4.5, 2]])
    assert_array_equal(ratings.times, [100, 50, 101])
    assert_array_equal(ratings.matrix([0]).toarray(), [[0, 0], [4.5, 0]])
    liked = ratings.where(ratings.values > 4)
    assert (len(liked), liked.user_ids, liked.item_ids, liked.users, liked.items) == (1, [20], [7], [0], [0])


ROWS = [(1, 7, 5.0, 978300760), (2, 7, 3.0, 978302109), (2, 9, 0.5, 978301968), (1, 9, 4.0, 978300275)]


@pytest.mark.parametrize(("form", "name", "how"), [
    ("{}\t{}\t{}\t{}", "u.data", {}),
    ("{}::{}::{}::{}", "ratings.dat", {}),
    ("{}|{}|{}|{}", "ratings.item", {}),
    ('"{}";"{}";"{}";"{}"\r', "ratings.csv", {}),
    ("{0}.0,{1}.0,{2},{3}", "floats.csv", {}),
    (" {0}, {1} , {2}, {3}", "spaces.csv", {}),
    ("{} {} {} {}", "spaces.txt", {"sep": " "}),
    ("{0},{1},{2},{3},\"a, \"\"b\"\"\"", "more.csv", {"columns": {"user": 0, "item": "1", "rating": 2, "time": 3}}),
    ("{3},{2},{1},{0}", "turned.csv", {"columns": {"user": 3, "item": 2, "rating": 1, "time": 0}}),
])
def test_files_without_names_are_read(form, name, how, tmp_path):
    expected = read_ratings(written(tmp_path, HEAD + "".join("{},{},{},{}\n".format(*row) for row in ROWS)))
    assert_array_equal(expected.users, [0, 1, 1, 0])
    text = "\n".join(form.format(*row) for row in ROWS)
    for path in (written(tmp_path, text, name), written(tmp_path, gzip.compress(text.encode()), "packed.gz")):
        found = read_ratings(path, **how)
        same(found, expected)
    if name == "u.data":
        assert found.columns == "user: column 0; item: column 1; rating: column 2; time: column 3 (tabs, no header)"


@pytest.mark.parametrize("header", [
    "user_id,item_id,rating,timestamp", "userID,movieID,Rating,Timestamp", "User-ID,ISBN,Book-Rating,date",
    "uid,asin,score,unix_time", "reviewerID,asin,overall,unixReviewTime", "user,artist,stars,time",
    "UserId,ProductId,Score,Time",
])
def test_columns_with_well_known_names_are_found_in_any_order(header, tmp_path):
    user, item, rating, time = header.split(",")
    expected = read_ratings(written(tmp_path, HEAD + "".join("{},{},{},{}\n".format(*row) for row in ROWS)))
    text = f'index;{time};{item};{rating};note;"{user}"\n' + "".join(
        f'{i};{t};{m};{r};"a;b";{u}\n' for i, (u, m, r, t) in enumerate(ROWS))
    found = read_ratings(written(tmp_path, text))
    same(found, expected)
    assert found.columns == (f"user: {user}; item: {item}; rating: {rating}; time: {time}; not used: index, note "
                             "(semicolons, header)")


def test_json_lines_and_parquet_give_the_same_as_text(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"reviewerID": f"A{u}", "asin": f"00{m}", "overall": r, "unixReviewTime": t, "helpful": [0, 1]}
            for u, m, r, t in ROWS]
    expected = read_ratings(written(tmp_path, "".join(f"A{u},00{m},{r},{t}\n" for u, m, r, t in ROWS)))
    assert expected.item_ids.tolist() == ["007", "009"]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    same(read_ratings(written(tmp_path, lines, "reviews.jsonl")), expected)
    same(read_ratings(written(tmp_path, gzip.compress(lines.encode()), "reviews.json.gz")), expected)
    table = pyarrow.table({name: [row[name] for row in rows] for name in rows[0]})
    times = pyarrow.array([row["unixReviewTime"] * 1000 for row in rows], pyarrow.timestamp("ms"))
    items = table["asin"].dictionary_encode()
    for columns in (table, table.set_column(3, "time", times), table.set_column(1, "asin", items)):
        parquet.write_table(columns, tmp_path / "reviews.parquet")
        same(read_ratings(tmp_path / "reviews.parquet"), expected)
    parquet.write_table(pyarrow.table({"user": [7.0, None, 9.0], "item": [1, 2, 3], "liked": [True, True, False]}),
                        tmp_path / "floats.parquet")
    found = read_ratings(tmp_path / "floats.parquet", columns={"rating": "liked"})
    assert (found.user_ids.tolist(), found.values.tolist(), found.left_out) == ([7, 9], [1, 0], 1)
    (tmp_path / "ratings.parquet").write_text(HEAD)
    with pytest.raises(ValueError, match=r"ratings.parquet: not a Parquet file: "):
        read_ratings(tmp_path / "ratings.parquet")


def test_a_comma_is_a_decimal_point_between_semicolons(tmp_path):
    found = read_ratings(written(tmp_path, "user;item;rating\n1;2;3,5\n1;3;-4\n1;4;1.5\n"))
    assert found.values.tolist() == [3.5, -4, 1.5]
    with pytest.raises(ValueError, match=r"the rating \(rating\) is '3,5'"):
        read_ratings(written(tmp_path, "user\titem\trating\n1\t2\t3,5\n"))
    assert read_ratings(written(tmp_path, "user;item;weight\n1;2;0,25\n1;3;1,0005\n")).values.tolist() == [0.25, 1.0005]
    with pytest.raises(ValueError, match=r"the weight \(plays\) is '1,234'"):
        read_ratings(written(tmp_path, "user;item;plays\n1;2;1,234\n"))


@pytest.mark.parametrize("times", [
    ["2001-01-01T00:00:00", "2001-01-02T00:00:00.5"], ["2001-01-01", "2001-01-02 00:00:00.500000000"],
    ["2001-01-01T02:00:00+02:00", "2001-01-02T00:00:00.500Z"], ["978307200000", "978393600500"],
    ["978307200000000", "978393600500000"], ["978307200000000000", "978393600500000000"], ["978307200", "978393600.5"],
    ["9.783072e8", "978393600.5"],
])
def test_times_are_seconds_whatever_their_unit(times, tmp_path):
    found = read_ratings(written(tmp_path, "".join(f"1,{i},3,{time}\n" for i, time in enumerate(times))))
    assert_array_equal(found.times, [978307200.0, 978393600.5])
    assert found.times.dtype == np.float64


def test_columns_without_a_name_that_can_be_no_ratings_are_times_or_counts(tmp_path):
    for cells, columns, counts, times in (
            ("978300760 978302109", "user: column 0; item: column 1; time: column 2", True, [978300760, 978302109]),
            ("2001-01-01 2001-01-02", "user: column 0; item: column 1; time: column 2", True, [978307200, 978393600]),
            ("1 4000", "user: column 0; item: column 1; weight: column 2", True, None),
            ("1,7 4000,9", "user: column 0; item: column 1; weight: column 2; time: column 3", True, [7, 9]),
            ("1 10", "user: column 0; item: column 1; rating: column 2", False, None)):
        found = read_ratings(written(tmp_path, "".join(f"1,{i},{cell}\n" for i, cell in enumerate(cells.split()))))
        assert (found.columns, found.counts) == (f"{columns} (commas, no header)", counts)
        assert (found.times is None and times is None) or found.times.tolist() == times
    pairs = read_ratings(written(tmp_path, "ann,tea\nann,jam\nann,tea\n"))
    assert (pairs.user_ids.tolist(), pairs.values.tolist(), pairs.counts, pairs.merged) == (["ann"], [1, 2], True, 1)


def test_ids_are_integers_only_if_no_text_is_lost(tmp_path):
    for ids, expected in (("7 07", ["07", "7"]), ("7 7.0", [7]), ("7 x", ["7", "x"]), ("-1 0", [-1, 0]),
                          ("1 9223372036854775808", ["1", "9223372036854775808"]),
                          ("-1 9223372036854775808", ["-1", "9223372036854775808"]), ("é ü", ["é", "ü"])):
        found = read_ratings(written(tmp_path, "".join(f"{one},1,1\n" for one in ids.split())))
        assert found.user_ids.tolist() == expected


def test_ids_that_are_far_apart_are_numbered_as_those_that_are_not(tmp_path):
    for ids in ([5, -3, 10**18, 5, 7], [5, 2**63 - 1, 0, 5, 7], [5, 3, 8, 5, 7], [-4, 2, -4, 0, 1]):
        found = read_ratings(written(tmp_path, "".join(f"{one},{i},1\n" for i, one in enumerate(ids))))
        assert found.user_ids.tolist() == sorted(set(ids))
        assert found.user_ids[found.users].tolist() == ids
        some = found.where(found.users != 1)
        assert some.user_ids[some.users].tolist() == [one for one in ids if one != sorted(set(ids))[1]]


def test_a_long_id_does_not_make_all_others_long(tmp_path):
    found = read_ratings(written(tmp_path, f"{'x' * 100_000},b,1\nc,d,1\n" + "".join(f"c,{i},1\n" for i in range(99))))
    assert found.user_ids.dtype == object
    assert len(found.user_ids[1]) == 100_000


@pytest.mark.parametrize(("how", "by_time", "by_place"), [
    (None, [[1, 3], [2, 0]], [[1, 3], [4, 0]]), ("last", [[1, 3], [2, 0]], [[1, 3], [4, 0]]),
    ("first", [[5, 3], [4, 0]], [[5, 3], [2, 0]]), ("mean", [[3, 3], [3, 0]], None), ("sum", [[6, 3], [6, 0]], None),
    ("max", [[5, 3], [4, 0]], None),
])
def test_pairs_that_come_again_are_merged_by_one_rule(how, by_time, by_place, tmp_path):
    lines = ["1,7,5,10", "2,7,2,30", "1,7,1,40", "1,8,3,5", "2,7,4,20"]       # the later rating of 2 stands first
    ratings = read_ratings(written(tmp_path, HEAD + "\n".join(lines)), duplicates=how)
    assert_array_equal(ratings.matrix().toarray(), by_time)
    assert (len(ratings), ratings.merged) == (3, 2)
    assert_array_equal(ratings.times, [10, 5, 20] if how == "first" else [30, 40, 5])
    without = read_ratings(written(tmp_path, "\n".join(line.rpartition(",")[0] for line in lines)), duplicates=how)
    assert_array_equal(without.matrix().toarray(), by_time if by_place is None else by_place)


def test_counts_add_up(tmp_path):
    found = read_ratings(written(tmp_path, "userID\tartistID\tweight\n1\t7\t3\n1\t7\t4\n2\t7\t0\n"))
    assert (found.values.tolist(), found.counts, found.merged) == ([7, 0], True, 1)
    chosen = found.chosen()
    assert chosen.values.tolist() == [1 + np.log(7)]
    assert chosen.user_ids.tolist() == [1]
    rated = read_ratings(written(tmp_path, "userId,movieId,rating\n1,7,3\n1,7,4\n"), weights=True)
    assert (rated.values.tolist(), rated.counts) == ([7], True)
    with pytest.raises(ValueError, match=r"min_rating \(--min-rating\) is 4, and the values are counts"):
        found.chosen(4)


@pytest.mark.parametrize(("values", "least", "kept"), [
    ([1, 3, 4, 5], 4, [2, 3]), ([0.5, 3.5, 4, 4.5], 3.6, [2, 3]), ([2, 7, 8, 10], 8, [2, 3]),
    ([1, 2, 3, 3], 2.4, [2, 3]), ([0, 0, 1, 1], 0.8, [2, 3]),
    ([-1, -1, 1, 1], 0.8, [2, 3]), ([-1, 1, 8, 10], 8, [0, 2, 3]), ([-1, 0, 8, 10], 8, [2, 3]),
    ([0, 0, 0, 5, 9, 10], 8, [0, 1, 2, 4, 5]),
])
def test_a_rating_of_four_fifths_of_the_highest_is_a_choice(values, least, kept):
    n = len(values)
    ratings = Ratings(np.zeros(n, np.int32), np.arange(n), np.array(values, float), None, np.arange(1), np.arange(n))
    assert ratings.default_min_rating() == pytest.approx(least)
    assert ratings.chosen().item_ids.tolist() == kept
    assert ratings.chosen(0.5).item_ids.tolist() == [i for i, value in enumerate(values) if value >= 0.5]
    with pytest.raises(ValueError, match=r"no rating is at least 99; .*min_rating \(--min-rating\) must be lower"):
        ratings.chosen(99)


def test_rows_with_an_empty_cell_are_left_out_and_counted(tmp_path):
    found = read_ratings(written(tmp_path, HEAD + "1,7,5,10\n,8,5,11\n2,,5,11\n3,7, ,12\n4,7,1,\n"))
    assert (found.user_ids.tolist(), found.item_ids.tolist(), found.left_out) == ([1], [7], 4)
    with pytest.raises(ValueError, match="has no ratings"):
        read_ratings(written(tmp_path, HEAD + ",8,5,11\n"))


def test_dates_with_slashes_are_read_if_the_column_shows_which_part_is_the_day(tmp_path):
    path = tmp_path / "invoices.csv"

    def times(*cells):
        path.write_text("customer,sku,quantity,InvoiceDate\n" + "".join(f"{i},1,1,{cell}\n"
                                                                       for i, cell in enumerate(cells)))
        return read_ratings(path).times.tolist()

    wanted = [datetime(2009, 12, 1, 7, 49, tzinfo=timezone.utc).timestamp(),
              datetime(2010, 1, 31, tzinfo=timezone.utc).timestamp(),
              datetime(2011, 3, 4, 23, 5, 59, tzinfo=timezone.utc).timestamp()]
    assert times("12/1/2009 7:49", "1/31/2010", "03/04/2011 23:05:59") == wanted
    assert times("1/12/2009 07:49", "31/01/2010", "4/3/2011 23:05:59", "NA") == wanted
    for cells, line in ((("12/1/2009 7:49", "1/2/2010"), 2), (("31/1/2009", "1/31/2010"), 2),
                        (("31/1/2009", "31/2/2009"), 3), (("31/1/2009", "1/2/2009 25:00"), 3),
                        (("31/1/2009", "1/2/09"), 3)):
        with pytest.raises(ValueError, match=rf"line {line}: the time .*9/5/2000 6:53 are read where a number above 12 "
                                             r"in the column .* \(time: None, or --columns time=\)"):
            times(*cells)


@pytest.mark.parametrize("word", ["NA", "n/a", "NaN", "NULL", "None", r"\N"])
def test_words_for_nothing_are_empty_cells_but_for_ids_that_are_texts(word, tmp_path):
    path = tmp_path / "ratings.csv"
    for users, left_out in (("123", 2), ("abc", 2)):
        a, b, c = users
        path.write_text(f"user,item,rating,time\n{a},5,4,100\n{b},5,{word},200\n{c},6,2,{word}\n{a},6,1,400\n")
        ratings = read_ratings(path)
        assert (ratings.values.tolist(), ratings.left_out) == ([4, 1], left_out)
        assert list(map(str, ratings.user_ids)) == [a]
    path.write_text(f"user,item,plays\n1.0,a,4\n{word},b,3\n2,{word},{word}\n3,{word},2\n")
    ratings = read_ratings(path)
    assert (ratings.user_ids.tolist(), ratings.item_ids.tolist(), ratings.left_out) == ([1, 3], sorted(["a", word]), 2)
    path.write_text(f"1,5,{word}\n2,5,964982703\n")           # the third column is still taken for times
    assert read_ratings(path).times.tolist() == [964982703]



@pytest.mark.parametrize(("text", "how", "message"), [
    ("", {}, "the file is empty"),
    (HEAD, {}, "has no ratings"),
    (HEAD + "1,2,3,4\n1,2,3\n", {}, r"line 3: the line has 3 cells, and the first line 4 \(commas, header\): '1,2,3'; "
                                    r"the first line is 'userId,.*; sep \(--sep\)"),
    (HEAD + "1,2,3,4,5\n", {}, "line 2: the line has 5 cells"),
    (HEAD + "1,2,x,4\n", {}, r"line 2: the rating \(rating\) is 'x'; it must be a finite number; the first line is "
                             r"'userId,movieId.*; columns \(--columns rating=\.\.\.\)"),
    (HEAD + "1,2,3,4\n\n1,2,inf,4\n", {}, "line 4: .* a finite number"),
    (HEAD + "1,2,1_0,4\n", {}, "line 2: .* a finite number"),
    (HEAD + "1,2,3,yesterday\n", {}, r"line 2: the time \(timestamp\) is 'yesterday'; .* a date such as 2000-09-05.*"
                                      r"or say that there is none \(time: None, or --columns time=\)"),
    ("who,what,stars\na,b,1\n", {}, "no column is known to be the user; the first line is 'who,what,stars' .*; the "
                                    r"columns are who, what, stars; columns \(--columns user=\.\.\."),
    ("1,2,3,4,5\n", {}, "two to four columns are user, item, rating and time, and the file has 5"),
    ("1,2,978300760,3\n", {}, "column 2 is taken for the rating, and has times: dates, or"),
    ("1,2,2001-01-01,3\n", {}, "column 2 is taken for the rating, and has times"),
    ("1,a,b,3\n", {}, r"line 1: the rating \(column 2\) is 'b'"),
    (HEAD, {"columns": {"user": "who"}}, "'who' names no column, or several; .*: userId, movieId"),
    (HEAD, {"columns": {"user": 1, "item": 1}}, "one column is taken for two things: user=movieId, item=movieId"),
    (HEAD, {"columns": {"film": 1}}, r"columns \(--columns\) has 'film': 1; the keys must be of user, item, "),
    (HEAD, {"columns": {"user": None}}, "has user: None"),
    (HEAD, {"columns": {"rating": 2, "weight": 3}}, "both a rating and a weight"),
    (HEAD, {"duplicates": "least"}, "duplicates is 'least'; it must be 'last' or 'first'"),
    ("user,item,rating\nD\xe9,1,1\n".encode("latin-1"), {}, r"line 2: its bytes are no utf-8 .*\(--encoding\)"),
])
def test_a_file_that_does_not_fit_is_refused_with_the_option_that_helps(text, how, message, tmp_path, monkeypatch):
    for module in ("pyarrow", "no pyarrow"):
        if module == "no pyarrow":
            monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ValueError, match=message):
            read_ratings(written(tmp_path, text), **how)


def test_other_options_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(OSError, match="nothing"):
        read_ratings(tmp_path / "nothing.csv")
    with pytest.raises(TypeError, match=r"columns is \['user'\]; it must be a dict"):
        read_ratings(written(tmp_path, HEAD), columns=["user"])
    with pytest.raises(ValueError, match=r"sep \(--sep\) is given, and .* is read as JSON lines"):
        read_ratings(written(tmp_path, "{}\n", "a.jsonl"), sep=",")
    with pytest.raises(ValueError, match=r"line 1: 'user' is .*; it must be a text or a number"):
        read_ratings(written(tmp_path, '{"user": [1], "item": 2}\n', "a.jsonl"))


def test_a_column_that_does_not_exist_can_be_ruled_out(tmp_path):
    found = read_ratings(written(tmp_path, HEAD + "1,2,3,soon\n"), columns={"time": None})
    assert found.times is None
    assert read_ratings(written(tmp_path, HEAD + "1,2,3,soon\n"), columns={"time": None, "rating": None}).counts


# Small files with all that goes wrong in a text, and larger pieces of what is well formed.
CELL = st.sampled_from(["1", "07", "0", "9" * 20, "é", " x ", '"q"', '"a,b"', '"l\nm"', '"say ""no"""', "1.5", "::",
                        ":", "", "5\" vinyl"])
TABLE = st.tuples(
    st.sampled_from([",", "\t", ";", "|", "::"]), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(),
    st.lists(st.lists(CELL, min_size=3, max_size=3) | st.just([""]) | st.just(["1", "2"]), min_size=1, max_size=6),
).map(lambda drawn: drawn[1].join(drawn[0].join(cells) for cells in drawn[3]) + (drawn[1] if drawn[2] else ""))


@given(text=TABLE | st.text('1a",;\t\r\n:| é\ufeff', max_size=40), encoding=st.sampled_from(["utf-8", "utf-16"]),
       header=st.sampled_from([None, True, False]))
@example(text='"User";"Item"\r\n"1";"a;b"\r\n', encoding="utf-8", header=None)
@example(text='a,b\n"1,2\nc,d\n"', encoding="utf-8", header=False)
@example(text='a,b\n"1"x,2\n', encoding="utf-8", header=False)
@example(text="\n\na,b\n1,2\n", encoding="utf-8", header=True)
@settings(max_examples=300, deadline=None)
def test_pyarrow_reads_the_same_cells_as_the_plain_reader_or_none(tmp_path_factory, text, encoding, header):
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    path = written(tmp_path_factory.getbasetemp(), text.encode(encoding), "drawn.txt")
    try:
        layout = _tables.layout(path, header=header, encoding=encoding)
    except ValueError:
        return
    positions = list(range(len(layout.names)))[::-1]
    for numbers in ((), positions):
        found = _columns._by_pyarrow(path, layout, encoding, positions, numbers)
        if found is not None:
            for ours, theirs in zip(_columns._plain(path, layout, encoding, positions), found, strict=True):
                assert [ours.texts[code] for code in ours.codes] == (
                    [str(one) for one in theirs] if isinstance(theirs, np.ndarray) else
                    [theirs.texts[code] for code in theirs.codes])


def test_pyarrow_reads_common_files_itself(tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    for text in (HEAD + "1,2,3,4\n", "1::2::3::4\n", '"u";"i";"r"\r\n"1";"a;b";"3"\r\n', 'a\tb\t"c\nd\te\tf\n'):
        path = written(tmp_path, text)
        layout = _tables.layout(path)
        assert _columns._by_pyarrow(path, layout, "utf-8", [0, 1], ()) is not None


@given(lines=st.lists(st.tuples(
    st.sampled_from(["1", "2", "ann", '"a, b"', " 7.0"]), st.sampled_from(["3", "04", "", "x"]),
    st.sampled_from(["1", "4.5", "5"]), st.sampled_from(["7", "978300760000", "2001-01-01"])), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_ratings_are_the_same_with_and_without_pyarrow(tmp_path_factory, lines):
    path = written(tmp_path_factory.getbasetemp(), HEAD + "\n".join(map(",".join, lines)), "drawn.csv")
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for module in ("pyarrow", "no pyarrow"):
            if module == "no pyarrow":
                patch.setitem(sys.modules, "pyarrow", None)
            try:
                found.append(read_ratings(path))
            except ValueError as error:
                found.append(str(error))
    if isinstance(found[0], str):
        assert found[0] == found[1]
    else:
        same(*found)


def test_names_of_users_are_no_titles(tmp_path):
    with pytest.raises(ValueError, match=r"no column is known to be the item, and the first is userId; titles"):
        read_titles(written(tmp_path, "userId,name\n1,Ada\n2,Bo\n"))
    assert read_titles(written(tmp_path, "userId,itemId,title\n1,7,Film\n2,8,Song\n")) == {"7": "Film", "8": "Song"}
