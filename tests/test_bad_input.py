"""Errors name the wrong input and the place of the fault, and are raised before anything is written."""

import functools
import math
import re
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import sparseopt as so
from sparseopt.optimizers import OPTIMIZERS
from sparseopt.optimizers._rule import Rule

ITEMS, DIM, BATCH = 5, 3, 4


def case(name, *values):
    return pytest.param(*values, id=name)


def bad(name, make, error, message, shape=(ITEMS, DIM)):
    return case(name, make, error, message, shape)


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def rows_gradient(rows, index=np.int64, dim=DIM):
    return so.RowGradient(np.array(rows, index), ones(len(rows), dim))


def cells(kind, rows, columns, values=None, shape=(ITEMS, DIM), index=np.int32):
    """A scipy array of these cells as they stand, in this order: scipy would refuse or repair some of them."""
    data = ones(len(rows)) if values is None else np.asarray(values)
    array = {"csr": sp.csr_array, "csc": sp.csc_array, "coo": sp.coo_array}[kind](shape, dtype=data.dtype)
    rows, columns = np.array(rows, index), np.array(columns, index)
    array.data = data
    if kind == "coo":
        array.coords = (rows, columns)
        return array
    major, minor, lines = (rows, columns, shape[0]) if kind == "csr" else (columns, rows, shape[1])
    array.indptr = np.searchsorted(major, np.arange(lines + 1)).astype(index)
    array.indices = minor
    return array


def matmul(kind, samples, rows, weights=None, dY=None, index=np.int32):
    X = cells(kind, samples, rows, weights, shape=(BATCH, ITEMS), index=index)
    return so.MatmulGradient(X, ones(BATCH, DIM) if dY is None else dY)


def malformed(array, **attributes):
    for name, value in attributes.items():
        setattr(array, name, np.array(value) if isinstance(value, list) else value)
    return array


def malformed_matmul(kind, **attributes):
    gradient = matmul(kind, [0, 1, 2], [1, 2, 3])
    malformed(gradient.X, **attributes)
    return gradient


def torch_tensor(*, sparse=False):
    import torch

    return torch.eye(ITEMS, DIM).to_sparse() if sparse else torch.ones(ITEMS, DIM)


def tables(shape=(ITEMS, DIM)):
    return so.normal((6, DIM), seed=1), so.normal(shape, seed=2)


def good_user():
    return so.RowGradient([4, 0, 4], np.arange(9, dtype=np.float32).reshape(3, 3))


def trained(shape=(ITEMS, DIM), groups=False, **options):
    user, item = tables(shape)
    params = [{"params": {"user": user}}, {"params": {"item": item}}] if groups else {"user": user, "item": item}
    opt = so.Adam(params, lr=0.1, **options)
    for row in range(3):
        opt.step({"user": so.RowGradient([row, 5], ones(2, DIM)),
                  "item": so.RowGradient([2, row], ones(2, *shape[1:]))})
    return opt


def bits(opt):
    """Everything that a step writes, as bytes."""
    arrays = {("table", name): table for name, table in opt.params.items()}
    arrays |= {(name, key): array for name, state in opt.state.items() for key, array in state.items()}
    counts = {"steps": opt.steps, "left out": opt.nonfinite_rows}
    return {key: array.tobytes() for key, array in arrays.items()} | counts


def assert_nothing_happened(opt, before, twin):
    """Neither what can be seen changed, nor what the next step makes of it."""
    assert bits(opt) == before
    for optimizer in (opt, twin):
        item = so.RowGradient([3, 0], ones(2, *optimizer.params["item"].shape[1:]))
        optimizer.step({"user": good_user(), "item": item})
    assert bits(opt) == bits(twin)


def type_cases():
    says = 'gradient of "item" is a '
    yield bad("a list", lambda: [[1.0] * DIM] * ITEMS, TypeError, says + "builtins.list")
    yield bad("a tuple", lambda: (np.array([0]), ones(1, DIM)), TypeError, says + "builtins.tuple")
    yield bad("a dict", lambda: {0: 1.0}, TypeError, says + "builtins.dict")
    yield bad("a string", lambda: "gradient", TypeError, says + "builtins.str")
    yield bad("False", lambda: False, TypeError, says + "builtins.bool")
    yield bad("Ellipsis", lambda: ..., TypeError, says + "builtins.ellipsis")
    yield bad("a float", lambda: math.nan, TypeError, says + "builtins.float")
    yield bad("a NumPy scalar", lambda: np.float32(1), TypeError, says + r"numpy\.float32")
    yield bad("a torch tensor", torch_tensor, TypeError, says + r"torch\.Tensor")
    yield bad("a sparse torch tensor", lambda: torch_tensor(sparse=True), TypeError, says + r"torch\.Tensor")
    yield bad("a masked array", lambda: np.ma.masked_array(ones(ITEMS, DIM)), TypeError,
              says + r"numpy\.ma.*MaskedArray")


def shape_cases():
    flat = (ITEMS,)
    yield bad("dense", lambda: ones(ITEMS, DIM + 1), ValueError, r'of "item" has shape \(5, 4\); .* \(5, 3\)')
    yield bad("dense, transposed", lambda: ones(DIM, ITEMS), ValueError, r'of "item" has shape \(3, 5\); .* \(5, 3\)')
    yield bad("dense, 1-D", lambda: ones(ITEMS), ValueError, r'of "item" has shape \(5,\); .* \(5, 3\)')
    yield bad("dense, 0-D", lambda: np.array(1.0), ValueError, r'of "item" has shape \(\); .* \(5, 3\)')
    yield bad("dense for 1-D", lambda: ones(ITEMS, 1), ValueError, r'of "item" has shape \(5, 1\); .* \(5,\)', flat)
    for kind in ("csr", "csc", "coo"):
        yield bad(kind, functools.partial(cells, kind, [0], [0], shape=(ITEMS + 1, DIM)), ValueError,
                  r'of "item" has shape \(6, 3\); .* \(5, 3\)')
        yield bad(f"{kind} for 1-D", functools.partial(cells, kind, [0], [0], shape=(ITEMS, 2)), ValueError,
                  r'of "item" has shape \(5, 2\); .* \(5,\)', flat)
    yield bad("dok", lambda: sp.dok_array((DIM, ITEMS)), ValueError, r'of "item" has shape \(3, 5\); .* \(5, 3\)')
    yield bad("sparse 1-D", lambda: sp.coo_array(ones(ITEMS)), ValueError, r'of "item" has shape \(5,\); .* \(5, 3\)')
    yield bad("sparse 1-D for 1-D", lambda: sp.coo_array(ones(4)), ValueError, r'of "item" has shape \(4,\); .* \(5,\)',
              flat)
    yield bad("rows", lambda: rows_gradient([1, 2], dim=DIM + 1), ValueError,
              r'of "item" has values of shape \(2, 4\); .* \(5, 3\)')
    yield bad("rows for 1-D", lambda: rows_gradient([1]), ValueError,
              r'of "item" has values of shape \(1, 3\); .* \(5,\)', flat)
    yield bad("rows of no dimension", lambda: so.RowGradient([1], ones(1)), ValueError,
              r'of "item" has values of shape \(1,\); .* \(5, 3\)')
    yield bad("X", lambda: so.MatmulGradient(sp.eye_array(BATCH, ITEMS - 1, format="csr"), ones(BATCH, DIM)),
              ValueError, r'of "item" has X of shape \(4, 4\); the table has 5 rows')
    for name, dim, shape in (("dY", DIM + 1, (ITEMS, DIM)), ("dY for 1-D", 2, flat)):
        yield bad(name, functools.partial(matmul, "csr", [0], [1], dY=ones(BATCH, dim)), ValueError,
                  rf'of "item" has dY of shape \(4, {dim}\); the table has shape', shape)


