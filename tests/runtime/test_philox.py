"""Philox4x32-10: the published answers, and the same bits from torch and from C++."""

from __future__ import annotations

import ctypes

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdsl.ir import philox
from gdsl.runtime import cache

# From the known-answer tests of Random123: counter, key, output.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(int(word, 16)) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    assert philox.philox(words(counter), words(key)) == words(expected)


# What hides the widest vectors from the source, one set after the other: those of any processor are tried on this one.
NARROWER = ["", "AVX512F", "AVX512F AVX2", "AVX512F AVX2 SSE2"]
# Two of the widest vectors, and a part of one of any width.
TOGETHER = 19


@pytest.fixture(scope="module", params=NARROWER)
def compiled(tmp_path_factory, request):
    """Numbers of a stream, drawn one by one, so many together, and from a list."""
    if cache.find_compiler() is None:
        pytest.skip("no C++ compiler")
    source = "".join(f"#undef __{name}__\n" for name in request.param.split()) + "#include <stdint.h>\n"
    source += (
        philox.CPP_SOURCE
        + "#define GIVEN uint64_t seed, uint32_t salt, uint64_t start, int64_t count\n"
        + """
extern "C" void fill(GIVEN, float* out) {
    #pragma omp simd
    for (int64_t n = 0; n < count; ++n) out[n] = gdsl_uniform(seed, salt, start + n);
}
template <class X> static void fill_together(GIVEN, X* out) {
    int64_t n = 0;
    for (; n + TOGETHER <= count; n += TOGETHER) gdsl_uniforms<TOGETHER>(seed, salt, start + n, out + n);
    for (; n < count; ++n) gdsl_uniforms<1>(seed, salt, start + n, out + n);
}
extern "C" void fill_listed(GIVEN, float* out) {
    for (int64_t n = 0; n < count; n += 32) {
        uint64_t list[32];
        for (int k = 0; k < 32 && n + k < count; ++k) list[k] = start + count - 1 - n - k;
        float drawn[32];
        gdsl_listed(seed, salt, list, count - n, drawn);
        for (int k = 0; k < 32 && n + k < count; ++k) out[count - 1 - n - k] = drawn[k];
    }
}
extern "C" void fill_float(GIVEN, float* out) { fill_together(seed, salt, start, count, out); }
extern "C" void fill_double(GIVEN, double* out) { fill_together(seed, salt, start, count, out); }
""".replace("TOGETHER", str(TOGETHER))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GDSL_CACHE", str(tmp_path_factory.mktemp("cache") / "gdsl"))
        library = cache.load(source, name="philox")
    functions = [library.fill, library.fill_float, library.fill_listed, library.fill_double]
    for function in functions:
        function.argtypes = [ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64, ctypes.c_void_p]
        function.restype = None

    def uniform(seed: int, salt: int, count: int, start: int = 0) -> torch.Tensor:
        ways = [*(torch.empty(count) for _ in range(3)), torch.empty(count, dtype=torch.float64)]
        for function, out in zip(functions, ways, strict=True):
            function(seed, salt, start, count, out.data_ptr())
        assert all(torch.equal(ways[0].double(), way.double()) for way in ways)
        return ways[0]

    return uniform


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 300))
def test_torch_and_cpp_agree(compiled, seed, salt, count):
    assert torch.equal(philox.uniform(seed, salt, (count,), "cpu", torch.float32), compiled(seed, salt, count))


def test_torch_and_cpp_agree_over_several_chunks(compiled):
    count = 2 * philox.CPU_CHUNK + 5
    drawn = philox.uniform(1, 2, (count,), "cpu", torch.float32)
    assert torch.equal(drawn, compiled(1, 2, count))


def test_indices_above_32_bits(compiled):
    start = 2**32 + 5
    n = torch.arange(start, start + 9)
    counter = (n & philox.MASK, n >> 32, torch.full_like(n, 7), torch.zeros_like(n))
    expected = (philox.philox(counter, (3, 0))[0] >> 8).float() * 2.0**-24
    assert torch.equal(compiled(3, 7, 9, start), expected)
    assert not torch.equal(compiled(3, 7, 9, start), compiled(3, 7, 9, 5))


def test_shape_seed_and_dtype():
    flat = philox.uniform(5, 1, (24,), "cpu", torch.float32)
    assert torch.equal(philox.uniform(5, 1, (4, 3, 2), "cpu", torch.float32), flat.view(4, 3, 2))
    assert torch.equal(philox.uniform(5, 1, (24,), "cpu", torch.float64), flat.double())
    assert philox.uniform(5, 1, (0, 3), "cpu", torch.float32).shape == (0, 3)
    for seed in (5, -1, 2**63 - 1, -(2**63)):
        drawn = philox.uniform(torch.tensor(seed), 1, (24,), "cpu", torch.float32)
        assert torch.equal(drawn, philox.uniform(seed, 1, (24,), "cpu", torch.float32))
    assert torch.equal(
        philox.uniform(2**64 - 1, 1, (24,), "cpu", torch.float32),
        philox.uniform(-1, 1, (24,), "cpu", torch.float32),
    )


def test_streams_differ():
    streams = [(seed, salt) for seed in (0, 1, 2**32) for salt in (0, 1)]
    draws = [philox.uniform(seed, salt, (100,), "cpu", torch.float32) for seed, salt in streams]
    for n, one in enumerate(draws):
        assert all((one != other).sum() > 95 for other in draws[:n])


def test_uniform():
    drawn = philox.uniform(11, 4, (200_000,), "cpu", torch.float64)
    assert drawn.min() >= 0 and drawn.max() < 1
    assert torch.equal(drawn * 2**24, (drawn * 2**24).round())
    assert abs(drawn.mean() - 0.5) < 4 * (1 / 12 / drawn.numel()) ** 0.5
    counts = torch.histc(drawn, 64, 0, 1)
    expected = drawn.numel() / 64
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * (2 * 63) ** 0.5
    assert abs(torch.corrcoef(torch.stack([drawn[:-1], drawn[1:]]))[0, 1]) < 0.01


@pytest.mark.gpu
def test_on_a_gpu():
    cpu = philox.uniform(5, 1, (100_000,), "cpu", torch.float32)
    assert torch.equal(philox.uniform(5, 1, (100_000,), "cuda", torch.float32).cpu(), cpu)
