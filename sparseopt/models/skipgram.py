"""Word vectors that predict the words around them: skip-gram with negative sampling."""

from typing import ClassVar

from ._negative_sampling import NegativeSampling


class SkipGram(NegativeSampling):
    r"""Word vectors w from skip-gram with negative sampling.

    The dot products of w are large with the context vectors c of nearby words, and small with the vectors c of random
    words.

    .. math:: \min -\sum_{t, s} \Bigl[\log \sigma(w_s \cdot c_t) + \sum_{n \sim P} \log \sigma(-w_s \cdot c_n)\Bigr],
              \qquad P(n) \propto \text{count}(n)^{3/4}

    The first sum runs over the pairs (t, s). The word t is any word of the text. The word s is in the same sentence, at
    most b places from t. For each t, b is drawn from 1 to `window`. The second sum runs over `negative` random words n
    for each pair. Before all this, a word of frequency f is removed from the text with probability 1 - min(1,
    √(sample/f) + sample/f).

    Parameters
    ----------
    dim : int
        The length of a vector, 1 or more.
    window : int
        The largest distance of a pair, 1 or more.
    negative : int
        The number of random words for each pair, 1 or more.
    min_count : int
        Words that occur fewer times are ignored. 1 or more.
    sample : float
        The frequency above which words are removed at random, 0 or more. 0 removes no words.
    optimizer : str or callable
        The name of an optimizer of this library, or a callable that takes a dict of tables and returns an optimizer.
    lr : None, float or callable
        The learning rate of an optimizer given by name. A number is the first rate: the rate falls in a straight line
        to a thousandth of this number at the end of `epochs`. None stands for the rate in `LEARNING_RATES`, chosen for
        this model. If that table has no rate, None stands for the optimizer's default.
    epochs : int
        Passes over the text in `fit`, 0 or more.
    batch_size : None or int
        Words t per step, 1 or more. At least 8,192 words t are mixed before they are cut into steps. The gradients of a
        step add up, all from the same vectors. So training can diverge if a step has the same word too often. None
        stands for 256, or for fewer words if most steps would have the most frequent word more than 3 times. Negatives
        and a window beyond 5 make steps smaller, too.
    missed : "skip" or "replay"
        How steps treat words that are not in the batch. "skip" leaves them as they are. "replay" gives the results of
        the dense optimizer: missed steps are applied before a word is read. A callable as optimizer needs "skip".
    random_state : None, int, numpy.random.Generator or RandomState
        The seed of the first values and of all draws.
    tables : None or callable
        Where the tables are: in memory for None. A callable takes a dict of `sparseopt.Rows` and a function that makes
        the optimizer, and returns a store: `functools.partial(so.DiskTables, "folder")` for a disk, or
        `functools.partial(so.sharded.Tables, shards=4, workers=2)` for shards. A store does not grow.

    Attributes
    ----------
    optimizer_ : Optimizer
        Holds the tables: `optimizer_.params` has "words" and "contexts" (n_words, dim).
    store_ : None or Store
        What `tables` returned. The store stays open for more training, until `store_.close()`. `optimizer_`
        is then a copy of all tables in memory, made anew after each step, and changes of the copy are lost.
    vectors_ : array, shape (n_words, dim)
        The vectors w.
    words_ : list of str
        The words, the most frequent first. Words that `partial_fit` adds come after these.
    counts_ : array of int, shape (n_words,)
        How often each word occurs in the text of `fit`. `partial_fit` with grow=True adds the counts of its text.
    loss_curve_ : list of float
        The mean loss of a pair in each epoch. The loss is measured before the step on its batch.

    Raises
    ------
    TypeError, ValueError
        By `fit` and `partial_fit`, if X or a parameter is not as described above.

    Examples
    --------
    >>> from sparseopt import datasets
    >>> from sparseopt.models import SkipGram
    >>> from sparseopt.models.words import sentences
    >>> text = [sentence for page in datasets.python_documentation()[:100] for sentence in sentences(page)]
    >>> model = SkipGram(dim=16, epochs=3).fit(text)
    >>> model.loss_curve_[-1] < model.loss_curve_[0]
    True
    >>> "class" in model, model["class"].shape
    (True, (16,))

    References
    ----------
    Mikolov et al. 2013, "Distributed Representations of Words and Phrases and their Compositionality", eq. 4.
    """

    LEARNING_RATES: ClassVar = {"SGD": 0.05, "Adagrad": 0.1, "RowwiseAdagrad": 0.05}

    _mean = False