def dtype_cases():
    for dtype in ("complex64", "complex128", "object", "<U1", "datetime64[s]"):
        yield bad(f"dense {dtype}", functools.partial(np.zeros, (ITEMS, DIM), dtype), TypeError,
                  f'gradient of "item" has dtype {re.escape(dtype)}')
    for kind in ("csr", "csc", "coo"):
        yield bad(f"{kind} complex", functools.partial(cells, kind, [1], [1], ones(1, dtype=np.complex64)), TypeError,
                  'gradient of "item" has dtype complex64')
        yield bad(f"X {kind} turned complex",
                  lambda kind=kind: malformed_matmul(kind, data=ones(3, dtype=np.complex64)), TypeError, "complex64")


def index_cases():
    for index in (np.int32, np.int64):
        width = np.dtype(index).name
        for row in (-1, ITEMS, np.iinfo(index).min, np.iinfo(index).max):
            says = f'gradient of "item" has row {row} at position 1; the table has 5 rows'
            places = {
                "rows": functools.partial(rows_gradient, [2, row], index),
                "rows unsorted": functools.partial(rows_gradient, [3, row, 1], index),
                "rows repeated": functools.partial(rows_gradient, [4, row, row], index),
                "csc": functools.partial(cells, "csc", [2, row], [0, 1], index=index),
                "coo": functools.partial(cells, "coo", [2, row], [0, 1], index=index),
                "X csr": functools.partial(matmul, "csr", [0, 1], [2, row], index=index),
                "X coo": functools.partial(matmul, "coo", [0, 1], [2, row], index=index),
            }
            for name, make in places.items():
                yield bad(f"{name}, {width} {row}", make, IndexError, says)
            flat = {
                "rows for 1-D": functools.partial(so.RowGradient, np.array([2, row], index), ones(2)),
                "coo (n, 1) for 1-D": functools.partial(cells, "coo", [2, row], [0, 0], shape=(ITEMS, 1), index=index),
                "coo for 1-D": lambda row=row, index=index: malformed(
                    sp.coo_array((ITEMS,)), coords=(np.array([2, row], index),), data=ones(2)),
                "csr for 1-D": lambda row=row, index=index: malformed(
                    sp.csr_array((ITEMS,)), indptr=np.array([0, 2], index), indices=np.array([2, row], index),
                    data=ones(2)),
            }
            for name, make in flat.items():
                yield bad(f"{name}, {width} {row}", make, IndexError, says, (ITEMS,))
        for column in (-1, DIM):
            for kind in ("csr", "coo"):
                yield bad(f"{kind} column, {width} {column}",
                          functools.partial(cells, kind, [2, 3], [0, column], index=index), IndexError,
                          f'gradient of "item" has column {column} at position 1; the table has 3 columns')
        for sample in (-1, BATCH):
            for kind in ("csc", "coo"):
                yield bad(f"X {kind} sample, {width} {sample}",
                          functools.partial(matmul, kind, [0, sample], [1, 2], index=index), IndexError,
                          f'gradient of "item" has sample {sample} at position 1; it has 4 samples')
    yield bad("a row past int32 on a small table", lambda: rows_gradient([1, 2**32 + 1]), IndexError,
              'gradient of "item" has row 4294967297 at position 1')
    yield bad("an unsigned row", lambda: rows_gradient([1, 2**32 - 1], np.uint32), IndexError,
              'gradient of "item" has row 4294967295 at position 1')


def indptr_cases():
    """Arrays of three entries each; `lines` is the length of the axis along which the array is compressed."""
    arrays = {
        "csr": (ITEMS, "row", lambda **wrong: malformed(cells("csr", [0, 1, 2], [0, 1, 2]), **wrong)),
        "csc": (DIM, "column", lambda **wrong: malformed(cells("csc", [0, 1, 2], [0, 1, 2]), **wrong)),
        "X csr": (BATCH, "sample", functools.partial(malformed_matmul, "csr")),
        "X csc": (ITEMS, "row", functools.partial(malformed_matmul, "csc")),
    }
    for name, (lines, line, make) in arrays.items():
        runs = 'gradient of "item" has an indptr from {} to {}; it must run from 0 to its 3 entries'
        for index in (np.int32, np.int64):
            width = np.dtype(index).name
            wrong = {
                "falls": ([0, 2, 1], f'gradient of "item" has an indptr that falls at {line} 1, from 2 to 1'),
                "starts at 1": ([1, 1, 2], runs.format(1, 3)),
                "starts below 0": ([-1, 1, 2], runs.format(-1, 3)),
            }
            for how, (start, says) in wrong.items():
                indptr = np.array(start + [3] * (lines - 2), index)
                yield bad(f"{name}, {width}, {how}", functools.partial(make, indptr=indptr), ValueError, says)
            # An end of 2**40 must be seen before anything of that length is made.
            for end in (2, 4, -1, *([2**40] if index is np.int64 else [])):
                indptr = np.array([0, 1, *[2] * (lines - 2), end], index)
                yield bad(f"{name}, {width}, ends at {end}", functools.partial(make, indptr=indptr), ValueError,
                          runs.format(0, end))
        for how, length in (("short", lines), ("long", lines + 2), ("empty", 0)):
            yield bad(f"{name}, indptr {how}", functools.partial(make, indptr=[3] * length), ValueError,
                      rf'gradient of "item" is a malformed cs[rc] array: .* and {length} indptr')
        yield bad(f"{name}, indices short", functools.partial(make, indices=[0, 1]), ValueError,
                  r'gradient of "item" is a malformed .*3 values, 2 indices')
        yield bad(f"{name}, data short", functools.partial(make, data=ones(2)), ValueError,
                  r'gradient of "item" is a malformed .*2 values, 3 indices')


def length_cases():
    says = 'gradient of "item" is malformed: its arrays give it 2 and 3 entries'
    wrong = {
        "rows short": {"coords": (np.arange(2), np.arange(3))},
        "columns short": {"coords": (np.arange(3), np.arange(2))},
        "values short": {"data": ones(2)},
        "values long": {"data": ones(3), "coords": (np.arange(2), np.arange(2))},
    }
    for name, attributes in wrong.items():
        yield bad(f"coo, {name}",
                  lambda attributes=attributes: malformed(cells("coo", [0, 1, 2], [0, 1, 2]), **attributes), ValueError,
                  says)
        yield bad(f"X coo, {name}", functools.partial(malformed_matmul, "coo", **attributes), ValueError, says)


