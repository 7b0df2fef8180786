"""The functions that kernels call in float32: within 2 ulp over all magnitudes, and special values."""

from __future__ import annotations

import ctypes
import re

import pytest
import torch
from torch import Tensor

from gdsl.codegen import cpp
from gdsl.runtime import cache

NAMES = ["exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf", "sqrt", "rsqrt"]
# A sigmoid is an exponential, a sum and a quotient, each rounded.
MOST_ULP = dict.fromkeys(NAMES, 2.0) | {"sigmoid": 2.5}


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    text = [cpp.header("prelude.h")]
    for name in NAMES:
        text.append(
            f'extern "C" void map_{name}(int64_t size, const float* __restrict__ x, float* __restrict__ y) {{\n'
            f"#pragma omp simd\nfor (int64_t n = 0; n < size; ++n) y[n] = gdsl::{name}(x[n]); }}"
        )
    return cache.load("\n".join(text), name="prelude")


def evaluate(library: ctypes.CDLL, name: str, x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    call = getattr(library, f"map_{name}")
    call(ctypes.c_int64(len(x)), ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()))
    return y


def sample() -> Tensor:
    """Every 331st float32: all exponents, both signs, subnormals; and a dense grid where functions bend."""
    bits = torch.arange(-(2**31), 2**31, 331, dtype=torch.int64).to(torch.int32).view(torch.float32)
    return torch.cat([bits[bits.isfinite()], torch.linspace(-30, 30, 2_000_003), torch.linspace(-1, 1, 1_000_003)])


@pytest.mark.parametrize("name", NAMES)
def test_within_two_ulp(library: ctypes.CDLL, name: str) -> None:
    x = sample()
    if name == "sigmoid":
        # Further down it is 0, as in torch.
        x = x[x > -87]
    found, exact = evaluate(library, name, x), getattr(torch, name)(x.double())
    rounded = exact.float()
    assert torch.equal(found.isnan(), rounded.isnan())
    # Where the exact value rounds to infinity, or nearly, either side of the end of the numbers is right.
    normal = exact.abs() < 3.4e38
    assert bool((found[~normal & ~exact.isnan()].abs() > 3.4e38).all())
    keep = normal & ~exact.isnan()
    spacing = (torch.nextafter(rounded.abs(), torch.tensor(float("inf"))) - rounded.abs()).double()
    error = ((found.double() - exact).abs() / spacing)[keep]
    worst = int(error.argmax())
    at, off = float(x[keep][worst]), float(error[worst])
    assert off <= MOST_ULP[name], f"{name}({at!r}) is off by {off} ulp"


@pytest.mark.parametrize("name", NAMES)
def test_special_values(library: ctypes.CDLL, name: str) -> None:
    x = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1.0, -1.0, 1e-45, -1e-45, 89.0, -104.0])
    exact = getattr(torch, name)(x.double()).float()
    torch.testing.assert_close(evaluate(library, name, x), exact, equal_nan=True, rtol=3e-7, atol=0)


@pytest.mark.parametrize("name", ["exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf"])
def test_loops_become_vector_code(name: str) -> None:
    """The loop has products or sums of whole vectors and calls no library function."""
    text = (
        cpp.header("prelude.h")
        + f'extern "C" void f(int64_t size, const float* __restrict__ x, float* __restrict__ y) {{\n'
        f"#pragma omp simd\nfor (int64_t n = 0; n < size; ++n) y[n] = gdsl::{name}(x[n]); }}"
    )
    assembly = cache.assembly(text)
    assert not re.search(rf"\bcall\w*\s+{name}f?\b|\bjmp\s+{name}f?\b", assembly)
    if "xmm" in assembly:
        assert re.search(r"v?(mulps|addps|fmadd\d+ps)", assembly)
