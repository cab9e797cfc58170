"""Ratings and the reader of ratings."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sparseopt.datasets import read_ratings

HEAD = "userId,movieId,rating,timestamp\n"


def written(folder, text):
    path = folder / "ratings.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_ratings_are_numbered_by_their_ids(tmp_path):
    ratings = read_ratings(written(tmp_path, HEAD + "20,7,4.5,100\n3,9,1,50\n20,9,2.0,101\n\n"))
    assert_array_equal(ratings.user_ids, [3, 20])
    assert_array_equal(ratings.item_ids, [7, 9])
    assert_array_equal(ratings.matrix().toarray(), [[0, 1], [4.5, 2]])
    assert_array_equal(ratings.times, [100, 50, 101])
    assert_array_equal(ratings.matrix([0]).toarray(), [[0, 0], [4.5, 0]])
    liked = ratings.where(ratings.values > 4)
    assert (len(liked), liked.user_ids, liked.item_ids, liked.users, liked.items) == (1, [20], [7], [0], [0])


@pytest.mark.parametrize(("text", "message"), [
    ("", "line 1: expected the header userId,movieId,rating,timestamp"),
    ("user,item,rating,time\n1,2,3,4\n", "line 1: expected the header"),
    (HEAD, "has no ratings"),
    (HEAD + "1,2,3,4\n1,2,3\n", "line 3: expected userId,movieId,rating,timestamp.*the line is '1,2,3'"),
    (HEAD + "1,2,3,4,5\n", "line 2"),
    (HEAD + "1,x,3,4\n", "line 2"),
    (HEAD + "1,2,nan,4\n", "line 2: .* a finite"),
    (HEAD + "1,2,3.5,4.5\n", "line 2"),
    (HEAD + f"{2**70},2,3.5,4\n", "line 2"),
])
def test_a_wrong_line_is_named(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_ratings(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OSError, match="nothing"):
        read_ratings(tmp_path / "nothing.csv")


def test_values_keep_their_digits(tmp_path):
    ratings = read_ratings(written(tmp_path, HEAD + "1,2,0.1,4\n"))
    assert ratings.values.dtype == np.float64
    assert ratings.values[0] == 0.1


def test_a_parquet_file_of_ratings_is_read_as_the_same_lines(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"title": ["a", "b"], "rating": [4.5, 1.0], "movieId": [7, 9], "userId": [20, 3],
               "timestamp": [100.0, 50.0]}

    def read(changes):
        parquet.write_table(pyarrow.table(columns | changes), tmp_path / "ratings.parquet")
        return read_ratings(tmp_path / "ratings.parquet")

    expected = read_ratings(written(tmp_path, HEAD + "20,7,4.5,100\n3,9,1,50\n"))
    found = read({})
    for name in ("users", "items", "values", "times", "user_ids", "item_ids"):
        assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)
    for changes, message in (({"userId": [None, 3]},
                              "row 1: .* an integer, an integer, a finite.*; userId is None"),
                             ({"timestamp": [1.0, 2.5]}, "row 2: .* timestamp is 2.5"),
                             ({"movieId": [1.0, 1e300]}, "row 2: .* movieId is 1e"),
                             ({"rating": [1.0, float("nan")]}, "row 2: .* rating is nan"),
                             ({"rating": ["good", "bad"]}, "row 1: .* rating is 'good'")):
        with pytest.raises(ValueError, match=message):
            read(changes)
    for table in (pyarrow.table({"userId": [1]}), pyarrow.table([[1]] * 5, [*HEAD.strip().split(","), "userId"])):
        parquet.write_table(table, tmp_path / "ratings.parquet")
        message = "expected the columns userId,movieId,rating,timestamp, each once; the file has userId"
        with pytest.raises(ValueError, match=message):
            read_ratings(tmp_path / "ratings.parquet")
    (tmp_path / "ratings.parquet").write_text(HEAD)
    with pytest.raises(ValueError, match=r"ratings.parquet: not a Parquet file: "):
        read_ratings(tmp_path / "ratings.parquet")


def test_the_last_rating_of_a_pair_counts(tmp_path):
    # The latest rating of the first pair is in the first line.
    lines = "1,7,2,30\n2,7,1,10\n1,7,5,20\n1,8,3,5\n2,7,4,10\n"
    ratings = read_ratings(written(tmp_path, HEAD + lines))
    assert_array_equal(ratings.matrix().toarray(), [[2, 3], [4, 0]])
    assert_array_equal(ratings.matrix([1, 2]).toarray(), [[5, 0], [1, 0]])
    latest = ratings.latest()
    assert_array_equal(latest.values, [2, 3, 4])
    assert_array_equal(latest.times, [30, 5, 10])
    assert_array_equal(latest.matrix().toarray(), ratings.matrix().toarray())
    assert len(ratings.where(ratings.values > 5).latest()) == 0
