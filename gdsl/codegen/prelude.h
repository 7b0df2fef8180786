// Functions that generated kernels call. No torch headers and no C++ library: a kernel compiles in a fraction of a
// second. Every function treats NaN and infinity as torch does. Float functions are branch-free, so that a loop over
// features that calls them becomes SIMD code.
#include <stdint.h>
#include <stdlib.h>

extern "C" int omp_get_thread_num(void);

namespace gdsl {

typedef float f32;
typedef double f64;

// The lanes of a sum, added in pairs: the second half to the first, until one is left.
template <int n, class X> struct Lanes {
    typedef X type __attribute__((vector_size(n * sizeof(X))));
};
template <int n, class X> static inline X sum(const X* lane) {
    typename Lanes<n / 2, X>::type low, high;
    __builtin_memcpy(&low, lane, sizeof low);
    __builtin_memcpy(&high, lane + n / 2, sizeof high);
    low += high;
    if constexpr (n == 2) {
        return low[0];
    } else {
        X half[n / 2];
        __builtin_memcpy(half, &low, sizeof low);
        return sum<n / 2>(half);
    }
}

static inline f32 as_float(uint32_t bits) { return __builtin_bit_cast(f32, bits); }
static inline uint32_t as_bits(f32 x) { return __builtin_bit_cast(uint32_t, x); }

// The number, of which the compiler knows nothing: bits are or-ed to it that the compiler does not know to be 0. A product
// stays one, and is not made with a sum that it is in by one instruction, which rounds once. And selects stay selects:
// where the compiler knows x in one case, as after relu, it makes branches of them, which keep a loop from becoming SIMD
// code; so would inline asm.
extern "C" {
uint64_t gdsl_no_bits = 0;
}
static inline f32 opaque(f32 x) { return as_float(as_bits(x) | (uint32_t)gdsl_no_bits); }
static inline f64 opaque(f64 x) { return __builtin_bit_cast(f64, __builtin_bit_cast(uint64_t, x) | gdsl_no_bits); }

// A condition that is the same for a whole loop: as a comparison of floats gcc has it choose between vectors.
static inline bool holds(bool given) { return opaque((f32)given) != 0; }

// exp: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial in r, and 2^n in two factors, so that results below the
// smallest normal number are right too. Within 2 ulp.
static inline f32 exp(f32 x) {
    const f32 magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    f32 clamped = x < -104.0f ? -104.0f : x;
    clamped = clamped > 89.0f ? 89.0f : clamped;
    const f32 n = (clamped * 1.44269504f + magic) - magic;
    const f32 r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
    f32 p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const int32_t k = (int32_t)(n == n ? n : 0.0f), half = k >> 1;
    return p * as_float((uint32_t)(half + 127) << 23) * as_float((uint32_t)(k - half + 127) << 23);
}
static inline f64 exp(f64 x) { return __builtin_exp(x); }

// expm1: as exp, with 2^n taken apart: 2^n (e^r - 1) + (2^n - 1) loses nothing near 0, where n is 0, and far from it 1
// is lost beside e^x. Within 2 ulp.
static inline f32 expm1(f32 given) {
    const f32 x = opaque(given);
    const f32 magic = 12582912.0f;
    f32 clamped = x < -30.0f ? -30.0f : x;
    clamped = clamped > 89.0f ? 89.0f : clamped;
    const f32 n = (clamped * 1.44269504f + magic) - magic;
    const f32 r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
    f32 p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r;
    const int32_t k = (int32_t)(n == n ? n : 0.0f), half = k >> 1;
    const f32 low = as_float((uint32_t)(half + 127) << 23), high = as_float((uint32_t)(k - half + 127) << 23);
    const f32 scale = low * high;
    const f32 near = scale * p + (scale - 1.0f), far = (p + 1.0f) * low * high;
    const f32 result = x > 80.0f ? far : near;
    return x == 0 ? x : result;
}
static inline f64 expm1(f64 x) { return __builtin_expm1(x); }

// log: x = 2^e (1 + m) with 1 + m between sqrt(1/2) and sqrt(2), and a polynomial in m. Within 2 ulp.
static inline f32 log(f32 given) {
    const f32 x = opaque(given);
    const f32 scaled = x < 1.17549435e-38f ? x * 8388608.0f : x;
    const uint32_t bits = as_bits(scaled);
    const f32 half = as_float((bits & 0x007fffffu) | 0x3f000000u);
    const bool low = half < 0.707106781f;
    const f32 shift = (low ? 127.0f : 126.0f) + (x < 1.17549435e-38f ? 23.0f : 0.0f);
    const f32 e = (f32)(int32_t)(bits >> 23) - shift;
    const f32 m = (low ? half + half : half) - 1.0f, s = m * m;
    f32 p = 7.0376836292e-2f;
    p = p * m + -1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m + -1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m + -1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m + -2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    const f32 tail = p * m * s + e * -2.12194440e-4f - 0.5f * s;
    f32 y = m + tail + e * 0.693359375f;
    y = x == __builtin_inff() ? x : y;
    y = x == 0 ? -__builtin_inff() : y;
    return x >= 0 ? y : __builtin_nanf("");
}
static inline f64 log(f64 x) { return __builtin_log(x); }

// log1p: the logarithm of 1 + x as it is rounded, and what the rounding lost. Within 2 ulp.
static inline f32 log1p(f32 x) {
    const f32 u = 1.0f + x, lost = x - (u - 1.0f);
    const f32 y = log(u) + lost / u;
    const f32 end = u == 0 ? -__builtin_inff() : x;
    return u == 0 || x == __builtin_inff() || x == 0 ? end : y;
}
static inline f64 log1p(f64 x) { return __builtin_log1p(x); }

static inline f32 sqrt(f32 x) { return __builtin_sqrtf(x); }
static inline f64 sqrt(f64 x) { return __builtin_sqrt(x); }
static inline f32 rsqrt(f32 x) { return 1.0f / __builtin_sqrtf(x); }
static inline f64 rsqrt(f64 x) { return 1.0 / __builtin_sqrt(x); }

// pow: 2^(y log2 |x|), in double, so that an error of the logarithm is still small after it is multiplied by y. The
// signs and the cases in which a limit does not exist are those of C. Within 1 ulp.
static inline f32 pow(f32 base, f32 y) {
    const f32 x = opaque(base);
    const f32 a = __builtin_fabsf(x), scaled = a < 1.17549435e-38f ? a * 8388608.0f : a;
    const uint32_t bits = as_bits(scaled);
    const f32 half = as_float((bits & 0x007fffffu) | 0x3f000000u);
    const bool low = half < 0.707106781f;
    const f32 shift = (low ? 127.0f : 126.0f) + (a < 1.17549435e-38f ? 23.0f : 0.0f);
    const f64 e = (f32)(int32_t)(bits >> 23) - shift, m = low ? half + half : half;
    // log2 m = 2 / ln 2 artanh z
    const f64 z = (m - 1.0) / (m + 1.0), s = z * z;
    f64 p = s * (1.0 / 13) + 1.0 / 11;
    p = p * s + 1.0 / 9;
    p = p * s + 1.0 / 7;
    p = p * s + 1.0 / 5;
    p = p * s + 1.0 / 3;
    f64 power = e + (p * s * z + z) * 2.8853900817779268;
    power = a == __builtin_inff() ? __builtin_inf() : power;
    power = (a == 0 ? -__builtin_inf() : power) * y;
    power = power < -200.0 ? -200.0 : power;
    power = power > 200.0 ? 200.0 : power;
    const f64 n = __builtin_rint(power), r = (power - n) * 0.69314718055994531;
    f64 q = r * (1.0 / 40320) + 1.0 / 5040;
    q = q * r + 1.0 / 720;
    q = q * r + 1.0 / 120;
    q = q * r + 1.0 / 24;
    q = q * r + 1.0 / 6;
    q = q * r + 0.5;
    q = q * r * r + r + 1.0;
    const f64 scale = __builtin_bit_cast(f64, (int64_t)((int32_t)(n == n ? n : 0.0) + 1023) << 52);
    const f32 size = (f32)(q * scale), half_y = 0.5f * y;
    const bool whole = __builtin_floorf(y) == y, odd = whole && __builtin_floorf(half_y) != half_y;
    f32 result = odd && as_bits(x) >> 31 ? -size : size;
    result = x < 0 && a != __builtin_inff() && !whole ? __builtin_nanf("") : result;
    result = x != x || y != y ? __builtin_nanf("") : result;
    // Ones whatever the other number is, NaN too; a power of -1 without end has the size 1.
    result = a == 1 && __builtin_fabsf(y) == __builtin_inff() ? 1.0f : result;
    return x == 1 || y == 0 ? 1.0f : result;
}
static inline f64 pow(f64 x, f64 y) { return __builtin_pow(x, y); }

// Adds x times 29 bits of 2 / pi, an angle in quarter turns, to a whole number, of which the remainder by 4 matters,
// and a rest of at most 1/2 in size. The product is exact, and so are its parts.
static inline __attribute__((always_inline)) void add_angle(f64 x, f64 bits, f64& whole, f64& rest) {
    const f64 part = x * bits, n = __builtin_rint(part);
    whole += n - 4.0 * __builtin_rint(0.25 * n);
    rest += part - n;
}

// The sine of x and some quarter turns. The angle is taken modulo a whole turn with as many bits of 2 / pi as the
// largest numbers need, in double; then Taylor's polynomials for up to 1/8 turn. Within 1 ulp for every x.
static inline f32 sine(f32 x, int32_t turn) {
    f64 whole = 0.0, rest = 0.0;
    add_angle(x, 0x145f306dp-29, whole, rest);
    add_angle(x, 0x19391054p-58, whole, rest);
    add_angle(x, 0x14fe13abp-87, whole, rest);
    add_angle(x, 0x1d1f534dp-116, whole, rest);
    add_angle(x, 0x1b81b6c5p-145, whole, rest);
    add_angle(x, 0x5664f10p-174, whole, rest);
    add_angle(x, 0x1c820ff2p-203, whole, rest);
    const f64 n = __builtin_rint(rest), r = (rest - n) * 1.5707963267948966, s = r * r;
    const int32_t quadrant = (int32_t)(n == n ? whole + n : 0.0) + turn;
    f64 odd = s * (1.0 / 362880) - 1.0 / 5040;
    odd = odd * s + 1.0 / 120;
    odd = odd * s - 1.0 / 6;
    odd = odd * s * r + r;
    f64 even = s * (-1.0 / 3628800) + 1.0 / 40320;
    even = even * s - 1.0 / 720;
    even = even * s + 1.0 / 24;
    even = even * s - 0.5;
    even = even * s + 1.0;
    const f32 size = (f32)(quadrant & 1 ? even : odd);
    return quadrant & 2 ? -size : size;
}
static inline f32 sin(f32 x) { return x == 0 ? x : sine(x, 0); }
static inline f64 sin(f64 x) { return __builtin_sin(x); }
static inline f32 cos(f32 x) { return sine(x, 1); }
static inline f64 cos(f64 x) { return __builtin_cos(x); }

static inline f32 acos(f32 x) { return __builtin_acosf(x); }
static inline f64 acos(f64 x) { return __builtin_acos(x); }
static inline f32 atan2(f32 y, f32 x) { return __builtin_atan2f(y, x); }
static inline f64 atan2(f64 y, f64 x) { return __builtin_atan2(y, x); }
// erf: an odd polynomial near 0, and 1 - exp of a polynomial further out. Within 2 ulp.
static inline f32 erf(f32 x) {
    const f32 t = __builtin_fabsf(x), s = x * x;
    f32 far = -1.72853470e-5f * t + 3.83197126e-4f;
    far = far * s + (-3.88396438e-3f * t + 2.42546219e-2f);
    far = far * t + -1.06777877e-1f;
    far = far * t + -6.34846687e-1f;
    far = far * t + -1.28717512e-1f;
    far = 1.0f - exp(far * t - t);
    f32 near = -5.96761703e-4f;
    near = near * s + 4.99119423e-3f;
    near = near * s + -2.67681349e-2f;
    near = near * s + 1.12819925e-1f;
    near = near * s + -3.76125336e-1f;
    near = near * s + 1.28379166e-1f;
    near = near * x + x;
    return t > 0.927734375f ? (x < 0 ? -far : far) : near;
}
static inline f64 erf(f64 x) { return __builtin_erf(x); }
static inline f32 floor(f32 x) { return __builtin_floorf(x); }
static inline f64 floor(f64 x) { return __builtin_floor(x); }
static inline f32 abs(f32 x) { return __builtin_fabsf(x); }
static inline f64 abs(f64 x) { return __builtin_fabs(x); }
static inline int64_t abs(int64_t x) { return x < 0 ? -x : x; }

template <class T> static inline T maximum(T a, T b) { return a != a ? a : (a < b || b != b ? b : a); }
template <class T> static inline T minimum(T a, T b) { return a != a ? a : (b < a || b != b ? b : a); }

// tanh by exp(-2|x|) loses digits near 0, where the odd polynomial takes over.
static inline f32 tanh(f32 x) {
    const f32 a = abs(x), e = exp(-2.0f * a), s = x * x;
    const f32 far = (1.0f - e) / (1.0f + e);
    f32 p = -5.70498872745e-3f;
    p = p * s + 2.06390887954e-2f;
    p = p * s + -5.37397155531e-2f;
    p = p * s + 1.33314422036e-1f;
    p = p * s + -3.33332819422e-1f;
    const f32 near = p * s * a + a;
    return __builtin_copysignf(a < 0.625f ? near : far, x);
}
static inline f64 tanh(f64 x) { return __builtin_tanh(x); }

// By the exponential that is at most 1: nothing overflows. The quotient is at most 1/2, so that its rounding counts
// little in what is left when it is taken off. Within 2 ulp.
template <class T> static inline T sigmoid(T x) {
    const T e = exp(-abs(x)), share = e / (T(1) + e), whole = x < 0 ? e : T(1);
    return whole - whole * share;
}
// softplus: max(x, 0) + log(1 + e) with e = exp(-|x|), which a sigmoid of the same x has computed; the logarithm is
// 2 artanh z at z = e / (2 + e), at most 1/3. Within 3 ulp, of which e's own rounding is the most.
static inline f32 softplus(f32 x) {
    const f32 e = exp(-abs(x)), z = e / (2.0f + e), s = z * z;
    f32 p = s * (1.0f / 13) + 1.0f / 11;
    p = p * s + 1.0f / 9;
    p = p * s + 1.0f / 7;
    p = p * s + 1.0f / 5;
    p = p * s + 1.0f / 3;
    const f32 twice = z + z, log = p * s * twice + twice;
    return x > 0 ? x + log : log;
}
static inline f64 softplus(f64 x) { return maximum(x, 0.0) + log1p(exp(-abs(x))); }
template <class T> static inline T sign(T x) { return T(x > 0) - T(x < 0); }

// What an accumulator of a maximum or minimum holds after one more value. NaN wins, as in torch. In steps of one choice
// each: a compiler turns these into vector code, and not the same conditions in one expression.
template <class T> static inline T larger(T held, T x) {
    const T found = x > held ? x : held;
    return x != x ? x : found;
}
template <class T> static inline T smaller(T held, T x) {
    const T found = x < held ? x : held;
    return x != x ? x : found;
}
// The number of the winner: the new one's where it is the first, or where the best value has become another.
template <class T, class I> static inline I winner(I held, I number, T before, T now) {
    const I changed = before != before ? held : number;
    const I found = now == before ? held : changed;
    return held < 0 ? number : found;
}

// How many values are the best: one more where the new value is, from none where the best value has become another.
template <class T, class I> static inline I tally(I held, I number, T before, T now, T x) {
    const I same = now == before ? held : I(0);
    const I kept = before != before ? held : same;
    const I more = x == now ? number : I(0);
    return kept + (x != x ? number : more);
}

static inline f32 mod(f32 a, f32 b) {
    const f32 r = __builtin_fmodf(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
static inline f64 mod(f64 a, f64 b) {
    const f64 r = __builtin_fmod(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

// An index below bound, whatever x is: rounded towards zero and clamped; NaN gives 0.
template <class T> static inline int64_t to_int(T x, int64_t bound) {
    const T top = T(bound - 1);
    const T inside = x > 0 ? (x < top ? x : top) : T(0);
    return (int64_t)inside;
}

}  // namespace gdsl
