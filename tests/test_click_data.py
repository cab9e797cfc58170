"""The generated click log, and the readers of click files."""

import gzip
import io
import json
import math
import sys
import zlib
from datetime import date

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

from sparseopt import checkpoint, datasets
from sparseopt.datasets import ClickReader
from sparseopt.models import LogisticRegression


def test_the_log_has_the_probabilities_that_its_model_says():
    log = datasets.ClickLog(n_features=2**12, fields=6, dim=3, crossed=4, seed=5)
    (X, y, p), = log.rows(50_000, chunk=50_000)
    assert X.shape == (50_000, 2**12)
    assert_array_equal(np.diff(X.indptr), 6)
    columns = X.indices.reshape(-1, 6)
    z = log.intercept + log.weights[columns].sum(axis=1)
    for i in range(4):
        for j in range(i + 1, 4):
            z += (log.factors[columns[:, i]] * log.factors[columns[:, j]]).sum(axis=1)
    assert_allclose(p, expit(z), rtol=1e-9)
    assert abs(p.mean() - 0.2) < 0.01
    for low in np.arange(0, 1, 0.1):                    # the share of clicks is the mean of the probabilities
        among = (p >= low) & (p < low + 0.1)
        assert abs(y[among].mean() - p[among].mean()) < 4 * np.sqrt(0.25 / among.sum())


def test_the_log_is_the_same_for_the_same_seed_and_another_for_another():
    def drawn(seed=0, rows=1):
        return [(X.indices.tobytes(), y.tobytes(), p.tobytes())
                for X, y, p in datasets.ClickLog(n_features=100, fields=4, seed=seed).rows(2500, chunk=1000, seed=rows)]
    assert len(drawn()) == 3
    assert drawn() == drawn()
    assert drawn()[0] != drawn()[1]
    assert drawn() != drawn(rows=2)
    assert drawn() != drawn(seed=1)


def test_values_are_zipf_distributed():
    log = datasets.ClickLog(n_features=2**20, fields=1, zipf=1.0)
    (X, _, _), = log.rows(100_000)
    counts = np.bincount(X.indices)
    counts = np.sort(counts[counts > 0])[::-1]
    share = 1 / np.arange(1, 11) / (1 / np.arange(1, 11)).sum()         # a single field has 10 values
    assert_allclose(counts / 100_000, share, rtol=0.05)


@pytest.mark.parametrize(("name", "value"), [("fields", 0), ("n_features", 1.5), ("density", 0.0), ("click_rate", 1.0),
                                             ("zipf", -1.0), ("scale", np.inf), ("crossed", 1)])
def test_a_log_that_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is "):
        datasets.ClickLog(**{name: value})


LIBSVM = b"""# a comment
1 1:0.5 3:-2 # another
-1
-1 8:1e2 2:3

1 3:1 3:1
"""


