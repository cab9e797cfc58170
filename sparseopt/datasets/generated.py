"""A click log drawn from a known model: the best log-loss that any model can reach is known."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.special import expit

from .. import embedding
from .._text import shown


class ClickLog:
    r"""A click log drawn from a known model, so that the best log-loss that any model can reach is known.

    A row has one value for each field, such as a site, an advertisement or a city. Each value is drawn from a Zipf
    distribution and hashed to a feature. A click is drawn with the probability

    .. math:: p = \frac{1}{1 + e^{-z}}, \qquad z = b + \sum_{j} w_j + \sum_{j < k} \langle v_j, v_k \rangle

    The sums run over the features j and k of the row. Most weights w are 0. The second sum runs over the pairs of the
    first `crossed` fields, and is 0 with ``dim=0``.

    Parameters
    ----------
    n_features : int
        Number of columns of X. The values of all fields are hashed to these columns; some values collide.
    fields : int
        Number of values in a row. The smallest field has 10 different values and the largest has 100,000.
    zipf : float
        The value of rank r is drawn with a probability proportional to r^-zipf.
    density : float
        Share of features whose weight w is not 0.
    scale : float
        Standard deviation of the sum of the weights of a row.
    click_rate : float
        Approximate mean of p; b is set to reach this mean.
    dim : int
        Length of the vectors v; 0 is a model without pairs.
    crossed : int
        Number of fields whose values form pairs.
    seed : int
        Seed of the model. `rows` takes a seed of its own.

    Raises
    ------
    ValueError
        If a parameter is outside the range that the message names.

    Attributes
    ----------
    weights : array of floats, shape (n_features,)
        The weights w.
    factors : array of floats, shape (n_features, dim)
        The vectors v.
    intercept : float
        The intercept b.

    Examples
    --------
    >>> from sparseopt import datasets
    >>> log = datasets.ClickLog(n_features=1000, fields=5)
    >>> for X, y, p in log.rows(20_000, chunk=10_000, seed=1):
    ...     print(X.shape, X.nnz, abs(y.mean() - p.mean()) < 0.02)
    (10000, 1000) 50000 True
    (10000, 1000) 50000 True
    """

    def __init__(self, n_features: int = 2**20, fields: int = 30, zipf: float = 1.5, density: float = 0.2,
                 scale: float = 1.2, click_rate: float = 0.2, dim: int = 0, crossed: int = 6, seed: int = 0) -> None:
        integers = {"n_features": (n_features, 1), "fields": (fields, 1), "dim": (dim, 0), "crossed": (crossed, 2)}
        for name, (value, least) in integers.items():
            if not value >= least or value != int(value):
                raise ValueError(f"{name} is {shown(value)}; it must be an integer of at least {least}")
        if not 0 < density <= 1:
            raise ValueError(f"density is {shown(density)}; it must be above 0 and at most 1")
        if not 0 < click_rate < 1:
            raise ValueError(f"click_rate is {shown(click_rate)}; it must be above 0 and below 1")
        for name, value in (("zipf", zipf), ("scale", scale)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {shown(value)}; it must be finite and 0 or more")
        if dim and crossed > fields:
            raise ValueError(f"crossed is {crossed}; it must be at most {fields}, the number of fields")
        rng = np.random.default_rng(seed)
        self.seed = seed
        self.crossed = crossed
        sizes = np.geomspace(10, 100_000, fields).astype(int)
        self._columns = [rng.integers(n_features, size=size, dtype=np.int32) for size in sizes]
        self._values = [embedding.Alias(np.arange(1, size + 1) ** -float(zipf)) for size in sizes]
        self.weights: npt.NDArray[np.float64] = rng.standard_normal(n_features) * scale / math.sqrt(fields * density)
        self.weights[rng.random(n_features) >= density] = 0
        pairs = crossed * (crossed - 1) / 2         # the sum over pairs gets a standard deviation of 1
        self.factors: npt.NDArray[np.float64] = rng.standard_normal((n_features, dim)) * (pairs * max(dim, 1)) ** -0.25
        self.intercept: float = 0.0
        scores = self._scores(self._draw(20_000, rng))
        low, high = -50.0, 50.0
        for _ in range(50):
            self.intercept = (low + high) / 2
            too_low = expit(scores + self.intercept).mean() < click_rate
            low, high = (self.intercept, high) if too_low else (low, self.intercept)

    def rows(self, n_rows: int, chunk: int = 100_000,
             seed: int = 1) -> Iterator[tuple[sp.csr_array, np.ndarray, np.ndarray]]:
        """Yield rows of the log, chunk by chunk: (X, y, p).

        Parameters
        ----------
        n_rows : int
            Number of rows in all chunks together.
        chunk : int
            Number of rows in a chunk. Another number draws other rows.
        seed : int
            Seed of the rows. The same seed draws the same rows, whenever and wherever they are drawn.

        Yields
        ------
        X : scipy.sparse.csr_array of float32, shape (chunk, n_features)
            All entries are 1. Two values of a row that collide are two entries of the same column.
        y : array of int8, shape (chunk,)
            1 for a click, else 0.
        p : array of float64, shape (chunk,)
            The probability of a click.

        Raises
        ------
        ValueError
            If chunk is below 1, or a chunk would have 2**31 values or more.
        """
        if not 1 <= chunk * len(self._columns) < 2**31:
            raise ValueError(f"chunk is {shown(chunk)}; it must be at least 1, and a chunk must have fewer than "
                             "2**31 values")
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(1, seed)))
        for start in range(0, n_rows, chunk):
            columns = self._draw(min(chunk, n_rows - start), rng)
            p = expit(self._scores(columns) + self.intercept)
            yield self._ones(columns), (rng.random(len(p)) < p).astype(np.int8), p

    def _draw(self, n, rng):
        fields = zip(self._columns, self._values, strict=True)
        return np.column_stack([columns[values.draw(n, rng)] for columns, values in fields])

    def _ones(self, columns):
        n, fields = columns.shape
        bounds = np.arange(0, columns.size + 1, fields, dtype=np.int32)
        return sp.csr_array((np.ones(columns.size, np.float32), columns.ravel(), bounds), shape=(n, len(self.weights)))

    def _scores(self, columns):
        scores = self.weights[columns].sum(axis=1)
        if self.factors.shape[1]:
            vectors = self.factors[columns[:, :self.crossed]]
            scores += ((vectors.sum(axis=1) ** 2).sum(axis=1) - (vectors**2).sum(axis=(1, 2))) / 2
        return scores
