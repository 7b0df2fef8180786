// Products of matrices with many rows, for processors on which torch's library leaves half of a vector unused:
// gdsl/runtime/products.py says which. Tiles of the result stay in registers while the summed dim runs. Every number is
// summed in an order that only the sizes decide, so that results are the same bits for any number of threads.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// What pays is written out below, as vectors and unrolled loops. What gcc tries besides at its third level takes it
// more than half of its time, and makes nothing faster.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O2")
#endif

namespace {

// A tile is so many rows by so many vectors: with the vectors of the matrix and one factor it fits the registers.
#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64, TALL = 6, WIDE = 4 };
#elif defined(__AVX__)
enum { VECTOR_BYTES = 32, TALL = 6, WIDE = 2 };
#else
enum { VECTOR_BYTES = 16, TALL = 6, WIDE = 2 };
#endif

// Keeps a vector that all rows of a tile read in a register: the compiler would load it again for each of them.
#if defined(__x86_64__)
#define IN_REGISTER(x) asm("" : "+v"(x))
#else
#define IN_REGISTER(x)
#endif

// So much of the summed dim at a time, and so many rows: a part of the matrix, and of the rows, stays in a cache.
constexpr int64_t DEEP = 256, BLOCK = 64 * TALL;
// A matrix as wide as this is copied, so that what a tile reads lies together.
constexpr int64_t MOST_WIDE = 512;
// Sums over rows are of so many stretches of rows at most, each of at least so many; where they are many, of one.
constexpr int64_t STRETCHES = 16, STRETCH = 1024, MOST_SUMS = 1 << 16;
// Threads are for more products of two numbers than this.
constexpr int64_t FEW = 1 << 20;

template <class T> struct vector_of {
    typedef T type __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(T)), may_alias));
    enum { LANES = VECTOR_BYTES / sizeof(T), PANEL = WIDE * LANES };
};

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// The left operand: the number of row m at k is at[m * lead + k * step].
template <class T> struct Left {
    const T* at;
    int64_t lead, step;
    Left from(int64_t m, int64_t k) const { return {at + m * lead + k * step, lead, step}; }
};

// Some columns of the right operand: vectors of which the last has ``rest`` numbers that count.
template <class T> struct Right {
    const T* at;
    int64_t stride;
    int vectors, rest;
};

// What is added to a product: numbers at ``at``, rows ``lead`` apart, or nothing.
template <class T> struct Base {
    const T* at;
    int64_t lead;
};

template <int M, int C, class T>
inline __attribute__((always_inline)) void tile(int64_t depth, Left<T> a, Right<T> b, Base<T> base, T* to,
                                                int64_t width) {
    typedef typename vector_of<T>::type V;
    enum { LANES = vector_of<T>::LANES };
    V sum[M][C];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) sum[m][v] = V{};
    for (int64_t k = 0; k < depth; ++k) {
        V row[C];
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) {
            row[v] = *(const V*)(b.at + v * LANES);
            IN_REGISTER(row[v]);
        }
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            const T factor = a.at[m * a.lead];
#pragma GCC unroll 8
            for (int v = 0; v < C; ++v) sum[m][v] += factor * row[v];
        }
        a.at += a.step, b.at += b.stride;
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) {
            const T* const more = base.at + m * base.lead + v * LANES;
            T* const here = to + m * width + v * LANES;
            if (v < C - 1 || b.rest == LANES) {
                *(V*)here = base.at ? sum[m][v] + *(const V*)more : sum[m][v];
            } else {
                V last{};
                if (base.at) memcpy(&last, more, b.rest * sizeof(T));
                last += sum[m][v];
                memcpy(here, &last, b.rest * sizeof(T));
            }
        }
    }
}

