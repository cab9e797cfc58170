"""`sparseopt train words`, `neighbours` and `evaluate words`."""

import importlib.util
import itertools
from dataclasses import replace
from pathlib import Path

from .. import _config, checkpoint, datasets, schedules
from ..models import GloVe, SkipGram, glove
from ..models.words import (
    nearest,
    read_vectors,
    sentences,
    vocabulary,
    word_analogies,
    word_similarity,
    write_vectors,
)
from ._common import UsageError, add_settings, count, existing_file, flag, given
from ._output import Output, add_format, check_table_path, write_table
from ._run import Run, add_run

_MODELS = {"glove": GloVe, "skipgram": SkipGram}
_WINDOW = 10            # default window of GloVe's counts, which exist before the model


def add(train_commands, commands, evaluate_commands):
    words = train_commands.add_parser(
        "words", help="train word vectors (GloVe or skip-gram) on plain text",
        description="Train word vectors on text files. Without a file, the text is the documentation that every "
                    "Python carries. GloVe counts which words stand near each other, and fits the counts. Skip-gram "
                    "reads the text itself. The command writes vectors.txt (word2vec's text format), "
                    "checkpoint.safetensors (for --resume), run.json (a summary of the run) and loss.png.")
    words.set_defaults(run=_train)
    words.add_argument("files", nargs="*", type=existing_file, metavar="FILE",
                       help="plain text, UTF-8 (default: Python's documentation)")
    words.add_argument("--model", choices=_MODELS, default="glove", help="default: glove")
    add_run(words, "words", "continue from this checkpoint on the same text up to --epochs, with its settings")
    add_format(words)
    words.add_argument("--threads", type=count, metavar="N", help="number of threads (default: all cores)")
    words.add_argument("--neighbours", metavar="WORD,WORD",
                       help="words whose nearest words are printed (default: some frequent words)")
    add_settings(words, [GloVe(), SkipGram()], x_max="least count of a pair with full weight",
                 negative="number of random words for each word",
                 sample="words with a higher share of the text are left out at random",
                 window=f"largest distance of the words of a pair; with GloVe {_WINDOW}",
                 min_count="leave out words with a lower count, with each model")

    neighbours = commands.add_parser(
        "neighbours", help="print the words nearest to a word",
        description="Print the words nearest to each given word, by cosine.")
    neighbours.set_defaults(run=_neighbours)
    neighbours.add_argument("vectors", type=existing_file, metavar="VECTORS",
                            help="a file of vectors in word2vec's text format")
    neighbours.add_argument("words", nargs="+", metavar="WORD")
    neighbours.add_argument("-n", type=count, default=10, metavar="N",
                            help="number of nearest words (default: 10)")
    neighbours.add_argument("--output", type=Path, metavar="FILE",
                            help="write the table to this file: .csv, .tsv, .json, .jsonl or .parquet")
    add_format(neighbours)

    evaluate = evaluate_commands.add_parser(
        "words", help="measure similarity and analogies of word vectors",
        description="Compare word vectors with people's judgement: Spearman's rank correlation for pairs of words, "
                    "and the share of right answers to analogies (a is to b as c is to ?).")
    evaluate.set_defaults(run=_evaluate)
    evaluate.add_argument("vectors", type=existing_file, metavar="VECTORS",
                          help="a file of vectors in word2vec's text format")
    evaluate.add_argument("--pairs", type=existing_file, action="append", metavar="FILE",
                          help="lines of two words and a number, separated by tabs "
                               "(default: gensim's wordsim353 and simlex999)")
    evaluate.add_argument("--analogies", type=existing_file, action="append", metavar="FILE",
                          help="lines of four words (default: gensim's questions-words.txt)")
    add_format(evaluate)


def _train(options):
    out, run = Output(options), Run(options, "words")
    kind = _MODELS[options.model]
    if options.resume:
        model, window = _resumed(options, kind)
    else:
        model, window = _new(options, kind)
    if options.threads:
        _config.set_num_threads(options.threads)
    source = ", ".join(path.name for path in options.files) if options.files else "Python's documentation"
    min_count = SkipGram().min_count if options.min_count is None else options.min_count

    with out.status("reading"):
        texts = datasets.read_texts(options.files) if options.files else datasets.python_documentation()
        text = [sentence for text in texts for sentence in sentences(text)]
        tokens = [token for sentence in text for token in sentence]
        words, _ = vocabulary(tokens, min_count)
    out.say(f"{source}: {len(tokens):,} words, {len(words):,} different ones seen {min_count} times or more")
    if len(words) < 2:
        raise ValueError(f"{source}: only {len(words)} words are seen {min_count} times or more; there must be at "
                         "least 2, or --min-count must be lower")
    if options.resume and (model.optimizer_.metadata["words"] if kind is GloVe else model.words_) != words:
        raise ValueError(f"{options.resume}: trained on other words than this text has; --resume needs the same "
                         "text and the same --min-count")
    if kind is GloVe:
        with out.status("counting pairs"):
            X = glove.cooccurrence(text, words, window)
        out.say(f"{X.nnz:,} pairs within {window} words of each other")
        run.train(out, model, lambda show: model.partial_fit(X, show, words), "pairs", window=window)
    else:
        run.train(out, model, lambda show: model.partial_fit(text, show), "words")
    write_vectors(run.path("vectors.txt"), words, model.vectors_)
    _print_neighbours(out, words, model.vectors_, options.neighbours and options.neighbours.split(","))
    run.finish(out, model, "mean weighted squared error" if kind is GloVe else "mean loss of a pair",
               data={"files": list(map(str, options.files)), "words": len(tokens), "different": len(words)})
    return 0