def written(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return path


def whole(reader, path, **how):
    """All rows of a file in one X, and y."""
    chunks = list(reader.read(path, **how))
    return sp.vstack([X for X, _ in chunks], format="csr"), np.concatenate([y for _, y in chunks])


def feature(key, n=2**20):
    return zlib.crc32(key.encode()) % n


def test_libsvm_files_are_read(tmp_path):
    path = written(tmp_path, "clicks", LIBSVM)
    chunks = list(datasets.read_clicks(path, n_features=8, chunk=3))
    expected = np.zeros((4, 8))
    expected[0, 0], expected[0, 2], expected[2, 7], expected[2, 1], expected[3, 2] = 0.5, -2, 100, 3, 2
    assert_array_equal(np.concatenate([X.toarray() for X, _ in chunks]), expected)
    assert_array_equal(np.concatenate([y for _, y in chunks]), [True, False, False, True])
    assert [X.shape for X, _ in chunks] == [(3, 8), (1, 8)]
    assert chunks[0][0].dtype == np.float32


def test_libsvm_files_are_read_as_scikit_learn_reads_them(tmp_path):
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    log = datasets.ClickLog(n_features=500, fields=7)
    (X, y, _), = log.rows(300)
    X.sum_duplicates()
    for first in (0, 1):
        file = io.BytesIO()
        sklearn_datasets.dump_svmlight_file(X, y, file, zero_based=first == 0)
        path = written(tmp_path, "clicks.svm.gz", gzip.compress(file.getvalue()))
        (ours, labels), = datasets.read_clicks(path, n_features=500, first=first)
        assert_array_equal(ours.toarray(), X.toarray())
        assert_array_equal(labels, y)


@pytest.mark.parametrize(("line", "message"), [
    (b"1 3", "label and column:value pairs"),
    (b"1:2 3", "label and column:value pairs"),
    (b"1 2:3:4", "label and column:value pairs"),
    (b"yes 2:3", "could not convert string to float: .*yes.*; labels and values must be numbers"),
    (b"1 2:x", "labels and values must be numbers"),
    (b"1 2:nan", "the line has nan; labels and values must be finite"),
    (b"1 9:1", "the line has column 9; with n_features=8 columns must be from 1 to 8"),
    (b"1 0:1", "the line has column 0; .*; first=0 .* says that columns are numbered from 0"),
    (b"3 1:1", "the label is 3; it must be -1 or 1"),
])
def test_a_wrong_line_of_libsvm_is_named(line, message, tmp_path):
    path = written(tmp_path, "clicks.svm", LIBSVM + line + b"\n1 1:1\n")
    with pytest.raises(ValueError, match=f"clicks.svm, line 7: .*{message}"):
        list(datasets.read_clicks(path, n_features=8, chunk=2))


def test_csv_files_are_hashed_as_the_documentation_says(tmp_path):
    path = written(tmp_path, "clicks.csv", 'id,click,site,price\n1,1,"a,b.com",2.5\n2,0,,1e3\n3,1,é.com,\n')
    chunks = list(datasets.read_clicks(path, label="click", numbers=["price"], skip=["id"], chunk=2))
    (X, y), (last, y_last) = chunks
    assert X.shape == (2, 2**20)
    assert (X.nnz, last.nnz) == (3, 1)
    assert X[0, feature("site=a,b.com")] == 1
    assert X[0, feature("price")] == -1                 # of 2.5 and 1000, the mean and the deviation are 501.25, 498.75
    assert X[1, feature("price")] == 1
    assert last[0, feature("site=é.com")] == 1
    assert_array_equal(y, [True, False])
    assert_array_equal(y_last, [True])


def test_a_log_without_names_is_found_out_and_goes_by_position(tmp_path):
    path = written(tmp_path, "train.tsv.gz", gzip.compress(b"0\t5\tx\n1\t\tx\n0\t9\ty\n"))
    reader = ClickReader(numbers=[1], n_features=64)
    X, y = whole(reader, path, training=True)
    assert_array_equal(y, [False, True, False])
    expected = np.zeros((3, 64))
    expected[:2, feature("2=x", 64)] += 1
    expected[2, feature("2=y", 64)] += 1
    expected[[0, 2], feature("1", 64)] += [-1, 1]
    assert_array_equal(X.toarray(), expected)
    assert reader.description.startswith("tabs, no header; label: 0, the first column (1 is a click, 0 is none)")
    (unlabelled, none), = reader.read(written(tmp_path, "test.tsv", "5\tx\n\tx\n9\ty\n"), labels=False)
    assert none is None
    assert_array_equal(unlabelled.toarray(), expected)
    assert_array_equal(whole(reader, path)[0].toarray(), expected)


@pytest.mark.parametrize(("header", "label"), [("id,click,site", "click"), ("id,CLICKED,site", "CLICKED"),
                                               ("y,label,site", "label"), ("shown,other,site", "shown")])
def test_the_label_is_the_column_of_a_known_name_and_else_the_first(header, label, tmp_path):
    reader = ClickReader()
    reader.find(written(tmp_path, "a.csv", f"{header}\n1,0,a\n0,1,b\n"))
    assert reader.label_ == label
    assert label not in reader.columns_
    assert f"label: {label}" in reader.description
    assert ("the first column, since no column is named" in reader.description) == (label == "shown")


@pytest.mark.parametrize(("no", "yes"), [("0", "1"), ("-1", "1"), ("-1", "+1"), ("1", "2"), ("0.0", "1.0"),
                                         ("no", "Yes"), ("FALSE", "true"), ("f", "t"), ("n", "y")])
def test_all_pairs_of_labels_are_clicks_and_none(no, yes, tmp_path):
    for first, second in ((no, yes), (yes, no)):
        path = written(tmp_path, "a.csv", f"site,label\na,{first}\nb,{second}\nc,{first}\n")
        _, y = whole(ClickReader(), path)
        assert_array_equal(y, np.array([first, second, first]) == yes)


@pytest.mark.parametrize(("text", "options", "message"), [
    ("click,site\n1,a\n1,b\n", {}, "a.csv: the label, column click, has one value only, '1'; it must have two"),
    ("site,n\na,1\nb,2\nc,3\n", {"label": "n"}, "column n, has 3 different values: '1', '2', '3'; it must have two"),
    ("site,n\na,1\nb,2\nc,3\n", {}, "column site, the first column, since .*, has 3 different values: 'a', 'b', 'c'"),
    ("bought,site\nyes,a\nno,b\n", {}, r"3 different values: 'bought', 'yes', 'no'; .*header=True \(--header\)"),
    ("click,site\nfew,1\nmany,2\n", {}, "has the values 'few', 'many'; it must have two numbers, or true and false"),
    ("click,site\n1,a\n,b\n", {}, "has the values '1', ''"),
    ("1 1:1\n1 2:1\n", {}, "the label has one value only, '1'"),
    ("1 1:1\n2 2:1\n3 2:1\n", {}, "the label has 3 different values: '1', '2', '3'"),
    ("click,site\n", {}, "there are no rows"),
    ("", {}, "the file is empty"),
])
def test_labels_that_are_no_two_are_shown(text, options, message, tmp_path):
    path = written(tmp_path, "a.csv" if "," in text or not text else "a.svm", text)
    reader = ClickReader(**options)
    with pytest.raises(ValueError, match=message):
        list(reader.read(path))
    with pytest.raises(AttributeError, match="has read no file yet"):
        reader.description  # noqa: B018


def test_the_classes_of_a_log_that_is_sorted_by_label_are_found_behind_the_first_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.clicks, "_LOOKED_AT", 8)
    for name, row in (("a.csv", "{},x\n"), ("a.svm", "{} 1:1\n")):
        head = "click,site\n" if name == "a.csv" else ""
        path = written(tmp_path, name, head + "".join(map(row.format, [1] * 50 + [2] * 7)))
        _, y = whole(ClickReader(chunk=8), path)
        assert_array_equal(y, [False] * 50 + [True] * 7)
    # The second value comes in the second file.
    files = [written(tmp_path, f"{label}.csv", "click,site\n" + f"{label},x\n" * 20) for label in (2, 1)]
    reader = ClickReader(chunk=8).find(*files)
    assert [whole(reader, path)[1].all() for path in files] == [True, False]


