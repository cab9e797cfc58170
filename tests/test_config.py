"""Threads, instruction sets and their report. A setting that is read at import is tested in a new process."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import scipy

import sparseopt as so
from sparseopt import _config, _kernels
from sparseopt._kernels import processors


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = so.get_num_threads()
    yield
    so.set_num_threads(before)


def python(code, folder, timeout=900, **environment):
    """Run code in a process of its own, away from the sources, which would hide what is installed."""
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=os.environ | environment, capture_output=True,
                          text=True, timeout=timeout, check=False)


def shown(capsys):
    so.show_config()
    return capsys.readouterr().out.splitlines()


def line(lines, name):
    return next(line for line in lines if line.strip().startswith(name))


@pytest.mark.parametrize("number", [1, 2, 64, np.int64(3)], ids=repr)
def test_the_number_of_threads_set_is_the_one_got(number):
    so.set_num_threads(number)
    assert so.get_num_threads() == number
    assert type(so.get_num_threads()) is int


def test_an_optimizers_own_number_of_threads_comes_before_the_common_one():
    so.set_num_threads(3)
    assert _config.threads_for(None) == 3
    assert _config.threads_for(2) == 2
    assert so.Adam(so.zeros(3), num_threads=np.int32(2)).num_threads == 2
    assert so.Adam(so.zeros(3)).num_threads is None


def test_show_config_says_what_a_bug_report_needs(capsys):
    so.set_num_threads(3)
    lines = shown(capsys)
    assert lines[0] == f"sparseopt {so.__version__}"
    assert line(lines, "instruction set").split()[2] == _kernels.isa
    assert all(isa in line(lines, "instruction set") for isa in _kernels.available)
    assert line(lines, "threads").split()[1] == "3"
    assert line(lines, "flags").split()[1:] == _kernels.BUILD["flags"].split()
    assert "-ffast-math" not in line(lines, "flags")
    assert platform.python_version() in line(lines, "python")
    assert platform.machine() in line(lines, "python")
    assert np.__version__ in line(lines, "numpy, scipy")
    assert scipy.__version__ in line(lines, "numpy, scipy")


@pytest.mark.parametrize("isa", _kernels.available)
def test_an_instruction_set_can_be_forced(isa, tmp_path):
    done = python("import sparseopt as so; so.show_config()", tmp_path, SPARSEOPT_ISA=isa)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert line(lines, "instruction set").split()[2] == isa
    marks = {"avx512": "v4", "avx2": "v3"}
    assert [mark for mark in marks.values() if f"-march=x86-64-{mark}" in line(lines, "flags")] == (
        [marks[isa]] if isa in marks else [])


def test_the_best_instruction_set_is_the_default(tmp_path):
    done = python("import sparseopt as so; so.show_config()", tmp_path, SPARSEOPT_ISA="")
    assert line(done.stdout.splitlines(), "instruction set").split()[2] == _kernels.available[0]


@pytest.mark.parametrize("isa", ["avx1024", "AVX2", "cpu", "rowplan", "../evil", " "])
def test_an_unknown_instruction_set_is_an_import_error_that_names_it_and_those_there_are(isa, tmp_path):
    done = python("import sparseopt", tmp_path, SPARSEOPT_ISA=isa)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("ImportError: ")
    assert f"SPARSEOPT_ISA={isa!r}" in said
    assert all(name in said for name in _kernels.available)


PROCESSOR = """
import functools, hashlib, importlib.util, os, sys
from pathlib import Path
# The package is not imported yet: its kernels ask the processor when they are.
found = importlib.util.find_spec("sparseopt")
name = "sparseopt._kernels.cpu"
spec = next(spec for path in Path(found.origin).parent.glob("_kernels/cpu.*")
            if (spec := importlib.util.spec_from_file_location(name, path)) and path.suffix in (".so", ".pyd"))
cpu = sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cpu)
asked = []
cpu.nearest = lambda: asked.append(1) or os.environ["PROCESSOR"]

import numpy as np
import sparseopt as so

rng = np.random.default_rng(0)
sums = hashlib.sha256()
for dtype in (np.float32, np.float64):
    for dim in (1, 8, 16, 17, 32, 48, 64, 128, 300, 1100):
        for rule in (so.SGD, so.RowwiseAdagrad, so.Adagrad, so.Adam, functools.partial(so.Adam, missed="replay")):
            # The second table is larger than `kept` and `reach`.
            for n_rows, threads in ((6000, 3), ((3 << 27) // (dim * np.dtype(dtype).itemsize) + 1, 1)):
                table = so.zeros((n_rows, dim), dtype=dtype)
                opt = rule(table, lr=0.1, num_threads=threads)
                some = rng.choice(6000, 3000, replace=False)        # worth several threads from 16 numbers on
                for rows in (np.sort(some), some, some.astype(np.int32), rng.integers(0, 90, 500),
                             np.arange(100, 450), [7]):
                    opt.step(so.RowGradient(rows, rng.standard_normal((len(rows), dim)).astype(dtype)))
                for array in (table, *opt.state[0].values()):
                    sums.update(array[:6000].tobytes())
assert asked
print(sums.hexdigest())
"""


def test_what_suits_a_processor_changes_no_bit(tmp_path):
    sums = {}
    for name in processors.PROCESSORS:
        done = python(PROCESSOR, tmp_path, PROCESSOR=name)
        assert done.returncode == 0, done.stderr
        sums[name] = done.stdout
    assert len(set(sums.values())) == 1, sums


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_pool_of_forked_workers_trains(tmp_path):
    code = """
import multiprocessing
import numpy as np
import sparseopt as so

def train(seed):
    table = so.normal((5000, 16), seed=seed)
    so.SGD(table, lr=0.5, num_threads=2).step(np.ones((5000, 16)))
    return bool((table == so.normal((5000, 16), seed=seed) - np.float32(0.5)).all())

assert train(0)
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map_async(train, range(4)).get(timeout=600))
"""
    done = python(code, tmp_path)
    assert done.stdout == "[True, True, True, True]\n", done.stderr
