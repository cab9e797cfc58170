"""Skip-gram and CBOW on real text, and what all word vectors share."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import sparseopt as so
from sparseopt import _kernels
from sparseopt.models import CBOW, GloVe, SkipGram
from sparseopt.models._negative_sampling import Windows
from sparseopt.models._places import Memory
from sparseopt.models.glove import cooccurrence
from sparseopt.models.words import (
    nearest,
    read_vectors,
    sentences,
    vocabulary,
    word_analogies,
    word_similarity,
    write_vectors,
)

SMALL = {"dim": 12, "epochs": 2, "batch_size": 100, "min_count": 3}


@pytest.fixture(scope="module")
def text(documentation):
    return [sentence for page in documentation[:60] for sentence in sentences(page)]


both = pytest.mark.parametrize("kind", [SkipGram, CBOW])


def test_windows_are_the_words_within_reach_in_the_same_sentence():
    rng = np.random.default_rng(0)
    words, sentence = rng.integers(100, size=40).astype(np.int32), np.sort(rng.integers(20, size=40))
    reach, order = rng.integers(1, 5, size=40).astype(np.int32), rng.permutation(np.arange(3, 33))
    expected = [(words[t], [words[s] for s in range(40) if 0 < abs(s - t) <= reach[t] and sentence[s] == sentence[t]])
                for t in order]
    expected = [(word, near) for word, near in expected if near]
    assert len(expected) < len(order)                       # a word alone has no window
    inputs, bounds, middle = np.empty(300, np.int32), np.empty(31, np.int64), np.empty(30, np.int32)
    n = _kernels.losses.windows(words, sentence, reach, order, inputs, bounds, middle)
    assert [(middle[b], inputs[bounds[b]:bounds[b + 1]].tolist()) for b in range(n)] == expected


@both
def test_a_step_is_gradient_descent_on_the_models_loss(text, kind):
    model = kind(**SMALL, optimizer="SGD", lr=0.5, negative=4)
    model._start(text).__exit__()
    rng = np.random.default_rng(1)
    tables = model.optimizer_.params
    tables["contexts"][:] = 0.3 * rng.standard_normal(tables["contexts"].shape)
    before = {name: table.astype(float) for name, table in tables.items()}
    inputs, bounds = np.array([7, 3, 9, 7, 5], np.int32), np.array([20, 22, 25])
    outputs = rng.integers(9, size=(2, 5), dtype=np.int32)
    function = so.losses.cbow if kind is CBOW else so.losses.skip_gram
    expected, gradients = function(*before.values(), inputs, outputs, [0, 2])
    task = Windows(None, model._kept, model._negatives, 100, model.window, 4, kind is CBOW)
    step, report = task.gradients(Memory(model.optimizer_), (inputs, outputs, bounds, 3))
    model.optimizer_.step(step)
    assert report == (3, 2 if kind is CBOW else 5, pytest.approx(expected, rel=1e-5))
    for (name, table), gradient in zip(before.items(), gradients, strict=True):
        np.subtract.at(table, gradient.rows, 0.5 * gradient.values)
        assert_allclose(tables[name], table, rtol=1e-4, atol=1e-6, err_msg=name)


def test_every_window_is_visited_once_an_epoch_in_mixed_order(text, monkeypatch):
    taken = []

    def gradients(task, reader, batch):
        inputs, outputs, bounds, _ = batch
        taken.append([(outputs[b, 0], *inputs[bounds[b] - bounds[0]:bounds[b + 1] - bounds[0]])
                      for b in range(len(outputs))])
        return {}, (0, 1, 1.0)

    monkeypatch.setattr(Windows, "gradients", gradients)
    model = SkipGram(**{**SMALL, "epochs": 1, "sample": 0}).fit(text)
    known = [[model._number[word] for word in sentence if word in model._number] for sentence in text]
    rng = model._rng(0)
    n_words = sum(map(len, known))
    rng.random(n_words, np.float32)                         # which words are left out: none
    reach = iter(rng.integers(1, model.window + 1, n_words, dtype=np.int32).tolist())
    expected = []
    for sentence in known:
        for t, word in enumerate(sentence):
            b = next(reach)
            expected.append((word, *sentence[max(0, t - b):t], *sentence[t + 1:t + 1 + b]))
    expected = [window for window in expected if len(window) > 1]
    visited = [window for step in taken for window in step]
    assert sorted(visited) == sorted(expected)
    assert len(taken) == -(-n_words // 100) > 82            # of 8,200 words together
    sizes = [len(step) for step in taken[:82]]
    assert max(sizes) - min(sizes) <= 1
    # The first windows of the text must not all be in the first step.
    first = set(expected[:sizes[0]])
    assert sum(window in first for window in taken[0]) < 0.5 * sizes[0]


def test_frequent_words_are_left_out_as_word2vec_does(text):
    gensim = pytest.importorskip("gensim")
    model = SkipGram(**SMALL, sample=1e-3)
    model._start(text).__exit__()
    theirs = gensim.models.Word2Vec(min_count=3, sample=1e-3, sg=1)
    theirs.build_vocab(text)
    assert set(theirs.wv.key_to_index) == set(model.words_)
    shares = np.array([theirs.wv.get_vecattr(word, "sample_int") for word in model.words_]) / 2**32
    assert_allclose(model._kept, shares, atol=1e-6)
    power = model.counts_**0.75
    drawn = np.bincount(model._negatives.draw(400_000, 0), minlength=len(power))
    assert_allclose(drawn[:50] / 400_000, (power / power.sum())[:50], rtol=0.15)


@both
@pytest.mark.parametrize("missed", ["skip", "replay"])
def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(text, missed, kind):
    before, trained = so.get_num_threads(), []
    for threads, seed in ((1, 3), (2, 3), (1, 4)):
        so.set_num_threads(threads)
        settings = {**SMALL, "optimizer": "Adam", "missed": missed, "random_state": seed, "batch_size": 800}
        trained.append(kind(**settings).fit(text).vectors_.copy())
    so.set_num_threads(before)
    assert_array_equal(trained[0], trained[1])
    assert (trained[0] != trained[2]).any()


def test_vectors_of_words_used_alike_are_near(documentation):
    text = [sentence for page in documentation for sentence in sentences(page)]
    model = SkipGram(dim=32, epochs=5, min_count=20, optimizer="Adagrad").fit(text)
    assert (np.diff(model.loss_curve_) < 0).all()
    # of untrained vectors; with pairs in the order of the text 0.60
    assert model.loss_curve_[-1] < 0.58 * 6 * np.log(2)
    for word, other in (("true", "false"), ("key", "value"), ("first", "second")):
        near = dict(model.most_similar(word, n=20))
        assert other in near, word
        assert word not in near
        assert (np.diff(list(near.values())) <= 0).all()


def test_fit_is_partial_fit_again_and_again_also_through_a_file(text, tmp_path):
    whole = SkipGram(**{**SMALL, "epochs": 3}).fit(text)
    part = SkipGram(**{**SMALL, "epochs": 3}).partial_fit(text).partial_fit(text)
    part.save(tmp_path / "model.safetensors")
    loaded = SkipGram.load(tmp_path / "model.safetensors")
    assert {**loaded.get_params(), "lr": None} == part.get_params()
    assert loaded.words_ == part.words_
    loaded.partial_fit(text)
    assert_array_equal(loaded.vectors_, whole.vectors_)
    assert loaded.loss_curve_ == whole.loss_curve_


def test_a_callback_hears_of_every_batch_and_can_end_the_training(text):
    heard = []

    def callback(progress):
        heard.append(progress)
        return progress.epoch == 1 and progress.done > 500

    model = SkipGram(**{**SMALL, "epochs": 5}).fit(text, callback)
    assert heard[0].model is model
    assert [p.epoch for p in heard if p.epoch_ends] == [0]
    assert len(model.loss_curve_) == 2
    assert heard[-1].loss == model.loss_curve_[-1]
    assert 500 < heard[-1].done <= 600


def test_words_without_a_vector_are_as_if_not_there(text):
    model = SkipGram(**SMALL, sample=0).fit(text)
    before = model.vectors_.copy()
    with pytest.warns(UserWarning, match="2 words of X are left out .10 of all 20 places.* such as 'alsonever'"):
        model.partial_fit([["neverseen", model.words_[0], "alsonever", model.words_[1]]] * 5)
    moved = (before != model.vectors_).any(axis=1)
    assert moved[:2].all()
    assert not moved[2:].any()


@pytest.mark.parametrize(("change", "said"), [
    ({"dim": 0}, "dim is 0; it must be an integer of at least 1"),
    ({"window": 2.5}, "window is 2.5"),
    ({"negative": 0}, "negative is 0"),
    ({"sample": -1}, "sample is -1; it must be finite and 0 or more"),
    ({"batch_size": True}, "batch_size is True"),
    ({"optimizer": "adan"}, "optimizer is 'adan'; it must be one of SGD"),
    ({"missed": "dense"}, "missed is 'dense'; it must be one of 'skip', 'replay'"),
    ({"min_count": 10**9}, "X has 0 different words that occur 1000000000 times"),
])
def test_bad_settings_are_named(text, change, said):
    with pytest.raises(ValueError, match=said):
        SkipGram(**{**SMALL, **change}).fit(text)


def test_a_refused_fit_leaves_the_model_as_it_was(text):
    model = SkipGram(**SMALL).fit(text)
    words, vectors = list(model.words_), model.vectors_.copy()
    for change, X in [({"optimizer": "nope"}, [["a", "b"] * 9]), ({}, iter(text)), ({}, ["no list"]),
                      ({"random_state": "x"}, text)]:
        with pytest.raises((ValueError, TypeError)):
            model.set_params(**{**SMALL, "optimizer": "SGD", "random_state": 0, **change}).fit(X)
        assert model.words_ == words
        assert_array_equal(model.vectors_, vectors)


def test_strings_are_no_sentences():
    for X in ("hello world", ["hello world", "and more"]):
        with pytest.raises(TypeError, match=r"lists? of words"):
            SkipGram(min_count=1).fit(X)


@pytest.mark.parametrize("random_state", [np.int64(3), None, np.random.default_rng(0), np.random.RandomState(0)])
@pytest.mark.parametrize("model", [SkipGram(**SMALL), GloVe(dim=4, epochs=1)])
def test_any_source_of_random_numbers_trains_and_saves(text, model, random_state, tmp_path):
    X = text
    if isinstance(model, GloVe):
        X = cooccurrence(text, vocabulary(word for sentence in text for word in sentence)[0], 3)
    model.set_params(random_state=random_state, dim=np.int32(4)).fit(X)
    model.save(tmp_path / "model.safetensors")
    assert_array_equal(type(model).load(tmp_path / "model.safetensors").vectors_, model.vectors_)


def test_the_first_epoch_draws_other_numbers_than_the_start():
    model = SkipGram(random_state=7)
    drawn = [rng.random(4).tolist() for rng in (model._rng(), model._rng(0), model._rng(1), np.random.default_rng(7))]
    assert drawn[0] == drawn[3]
    assert len({tuple(numbers) for numbers in drawn[:3]}) == 3


def test_what_cannot_be_saved_leaves_the_optimizer_as_it_was(text, tmp_path):
    model = SkipGram(**SMALL).fit(text)
    with pytest.raises((TypeError, ValueError)):
        model.save(tmp_path / "model.safetensors", more=object())
    so.save(tmp_path / "optimizer.safetensors", model.optimizer_)


def test_an_unfitted_model_says_so():
    with pytest.raises(ValueError, match="this SkipGram is not fitted yet"):
        SkipGram().vectors_  # noqa: B018


def test_the_vocabulary_is_sorted_by_count_then_by_letters():
    assert vocabulary(["b", "a", "c", "b", "c", "d"], 1) == (["b", "c", "a", "d"], [2, 2, 1, 1])


def test_vectors_are_read_as_written_by_us_and_by_gensim(tmp_path):
    words, vectors = ["a", "don't", "été"], np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    write_vectors(tmp_path / "vectors.txt", words, vectors)
    again, read = read_vectors(tmp_path / "vectors.txt")
    assert again == words
    assert_allclose(read, vectors, rtol=1e-5)
    (tmp_path / "c.txt").write_text("2 2\na 1 0 \nb 0 1 \n")     # as word2vec's own program writes it
    assert_array_equal(read_vectors(tmp_path / "c.txt")[1], np.eye(2))
    gensim = pytest.importorskip("gensim")
    theirs = gensim.models.KeyedVectors.load_word2vec_format(tmp_path / "vectors.txt")
    assert theirs.index_to_key == words
    theirs.save_word2vec_format(str(tmp_path / "theirs.txt"))
    assert_array_equal(read_vectors(tmp_path / "theirs.txt")[1], theirs.vectors)


@pytest.mark.parametrize(("content", "said"), [
    ("", "line 1: the file ends after 0 words"), ("a b c\n", "line 1: expected a word and 2 finite numbers"),
    ("a\n", "line 1: expected a word and its vector; the line is 'a'"), ("0 2\n", "line 1: the file has 0 words"),
    ("a 1 2\nb 1 nan\n", "line 2: expected a word and 2 finite"), ("a 1 2\nb 3 1 2\n", "line 2: expected a word"),
    ("2 2\na 1 2\nb 1\n", "line 3: expected one of 2 lines with a word and 2 finite numbers; the line is 'b 1'"),
    ("2 2\na 1 2\n", "line 3: the file ends after 1 words; it must have 2"),
    ("1 2\na 1 2\nb 1 2\n", "line 3: expected one of 1"), ("1 2\na x 2\n", "line 2: expected"),
])
def test_a_wrong_file_of_vectors_is_named_with_its_line(tmp_path, content, said):
    (tmp_path / "vectors.txt").write_text(content)
    with pytest.raises(ValueError, match=said):
        read_vectors(tmp_path / "vectors.txt")


def test_nearest_are_those_of_the_largest_cosine():
    vectors = np.random.default_rng(1).standard_normal((50, 6))
    rows, cosines = nearest(vectors, vectors[[4, 7]], 9, [[4], [7, 8]])
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for k, (query, left_out) in enumerate([(4, [4]), (7, [7, 8])]):
        expected = [row for row in np.argsort(-directions @ directions[query]) if row not in left_out][:9]
        assert rows[k].tolist() == expected
        assert_allclose(cosines[k], directions[expected] @ directions[query])


def test_scores_are_gensims():
    gensim = pytest.importorskip("gensim")
    from gensim.test.utils import datapath

    lines = Path(datapath("wordsim353.tsv")).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if not line.startswith("#")]
    words = list(dict.fromkeys(word.lower() for pair in pairs[:300] for word in pair[:2]))
    words += ["athens", "greece", "baghdad", "iraq", "boy", "girl", "brother", "sister", "bad",
              "worse", "big", "bigger"]
    words = list(dict.fromkeys(words))
    vectors = np.random.default_rng(2).standard_normal((len(words), 20)).astype(np.float32)
    theirs = gensim.models.KeyedVectors(20)
    theirs.add_vectors(words, vectors)
    _, spearman, missing = theirs.evaluate_word_pairs(datapath("wordsim353.tsv"))
    ours, known, total = word_similarity(words, vectors, datapath("wordsim353.tsv"))
    assert ours == pytest.approx(spearman[0], abs=1e-6)
    assert 100 * (1 - known / total) == pytest.approx(missing)
    _, sections = theirs.evaluate_word_analogies(datapath("questions-words.txt"))
    correct, known, _ = word_analogies(words, vectors, datapath("questions-words.txt"))
    assert known == len(sections[-1]["correct"]) + len(sections[-1]["incorrect"]) > 10
    assert correct == len(sections[-1]["correct"])


def test_wrong_files_of_scores_are_named_with_their_line(tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("# comment\nword 1\tword 2\tscore\na\tb\t3\na\tb\n")
    with pytest.raises(ValueError, match="line 4: expected two words and a number"):
        word_similarity(["a", "b"], np.eye(2), file)
    file.write_text(": section\na b c d\na b c\n")
    with pytest.raises(ValueError, match="line 3: expected four words"):
        word_analogies(["a", "b"], np.eye(2), file)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_training_that_diverges_says_so_and_names_the_rate():
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(24)]
    sentences = [[words[i] for i in rng.integers(24, size=10)] for _ in range(1000)]
    with pytest.raises(ValueError, match=r"the training has diverged: gradient of .* learning rate is [\d.]+; set a"):
        SkipGram(lr=50.0, epochs=5, random_state=0).fit(sentences)


@pytest.mark.parametrize("cls", [SkipGram, CBOW])
def test_a_window_may_be_wider_than_every_sentence_and_costs_no_memory(cls):
    text = [list("abcab"), list("ba")] * 50
    wide, wider = (cls(dim=3, window=window, min_count=1, sample=0, epochs=1).fit(text) for window in (10**9, 2**40))
    assert np.isfinite(wider.vectors_).all()
    assert wide.loss_curve_[0] == pytest.approx(wider.loss_curve_[0], rel=0.05)
