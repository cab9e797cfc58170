"""gensim's Word2Vec, and SkipGram and CBOW, on the same sentences: time, and agreement with people's judgement.

    python bench/words.py FILE... [--models skipgram,cbow] [--rates 0.025,0.05] [--epochs 5] [--gensim 5] [--seeds 3]
        [--threads 1,2] [--optimizers SGD,Adagrad] [--share 1]

`--rates` are gensim's first rates. SkipGram takes the same, and CBOW four times these, because gensim gives each word
the whole gradient of the mean. "default" stands for the default rate of each library. `--share 10` takes every tenth
thousand of sentences.
"""

import argparse
import statistics
import time

from gensim.models import Word2Vec
from gensim.test.utils import datapath

import sparseopt as so
from sparseopt import datasets
from sparseopt.models import CBOW, SkipGram
from sparseopt.models.words import sentences, word_analogies, word_similarity

SETTINGS = {"window": 5, "negative": 5, "min_count": 5, "sample": 1e-3}
MODELS = {"skipgram": (SkipGram, 1), "cbow": (CBOW, 4)}


def gensim(model, rate, threads):
    def train(text, epochs, seed):
        trained = Word2Vec(text, sg=int(model == "skipgram"), vector_size=100, epochs=epochs, seed=seed,
                           workers=threads, alpha=0.025 if rate is None else rate, **SETTINGS)
        return trained.wv.index_to_key, trained.wv.vectors
    return train


def ours(model, optimizer, rate, threads):
    kind, times = MODELS[model]

    def train(text, epochs, seed):
        so.set_num_threads(threads)
        trained = kind(dim=100, epochs=epochs, random_state=seed, optimizer=optimizer,
                       lr=None if rate is None else rate * times, **SETTINGS).fit(text)
        return trained.words_, trained.vectors_
    return train


def cases(options):
    for model in options.models:
        for rate in options.rates:
            rate = None if rate == "default" else float(rate)
            for threads in map(int, options.threads):
                for epochs in map(int, options.gensim):
                    yield f"gensim {model}", rate, threads, epochs, gensim(model, rate, threads)
                for optimizer in options.optimizers:
                    for epochs in map(int, options.epochs):
                        yield (f"{MODELS[model][0].__name__} {optimizer}", rate, threads, epochs,
                               ours(model, optimizer, rate, threads))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+")
    for name, default in (("models", "skipgram,cbow"), ("rates", "0.025,0.05"), ("epochs", "5"), ("gensim", "5"),
                          ("threads", "1,2"), ("optimizers", "SGD")):
        parser.add_argument(f"--{name}", default=default, type=lambda text: text.split(","))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=int, default=1)
    options = parser.parse_args()
    text = [sentence for page in datasets.read_texts(options.files) for sentence in sentences(page)]
    text = [sentence for start in range(0, len(text), 1000 * options.share) for sentence in text[start:start + 1000]]
    n_words = sum(map(len, text))
    print(f"{n_words:,} words in {len(text):,} sentences; mean over {options.seeds} seed(s) ± standard deviation")
    print(f"{'':>16}{'rate':>8}{'threads':>8}{'epochs':>7}{'seconds':>8}{'CPU s':>7}{'words/s':>11}"
          f"{'wordsim353':>14}{'simlex999':>14}{'analogies':>14}")
    for name, rate, threads, epochs, train in cases(options):
        times, cpu, scores = [], [], []
        for seed in range(1, options.seeds + 1):
            begin, used = time.perf_counter(), time.process_time()
            words, vectors = train(text, epochs, seed)
            times.append(time.perf_counter() - begin)
            cpu.append(time.process_time() - used)
            correct, known, _ = word_analogies(words, vectors, datapath("questions-words.txt"))
            scores.append([word_similarity(words, vectors, datapath(file))[0] for file in
                           ("wordsim353.tsv", "simlex999.txt")] + [correct / max(known, 1)])
        cells = [f"{statistics.mean(column):.3f}" + (f" ± {statistics.pstdev(column):.3f}" if len(column) > 1 else "")
                 for column in zip(*scores, strict=True)]
        seconds = statistics.mean(times)
        print(f"{name:>16}{rate or 'default':>8}{threads:>8}{epochs:>7}{seconds:>8.1f}{statistics.mean(cpu):>7.1f}"
              f"{n_words * epochs / seconds:>11,.0f}{cells[0]:>14}{cells[1]:>14}{cells[2]:>14}", flush=True)


if __name__ == "__main__":
    main()