@pytest.mark.parametrize("looked_at", [2, 100])
@pytest.mark.parametrize(("text", "message"), [
    ("click,site\n1,a\n0,b\n0\n", "line 4: the line has 1 cells, and the first line 2"),
    ("click,site\n1,a\n0,b\n\n3,a\n", "line 5: column click has '3'; it must be 0 or 1, the values before"),
    ("click,site\n1,a\n0,b\n1,a\n,a\n", "line 5: column click has ''; it must be 0 or 1"),
    ('click,site\n1,a\n0,b\n1,"a"b\n', "',' expected after"),
    ("click,price\n1,2\n0,3\n1,x\n", "line 4: column price has 'x'; it must be a finite number of float32"),
    ("click,price\n1,2\n0,3\n1,1e39\n", "line 4: column price has '1e39'"),
    ("click,price\n1,2\n0,3\n1,1_000\n", "line 4: column price has '1_000'"),
    ("click,site\n1,a\n0,K\u00f6ln\n", "line 3: its bytes are no utf-8 .*encoding"),
])
def test_a_wrong_line_of_csv_is_named(text, message, looked_at, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.clicks, "_LOOKED_AT", looked_at)
    path = written(tmp_path, "clicks.csv", text, "latin-1")
    numbers = ["price"] if "price" in text else []
    if "3,a" in text and looked_at == 100:
        message = "column click, has 3 different values"
    if "\n,a" in text and looked_at == 100:
        message = "column click, has 3 different values: '1', '0', ''"
    with pytest.raises(ValueError, match=message):
        list(datasets.read_clicks(path, label="click", numbers=numbers, chunk=2))


