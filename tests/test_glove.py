"""GloVe on real text: the documentation that Python carries."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose

import sparseopt as so
from sparseopt import datasets
from sparseopt.models import GloVe, glove
from sparseopt.models.words import sentences, tokenize, vocabulary


@pytest.fixture(scope="module")
def text(documentation):
    found = sentences("\n".join(documentation[:150]))
    words, _ = vocabulary(token for sentence in found for token in sentence)
    return words, glove.cooccurrence(found, words, window=5)


def test_pythons_documentation_is_as_large_as_the_readme_says(documentation):
    tokens = [token for text in documentation for token in tokenize(text)]
    words, counts = vocabulary(tokens)
    assert len(tokens) > 250_000
    assert len(words) > 3_000
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] >= 5


def test_a_pair_counts_one_over_its_distance_in_both_directions():
    tokens = ["a", "b", "c", "a", "x", "b"]
    counts = glove.cooccurrence([tokens, ["c"]], ["a", "b", "c"], window=3).toarray()
    expected = np.zeros((3, 3))
    kept = [{"a": 0, "b": 1, "c": 2}[t] for t in tokens if t != "x"]
    for i, left in enumerate(kept):
        for distance, right in enumerate(kept[i + 1:i + 4], start=1):
            expected[left, right] += 1 / distance
            expected[right, left] += 1 / distance
    assert_allclose(counts, expected, rtol=1e-6)


def test_the_gradient_is_that_of_the_paper(text):
    """One step of SGD on all pairs at once, against eq. 8 differentiated by hand in float64."""
    _, X = text
    keep = np.arange(40)
    X = X[keep][:, keep].tocoo()
    model = GloVe(dim=6, optimizer=lambda tables: so.SGD(tables, lr=1e-3), batch_size=10**6, epochs=0,
                  regularization=0).fit(X)
    names = "words", "contexts", "word_bias", "context_bias"
    W, C, b, d = (model.optimizer_.params[name].astype(np.float64) for name in names)
    i, j = X.coords
    error = (W[i] * C[j]).sum(axis=1) + b[i] + d[j] - np.log(X.data)
    slope = np.minimum(1, (X.data / 10) ** 0.75) * error
    gW, gb = np.zeros_like(W), np.zeros_like(b)
    np.add.at(gW, i, slope[:, None] * C[j])
    np.add.at(gb, i, slope)
    model.partial_fit(X)
    assert_allclose(model.optimizer_.params["words"], W - 1e-3 * gW, atol=1e-6)
    assert_allclose(model.optimizer_.params["word_bias"], b - 1e-3 * gb, atol=1e-6)
    assert_allclose(model.loss_curve_[0], (slope * error).mean(), rtol=1e-5)


@pytest.mark.parametrize("optimizer", so.optimizers.OPTIMIZERS)
def test_every_optimizer_learns_at_its_rate(optimizer, text):
    _, X = text
    model = GloVe(dim=16, optimizer=optimizer, epochs=4).fit(X)
    assert model.loss_curve_[-1] < 0.9 * model.loss_curve_[0]


def test_neighbours_of_words_make_sense(text):
    words, X = text
    model = GloVe(dim=50, epochs=15).fit(X, words=words)

    def near(word, n=15):
        return [word for word, _ in model.most_similar(word, n=n)]

    assert {"methods", "instance", "class", "call"} & set(near("method"))
    assert {"arguments", "keyword", "positional"} & set(near("argument"))


def test_resumed_training_gives_the_bits_of_training_that_never_stopped(text, tmp_path):
    _, X = text
    whole = GloVe(dim=8, epochs=4, optimizer="adam", random_state=3).fit(X)
    model = GloVe(dim=8, epochs=2, optimizer="adam", random_state=3).fit(X)
    model.save(tmp_path / "first", language="en")
    GloVe.load(tmp_path / "first").save(tmp_path / "checkpoint")        # what a user kept in it stays
    model = GloVe.load(tmp_path / "checkpoint")
    assert model.optimizer_.metadata["language"] == "en"
    model.partial_fit(X).partial_fit(X)
    assert model.vectors_.tobytes() == whole.vectors_.tobytes()
    assert model.loss_curve_ == whole.loss_curve_


@pytest.mark.parametrize(("X", "error", "message"), [
    (np.ones((3, 3)), TypeError, "square scipy sparse"),
    (sp.csr_array(np.ones((3, 2))), TypeError, r"shape \(3, 2\)"),
    (sp.csr_array(np.array([[1.0, -2], [0, 0]])), ValueError, "from -2.0 to 1.0"),
    (sp.csr_array((3, 3)), ValueError, "no positive entries"),
])
def test_a_wrong_matrix_is_named(X, error, message):
    with pytest.raises(error, match=message):
        GloVe().fit(X)


def test_counts_of_one_pair_add_up():
    several = sp.coo_array((np.array([3, 1, 2, 1.0]), ([0, 1, 1, 0], [1, 0, 0, 0])), shape=(2, 2))
    once = sp.coo_array(([1, 3, 3.0], ([0, 0, 1], [0, 1, 0])), shape=(2, 2))
    one, other = (GloVe(dim=2, epochs=5).fit(X) for X in (several, once))
    assert (one.vectors_ == other.vectors_).all()
    assert one.score(several) == other.score(once)


def test_a_rate_beside_an_optimizer_that_has_one_is_refused(text):
    with pytest.raises(ValueError, match="lr must be None"):
        GloVe(optimizer=so.Adam, lr=0.5).fit(text[1])


def test_an_unknown_optimizer_is_named(text):
    with pytest.raises(ValueError, match="optimizer is 'Adan'; it must be one of SGD"):
        GloVe(optimizer="Adan").fit(text[1])


def test_gutenbergs_frame_is_no_text(tmp_path):
    book = tmp_path / "book.txt"
    mark = "*** {} OF THIS PROJECT GUTENBERG EBOOK MOBY DICK ***"
    book.write_text("\n".join(["Licence", mark.format("START"), "Call me Ishmael.", mark.format("END"),
                               "More licence"]))
    assert [text.strip() for text in datasets.read_texts([book])] == ["Call me Ishmael."]
