"""`sparseopt train words`, `neighbours` and `evaluate words`."""

import argparse
import codecs
import contextlib
import importlib.util
import itertools
import unicodedata
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import checkpoint, datasets, schedules
from ..models import CBOW, GloVe, SkipGram, glove
from ..models.words import (
    close_words,
    count_words,
    nearest,
    numbered,
    read_vectors,
    sentences,
    vocabulary,
    word_analogies,
    word_similarity,
    write_vectors,
)
from ._common import UsageError, add_settings, count, existing_file, flag, given
from ._output import Output, add_format, check_table_path, write_table
from ._places import add_places, closing, place
from ._run import Run, add_run

_MODELS = {"cbow": CBOW, "glove": GloVe, "skipgram": SkipGram}
_LOSSES = {GloVe: "mean weighted squared error", SkipGram: "mean loss of a pair", CBOW: "mean loss of a word"}
_VECTORS = ("a file of vectors: GloVe's or word2vec's text format, or word2vec's binary format, also packed by gzip; "
            "or a checkpoint (.safetensors) of `sparseopt train words`")


def add(train_commands: Any, commands: Any, evaluate_commands: Any) -> None:
    words = train_commands.add_parser(
        "words", help="train word vectors (GloVe, skip-gram or CBOW) on plain text",
        description="Train word vectors on text files. Without a file, the text is the documentation that every "
                    "Python carries. GloVe counts which words stand near each other, and fits the counts. Skip-gram "
                    "and CBOW read the text itself. The command writes vectors.txt (word2vec's text format), "
                    "checkpoint.safetensors (for --resume), run.json (a summary of the run) and loss.png.")
    words.set_defaults(run=_train)
    add_reading(words)
    words.add_argument("--model", choices=_MODELS, help="default: glove, or the model of the checkpoint")
    add_run(words, "words", "continue from this checkpoint on the same text up to --epochs, with its settings")
    add_places(words)
    add_format(words)
    words.add_argument("--neighbours", metavar="WORD,WORD",
                       help="words whose nearest words are printed (default: some frequent words)")
    add_settings(words, [GloVe(), SkipGram(), CBOW()], x_max="least count of a pair with full weight",
                 regularization="L2 penalty of the vectors, in the loss of each pair",
                 negative="number of random words for each word",
                 sample="words with a higher share of the text are left out at random",
                 window="largest distance of the words of a pair",
                 min_count="leave out words with a lower count")

    neighbours = commands.add_parser(
        "neighbours", help="print the words nearest to a word",
        description="Print the words nearest to each given word, by cosine.")
    neighbours.set_defaults(run=_neighbours)
    neighbours.add_argument("vectors", type=existing_file, metavar="VECTORS", help=_VECTORS)
    neighbours.add_argument("words", nargs="+", metavar="WORD")
    neighbours.add_argument("-n", type=count, default=10, metavar="N",
                            help="number of nearest words (default: 10)")
    neighbours.add_argument("--output", type=Path, metavar="FILE",
                            help="write the table to this file instead: .csv, .tsv, .json, .jsonl or .parquet")
    add_format(neighbours)

    evaluate = evaluate_commands.add_parser(
        "words", help="measure similarity and analogies of word vectors",
        description="Compare word vectors with people's judgement: Spearman's rank correlation for pairs of words, "
                    "and the share of right answers to analogies (a is to b as c is to ?).")
    evaluate.set_defaults(run=_evaluate)
    evaluate.add_argument("vectors", type=existing_file, metavar="VECTORS", help=_VECTORS)
    evaluate.add_argument("--pairs", type=existing_file, action="append", metavar="FILE",
                          help="lines of two words and a number, separated by tabs "
                               "(default: gensim's wordsim353 and simlex999)")
    evaluate.add_argument("--analogies", type=existing_file, action="append", metavar="FILE",
                          help="lines of four words (default: gensim's questions-words.txt)")
    add_format(evaluate)


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the text files, and the options that say how these are read."""
    parser.add_argument("files", nargs="*", type=existing_file, metavar="FILE",
                        help="plain text, also packed by gzip (default: Python's documentation)")
    parser.add_argument("--tokens", choices=["words", "whitespace"],
                        help="words: runs of letters in lower case, in sentences; whitespace: all that white space "
                             "separates, numbers and ids too, one sentence a line (default: words)")
    parser.add_argument("--encoding", type=_encoding, metavar="NAME",
                        help="encoding of the files, such as latin-1 (default: utf-8)")


def _encoding(text):
    try:
        return codecs.lookup(text).name
    except LookupError:
        raise argparse.ArgumentTypeError(f"{text!r} is no encoding that Python knows; such names are utf-8, latin-1, "
                                         "utf-16 and gb18030") from None


def read(options: argparse.Namespace) -> datasets.LineSentences | list[list[str]]:
    """The sentences of the text files. A model reads them anew in each pass."""
    if options.files:
        return datasets.LineSentences(options.files, options.tokens or "words", options.encoding or "utf-8")
    for name in ("tokens", "encoding"):
        if getattr(options, name):
            raise UsageError(f"{flag(name)} says how files are read; there must be at least one FILE")
    return [sentence for text in datasets.python_documentation() for sentence in sentences(text)]


def as_arguments(options: argparse.Namespace) -> list[str]:
    """The options of `add_reading` that are given, as arguments of a command."""
    given = [(flag(name), getattr(options, name)) for name in ("tokens", "encoding")]
    return [word for name, value in given if value is not None for word in (name, value)]


@contextlib.contextmanager
def saying_warnings(out):
    """Say each warning about the text once, as a message for people."""
    said = set()

    def say(message, *where):
        if str(message) not in said:
            said.add(str(message))
            out.say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = say
        yield


def _train(options):
    out, run = Output(options), Run(options, "words")
    if options.resume:
        model = _resumed(options)
    else:
        options.model = options.model or "glove"
        kind = _MODELS[options.model]
        model = kind(**given(options, kind(), _MODELS.values()))
    run.tables = place(options, model)
    source = ", ".join(path.name for path in options.files) if options.files else "Python's documentation"
    how = {"tokens": options.tokens, "encoding": options.encoding} if options.files else {}
    with closing(model), saying_warnings(out):
        with out.status("reading"):
            X = read(options)
            found = count_words(X)
            words, _ = vocabulary(found, model.min_count)
        n_words = found.total()
        out.say(f"{source}: {n_words:,} words, {len(words):,} different ones seen {model.min_count} times or more")
        if len(words) < 2:
            ids = "" if options.tokens == "whitespace" else "; --tokens whitespace takes numbers and ids as words"
            raise ValueError(f"{source}: only {len(words)} words are seen {model.min_count} times or more; there must "
                             f"be at least 2, or --min-count must be lower{ids}")
        if options.resume and model.words_ != words:
            raise ValueError(f"{options.resume}: trained on other words than this text has; --resume needs the same "
                             "text")
        if isinstance(model, GloVe):
            with out.status("counting pairs"):
                pairs = glove.cooccurrence(X, words, model.window)
            out.say(f"{pairs.nnz:,} pairs within {model.window} words of each other")
            run.train(out, model, lambda show: model.partial_fit(pairs, show, words), "pairs", **how)
        else:
            with out.status("numbering words"):
                text = model._read(X) if options.resume else model._start(X, found)
            with text:
                run.train(out, model, lambda show: model._train(text, show), "words", **how)
        write_vectors(run.path("vectors.txt"), words, model.vectors_)
        _print(out, *_neighbours_of(out, words, model.vectors_, options.neighbours and options.neighbours.split(",")))
        run.finish(out, model, _LOSSES[type(model)],
                   data={"files": list(map(str, options.files)), **how, "words": n_words, "different": len(words)})
    return 0


def _resumed(options):
    settings = [name for name in (*(SkipGram().get_params() | GloVe().get_params()), "tokens", "encoding")
                if name != "epochs" and getattr(options, name, None) is not None]
    if settings:
        raise UsageError(f"{flag(settings[0])} does not go with --resume: the checkpoint has this setting")
    model = _loaded(options.resume)
    if options.model and not isinstance(model, _MODELS[options.model]):
        raise UsageError(f"--model is {options.model}, and {options.resume} is a checkpoint of {type(model).__name__}; "
                         "without --model, the model is that of the checkpoint")
    if options.files:
        options.tokens, options.encoding = (model.optimizer_.metadata.get(name) for name in ("tokens", "encoding"))
    if options.epochs:
        for group in model.optimizer_.param_groups:     # a linear rate must reach its end in the new last epoch
            rate = group["lr"]
            if isinstance(rate, schedules.Linear):
                group["lr"] = replace(rate, steps=max(1, round(rate.steps * options.epochs / model.epochs)))
        model.epochs = options.epochs
    return model


def _neighbours_of(out, words, vectors, wanted, n=6):
    """The table of the nearest words of wanted words; by default, of some frequent words."""
    number = numbered(words)
    if wanted is None:
        wanted = [word for word in words[200:] if len(word) >= 5][:8] or words[:8]
    asked = [_spelt(word.strip(), number) for word in wanted if word.strip()]
    own = [number[word] for word in asked if word in number]
    found = iter(zip(*nearest(vectors, vectors[own], min(n, len(words) - 1), own), strict=True)) if own else None
    rows = []
    for word in asked:
        if word in number:
            rows += [(word, words[row], float(cosine)) for row, cosine in zip(*next(found), strict=True)]
        else:
            close = close_words(word, words)
            out.say(f"{word} is not among the words" + (f"; close ones are {', '.join(close)}" if close else ""))
    return ["word", "neighbour", ("cosine", ".3f")], rows


def _print(out, columns, rows):
    if out.format == "table":               # for people, a line for each word
        said = itertools.groupby(rows, key=lambda row: row[0])
        out.table(["word", "nearest"], [(word, ", ".join(f"{near} {cosine:.2f}" for _, near, cosine in some))
                                        for word, some in said])
    else:
        out.table(columns, rows)


def _spelt(word, number):
    """The word as it stands among the words: as given, in Unicode's form NFC, or in lower case; else as given."""
    forms = word, unicodedata.normalize("NFC", word), unicodedata.normalize("NFC", word).lower()
    return next((form for form in forms if form in number), word)


