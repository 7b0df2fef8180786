// Matrix products of a few rows, for the edges of one node: tiles of the result stay in registers while the summed dim
// runs. All sizes but the number of rows are compile-time constants. Every sum has a fixed order, so that results
// are the same bits however the edges are cut into blocks.

namespace gdsl {

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64, REGISTERS = 32 };
#elif defined(__AVX__)
enum { VECTOR_BYTES = 32, REGISTERS = 16 };
#else
enum { VECTOR_BYTES = 16, REGISTERS = 16 };
#endif

// Keeps a value that several products read in a register: the compiler would load it again for each of them, and loads,
// not products, are what the loop then waits for.
#if defined(__x86_64__)
#define GDSL_IN_REGISTER(x) asm("" : "+v"(x))
#else
#define GDSL_IN_REGISTER(x)
#endif

template <class T, int BYTES = VECTOR_BYTES> struct vector_of {
    typedef T type __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
    enum { LANES = BYTES / sizeof(T) };
};

// c[m][n] += sum over k of a(m, k) * b[k][n], for M rows and C vectors, of so many bytes, of columns. STEP and LEAD are
// the distances in a between neighbours in k and in m: a row-major matrix, or its transpose.
template <int M, int C, int64_t STEP, int64_t LEAD, int64_t N, bool ADD, int BYTES, class T>
static inline __attribute__((always_inline)) void tile(int64_t depth, const T* a, const T* b, T* c) {
    typedef typename vector_of<T, BYTES>::type V;
    enum { LANES = vector_of<T, BYTES>::LANES };
    V sum[M][C];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) sum[m][v] = ADD ? *(const V*)(c + m * N + v * LANES) : V{};
    for (int64_t k = 0; k < depth; ++k) {
        V row[C];
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) {
            row[v] = *(const V*)(b + k * N + v * LANES);
            if (M > 1) GDSL_IN_REGISTER(row[v]);
        }
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            const T factor = a[k * STEP + m * LEAD];
#pragma GCC unroll 8
            for (int v = 0; v < C; ++v) sum[m][v] += factor * row[v];
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) *(V*)(c + m * N + v * LANES) = sum[m][v];
}

// All columns of M rows, in tiles of as many vectors as the registers hold; what is left over, one tile less wide. The
// last columns, fewer than a vector, are computed with some of their neighbours again, or, when adding or where there
// are no neighbours, in narrower vectors and one by one.
template <int M, int64_t STEP, int64_t LEAD, int64_t N, bool ADD, class T>
static inline __attribute__((always_inline)) void panel(int64_t depth, const T* a, const T* b, T* c) {
    enum {
        LANES = vector_of<T>::LANES,
        VECTORS = N / LANES,
        MOST = M == 1 ? 8 : REGISTERS / (M + 1),
        TILES = (VECTORS + MOST - 1) / MOST,
        WIDE = TILES > 0 ? (VECTORS + TILES - 1) / TILES : 1,
        REST = VECTORS % WIDE,
        HALF = vector_of<T, 32>::LANES,
        QUARTER = vector_of<T, 16>::LANES
    };
    int64_t n = 0;
    for (; n + WIDE * LANES <= N; n += WIDE * LANES)
        tile<M, WIDE, STEP, LEAD, N, ADD, VECTOR_BYTES>(depth, a, b + n, c + n);
    if (REST > 0) {
        tile<M, (REST > 0 ? REST : 1), STEP, LEAD, N, ADD, VECTOR_BYTES>(depth, a, b + n, c + n);
        n += REST * LANES;
    }
    if (n < N && !ADD && VECTORS > 0) {
        tile<M, 1, STEP, LEAD, N, ADD, VECTOR_BYTES>(depth, a, b + N - LANES, c + N - LANES);
        n = N;
    }
    if (VECTOR_BYTES > 32 && n + HALF <= N) {
        tile<M, 1, STEP, LEAD, N, ADD, 32>(depth, a, b + n, c + n);
        n += HALF;
    }
    if (VECTOR_BYTES > 16 && n + QUARTER <= N) {
        tile<M, 1, STEP, LEAD, N, ADD, 16>(depth, a, b + n, c + n);
        n += QUARTER;
    }
    for (; n < N; ++n)
        for (int m = 0; m < M; ++m) {
            T sum = ADD ? c[m * N + n] : T(0);
            for (int64_t k = 0; k < depth; ++k) sum += a[k * STEP + m * LEAD] * b[k * N + n];
            c[m * N + n] = sum;
        }
}

