"""sparseopt.torch beside torch.optim: steps, gradients in all forms, groups, schedulers, replay."""

import copy
import gc
import inspect
import io
import pickle
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import sparseopt as so
import sparseopt.torch
from sparseopt.optimizers import OPTIMIZERS

NAMES = [name for name in sparseopt.torch.__all__ if name != "Optimizer"]
SHARED = [name for name in OPTIMIZERS if hasattr(torch.optim, name)]        # torch has them for dense gradients
BOUNDS = {torch.float32: dict(rtol=2e-5, atol=2e-6), torch.float64: dict(rtol=1e-12, atol=1e-14)}


@pytest.fixture(autouse=True)
def _invariants_of_sparse_tensors_are_checked():
    with torch.sparse.check_sparse_tensor_invariants(True):
        yield


def sparse(rows, values, shape, **keywords):
    return torch.sparse_coo_tensor(torch.as_tensor(rows).reshape(1, -1), values, shape, **keywords)


def gradients(n, dim, steps, dtype, seed=0):
    """Gradients with rows in any order, some of them twice."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        rows = rng.integers(n, size=rng.integers(n + 2))
        yield sparse(rows, torch.from_numpy(rng.standard_normal((len(rows), dim))).to(dtype), (n, dim))


def parameter(shape, dtype=torch.float32, seed=0):
    return torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype))


def train(opt, weight, grads):
    for grad in grads:
        weight.grad = grad
        opt.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 3, 17, 385])
@pytest.mark.parametrize("hyper", [{}, {"betas": (0.5, 0.9), "eps": 1e-3, "lr": 0.1}, {"maximize": True}])
def test_sparse_adam_has_the_numbers_of_torch(dtype, dim, hyper):
    ours, theirs = parameter((9, dim), dtype), parameter((9, dim), dtype)
    opt, reference = sparseopt.torch.SparseAdam([ours], **hyper), torch.optim.SparseAdam([theirs], **hyper)
    for grad in gradients(9, dim, 60, dtype):
        train(opt, ours, [grad])
        train(reference, theirs, [grad])
    assert_close(ours, theirs, **BOUNDS[dtype])
    assert opt.state[ours]["step"].item() == reference.state[theirs]["step"] == 60
    for key in "exp_avg", "exp_avg_sq":
        assert_close(opt.state[ours][key], reference.state[theirs][key], **BOUNDS[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SHARED)
def test_dense_gradients_give_the_numbers_of_torch(name, dtype):
    shapes = (5, 4), (7,), (), (2, 3, 2)
    ours, theirs = [[parameter(shape, dtype, seed) for seed, shape in enumerate(shapes)] for _ in range(2)]
    opt, reference = getattr(sparseopt.torch, name)(ours, lr=0.01), getattr(torch.optim, name)(theirs, lr=0.01)
    for step in range(30):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = parameter(a.shape, dtype, 100 + step).detach()
            b.grad = a.grad.clone()
        opt.step()
        reference.step()
    bounds = BOUNDS[torch.float32 if name == "NAdam" else dtype]        # torch's mu_product is float32
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert_close(a, b, **bounds)


@pytest.mark.parametrize("step_count", ["row", "global"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_writes_what_the_numpy_optimizer_of_the_name_writes(name, step_count):
    weight, table = parameter((9, 3)), parameter((9, 3)).detach().numpy().copy()
    opt = getattr(sparseopt.torch, name)([weight], lr=0.02, step_count=step_count)
    inner = getattr(so, name)(table, lr=0.02, step_count=step_count)
    for grad in gradients(9, 3, 20, torch.float32):
        train(opt, weight, [grad])
        inner.step(so.RowGradient(grad._indices()[0].numpy(), grad._values().numpy()))
    np.testing.assert_array_equal(weight.detach().numpy(), table)
    for key, array in inner.state[0].items():
        np.testing.assert_array_equal(opt.state[weight][key].numpy(), array)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_signatures_are_those_of_the_numpy_optimizers(name):
    ours, numpys = (inspect.signature(getattr(module, name)).parameters for module in (sparseopt.torch, so))
    assert list(ours) == list(numpys)
    assert [one.default for one in ours.values()] == [one.default for one in numpys.values()]


FORMS = {
    "uncoalesced": lambda dense: sparse([2, 0, 2], torch.stack([dense[2] - 1, dense[0], torch.ones(4)]), (5, 4)),
    "coalesced": lambda dense: dense.to_sparse(1),
    "two sparse dimensions": lambda dense: dense.to_sparse(),
    "dense": lambda dense: dense,
    "transposed": lambda dense: dense.T.contiguous().T,
    "bfloat16": lambda dense: dense.bfloat16().to_sparse(1),
    "float64": lambda dense: dense.double().to_sparse(1),
    "requires grad": lambda dense: dense.to_sparse(1).requires_grad_(),
}


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_every_form_are_taken(form):
    dense = torch.zeros(5, 4)
    dense[0], dense[2] = torch.tensor([1.0, -2, 3, 4]), torch.tensor([-0.5, 8, 1, 2])
    weight = torch.nn.Parameter(torch.zeros(5, 4, dtype=torch.float32))
    opt = sparseopt.torch.SGD([weight], lr=1.0)
    weight.grad_dtype = None            # any
    weight.grad = FORMS[form](dense)
    opt.step()
    assert_close(weight.detach(), -dense, rtol=0, atol=0)


def test_sparse_gradients_of_three_dimensions_are_taken():
    dense = torch.zeros(4, 3, 2)
    dense[1, 2], dense[3, 0, 1] = torch.tensor([1.0, -2]), 5.0
    for sparse_dim in (1, 2, 3):
        weight = torch.nn.Parameter(torch.zeros(4, 3, 2))
        weight.grad = dense.to_sparse(sparse_dim)
        sparseopt.torch.SGD([weight], lr=1.0).step()
        assert_close(weight.detach(), -dense, rtol=0, atol=0)


def test_a_gradient_without_entries_counts_the_step_and_writes_nothing():
    weight = parameter((4, 2))
    before = weight.detach().clone()
    opt = sparseopt.torch.SparseAdam([weight])
    train(opt, weight, [sparse([], torch.zeros(0, 2), (4, 2))])
    assert_close(weight.detach(), before, rtol=0, atol=0)
    assert opt.state[weight]["step"].item() == 1


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_empty_parameters_are_taken(shape):
    weight = torch.nn.Parameter(torch.zeros(shape))
    weight.grad = torch.zeros(shape)
    sparseopt.torch.Adam([weight]).step()


def test_an_index_that_is_no_row_is_an_error_and_nothing_is_written():
    first, second = parameter((4, 2)), parameter((4, 2), seed=1)
    before = first.detach().clone()
    opt = sparseopt.torch.Adam([first, second])
    first.grad = sparse([1], torch.ones(1, 2), (4, 2))
    with torch.sparse.check_sparse_tensor_invariants(False):
        second.grad = sparse([4], torch.ones(1, 2), (4, 2))
    with pytest.raises(IndexError, match=r"gradient of \"param_groups\[0\]\['params'\]\[1\]\" has row 4"):
        opt.step()
    assert_close(first.detach(), before, rtol=0, atol=0)
    assert opt.state[first]["step"].sum() == 0


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "Adamax", "NAdam", "Lion"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_replay_has_the_numbers_of_a_dense_optimizer(name, dtype):
    hyper = {"momentum": 0.9} if name == "SGD" else {}
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.EmbeddingBag(50, 4, sparse=True), torch.nn.Linear(4, 1)).to(dtype)
    dense = torch.nn.Sequential(torch.nn.EmbeddingBag(50, 4), torch.nn.Linear(4, 1)).to(dtype)
    dense.load_state_dict(ours.state_dict())
    opt = getattr(sparseopt.torch, name)(ours.parameters(), lr=1e-2, missed="replay", **hyper)
    opt.attach(ours)
    if hasattr(torch.optim, name):
        reference = getattr(torch.optim, name)(dense.parameters(), lr=1e-2, **hyper)
    else:
        reference = getattr(sparseopt.torch, name)(dense.parameters(), lr=1e-2, **hyper)
    bags = torch.randint(50, (100, 3, 5), generator=torch.Generator().manual_seed(1)).pow(2) // 50
    for bag in bags:
        for model, optimizer in ((ours, opt), (dense, reference)):
            optimizer.zero_grad()
            model(bag).square().mean().backward()
            optimizer.step()
    with torch.no_grad():
        ours.eval()
        assert_close(ours(bags[0]), dense(bags[0]), rtol=1e-3, atol=2e-5)
    for (key, a), b in zip(ours.state_dict().items(), dense.state_dict().values(), strict=True):
        bound = dict(rtol=1e-4, atol=2e-5) if dtype == torch.float32 else dict(rtol=1e-8, atol=1e-9)
        assert_close(a, b, **bound, msg=lambda said, key=key: f"{key}: {said}")


def test_a_row_left_out_of_a_dense_gradient_takes_the_step_without_one():
    weight = torch.nn.Parameter(torch.zeros(3, 1))
    opt = sparseopt.torch.SGD([weight], lr=1.0, momentum=0.5, missed="replay", nonfinite="skip")
    with pytest.warns(RuntimeWarning, match="1 of 3 touched rows"):
        train(opt, weight, [torch.ones(3, 1), torch.tensor([[1.0], [float("nan")], [1.0]])])
    assert weight.T.tolist() == [[-2.5, -1.5, -2.5]]
    assert opt.state[weight]["step"].tolist() == [2, 2, 2]


def replaying(**keywords):
    torch.manual_seed(0)
    model = torch.nn.Embedding(6, 2, sparse=True)
    opt = sparseopt.torch.SGD(model.parameters(), lr=0.5, momentum=0.5, missed="replay", **keywords)
    return model, opt


def look_up(model, opt, rows):
    opt.zero_grad()
    model(torch.tensor(rows)).sum().backward()
    opt.step()


def test_replay_without_attached_modules_is_an_error_before_anything_is_written():
    model, opt = replaying()
    before = model.weight.detach().clone()
    with pytest.raises(RuntimeError, match=r"opt.attach\(model\)"):
        look_up(model, opt, [1])
    assert_close(model.weight.detach(), before, rtol=0, atol=0)


def test_a_loop_of_ones_own_may_call_catch_up_instead_of_attaching():
    model, opt = replaying()
    twin, other = replaying()
    other.attach(twin)
    for rows in ([1], [2], [1, 3]):
        opt.catch_up(model.weight, rows)
        look_up(model, opt, rows)
        look_up(twin, other, rows)
    opt.catch_up()
    other.catch_up()
    assert_close(model.weight, twin.weight, rtol=0, atol=0)


@pytest.mark.parametrize("read", [
    lambda model, opt: model.state_dict()["weight"],
    lambda model, opt: model.eval()(torch.arange(6)),
    lambda model, opt: model(torch.arange(6)),
    lambda model, opt: opt.catch_up() or model.weight,
    lambda model, opt: opt.state_dict() and model.weight,
    lambda model, opt: pickle.dumps(opt) and model.weight,
    lambda model, opt: copy.deepcopy(opt) and model.weight,
    lambda model, opt: torch.nn.Sequential(model).state_dict()["0.weight"],
])
def test_rows_are_brought_up_before_they_are_read(read):
    model, opt = replaying()
    opt.attach(model)
    start = model.weight.detach().clone()
    for _ in range(3):
        look_up(model, opt, [1])
    look_up(model, opt, [2])
    moved = start - read(model, opt).detach()
    # momentum 0.5, rate 0.5: steps of .5, .75 and .875, then one of .4375 without a gradient
    assert_close(moved[1], torch.full((2,), 0.5 + 0.75 + 0.875 + 0.4375))
    assert_close(moved[2], torch.full((2,), 0.5))


def test_loading_weights_into_a_model_leaves_no_step_to_catch_up():
    model, opt = replaying()
    opt.attach(model)
    look_up(model, opt, [1])
    look_up(model, opt, [2])
    model.load_state_dict({"weight": torch.ones(6, 2)})
    assert_close(model.eval()(torch.tensor([1])).detach(), torch.ones(1, 2), rtol=0, atol=0)


def test_a_module_that_uses_the_whole_weight_has_all_rows_brought_up():
    class Tied(torch.nn.Module):
        def __init__(self, words):
            super().__init__()
            self.weight = words.weight

        def forward(self, x):
            return x @ self.weight.T

    def program(sparse_, optimizer):
        torch.manual_seed(0)
        words = torch.nn.Embedding(6, 2, sparse=sparse_)
        model = torch.nn.ModuleDict({"in": words, "out": Tied(words)})
        opt = optimizer(model)
        for step in range(6):
            opt.zero_grad()
            if step % 3:
                words(torch.tensor([step % 4])).sum().backward()
            else:
                model["out"](torch.ones(2)).square().sum().backward()
            opt.step()
        return model.state_dict()

    def replay(model):
        opt = sparseopt.torch.Adam(model.parameters(), lr=0.1, missed="replay")
        opt.attach(model)
        return opt

    ours, dense = program(True, replay), program(False, lambda model: torch.optim.Adam(model.parameters(), lr=0.1))
    assert_close(ours["in.weight"], dense["in.weight"], rtol=1e-5, atol=1e-6)


def test_attaching_says_what_is_wrong():
    model, opt = replaying()
    with pytest.raises(TypeError, match="modules has a list; it must have modules"):
        opt.attach([model])
    with pytest.raises(ValueError, match="no module has a parameter of this optimizer"):
        opt.attach(torch.nn.Linear(2, 2))
    skip = sparseopt.torch.SGD(model.parameters())
    for call in (lambda: skip.attach(model), skip.catch_up):
        with pytest.raises(RuntimeError, match="needs missed=\"replay\"; this optimizer has missed='skip'"):
            call()
    with pytest.raises(ValueError, match=r"param is .*; it must be a parameter of this optimizer"):
        opt.catch_up(torch.zeros(6, 2))
    with pytest.raises(TypeError, match="rows are given without param"):
        opt.catch_up(rows=[1])
    for rows, error in ([6], IndexError), ([0.5], TypeError):
        with pytest.raises(error, match="rows of"):             # also while no row is behind
            opt.catch_up(model.weight, rows)


def test_threads_may_evaluate_an_attached_model_at_once():
    torch.manual_seed(0)
    model = torch.nn.Embedding(5000, 32, sparse=True)
    opt = sparseopt.torch.Adam(model.parameters(), missed="replay")
    opt.attach(model)
    rows = torch.arange(5000)
    for _ in range(10):
        model.train()
        for each in ([1], [2]):
            look_up(model, opt, each)
        model.eval()
        with ThreadPoolExecutor(4) as pool:
            for read in list(pool.map(lambda _: model(rows).detach(), range(4))):
                assert_close(read, model.weight.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("read", [
    lambda model: model.eval()(torch.arange(6)),
    lambda model: model(torch.arange(6)),
    lambda model: model.state_dict()["weight"],
])
def test_a_model_outlives_its_optimizer_and_loses_no_step(read):
    def trained():
        model, opt = replaying()
        opt.attach(model)
        look_up(model, opt, [1])
        look_up(model, opt, [2])
        return model, weakref.ref(opt)

    model, opt = trained()
    gc.collect()
    moved = replaying()[0].weight - read(model)
    assert_close(moved[1].detach(), torch.full((2,), 0.5 + 0.25))
    model.eval()(torch.tensor([1]))
    assert opt() is None                                # all rows are caught up: nothing keeps it
    assert_close(model(torch.arange(6)), read(model), rtol=0, atol=0)


def test_a_new_optimizer_begins_where_the_one_before_has_brought_all_rows_up():
    model, opt = replaying()
    before = model.weight.detach().clone()
    opt.attach(model)
    look_up(model, opt, [1])
    look_up(model, opt, [2])
    opt = sparseopt.torch.SGD(model.parameters(), missed="replay")
    opt.attach(model)
    assert_close((before - model.weight)[1].detach(), torch.full((2,), 0.5 + 0.25))


def test_an_optimizer_is_freed_with_its_model():
    model, opt = replaying()
    opt.attach(model)
    look_up(model, opt, [1])
    gone = weakref.ref(opt)
    del model, opt
    assert gone() is None


class Hashing(torch.nn.Embedding):
    def forward(self, words):
        return super().forward(words * 7 % self.num_embeddings)


def replacing(module):
    return lambda words: torch.nn.Embedding.forward(module, words * 7 % module.num_embeddings)


@pytest.mark.parametrize("kind", ["subclass", "hook", "forward replaced"])
def test_rows_that_a_forward_computes_are_brought_up(kind):
    def program(sparse_, optimizer):
        torch.manual_seed(0)
        model = (Hashing if kind == "subclass" else torch.nn.Embedding)(6, 2, sparse=sparse_)
        if kind == "forward replaced":
            model.forward = replacing(model)
        if kind == "hook":
            model.register_forward_pre_hook(lambda module, args: (args[0] * 7 % 6,))
        opt = optimizer(model)
        for word in (1, 2, 9, 3, 2, 50, 4, 8):
            look_up(model, opt, [word])
        return model(torch.arange(6)).detach()

    def replay(model):
        opt = sparseopt.torch.Adam(model.parameters(), lr=0.1, missed="replay")
        opt.attach(model)
        return opt

    dense = program(False, lambda model: torch.optim.Adam(model.parameters(), lr=0.1))
    assert_close(program(True, replay), dense, rtol=1e-5, atol=1e-6)


def test_copies_and_pickles_of_an_attached_model_do_not_touch_the_optimizer():
    model, opt = replaying()
    opt.attach(model)
    look_up(model, opt, [1])
    look_up(model, opt, [2])
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin(torch.tensor([1]))
        assert opt.state[model.weight]["step"].tolist() == [0, 1, 2, 0, 0, 0]


def test_a_model_that_moves_while_rows_are_behind_is_an_error():
    model, opt = replaying()
    opt.attach(model)
    look_up(model, opt, [1])
    look_up(model, opt, [2])
    model.double()
    with pytest.raises(RuntimeError, match=r"moved in memory while rows had steps to catch up; call opt.catch_up"):
        model(torch.tensor([1]))


@pytest.mark.parametrize("move", [
    lambda model: model.zero_grad() or model.share_memory(),
    lambda model: model.double(),
    lambda model: setattr(model.weight, "data", model.weight.data.clone()),
])
def test_a_model_may_move_in_memory(move):
    model, twin = (torch.nn.Embedding.from_pretrained(torch.ones(6, 2), freeze=False, sparse=True) for _ in range(2))
    opt, other = (sparseopt.torch.Adam(one.parameters(), lr=0.1) for one in (model, twin))
    for moves in (False, True):
        if moves:
            move(model)
        for _ in range(2):
            look_up(model, opt, [1, 2, 2])
            look_up(twin, other, [1, 2, 2])
    assert_close(model.weight.float(), twin.weight, rtol=1e-6, atol=1e-7)
    assert opt.state[model.weight]["step"].tolist() == [0, 4, 4, 0, 0, 0]


def test_state_shares_memory_and_may_be_replaced_or_cleared():
    weight = parameter((4, 2))
    opt = sparseopt.torch.Adam([weight], lr=0.1)
    train(opt, weight, list(gradients(4, 2, 5, torch.float32)))
    shared = opt.state[weight]["exp_avg"]
    train(opt, weight, [sparse([1], torch.ones(1, 2), (4, 2))])
    assert opt.state[weight]["exp_avg"] is shared
    opt.state[weight]["exp_avg"] = torch.zeros(4, 2)
    opt.state[weight]["exp_avg_sq"].zero_()
    opt.state[weight]["step"].zero_()
    before = weight.detach().clone()
    train(opt, weight, [sparse([1], torch.ones(1, 2), (4, 2))])
    assert_close(before[1] - weight.detach()[1], torch.full((2,), 0.1))     # as a first step
    opt.state.clear()
    before = weight.detach().clone()
    train(opt, weight, [sparse([1], torch.ones(1, 2), (4, 2))])
    assert_close(before[1] - weight.detach()[1], torch.full((2,), 0.1))


@pytest.mark.parametrize("send", [
    lambda opt: [value.share_memory_() for state in opt.state.values() for value in state.values()],
    lambda opt: ForkingPickler.dumps(opt.state_dict()),             # what a queue of torch.multiprocessing does
])
def test_state_that_moves_to_shared_memory_goes_on(send):
    weight = parameter((4, 2))
    opt = sparseopt.torch.Adam([weight], lr=0.1)
    weight.grad = torch.ones(4, 2)
    opt.step()
    send(opt)
    opt.step()
    assert_close(opt.state_dict()["state"][0]["exp_avg"], torch.full((4, 2), 0.19))
    assert opt.state[weight]["step"].tolist() == [2, 2, 2, 2]


def test_a_parameter_whose_data_is_another_view_of_its_memory_is_noticed():
    weight = torch.nn.Parameter(torch.zeros(3, 3))
    opt = sparseopt.torch.SGD([weight], lr=1.0)
    weight.data = weight.data.T
    weight.grad = torch.zeros(3, 3)
    with pytest.raises(ValueError, match="is not contiguous"):
        opt.step()
    weight.data = weight.data.T[:2]
    weight.grad = torch.ones(2, 3)
    opt.step()
    assert_close(weight.detach(), -torch.ones(2, 3), rtol=0, atol=0)


def test_a_parameter_of_inference_mode_is_taken():
    with torch.inference_mode():
        weight = torch.nn.Parameter(torch.zeros(3, 1))
        weight.grad = torch.ones(3, 1)
        sparseopt.torch.SGD([weight], lr=1.0).step()
        assert weight.T.tolist() == [[-1.0, -1.0, -1.0]]


def test_the_version_of_a_parameter_counts_its_steps():
    weight = parameter((4, 2))
    opt = sparseopt.torch.SGD([weight])
    before = weight._version
    train(opt, weight, gradients(4, 2, 2, torch.float32))
    assert weight._version == before + 2
    loss = (weight * weight).sum()
    train(opt, weight, gradients(4, 2, 1, torch.float32))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_global_norm_is_taken_over_sparse_and_dense_parameters():
    table, bias = torch.nn.Parameter(torch.zeros(3, 1)), torch.nn.Parameter(torch.zeros(1))
    table.grad, bias.grad = sparse([1, 1], torch.tensor([[1.0], [2.0]]), (3, 1)), torch.tensor([4.0])
    sparseopt.torch.SGD([table, bias], lr=1.0, max_grad_norm=1.0).step()
    assert_close(table.detach(), torch.tensor([[0.0], [-0.6], [0.0]]))
    assert_close(bias.detach(), torch.tensor([-0.8]))


@pytest.mark.parametrize(("nonfinite", "step"), [("raise", None), ("skip", 0.0), ("allow", float("nan"))])
def test_nonfinite_gradients(nonfinite, step):
    weight = torch.nn.Parameter(torch.zeros(3, 1))
    weight.grad = sparse([1, 2], torch.tensor([[float("nan")], [1.0]]), (3, 1))
    opt = sparseopt.torch.SGD([weight], lr=1.0, nonfinite=nonfinite)
    if nonfinite == "raise":
        with pytest.raises(ValueError, match="has nan at row 1"):
            opt.step()
        assert not weight.any()
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        opt.step()
    assert len(said) == (nonfinite == "skip")
    assert_close(weight.detach(), torch.tensor([[0.0], [step], [-1.0]]), equal_nan=True)
    assert opt.nonfinite_rows == (nonfinite == "skip")
    weight.data = weight.data.clone()
    assert opt.nonfinite_rows == (nonfinite == "skip")


@pytest.mark.parametrize(("tensor", "error", "says"), [
    (torch.zeros(3, 2, dtype=torch.bfloat16), TypeError, "has dtype torch.bfloat16; it must be torch.float32"),
    (torch.zeros(3, 2, dtype=torch.complex64), ValueError, "does not support complex parameters"),
    (torch.zeros(3, 2, device="meta"), ValueError, "is on the device meta; it must be on the CPU"),
    (torch.zeros(3, 2).T, ValueError, "is not contiguous"),
    (torch.zeros(3, 2).to_sparse(), ValueError, "Adam requires dense parameter tensors"),
])
def test_parameters_that_cannot_be_updated_are_refused(tensor, error, says):
    with pytest.raises(error, match=says):
        sparseopt.torch.Adam([tensor])
    good = parameter((2, 2))
    opt = sparseopt.torch.Adam([good])
    with pytest.raises(error, match=says):
        opt.add_param_group({"params": [tensor]})
    assert len(opt.param_groups) == 1
    train(opt, good, gradients(2, 2, 1, torch.float32))


def test_parameters_that_overlap_are_refused():
    memory = torch.zeros(5, 2)
    with pytest.raises(ValueError, match="overlap in memory"):
        sparseopt.torch.Adam([memory[:3], memory[2:]])


@pytest.mark.parametrize("keyword", ["capturable", "foreach", "fused", "differentiable"])
@pytest.mark.parametrize("name", NAMES)
def test_keywords_that_torch_alone_has_are_refused(name, keyword):
    with pytest.raises(TypeError, match=keyword):
        getattr(sparseopt.torch, name)([parameter((2, 2))], **{keyword: True})


def test_wrong_hyper_parameters_are_refused_at_once_and_at_a_step():
    weight = parameter((2, 2))
    with pytest.raises(ValueError, match="lr is -1"):
        sparseopt.torch.Adam([weight], lr=-1.0)
    with pytest.raises(TypeError, match=r"lr is .*Cosine.*torch.optim.lr_scheduler"):
        sparseopt.torch.Adam([weight], lr=so.schedules.Cosine(1.0, steps=3))
    with pytest.raises(TypeError, match=r"lr is .*Cosine.*torch.optim.lr_scheduler"):
        sparseopt.torch.Adam([{"params": [weight], "lr": so.schedules.Cosine(1.0, steps=3)}])
    before = weight.detach().clone()
    for cls in sparseopt.torch.Adam, sparseopt.torch.SparseAdam:
        for name, value, says in [("betas", (0.9, 1.5), r"betas\[1\] is 1.5"), ("betas", None, "betas is None"),
                                  ("eps", -1.0, "eps is -1.0"), ("lr", torch.tensor([0.1, 0.2]), "lr is"),
                                  ("lr", lambda step: 0.1, "lr is .*torch.optim.lr_scheduler")]:
            opt = cls([weight])
            opt.param_groups[0][name] = value
            with pytest.raises((TypeError, ValueError), match=says):
                train(opt, weight, gradients(2, 2, 1, torch.float32, seed=3))
    assert_close(weight.detach(), before, rtol=0, atol=0)


def test_named_parameters_name_themselves_in_errors():
    model = torch.nn.Embedding(4, 2, sparse=True)
    opt = sparseopt.torch.SGD(model.named_parameters())
    model.weight.grad = sparse([1], torch.full((1, 2), float("inf")), (4, 2))
    with pytest.raises(ValueError, match='gradient of "weight" has inf at row 1'):
        opt.step()


def test_names_that_do_not_fit_the_parameters_give_way_to_places():
    model = torch.nn.Module()
    model.register_parameter("a\x1b[2Jb", torch.nn.Parameter(torch.zeros(1)))
    opt = sparseopt.torch.SGD(model.named_parameters())
    (weight,) = opt.param_groups[0]["params"]
    weight.grad = torch.tensor([float("nan")])
    with pytest.raises(ValueError, match=r'gradient of "a\\x1b\[2Jb" has nan'):
        opt.step()
    other = parameter((1,))
    other.grad = torch.tensor([float("nan")])
    weight.grad = None
    opt.param_groups[0]["params"].append(other)
    with pytest.raises(ValueError, match=r"gradient of \"param_groups\[0\]\['params'\]\[1\]\" has nan"):
        opt.step()


def test_groups_have_rates_of_their_own_and_more_can_be_added():
    first, second, third = (torch.nn.Parameter(torch.zeros(2, 1)) for _ in range(3))
    opt = sparseopt.torch.SGD([{"params": [first]}, {"params": [second], "lr": 0.5}], lr=1.0)
    for one in (first, second, third):
        one.grad = sparse([1], torch.ones(1, 1), (2, 1))
    opt.step()
    opt.add_param_group({"params": [third], "lr": 0.25})
    opt.step()
    assert [one[1].item() for one in (first, second, third)] == [-2.0, -1.0, -0.25]


def test_threads_are_those_of_torch_unless_given():
    weight = parameter((4, 2))
    opt, own = sparseopt.torch.SGD([weight]), sparseopt.torch.SGD([weight], num_threads=3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        train(opt, weight, gradients(4, 2, 1, torch.float32))
        train(own, weight, gradients(4, 2, 1, torch.float32))
        assert (opt._binding.optimizer.num_threads, own._binding.optimizer.num_threads) == (2, 3)
    finally:
        torch.set_num_threads(before)


def test_copies_and_pickles_train_on_with_the_same_bits():
    for name in OPTIMIZERS:
        weight = parameter((9, 3))
        opt = getattr(sparseopt.torch, name)([weight], lr=0.02, max_grad_norm=3.0)
        train(opt, weight, gradients(9, 3, 10, torch.float32))
        buffer = io.BytesIO()
        torch.save(opt, buffer)
        buffer.seek(0)
        copies = [copy.deepcopy(opt), pickle.loads(pickle.dumps(opt)), torch.load(buffer, weights_only=False)]
        train(opt, weight, gradients(9, 3, 10, torch.float32, seed=1))
        for one in copies:
            (own,) = one.param_groups[0]["params"]
            assert own.data_ptr() != weight.data_ptr()
            train(one, own, gradients(9, 3, 10, torch.float32, seed=1))
            assert_close(own, weight, rtol=0, atol=0)