def _neighbours(options):
    out = Output(options)
    if options.output:
        check_table_path("--output", options.output)
    words, vectors = _vectors(options.vectors)
    columns, rows = _neighbours_of(out, words, vectors, options.words, options.n)
    if options.output:
        write_table(options.output, columns, rows)
        out.say(f"written: {options.output}")
    else:
        _print(out, columns, rows)
    return 0 if rows else 1


def _vectors(path):
    """The words and vectors of a file of vectors, or of a checkpoint of `sparseopt train words`."""
    if path.suffix != ".safetensors":
        return read_vectors(path)
    model = _loaded(path)
    return model.words_, model.vectors_


def _loaded(path):
    """The model in a checkpoint of `sparseopt train words`."""
    kinds = {kind.__name__: kind for kind in _MODELS.values()}
    stored = checkpoint.load(path).metadata.get("model_type")
    if stored not in kinds:
        raise ValueError(f"{path}: a checkpoint, but not of `sparseopt train words`")
    model = kinds[stored].load(path)
    if not hasattr(model, "words_"):
        raise ValueError(f"{path}: a checkpoint without words, so not of `sparseopt train words`")
    return model


def _evaluate(options):
    out = Output(options)
    pairs, analogies = options.pairs, options.analogies
    if not (pairs or analogies):
        if not importlib.util.find_spec("gensim"):
            raise ImportError("without --pairs and --analogies the command needs gensim's files: pip install gensim")
        from gensim.test.utils import datapath

        pairs = [Path(datapath(name)) for name in ("wordsim353.tsv", "simlex999.txt")]
        analogies = [Path(datapath("questions-words.txt"))]
    words, vectors = _vectors(options.vectors)
    rows = []
    for path in pairs or []:
        correlation, known, total = word_similarity(words, vectors, path)
        rows.append((path.name, "Spearman's correlation", correlation, known, total))
    for path in analogies or []:
        correct, known, total = word_analogies(words, vectors, path)
        rows.append((path.name, "analogies answered", correct / known if known else None, known, total))
    out.table(["file", "measure", ("value", ".3f"), ("known", ",d"), ("of", ",d")], rows)
    return 0
