// Products of matrices with many rows, for processors on which torch's library leaves half of a vector unused:
// gdsl/runtime/products.py says which. Tiles of the result stay in registers while the summed dim runs. Every number is
// summed in an order that only the sizes decide, so that results are the same bits for any number of threads.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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
// Sums over rows are of so many stretches of rows at most, each of at least so many.
constexpr int64_t STRETCHES = 16, STRETCH = 1024;
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

// Rows of the result, as many as a tile has at a time.
template <class T>
void panel(int64_t rows, int64_t depth, Left<T> a, Right<T> b, Base<T> base, T* to, int64_t width) {
    for (int64_t m = 0; m < rows; m += TALL) {
        const Left<T> left = a.from(m, 0);
        const Base<T> more = {base.at ? base.at + m * base.lead : nullptr, base.lead};
        T* const here = to + m * width;
        if (rows - m >= TALL) columns<TALL>(depth, left, b, more, here, width);
        else if (rows - m >= 3) columns<3>(depth, left, b, more, here, width), m -= TALL - 3;
        else columns<1>(depth, left, b, more, here, width), m -= TALL - 1;
    }
}

// The columns of a panel that begins at n, where they lie ``stride`` apart.
template <class T> Right<T> right_at(const T* at, int64_t stride, int64_t n, int64_t width) {
    enum { LANES = vector_of<T>::LANES, PANEL = vector_of<T>::PANEL };
    const int64_t count = smaller(PANEL, width - n), vectors = (count + LANES - 1) / LANES;
    return {at, stride, (int)vectors, (int)(count - (vectors - 1) * LANES)};
}

// Columns from n on of rows [depth, width] as a panel of whole vectors, filled with zeros.
template <class T> void copy_panel(const T* from, int64_t depth, int64_t width, int64_t n, T* to) {
    enum { PANEL = vector_of<T>::PANEL };
    const int64_t count = smaller(PANEL, width - n);
    for (int64_t k = 0; k < depth; ++k) {
        memcpy(to + k * PANEL, from + k * width + n, count * sizeof(T));
        memset(to + k * PANEL + count, 0, (PANEL - count) * sizeof(T));
    }
}

// The same of a matrix that lies as [width, depth].
template <class T> void turn_panel(const T* from, int64_t depth, int64_t width, int64_t n, T* to) {
    enum { PANEL = vector_of<T>::PANEL, SQUARE = 16 };
    const int64_t count = smaller(PANEL, width - n);
    for (int64_t k0 = 0; k0 < depth; k0 += SQUARE) {
        const int64_t most = smaller(depth, k0 + SQUARE);
        for (int64_t c = 0; c < count; ++c) {
            const T* const row = from + (n + c) * depth;
            for (int64_t k = k0; k < most; ++k) to[k * PANEL + c] = row[k];
        }
        for (int64_t k = k0; k < most; ++k) memset(to + k * PANEL + count, 0, (PANEL - count) * sizeof(T));
    }
}

