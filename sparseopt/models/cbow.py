"""Word vectors that the words around them predict: CBOW with negative sampling."""

from typing import ClassVar

from ._negative_sampling import NegativeSampling


class CBOW(NegativeSampling):
    r"""Word vectors w from continuous bags of words (CBOW) with negative sampling.

    The mean of the vectors w around a word has a large dot product with the context vector c of this word, and small
    ones with the vectors c of random words.

    .. math:: \min -\sum_t \Bigl[\log \sigma(h_t \cdot c_t) + \sum_{n \sim P} \log \sigma(-h_t \cdot c_n)\Bigr],
              \qquad h_t = \frac{1}{|S_t|} \sum_{s \in S_t} w_s,
              \qquad P(n) \propto \text{count}(n)^{3/4}

    The first sum runs over the words t of the text. The words S_t are in the same sentence, at most b places from t.
    For each t, b is drawn from 1 to `window`. The second sum runs over `negative` random words n for each t. Before all
    this, a word of frequency f is removed from the text with probability 1 - min(1, √(sample/f) + sample/f).

    CBOW is faster than `SkipGram`, which takes a term for each pair (t, s). If S_t has k words, each word gets its
    share, 1/k, of the gradient of h_t. In word2vec and gensim, each word gets all of it. So rates here are larger.

    Parameters
    ----------
    dim, window, negative, min_count, sample, optimizer, lr, epochs, batch_size, missed, random_state, tables
        As in `SkipGram`.

    Attributes
    ----------
    optimizer_, store_, vectors_, words_, counts_
        As in `SkipGram`.
    loss_curve_ : list of float
        The mean loss of a word t in each epoch. The loss is measured before the step on its batch.

    Raises
    ------
    TypeError, ValueError
        By `fit` and `partial_fit`, if X or a parameter is not as described above.

    Examples
    --------
    >>> from sparseopt import datasets
    >>> from sparseopt.models import CBOW
    >>> from sparseopt.models.words import sentences
    >>> text = [sentence for page in datasets.python_documentation()[:100] for sentence in sentences(page)]
    >>> model = CBOW(dim=16, epochs=3).fit(text)
    >>> model.loss_curve_[-1] < model.loss_curve_[0]
    True
    >>> "class" in model, model["class"].shape
    (True, (16,))

    References
    ----------
    Mikolov et al. 2013, "Efficient Estimation of Word Representations in Vector Space", section 3.1. İrsoy, Benton and
    Stratos 2021, "Corrected CBOW Performs as well as Skip-gram".
    """

    LEARNING_RATES: ClassVar = {"SGD": 0.2, "Adagrad": 0.1, "RowwiseAdagrad": 0.05}

    _mean = True