def with_value(value):
    """Forms with `value` in row 2, in some in all its columns, and row 0 or 3 with ordinary numbers."""
    dtype = np.float64 if abs(value) < math.inf and abs(value) > 1e38 else np.float32
    marked = np.ones((2, DIM), dtype)
    marked[1, 1] = value
    dense = np.ones((ITEMS, DIM), dtype)
    dense[2, 1] = value
    dY = np.ones((BATCH, DIM), dtype)
    dY[1, 1] = value
    pair = np.array([1, value], dtype)
    forms = {
        "rows": functools.partial(so.RowGradient, [0, 2], marked),
        "rows unsorted": functools.partial(so.RowGradient, [3, 2], marked),
        "rows repeated": functools.partial(so.RowGradient, [2, 2], marked),
        "rows strided": functools.partial(so.RowGradient, [0, 2], np.repeat(marked, 2, axis=0)[::2]),
        "dense": lambda: dense,
        "dense in Fortran order": functools.partial(np.asfortranarray, dense),
    }
    for kind in ("csr", "csc", "coo"):
        forms[kind] = functools.partial(cells, kind, [0, 2], [0, 1], pair)
        forms[f"X {kind}"] = functools.partial(matmul, kind, [0, 1], [0, 2], weights=pair)
        forms[f"dY with X {kind}"] = functools.partial(matmul, kind, [0, 1], [0, 2], dY=dY)
    return forms


def nonfinite_cases():
    for value in (math.nan, math.inf, -math.inf, 1e300, -1e39):
        came = value if math.isnan(value) else math.copysign(math.inf, value)
        for name, make in with_value(value).items():
            yield bad(f"{name}, {value}", make, ValueError,
                      rf'gradient of "item" has {came} at row 2, column [01]; it must be finite')
        yield bad(f"dense for 1-D, {value}", lambda value=value: np.array([0, 0, value, 1, 1]), ValueError,
                  rf'gradient of "item" has {came} at row 2, column 0; it must be finite', (ITEMS,))
    large = np.full((2, DIM), 3e38, np.float32)
    yield bad("finite repeats that overflow", lambda: so.RowGradient([2, 2], large), ValueError,
              'gradient of "item" has inf at row 2, column 0; it must be finite')
    yield bad("finite repeats of a cell that overflow", lambda: cells("coo", [2, 2], [1, 1], large[:, 0]), ValueError,
              'gradient of "item" has inf at row 2, column 1; it must be finite')
    yield bad("finite factors that overflow",
              lambda: matmul("csr", [0], [2], large[0, :1], np.full((BATCH, DIM), 10.0)), ValueError,
              'gradient of "item" has inf at row 2, column 0; it must be finite')


@pytest.mark.parametrize(("make", "error", "message", "shape"), [
    *type_cases(), *shape_cases(), *dtype_cases(), *index_cases(), *indptr_cases(), *length_cases(),
    *nonfinite_cases()])
def test_a_bad_gradient_is_named_with_its_place_and_nothing_is_written(make, error, message, shape):
    opt, twin = trained(shape), trained(shape)
    before = bits(opt)
    with pytest.raises(error, match=message):
        opt.step({"user": good_user(), "item": make()})
    assert_nothing_happened(opt, before, twin)


@pytest.mark.parametrize("options", [{"step_count": "global"}, {"max_grad_norm": 1.0}, {"num_threads": 2}], ids=str)
@pytest.mark.parametrize("make", [lambda: rows_gradient([1, ITEMS]), lambda: ones(ITEMS, DIM) * np.float32(math.nan)],
                         ids=["row", "nan"])
def test_nothing_is_written_under_any_option(make, options):
    opt, twin = trained(**options), trained(**options)
    before = bits(opt)
    with pytest.raises((IndexError, ValueError), match='gradient of "item" has'):
        opt.step({"user": good_user(), "item": make()})
    assert_nothing_happened(opt, before, twin)


@pytest.mark.parametrize(("params", "make", "error", "message"), [
    case("list", "mapping", lambda: [good_user(), None], TypeError, "grads is a list; the parameters are a mapping"),
    case("gradient", "mapping", good_user, TypeError, "grads is a RowGradient; the parameters are a mapping"),
    case("None", "mapping", lambda: None, TypeError, "grads is a NoneType; the parameters are a mapping"),
    case("unknown name", "mapping", lambda: {"user": good_user(), "itme": rows_gradient([1])}, KeyError,
         "grads names 'itme'; the parameters are 'user', 'item'"),
    case("position for name", "mapping", lambda: {"user": good_user(), 1: rows_gradient([1])}, KeyError,
         "grads names 1; the parameters are 'user', 'item'"),
    case("dict", "sequence", lambda: {0: good_user()}, TypeError, "grads is a dict; the parameters are a sequence"),
    case("gradient for two", "sequence", good_user, TypeError, "grads is a RowGradient; .* of 2 gradients"),
    case("array for two", "sequence", lambda: ones(2, 6, DIM), TypeError, "grads is a ndarray; .* of 2 gradients"),
    case("generator", "sequence", lambda: (g for g in (good_user(), None)), TypeError, "grads is a generator"),
    case("short", "sequence", lambda: [good_user()], ValueError, "grads has 1 gradients; there are 2 parameters"),
    case("long", "sequence", lambda: [good_user(), None, None], ValueError, "grads has 3 gradients; there are 2"),
    case("second", "sequence", lambda: [good_user(), rows_gradient([ITEMS])], IndexError,
         "gradient of parameter 1 has row 5 at position 0; the table has 5 rows"),
    case("list for one", "single", lambda: [good_user()], TypeError, r"gradient is a builtins\.list"),
    case("dict for one", "single", lambda: {0: good_user()}, TypeError, r"gradient is a builtins\.dict"),
    case("row for one", "single", lambda: rows_gradient([6]), IndexError,
         "gradient has row 6 at position 0; the table has 6 rows"),
])
def test_gradients_in_another_container_than_the_parameters_are_refused(params, make, error, message):
    user, item = tables()
    opt = so.Adam({"mapping": {"user": user, "item": item}, "sequence": [user, item], "single": user}[params], lr=0.1)
    before = bits(opt)
    with pytest.raises(error, match=message):
        opt.step(make())
    assert bits(opt) == before