template <int M, class T>
void columns(int64_t depth, Left<T> a, Right<T> b, Base<T> base, T* to, int64_t width) {
    switch (b.vectors) {
        case 1: return tile<M, 1>(depth, a, b, base, to, width);
        case 2: return tile<M, 2>(depth, a, b, base, to, width);
#if defined(__AVX512F__)
        case 3: return tile<M, 3>(depth, a, b, base, to, width);
        case 4: return tile<M, 4>(depth, a, b, base, to, width);
#endif
    }
}

// Rows of the result, as many as a tile has at a time. In line, so that which of the distances are 1 is known.
template <class T>
inline __attribute__((always_inline)) void panel(int64_t rows, int64_t depth, Left<T> a, Right<T> b, Base<T> base,
                                                 T* to, int64_t width) {
    for (int64_t m = 0; m < rows; m += TALL) {
        const Left<T> left = a.from(m, 0);
        const Base<T> more = {base.at ? base.at + m * base.lead : nullptr, base.lead};
        T* const here = to + m * width;
        if (rows - m >= TALL) columns<TALL>(depth, left, b, more, here, width);
        else if (rows - m >= 3) columns<3>(depth, left, b, more, here, width), m -= TALL - 3;
        else columns<1>(depth, left, b, more, here, width), m -= TALL - 1;
    }
}

// Rows of ``count`` columns, ``width`` apart, as a panel of whole vectors, filled with zeros.
template <class T> void copy_panel(const T* from, int64_t depth, int64_t width, int64_t count, T* to) {
    enum { PANEL = vector_of<T>::PANEL };
    for (int64_t k = 0; k < depth; ++k) {
        memcpy(to + k * PANEL, from + k * width, count * sizeof(T));
        memset(to + k * PANEL + count, 0, (PANEL - count) * sizeof(T));
    }
}

// The same of a matrix that lies as columns, ``apart`` from each other; those from n on.
template <class T> void turn_panel(const T* from, int64_t depth, int64_t apart, int64_t count, int64_t n, T* to) {
    enum { PANEL = vector_of<T>::PANEL, SQUARE = 16 };
    for (int64_t k0 = 0; k0 < depth; k0 += SQUARE) {
        const int64_t most = smaller(depth, k0 + SQUARE);
        for (int64_t c = 0; c < count; ++c) {
            const T* const column = from + (n + c) * apart;
            for (int64_t k = k0; k < most; ++k) to[k * PANEL + c] = column[k];
        }
        for (int64_t k = k0; k < most; ++k) memset(to + k * PANEL + count, 0, (PANEL - count) * sizeof(T));
    }
}

// Columns of a matrix of ``depth`` rows from k and n on, as tiles read them: as they lie, or copied to ``room``.
template <class T> struct Panels {
    const T* at;
    int64_t width, depth;
    bool turned, copied;

    Panels(const T* at, int64_t width, int64_t depth, bool turned, int64_t rows)
        : at(at), width(width), depth(depth), turned(turned) {
        // What few rows read once is not worth a copy.
        copied = turned || width % vector_of<T>::LANES || (width > MOST_WIDE && rows > TALL);
    }

    Right<T> from(int64_t k, int64_t n, T* room) const {
        enum { LANES = vector_of<T>::LANES, PANEL = vector_of<T>::PANEL };
        const int64_t count = smaller(PANEL, width - n), vectors = (count + LANES - 1) / LANES;
        const int64_t many = smaller(DEEP, depth - k);
        const int rest = (int)(count - (vectors - 1) * LANES);
        if (!copied) return {at + k * width + n, width, (int)vectors, rest};
        if (turned) turn_panel(at + k, many, depth, count, n, room);
        else copy_panel(at + k * width + n, many, width, count, room);
        return {room, PANEL, (int)vectors, rest};
    }
};

// -- by one vector: what tiles would leave most of a vector unused for --