def _new(options, kind):
    """A new model, and the window of GloVe's counts."""
    settings = given(options, kind())
    foreign = [name for name in SkipGram().get_params() | GloVe().get_params()
               if getattr(options, name, None) is not None and name not in {**settings, "window": 0, "min_count": 0}]
    if foreign:
        raise UsageError(f"{flag(foreign[0])} does not go with --model {options.model}")
    window = _WINDOW if options.window is None else options.window
    return kind(**settings), window


def _resumed(options, kind):
    settings = [name for name in SkipGram().get_params() | GloVe().get_params()
                if name not in ("epochs", "min_count") and getattr(options, name, None) is not None]
    if settings:
        raise UsageError(f"{flag(settings[0])} does not go with --resume: the checkpoint has this setting")
    stored = checkpoint.load(options.resume).metadata.get("model_type")
    if stored in ("GloVe", "SkipGram") and stored != kind.__name__:
        raise ValueError(f"{options.resume}: a checkpoint of {stored}; add --model {stored.lower()}")
    model = kind.load(options.resume)
    if kind is GloVe and not {"words", "window"} <= set(model.optimizer_.metadata):
        raise ValueError(f"{options.resume}: a checkpoint of GloVe, but not of `sparseopt train words`")
    if options.epochs:
        for group in model.optimizer_.param_groups:     # a linear rate must reach its end in the new last epoch
            rate = group["lr"]
            if isinstance(rate, schedules.Linear):
                group["lr"] = replace(rate, steps=max(1, round(rate.steps * options.epochs / model.epochs)))
        model.epochs = options.epochs
    return model, model.optimizer_.metadata.get("window")


def _print_neighbours(out, words, vectors, wanted, n=6):
    """Print the nearest words of wanted words, and return the table; by default, of some frequent words."""
    number = {word: i for i, word in enumerate(words)}
    if wanted is None:
        wanted = [word for word in words[200:] if len(word) >= 5][:8] or words[:8]
    wanted = [word.strip() if word.strip() in number else word.strip().lower() for word in wanted if word.strip()]
    own = [number[word] for word in wanted if word in number]
    found = iter(zip(*nearest(vectors, vectors[own], min(n, len(words) - 1), own), strict=True)) if own else None
    rows = []
    for word in wanted:
        if word in number:
            rows += [(word, words[row], float(cosine)) for row, cosine in zip(*next(found), strict=True)]
        else:
            out.say(f"{word} is not among the words")
    columns = ["word", "neighbour", ("cosine", ".3f")]
    if out.format == "table":               # for people, a line for each word
        said = itertools.groupby(rows, key=lambda row: row[0])
        out.table(["word", "nearest"], [(word, ", ".join(f"{near} {cosine:.2f}" for _, near, cosine in some))
                                        for word, some in said])
    else:
        out.table(columns, rows)
    return columns, rows


def _neighbours(options):
    out = Output(options)
    if options.output:
        check_table_path("--output", options.output)
    words, vectors = read_vectors(options.vectors)
    columns, rows = _print_neighbours(out, words, vectors, options.words, options.n)
    if options.output:
        write_table(options.output, columns, rows)
    return 0 if rows else 1


def _evaluate(options):
    out = Output(options)
    pairs, analogies = options.pairs, options.analogies
    if not (pairs or analogies):
        if not importlib.util.find_spec("gensim"):
            raise ImportError("without --pairs and --analogies the command needs gensim's files: pip install gensim")
        from gensim.test.utils import datapath

        pairs = [Path(datapath(name)) for name in ("wordsim353.tsv", "simlex999.txt")]
        analogies = [Path(datapath("questions-words.txt"))]
    words, vectors = read_vectors(options.vectors)
    rows = []
    for path in pairs or []:
        correlation, known, total = word_similarity(words, vectors, path)
        rows.append((path.name, "Spearman's correlation", correlation, known, total))
    for path in analogies or []:
        correct, known, total = word_analogies(words, vectors, path)
        rows.append((path.name, "analogies answered", correct / max(known, 1), known, total))
    out.table(["file", "measure", ("value", ".3f"), ("known", ",d"), ("of", ",d")], rows)
    return 0
