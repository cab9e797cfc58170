"""sparseopt.torch in the programs that people write: torch's own inputs, schedulers, checkpoints, scalers, workers."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch_programs import Bags, Model, batches, train, train_in_shared_memory

import sparseopt as so
import sparseopt.torch

pytest.importorskip("expecttest", reason="torch's own test inputs need expecttest, of the extra `test`")
from torch.testing._internal.common_optimizers import optim_db

INFOS = {info.optim_cls.__name__: info for info in optim_db}
SHARED = [name for name in sparseopt.torch.__all__ if name in INFOS]
INPUTS = [pytest.param(name, each.kwargs, id=f"{name}-{each.desc}")
          for name in SHARED for each in INFOS[name].optim_inputs_func("cpu")]
ERRORS = [pytest.param(name, each, id=f"{name}-{each.optimizer_error_input.desc}")
          for name in SHARED for each in INFOS[name].optim_error_inputs_func("cpu", torch.float32)]


def assert_same(model, other, **bounds):
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert_close(a, b, **(bounds or dict(rtol=0, atol=0)), msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize(("name", "keywords"), INPUTS)
def test_the_inputs_of_torchs_own_tests_give_torchs_numbers(name, keywords):
    models = Model(is_sparse=name == "SparseAdam"), Model(is_sparse=name == "SparseAdam")
    for model, module in zip(models, (sparseopt.torch, torch.optim), strict=True):
        params = model.words.parameters() if name == "SparseAdam" else model.parameters()
        train(model, getattr(module, name)(params, **copy.deepcopy(keywords)), batches(20))
    assert_same(*models, rtol=1e-4, atol=1e-6)


def skipped(each):
    """Why an error of torch is none here, or None."""
    said = each.error_regex
    if "Tensor" in said and "betas" in said and "foreach" not in each.optimizer_error_input.kwargs:
        return "tensors and numbers may be mixed: betas are read as numbers"
    return None


@pytest.mark.parametrize(("name", "each"), ERRORS)
def test_what_torchs_own_tests_refuse_is_refused(name, each):
    if skipped(each):
        pytest.skip(skipped(each))
    given = each.optimizer_error_input
    params = given.params if given.params is not None else [torch.nn.Parameter(torch.zeros(2, 2))]
    allowed = (TypeError if "foreach" in given.kwargs else each.error_type), TypeError
    with pytest.raises(allowed if issubclass(each.error_type, Exception) else Exception):
        getattr(sparseopt.torch, name)(params, **given.kwargs)


SCHEDULERS = {
    "StepLR": lambda opt: torch.optim.lr_scheduler.StepLR(opt, 3, gamma=0.5),
    "LambdaLR": lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 1 / (1 + step)),
    "CosineAnnealingLR": lambda opt: torch.optim.lr_scheduler.CosineAnnealingLR(opt, 10),
    "OneCycleLR": lambda opt: torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.1, total_steps=40),
    "CyclicLR": lambda opt: torch.optim.lr_scheduler.CyclicLR(opt, 0.01, 0.1, step_size_up=3, cycle_momentum=True),
    "SequentialLR": lambda opt: torch.optim.lr_scheduler.SequentialLR(opt, [
        torch.optim.lr_scheduler.LinearLR(opt, 0.1, total_iters=3), torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)],
        milestones=[3]),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")     # torch's SequentialLR itself
@pytest.mark.parametrize("missed", ["skip", "replay"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_of_torch_change_rates_and_betas(name, missed):
    ours, dense = Model(is_sparse=missed == "replay"), Model(is_sparse=False)
    opt = sparseopt.torch.Adam(ours.parameters(), lr=0.05, missed=missed)
    reference = torch.optim.Adam(dense.parameters(), lr=0.05)
    if missed == "replay":
        opt.attach(ours)
    for model, optimizer in ((ours, opt), (dense, reference)):
        train(model, optimizer, batches(30), SCHEDULERS[name](optimizer).step)
    assert opt.param_groups[0]["betas"] == reference.param_groups[0]["betas"]
    assert opt.param_groups[0]["lr"] == reference.param_groups[0]["lr"]
    assert_same(ours, dense, rtol=1e-4, atol=2e-5)


def test_reduce_on_plateau_lowers_the_rate():
    opt = sparseopt.torch.SGD(Model().parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0)
    for _ in range(3):
        scheduler.step(1.0)
    assert opt.param_groups[0]["lr"] == pytest.approx(0.01)


def through_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


OPTIONS = [("row", "skip"), ("global", "skip"), ("row", "replay")]


@pytest.mark.parametrize(("step_count", "missed"), OPTIONS)
@pytest.mark.parametrize("name", [name for name in sparseopt.torch.__all__ if name not in ("Optimizer", "SparseAdam")])
def test_a_resumed_run_has_the_bits_of_one_that_went_on(name, step_count, missed):
    if missed == "replay" and name == "Adadelta":
        pytest.skip("Adadelta has no closed form of missed steps")
    keywords = dict(lr=0.02, step_count=step_count, missed=missed)
    keywords |= {"momentum": 0.9} if name == "SGD" else {"weight_decay": 0.0} if missed == "replay" else {}

    def started(model):
        opt = getattr(sparseopt.torch, name)(model.parameters(), **keywords)
        if missed == "replay":
            opt.attach(model)
        return opt

    model, twin = Model(), Model()
    opt, other = started(model), started(twin)
    train(model, opt, batches(10))
    train(twin, other, batches(5, seed=9))          # a run that the loaded state replaces
    twin.load_state_dict(through_file(model.state_dict()))
    other.load_state_dict(through_file(opt.state_dict()))
    train(model, opt, batches(10, seed=1))
    train(twin, other, batches(10, seed=1))
    assert_same(model, twin)


@pytest.mark.parametrize(("ours", "theirs"), [
    (lambda p: sparseopt.torch.SparseAdam(p, lr=0.02), lambda p: torch.optim.SparseAdam(p, lr=0.02)),
    (lambda p: sparseopt.torch.Adam(p, lr=0.02, amsgrad=True, step_count="global"),
     lambda p: torch.optim.Adam(p, lr=0.02, amsgrad=True)),
    (lambda p: sparseopt.torch.Adam(p, lr=0.02, missed="replay"), lambda p: torch.optim.Adam(p, lr=0.02)),
    (lambda p: sparseopt.torch.AdamW(p, lr=0.02, missed="replay"), lambda p: torch.optim.AdamW(p, lr=0.02)),
])
def test_checkpoints_go_to_torch_and_come_from_torch(ours, theirs):
    is_sparse = isinstance(ours([torch.nn.Parameter(torch.zeros(1, 1))]), sparseopt.torch.SparseAdam)
    for first, second in ((ours, theirs), (theirs, ours)):
        model, twin = Model(is_sparse), Model(is_sparse)
        parts = (model.words, twin.words) if is_sparse else (model, twin)
        opt, other = first(parts[0].parameters()), second(parts[1].parameters())
        train(model, opt, batches(10))
        twin.load_state_dict(model.state_dict())
        other.load_state_dict(through_file(opt.state_dict()))
        train(model, opt, batches(10, seed=1))
        train(twin, other, batches(10, seed=1))
        assert_same(model, twin, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(("ours", "theirs"), [
    ("SGD", dict(momentum=0.9)), ("RMSprop", dict(momentum=0.9, centered=True)), ("Adagrad", {}), ("Adadelta", {}),
    ("Adamax", {}), ("NAdam", {}),
])
def test_checkpoints_of_torchs_other_optimizers_are_taken_over(ours, theirs):
    model, twin = Model(is_sparse=False), Model(is_sparse=False)
    opt = getattr(torch.optim, ours)(model.parameters(), lr=0.02, **theirs)
    other = getattr(sparseopt.torch, ours)(twin.parameters(), lr=0.5, **theirs)
    train(model, opt, batches(10))
    twin.load_state_dict(model.state_dict())
    other.load_state_dict(through_file(opt.state_dict()))
    assert other.param_groups[0]["lr"] == 0.02
    train(model, opt, batches(10, seed=1))
    train(twin, other, batches(10, seed=1))
    assert_same(model, twin, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(("saved", "into", "says"), [
    (lambda p: torch.optim.AdamW(p), sparseopt.torch.Adam, "decoupled_weight_decay is True.*Adam has the coupled kind"),
    (lambda p: torch.optim.Adam(p, weight_decay=0.1), sparseopt.torch.AdamW, "AdamW has the decoupled kind"),
    (lambda p: torch.optim.Adam(p, weight_decay=0.1), sparseopt.torch.SparseAdam, "SparseAdam has none"),
    (lambda p: torch.optim.Adamax(p), sparseopt.torch.Adam, "has 'step', 'exp_avg', 'exp_inf'; Adam has 'step'"),
    (lambda p: sparseopt.torch.Adam(p), lambda p: sparseopt.torch.Adam(p, step_count="global"),
     'step has more than one number; with step_count="global" it must be one'),
])
def test_a_checkpoint_that_does_not_fit_is_an_error_that_changes_nothing(saved, into, says):
    model, twin = Model(is_sparse=False), Model()
    opt, other = saved(model.parameters()), into(twin.parameters())
    train(model, opt, batches(3))
    train(twin, other, batches(3))
    if isinstance(opt, sparseopt.torch.Adam):
        opt.state[model.head.weight]["step"][0] = 7
    before = copy.deepcopy(twin)
    kept = other.param_groups, other.state, copy.deepcopy(other.state_dict())
    with pytest.raises((ValueError, TypeError), match=says):
        other.load_state_dict(opt.state_dict())
    assert other.param_groups is kept[0]
    assert other.state is kept[1]
    for number, state in other.state_dict()["state"].items():
        for key, value in state.items():
            assert_close(value, kept[2]["state"][number][key], rtol=0, atol=0)
    assert_same(twin, before)
    train(twin, other, batches(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_state_of_half_precision_is_taken_over(dtype):
    half, weight = (torch.nn.Parameter(torch.zeros(2, 2, dtype=each)) for each in (dtype, torch.float32))
    half.grad = torch.full((2, 2), 2.0, dtype=dtype)
    theirs, opt = torch.optim.AdamW([half], lr=0.1), sparseopt.torch.AdamW([weight], lr=0.1)
    theirs.step()
    opt.load_state_dict(theirs.state_dict())
    assert_close(opt.state[weight]["exp_avg"], theirs.state[half]["exp_avg"].float(), rtol=0, atol=0)


@pytest.mark.parametrize("step", [3, 3.0, torch.tensor(3), torch.tensor([3.0]), torch.full((4,), 3)])
def test_a_step_count_is_taken_in_every_form(step):
    weight = torch.nn.Parameter(torch.zeros(4, 3))
    opt = sparseopt.torch.Adam([weight])
    state = opt.state_dict()
    opt.load_state_dict({**state, "state": {0: {**state["state"][0], "step": step}}})
    assert opt.state[weight]["step"].tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("shape", [(3, 4), (12,), (1,), (4, 1)])
def test_state_of_another_shape_is_refused(shape):
    opt = sparseopt.torch.Adam([torch.nn.Parameter(torch.zeros(4, 3))])
    state = opt.state_dict()
    with pytest.raises(ValueError, match=r"exp_avg has shape .*; the state has shape \(4, 3\)"):
        opt.load_state_dict({**state, "state": {0: {**state["state"][0], "exp_avg": torch.ones(shape)}}})


def test_a_state_dict_has_no_tensor_on_the_default_device():
    opt = sparseopt.torch.Adam([torch.nn.Parameter(torch.zeros(4, 3))], step_count="global")
    with torch.device("meta"):
        assert opt.state_dict()["state"][0]["step"] == 0


def test_a_state_that_is_not_a_tensor_is_named():
    opt = sparseopt.torch.Adam(Model().parameters())
    state = opt.state_dict()
    state["state"][0] = {**state["state"][0], "exp_avg": object()}
    with pytest.raises(TypeError, match=r"exp_avg of .* is <object object.*>; it must be a tensor or a number"):
        opt.load_state_dict(state)


def test_a_gradient_scaler_scales_and_skips():
    model, twin = Model(), Model()
    opt, other = sparseopt.torch.SGD(model.parameters(), lr=0.1), sparseopt.torch.SGD(twin.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step, (bags, labels) in enumerate(batches(6)):
        opt.zero_grad()
        scaler.scale(torch.nn.functional.cross_entropy(model(bags), labels)).backward()
        if step == 2:
            model.head.bias.grad.fill_(float("inf"))
        scaler.step(opt)
        scaler.update()
    train(twin, other, [each for step, each in enumerate(batches(6)) if step != 2])
    assert_same(model, twin, rtol=1e-5, atol=1e-6)


def test_a_closure_is_called_with_gradients_and_its_loss_comes_back():
    model, twin = Model(), Model()
    opt, other = sparseopt.torch.Adam(model.parameters()), sparseopt.torch.Adam(twin.parameters())
    for bags, labels in batches(5):
        def closure(bags=bags, labels=labels):
            opt.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(bags), labels)
            loss.backward()
            return loss

        assert opt.step(closure).requires_grad
    train(twin, other, batches(5))
    assert_same(model, twin)


def test_hooks_of_the_optimizer_are_called():
    model, called = Model(), []
    opt = sparseopt.torch.Adam(model.parameters())
    opt.register_step_pre_hook(lambda *_: called.append("before"))
    opt.register_step_post_hook(lambda *_: called.append("after"))
    opt.register_state_dict_post_hook(lambda *_: called.append("saved"))
    opt.register_load_state_dict_post_hook(lambda *_: called.append("loaded"))
    train(model, opt, batches(1))
    opt.load_state_dict(opt.state_dict())
    assert called == ["before", "after", "saved", "loaded"]


@pytest.mark.parametrize("missed", ["skip", "replay"])
def test_gradients_accumulate_over_batches(missed):
    ours, dense = Model(), Model(is_sparse=False)
    opt = sparseopt.torch.Adam(ours.parameters(), lr=0.02, missed=missed)
    if missed == "replay":
        opt.attach(ours)
        reference = torch.optim.Adam(dense.parameters(), lr=0.02)
    else:
        dense = Model()
        reference = sparseopt.torch.Adam(dense.parameters(), lr=0.02)
    data = list(batches(12))
    for first, second in zip(data[::2], data[1::2], strict=True):
        opt.zero_grad()
        for bags, labels in (first, second):
            (torch.nn.functional.cross_entropy(ours(bags), labels) / 2).backward()
        opt.step()
        both = torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])
        train(dense, reference, [both])
    assert_same(ours, dense, rtol=1e-4, atol=2e-6)


def test_frozen_parameters_and_parameters_without_a_gradient_stay():
    model = Model()
    model.head.weight.requires_grad_(False)
    before = copy.deepcopy(model)
    opt = sparseopt.torch.Adam(model.parameters(), lr=0.1)
    train(model, opt, batches(3))
    assert_close(model.head.weight, before.head.weight, rtol=0, atol=0)
    assert opt.state[model.head.weight]["step"].sum() == 0
    assert opt.state[model.head.bias]["step"].tolist() == [3, 3]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")     # torch.compile itself
@pytest.mark.parametrize("missed", ["skip", "replay"])
def test_a_compiled_model_trains_as_a_plain_one(missed):
    model, twin = Model(), Model()
    opt, other = (sparseopt.torch.Adam(one.parameters(), lr=0.02, missed=missed) for one in (model, twin))
    if missed == "replay":
        opt.attach(model)
        other.attach(twin)
    torch._dynamo.reset()
    train(torch.compile(model, backend="aot_eager"), opt, batches(5))
    train(twin, other, batches(5))
    assert_same(model, twin, rtol=1e-5, atol=1e-6)


def test_a_model_compiled_before_it_is_attached_is_an_error():
    torch._dynamo.reset()
    train(torch.compile(Model(), backend="eager"), torch.optim.SGD(Model().parameters()), batches(1))
    model = Model()
    opt = sparseopt.torch.Adam(model.parameters(), missed="replay")
    opt.attach(model)                               # of a class that torch has compiled without hooks
    with pytest.raises(RuntimeError, match=r"row \d+ of .* has a gradient, and 1 steps to catch up"):
        train(torch.compile(model, backend="eager"), opt, batches(3))


def test_a_row_that_was_read_before_it_was_brought_up_is_an_error():
    model = Model()
    opt = sparseopt.torch.SGD(model.parameters(), momentum=0.9, missed="replay")
    opt.attach(model)
    train(model, opt, [(torch.tensor([[1]]), torch.tensor([0])), (torch.tensor([[2]]), torch.tensor([0]))])
    before = copy.deepcopy(model)
    opt.zero_grad()
    torch.nn.functional.embedding(torch.tensor([2, 1]), model.words.weight, sparse=True).sum().backward()
    with pytest.raises(RuntimeError, match=r"row 1 of .* has a gradient, and 1 steps to catch up"):
        opt.step()
    opt.zero_grad()
    model.words.weight.square().sum().backward()
    with pytest.raises(RuntimeError, match=r"row 0 of .* has a gradient, and 2 steps to catch up"):
        opt.step()
    for a, b in zip(model.parameters(), before.parameters(), strict=True):
        assert_close(a, b, rtol=0, atol=0)


def test_workers_of_a_data_loader_change_nothing():
    models = []
    for workers in (0, 2):
        model = Model()
        opt = sparseopt.torch.Adam(model.parameters(), lr=0.02, num_threads=2)
        train(model, opt, batches(1))
        train(model, opt, torch.utils.data.DataLoader(Bags(), batch_size=8, num_workers=workers))
        models.append(model)
    assert_same(*models)


def test_another_process_trains_a_model_in_shared_memory():
    model, twin = Model().share_memory(), Model()
    process = torch.multiprocessing.get_context("spawn").Process(target=train_in_shared_memory, args=(model,))
    process.start()
    process.join()
    assert process.exitcode == 0
    train(twin, sparseopt.torch.SGD(twin.parameters(), lr=0.1), batches(3))
    assert_same(model, twin)


def test_an_average_of_weights_sees_rows_that_are_caught_up():
    ours, dense = Model(), Model(is_sparse=False)
    opt = sparseopt.torch.Adam(ours.parameters(), lr=0.02, missed="replay")
    opt.attach(ours)
    averages = []
    for model, optimizer in ((ours, opt), (dense, torch.optim.Adam(dense.parameters(), lr=0.02))):
        average = torch.optim.swa_utils.AveragedModel(model)

        def update(model=model, average=average):
            if model is ours:
                opt.catch_up()
            average.update_parameters(model)

        train(model, optimizer, batches(15), update)
        averages.append(average)
    assert_same(*averages, rtol=1e-4, atol=2e-6)


def test_a_clipped_step_is_that_of_dense_gradients_clipped_by_torch():
    ours, dense = Model(), Model(is_sparse=False)
    opt = sparseopt.torch.Adam(ours.parameters(), lr=0.02, missed="replay", max_grad_norm=0.3)
    opt.attach(ours)
    train(ours, opt, batches(20))
    reference = torch.optim.Adam(dense.parameters(), lr=0.02)
    for bags, labels in batches(20):
        reference.zero_grad()
        torch.nn.functional.cross_entropy(dense(bags), labels).backward()
        torch.nn.utils.clip_grad_norm_(dense.parameters(), 0.3)
        reference.step()
    assert_same(ours, dense, rtol=1e-4, atol=2e-6)


def test_without_torch_the_error_names_the_extra(tmp_path, monkeypatch):
    import subprocess
    import sys

    program = "import sys; sys.modules['torch'] = None\nimport sparseopt\nimport sparseopt.torch"
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert "sparseopt.torch needs the package torch: pip install 'sparseopt[torch]'" in result.stderr


def test_numpy_and_torch_optimizers_share_a_table():
    table = so.zeros((5, 2))
    weight = torch.nn.Parameter(torch.from_numpy(table))
    opt = sparseopt.torch.SGD([weight], lr=1.0)
    weight.grad = torch.sparse_coo_tensor([[3]], [[1.0, 2.0]], (5, 2), check_invariants=True)
    opt.step()
    np.testing.assert_array_equal(table[3], [-1, -2])


def test_an_optimizer_without_a_run_is_pickled_and_copied():
    opt = sparseopt.torch.NAdam(Model().parameters())
    for twin in (pickle.loads(pickle.dumps(opt)), copy.deepcopy(opt)):
        assert repr(twin) == repr(opt)
        assert twin.state_dict().keys() == opt.state_dict().keys()