// to[n] = a row of a matrix, which lie one after the other, times a vector, plus base.at[n * base.lead]. Each is summed in
// the same order wherever it stands.
template <int M, class T>
void dots_of(int64_t depth, const T* rows, const T* vector, T* to) {
    typedef typename vector_of<T>::type V;
    enum { LANES = vector_of<T>::LANES };
    V sum[M];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) sum[m] = V{};
    int64_t k = 0;
    for (; k + LANES <= depth; k += LANES) {
        const V by = *(const V*)(vector + k);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) sum[m] += *(const V*)(rows + m * depth + k) * by;
    }
    if (k < depth) {
        V by{};
        memcpy(&by, vector + k, (depth - k) * sizeof(T));
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            V last{};
            memcpy(&last, rows + m * depth + k, (depth - k) * sizeof(T));
            sum[m] += last * by;
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
        T lane[LANES];
        memcpy(lane, &sum[m], sizeof lane);
#pragma GCC unroll 4
        for (int half = LANES / 2; half; half /= 2)
#pragma GCC unroll 8
            for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
        to[m] = lane[0];
    }
}

template <class T>
void dots(int64_t count, int64_t depth, const T* rows, const T* vector, Base<T> base, T* to, int64_t threads) {
    enum { AT_ONCE = 8 };
    const int64_t tasks = (count + AT_ONCE - 1) / AT_ONCE, parts = count * depth > FEW ? smaller(threads, tasks) : 1;
#pragma omp parallel for schedule(static) num_threads(parts) if (parts > 1)
    for (int64_t task = 0; task < tasks; ++task) {
        const int64_t n = task * AT_ONCE, some = smaller(AT_ONCE, count - n);
        T found[AT_ONCE];
        if (some == AT_ONCE) dots_of<AT_ONCE>(depth, rows + n * depth, vector, found);
        else for (int64_t m = 0; m < some; ++m) dots_of<1>(depth, rows + (n + m) * depth, vector, found + m);
        for (int64_t m = 0; m < some; ++m) to[n + m] = base.at ? found[m] + base.at[(n + m) * base.lead] : found[m];
    }
}

// to[n] = base[n] + the sum over k of factors[k] * rows[k][n], rows ``lead`` apart.
template <class T>
void blend(int64_t depth, int64_t count, const T* factors, const T* rows, int64_t lead, const T* base,
           T* __restrict__ to) {
    enum { AT_ONCE = 8 };
    if (!base) memset(to, 0, count * sizeof(T));
    else if (base != to) memcpy(to, base, count * sizeof(T));
    int64_t k = 0;
    for (; k + AT_ONCE <= depth; k += AT_ONCE, rows += AT_ONCE * lead) {
#pragma omp simd
        for (int64_t n = 0; n < count; ++n) {
            T sum = to[n];
#pragma GCC unroll 8
            for (int u = 0; u < AT_ONCE; ++u) sum += factors[k + u] * rows[u * lead + n];
            to[n] = sum;
        }
    }
    for (; k < depth; ++k, rows += lead)
#pragma omp simd
        for (int64_t n = 0; n < count; ++n) to[n] += factors[k] * rows[n];
}

// to[rows][width] = left[rows][depth] @ matrix + base. The matrix lies as [depth, width] or, turned, as [width, depth].
template <class T>
void by_matrix(int64_t rows, int64_t width, int64_t depth, const T* left, const T* matrix, bool turned, Base<T> base,
               T* to, int64_t threads) {
    enum { PANEL = vector_of<T>::PANEL };
    if (width == 1) return dots(rows, depth, left, matrix, base, to, threads);
    if (rows == 1 && turned) return dots(width, depth, matrix, left, Base<T>{base.at, 1}, to, threads);
    if (rows == 1) return blend(depth, width, left, matrix, width, base.at, to);
    const Panels<T> right(matrix, width, depth, turned, rows);
    const int64_t panels = (width + PANEL - 1) / PANEL, blocks = (rows + BLOCK - 1) / BLOCK, tasks = panels * blocks;
    const int64_t parts = rows * width * depth > FEW ? smaller(threads, tasks) : 1;
#pragma omp parallel for schedule(static) num_threads(parts) if (parts > 1)
    for (int64_t task = 0; task < tasks; ++task) {
        alignas(64) T room[DEEP * PANEL];
        const int64_t first = task / panels * BLOCK, n = task % panels * PANEL;
        const int64_t count = smaller(BLOCK, rows - first);
        T* const here = to + first * width + n;
        // Once where nothing is summed, too.
        for (int64_t k = 0; k < depth || !k; k += DEEP) {
            const Base<T> start = {base.at ? base.at + first * base.lead + n : nullptr, base.lead};
            panel(count, smaller(DEEP, depth - k), Left<T>{left, depth, 1}.from(first, k), right.from(k, n, room),
                  k ? Base<T>{here, width} : start, here, width);
        }
    }
}