def test_latin_1_is_read_if_it_is_named(tmp_path):
    path = written(tmp_path, "clicks.csv", "click,site\n1,Köln\n0,x\n", "latin-1")
    X, _ = whole(ClickReader(encoding="latin-1"), path)
    assert X[0, feature("site=Köln")] == 1


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"file_format": "json"}, ValueError, "file_format is 'json'; it must be 'csv' or 'jsonl'"),
    ({"numbers_as": "bins"}, ValueError, "numbers_as is 'bins'"),
    ({"first": 2}, ValueError, "first is 2"),
    ({"chunk": 0}, ValueError, "chunk is 0"),
    ({"n_features": 0}, ValueError, "n_features is 0"),
    ({"n_features": 2**31}, ValueError, "n_features is 2147483648"),
    ({"skip": "id"}, ValueError, "skip is the string 'id'; it must be a list of columns"),
    ({"numbers": "price"}, ValueError, "numbers is the string 'price'; it must be a list of columns or 'auto'"),
    ({"label": 1.5}, TypeError, "label is 1.5"),
    ({"header": "no"}, ValueError, "header is 'no'"),
    ({"sep": ""}, ValueError, "sep .* is ''"),
    ({"encoding": "latin-99"}, ValueError, "encoding .* is 'latin-99'"),
    ({"names": 1}, TypeError, "names is 1"),
    ({"delimiter": ","}, TypeError, "delimiter"),
])
def test_options_of_readers_are_checked_before_a_file_is_opened(options, error, message):
    with pytest.raises(error, match=message):
        datasets.read_clicks("there is no such file", **options)