@pytest.mark.parametrize(("make", "error", "message"), [
    case("float rows", lambda: so.RowGradient([0.0, 1.0], ones(2, DIM)), TypeError, "rows have dtype float64"),
    case("bool rows", lambda: so.RowGradient([True, False], ones(2, DIM)), TypeError, "rows have dtype bool"),
    case("object rows", lambda: so.RowGradient(np.array([1], object), ones(1, DIM)), TypeError,
         "rows have dtype object"),
    case("string rows", lambda: so.RowGradient(["1"], ones(1, DIM)), TypeError, "rows have dtype <U1"),
    case("2-D rows", lambda: so.RowGradient([[1]], ones(1, DIM)), ValueError, r"rows have shape \(1, 1\)"),
    case("a row number", lambda: so.RowGradient(1, ones(1, DIM)), ValueError, r"rows have shape \(\)"),
    case("past int64", lambda: so.RowGradient(np.array([0, 2**63], np.uint64), ones(2, DIM)), IndexError,
         r"rows.* 9223372036854775808 at position 1"),
    case("masked rows", lambda: so.RowGradient(np.ma.masked_array([1, 2], [False, True]), ones(2, DIM)), TypeError,
         "rows.*[Mm]asked"),
    case("masked values", lambda: so.RowGradient([1], np.ma.masked_array(ones(1, DIM), True)), TypeError,
         "values.*[Mm]asked"),
    case("lengths", lambda: so.RowGradient([1, 2], ones(3, DIM)), ValueError,
         r"values have shape \(3, 3\); with 2 rows"),
    case("3-D values", lambda: so.RowGradient([1], ones(1, 1, DIM)), ValueError, r"values have shape \(1, 1, 3\)"),
    case("a value", lambda: so.RowGradient([1], 1.0), ValueError, r"values have shape \(\); with 1 rows"),
    case("complex values", lambda: so.RowGradient([1], ones(1, DIM) * 1j), TypeError, "values ha.* dtype complex"),
    case("string values", lambda: so.RowGradient([1], [["a"] * DIM]), TypeError, "values ha.* dtype <U1"),
    case("object values", lambda: so.RowGradient([1], np.ones((1, DIM), object)), TypeError,
         "values ha.* dtype object"),
    case("dense X", lambda: so.MatmulGradient(ones(BATCH, ITEMS), ones(BATCH, DIM)), TypeError, "X is a ndarray"),
    case("X None", lambda: so.MatmulGradient(None, ones(BATCH, DIM)), TypeError, "X is a NoneType"),
    case("1-D X", lambda: so.MatmulGradient(sp.coo_array(ones(ITEMS)), ones(ITEMS)), ValueError, r"X has shape \(5,\)"),
    case("complex X", lambda: so.MatmulGradient(sp.eye_array(3, dtype=complex), ones(3)), TypeError,
         "X has dtype complex128"),
    case("dY of another batch", lambda: so.MatmulGradient(sp.eye_array(3), ones(4, DIM)), ValueError,
         r"dY has shape \(4, 3\); with X of shape \(3, 3\)"),
    case("0-D dY", lambda: so.MatmulGradient(sp.eye_array(3), np.float32(1)), ValueError, r"dY has shape \(\)"),
    case("complex dY", lambda: so.MatmulGradient(sp.eye_array(3), ones(3) * 1j), TypeError, "dY has dtype complex"),
    case("masked dY", lambda: so.MatmulGradient(sp.eye_array(3), np.ma.masked_array(ones(3), True)), TypeError,
         "dY.*[Mm]asked"),
])
def test_a_gradient_of_the_wrong_parts_is_refused_when_it_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("rows", [np.arange(4)[::2], np.array([0, 2], np.int16), np.array([2, 0])[::-1], [0, 2]],
                         ids=["strided", "int16", "backwards", "list"])
def test_rows_put_into_a_gradient_after_it_was_made_are_refused_or_read_as_they_are(rows):
    # The kernels follow raw pointers into these arrays.
    gradient = rows_gradient([1, 3])
    opt, twin = so.SGD(table(), lr=1.0), so.SGD(table(), lr=1.0)
    try:
        gradient.rows = rows
        opt.step(gradient)
    except (AttributeError, TypeError):
        assert bits(opt) == bits(twin)
    else:
        twin.step(rows_gradient([0, 2]))
        assert bits(opt) == bits(twin)