// out[rows][N] = a[rows][K] @ b[K][N]
template <int64_t K, int64_t N, class T>
static void matmul(int64_t rows, const T* a, const T* b, T* __restrict__ out) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) panel<4, 1, K, N, false>(K, a + r * K, b, out + r * N);
    if (rows - r >= 2) {
        panel<2, 1, K, N, false>(K, a + r * K, b, out + r * N);
        r += 2;
    }
    if (r < rows) panel<1, 1, K, N, false>(K, a + r * K, b, out + r * N);
}

// out[K][N] += transpose(a[rows][K]) @ b[rows][N]
template <int64_t K, int64_t N, class T>
static void add_outer(int64_t rows, const T* a, const T* b, T* __restrict__ out) {
    int64_t k = 0;
    for (; k + 4 <= K; k += 4) panel<4, K, 1, N, true>(rows, a + k, b, out + k * N);
    if (K % 4 >= 2) {
        panel<2, K, 1, N, true>(rows, a + k, b, out + k * N);
        k += 2;
    }
    if (K % 2) panel<1, K, 1, N, true>(rows, a + k, b, out + k * N);
}

// Calls f(k) for each k below K with x[k] != 0, in order: for rows that are nearly all zeros.
template <int64_t K, class F> static inline void each_nonzero(const float* x, F f) {
    int64_t k = 0;
#if defined(__AVX__)
    typedef float V __attribute__((vector_size(32), aligned(4), may_alias));
    for (; k + 8 <= K; k += 8) {
        const V v = *(const V*)(x + k);
        for (unsigned set = (unsigned)__builtin_ia32_movmskps256((V)(v != V{})); set; set &= set - 1)
            f(k + __builtin_ctz(set));
    }
#endif
    for (; k < K; ++k)
        if (x[k] != 0) f(k);
}
template <int64_t K, class F> static inline void each_nonzero(const double* x, F f) {
    for (int64_t k = 0; k < K; ++k)
        if (x[k] != 0) f(k);
}

// out[rows][N] = a[rows][K] @ b[K][N], where a is nearly all zeros: a zero adds nothing, even where b is infinite.
template <int64_t K, int64_t N, class T>
static void sparse_matmul(int64_t rows, const T* a, const T* b, T* __restrict__ out) {
    for (int64_t r = 0; r < rows; ++r) {
        T* __restrict__ row = out + r * N;
        for (int64_t n = 0; n < N; ++n) row[n] = 0;
        each_nonzero<K>(a + r * K, [&](int64_t k) {
            const T factor = a[r * K + k];
#pragma omp simd
            for (int64_t n = 0; n < N; ++n) row[n] += factor * b[k * N + n];
        });
    }
}

// out[K][N] += transpose(a[rows][K]) @ b[rows][N], where a is nearly all zeros.
template <int64_t K, int64_t N, class T>
static void sparse_add_outer(int64_t rows, const T* a, const T* b, T* __restrict__ out) {
    for (int64_t r = 0; r < rows; ++r)
        each_nonzero<K>(a + r * K, [&](int64_t k) {
            const T factor = a[r * K + k];
#pragma omp simd
            for (int64_t n = 0; n < N; ++n) out[k * N + n] += factor * b[r * N + n];
        });
}

}  // namespace gdsl
