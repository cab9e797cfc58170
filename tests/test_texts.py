"""Words and sentences of texts in all scripts, and files of texts that are read anew in each pass."""

import gzip
import os
import unicodedata
import warnings

import pytest

from sparseopt._tokens import _ENDS, _ENDS_BEYOND
from sparseopt.datasets import LineSentences, read_texts
from sparseopt.datasets import texts as module
from sparseopt.models.words import sentences, tokenize


@pytest.mark.parametrize(("text", "words"), [
    ("Don't read PEP 8 twice.", ["don't", "read", "pep", "twice"]),
    ("rock’n’roll, 'quoted'", ["rock'n'roll", "quoted"]),
    ("माता जी बाज़ार", ["माता", "जी", "बाज़ार"]),
    ("كَتَبَ الوَلَدُ", ["كَتَبَ", "الوَلَدُ"]),
    (unicodedata.normalize("NFD", "Das Mädchen öffnet Ångström"), ["das", "mädchen", "öffnet", "ångström"]),
    ("می‌رود می‌ رود", ["می‌رود", "می", "رود"]),
    ("İstanbul I\u0307zmir", ["istanbul", "izmir"]),
    ("ΟΔΟΣ Straße", ["οδος".replace("σ ", "ς "), "straße"]),
    ("Wör\xadter", ["wörter"]),
    ("col·lecció צה״ל", ["col·lecció", "צה״ל"]),
    ("𞤀𞤣𞤤𞤢𞤥 𑄌𑄋𑄴𑄟𑄳𑄦", ["𞤢𞤣𞤤𞤢𞤥", "𑄌𑄋𑄴𑄟𑄳𑄦"]),
    ("item_17 m² x1y", ["item", "m²", "x", "y"]),
    ("M\ufffddchen \ufffdber Stra\ufffd\ufffde da", ["da"]),
    ("\u0301 \u200d 12 !", []),
])
def test_a_word_is_a_run_of_letters_with_their_marks(text, words):
    assert tokenize(text) == words
    assert tokenize(unicodedata.normalize("NFD", text)) == words


def test_lower_case_leaves_no_stray_marks_and_stays_in_nfc():
    for code in range(0x20000):
        letter = chr(code)
        if unicodedata.category(letter) in ("Lu", "Lt"):
            (word,) = tokenize(letter)
            assert unicodedata.is_normalized("NFC", word), hex(code)
            assert len(word) == 1 or not letter.isascii(), hex(code)
            assert not any(unicodedata.combining(sign) for sign in word) or unicodedata.decomposition(letter), hex(code)


def test_sentences_end_in_all_scripts_and_at_empty_lines():
    assert sentences("One two.Three!  Four\nfive\n\nsix ... ?\u2029seven") == [
        ["one", "two"], ["three"], ["four", "five"], ["six"], ["seven"]]
    assert sentences("我 喜欢 书 。 他 看 电影 ！好？") == [["我", "喜欢", "书"], ["他", "看", "电影"], ["好"]]
    assert sentences("मेरा घर है। वह जाता है॥") == [["मेरा", "घर", "है"], ["वह", "जाता", "है"]]
    assert sentences("من أنت؟ أنا هنا۔ نعم") == [["من", "أنت"], ["أنا", "هنا"], ["نعم"]]
    assert sentences("𑄌𑄋𑄴𑅁 𑄟𑄳𑄦") == [["𑄌𑄋𑄴"], ["𑄟𑄳𑄦"]]


def test_the_table_of_ends_is_unicodes():
    regex = pytest.importorskip("regex", reason="a package that knows Sentence_Terminal")
    ends = regex.compile(r"\p{Sentence_Terminal}")
    table = regex.compile(f"[{_ENDS}{_ENDS_BEYOND}]")
    signs = [chr(code) for code in range(0x20000) if not 0xd800 <= code < 0xe000]
    assert all(ends.match(sign) for sign in signs if table.match(sign))
    more = [sign for sign in signs if ends.match(sign) and not table.match(sign)]       # newer than version 14
    assert len(more) <= 20, more


def test_all_ends_are_punctuation():
    for sign in (_ENDS + _ENDS_BEYOND).replace("-", ""):
        assert unicodedata.category(sign) == "Po" or unicodedata.unidata_version < "14", hex(ord(sign))


