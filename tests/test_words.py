"""Models of words: texts of any size, access by word, new words, and files of vectors."""

import gzip
import os
import tempfile

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import sparseopt as so
from sparseopt.datasets import LineSentences
from sparseopt.models import GloVe, SkipGram, _places, _sentences
from sparseopt.models.glove import cooccurrence
from sparseopt.models.words import KeyedVectors, count_words, read_vectors, sentences, vocabulary, write_vectors

SMALL = {"dim": 8, "epochs": 2, "min_count": 2, "batch_size": 64, "window": 3}
MODELS = [SkipGram(**SMALL), GloVe(**SMALL)]
names = pytest.mark.parametrize("kind", [SkipGram, GloVe])


@pytest.fixture(scope="module")
def text(documentation):
    return [sentence for page in documentation[:30] for sentence in sentences(page)]


@pytest.fixture
def file(text, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(map(" ".join, text)), encoding="utf-8")
    return LineSentences(path, "whitespace")


def tables(model):
    return {name: table.tobytes() for name, table in model.optimizer_.params.items()}, model.loss_curve_


def temporary_files(monkeypatch):
    """A list that gets each temporary file of the models."""
    made, make = [], tempfile.SpooledTemporaryFile

    def keeping(*arguments, **how):
        made.append(make(*arguments, **how))
        return made[-1]

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", keeping)
    return made


@names
def test_a_file_and_a_list_of_the_same_sentences_train_to_the_same_bits(kind, text, file):
    assert list(file) == [sentence for sentence in text if sentence]
    assert tables(kind(**SMALL).fit(file)) == tables(kind(**SMALL).fit(text))


@names
def test_a_text_on_disk_in_small_blocks_trains_as_one_in_memory(kind, text, monkeypatch):
    """Draws are made block by block, so bits depend on the size of a block; without draws they do not."""
    monkeypatch.setattr(_places.Steps, "_rng", lambda steps, worker: Fixed(np.random.PCG64(0)))
    settings = {**SMALL, **({"sample": 0} if kind is SkipGram else {})}
    whole = kind(**settings).fit(text)
    made = temporary_files(monkeypatch)
    monkeypatch.setattr(_sentences, "_BLOCK", 1000)
    monkeypatch.setattr(_sentences, "_IN_MEMORY", 1000)
    parts = kind(**settings).fit(text)
    assert [file._rolled and file.closed for file in made] == [True]
    assert parts.words_ == whole.words_
    if kind is SkipGram:
        assert tables(parts) == tables(whole)
    else:                       # sums in another order
        assert_allclose(parts.vectors_, whole.vectors_, rtol=1e-3, atol=1e-4)


class Fixed(np.random.Generator):
    """Draws that do not depend on how many are made at a time."""

    def random(self, *shape_and_dtype, **how):
        return np.full(*shape_and_dtype[:1], 0.5, np.float32) if shape_and_dtype else super().random(**how)

    def integers(self, low, high=None, *n, **how):
        return np.full(*n, high - 1, np.int32) if n else super().integers(low, high, **how)


def test_pairs_are_counted_within_sentences_whatever_the_size_of_a_block(text, monkeypatch):
    words, _ = vocabulary(count_words(text), 2)
    number = {word: i for i, word in enumerate(words)}
    expected = np.zeros((len(words), len(words)))
    for sentence in text:
        known = [number[word] for word in sentence if word in number]
        for i, left in enumerate(known):
            for distance, right in enumerate(known[i + 1:i + 5], 1):
                expected[left, right] += 1 / distance
                expected[right, left] += 1 / distance
    for block, counted in ((1 << 20, 1 << 17), (333, 7), (50, 3)):
        monkeypatch.setattr(_sentences, "_BLOCK", block)
        monkeypatch.setattr("sparseopt.models.glove._COUNTED", counted)
        assert_allclose(cooccurrence(text, words, window=4).toarray(), expected, rtol=1e-5)


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
@names
def test_after_an_exception_the_temporary_file_is_closed(kind, stop, text, monkeypatch):
    made = temporary_files(monkeypatch)
    monkeypatch.setattr(_sentences, "_IN_MEMORY", 1)

    def callback(progress):
        raise stop

    with pytest.raises(stop):
        kind(**SMALL).fit(text, callback)

    class Stopping(list):
        passes = 0

        def __iter__(self):
            self.passes += 1
            yield from super().__iter__()
            if self.passes == 2:
                raise stop

    with pytest.raises(stop):
        kind(**SMALL).fit(Stopping(text))
    assert [file.closed for file in made] == [True, True]


def test_a_full_disk_is_named_with_what_helps(text, monkeypatch):
    class Full(tempfile.SpooledTemporaryFile):
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Full)
    with pytest.raises(OSError, match=r"No space left on device: .* words needs 4 bytes .*TMPDIR"):
        SkipGram(**SMALL).fit(text)