@pytest.mark.parametrize(("change", "error", "message"), [
    case("lr below 0", {"lr": -1}, ValueError, r"lr is -1\.0"),
    case("lr nan", {"lr": math.nan}, ValueError, "lr is nan"),
    case("lr string", {"lr": "0.1"}, TypeError, "lr is '0.1'"),
    case("lr None", {"lr": None}, TypeError, "lr is None"),
    case("lr array", {"lr": np.array([0.1, 0.2])}, TypeError, r"lr is array\(\[0.1, 0.2\]\)"),
    case("lr past float32", {"lr": 1e300}, ValueError, r"lr is 1e\+300"),
    case("lr past any float", {"lr": 10**400}, ValueError, "lr is inf"),
    case("weight_decay past float32", {"weight_decay": 1e300}, ValueError, r"weight_decay is 1e\+300"),
    case("schedule past float32", {"lr": lambda step: 1e300}, ValueError, r"lr.* is 1e\+300"),
    case("schedule below 0", {"lr": lambda step: -0.5}, ValueError, r"lr \(of the schedule at step 3\) is -0\.5"),
    case("schedule nan", {"lr": lambda step: math.nan}, ValueError, r"lr \(of the schedule at step 3\) is nan"),
    case("schedule string", {"lr": lambda step: "0.1"}, TypeError, r"lr \(of the schedule at step 3\) is '0.1'"),
    case("schedule None", {"lr": lambda step: None}, TypeError, r"lr \(of the schedule at step 3\) is None"),
    case("beta of 1", {"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] is 1\.0"),
    case("one beta", {"betas": [0.9]}, TypeError, r"betas is \[0\.9\]"),
    case("eps below 0", {"eps": -1e-8}, ValueError, "eps is -1e-08"),
    case("weight_decay inf", {"weight_decay": math.inf}, ValueError, "weight_decay is inf"),
    case("maximize string", {"maximize": "no"}, TypeError, "maximize is 'no'"),
    case("amsgrad turned on", {"amsgrad": True}, ValueError, "amsgrad"),
    case("misspelt", {"weigth_decay": 0.1}, TypeError, "Adam has no hyper-parameter 'weigth_decay'"),
    case("another optimizer's", {"momentum": 0.9}, TypeError, "Adam has no hyper-parameter 'momentum'"),
    case("params", {"params": {}}, (TypeError, ValueError), "params"),
])
def test_a_group_changed_for_the_worse_is_refused_at_the_next_step(change, error, message):
    opt, twin = trained(groups=True), trained(groups=True)
    before = bits(opt)
    group = opt.param_groups[1]
    unchanged = dict(group)
    group.update(change)
    with pytest.raises(error, match=message):
        opt.step({"user": good_user(), "item": rows_gradient([1])})
    group.clear()
    group.update(unchanged)
    assert_nothing_happened(opt, before, twin)


def test_a_decay_of_the_rate_past_float32_is_named():
    opt = so.Adagrad(tables()[0], lr_decay=1e300)
    with pytest.raises(ValueError, match=r"lr_decay is 1e\+300"):
        opt.step(good_user())


def test_finite_numbers_whose_rounded_sum_is_infinite_are_refused():
    n = 3_000_000
    table = np.zeros(1, np.float32)
    opt = so.SGD(table, lr=1e-38)
    x = np.float32(3.4028235e38 / n)
    with pytest.raises(ValueError, match="has inf at row 0"):
        opt.step(so.RowGradient(np.zeros(n, np.int32), np.full(n, x)))
    assert table[0] == 0


def test_data_of_two_dimensions_are_malformed():
    gradient = sp.csr_array(np.ones((50, 1)))
    gradient.data = np.broadcast_to(np.ones(2), (50, 2))
    opt = so.SGD(np.zeros((50, 1)), nonfinite="allow")
    with pytest.raises(ValueError, match="malformed"):
        opt.step(gradient)


def test_ftrl_refuses_a_decay_that_nothing_bounds():
    with pytest.raises(ValueError, match=r"weight_decay is 0\.1 where beta and l2 are 0"):
        so.Ftrl(np.ones((2, 2)), beta=0.0, weight_decay=0.1)
    so.Ftrl(np.zeros((2, 2)), beta=0.0).step(so.RowGradient([0], [[1.0, 0.0]]))


def test_a_hyper_parameter_taken_out_of_its_group_is_named():
    opt = trained()
    del opt.param_groups[0]["eps"]
    before = bits(opt)
    with pytest.raises((KeyError, TypeError), match="eps"):
        opt.step({"user": good_user()})
    assert bits(opt) == before


@pytest.mark.parametrize(("make", "change", "message"), [
    (so.Adagrad, {"lr_decay": 0.1}, "lr_decay"),
    (so.Adagrad, {"initial_accumulator_value": 0.5}, "initial_accumulator_value"),
    (so.SGD, {"momentum": 0.9}, "momentum"),
    (so.RMSprop, {"centered": True}, "centered"),
    (so.RMSprop, {"momentum": 0.9}, "momentum"),
    (so.SGD, {"nesterov": True}, "nesterov is True with momentum 0.0"),
], ids=str)
def test_a_change_that_the_state_does_not_allow_is_refused_by_its_name(make, change, message):
    opt = make(tables()[0])
    before = bits(opt)
    opt.param_groups[0].update(change)
    with pytest.raises(ValueError, match=message):
        opt.step(good_user())
    assert bits(opt) == before


def test_two_changes_of_which_only_both_need_other_state_are_refused_by_their_names():
    class Both(so.SGD):
        def _rule(self, group):
            return Rule("momentum", ("momentum_buffer",)) if group["momentum"] and group["nesterov"] else Rule("sgd")

    opt = Both(tables()[0])
    before = bits(opt)
    opt.param_groups[0].update(momentum=0.5, nesterov=True)
    with pytest.raises(ValueError, match="'momentum', 'nesterov' have changed; they cannot change together"):
        opt.step(good_user())
    assert bits(opt) == before


def table(dtype=np.float32):
    return np.zeros((ITEMS, DIM), dtype)


def read_only():
    array = table()
    array.flags.writeable = False
    return array


def unaligned():
    return np.zeros(ITEMS * DIM * 4 + 1, np.uint8)[1:].view(np.float32).reshape(ITEMS, DIM)


def overlapping():
    whole = table()
    return {"head": whole[:3], "tail": whole[2:]}


@pytest.mark.parametrize(("make", "error", "message"), [
    case("read-only", read_only, ValueError, "params is read-only"),
    case("name", lambda: {"user": table(), "item": read_only()}, ValueError, 'parameter "item" is read-only'),
    case("position", lambda: [table(), read_only()], ValueError, "parameter 1 is read-only"),
    case("Fortran order", lambda: np.asfortranarray(table()), ValueError, "params is not C-contiguous"),
    case("every second row", lambda: table()[::2], ValueError, "params is not C-contiguous"),
    case("some columns", lambda: table()[:, 1:], ValueError, "params is not C-contiguous"),
    case("backwards", lambda: table()[::-1], ValueError, "params is not C-contiguous"),
    case("not aligned", unaligned, ValueError, "params is not aligned"),
    case("integers", lambda: table(np.int64), TypeError, "params has dtype int64"),
    case("half precision", lambda: table(np.float16), TypeError, "params has dtype float16"),
    case("long double", lambda: table(np.longdouble), TypeError, f"params has dtype {np.dtype(np.longdouble)}"),
    case("complex", lambda: table(np.complex64), TypeError, "params has dtype complex64"),
    case("objects", lambda: table(np.object_), TypeError, "params has dtype object"),
    case("byte order", lambda: table(np.dtype(np.float32).newbyteorder()), TypeError,
         "params has dtype [<>]f4; .* native byte order"),
    case("3-D", lambda: np.zeros((2, 2, 2), np.float32), ValueError, r"params has shape \(2, 2, 2\)"),
    case("0-D", lambda: np.zeros((), np.float32), ValueError, r"params has shape \(\)"),
    case("masked", lambda: np.ma.masked_array(table()), TypeError, "params is a MaskedArray"),
    case("list", lambda: {"user": [[0.0]]}, TypeError, 'parameter "user" is a list; it must be a NumPy array'),
    case("list of lists", lambda: [[0.0, 1.0]], TypeError, "parameter 0 is a list; it must be a NumPy array"),
    case("None among them", lambda: [table(), None], TypeError, "parameter 1 is a NoneType"),
    case("sparse", lambda: {"user": sp.csr_array(table())}, TypeError, 'parameter "user" is a csr_array'),
    case("number", lambda: 3.0, TypeError, "params is a float"),
    case("None", lambda: None, TypeError, "params is a NoneType"),
    case("string", lambda: "user", TypeError, "params is a str"),
    case("generator", lambda: (t for t in [table()]), TypeError, "params is a generator"),
    case("overlap", overlapping, ValueError, '"head" and "tail" overlap'),
    case("same table twice", lambda: (lambda same: {"user": same, "item": same})(table()), ValueError,
         '"item" and "user" overlap'),
    case("same memory twice", lambda: (lambda same: [same, same.reshape(-1)])(table()), ValueError,
         "parameter 0 and parameter 1 overlap"),
    case("a table and its last row", lambda: (lambda whole: [whole, table(), whole[4:]])(table()), ValueError,
         "parameter 0 and parameter 2 overlap"),
    case("empty list", list, ValueError, "params is empty"),
    case("empty dict", dict, ValueError, "params is empty"),
    case("empty group", lambda: [{"params": []}], ValueError, "params is empty"),
    case("half named", lambda: [{"params": {"user": table()}}, {"params": [table()]}], TypeError, "name all or none"),
    case("named twice", lambda: [{"params": {"user": table()}}, {"params": {"user": table()}}], ValueError,
         "params names 'user' in two groups"),
    case("integer name", lambda: {1: table()}, TypeError, "params has the name 1; names must be strings"),
    case("None as name", lambda: {None: table()}, TypeError, "params has the name None; names must be strings"),
    case("bytes as name", lambda: [{"params": {b"user": table()}}], TypeError, "params has the name b'user'"),
    case("table among groups", lambda: [{"params": table()}, table()], TypeError, r"params\[1\] is no group"),
    case("group without params", lambda: [{"lr": 0.1}], TypeError, r"params\[0\] is no group"),
    case("group in a group", lambda: [{"params": [{"params": table(), "lr": 1.0}]}], TypeError, r"params\[0\]"),
    case("groups in a group", lambda: [{"params": [{"params": table()}, {"params": table()}]}], TypeError,
         r"params\[0\]"),
    case("misspelt key", lambda: [{"params": table(), "weigth_decay": 0.1}], TypeError,
         "Adam has no hyper-parameter 'weigth_decay'"),
    case("another optimizer's key", lambda: [{"params": table(), "momentum": 0.1}], TypeError,
         "Adam has no hyper-parameter 'momentum'"),
    case("option in a group", lambda: [{"params": table(), "step_count": "global"}], TypeError,
         "Adam has no hyper-parameter 'step_count'"),
    case("bad value", lambda: [{"params": table()}, {"params": table(), "lr": -2.0}], ValueError, r"lr is -2\.0"),
])
def test_bad_params_are_named_with_what_came(make, error, message):
    with pytest.raises(error, match=message):
        so.Adam(make())


def test_a_second_group_of_one_memory_with_the_first_is_found():
    whole = table()
    with pytest.raises(ValueError, match="parameter 0 and parameter 1 overlap"):
        so.Adam([{"params": whole}, {"params": [whole[1:2]], "lr": 0.1}])


@pytest.mark.parametrize(("cls", "keyword", "value", "error", "message"), [
    pytest.param(cls, keyword, value, error, message, id=f"{cls.__name__} {keyword}={value!r}")
    for cls, keyword, value, error, message in [
        (so.Adam, "lr", -0.1, ValueError, r"lr is -0\.1"),
        (so.Adam, "lr", math.nan, ValueError, "lr is nan"),
        (so.Adam, "lr", math.inf, ValueError, "lr is inf"),
        (so.Adam, "lr", "0.1", TypeError, "lr is '0.1'"),
        (so.Adam, "lr", None, TypeError, "lr is None"),
        (so.Adam, "lr", True, TypeError, "lr is True"),
        (so.Adam, "lr", [0.1], TypeError, r"lr is \[0\.1\]"),
        (so.Adam, "lr", 1j, TypeError, "lr is 1j"),
        (so.Adam, "lr", np.complex64(1), TypeError, "lr is .*1"),
        (so.Adam, "lr", np.bool_(True), TypeError, "lr is .*True"),
        (so.Adam, "lr", np.str_("0.1"), TypeError, r"lr is .*0\.1"),
        (so.Adam, "lr", np.array("fast"), TypeError, "lr is .*fast"),
        (so.Adam, "lr", np.array([0.1]), TypeError, r"lr is array\(\[0\.1\]\)"),
        (so.Adam, "betas", (-0.1, 0.9), ValueError, r"betas\[0\] is -0\.1"),
        (so.Adam, "betas", (0.9, 1.0), ValueError, r"betas\[1\] is 1\.0"),
        (so.Adam, "betas", (0.9, math.nan), ValueError, r"betas\[1\] is nan"),
        (so.Adam, "betas", (0.9,), TypeError, r"betas is \(0\.9,\)"),
        (so.Adam, "betas", (0.9, 0.99, 0.999), TypeError, r"betas is \(0\.9, 0\.99, 0\.999\)"),
        (so.Adam, "betas", 0.9, TypeError, r"betas is 0\.9"),
        (so.Adam, "betas", None, TypeError, "betas is None"),
        (so.Adam, "betas", ("0.9", 0.9), TypeError, r"betas\[0\] is '0\.9'"),
        (so.Adam, "eps", -1e-8, ValueError, "eps is -1e-08"),
        (so.Adam, "eps", math.nan, ValueError, "eps is nan"),
        (so.Adam, "weight_decay", -1, ValueError, r"weight_decay is -1\.0"),
        (so.Adam, "amsgrad", 1, TypeError, "amsgrad is 1"),
        (so.Adam, "maximize", "yes", TypeError, "maximize is 'yes'"),
        (so.Adam, "moment", 0.9, TypeError, "moment"),
        (so.Adam, "step_count", "rows", ValueError, "step_count is 'rows'"),
        (so.Adam, "step_count", None, ValueError, "step_count is None"),
        (so.Adam, "step_count", np.zeros(2), (TypeError, ValueError), r"step_count is array"),
        (so.Adam, "missed", "redo", ValueError, "missed is 'redo'"),
        (so.Adam, "nonfinite", "ignore", ValueError, "nonfinite is 'ignore'"),
        (so.Adam, "nonfinite", False, ValueError, "nonfinite is False"),
        (so.Adam, "max_grad_norm", 0, ValueError, r"max_grad_norm is 0\.0"),
        (so.Adam, "max_grad_norm", -1.0, ValueError, r"max_grad_norm is -1\.0"),
        (so.Adam, "max_grad_norm", math.nan, ValueError, "max_grad_norm is nan"),
        (so.Adam, "max_grad_norm", "1", TypeError, "max_grad_norm is '1'"),
        (so.Adam, "num_threads", 0, ValueError, "num_threads is 0"),
        (so.Adam, "num_threads", -2, ValueError, "num_threads is -2"),
        (so.Adam, "num_threads", 1.5, TypeError, r"num_threads is 1\.5"),
        (so.Adam, "num_threads", "2", TypeError, "num_threads is '2'"),
        (so.Adam, "num_threads", True, (TypeError, ValueError), "num_threads is True"),
        (so.Adam, "num_threads", 2**31, ValueError, "num_threads is 2147483648"),
        (so.AdamW, "weight_decay", math.nan, ValueError, "weight_decay is nan"),
        (so.RowwiseAdam, "betas", (0.9, 2), ValueError, r"betas\[1\] is 2\.0"),
        (so.RowwiseAdam, "amsgrad", True, TypeError, "amsgrad"),
        (so.SGD, "momentum", -0.9, ValueError, r"momentum is -0\.9"),
        (so.SGD, "momentum", math.inf, ValueError, "momentum is inf"),
        (so.SGD, "dampening", math.nan, ValueError, "dampening is nan"),
        (so.SGD, "dampening", 0.5, ValueError, r"dampening is 0\.5 with momentum 0"),
        (so.SGD, "nesterov", True, ValueError, r"nesterov is True with momentum 0\.0"),
        (so.SGD, "nesterov", "yes", TypeError, "nesterov is 'yes'"),
        (so.Adagrad, "lr_decay", -0.1, ValueError, r"lr_decay is -0\.1"),
        (so.Adagrad, "initial_accumulator_value", -0.1, ValueError, r"initial_accumulator_value is -0\.1"),
        (so.RowwiseAdagrad, "eps", "0", TypeError, "eps is '0'"),
        (so.Adadelta, "rho", 1.0, ValueError, r"rho is 1\.0"),
        (so.RMSprop, "alpha", -0.5, ValueError, r"alpha is -0\.5"),
        (so.RMSprop, "alpha", 1, ValueError, r"alpha is 1\.0"),
        (so.RMSprop, "centered", 0, TypeError, "centered is 0"),
        (so.RMSprop, "momentum", -1, ValueError, r"momentum is -1\.0"),
        (so.Adamax, "betas", "ab", TypeError, r"betas\[0\] is 'a'"),
        (so.NAdam, "momentum_decay", -1, ValueError, r"momentum_decay is -1\.0"),
        (so.NAdam, "decoupled_weight_decay", None, TypeError, "decoupled_weight_decay is None"),
        (so.Ftrl, "lr", -1, ValueError, r"lr is -1\.0"),
        (so.Ftrl, "beta", -1, ValueError, r"beta is -1\.0"),
        (so.Ftrl, "l1", -1, ValueError, r"l1 is -1\.0"),
        (so.Ftrl, "l2", math.nan, ValueError, "l2 is nan"),
        (so.Lion, "betas", (1, 1), ValueError, r"betas\[0\] is 1\.0"),
    ]])
def test_a_bad_hyper_parameter_is_named_with_what_came(cls, keyword, value, error, message):
    with pytest.raises(error, match=message):
        cls(table(), **{keyword: value})


@pytest.mark.parametrize("cls", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_optimizer_checks_what_they_share(cls):
    for keywords, error, message in [
        ({"lr": -1}, ValueError, r"lr is -1\.0"),
        ({"weight_decay": "a"}, TypeError, "weight_decay is 'a'"),
        ({"maximize": None}, TypeError, "maximize is None"),
        ({"nonfinite": "no"}, ValueError, "nonfinite is 'no'"),
        ({"weigth_decay": 0.1}, TypeError, "weigth_decay"),
        ({"missed": "replays"}, ValueError, r"missed is 'replays'; it must be 'skip' or 'replay'"),
    ]:
        with pytest.raises(error, match=message):
            cls(table(), **keywords)


def test_nesterov_with_dampening_is_refused():
    with pytest.raises(ValueError, match=r"nesterov is True with momentum 0\.9 and dampening 0\.1"):
        so.SGD(table(), momentum=0.9, dampening=0.1, nesterov=True)


@pytest.mark.parametrize(("make", "error", "message"), [
    case("below 0", lambda: so.zeros((ITEMS, -1)), ValueError, r"shape is \(5, -1\)"),
    case("a length below 0", lambda: so.zeros(-3), ValueError, "shape is .*-3"),
    case("twice below 0", lambda: so.empty((-1, -1)), ValueError, r"shape is \(-1, -1\)"),
    case("fraction", lambda: so.empty((2.5, 3)), TypeError, r"shape is \(2\.5, 3\)"),
    case("string", lambda: so.empty("ab"), TypeError, "shape is .*ab"),
    case("None", lambda: so.empty(None), TypeError, "shape is .*None"),
    case("past the address space", lambda: so.empty((2**32, 2**32)), (ValueError, MemoryError), "4294967296"),
    case("half precision", lambda: so.zeros(3, np.float16), TypeError, "dtype is float16"),
    case("int32", lambda: so.zeros(3, np.int32), TypeError, "dtype is int32"),
    case("byte order", lambda: so.zeros(3, ">f4" if sys.byteorder == "little" else "<f4"), TypeError,
         "dtype is [<>]f4"),
    case("complex", lambda: so.normal(3, complex), TypeError, "dtype is complex128"),
    case("scale below 0", lambda: so.normal(3, scale=-1), ValueError, "scale is -1"),
    case("scale nan", lambda: so.normal(3, scale=math.nan), ValueError, "scale is nan"),
    case("scale inf", lambda: so.normal(3, scale=math.inf), ValueError, "scale is inf"),
    case("scale string", lambda: so.normal(3, scale="a"), TypeError, "scale is 'a'"),
    case("low above high", lambda: so.uniform(3, low=1, high=0), ValueError, "low is 1 and high is 0"),
    case("low infinite", lambda: so.uniform(3, low=-math.inf), ValueError, "low is -inf"),
    case("high nan", lambda: so.uniform(3, high=math.nan), ValueError, "high is nan"),
    case("low string", lambda: so.uniform(3, low="a"), TypeError, "low is 'a'"),
    case("scale by position", lambda: so.normal(3, 0.01), TypeError, "0.01|data type"),
    case("no threads", lambda: so.set_num_threads(0), ValueError, "num_threads is 0"),
    case("threads below 0", lambda: so.set_num_threads(-1), ValueError, "num_threads is -1"),
    case("threads a float", lambda: so.set_num_threads(2.0), TypeError, r"num_threads is 2\.0"),
    case("threads None", lambda: so.set_num_threads(None), TypeError, "num_threads is None"),
    case("threads a string", lambda: so.set_num_threads("2"), TypeError, "num_threads is '2'"),
    case("threads a flag", lambda: so.set_num_threads(True), (TypeError, ValueError), "num_threads is True"),
])
def test_bad_arguments_of_the_functions_are_named(make, error, message):
    threads = so.get_num_threads()
    with pytest.raises(error, match=message):
        make()
    assert so.get_num_threads() == threads


def test_more_threads_than_a_c_int_are_refused_when_they_are_set():
    before = so.get_num_threads()
    try:
        with pytest.raises(ValueError, match="num_threads is 2147483648"):
            so.set_num_threads(2**31)
    finally:
        so.set_num_threads(before)


@pytest.mark.parametrize(("make", "error", "message"), [
    case("no steps", lambda: so.schedules.Linear(0.1, 0.0, steps=0), ValueError, "steps is 0"),
    case("lr below 0", lambda: so.schedules.Linear(-0.1, 0.0, steps=3), ValueError, r"lr is -0\.1"),
    case("end below 0", lambda: so.schedules.Linear(0.1, -0.1, steps=3), ValueError, r"end is -0\.1"),
    case("nothing after warm-up", lambda: so.schedules.Cosine(0.1, steps=5, warmup=5), ValueError, "warmup is 5"),
    case("warm-up past steps", lambda: so.schedules.Cosine(0.1, steps=5, warmup=8), ValueError, "warmup is 8"),
    case("warm-up below 0", lambda: so.schedules.Cosine(0.1, steps=5, warmup=-1), ValueError, "warmup is -1"),
    case("string", lambda: so.schedules.Exponential("0.1", 0.9), TypeError, "lr is '0.1'"),
    case("gamma below 0", lambda: so.schedules.Exponential(0.1, -0.9), ValueError, r"gamma is -0\.9"),
])
def test_a_schedule_that_cannot_run_is_refused_when_it_is_made(make, error, message):
    # It would otherwise end a training run in the middle.
    with pytest.raises(error, match=message):
        make()


# nonfinite="skip" and "allow".

SAMPLES = [0, 0, 1, 2, 2, 3]
ROWS = [1, 4, 3, 4, 1, 0]
COLUMNS = [0, 1, 1, 2, 0, 2]
NUMBERS = np.array([0.5, -1.25, 2.0, 0.75, 3.0, -0.125], np.float32)


def marked_gradient(form, mark, dtype, leave_out=False):
    """A gradient with `mark` in an entry of row 4, or the same without the rows that this spoils; and those rows."""
    values, dY = NUMBERS.astype(dtype), np.linspace(-1, 1, BATCH * DIM).astype(dtype).reshape(BATCH, DIM)
    spoilt = {4}
    if form.startswith("dY"):
        dY[0] = mark            # sample 0 is in rows 1 and 4
        spoilt = {1, 4}
    else:
        values[1] = mark
    kept = [i for i in range(len(ROWS)) if not (leave_out and ROWS[i] in spoilt)]
    samples, rows, columns, values = (np.array(a)[kept] for a in (SAMPLES, ROWS, COLUMNS, values))
    kind = form.split()[-1]
    if form == "rows":
        return so.RowGradient(rows, values[:, None] * np.arange(1, DIM + 1, dtype=dtype)), spoilt
    if form == "dense":
        dense = np.full((ITEMS, DIM), 0.5, dtype)
        dense[4, 1] = mark
        return (so.RowGradient(np.arange(4), dense[:4]) if leave_out else dense), spoilt
    # Compressed forms want their entries in the order of their lines; a stable sort keeps the order within a row.
    line = {"csr": rows, "csc": columns, "coo": np.zeros(len(rows))} if form == kind else {
        "csr": samples, "csc": rows, "coo": np.zeros(len(rows))}
    order = np.argsort(line[kind], kind="stable")
    if form == kind:
        return cells(kind, rows[order], columns[order], values[order]), spoilt
    return matmul(kind, samples[order], rows[order], values[order], dY), spoilt


FORMS = ["rows", "dense", *(f"{part}{kind}" for part in ("", "X ", "dY of X ") for kind in ("csr", "csc", "coo"))]


@pytest.mark.parametrize("mark", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", FORMS)
def test_skip_leaves_out_the_bad_rows_with_their_repeats_and_nothing_else(form, dtype, mark):
    def optimizer():
        params = {"user": so.normal((6, DIM), dtype, seed=1), "item": so.normal((ITEMS, DIM), dtype, seed=2)}
        return so.Adam(params, lr=0.1, nonfinite="skip")

    opt, twin = optimizer(), optimizer()
    gradient, spoilt = marked_gradient(form, mark, dtype)
    said = rf'gradient of "item": {len(spoilt)} of \d touched rows have a NaN or an infinity and were left out'
    with pytest.warns(RuntimeWarning, match=said):
        opt.step({"user": good_user(), "item": gradient})
    assert opt.nonfinite_rows == len(spoilt)
    twin.step({"user": good_user(), "item": marked_gradient(form, mark, dtype, leave_out=True)[0]})
    assert bits(opt) == bits(twin) | {"left out": len(spoilt)}
    assert opt.state["item"]["step"][sorted(spoilt)].tolist() == [0] * len(spoilt)
    assert opt.state["item"]["step"].sum() > 0


@pytest.mark.parametrize("form", FORMS)
def test_allow_lets_a_nan_into_the_rows_it_is_in_without_a_word(form):
    opt = so.SGD({"item": so.normal((ITEMS, DIM), seed=2)}, lr=0.1, nonfinite="allow")
    before = opt.params["item"].copy()
    gradient, spoilt = marked_gradient(form, math.nan, np.float32)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        opt.step({"item": gradient})
    assert said == []
    after = opt.params["item"]
    assert set(np.flatnonzero(np.isnan(after).any(axis=1))) == spoilt
    if form != "dense":
        assert after[2].tobytes() == before[2].tobytes()
    assert opt.nonfinite_rows == 0


@pytest.mark.parametrize("nonfinite", ["skip", "allow"])
@pytest.mark.parametrize("form", FORMS)
def test_a_finite_gradient_gives_the_same_bits_whatever_nonfinite_says(form, nonfinite):
    results = []
    for option in ("raise", nonfinite):
        opt = so.Adam({"item": so.normal((ITEMS, DIM), seed=2)}, lr=0.1, nonfinite=option)
        opt.step({"item": marked_gradient(form, 7.0, np.float32)[0]})
        results.append(bits(opt))
    assert results[0] == results[1]


@pytest.mark.parametrize("mark", [math.nan, -math.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 7), (2, 5), (1, 17), (5, 17), (4, 33)], ids=str)
def test_one_bad_number_is_found_wherever_it_stands(shape, dtype, mark):
    opt = so.SGD(np.zeros(shape, dtype), lr=1.0)
    wide = np.zeros((shape[0], shape[1] + 3), dtype)
    for values in (np.zeros(shape, dtype), wide[:, :-3]):        # in one piece, and with a stride
        wide[:, -3:] = mark                                      # beside which stands what is not of it
        for place in np.ndindex(shape):
            values[place] = mark
            with pytest.raises(ValueError, match=f"has {mark} at row {place[0]}, column {place[1]}; it must be finite"):
                opt.step(so.RowGradient(np.arange(shape[0]), values))
            values[place] = 0
        opt.step(so.RowGradient(np.arange(shape[0]), values))
    assert not opt.params[0].any()


@pytest.mark.parametrize("threads", [1, 2])
def test_one_bad_number_is_found_among_many(threads):
    # more than two blocks of the search
    opt = so.SGD(so.zeros((3_000, 65)), nonfinite="raise", num_threads=threads)
    values = np.zeros((3_000, 65), np.float32)
    rng = np.random.default_rng(0)
    for i in [0, values.size - 1, *rng.integers(values.size, size=300)]:
        values.flat[i] = math.inf
        with pytest.raises(ValueError, match=f"has inf at row {i // 65}, column {i % 65}; it must be finite"):
            opt.step(so.RowGradient(np.arange(3_000), values))
        values.flat[i] = 0
    opt.step(so.RowGradient(np.arange(3_000), values))


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_large_finite_numbers_are_no_infinity(nonfinite):
    # Their sum would be one, but they belong to different rows and columns.
    values = np.zeros((3, DIM), np.float32)
    values[0, 0] = values[1, 1] = values[2, 1] = 3e38
    opt = so.SGD(table(), lr=2e-38, nonfinite=nonfinite)
    opt.step(so.RowGradient([1, 1, 2], values))
    assert opt.params[0].tolist() == [[0] * 3, [-values[0, 0] * np.float32(2e-38)] * 2 + [0],
                                      [0, -values[0, 0] * np.float32(2e-38), 0], [0] * 3, [0] * 3]


def test_a_number_that_no_entry_refers_to_is_not_looked_at():
    dY = ones(BATCH, DIM)
    dY[3] = math.nan
    opt, twin = so.SGD(table(), lr=0.1), so.SGD(table(), lr=0.1)
    opt.step(matmul("csr", [0, 2], [1, 2], dY=dY))
    twin.step(rows_gradient([1, 2]))
    assert bits(opt) == bits(twin)


def test_rows_left_out_add_up_over_tables_and_steps():
    opt = trained(nonfinite="skip")
    bad = so.RowGradient([1, 1, 3], np.full((3, DIM), math.nan, np.float32))
    for times in (1, 2):
        with pytest.warns(RuntimeWarning) as said:
            opt.step({"user": bad, "item": bad})
        assert [str(w.message).split(":")[0] for w in said] == ['gradient of "user"', 'gradient of "item"']
        assert opt.nonfinite_rows == 4 * times


def test_a_gradient_of_bad_rows_alone_is_a_step_that_writes_no_row():
    opt, twin = trained(nonfinite="skip"), trained(nonfinite="skip")
    with pytest.warns(RuntimeWarning, match="2 of 2 touched rows"):
        opt.step({"item": so.RowGradient([4, 0], np.full((2, DIM), math.inf))})
    assert bits(opt) == bits(twin) | {"steps": 4, "left out": 2}


def test_the_norm_is_that_of_the_rows_that_are_not_left_out():
    opt, twin = (trained(nonfinite="skip", max_grad_norm=0.5) for _ in range(2))
    values = np.array([[3, 0, 0], [math.inf, 1, 1], [0, 4, 0]], np.float32)
    with pytest.warns(RuntimeWarning, match="1 of 3"):
        opt.step({"item": so.RowGradient([0, 1, 2], values)})
    twin.step({"item": so.RowGradient([0, 2], values[::2])})
    assert bits(opt) == bits(twin) | {"left out": 1}


def test_the_warning_points_at_the_line_that_called_step():
    opt = trained(nonfinite="skip")
    with pytest.warns(RuntimeWarning, match="left out") as said:
        opt.step({"item": np.full((ITEMS, DIM), math.nan)})
    assert said[0].filename == __file__


def test_the_warning_turned_into_an_error_stops_the_step_before_it_writes():
    opt, twin = trained(nonfinite="skip"), trained(nonfinite="skip")
    before = bits(opt)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="5 of 5 touched rows"):
            opt.step({"user": good_user(), "item": np.full((ITEMS, DIM), math.nan)})
    assert_nothing_happened(opt, before, twin)


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_norm_that_overflows_stops_the_step_before_it_writes(nonfinite):
    opt = so.SGD(np.ones((2, DIM)), lr=0.1, max_grad_norm=1.0, nonfinite=nonfinite)
    with pytest.raises(ValueError, match=r"norm .*overflows; max_grad_norm"):
        opt.step(np.full((2, DIM), 1e200))
    assert opt.params[0].tolist() == [[1.0] * DIM] * 2
    assert opt.steps == 0
