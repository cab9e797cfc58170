"""The generated click log, and the readers of click files."""

import gzip
import io
import zlib

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

from sparseopt import datasets


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
0 8:1e2 2:3

1 3:1 3:1
"""


def test_libsvm_files_are_read(tmp_path):
    path = tmp_path / "clicks"
    path.write_bytes(LIBSVM)
    chunks = list(datasets.read_clicks(path, n_features=8, chunk=3))
    expected = np.zeros((4, 8))
    expected[0, 0], expected[0, 2], expected[2, 7], expected[2, 1], expected[3, 2] = 0.5, -2, 100, 3, 2
    assert_array_equal(np.concatenate([X.toarray() for X, _ in chunks]), expected)
    assert_array_equal(np.concatenate([y for _, y in chunks]), [1, -1, 0, 1])
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
        path = tmp_path / "clicks.svm.gz"
        path.write_bytes(gzip.compress(file.getvalue()))
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
    (b"1 0:1", "the line has column 0"),
])
def test_a_wrong_line_of_libsvm_is_named(line, message, tmp_path):
    path = tmp_path / "clicks"
    path.write_bytes(LIBSVM + line + b"\n1 1:1\n")
    with pytest.raises(ValueError, match=f"clicks, line 7: .*{message}"):
        list(datasets.read_clicks(path, n_features=8))


def feature(key, n=2**20):
    return zlib.crc32(key.encode()) % n


def test_csv_files_are_hashed_as_the_documentation_says(tmp_path):
    path = tmp_path / "clicks.csv"
    path.write_text('id,click,site,price\n1,1,"a,b.com",2.5\n2,0,,1e3\n3,1,é.com,\n', encoding="utf-8")
    chunks = list(datasets.read_clicks(path, label="click", numbers=["price"], skip=["id"], chunk=2))
    (X, y), (last, y_last) = chunks
    assert X.shape == (2, 2**20)
    assert (X.nnz, last.nnz) == (3, 1)
    assert X[0, feature("site=a,b.com")] == 1
    assert X[0, feature("price")] == 2.5
    assert X[1, feature("price")] == 1000
    assert last[0, feature("site=é.com")] == 1
    assert_array_equal(y, [1, 0])
    assert_array_equal(y_last, [1])


def test_csv_files_without_names_go_by_position(tmp_path):
    path = tmp_path / "train.tsv.gz"
    path.write_bytes(gzip.compress(b"0\t5\tx\n1\t\tx\n"))
    (X, y), = datasets.read_clicks(path, header=False, numbers=[1], n_features=64)
    assert_array_equal(y, [0, 1])
    expected = np.zeros((2, 64))
    expected[:, feature("2=x", 64)] += 1
    expected[0, feature("1", 64)] += 5
    assert_array_equal(X.toarray(), expected)


@pytest.mark.parametrize(("text", "message"), [
    ("click,site\n1,a\n0\n", "line 3: it has 1 values; it must have 2, as many as the first line"),
    ("click,site\nyes,a\n", "line 2: column click has 'yes'; it must be a finite number"),
    ("click,site\nnan,a\n", "line 2: column click has 'nan'"),
    ('click,site\n1,"a"b\n', "line 2: ',' expected after"),
    ("clicks,site\n1,a\n", "line 1: 'click' names no column, or several; a column must be .* 0 to 1, .*: clicks, site"),
])
def test_a_wrong_line_of_csv_is_named(text, message, tmp_path):
    path = tmp_path / "clicks.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        list(datasets.read_clicks(path, label="click"))


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"format": "json"}, ValueError, "format is 'json'"),
    ({"format": "csv", "first": 0}, TypeError, "first"),
    ({"format": "libsvm", "label": 0}, TypeError, "label"),
    ({"first": 2}, ValueError, "first is 2"),
    ({"chunk": 0}, ValueError, "chunk is 0"),
    ({"n_features": 0}, ValueError, "n_features is 0"),
    ({"format": "csv", "skip": "id"}, ValueError, "skip is the string 'id'; it must be a list of columns"),
])
def test_options_of_readers_are_checked_before_a_file_is_opened(options, error, message):
    with pytest.raises(error, match=message):
        datasets.read_clicks("there is no such file", **options)


def test_a_parquet_file_is_read_as_the_same_table_of_text(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {"click": [1, 0, 0], "site": ["a", None, "b"], "age": [33, 41, 28], "price": [0.5, 2.25, None]}
    parquet.write_table(pyarrow.table(table), tmp_path / "clicks.parquet")
    rows = zip(*(["" if value is None else str(value) for value in column] for column in table.values()), strict=True)
    (tmp_path / "clicks.csv").write_text("\n".join([",".join(table), *map(",".join, rows)]))
    how = {"label": "click", "numbers": ["price"], "skip": ["age"], "n_features": 64, "chunk": 2}
    pairs = [list(datasets.read_clicks(tmp_path / name, **how)) for name in ("clicks.parquet", "clicks.csv")]
    assert [X.shape for X, _ in pairs[0]] == [(2, 64), (1, 64)]
    for (X, y), (X2, y2) in zip(*pairs, strict=True):
        assert (X != X2).nnz == 0
        assert y.tolist() == y2.tolist()
    parquet.write_table(pyarrow.table({"price": [1.0, None]}), tmp_path / "wrong.parquet")
    with pytest.raises(ValueError, match="row 2: column price has ''"):
        list(datasets.read_clicks(tmp_path / "wrong.parquet", label="price"))