@names
def test_what_can_be_read_only_once_is_refused_with_what_can_be_read_again(kind, text):
    for X in ((sentence for sentence in text), iter(text), map(list, text)):
        with pytest.raises(TypeError, match=r"X is a \w+, which can be read only once.*a list, or .*LineSentences"):
            kind(**SMALL).fit(X)
    for X, said in (("one two", "'one two'; it must be sentences"), ([["a", "b"], "one two"], "'one two' in the place"),
                    ([[1, 2], [2, 1]], "the word 1, a int; words must be strings"), (5, "X is 5")):
        with pytest.raises(TypeError, match=said):
            kind(min_count=1).fit(X)


@names
def test_labels_in_the_place_of_a_callback_are_refused(kind, text):
    for call in (kind(**SMALL).fit, kind(**SMALL).partial_fit):
        with pytest.raises(TypeError, match=r"callback is .*; it must be None or a callable.* without y"):
            call(text, [0, 1, 1])


def test_unsegmented_text_gets_a_warning_and_segmented_text_none():
    count_words([["我", "喜欢", "电影"], ["ฉัน", "ชอบ", "มหาวิทยาลัย"], ["internationalization"]])
    for sentence in ("我喜欢读书学习", "今日はとても良い天気ですね", "ฉันชอบอ่านหนังสือในห้องสมุด"):
        with pytest.warns(UserWarning, match="written without spaces"):
            count_words([[sentence, "and"]])


def test_the_rarest_words_are_dropped_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(_sentences, "_MOST_WORDS", 50)
    monkeypatch.setattr(_sentences, "_BLOCK", 40)
    X = [[f"rare{i}", "often", f"rare{i + 1000}"] for i in range(200)]
    with pytest.warns(UserWarning, match="more than 50 different words"):
        counts = count_words(X)
    assert counts["often"] == 200
    assert len(counts) <= 50 + 40


@names
def test_a_model_answers_by_word(kind, text, tmp_path):
    model = kind(**SMALL).fit(text)
    model.save(tmp_path / "model")
    for each in (model, kind.load(tmp_path / "model"), KeyedVectors(model.words_, model.vectors_)):
        vectors = each.vectors_.astype(float)
        row = each.words_.index("class")
        assert "class" in each
        assert "nosuchword" not in each
        assert 3 not in each
        assert_allclose(each["class"], vectors[row], rtol=1e-6)
        assert_allclose(each[["class", "the"]], vectors[[row, each.words_.index("the")]], rtol=1e-6)
        directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        a, b, c = (directions[each.words_.index(word)] for word in ("class", "the", "of"))
        assert each.similarity("class", "the") == pytest.approx(a @ b, abs=1e-5)
        query = a + b - c
        cosines = directions @ query / np.linalg.norm(query)
        expected = [i for i in np.argsort(-cosines) if each.words_[i] not in ("class", "the", "of")][:4]
        found = each.most_similar(positive=["class", "the"], negative="of", n=4)
        assert [word for word, _ in found] == [each.words_[i] for i in expected]
        assert_allclose([cosine for _, cosine in found], cosines[expected], atol=1e-5)
        assert len(each.most_similar("class", n=10**6)) == len(vectors) - 1
        before = vectors.copy()
        each["class"][:] = 9                # a copy
        assert_array_equal(each.vectors_, before)


@names
def test_an_unknown_word_is_named_with_close_words(kind, text):
    model = kind(**SMALL).fit(text)
    for call in (lambda: model["clas"], lambda: model.most_similar(["the", "clas"]),
                 lambda: model.similarity("clas", "the"), lambda: model[["the", "clas"]]):
        with pytest.raises(KeyError, match="'clas' has no vector; close words are 'class'"):
            call()
    with pytest.raises(KeyError, match="close words are 'class'"):
        model["CLASS"]
    with pytest.raises(TypeError, match="the word is 3"):
        model[3]
    with pytest.raises(ValueError, match="at least one"):
        model.most_similar()
    with pytest.raises(ValueError, match="n is 0"):
        model.most_similar("the", n=0)
    with pytest.raises(TypeError):
        iter(model)
    with pytest.raises(ValueError, match="not fitted yet"):
        kind()["the"]