def written(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("block", [7, 64, 1 << 20])
def test_files_give_the_sentences_of_their_text_whatever_the_size_of_a_block(tmp_path, monkeypatch, block):
    text = "It’s a (long) text:\nwith lines, and signs. More?\n\n" * 300 + "\nΟΔΟΣ. مرحبا؟ 我 。\r\nlast\r\n\r\n  words"
    expected = sentences(text.replace("\r\n", "\n"))
    paths = [written(tmp_path / "a.txt", text), tmp_path / "b.txt.gz"]
    paths[1].write_bytes(gzip.compress(text.encode()))
    monkeypatch.setattr(module, "_BLOCK", block)
    found = list(LineSentences(paths))
    # Sentences longer than a block are cut, but no word is.
    assert [word for sentence in found for word in sentence] == 2 * [word for sentence in expected for word in sentence]
    if block == 1 << 20:
        assert found == list(LineSentences(paths)) == list(LineSentences(tmp_path)) == 2 * expected


def test_a_sentence_may_go_over_many_blocks(tmp_path, monkeypatch):
    text = " ".join(f"word{'abcdefghij'[i % 10]}" for i in range(1000)) + ". and more\nhere"
    path = written(tmp_path / "a.txt", text)
    read = module._read

    def in_small_blocks(path, encoding):
        for block in read(path, encoding):
            yield from (block[i:i + 100] for i in range(0, len(block), 100))
        yield ""

    monkeypatch.setattr(module, "_read", in_small_blocks)
    assert list(LineSentences(path)) == sentences(text)


def test_white_space_separates_numbers_and_ids_and_a_line_is_a_sentence(tmp_path):
    path = written(tmp_path / "walks.txt", "\ufeff3 5\t12\nitem_17  Item_17\u00a0a\u0308\n\n \nlast")
    assert list(LineSentences(path, "whitespace")) == [["3", "5", "12"], ["item_17", "Item_17", "a\u0308"], ["last"]]


def test_a_text_of_numbers_gets_a_warning_that_names_the_option(tmp_path):
    path = written(tmp_path / "walks.txt", "item_3 item_17\n" * 5)
    with pytest.warns(UserWarning, match="10 of the first 10 parts .* such as 'item_3'.*--tokens whitespace"):
        assert list(LineSentences(path)) == [["item"] * 10]


def test_bytes_that_are_no_text_are_counted_and_their_words_left_out(tmp_path):
    path = written(tmp_path / "latin.txt", "Das Mädchen geht früh. Ja", "latin-1")
    for tokens, words in (("words", [["das", "geht"], ["ja"]]), ("whitespace", [["Das", "geht", "Ja"]])):
        with pytest.warns(UserWarning, match="latin.txt: 2 bytes are no text in utf-8.*--encoding"):
            assert list(LineSentences(path, tokens)) == words
    with pytest.warns(UserWarning, match="2 bytes"):
        assert read_texts([path]) == ["Das M\ufffddchen geht fr\ufffdh. Ja"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert next(iter(LineSentences(path, encoding="latin1"))) == ["das", "mädchen", "geht", "früh"]
    path = written(tmp_path / "wide.txt", "Das Mädchen", "utf-16")
    assert list(LineSentences(path, encoding="utf-16")) == [["das", "mädchen"]]
    with pytest.raises(ValueError, match=r"line 1: it has a null byte.*utf-16"):
        list(LineSentences(path))
    with pytest.raises(ValueError, match=r"latin.txt: no text in utf-16"):
        list(LineSentences(tmp_path / "latin.txt", encoding="utf-16-le"))


@pytest.mark.parametrize("block", [40, 1 << 20])
def test_gutenbergs_frames_are_left_out_wherever_a_block_ends(tmp_path, monkeypatch, block):
    mark = "*** {} OF THIS PROJECT GUTENBERG EBOOK MOBY DICK ***"
    one = ["Licence", mark.format("START"), "Call me Ishmael.", mark.format("END"), "More licence"]
    path = written(tmp_path / "books.txt", "\n".join([*one, *one]).replace("Ishmael.\n*** END", "me.\n*** END", 1))
    monkeypatch.setattr(module, "_BLOCK", block)
    assert [sentence for sentence in LineSentences(path) if "licence" not in sentence] == [
        ["call", "me", "me"], ["call", "me", "ishmael"]]


def test_a_wrong_argument_or_file_is_named(tmp_path):
    path = written(tmp_path / "a.txt", "one two")
    for arguments, error, said in [
            ((tmp_path / "nothing.txt",), OSError, "nothing.txt"), (([],), ValueError, "at least one"),
            ((path, "letters"), ValueError, "tokens is 'letters'"), ((path, "words", "utf-7777"), LookupError, "7777")]:
        with pytest.raises(error, match=said):
            LineSentences(*arguments)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="pipe; it must be a regular file"):
            LineSentences(tmp_path / "pipe")
    packed = gzip.compress(b"one two three" * 1000)
    for content, said in ((b" \n", "has no text"), (packed[:-20], "damaged gzip"), (packed[:20] + b"x" * 40, "gzip")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"a.txt: .*{said}"):
            list(LineSentences(path))
