"""Ranking metrics against short loops, and against the package `implicit` if it is installed."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal

from sparseopt import evaluation
from sparseopt.datasets import interactions
from sparseopt.evaluation import (
    TimeSplit,
    evaluate,
    ranking_metrics,
    train_test_split_at_random,
    train_test_split_by_time,
)
from sparseopt.models import ImplicitFactorization


class Ranked:
    """A model that recommends by given scores."""

    def __init__(self, scores):
        self.scores = scores

    def recommend(self, users, n, seen):
        scores = np.where(seen[users].toarray() != 0, -np.inf, self.scores[users])
        items = np.argsort(-scores, axis=1, kind="stable")[:, :n]
        return items, np.take_along_axis(scores, items, 1)


def drawn(seed, n_users=60, n_items=40):
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, size=(n_users, n_items), p=(0.8, 0.12, 0.08))
    kind[:5][kind[:5] == 2] = 0                     # users without a test
    train, test = sp.csr_array((kind == 1).astype(np.float32)), sp.csr_array((kind == 2).astype(np.float32))
    return rng.standard_normal((n_users, n_items)), train, test


def by_loops(recommended, test):
    """The definitions as loops over users, ranks and pairs of items."""
    relevant = possible = 0
    recall, ndcg, average_precision, auc = [], [], [], []
    n_items = test.shape[1]
    for items, wanted in zip(recommended, test.toarray(), strict=True):
        wanted = set(np.flatnonzero(wanted))
        if not wanted:
            continue
        hits = [item in wanted for item in items]
        m = min(len(items), len(wanted))
        relevant += sum(hits)
        possible += m
        recall.append(sum(hits) / len(wanted))
        ndcg.append(sum(hit / math.log2(rank + 2) for rank, hit in enumerate(hits))
                    / sum(1 / math.log2(rank + 2) for rank in range(m)))
        average_precision.append(sum(sum(hits[:rank + 1]) / (rank + 1) for rank, hit in enumerate(hits) if hit) / m)
        place = {item: rank for rank, item in enumerate(items)}
        right = 0.0
        for good in wanted:
            for bad in set(range(n_items)) - wanted:
                if good in place or bad in place:
                    right += place.get(good, n_items) < place.get(bad, n_items)
                else:
                    right += 0.5
        auc.append(right / (len(wanted) * (n_items - len(wanted))))
    return {"precision": relevant / possible, "recall": np.mean(recall), "ndcg": np.mean(ndcg),
            "map": np.mean(average_precision), "auc": np.mean(auc)}


@pytest.mark.parametrize("k", [1, 3, 10])
def test_metrics_are_those_of_the_definitions(k):
    scores, train, test = drawn(k)
    items, _ = Ranked(scores).recommend(np.arange(60), k, train)
    assert ranking_metrics(items, test) == pytest.approx(by_loops(items, test), abs=1e-12)
    assert evaluate(Ranked(scores), train, test, k) == pytest.approx(by_loops(items, test), abs=1e-12)


@pytest.mark.parametrize("k", [1, 10])
def test_metrics_are_those_of_implicit(k):
    implicit = pytest.importorskip("implicit.evaluation")
    scores, train, test = drawn(k + 100)

    class Model:
        def recommend(self, users, user_items, N, **_):
            items, scored = Ranked(scores).recommend(np.asarray(users), N, train)
            return items.astype(np.int32), scored.astype(np.float32)

    theirs = implicit.ranking_metrics_at_k(Model(), sp.csr_matrix(train), sp.csr_matrix(test), K=k, show_progress=False)
    ours = evaluate(Ranked(scores), train, test, k)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-12)


def test_an_item_that_is_none_is_no_hit():
    test = sp.csr_array([[1, 0, 0, 0]])
    assert ranking_metrics([[-1, 0]], test) == ranking_metrics([[2, 0]], test)


def test_the_last_samples_of_each_user_are_held_out():
    rng = np.random.default_rng(0)
    users, times = rng.integers(20, size=500), rng.integers(50, size=500)
    train, test = train_test_split_by_time(users, times, 0.2)
    assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(500))
    for user in range(20):
        theirs = np.flatnonzero(users == user)
        n = len(theirs) // 5
        last = theirs[np.argsort(times[theirs], kind="stable")][len(theirs) - n:]
        assert_array_equal(np.sort(last), test[users[test] == user])


def test_a_pair_that_comes_again_is_in_training_or_held_out_and_never_in_both():
    rng = np.random.default_rng(0)
    users, items, times = rng.integers(20, size=900), rng.integers(30, size=900), rng.integers(50, size=900)
    for train, test in (train_test_split_by_time(users, times, 0.2, items),
                        train_test_split_at_random(users, 0.2, items, random_state=1)):
        assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(900))
        parts = [set(zip(users[part].tolist(), items[part].tolist(), strict=True)) for part in (train, test)]
        assert not parts[0] & parts[1]
        for user in range(20):
            assert sum(one == user for one, _ in parts[1]) == len(set(items[users == user].tolist())) // 5
    train, test = train_test_split_by_time(users, times, 0.2, items)
    for user in range(20):                      # of a user, no pair in training has a later sample than one held out
        last = {item: times[(users == user) & (items == item)].max() for item in set(items[users == user].tolist())}
        held_out = {item: last.pop(item) for item in set(items[test][users[test] == user].tolist())}
        assert max(last.values()) <= min(held_out.values())


def test_a_random_split_holds_out_a_share_of_each_user_and_another_one_for_another_seed():
    users = np.repeat(np.arange(10), 20)
    splits = [train_test_split_at_random(users, 0.25, random_state=seed) for seed in (0, 0, 1)]
    for train, test in splits:
        assert_array_equal(np.bincount(users[test]), np.full(10, 5))
        assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(200))
    assert_array_equal(splits[0][1], splits[1][1])
    assert (splits[0][1] != splits[2][1]).any()


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda t: ranking_metrics([[0], [1]], t), ValueError, r"recommended has shape \(2, 1\); .* must be \(1, k\)"),
    (lambda t: ranking_metrics([[0.5]], t), TypeError, "recommended has dtype float64"),
    (lambda t: ranking_metrics([[4]], t), ValueError, "items from 4 to 4; items must be from 0 to 3, or -1"),
    (lambda t: ranking_metrics([[0]], sp.csr_array((1, 4))), ValueError, "test has no stored entries"),
    (lambda t: ranking_metrics([[0]], t.toarray()), TypeError, "test is a ndarray"),
    (lambda t: evaluate(Ranked(np.eye(4)), t, t, 5), ValueError, "k is 5; it must be an integer from 1 to 4"),
    (lambda t: evaluate(Ranked(np.eye(4)), sp.csr_array((2, 4)), t), ValueError, r"train has shape \(2, 4\)"),
    (lambda t: train_test_split_by_time([0, 1], [1]), ValueError, r"users has shape \(2,\) and times \(1,\); both"),
    (lambda t: train_test_split_by_time([0, 1], [1, np.nan]), ValueError, "NaN at position 1"),
    (lambda t: train_test_split_by_time([0, 1], [1, 2], 1.0), ValueError, "test_size is 1.0"),
    (lambda t: train_test_split_at_random([0, 1], 0), ValueError, "test_size is 0;"),
    (lambda t: train_test_split_by_time([0, 1], [1, 2], items=[1]), ValueError, r"and items \(1,\); both"),
])
def test_what_is_wrong_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(sp.csr_array([[1, 0, 0, 0]]))


def test_a_matrix_handed_in_is_left_as_it_was():
    test = sp.csr_array((np.ones(3), np.array([2, 0, 2]), np.array([0, 3])), shape=(1, 4))       # unsorted, repeated
    evaluation.ranking_metrics([[0, 1]], test)
    assert_array_equal(test.indices, [2, 0, 2])


def some_ratings(seed=0, n=900):
    rng = np.random.default_rng(seed)
    return interactions({"u": rng.integers(20, size=n), "i": rng.integers(30, size=n), "t": rng.permutation(n)},
                        "u", "i", time="t")


def test_one_split_by_time_is_that_of_the_function():
    ratings = some_ratings()
    (train, test), = TimeSplit(test_size=0.3).split(ratings)
    expected = train_test_split_by_time(ratings.users, ratings.times, 0.3, ratings.items)
    assert_array_equal(train, expected[0])
    assert_array_equal(test, expected[1])


@pytest.mark.parametrize("test_size", [0.1, 2])
def test_each_split_trains_on_what_comes_before_its_test(test_size):
    ratings = some_ratings()
    splits = list(TimeSplit(n_splits=3, test_size=test_size).split(ratings))
    assert TimeSplit(3, test_size).get_n_splits(ratings) == len(splits) == 3
    for user in range(20):
        theirs = np.flatnonzero(ratings.users == user)
        theirs = theirs[np.argsort(ratings.times[theirs], kind="stable")].tolist()
        held_out = int(len(theirs) * 0.1 + 1e-9) if test_size == 0.1 else 2
        for after, (train, test) in zip((2, 1, 0), splits, strict=True):
            end = len(theirs) - after * held_out
            assert set(test.tolist()) & set(theirs) == set(theirs[end - held_out:end])
            assert set(train.tolist()) & set(theirs) == set(theirs[:end - held_out])
            assert (np.diff(train) > 0).all()


def test_users_with_too_few_pairs_are_in_training_alone():
    ratings = interactions({"u": [1, 1, 1, 2, 2], "i": [1, 2, 3, 1, 2], "t": [5, 4, 3, 2, 1]}, "u", "i", time="t")
    for (train, test), expected in zip(TimeSplit(2, 1).split(ratings), ([1], [0]), strict=True):
        assert test.tolist() == expected
        assert {3, 4} <= set(train.tolist())


def test_a_pair_that_comes_again_is_on_one_side_of_a_split():
    once = some_ratings()
    again = once[np.concatenate([np.arange(len(once)), np.arange(100)])]
    for train, test in TimeSplit(2, 0.2).split(again):
        keys = again.users * 1000 + again.items
        assert not set(keys[train]) & set(keys[test])


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: TimeSplit(0), ValueError, "n_splits is 0; it must be an integer of at least 1"),
    (lambda: TimeSplit(2, 0.5), ValueError, "test_size is 0.5 and n_splits is 2; .* a share above 0 and below 0.5"),
    (lambda: TimeSplit(1, 0), ValueError, "test_size is 0 and"),
    (lambda: TimeSplit(1, True), ValueError, "test_size is True and"),
    (lambda: next(TimeSplit().split(np.ones(3))), TypeError, "X is a ndarray; it must be Ratings"),
    (lambda: next(TimeSplit().split(interactions({"u": [1], "i": [1]}, "u", "i"))), ValueError, "X has no times"),
    (lambda: next(TimeSplit(1, 9).split(some_ratings(n=30))), ValueError, r"no user has enough pairs for TimeSplit\("),
])
def test_a_split_by_time_that_cannot_be_made_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_recommender_that_ranks_in_a_way_of_its_own_is_evaluated_by_that_way():
    class Reversed(ImplicitFactorization):
        def recommend(self, users, n=10, seen=None):
            items, scores = super().recommend(users, len(self.item_ids_), seen)
            return items[:, ::-1][:, :n], scores[:, ::-1][:, :n]

    ratings = some_ratings()
    (train, test), = TimeSplit().split(ratings)
    model = Reversed(dim=4, epochs=3).fit(ratings[train])
    numbers = {item: number for number, item in enumerate(ratings.item_ids.tolist())}
    items, scores = model.recommend(ratings.user_ids, 5, ratings[train])
    expected = np.where(np.isneginf(scores), -1, np.vectorize(numbers.get)(items, -1))
    assert evaluate(model, ratings[train], ratings[test], 5) == ranking_metrics(expected, ratings.matrix(test))
    ids = replace(ratings, item_ids=ratings.item_ids - 1)           # the id -1 is an item, and none is none
    model = ImplicitFactorization(dim=4, epochs=3).fit(ids[train])
    plain = ImplicitFactorization(dim=4, epochs=3).fit(ratings.matrix(train))
    assert ids.item_ids[0] == -1
    expected = evaluate(plain, ratings.matrix(train), ratings.matrix(test), 30)
    assert evaluate(model, ids[train], ids[test], 30) == expected
