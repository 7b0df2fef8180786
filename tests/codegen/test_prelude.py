"""The functions that kernels call in float32: within 2 ulp, one within 3, over all magnitudes; and special values."""

from __future__ import annotations

import ctypes
import re

import pytest
import torch
from torch import Tensor

from gdsl.codegen import cpp
from gdsl.runtime import cache

NAMES = ["exp", "expm1", "log", "log1p", "tanh", "sigmoid", "softplus", "erf", "sqrt", "rsqrt", "sin", "cos"]

# Where it is not 2.
MOST_ULP = {"softplus": 3}


def reference(name: str, x: Tensor) -> Tensor:
    """Torch's own, in double; its softplus is not exact."""
    return torch.logaddexp(x, torch.zeros_like(x)) if name == "softplus" else getattr(torch, name)(x)


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    text = [cpp.header("prelude.h")]
    for name in NAMES:
        text.append(
            f'extern "C" void map_{name}(int64_t size, const float* __restrict__ x, float* __restrict__ y) {{\n'
            f"#pragma omp simd\nfor (int64_t n = 0; n < size; ++n) y[n] = gdsl::{name}(x[n]); }}"
        )
    text.append(
        'extern "C" void map_pow(int64_t size, const float* __restrict__ x, const float* __restrict__ p, '
        "float* __restrict__ y) {\n#pragma omp simd\nfor (int64_t n = 0; n < size; ++n) y[n] = gdsl::pow(x[n], p[n]); }"
    )
    return cache.load("\n".join(text), name="prelude")


def evaluate(library: ctypes.CDLL, name: str, *arguments: Tensor) -> Tensor:
    y = torch.empty_like(arguments[0])
    call = getattr(library, f"map_{name}")
    call(ctypes.c_int64(len(y)), *(ctypes.c_void_p(t.data_ptr()) for t in (*arguments, y)))
    return y


def sample() -> Tensor:
    """Every 997th float32: all exponents, both signs, subnormals; and a dense grid where functions bend."""
    bits = torch.arange(-(2**31), 2**31, 997, dtype=torch.int64).to(torch.int32).view(torch.float32)
    return torch.cat([bits[bits.isfinite()], torch.linspace(-30, 30, 2_000_003), torch.linspace(-1, 1, 1_000_003)])


def assert_accurate(found: Tensor, exact: Tensor, name: str, *arguments: Tensor) -> None:
    rounded = exact.float()
    assert torch.equal(found.isnan(), rounded.isnan())
    # Where the exact value rounds to infinity, or nearly, either side of the end of the numbers is right.
    normal = exact.abs() < 3.4e38
    assert bool((found[~normal & ~exact.isnan()].abs() > 3.4e38).all())
    keep = normal & ~exact.isnan()
    spacing = (torch.nextafter(rounded.abs(), torch.tensor(float("inf"))) - rounded.abs()).double()
    error = ((found.double() - exact).abs() / spacing)[keep]
    worst = int(error.argmax())
    at, off = [float(x[keep][worst]) for x in arguments], float(error[worst])
    assert off <= MOST_ULP.get(name, 2), f"{name}{tuple(at)} is off by {off} ulp"


@pytest.mark.parametrize("name", NAMES)
def test_within_a_few_ulp(library: ctypes.CDLL, name: str) -> None:
    x = sample()
    assert_accurate(evaluate(library, name, x), reference(name, x.double()), name, x)


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_large_angles_near_multiples_of_a_quarter_turn(library: ctypes.CDLL, name: str) -> None:
    """The floats nearest to such multiples, 2^72 and beyond: every bit of 2 / pi counts."""
    x = torch.tensor([float.fromhex("0x1.f37bdap+95"), 16367173.0 * 2.0**72, 2.0**127 * 1.9999999, 1e22, 0.5e16])
    x = torch.cat([x, -x, torch.pi / 2 * torch.arange(1.0, 2e5)])
    assert_accurate(evaluate(library, name, x), getattr(torch, name)(x.double()), name, x)


def test_powers(library: ctypes.CDLL) -> None:
    generator = torch.Generator().manual_seed(0)
    x = sample()[::7]
    x = torch.cat([x, x, x, 1 + 1e-3 * torch.randn(len(x), generator=generator)])
    y = torch.cat([torch.randn(len(x) // 2, generator=generator), torch.randint(-9, 10, (len(x) // 4,)).float()])
    y = torch.cat([y, 1e4 * torch.randn(len(x) - len(y), generator=generator)])
    assert_accurate(evaluate(library, "pow", x, y), x.double() ** y.double(), "pow", x, y)


def test_powers_of_special_values(library: ctypes.CDLL) -> None:
    inf = float("inf")
    special = torch.tensor([0.0, 1.0, inf, 0.5, 2.0, 3.0, 1e-45, 3e38, 16777217.0, 2.5])
    special = torch.cat([special, -special, torch.tensor([float("nan")])])
    x, y = (t.flatten().contiguous() for t in torch.meshgrid(special, special, indexing="ij"))
    found, exact = evaluate(library, "pow", x, y), (x.double() ** y.double()).float()
    torch.testing.assert_close(found, exact, equal_nan=True, rtol=3e-7, atol=0)
    assert torch.equal(found.signbit()[~found.isnan()], exact.signbit()[~found.isnan()])


@pytest.mark.parametrize("name", NAMES)
def test_special_values(library: ctypes.CDLL, name: str) -> None:
    x = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1.0, -1.0, 1e-45, -1e-45, 89.0, -104.0])
    exact = reference(name, x.double()).float()
    found = evaluate(library, name, x)
    torch.testing.assert_close(found, exact, equal_nan=True, rtol=3e-7, atol=0)
    assert torch.equal(found.signbit()[~found.isnan()], exact.signbit()[~found.isnan()])


# Where the compiler knows something of the argument, it may make branches of the selects in a function.
KNOWN = {
    "any": "const float v = x[n];",
    "positive": "const float w = (x[n] < 0 ? 0 : x[n]) + 1e-07f, c = w < 1e-4f ? 1e-4f : w > 100.0f ? 100.0f : w;\n"
    "const float v = edges > 0 ? c : 0.5f;",
}


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("name", [*(n for n in NAMES if "sqrt" not in n), "pow"])
def test_loops_become_vector_code(name: str, known: str) -> None:
    """The loop has products or sums of whole vectors and calls no library function."""
    arguments = "v, x[size]" if name == "pow" else "v"
    text = (
        cpp.header("prelude.h")
        + f'extern "C" void f(int64_t size, float edges, const float* __restrict__ x, float* __restrict__ y) {{\n'
        "#pragma omp simd\nfor (int64_t n = 0; n < size; ++n) {\n"
        f"{KNOWN[known]} y[n] = gdsl::{name}({arguments}); }} }}"
    )
    assembly = cache.assembly(text)
    assert not re.search(rf"\bcall\w*\s+{name}f?\b|\bjmp\s+{name}f?\b", assembly)
    if "xmm" in assembly:
        assert re.search(r"v?(mulp[sd]|addp[sd]|fmadd\d+p[sd])", assembly)
