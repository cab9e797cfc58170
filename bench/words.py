"""gensim's Word2Vec and SkipGram on the same sentences: time, words per second, and agreement with people's judgement.

    python bench/words.py FILE... [--epochs 5,8,20] [--gensim 5,20] [--seeds 3] [--threads 1,2]
        [--optimizers SGD,Adagrad]
"""

import argparse
import statistics
import time

from gensim.models import Word2Vec
from gensim.test.utils import datapath

import sparseopt as so
from sparseopt import datasets
from sparseopt.models import SkipGram
from sparseopt.models.words import sentences, word_similarity

SETTINGS = {"window": 5, "negative": 5, "min_count": 5, "sample": 1e-3}


def gensim(text, epochs, seed, threads):
    model = Word2Vec(text, sg=1, vector_size=100, epochs=epochs, seed=seed, workers=threads, **SETTINGS)
    return model.wv.index_to_key, model.wv.vectors


def ours(optimizer):
    def train(text, epochs, seed, threads):
        so.set_num_threads(threads)
        model = SkipGram(dim=100, epochs=epochs, random_state=seed, optimizer=optimizer, **SETTINGS).fit(text)
        return model.words_, model.vectors_
    return train


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+")
    for name, default in (("epochs", "5,8,20"), ("gensim", "5,20"), ("threads", "1,2"), ("optimizers", "SGD")):
        parser.add_argument(f"--{name}", default=default, type=lambda text: text.split(","))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    text = [sentence for page in datasets.read_texts(options.files) for sentence in sentences(page)]
    n_words = sum(map(len, text))
    print(f"{n_words:,} words in {len(text):,} sentences; mean over {options.seeds} seeds ± standard deviation")
    print(f"{'':>20}{'threads':>9}{'epochs':>8}{'seconds':>9}{'words/s':>11}{'wordsim353':>16}{'simlex999':>16}")
    cases = [("gensim", gensim, options.gensim)]
    cases += [(f"SkipGram {name}", ours(name), options.epochs) for name in options.optimizers]
    for name, train, all_epochs in cases:
        for threads in map(int, options.threads):
            for epochs in map(int, all_epochs):
                times, scores = [], []
                for seed in range(1, options.seeds + 1):
                    begin = time.perf_counter()
                    words, vectors = train(text, epochs, seed, threads)
                    times.append(time.perf_counter() - begin)
                    scores.append([word_similarity(words, vectors, datapath(file))[0] for file in
                                   ("wordsim353.tsv", "simlex999.txt")])
                cells = [f"{statistics.mean(column):.3f} ± {statistics.pstdev(column):.3f}"
                         for column in zip(*scores, strict=True)]
                seconds = statistics.mean(times)
                print(f"{name:>20}{threads:>9}{epochs:>8}{seconds:>9.1f}{n_words * epochs / seconds:>11,.0f}"
                      f"{cells[0]:>16}{cells[1]:>16}", flush=True)


if __name__ == "__main__":
    main()