def test_a_matrix_gives_words_where_it_comes_with_words(text, tmp_path):
    words, _ = vocabulary(count_words(text), 2)
    X = cooccurrence(text, words, 3)
    named = GloVe(**SMALL).fit(X, words=words)
    assert tables(named) == tables(GloVe(**SMALL).fit(text))
    assert named.words_ == words
    without = GloVe(**SMALL).fit(X)
    with pytest.raises(ValueError, match="the model has no words"):
        without["the"]
    without.save(tmp_path / "model")
    loaded = GloVe.load(tmp_path / "model")
    assert not hasattr(loaded, "words_")
    assert "the" in loaded.partial_fit(X, words=words)
    assert not hasattr(named.fit(X), "words_")
    for wrong, said in ((words[1:], "a word for each row"), ([*words[1:], words[1]], "each word must be there once"),
                        (words[::-1], "another order")):
        with pytest.raises(ValueError, match=said):
            loaded.partial_fit(X, words=wrong)
    with pytest.raises(ValueError, match="words must be None"):
        GloVe(**SMALL).fit(text, words=words)
    with pytest.raises(ValueError, match="new words need sentences"):
        loaded.partial_fit(X, grow=True)


def test_glove_of_sentences_is_scored_and_resumed(text, tmp_path):
    model = GloVe(**SMALL).fit(text)
    assert model.score(text) == model.score(cooccurrence(text, model.words_, SMALL["window"]))
    model.save(tmp_path / "model")
    assert tables(GloVe.load(tmp_path / "model").partial_fit(text)) == tables(model.partial_fit(text))


@names
def test_new_words_are_left_out_with_a_warning_or_get_vectors(kind, text, tmp_path):
    new = [["class", "newword", "method", "othernew"]] * 30 + [["onceonly", "class"]]
    model = kind(**SMALL).fit(text)
    before = {word: model[word] for word in model.words_}
    with pytest.warns(UserWarning, match="2 words of X are left out .60 of all 122 places.*grow=True"):
        model.partial_fit(new)
    assert "newword" not in model
    model.partial_fit(new, grow=True)
    assert model.words_[-2:] == ["newword", "othernew"]
    assert "onceonly" not in model
    assert set(before) < set(model.words_)
    untouched = next(word for word in model.words_[50:] if word not in ("class", "method"))
    if kind is SkipGram:
        assert model.counts_[-2:].tolist() == [30, 30]
        assert model.counts_[model.words_.index("class")] == sum(sentence.count("class") for sentence in text + new)
        assert (np.bincount(model._negatives.draw(20_000, 0), minlength=len(model.words_))[-2:] > 0).all()
    assert_array_equal(model[untouched], before[untouched]) if kind is GloVe else None
    model.save(tmp_path / "model")
    again = kind.load(tmp_path / "model")
    assert again.words_ == model.words_
    assert tables(again.partial_fit(text)) == tables(model.partial_fit(text))


def test_new_words_learn_though_the_rate_has_reached_its_end(text):
    model = SkipGram(**{**SMALL, "sample": 0}).fit(text)
    assert model.optimizer_.current_lr() < 0.02 * 0.05
    steps = model.optimizer_.steps
    new = [["newword", "class", "another", "method"] * 5] * 200
    model.partial_fit(new, grow=True)
    rate = model.optimizer_.param_groups[0]["lr"]
    assert rate(steps) == 0.05
    assert model.optimizer_.current_lr() < 0.02 * 0.05
    assert np.linalg.norm(model.optimizer_.params["contexts"][model.words_.index("newword")]) > 0.1
    with_schedule = SkipGram(**SMALL, lr=so.schedules.Constant(0.01)).fit(text).partial_fit(new, grow=True)
    assert with_schedule.optimizer_.param_groups[0]["lr"] == so.schedules.Constant(0.01)


@names
def test_a_refused_text_of_new_words_leaves_the_model_as_it_was(kind, text):
    model = kind(**SMALL).fit(text)
    before = tables(model), list(model.words_)
    for X in ([["one", 2]], (sentence for sentence in text), [["qq"]]):
        with pytest.raises((TypeError, ValueError)):
            model.partial_fit(X, grow=True)
        assert (tables(model), model.words_) == before
    with pytest.raises(TypeError, match="grow is 1"):
        model.partial_fit(text, grow=1)


def test_progress_counts_the_words_of_the_text_to_the_end(text):
    heard = []
    SkipGram(**{**SMALL, "sample": 1e-4}).fit(text, heard.append)
    known = count_words(text)
    total = sum(count for count in known.values() if count >= 2)
    assert {report.total for report in heard} == {total}
    assert [report.epoch for report in heard if report.epoch_ends] == [0, 1]
    done = [report.done for report in heard if report.epoch == 0]
    assert done == sorted(done)


def test_an_epoch_without_pairs_is_said():
    with pytest.warns(UserWarning, match="no pair of words was left"):
        SkipGram(dim=2, epochs=1, min_count=1).fit([["a"], ["b"], ["a"]])


WORDS, VECTORS = ["the", "größe", "new_york"], np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)


