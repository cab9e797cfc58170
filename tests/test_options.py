"""Keywords of constructors, and what an optimizer declares of its rule, for every class."""

import functools
import inspect
import typing

import numpy as np
import pytest
from references import CASES

import sparseopt as so
from sparseopt.optimizers import OPTIMIZERS, _options

each_class = pytest.mark.parametrize("cls", OPTIMIZERS.values(), ids=OPTIMIZERS)
OPTIONS = ["maximize", "clip_value", "max_row_norm", "max_norm", "step_count", "missed", "max_grad_norm", "nonfinite",
           "num_threads"]


def options_of(function):
    """The keyword-only parameters: names, annotations and defaults."""
    parameters = inspect.signature(function).parameters.values()
    return [parameter for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]


@each_class
def test_every_class_spells_out_the_options_of_the_base_with_types_and_defaults(cls):
    parameters = inspect.signature(cls).parameters.values()
    assert options_of(cls) == options_of(so.Optimizer) == options_of(cls.__init__)
    assert [parameter.name for parameter in options_of(cls)] == OPTIONS
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.POSITIONAL_OR_KEYWORD,
                                                            inspect.Parameter.KEYWORD_ONLY}
    assert not any(parameter.annotation is inspect.Parameter.empty for parameter in parameters)
    for name in OPTIONS:
        assert name in so.Optimizer.__doc__


def test_types_and_defaults_of_options_stand_in_one_place_each():
    assert list(typing.get_type_hints(_options.Options)) == list(_options.DEFAULTS) == OPTIONS
    assert {*_options.BY_GROUP, *_options.CHECKS} == set(OPTIONS)


@each_class
def test_defaults_of_a_signature_are_those_of_an_optimizer(cls):
    opt = cls(np.zeros((2, 2)))
    for name, parameter in inspect.signature(cls).parameters.items():
        if name != "params":
            value = opt.param_groups[0][name] if name in opt.param_groups[0] else getattr(opt, name)
            assert value == parameter.default, name


@each_class
def test_a_misspelled_keyword_is_answered_with_all_keywords(cls):
    names = [name for name in inspect.signature(cls).parameters if name != "params"]
    with pytest.raises(TypeError) as caught:
        cls(np.zeros((2, 2)), max_gradnorm=1.0)
    assert str(caught.value) == f"{cls.__name__} takes no keyword 'max_gradnorm'; its keywords are {', '.join(names)}"
    with pytest.raises(TypeError, match="params"):
        cls()


def test_a_subclass_of_a_users_own_spells_out_its_options_too():
    class Mine(so.SGD):
        def __init__(self, params, lr=0.5, **options):
            super().__init__(params, lr, **options)

    assert [*inspect.signature(Mine).parameters] == ["params", "lr", *OPTIONS]
    message = r"Mine takes no keyword 'momentom'; its keywords are lr, maximize, .*num_threads"
    with pytest.raises(TypeError, match=message):
        Mine(np.zeros((2, 2)), momentom=0.9)
    assert Mine(np.zeros((2, 2)), maximize=True).param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("step_count", ["row", "global"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_rule_that_says_so_takes_each_element_by_itself(case, step_count):
    rng = np.random.default_rng(0)
    make = functools.partial(case.ours, **case.hyper, step_count=step_count)
    row = make(so.normal((1, 24), np.float64, seed=1))
    elements = make(row.params[0].copy().reshape(24, 1))
    for _ in range(5):
        g = rng.standard_normal((1, 24))
        row.step(g)
        elements.step(g.reshape(24, 1))
    same = row.params[0].tobytes() == elements.params[0].tobytes()
    rule = row._rule(row.param_groups[0])
    if rule.by_elements:
        assert same
        assert not rule.row_state
    else:
        assert not same or rule.name == "nadam_by_row"      # its one number a row is the same for all elements


def test_a_rule_with_a_number_a_row_must_say_that_it_knows_rows():
    class Wrong(so.RowwiseAdagrad):
        def _rule(self, group):
            return super()._rule(group)._replace(by_elements=True)

    with pytest.raises(ValueError, match=r"rule 'rowwise_adagrad' has by_elements=True and the row_state \('sum',\)"):
        Wrong(np.zeros((2, 2)))


CHECKED = {
    "form": ({"a": [[1.0]]}, TypeError, 'gradient of "a" is a builtins.list'),
    "container": (so.RowGradient([0], [[1.0, 1.0]]), TypeError, "grads is a RowGradient"),
    "name": ({"c": None}, KeyError, "grads names 'c'"),
    "shape": ({"a": np.ones((3, 3))}, ValueError, r"has shape \(3, 3\); the table has shape \(3, 2\)"),
    "row": ({"a": so.RowGradient([0, 3], np.ones((2, 2)))}, IndexError, 'gradient of "a" has row 3 at position 1'),
    "nan": ({"b": so.RowGradient([1, 0], [1.0, np.nan])}, ValueError, 'gradient of "b" has nan at row 0, column 0'),
}


@pytest.mark.parametrize("missed", ["skip", "replay"])
@pytest.mark.parametrize(("grads", "error", "message"), CHECKED.values(), ids=CHECKED)
def test_check_raises_what_step_would_raise_and_writes_nothing(grads, error, message, missed):
    opt = so.SGD({"a": np.ones((3, 2)), "b": np.ones(2)}, lr=1.0, momentum=0.5, missed=missed)
    said = []
    for call in (opt.check, opt.step):
        with pytest.raises(error, match=message) as caught:
            call(grads)
        said.append(str(caught.value))
    assert said[0] == said[1]
    good = {"a": so.RowGradient([1], [[1.0, 1.0]]), "b": None}
    assert opt.check(good) == {"a": good["a"]}
    assert opt.steps == 0
    assert all((table == 1).all() for table in opt.params.values())
    assert not any(array.any() for state in opt.state.values() for array in state.values())


@pytest.mark.parametrize("nonfinite", ["skip", "allow"])
def test_check_lets_pass_what_a_step_leaves_out_or_allows(nonfinite, recwarn):
    opt = so.SGD([np.ones((2, 1))], nonfinite=nonfinite)
    bad = so.RowGradient([0], [[np.inf]])
    assert opt.check([bad]) == {0: bad}
    assert not len(recwarn)
    assert opt.nonfinite_rows == 0