// to[rows][width] = left[rows][depth] @ matrix + base. The matrix lies as [depth, width], or, turned, as [width, depth].
template <class T>
void by_matrix(int64_t rows, int64_t width, int64_t depth, const T* left, const T* matrix, bool turned, Base<T> base,
               T* to, int64_t threads) {
    enum { LANES = vector_of<T>::LANES, PANEL = vector_of<T>::PANEL };
    const int64_t panels = (width + PANEL - 1) / PANEL, blocks = (rows + BLOCK - 1) / BLOCK;
    const bool copied = turned || width % LANES || width > MOST_WIDE;
    T small[1 << 13];  // 32 or 64 KiB
    T* room = small;
    if (copied && panels * depth * PANEL > (int64_t)(sizeof small / sizeof(T))) room = (T*)malloc(panels * depth * PANEL * sizeof(T));
    for (int64_t p = 0; copied && p < panels; ++p) {
        T* const at = room + p * depth * PANEL;
        if (turned) turn_panel(matrix, depth, width, p * PANEL, at);
        else copy_panel(matrix, depth, width, p * PANEL, at);
    }
    const int64_t parts = rows * width * depth > FEW ? smaller(threads, blocks) : 1;
#pragma omp parallel for schedule(static) num_threads(parts) if (parts > 1)
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t first = block * BLOCK, count = smaller(BLOCK, rows - first);
        // Once where nothing is summed, too.
        for (int64_t k = 0; k < depth || !k; k += DEEP) {
            for (int64_t p = 0; p < panels; ++p) {
                const int64_t n = p * PANEL;
                T* const here = to + first * width + n;
                const T* const at = copied ? room + (p * depth + k) * PANEL : matrix + k * width + n;
                const Base<T> more = k ? Base<T>{here, width}
                                       : Base<T>{base.at ? base.at + first * base.lead + n : nullptr, base.lead};
                panel(count, smaller(DEEP, depth - k), Left<T>{left, depth, 1}.from(first, k),
                      right_at(at, copied ? (int64_t)PANEL : width, n, width), more, here, width);
            }
        }
    }
    if (room != small) free(room);
}

// to[depth][width] = transpose(left[rows][depth]) @ right[rows][width], of rows from ``first`` on.
template <class T>
void over_stretch(int64_t first, int64_t last, int64_t width, int64_t depth, const T* left, const T* right, T* to) {
    enum { LANES = vector_of<T>::LANES, PANEL = vector_of<T>::PANEL };
    const bool copied = width % LANES || width > MOST_WIDE;
    T room[DEEP * PANEL];
    for (int64_t k = first; k < last || k == first; k += DEEP) {
        const int64_t many = smaller(DEEP, last - k);
        for (int64_t n = 0; n < width; n += PANEL) {
            const T* at = right + k * width + n;
            if (copied) copy_panel(right + k * width, many, width, n, room), at = room;
            panel(depth, many, Left<T>{left, 1, depth}.from(0, k),
                  right_at(at, copied ? (int64_t)PANEL : width, n, width), Base<T>{k > first ? to + n : nullptr, width},
                  to + n, width);
        }
    }
}

template <class T>
void over_rows(int64_t rows, int64_t width, int64_t depth, const T* left, const T* right, T* to, int64_t threads) {
    const int64_t count = rows < 2 * STRETCH ? 1 : smaller(STRETCHES, rows / STRETCH), size = depth * width;
    T* const sums = count > 1 ? (T*)malloc(count * size * sizeof(T)) : to;
    const int64_t parts = rows * size > FEW ? smaller(threads, count) : 1;
#pragma omp parallel for schedule(static) num_threads(parts) if (parts > 1)
    for (int64_t s = 0; s < count; ++s)
        over_stretch(rows * s / count, rows * (s + 1) / count, width, depth, left, right, sums + s * size);
    if (count == 1) return;
    memcpy(to, sums, size * sizeof(T));
    for (int64_t s = 1; s < count; ++s)
        for (int64_t i = 0; i < size; ++i) to[i] += sums[s * size + i];
    free(sums);
}

}  // namespace

// bias: [width] added to each row, or null; add: the result is added to what ``to`` holds. products.py says which NUMBER.
extern "C" void by_matrix_of(int64_t rows, int64_t width, int64_t depth, const NUMBER* left, const NUMBER* matrix,
                             int turned, const NUMBER* bias, int add, NUMBER* to, int64_t threads) {
    const Base<NUMBER> base = add ? Base<NUMBER>{to, width} : Base<NUMBER>{bias, 0};
    by_matrix(rows, width, depth, left, matrix, (bool)turned, base, to, threads);
}
extern "C" void over_rows_of(int64_t rows, int64_t width, int64_t depth, const NUMBER* left, const NUMBER* right,
                             NUMBER* to, int64_t threads) {
    over_rows(rows, width, depth, left, right, to, threads);
}