@pytest.mark.parametrize("name", ["v.txt", "v.bin", "v.txt.gz", "v.bin.gz", "v"])
def test_files_of_vectors_give_back_the_same_bits(name, tmp_path):
    write_vectors(tmp_path / name, WORDS, VECTORS)
    words, vectors = read_vectors(tmp_path / name)
    assert words == WORDS
    assert_array_equal(vectors, VECTORS, strict=True)
    raw = (tmp_path / name).read_bytes()
    assert raw.startswith(b"\x1f\x8b") == name.endswith(".gz")
    raw = gzip.decompress(raw) if name.endswith(".gz") else raw
    assert (VECTORS[1].tobytes() in raw) == (".bin" in name)
    gensim = pytest.importorskip("gensim")
    theirs = gensim.models.KeyedVectors.load_word2vec_format(tmp_path / name, binary=".bin" in name)
    assert theirs.index_to_key == WORDS
    assert_array_equal(theirs.vectors, VECTORS)
    theirs.save_word2vec_format(str(tmp_path / "theirs"), binary=".bin" in name)
    assert_array_equal(read_vectors(tmp_path / "theirs")[1], VECTORS)


@pytest.mark.parametrize("content", [
    "the 1 2\nof 3 4\n", "2 2\nthe  1 2\nof  3 4\n", "2 2\nthe 1 2 \nof 3 4 \n", "the\t1\t2\r\nof\t3\t4\r\n",
    "\nthe 1 2\n\nof 3 4", "2 2\nthe 1e0 +2\nof 3. 4", "2 2\nthe 1 2\nof 3 4\n\n", "\ufeff2 2\nthe 1 2\nof 3 4\n",
    "\ufeffthe 1 2\nof 3 4\n",
])
def test_text_files_of_vectors_are_read_with_or_without_a_header(tmp_path, content):
    (tmp_path / "vectors").write_bytes(content.encode())
    words, vectors = read_vectors(tmp_path / "vectors")
    assert words == ["the", "of"]
    assert_array_equal(vectors, [[1, 2], [3, 4]])


def test_words_of_a_file_may_be_numbers_or_signs_of_any_kind(tmp_path):
    path = tmp_path / "vectors"
    path.write_text("the 1 2\n7 1 3\n. . . 1 4\n\u00a0 1 5\n\x85 1 6\n", encoding="utf-8", newline="")
    words, vectors = read_vectors(path)
    assert words == ["the", "7", ". . .", "\u00a0", "\x85"]
    assert vectors[:, 1].tolist() == [2, 3, 4, 5, 6]


def test_a_wrong_binary_or_packed_file_is_named(tmp_path):
    path = tmp_path / "vectors"
    write_vectors(tmp_path / "v.bin", WORDS, VECTORS)
    write_vectors(tmp_path / "v.gz", WORDS * 50, np.tile(VECTORS, (50, 1)))
    raw, packed = (tmp_path / "v.bin").read_bytes(), (tmp_path / "v.gz").read_bytes()
    infinite = raw.replace(VECTORS[1].tobytes(), np.full(5, np.inf, np.float32).tobytes())
    for content, said in ((raw[:-10], "the vector of word 3, 'new_york'"),
                          (raw[:raw.index(b"new")], "ends after 2 words"),
                          (raw.replace("ö".encode(), b"\xff"), "word 2 is no text"),
                          (infinite, "word 2, 'größe', is cut or not"),
                          (packed[:-30], "damaged gzip"), (b"3 5\n" + VECTORS.tobytes(), "")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"vectors: .*{said}"):
            read_vectors(path)


def test_words_and_vectors_that_no_file_can_hold_are_refused_before_a_file_is_written(tmp_path):
    path = tmp_path / "vectors"
    for words, vectors, said in ((["new york", "b"], np.eye(2), "'new york' in row 0"),
                                 (["a", ""], np.eye(2), "'' in row 1"),
                                 (["a", "b\u00a0"], np.eye(2), "row 1"), (["a"], np.eye(2), "for 1 words"),
                                 (["a", "b"], np.array([[1, 2], [3, np.nan]]), "vector of 'b' is not finite"),
                                 (["a", "b"], np.array([[1, 2], [3, 1e39]]), "vector of 'b' is not finite")):
        with pytest.raises(ValueError, match=said), np.errstate(over="ignore"):
            write_vectors(path, words, vectors)
    assert os.listdir(tmp_path) == []


def test_the_first_of_two_vectors_of_a_word_counts():
    vectors = KeyedVectors(["a", "b", "a"], np.array([[1.0, 0], [0, 1], [5, 5]]))
    assert vectors["a"].tolist() == [1, 0]
    with pytest.raises(TypeError, match="row 1"):
        KeyedVectors(["a", 5], np.eye(2))
    with pytest.raises(ValueError, match="a row for each"):
        KeyedVectors(["a"], np.eye(2))
