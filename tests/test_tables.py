"""Delimited texts as people have these on their disks: the separator, the header, quotes, and damaged bytes."""

import gzip

import pytest

from sparseopt.datasets import ClickReader, _tables, read_ratings

KNOWN = {"user", "artist"}.__contains__


def laid_out(folder, text, name="table.txt", **how):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = _tables.layout(path, **{"known": KNOWN, **how})
    return found, [cells for _, cells in _tables.rows(path, found, how.get("encoding", "utf-8"))]


@pytest.mark.parametrize(("text", "separator", "header", "names", "rows"), [
    ("1\t2\t5\n3\t4\t1\n", "\t", False, "012", [["1", "2", "5"], ["3", "4", "1"]]),
    ("1::Film, the (1994)::D\n2::B::A\n", "::", False, "012", [["1", "Film, the (1994)", "D"], ["2", "B", "A"]]),
    ('"User-ID";"ISBN"\r\n"1";"a;b"\r\n', ";", True, ["User-ID", "ISBN"], [["1", "a;b"]]),
    ("1|Numéro, 1|x\n2|B|y", "|", False, "012", [["1", "Numéro, 1", "x"], ["2", "B", "y"]]),
    ("id,title,genres\n1,A,x|y\n2,\"B, the\",z\n", ",", True, ["id", "title", "genres"],
     [["1", "A", "x|y"], ["2", "B, the", "z"]]),
    ("\ufeffuser,artist\na,b\n\n \nc,d\n", ",", True, ["user", "artist"], [["a", "b"], ["c", "d"]]),
    ("a,b\nc,d\n", ",", False, "01", [["a", "b"], ["c", "d"]]),
    (",0,1\n0,7,8\n", ",", True, ["", "0", "1"], [["0", "7", "8"]]),
    ("0,1,2,3\n7,8,5,9\n", ",", True, "0123", [["7", "8", "5", "9"]]),
    ("0,1,2\n7,8,5\n", ",", False, "012", [["0", "1", "2"], ["7", "8", "5"]]),
    ("a,when\nx,2000-09-05T06:53:25\n", ",", True, ["a", "when"], [["x", "2000-09-05T06:53:25"]]),
    ("a,b\nx,\ny,1\n", ",", True, ["a", "b"], [["x", ""], ["y", "1"]]),
    ("1\ta\n2\tb\n", "\t", False, "01", [["1", "a"], ["2", "b"]]),
    ("1;2;3,5\n1;4;2,5\n", ";", False, "012", [["1", "2", "3,5"], ["1", "4", "2,5"]]),
    ('x\t"Heroes" Live\t1\ny\tB\t2\n', "\t", False, "012", [["x", '"Heroes" Live', "1"], ["y", "B", "2"]]),
    ('x\t"tab\there"\t1\ny\tB\t2\n', "\t", False, "012", [["x", "tab\there", "1"], ["y", "B", "2"]]),
    ('x,"two\nlines",1\ry,B,2', ",", False, "012", [["x", "two\nlines", "1"], ["y", "B", "2"]]),
])
def test_separators_headers_and_quotes_are_found_out(text, separator, header, names, rows, tmp_path):
    found, read = laid_out(tmp_path, text)
    assert (found.separator, found.header, list(found.names), read) == (separator, header, list(names), rows)
    packed, again = laid_out(tmp_path, gzip.compress(text.encode()), "table.gz")
    assert (packed, again) == (found, rows)


def test_what_the_caller_says_comes_first(tmp_path):
    assert laid_out(tmp_path, "a b,c\nd e,f\n", sep=" ")[1] == [["a", "b,c"], ["d", "e,f"]]
    assert laid_out(tmp_path, "a\tb,c\nd\te,f\n", sep=r"\t")[1] == [["a", "b,c"], ["d", "e,f"]]
    assert laid_out(tmp_path, "user,artist\nc,d\n", header=False)[0].names == ("0", "1")
    assert laid_out(tmp_path, "1,2\n3,4\n", header=True)[0].names == ("1", "2")
    assert laid_out(tmp_path, "numéro,x\né,1\n".encode("latin-1"), encoding="latin-1")[1] == [["é", "1"]]