@pytest.mark.parametrize(("text", "options", "message"), [
    ("1 1:1\n0 2:1\n", {"label": "click"}, "label is 'click', and is not for files of the format libsvm"),
    ("1 1:1\n0 2:1\n", {"names": True}, "names is True, and is not for files of the format libsvm"),
    ("1 1:1\n0 2:1\n", {"header": False}, "header is False, and is not for files of the format libsvm"),
    ("1 1:1\n0 2:1\n", {"encoding": "latin-1"}, "encoding is 'latin-1', and is not for files of the format libsvm"),
    ('{"click": 1}\n{"click": 0}\n', {"sep": ","}, "sep is ',', and is not for files of the format jsonl"),
    ("click,a\n1,2\n0,3\n", {"first": 0}, "first is 0, and is not for files of the format csv"),
    ("click,a\n1,2\n0,3\n", {"numbers": ["click"]}, "numbers has 'click', which is the label"),
    ("click,a\n1,2\n0,3\n", {"numbers": ["a"], "skip": [1]}, "numbers and skip both have 'a'"),
    ("click,a\n1,2\n0,3\n", {"skip": ["b"]}, "'b' names no column.* click, a"),
    ("click,a\n1,2\n0,3\n", {"label": 2}, "2 names no column"),
])
def test_options_that_do_not_go_with_a_file_are_refused(text, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        list(datasets.read_clicks(written(tmp_path, "log", text), **options))


def test_positions_may_be_texts_and_ranges(tmp_path):
    path = written(tmp_path, "a", "1,2,3,4,5\n0,3,4,5,6\n")
    reader = ClickReader(label="0", numbers=["1-2", "2"], skip=["4"]).find(path)
    assert (reader.label_, reader.numbers_, reader.columns_) == ("0", ["1", "2"], ["1", "2", "3"])
    same = ClickReader(label=np.int64(0), numbers=np.array([1, 2]), skip=[np.int32(4)]).find(path)
    assert json.dumps(same.state()["reading"]["layout"]) == json.dumps(reader.state()["reading"]["layout"])


@pytest.mark.parametrize(("name", "text", "columns"), [
    ("log", "1 3:1 7:1\n-1 2:1\n", []),
    ("log", "click,site\n1,a:1\n0,b:2\n", ["site"]),
    ("log", '{"click": true, "site": "a"}\n{"click": false}\n', ["site"]),
    ("log.txt", "# comment\n0 1:2\n1\n", []),
])
def test_a_format_that_the_name_does_not_say_is_found_in_the_file(name, text, columns, tmp_path):
    reader = ClickReader()
    _, y = whole(reader, written(tmp_path, name, text))
    assert reader.columns_ == columns
    assert y.sum() == 1


def test_a_first_line_that_numbers_the_columns_is_no_row(tmp_path):
    path = written(tmp_path, "a.csv", "0,1,2\n1,a,b\n0,c,d\n0,c,d\n")
    assert len(whole(ClickReader(), path)[1]) == 3
    assert len(whole(ClickReader(header=False), path)[1]) == 4
    reader = ClickReader().find(written(tmp_path, "b.csv", "1,a,b\n0,c,d\n"))
    with pytest.raises(ValueError, match="the first line looks like names, and the first file had none"):
        list(reader.read(path, labels=False))


def test_a_first_row_with_gaps_is_not_taken_for_names(tmp_path):
    path = written(tmp_path, "a.csv", "true,a,\nfalse,b,7\ntrue,b,8\n")
    with pytest.raises(ValueError, match="'true,a,', was taken for names, and has a label like the lines below"):
        list(ClickReader().read(path))
    assert whole(ClickReader(header=False), path)[1].tolist() == [True, False, True]


def test_names_that_are_there_twice_get_numbers(tmp_path):
    reader = ClickReader().find(written(tmp_path, "a.csv", "click,id,id\n1,a,b\n0,c,d\n"))
    assert reader.columns_ == ["id", "id.1"]


def rows_of(kind, folder, table):
    """The same table in a file of some kind."""
    path = folder / f"clicks.{kind}"
    texts = [["" if value is None else str(value) for value in row] for row in zip(*table.values(), strict=True)]
    if kind == "jsonl":
        rows = zip(*table.values(), strict=True)
        lines = ({name: str(value) if isinstance(value, date) else value for name, value in zip(table, row, strict=True)
                  if value is not None} for row in rows)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    elif kind == "parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table(table), path)
    else:
        sep = {"csv": ",", "tsv": "\t", "txt": ";"}[kind]
        path.write_text("".join(sep.join(row) + "\n" for row in [list(table), *texts]))
    return path


@pytest.mark.parametrize("kind", ["tsv", "txt", "jsonl", "parquet"])
def test_a_table_gives_the_same_features_from_each_kind_of_file(kind, tmp_path):
    table = {"click": [True, False, False, True, False], "site": ["a", None, "b", "a", "é"], "age": [33, 41, 28, 9, 9],
             "price": [0.5, 2.25, None, 1e-9, -3.0], "day": [date(2026, 1, day) for day in (1, 2, 3, 4, 4)]}
    how = {"numbers": ["price"], "skip": ["age"], "n_features": 2**12, "chunk": 2}
    expected, clicks = whole(ClickReader(**how), rows_of("csv", tmp_path, table), training=True)
    X, y = whole(ClickReader(**how), rows_of(kind, tmp_path, table), training=True)
    assert (expected != X).nnz == 0
    assert X.nnz == 4 + 4 + 5
    assert_array_equal(y, clicks)
    assert X[0, feature("day=2026-01-01", 2**12)] == 1
    reader = ClickReader(**how)
    whole(reader, rows_of("csv", tmp_path, table), training=True)
    labelled = whole(reader, rows_of(kind, tmp_path, table))[0]
    (without, _), *_ = reader.read(rows_of(kind, tmp_path, {name: table[name] for name in list(table)[:0:-1]}),
                                   labels=False)
    assert (without[:, :] != labelled[:2]).nnz == 0


def test_values_that_are_no_values_are_refused(tmp_path):
    path = written(tmp_path, "a.jsonl", '{"click": 1, "tags": "x"}\n{"click": 0, "tags": ["x", "y"]}\n')
    with pytest.raises(ValueError, match=r"line 2: tags is .*'x', 'y'.*; it must be a text, a number"):
        list(datasets.read_clicks(path))
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"click": [1, 0], "tags": [["x"], []]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="column tags is of list"):
        list(datasets.read_clicks(tmp_path / "a.parquet"))
    parquet.write_table(pyarrow.table({"click": [1, 0], "n": ["1", "x"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="row 2: column n has 'x'"):
        list(datasets.read_clicks(tmp_path / "a.parquet", numbers=["n"]))


def test_keys_that_come_late_in_json_lines_are_features(tmp_path):
    rows = [{"click": i % 2, "site": "a"} for i in range(5)] + [{"click": 0, "new": "b"}]
    path = written(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    X, _ = whole(ClickReader(chunk=2), path)
    assert X[5, feature("new=b")] == 1
    assert X[5].nnz == 1


def test_numbers_are_standardized_by_all_rows_up_to_the_end_of_their_chunk(tmp_path):
    x = np.random.default_rng(0).lognormal(8, 3, 57)
    text = "click,x\n" + "".join(f"{i % 2},{value!r}\n" for i, value in enumerate(x.tolist()))
    path = written(tmp_path, "a.csv", text)
    reader = ClickReader(numbers=["x"], chunk=10)
    for i, (X, _) in enumerate(reader.read(path, training=True)):
        seen = x[:10 * i + 10]
        assert_allclose(X.data, (x[10 * i:10 * i + 10] - seen.mean()) / seen.std(), rtol=1e-5)
    n, mean, squares = reader.statistics_["x"]
    assert n == 57
    assert_allclose([mean, math.sqrt(squares / n)], [x.mean(), x.std()], rtol=1e-12)
    again, _ = whole(reader, path)
    assert_allclose(again.data, (x - x.mean()) / x.std(), rtol=1e-5)
    assert reader.statistics_["x"] == [n, mean, squares]
    with pytest.raises(ValueError, match="no number of column x has been read for training"):
        whole(ClickReader(numbers=["x"]), path)


@pytest.mark.parametrize("missing", ["", "NA", "nan", "NaN", "NULL", "None", "\\N"])
def test_a_missing_number_is_no_feature_and_an_even_column_is_0(missing, tmp_path):
    path = written(tmp_path, "a.csv", f"click,x,even\n1,5,7\n0,{missing},7\n0,7,7\n")
    X, _ = whole(ClickReader(numbers=["x", "even"]), path, training=True)
    assert_array_equal(np.diff(X.indptr), [2, 1, 2])
    assert_array_equal(X.data, [-1, 0, 0, 1, 0])
    X, _ = whole(ClickReader(numbers=["x"], numbers_as="log", skip=["even"]), path, training=True)
    assert_array_equal(np.diff(X.indptr), [1, 0, 1])


def test_numbers_become_steps_of_their_logarithm(tmp_path):
    x = ["0", "1", "1.9", "2", "2.5", "7", "100", "1e6", "-1", "-0.5", "-30"]
    steps = ["0", "1", "1", "2", "log 0", "log 3", "log 21", "log 190", "-1", "-1", "-log 11"]
    path = written(tmp_path, "a.csv", "click,x\n" + "".join(f"{i % 2},{value}\n" for i, value in enumerate(x)))
    X, _ = whole(ClickReader(numbers=["x"], numbers_as="log"), path)
    assert_array_equal(X.indices, [feature(f"x={step}") for step in steps])
    assert_array_equal(X.data, 1)


def test_auto_takes_columns_of_many_numbers_with_a_fraction(tmp_path):
    rng = np.random.default_rng(0)
    names = ["click", "price", "count", "few", "mixed", "gaps"]
    lines = [",".join(names)]
    for i in range(60):
        lines.append(f"{i % 2},{rng.random():.3f},{rng.integers(10**6)},{i % 20}.5,{'x' if i == 59 else i + 0.5},"
                     f"{'' if i % 3 else i + 0.25}")
    path = written(tmp_path, "a.csv", "\n".join(lines))
    reader = ClickReader(numbers="auto").find(path)
    assert reader.numbers_ == ["price"]                 # of gaps, there are 20 different numbers
    assert "numbers: price (standardized)" in reader.description
    plain = ClickReader().find(path)
    assert plain.numbers_ == []
    assert plain.advice == ["column price looks like numbers, and is read as texts (--numbers price or auto)"]


def test_a_column_that_numbers_the_rows_is_said(tmp_path):
    path = written(tmp_path, "a.csv", "click,id,site\n" + "".join(f"{i % 2},{i},a\n" for i in range(120)))
    assert ClickReader().find(path).advice == [
        "column id has another value in each row, which says nothing about other rows (--skip id)"]
    assert ClickReader(skip=["id"]).find(path).advice == []
    path = written(tmp_path, "b.csv", ",click,site\n" + "".join(f"{i},{i % 2},a\n" for i in range(120)))
    assert ClickReader().find(path).advice == [
        "column 0 has another value in each row, which says nothing about other rows (--skip 0)"]
    assert ClickReader(skip=["0"]).find(path).columns_ == ["site"]


TRAINED = "click,site,city\n1,a,Rome\n0,b,Oslo\n"


@pytest.mark.parametrize(("text", "options", "message"), [
    ("1,a,Rome\n0,b,Oslo\n", {}, "the first line is '1,a,Rome'; the first file had the columns click, site, city"),
    ("click,site\n1,a\n0,b\n", {}, "the column city is missing; the file has click, site"),
    ("site,city\na,Rome\n", {}, "the column click is missing"),
    ("click;site,city\n1;a\n", {}, "is missing"),
    ("1,a\n0,b\n", {"header": False}, "the file has 2 columns, and the first file had 3"),
    ("1 1:1\n0 1:1\n", {}, "the file has libsvm's format, and the first file was a table"),
    ("click,site,city\n2,a,Rome\n", {}, "line 2: column click has '2'; it must be 0 or 1"),
])
def test_a_later_file_that_is_built_otherwise_is_refused(text, options, message, tmp_path):
    state = ClickReader().find(written(tmp_path, "train.csv", TRAINED)).state()
    with pytest.raises(ValueError, match=message):
        list(ClickReader.from_state(state, **options).read(written(tmp_path, "test", text)))


@pytest.mark.parametrize(("text", "options"), [
    ("city;extra;click;site\nRome;x;1;a\nOslo;y;0;b\n", {}),
    ("1,a,Rome\n0,b,Oslo\n", {"header": False}),
    ('"click"|"site"|"city"\n1|"a"|"Rome"\n0|"b"|"Oslo"\n', {}),
    ('{"click": 1, "city": "Rome", "site": "a"}\n{"site": "b", "click": 0, "city": "Oslo"}\n', {}),
])
def test_a_later_file_may_have_another_order_separator_and_format(text, options, tmp_path):
    reader = ClickReader()
    expected, y = whole(reader, written(tmp_path, "train.csv", TRAINED))
    X, clicks = whole(ClickReader.from_state(reader.state(), **options), written(tmp_path, "test", text))
    assert (X[:, :] != expected).nnz == 0
    assert_array_equal(y, clicks)


@pytest.mark.parametrize(("text", "options", "unlike"), [
    ("click,site,hour\n1,a,3\n0,b,4\n", {}, []),
    ("click,site,hour\n1,a,3\n0,new,4\n", {}, []),
    ("click,site,hour\n1,a,3.0\n0,b,4.0\n", {}, ["hour"]),
    ("click,site,hour\n1,A,3\n0,,4\n", {}, ["site"]),
    ("1,3,a\n0,4,b\n", {"header": False}, ["site", "hour"]),
    ("click,site,hour\n", {}, []),
])
def test_columns_without_a_value_of_the_training_are_said(text, options, unlike, tmp_path):
    reader = ClickReader().find(written(tmp_path, "train.csv", "click,site,hour\n1,a,3\n0,b,4\n"))
    found = ClickReader.from_state(reader.state(), **options).check(written(tmp_path, "test.csv", text))
    assert [one.partition("values of column ")[2].split()[0] for one in found] == unlike
    if "3.0" in text:
        assert found[0].endswith("was in the first rows of the training: '3.0', '4.0'; there '3', '4'")


def test_an_even_column_does_not_blow_up_other_values(tmp_path):
    path = written(tmp_path, "a.csv", "click,x\n" + "1,7.1\n0,7.1\n" * 500)
    reader = ClickReader(numbers=["x"])
    X, _ = whole(reader, path, training=True)
    assert np.abs(X.data).max() < 1e-9
    X, _ = whole(reader, written(tmp_path, "b.csv", "click,x\n1,7.2\n0,7.1\n"))
    assert_allclose(X.data, [0.1, 0], atol=1e-6)


def test_a_line_of_names_is_no_row_of_a_log_without_names(tmp_path):
    reader = ClickReader().find(written(tmp_path, "train.csv", "1,a,3\n0,b,4\n"))
    named = written(tmp_path, "test.csv", "click,site,count\n1,a,3\n")
    with pytest.raises(ValueError, match="the first line looks like names, and the first file had none"):
        list(reader.read(named, labels=False))
    (X, _), = ClickReader.from_state(reader.state(), header=True).read(named, labels=False)
    assert_array_equal(np.sort(X.indices), np.sort([feature("1=a"), feature("2=3")]))


def test_a_reader_comes_back_from_a_checkpoint(tmp_path):
    lines = [f"{i % 3 // 2},{i * 1.7:.2f},{'abc'[i % 3]}" for i in range(90)]
    first, second = (written(tmp_path, name, "click,price,site\n" + "\n".join(part) + "\n")
                     for name, part in (("a.csv", lines[:50]), ("b.csv", lines[50:])))
    whole_reader = ClickReader(numbers="auto", names=True, chunk=30, n_features=2**12)
    expected = [whole(whole_reader, path, training=True)[0] for path in (first, second)]
    reader = ClickReader(numbers="auto", names=True, chunk=30, n_features=2**12)
    X, y = whole(reader, first, training=True)
    LogisticRegression().fit(X, y).save(tmp_path / "checkpoint", **reader.state())
    again = ClickReader.from_state(checkpoint.load(tmp_path / "checkpoint").metadata, chunk=30)
    X, _ = whole(again, second, training=True)
    assert X.data.tobytes() == expected[1].data.tobytes()
    assert again.state() == whole_reader.state()
    assert again.names_ == {"price": feature("price", 2**12), **{
        f"site={site}": feature(f"site={site}", 2**12) for site in "abc"}}
    with pytest.raises(ValueError, match="is not that of a ClickReader"):
        ClickReader.from_state({"reading": {}})


def test_rows_before_the_start_are_left_out(tmp_path):
    table = {"click": [i % 2 for i in range(30)], "site": [f"s{i % 7}" for i in range(30)]}
    for kind in ("csv", "jsonl", "parquet"):
        path = rows_of(kind, tmp_path, table)
        X, y = whole(ClickReader(chunk=4), path)
        for start in (0, 3, 8, 29):
            rest, clicks = whole(ClickReader(chunk=4), path, start=start)
            assert (rest != X[start:]).nnz == 0
            assert_array_equal(clicks, y[start:])
        assert list(ClickReader().read(path, start=30)) == []
    path = written(tmp_path, "a.svm", "1 1:1\n0 2:1\n1 3:1\n")
    assert_array_equal(whole(ClickReader(), path, start=1)[1], [False, True])


TEXTS = st.text(st.sampled_from('ab",\t\r\n \x00\x0bé_01.N'), max_size=4)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(st.sampled_from("01"), TEXTS, st.sampled_from(["", "2", "-3.5", "NA", "1e3"]), TEXTS),
                     min_size=1, max_size=12),
       raw=st.booleans(), ends=st.sampled_from(["\n", "\r\n"]), chunk=st.integers(1, 5), start=st.integers(0, 3))
def test_both_readers_of_text_give_the_same_bits_and_the_same_errors(tmp_path_factory, rows, raw, ends, chunk, start):
    pytest.importorskip("pyarrow", reason="the fast reader needs pyarrow")
    path = tmp_path_factory.mktemp("rows") / "clicks.csv"

    def cell(text):
        return text if raw or not set(text) & set('",\r\n') else '"' + text.replace('"', '""') + '"'

    lines = ["click,site,price,city", *(",".join(map(cell, row)) for row in rows), "1,x,1,y", "0,x,1,y"]
    path.write_bytes(ends.join(lines).encode())

    def outcome():
        reader, chunks = ClickReader(numbers=["price"], names=True, chunk=chunk), []
        try:
            for X, y in reader.read(path, training=True, start=start):
                chunks.append((X.indptr.tolist(), X.indices.tolist(), X.data.tobytes(), y.tolist()))
        except ValueError as error:
            chunks.append(str(error))
        return chunks, reader.statistics_, reader.names_

    fast = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        assert outcome() == fast


def test_quotes_in_rows_and_columns_that_are_not_read_count_too(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.clicks, "_LOOKED_AT", 2)
    text = 'site,click\n' + "x,1\n" * 4 + '"a,7\nb",1\n"c,8\nd",0\n' + "y,0\nz,1\n"
    path = written(tmp_path, "a.csv", text)
    reader = ClickReader(skip=["site"], chunk=2).find(path)        # 7 and 8 are parts of sites
    assert reader.classes_ == (0.0, 1.0)
    assert whole(reader, path)[1].tolist() == [True] * 5 + [False, False, True]
    assert whole(reader, path, start=6)[1].tolist() == [False, True]


def test_plain_files_are_read_by_pyarrow_and_quoted_files_are_not(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow", reason="the fast reader needs pyarrow")
    from sparseopt.datasets import _click_files

    used = []
    plain = _click_files._plain_blocks
    monkeypatch.setattr(_click_files, "_plain_blocks", lambda *args: used.append(args) or plain(*args))
    path = written(tmp_path, "a.csv", "click,site\n1,a\n0,b\n")
    expected, _ = whole(ClickReader(), path)
    assert not used
    quoted = written(tmp_path, "b.csv", 'click,site\n1,"a"\n0,b\n')
    assert (whole(ClickReader(), quoted)[0] != expected).nnz == 0
    assert used
