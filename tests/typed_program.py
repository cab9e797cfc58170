"""A program that uses every public name, as users write it. Type checkers must find nothing in it, and it must run.

`python tests/typecheck.py` checks it. It has no `Any` and no comment that silences a checker.
"""

import functools
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

import sparseopt as so
from sparseopt import checkpoint, datasets, evaluation, optimizers
from sparseopt.embedding import Alias, bags, dots, gather, matmul
from sparseopt.gradients import Gradient, MatmulGradient, RowGradient
from sparseopt.losses import (
    bpr,
    factorization_machine,
    linear,
    softmax,
    square,
    square_gramian,
    squared_error,
    warp,
)
from sparseopt.losses import glove as glove_loss
from sparseopt.models import (
    CBOW,
    FactorizationMachineClassifier,
    FactorizationMachineRegressor,
    GloVe,
    ImplicitFactorization,
    LogisticRegression,
    MatrixFactorization,
    Model,
    Progress,
    SkipGram,
    glove,
    words,
)
from sparseopt.schedules import Chain, Constant, Cosine, CosineRestarts, Exponential, InverseTime, Linear, Step
from sparseopt.training import Accumulator, EarlyStopping, ReduceLROnPlateau

TEXT = [["a", "rose", "is", "a", "rose"], ["a", "lily", "is", "not", "a", "rose"]] * 50


def half_as_fast(step: int) -> float:
    return 0.1 / (2 + step)


def every_optimizer(table: npt.NDArray[np.float32]) -> list[so.Optimizer]:
    """Each with a rate of another kind: a number, a schedule, a function."""
    return [
        so.SGD(table, lr=0.1, momentum=0.9, nesterov=True, missed="replay"),
        so.Adagrad(table, lr=Constant(0.1), lr_decay=0.01, initial_accumulator_value=0.1, eps=1e-10),
        so.RowwiseAdagrad(table, lr=Step(0.1, every=10), clip_value=1.0),
        so.Adadelta(table, lr=Exponential(0.1, gamma=0.99), rho=0.9, maximize=True),
        so.RMSprop(table, lr=InverseTime(0.1, decay=0.01), alpha=0.9, centered=True, max_row_norm=1.0),
        so.Adam(table, lr=Linear(0.1, end=0.0, steps=100), betas=(0.9, 0.99), amsgrad=True, step_count="global"),
        so.AdamW(table, lr=Cosine(0.1, steps=100, warmup=10), weight_decay=0.01, num_threads=1),
        so.RowwiseAdam(table, lr=CosineRestarts(0.1, steps=10, growth=2), max_grad_norm=1.0),
        so.Adamax(table, lr=Chain([(Linear(0.0, 0.1, steps=5), 5), Constant(0.1)]), nonfinite="skip"),
        so.NAdam(table, lr=lambda step: 0.1 / (1 + step), momentum_decay=4e-3, decoupled_weight_decay=True),
        so.Ftrl(table, lr=half_as_fast, beta=1.0, l1=0.1, l2=0.1),
        so.Lion(table, betas=(0.9, 0.99), max_norm=None),
    ]