@pytest.mark.parametrize(("text", "how", "message"), [
    (b"", {}, "the file is empty"),
    (b"one column\n1\n", {}, r"separated by .*; the first line is 'one column'; sep \(--sep\)"),
    (b"a,b\nc\n", {}, r"line 2: the line has 1 cells, and the first line 2 \(commas, no header\): 'c'"),
    (b'a,b\nc,"d" e\n', {}, "line 2: .*a cell that begins with a quote must end with one"),
    (b'a,b\nc,"d\n', {}, "a cell that begins with a quote must end with one"),
    (b"a,b\nc,d\nD\xe9mon,1\n", {}, r"line 3: its bytes are no utf-8 .*encoding \(--encoding\) must be"),
    (b"a,b\n" * 50_000 + b"\xff,b\n", {}, "line 50001: its bytes are no utf-8"),
    (b"a,b\n", {"encoding": "nonsense"}, r"encoding \(--encoding\) is 'nonsense'"),
    (b"a,b\n", {"sep": ""}, r"sep \(--sep\) is ''"),
    (b"a,b\n", {"sep": '"'}, r"sep \(--sep\) is '\"'"),
    (b"a,b\n", {"header": 1}, "header is 1; it must be True, False or None"),
    (gzip.compress(b"a,b\n" * 99)[:-9], {}, "a damaged gzip file"),
    (gzip.compress(b"a,b\n" * 99)[:-6] + b"123456", {}, "a damaged gzip file"),
])
def test_a_table_that_cannot_be_read_is_refused_with_the_option_that_helps(text, how, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        laid_out(tmp_path, text, **how)


def test_columns_are_found_by_name_and_by_position():
    names = ("id", "7", "id", "x")
    assert [_tables.position("f", names, column) for column in ("x", "7", 1, "2", 3)] == [3, 1, 1, 2, 3]
    for wrong in ("id", "y", 4, -1, "4", True, 1.0):
        with pytest.raises(ValueError, match=r"f: .* names no column, or several; .*from 0 to 3, .*: id, 7, id, x"):
            _tables.position("f", names, wrong)


def test_json_lines_are_rows_of_names(tmp_path):
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(gzip.compress(b'{"a": 1, "b": "x"}\n\n{"a": [2]}\n'))
    assert list(_tables.json_rows(path)) == [(1, {"a": 1, "b": "x"}), (3, {"a": [2]})]
    assert _tables.ending(path) == ".json"
    for wrong in (b"{'a': 1}\n", b'[{"a": 1}]\n', b"1\n"):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match="line 1: expected a JSON object, all of it on one line; the line is"):
            list(_tables.json_rows(path))


def parquet_file(path, columns, names=None):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table(columns) if names is None else pyarrow.Table.from_arrays(columns, names)
    parquet.write_table(table, path)
    return path


def clicks_of(path):
    reader = ClickReader(names=True)
    return [y.tolist() for _, y in reader.read(path, training=True)], list(reader.names_)


def test_times_of_parquet_may_have_nanoseconds(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    for some, seconds in (([10**18, 10**18 + 2_000_000_001], [1e9, 1e9 + 2]), ([10**18 + 1, None], [1e9])):
        times = pyarrow.array(some, pyarrow.timestamp("ns"))
        path = parquet_file(tmp_path / "a.parquet", {"user": [1, 2], "item": [3, 4], "click": [0, 1], "time": times})
        assert read_ratings(path).times.tolist() == seconds
        assert "time=2001-09-09 01:46:40" in clicks_of(path)[1]


def test_columns_of_parquet_that_cannot_be_read_are_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    ids = [pyarrow.array([1, 2]), pyarrow.array([0, 1]), pyarrow.array([3, 4])]
    double = parquet_file(tmp_path / "double.parquet", [ids[0], *ids], ["user", "user", "click", "item"])
    bad = [(double, "several columns are named user; each name must be there once")]
    for kind, array in (("binary, with bytes that are no UTF-8", pyarrow.array([b"\xff", b"a"])),
                        (r"fixed_size_binary\[2\]", pyarrow.array([b"aa", b"bb"], pyarrow.binary(2)))):
        path = parquet_file(tmp_path / f"{kind[:5]}.parquet", {"user": array, "item": ids[2], "click": ids[1]})
        bad.append((path, f"the column user is of {kind}; it must be of texts"))
    for path, message in bad:
        for read in (read_ratings, clicks_of):
            with pytest.raises(ValueError, match=rf"\.parquet: {message}"):
                read(path)
    empty = parquet_file(tmp_path / "empty.parquet", {"user": [], "item": [], "click": []})
    with pytest.raises(ValueError, match="has no ratings"):
        read_ratings(empty)


def test_nan_is_a_missing_value_in_json_and_parquet(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"user": 7.0, "item": 1, "click": 1}\n{"user": NaN, "item": 2, "click": 0}\n')
    columns = {"user": [7.0, float("nan")], "item": [1, 2], "click": [1, 0]}
    for one in (path, parquet_file(tmp_path / "a.parquet", columns)):
        ratings = read_ratings(one)
        assert (ratings.user_ids.tolist(), ratings.left_out) == ([7], 1)
        assert clicks_of(one) == ([[True, False]], ["user=7.0", "item=1", "item=2"])


def test_a_rating_that_only_later_rows_of_json_have_is_found(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"user": 7, "item": 1}\n' * 500 + '{"user": 7, "item": 2, "rating": 3}\n')
    ratings = read_ratings(path)
    assert (ratings.values.tolist(), ratings.counts, ratings.left_out) == ([3], False, 500)


def test_a_header_after_an_empty_line_is_no_row_whatever_ends_a_line(tmp_path):
    for end in ("\n", "\r", "\r\n"):
        (tmp_path / "a.csv").write_bytes(end.join(["", "click,site", "1,a", "0,b", ""]).encode())
        assert clicks_of(tmp_path / "a.csv") == ([[True, False]], ["site=a", "site=b"])


def test_an_encoding_without_its_mark_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"user,click\n1,0\n")
    with pytest.raises(ValueError, match=r"a\.csv: its bytes are no utf-16 .*--encoding"):
        _tables.layout(path, encoding="utf-16")