// to[m][n] = the sum over rows from ``first`` on of left[row][m] * right[row][n], for some of the m and the panel at n.
template <class T>
void over_stretch(int64_t first, int64_t last, int64_t m, int64_t count, int64_t n, int64_t depth, const T* left,
                  const Panels<T>& right, T* to) {
    alignas(64) T room[DEEP * vector_of<T>::PANEL];
    T* const here = to + m * right.width + n;
    for (int64_t k = first; k < last || k == first; k += DEEP)
        panel(count, smaller(DEEP, last - k), Left<T>{left, 1, depth}.from(m, k), right.from(k, n, room),
              Base<T>{k > first ? here : nullptr, right.width}, here, right.width);
}

template <class T>
void over_rows(int64_t rows, int64_t width, int64_t depth, const T* left, const T* right, T* to, int64_t threads) {
    enum { PANEL = vector_of<T>::PANEL };
    const int64_t size = depth * width;
    // Stretches of rows have sums of their own, unless these are large.
    int64_t count = rows < 2 * STRETCH || size > MOST_SUMS ? 1 : smaller(STRETCHES, rows / STRETCH);
    T* const sums = count > 1 ? (T*)malloc(count * size * sizeof(T)) : to;
    const Panels<T> columns(right, width, rows, false, depth);
    const int64_t panels = (width + PANEL - 1) / PANEL, blocks = (depth + BLOCK - 1) / BLOCK;
    const int64_t tasks = count * panels * blocks, parts = rows * size > FEW ? smaller(threads, tasks) : 1;
#pragma omp parallel for schedule(static) num_threads(parts) if (parts > 1)
    for (int64_t task = 0; task < tasks; ++task) {
        const int64_t s = task / (panels * blocks), m = task / panels % blocks * BLOCK, n = task % panels * PANEL;
        const int64_t first = rows * s / count, last = rows * (s + 1) / count;
        if (width == 1) {
            blend(last - first, smaller(BLOCK, depth - m), right + first, left + first * depth + m, depth, (T*)nullptr,
                  sums + s * size + m);
            continue;
        }
        over_stretch(first, last, m, smaller(BLOCK, depth - m), n, depth, left, columns, sums + s * size);
    }
    if (count == 1) return;
    memcpy(to, sums, size * sizeof(T));
    for (int64_t s = 1; s < count; ++s)
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) to[i] += sums[s * size + i];
    free(sums);
}

}  // namespace

// bias: [width], added to each row, or null; add: the result is added to what ``to`` holds. NUMBER is float or double.
extern "C" void by_matrix_of(int64_t rows, int64_t width, int64_t depth, const NUMBER* left, const NUMBER* matrix,
                             int turned, const NUMBER* bias, int add, NUMBER* to, int64_t threads) {
    const Base<NUMBER> base = add ? Base<NUMBER>{to, width} : Base<NUMBER>{bias, 0};
    by_matrix(rows, width, depth, left, matrix, (bool)turned, base, to, threads);
}
extern "C" void over_rows_of(int64_t rows, int64_t width, int64_t depth, const NUMBER* left, const NUMBER* right,
                             NUMBER* to, int64_t threads) {
    over_rows(rows, width, depth, left, right, to, threads);
}