def every_loss(table: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> float:
    rows = [0, 1, 1]
    rated, (users, items, user_bias, item_bias) = squared_error(table, table, bias, bias, rows, rows, [1, 2.5, 4],
                                                                weights=None, regularization=0.1)
    counted, gradients = glove_loss(table, table, bias, bias, rows, rows, np.array([1, 2, 7]), x_max=10, alpha=0.5)
    opt = so.Adagrad([table, bias])
    opt.step([users, user_bias])
    print(items.rows, item_bias.values, len(gradients))
    return rated + counted


def every_gradient(n_rows: int, dim: int) -> list[Gradient]:
    """Gradients of one table, in all forms."""
    rows, values = np.array([1, 3, 1]), np.ones((3, dim), np.float32)
    X = bags([1, 3], n_rows=n_rows)
    assert X.format == "csr"
    product = MatmulGradient(X, values[:2])
    assert product.X.shape == (2, n_rows)
    assert product.dY.dtype == np.float32
    sparse = sp.csr_array((n_rows, dim), dtype=np.float32)
    return [
        RowGradient(rows, values), so.RowGradient([1], [[1.0] * dim]), product, so.MatmulGradient(X, values[:2] * 2),
        sparse, sparse.tocoo(), sp.csc_matrix((n_rows, dim)), np.zeros((n_rows, dim)),
    ]


def own_steps() -> None:
    table = np.zeros((10, 4), np.float32)
    for opt in every_optimizer(table):
        for gradient in every_gradient(*table.shape):
            opt.step(gradient)
        settings: tuple[str, str, str, float | None, int | None] = (
            opt.step_count, opt.missed, opt.nonfinite, opt.max_grad_norm, opt.num_threads)
        print(type(opt).__name__, opt.steps, opt.current_lr(), opt.nonfinite_rows, settings)
    print(every_loss(table, np.zeros(10, np.float32)))
    of_the_first = optimizers.SGD(np.ones((3, 2)), lr=1.0, momentum=0.5, missed="replay")
    of_the_first.step(RowGradient([2], np.ones((1, 2))))
    of_the_first.catch_up([0, 2])
    print(of_the_first.stale().max())


def ones(rows: range | npt.NDArray[np.int64], dim: int | None, dtype: npt.DTypeLike) -> npt.NDArray[np.float64]:
    return np.ones(len(rows) if dim is None else (len(rows), dim))


def groups_and_mappings() -> so.Optimizer:
    tables: dict[str, npt.NDArray[np.float32]] = {"users": np.ones((5, 2), np.float32),
                                                  "items": np.ones((6, 2), np.float32)}
    named = so.Adagrad(tables, lr=0.1)
    gradients: dict[str, Gradient | None] = {"users": RowGradient([0], [[1.0, 1.0]]), "items": None}
    named.step(gradients)
    named.step({"items": RowGradient([0], [[1.0, 1.0]])})
    opt = so.Adam([{"params": {"words": so.normal((5, 2), seed=0)}, "lr": 0.1}, {"params": {"bias": so.zeros(5)}}])
    with so.Workspace(keep=1 << 20) as workspace:
        kept: int = workspace.kept
    print(kept)
    opt.add_param_group({"params": {"contexts": so.uniform((5, 2), np.float64, low=0.0, high=1.0)}, "lr": 0.2})
    opt.step({"words": RowGradient(np.array([1, 2]), np.ones((2, 2)))})
    for group in opt.param_groups:
        group["lr"] *= 0.5
    table = so.reserve((100, 2), np.float64, n_rows=3, init=ones)
    growing = so.SGD({"words": table, "bias": so.reserve(100, n_rows=3)}, lr=0.1)
    larger = growing.resize("words", 4, init=ones)
    both = growing.resize({"words": 5, "bias": 5}, init={"words": None})
    print(larger.shape, both["bias"].shape)
    growing.reset("bias", np.array([1, 2]))
    growing.reset({"words": [0, 1], "bias": [0, 1]})
    by_position = so.AdamW([so.empty((2, 2)), so.zeros((3, 2))], lr=0.1)
    by_position.step([None, RowGradient([1], [[1.0, 1.0]])])
    checked: Mapping[str | int, Gradient] = by_position.check([None, RowGradient([1], [[1.0, 1.0]])])
    print(checked[1], opt.params["words"].mean(), opt.state["words"]["step"].sum(), opt.metadata)
    return opt


def look_ups(seed: np.random.Generator) -> None:
    table = so.normal((100, 8), scale=0.1, seed=seed)
    opt = so.Adam(table, lr=0.1, missed="replay")
    some = gather(table, [3, 5], opt=opt)
    near = dots(table, [3, 5], table, [[1, 2], [7, 8]])
    X = bags([1, 2, 3], [0, 2], n_rows=100, weights=[1.0, 2.0, 3.0], mode="mean")
    negatives = Alias(np.arange(1, 101) ** -1.0)
    drawn: npt.NDArray[np.int32] = negatives.draw((2, 5), seed)
    opt.step(MatmulGradient(X, 0.5 * matmul(X, table)))
    print(some + 1, near @ near.T, so.embedding.gather(table, drawn).shape, len(negatives))


def made_by_number() -> None:
    init = so.init.Normal(0.01, seed=[7, 1])
    rows = so.Rows(10**9, 8, np.float64, init=init)
    some: npt.NDArray[np.float32 | np.float64] = init(range(5), 8)
    others = (so.init.Uniform(-1.0, 1.0)([1, 2], None), so.init.Constant(0.5)(np.array([3]), 2, np.float64))
    print(some.mean(), len(others), rows.shape(3), rows.start([5]).dtype, rows.n_rows, rows == so.Rows(3, None))


def keys_and_rows() -> None:
    ids = so.IdMap("str", admit=2)
    rows: npt.NDArray[np.int64] = ids.rows(["tea", "jam", "tea"])
    opt = so.Adam({"item": so.zeros((ids.n_rows, 4))}, lr=0.1)
    opt.metadata["items"] = ids
    print(rows.sum(), ids.rows(np.array(["tea"]), add=False), ids.keys([1])[0], "tea" in ids, len(ids), list(ids))
    freed: npt.NDArray[np.int64] = ids.evict(1, opt, ["item"], by="count", keep=[0])
    print(freed, ids.kind, ids.admit, so.IdMap().rows(np.array([[5, 6]])).shape)


def tables_on_disk(folder: Path) -> None:
    with so.DiskTable(folder, 1000, 4, lambda table: so.Adam(table, lr=1e-3), cache_rows=100, threads=2,
                      init=so.init.Normal(0.1, seed=0), dtype=np.float64) as table:
        table.prefetch([1, 2])
        some: npt.NDArray[np.float32 | np.float64] = table.pull(np.array([1, 2]))
        table.push(RowGradient([1, 2], some))
        table.save(folder / "disk.safetensors")
        table.load(folder / "disk.safetensors")
        in_memory: so.Optimizer = table.optimizer()
        print(in_memory.params[0].mean(), table.steps, table.rows.n_rows, table.metadata, table.param_groups[0]["lr"])
    rows = {"user": so.Rows(10, 4), "item": so.Rows(20, 4)}
    tables = so.DiskTables(folder, rows, lambda each: so.Adagrad(each, lr=0.1), cache_rows={"user": 5, "item": 5})
    tables.prefetch({"user": [1]})
    found: dict[str, npt.NDArray[np.float32 | np.float64]] = tables.pull({"user": [1], "item": [2, 2]})
    tables.push({"user": RowGradient([1], found["user"]), "item": None})

    def gradients_of(client: so.DiskTables, step: int, worker: int) -> dict[str, RowGradient] | None:
        return {"item": RowGradient([step], client.pull({"item": [step]})["item"])} if step < 5 else None

    tables.fit(gradients_of, steps=3, callback=lambda step, reports: step > 10)
    tables.metadata["epochs"] = 1
    tables.load(tables.optimizer())
    print(tables.workers, tables.steps, tables.rows["user"].dim, tables.param_groups[0]["lr"])
    tables.close()


def shards(folder: Path) -> None:
    rows = {"item": so.sharded.Rows(10, 2), "bias": so.Rows(10, None)}
    with so.sharded.Tables(rows, lambda tables: so.Adam(tables, lr=0.1), shards=2, workers=2, folder=folder) as tables:
        clients: list[so.sharded.Client] = [tables.client(worker) for worker in range(tables.workers)]
        clients[0].push({"item": so.RowGradient([1], np.ones((1, 2))), "bias": None})
        found: dict[str, npt.NDArray[np.float32 | np.float64]] = clients[1].exchange({}, {"item": [1, 1]})
        print(found["item"].mean(), clients[1].worker, clients[1].pull({"bias": np.array([3])})["bias"])

        def gradients_of(client: so.sharded.Client, step: int, worker: int) -> tuple[dict[str, so.RowGradient], int]:
            return {"item": so.RowGradient([step], client.pull({"item": [step]})["item"])}, worker

        tables.fit(gradients_of, steps=2, checkpoint_every=2, callback=lambda steps, reports: reports[0] == 5)
        print(tables.save().name, tables.rows["item"].dim, tables.metadata, tables)
        opt: so.Optimizer = tables.optimizer()
    again = so.sharded.load(folder, so.Adam, shards=3, workers=1)
    again.load(opt)
    again.push({"item": so.RowGradient([1], np.ones((1, 2)))})
    print(again.steps, again.shards, again.restore(), again.pull({"item": range(10)})["item"].shape)
    again.close()


def pairs(seed: np.random.Generator) -> float:
    P, Q, b = so.normal((4, 8), seed=seed), so.normal((6, 8), seed=seed), so.zeros(6)
    opt, seen = so.Adagrad([P, Q, b], lr=0.1), sp.csr_array(np.eye(4, 6))
    loss, gradients = bpr(P, Q, b, [0, 1], [2, 5], [[3], [4]], [1.0, 2.0], seen=seen, regularization=0.1)
    opt.step(gradients)
    own = sp.csr_array(np.eye(2, 6))
    loss += softmax(P, Q, b, [0, 1], own, np.arange(6), np.zeros(6), regularization=0.1)[0]
    gramians, counts = (P.T @ P, Q.T @ Q), (np.ones(4), np.ones(6))
    squares: tuple[RowGradient, RowGradient] = square(P, Q, [0, 1], own, gramians, counts, 0.3, 0.1)[1]
    square_gramian(gramians[0], P[[0, 1]], P[[0, 1]] - squares[0].values)
    dP: RowGradient = warp(P, Q, b, np.array([0]), np.array([1]), np.array([[2, 3]]))[1][0]
    return loss + float(dP.values.sum())


def samples(seed: np.random.Generator) -> float:
    X, y = sp.csr_array(np.eye(3, dtype=np.float32)), np.array([0, 1, 1])
    w, v, b = so.zeros(3), so.normal((3, 2), seed=seed), so.zeros(1)
    opt = so.Ftrl([w, v, b], lr=0.1)
    loss, gradients = factorization_machine(w, v, b, X, y, loss="squared_error", sample_weight=[1, 2, 3], rows=[0, 2])
    opt.step(gradients)
    dw: RowGradient = linear(w, None, X, y, loss="log_loss")[1][0]
    print(dw.rows, dw.values)
    return loss


def loops(folder: Path) -> None:
    table = so.zeros((4, 1))
    opt = so.SGD(table, lr=1.0)
    plateau = ReduceLROnPlateau(opt, factor=0.5, patience=1, mode="min", min_lr=[0.01])
    stopping = EarlyStopping(opt, patience=2)
    accumulator = Accumulator(opt, every=2, reduction="sum")
    for _ in range(6):
        stepped: bool = accumulator.step(RowGradient([1], [[1.0]]))
        loss = float(np.abs(table).sum())
        plateau.step(loss)
        if stopping.step(loss) or (stepped and plateau.best > 1e6):
            break
    accumulator.flush()
    stopping.restore()
    opt.metadata["plateau"] = plateau.state_dict()
    so.save(folder / "loop.safetensors", opt)
    again = so.load(str(folder / "loop.safetensors"), lr=so.schedules.Constant(0.1))
    checkpoint.save(folder / "again.safetensors", again)
    same: so.Optimizer = checkpoint.load(folder / "again.safetensors", again)
    print(same.steps, stopping.best, stopping.waited, accumulator.pending)


def report(progress: Progress) -> bool:
    if progress.epoch_ends:
        print(f"{type(progress.model).__name__}: epoch {progress.epoch}, loss {progress.loss:.3f}")
    return False


def saved(model: Model, folder: Path) -> Path:
    path = folder / f"{type(model).__name__}.safetensors"
    model.save(path, note="as trained")
    return path


def make_adam(tables: dict[str, npt.NDArray[np.float32]]) -> so.Optimizer:
    return so.Adam(tables, lr=0.01)


def recommenders(folder: Path, seed: np.random.Generator) -> None:
    path = folder / "ratings.csv"
    path.write_text("userId,movieId,rating,timestamp\n" + "".join(
        f"{user},{item},{1 + (user + item) % 5},{100 * user + item}\n" for user in range(20) for item in range(10)))
    ratings: datasets.Ratings = datasets.read_ratings(path)
    train, test = evaluation.train_test_split_by_time(ratings.users, ratings.times, 0.2) if (
        ratings.times is not None) else evaluation.train_test_split_at_random(ratings.users, random_state=seed)
    others, _ = evaluation.train_test_split_at_random(ratings.users, test_size=0.5)
    X = ratings.matrix(train)
    explicit = MatrixFactorization(dim=4, epochs=2, lr=Cosine(0.01, steps=100)).fit(X, callback=report)
    print(explicit.score(ratings.matrix(test)), explicit.predict([0, 1], [2, 3]).mean(), explicit.mean_, len(others))
    stopping = EarlyStopping(patience=1, mode="max", score=lambda model: float(-model.loss_curve_[-1:][0]), every=None)
    implicit = ImplicitFactorization("bpr", dim=4, epochs=2, optimizer=make_adam).fit(ratings.chosen().matrix())
    implicit = implicit.partial_fit(ratings.chosen().matrix(), callback=report)
    items, scores = implicit.recommend(0, n=3, seen=ratings.chosen().matrix())
    print(items.tolist(), scores.max(), implicit.similar_items(1, n=2), stopping.patience)
    print(implicit.recommend_for([0, 1], n=3)[0], MatrixFactorization.load(saved(explicit, folder)).std_)
    frame = {"who": ["ann", "bob", "ann"], "what": [3, 5, 5], "when": [1.0, 2.0, 3.0]}
    bought: datasets.Ratings = datasets.interactions(frame, user="who", item="what", time="when")
    by_ids = ImplicitFactorization(dim=4, epochs=1).fit(bought[:2]).partial_fit(bought)
    print(by_ids.recommend(["ann", "bob"], n=1, seen=bought)[0], by_ids.similar_items(3, n=1), by_ids.user_ids_[0])
    for first, last in evaluation.TimeSplit(n_splits=1, test_size=1).split(bought):
        print(by_ids.fit(bought[first]).score(bought[last]), evaluation.evaluate(by_ids, bought, bought[last], k=1))
    full = ImplicitFactorization(dim=4, epochs=1).fit(X)
    print(evaluation.evaluate(full, X, ratings.matrix(test), k=3)["ndcg"])
    plays = datasets.interactions({"who": ["ann", "bob", "ann"], "what": ["tea", "tea", "jam"], "when": [1, 2, 3]},
                                  user="who", item="what", time="when")
    for before, after in evaluation.TimeSplit(n_splits=1, test_size=1).split(plays):
        print(before.tolist(), after.tolist())
    print(ImplicitFactorization(dim=2, epochs=1).fit(plays).recommend("bob", n=1)[0])
    shards = functools.partial(so.sharded.Tables, shards=2)
    spread = ImplicitFactorization(dim=4, epochs=1, tables=shards).fit(X)
    rated = MatrixFactorization(dim=4, epochs=1, tables=lambda rows, make: so.DiskTables(folder, rows, make)).fit(X)
    for model in (spread, rated):
        if model.store_ is not None:
            print(model.store_.steps, model.store_.pull({"users": [0]})["users"].shape, model.optimizer_.steps)
            model.store_.close()
    print(evaluation.ranking_metrics([[1, 2], [2, 3]], sp.csr_array(np.eye(2, 5)))["recall"])


def click_models(folder: Path) -> None:
    log = datasets.ClickLog(n_features=500, fields=4, seed=1)
    linear = LogisticRegression(epochs=1, optimizer="Ftrl", lr=0.1, l1=0.1, class_weight={0: 0.5})
    machine = FactorizationMachineClassifier(dim=2, epochs=1, early_stopping=True,
                                             random_state=np.random.default_rng(0))
    for X, y, p in log.rows(2000, chunk=1000):
        linear = linear.partial_fit(X, y, classes=[0, 1])
        machine = machine.fit(X, y, callback=report)
        print(evaluation.log_loss(y, linear.predict_proba(X)[:, 1], sample_weight=np.ones(len(y))), p.mean())
        print(evaluation.auc(y, machine.decision_function(X)), machine.score(X, y), linear.coef_.shape)
    rows, labels, weights = next(log.rows(1000))
    regressor = FactorizationMachineRegressor(dim=2, epochs=1).fit(rows, labels.astype(float), sample_weight=weights)
    print(regressor.predict(rows).mean(), regressor.factors_.shape, regressor.get_params()["dim"])
    path = folder / "clicks.csv"
    path.write_text("click,site,price\n" + "".join(f"{row % 2},s{row % 7},{row / 3}\n" for row in range(50)))
    reader = datasets.ClickReader(label="click", numbers=["price"], n_features=2**10)
    for batch, clicks in reader.read(path, training=True):
        linear = LogisticRegression(epochs=1).partial_fit(batch, clicks, classes=[False, True])
    for batch, none in reader.read(path, labels=False):
        print(batch.shape, none, linear.predict(batch)[:3])
    for batch, clicks in datasets.read_clicks(path, n_features=64):
        print(batch.nnz, clicks.sum())
    print(reader.description, reader.classes_, LogisticRegression.load(saved(linear, folder)).classes_)


def word_vectors(folder: Path) -> None:
    path = folder / "text.txt"
    path.write_text(" ".join(" ".join(sentence) + "." for sentence in TEXT))
    sentences = datasets.LineSentences(path)
    known, counts = words.vocabulary(words.count_words(sentences), min_count=1)
    X = glove.cooccurrence(sentences, known, window=2)
    model = GloVe(dim=4, epochs=2, min_count=1, missed="replay").fit(X, words=known, callback=report)
    text = words.sentences(datasets.read_texts([path])[0])
    skipgram = SkipGram(dim=4, epochs=1, min_count=1, sample=0.0, lr=0.01).fit(text)
    skipgram = skipgram.partial_fit(TEXT, grow=True)
    cbow = CBOW(dim=4, epochs=1, min_count=1, sample=0.0, batch_size=8).fit(text)
    print(cbow["rose"], cbow.batch_size)
    loss, gradients = so.losses.skip_gram(so.zeros((3, 4)), so.zeros((3, 4)), [0, 1], [[2, 0]], [0])
    loss += so.losses.cbow(so.zeros((3, 4)), so.zeros((3, 4)), [0, 1], [[2, 0]], offsets=[0])[0]
    print(loss, gradients[0].values)
    words.write_vectors(folder / "vectors.txt", model.words_, model.vectors_)
    vectors: words.WordVectors = words.KeyedVectors(*words.read_vectors(folder / "vectors.txt"))
    print(words.tokenize("A rose"), vectors.most_similar("rose", n=2), skipgram.similarity("rose", "lily"))
    print("rose" in skipgram, vectors["rose"] @ vectors["lily"], counts[0], words.close_words("rosa", known))
    rows, cosines = words.nearest(model.vectors_, model.vectors_[:1], 2, [[0]])
    (folder / "pairs.tsv").write_text("rose\tlily\t7.5\nrose\tis\t1.0\n")
    (folder / "analogies.txt").write_text(": flowers\na rose is lily\n")
    correlation, of_all, _ = words.word_similarity(known, model.vectors_, folder / "pairs.tsv")
    print(rows, cosines, correlation, of_all, words.word_analogies(known, model.vectors_, folder / "analogies.txt"))
    long_text: Callable[[], list[str]] = datasets.python_documentation
    print(model.score(X), GloVe.load(saved(model, folder)).set_params(epochs=1).epochs, long_text)


def torch_programs() -> None:
    import torch

    import sparseopt.torch as st

    def losses() -> tuple[torch.nn.Module, Callable[[], float]]:
        model = torch.nn.Sequential(torch.nn.EmbeddingBag(20, 4, sparse=True), torch.nn.Linear(4, 1))

        def backward() -> float:
            model.zero_grad()
            loss: torch.Tensor = model(torch.tensor([[1, 2], [3, 4]])).square().sum()
            torch.autograd.backward(loss)       # Tensor.backward has no types
            return float(loss.detach())

        return model, backward

    model, backward = losses()
    everything = list(model.parameters())
    every: list[st.Optimizer] = [
        st.SGD(everything, lr=0.1, momentum=0.9), st.Adagrad(everything, lr=0.1), st.RowwiseAdagrad(everything),
        st.Adadelta(everything, lr=0.1), st.RMSprop(everything, lr=torch.tensor(0.1)), st.Adam(everything, lr=0.1),
        st.AdamW([{"params": everything, "lr": 0.1}], weight_decay=0.01), st.RowwiseAdam(everything, num_threads=1),
        st.Adamax(model.parameters(), max_grad_norm=1.0), st.NAdam(model.named_parameters()), st.Ftrl(everything),
        st.Lion(everything, nonfinite="skip"), st.SparseAdam(everything, lr=1e-3, betas=(0.9, 0.99)),
    ]
    for opt in every:
        schedule = torch.optim.lr_scheduler.StepLR(opt, step_size=1)
        loss: float = opt.step(backward)
        schedule.step()
        print(type(opt).__name__, loss, opt.param_groups[0]["lr"], opt.nonfinite_rows)
        opt.load_state_dict(opt.state_dict())
    replaying = st.Adam(everything, missed="replay")
    replaying.attach(model)
    backward()
    replaying.step()
    replaying.catch_up(everything[0], torch.tensor([1, 2]))
    replaying.catch_up(everything[0], [1, 2])
    print(replaying.is_behind(everything[0]))


def main(folder: Path) -> None:
    so.show_config()
    before = so.get_num_threads()
    so.set_num_threads(before)
    seed = np.random.default_rng(0)
    own_steps()
    opt = groups_and_mappings()
    so.save(folder / "groups.safetensors", opt)
    look_ups(seed)
    made_by_number()
    keys_and_rows()
    tables_on_disk(folder)
    shards(folder / "shards")
    pairs(seed)
    samples(seed)
    loops(folder)
    recommenders(folder, seed)
    click_models(folder)
    word_vectors(folder)
    if "torch" in sys.argv[1:]:
        torch_programs()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
