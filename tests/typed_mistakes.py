"""Mistakes that type checkers find. mypy and pyright must report the lines with the comment "mistake", and no others.

`python tests/typecheck.py` checks it. This program is never run.
"""

import numpy as np

import sparseopt as so
from sparseopt import datasets, embedding, evaluation, schedules, training
from sparseopt.models import GloVe, LogisticRegression, MatrixFactorization

table, integers, halves = so.zeros((3, 2)), np.zeros((3, 2), np.int64), np.zeros(3, np.float16)
so.Adam(table, lr="0.1")                                        # mistake
so.Adam(table, lr=lambda: 0.1)                                  # mistake
so.Adam(table, betas=0.9)                                       # mistake
so.Adam(table, betas=(0.9, 0.99, 0.999))                        # mistake
so.Adam(table, learning_rate=0.1)                               # mistake
so.Adam(table, missed="catch up")                               # mistake
so.Adam(table, step_count="batch")                              # mistake
so.Adam(integers)                                               # mistake
so.Adam({"users": halves})                                      # mistake
so.Adam({1: table})                                             # mistake
opt = so.Adam({"users": table}, lr=schedules.Linear(0.1, end=0.0, steps=10))
opt.step({"users": [[1.0, 1.0]]})                               # mistake
opt.step(0.5)                                                   # mistake
opt.steps = 0                                                   # mistake
opt.params["users"] = table                                     # mistake
opt.nonfinite = "ignore"                                        # mistake
opt.run()                                                       # mistake
so.MatmulGradient(np.ones((2, 3)), np.ones((2, 2)))             # mistake
so.RowGradient([1])                                             # mistake
schedules.Cosine(0.1)                                           # mistake
embedding.bags([1], n_rows=3, mode="max")                       # mistake
embedding.gather(table, [1], opt=training.Accumulator(opt, 2))  # mistake
so.load(3.0)                                                    # mistake
training.ReduceLROnPlateau(opt, mode="least")                   # mistake
training.EarlyStopping(score=lambda: 0.0)                       # mistake
GloVe(dim="100")                                                # mistake
GloVe().fit([["a", "b"]], callback=lambda: None)                # mistake
LogisticRegression(missed="dense")                              # mistake
MatrixFactorization().fit([[5.0, 0.0]])                         # mistake
datasets.ClickReader(numbers_as="square")                       # mistake
evaluation.TimeSplit(test_size="a fifth")                       # mistake
evaluation.log_loss([1, 0])                                     # mistake
