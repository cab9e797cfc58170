"""tools/check_wheel.py finds what a compiler left out of a wheel."""

import importlib.util
import platform
from pathlib import Path

import pytest

from sparseopt import _kernels

SCRIPT = Path(__file__).parents[1] / "tools" / "check_wheel.py"
x86 = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="instruction sets of x86-64")


@pytest.fixture
def check_wheel():
    spec = importlib.util.spec_from_file_location("check_wheel", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@x86
@pytest.mark.parametrize("name", ["avx2", "avx512"])
def test_a_wheel_without_an_instruction_set_is_refused(name, check_wheel, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(check_wheel.importlib.util, "find_spec",
                        lambda module: None if module.endswith(f".{name}") else find(module))
    assert f"the instruction set {name} is missing" in check_wheel.faults()


@x86
def test_a_set_of_this_processor_that_the_package_does_not_offer_is_a_fault(check_wheel, monkeypatch):
    monkeypatch.setattr(_kernels, "available", ["baseline"])
    monkeypatch.setattr(_kernels.cpu, "supported", lambda: ["avx2", "baseline"])
    assert any("sparseopt._kernels.available is ['baseline']" in fault for fault in check_wheel.faults())


@pytest.mark.parametrize(("system", "openmp", "fault"), [
    ("linux", False, "OpenMP is missing"), ("win32", False, "OpenMP is missing"),
    ("darwin", True, "the wheel uses OpenMP; a second libomp beside torch's crashes on macOS")])
def test_openmp_is_in_all_wheels_but_those_of_macos(system, openmp, fault, check_wheel, monkeypatch):
    monkeypatch.setattr(check_wheel.sys, "platform", system)
    monkeypatch.setitem(_kernels.BUILD, "openmp", openmp)
    assert fault in check_wheel.faults()
    monkeypatch.setitem(_kernels.BUILD, "openmp", not openmp)
    assert fault not in check_wheel.faults()


def test_instruction_sets_are_those_that_numpy_finds():
    pytest.importorskip("numpy", minversion="2.0", reason="NumPy 1 keeps what it finds in another module")
    from numpy._core._multiarray_umath import __cpu_features__ as found

    assert ("avx2" in _kernels.cpu.supported()) == (found.get("AVX2", False) and found.get("FMA3", False))
    assert ("avx512" in _kernels.cpu.supported()) == found.get("AVX512_SKX", False)
