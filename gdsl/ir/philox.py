"""Random numbers that depend on nothing but (seed, salt, index): the generator Philox4x32-10.

A kernel draws the number of any element when it needs it, forward and backward, in any order and on any
device, so that a dropout mask is never stored. Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", SC 2011.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Word = int | Tensor

ROUNDS = 10
MULTIPLIER = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF

# Elements drawn at a time: on a CPU so few that the temporaries stay in the cache and torch starts no
# threads.
CPU_CHUNK, GPU_CHUNK = 1 << 15, 1 << 24

CPP_SOURCE = """\
// Philox4x32-10: the n-th number of the stream (seed, salt), in [0, 1), a multiple of 2^-24.
static inline float gdsl_uniform(uint64_t seed, uint32_t salt, uint64_t n) {
    uint32_t c0 = (uint32_t)n, c1 = (uint32_t)(n >> 32), c2 = salt, c3 = 0;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    // A signed conversion, which every SIMD set has; the value is below 2^24, so it is exact.
    return (float)(int32_t)(c0 >> 8) * 0x1p-24f;
}

#ifdef __SSE2__
// Words in lanes of 64 bits, which need not be moved: a product of 32 bits reads the low half of a lane and writes all
// of it. What lies above a word is left there.
#if defined(__AVX512F__)
enum { gdsl_words = 8 };
#elif defined(__AVX2__)
enum { gdsl_words = 4 };
#else
enum { gdsl_words = 2 };
#endif
typedef uint64_t gdsl_word __attribute__((vector_size(8 * gdsl_words)));
template <class X> struct gdsl_lanes {
    typedef X type __attribute__((vector_size(sizeof(X) * gdsl_words)));
};

static inline __attribute__((always_inline)) gdsl_word gdsl_product(gdsl_word a, uint64_t factor) {
    const gdsl_word b = (gdsl_word){} + factor;
#ifdef __clang__  // sees the product of 32 bits in one of 64
    return (a & 0xFFFFFFFFu) * b;
#else
    typedef int32_t half __attribute__((vector_size(8 * gdsl_words)));
#if defined(__AVX512F__)
    typedef gdsl_lanes<long long>::type wide;
    return (gdsl_word)__builtin_ia32_pmuludq512_mask((half)a, (half)b, (wide){}, 0xff);
#elif defined(__AVX2__)
    return (gdsl_word)__builtin_ia32_pmuludq256((half)a, (half)b);
#else
    return (gdsl_word)__builtin_ia32_pmuludq128((half)a, (half)b);
#endif
#endif
}

// The n-th numbers of a stream.
template <class X>
static inline __attribute__((always_inline)) typename gdsl_lanes<X>::type gdsl_some(
    uint64_t seed, uint32_t salt, gdsl_word n) {
    gdsl_word c0 = n, c1 = n >> 32, c2 = (gdsl_word){} + salt, c3 = {};
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
        const gdsl_word p0 = gdsl_product(c0, 0xD2511F53u), p1 = gdsl_product(c2, 0xCD9E8D57u);
        c0 = (p1 >> 32) ^ c1 ^ (uint64_t)k0;
        c2 = (p0 >> 32) ^ c3 ^ (uint64_t)k1;
        c1 = p1;
        c3 = p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const gdsl_lanes<uint32_t>::type word = __builtin_convertvector(c0, gdsl_lanes<uint32_t>::type);
    const gdsl_lanes<int32_t>::type bits = (gdsl_lanes<int32_t>::type)(word >> 8);
    return __builtin_convertvector(bits, typename gdsl_lanes<X>::type) * (X)0x1p-24;
}
#endif

// So many numbers of a stream, from one on: those of gdsl_uniform.
template <int count, class X>
static inline __attribute__((always_inline)) void gdsl_uniforms(uint64_t seed, uint32_t salt, uint64_t first, X* out) {
    int at = 0;
#ifdef __SSE2__
    static const uint64_t lanes[] = {0, 1, 2, 3, 4, 5, 6, 7};
    gdsl_word n;
    __builtin_memcpy(&n, lanes, sizeof n);
    n += first;
    for (; at + gdsl_words <= count; at += gdsl_words) {
        const typename gdsl_lanes<X>::type some = gdsl_some<X>(seed, salt, n + (uint64_t)at);
        __builtin_memcpy(out + at, &some, sizeof some);
    }
    if constexpr (count % gdsl_words != 0) {
        const typename gdsl_lanes<X>::type some = gdsl_some<X>(seed, salt, n + (uint64_t)at);
        __builtin_memcpy(out + at, &some, count % gdsl_words * sizeof(X));
    }
#else
#pragma omp simd
    for (at = 0; at < count; ++at) out[at] = gdsl_uniform(seed, salt, first + at);
#endif
}

// The numbers of a stream that are listed, but no more than 32.
template <class X, class I>
static inline __attribute__((always_inline)) void gdsl_listed(
    uint64_t seed, uint32_t salt, const I* list, int64_t count, X* out) {
#ifdef __SSE2__
    uint64_t n[32];  // all of them at once: a vector is not to wait for its own numbers to be written
    for (int k = 0; k < 32; ++k) n[k] = (uint64_t)list[k < count ? k : 0];
    for (int at = 0; at < 32 && at < count; at += gdsl_words) {
        gdsl_word some;
        __builtin_memcpy(&some, n + at, sizeof some);
        const typename gdsl_lanes<X>::type drawn = gdsl_some<X>(seed, salt, some);
        __builtin_memcpy(out + at, &drawn, sizeof drawn);
    }
#else
    for (int at = 0; at < 32 && at < count; ++at) out[at] = gdsl_uniform(seed, salt, (uint64_t)list[at]);
#endif
}
"""


def uniform(
    seed: int | Tensor,
    salt: int,
    shape: Sequence[int],
    device: torch.device | str,
    dtype: torch.dtype,
    rows: Tensor | None = None,
) -> Tensor:
    """Numbers in [0, 1) of the given shape, multiples of 2^-24: the element of row-major index n is the n-th
    of the stream (seed, salt). ``seed`` is an int or a 0-dim int64 tensor, of which 64 bits count; of
    ``salt`` 32. With ``rows``, int64 of as many rows, the numbers of row k are those of row ``rows[k]``.

    In a ``dtype`` narrower than float32 a number may round up to 1.
    """
    count, width = math.prod(shape), math.prod(shape[1:])
    out = torch.empty(count, device=device, dtype=dtype)
    if isinstance(seed, Tensor):
        seed = seed.to(out.device)
    key = seed & MASK, (seed >> 32) & MASK
    chunk = CPU_CHUNK if out.is_cpu else GPU_CHUNK
    for start in range(0, count, chunk):
        n = torch.arange(start, min(start + chunk, count), device=device)
        if rows is not None:
            n = rows[n // width] * width + n % width
        word = philox((n & MASK, n >> 32, torch.full_like(n, salt & MASK), torch.zeros_like(n)), key)[0]
        out[start : start + chunk] = (word >> 8).to(torch.float32) * 2.0**-24
    return out.view(*shape)


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[Word, Word]) -> tuple[Any, Any, Any, Any]:
    """Four words of 32 random bits, in [0, 2^32), for four words of a counter, integers or int64 tensors, and two of a
    key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _multiply(MULTIPLIER[0], c0)
        high1, low1 = _multiply(MULTIPLIER[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def _multiply(a: int, b: Any) -> tuple[Any, Any]:
    """The high and the low word of a * b, which may wrap around to a negative int64, but keeps its bits."""
    product = a * b
    return (product >> 32) & MASK, product & MASK
