// Dot products of a few vectors of one node with those of many others, whose numbers lie behind each other place by place:
// lanes are nodes, so that nothing is added up across lanes. Every sum has a fixed order.

namespace gdsl {

template <class T> struct dot_lanes {
#if defined(__AVX512F__)
    enum { BYTES = 64 };
#elif defined(__AVX__)
    enum { BYTES = 32 };
#else
    enum { BYTES = 16 };
#endif
    typedef T type __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
    enum { LANES = BYTES / sizeof(T) };
};

// turned[n][p] = rows[node[p]][n] for the places from first to last, with so many numbers from n to n.
template <int64_t N, class T, class S, class I>
static inline void turn(int64_t first, int64_t last, int64_t stride, const I* node, const S* rows, T* turned) {
    for (int64_t p = first; p < last; ++p) {
        const S* row = rows + (int64_t)node[p] * N;
        for (int64_t n = 0; n < N; ++n) turned[n * stride + p] = T(row[n]);
    }
}

// C vectors of places, of which the first `count` are written; what is read beyond them lies in memory, too.
template <int C, int64_t H, int64_t W, class T>
static inline void some_dots(int64_t count, int64_t stride, const T* own, const T* turned, T* out) {
    typedef typename dot_lanes<T>::type V;
    enum { LANES = dot_lanes<T>::LANES };
    for (int64_t h = 0; h < H; ++h) {
        V sum[C];
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) sum[v] = V{};
        for (int64_t w = 0; w < W; ++w) {
            const T factor = own[h * W + w];
            const T* place = turned + (h * W + w) * stride;
#pragma GCC unroll 8
            for (int v = 0; v < C; ++v) sum[v] += factor * *(const V*)(place + v * LANES);
        }
        T found[C * LANES];
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) *(V*)(found + v * LANES) = sum[v];
        if (count == C * LANES)
            for (int64_t p = 0; p < C * LANES; ++p) out[p * H + h] = found[p];
        else
            for (int64_t p = 0; p < count; ++p) out[p * H + h] = found[p];
    }
}

// out[p][h] = sum over w of own[h][w] * turned[h][w][p], for so many places; from `left_out` on, of the next place.
template <int64_t H, int64_t W, class T>
static void row_dots(int64_t count, int64_t left_out, int64_t stride, const T* own, const T* turned, T* out) {
    enum { LANES = dot_lanes<T>::LANES };
    int64_t p = 0;
    for (int part = 0; part < 2; ++part) {
        const int64_t stop = part || left_out > count ? count : left_out < 0 ? 0 : left_out;
        while (p < stop) {
            const int64_t rest = stop - p;
            if (rest > 2 * LANES) {
                const int64_t here = rest < 4 * LANES ? rest : 4 * LANES;
                some_dots<4, H, W>(here, stride, own, turned + p + part, out + p * H);
                p += here;
            } else if (rest > LANES) {
                some_dots<2, H, W>(rest, stride, own, turned + p + part, out + p * H);
                p += rest;
            } else {
                some_dots<1, H, W>(rest, stride, own, turned + p + part, out + p * H);
                p += rest;
            }
        }
    }
}

// out[n] += sum over places of weights[p][n / W] * rows[node[p]][n], for the C vectors from n on.
template <int C, int64_t H, int64_t W, class T, class I>
static inline void some_sums(int64_t count, const I* node, const T* rows, const T* weights, int64_t n, T* out) {
    typedef typename dot_lanes<T>::type V;
    enum { LANES = dot_lanes<T>::LANES };
    V sum[C];
    int64_t head[C];
#pragma GCC unroll 8
    for (int v = 0; v < C; ++v) {
        sum[v] = *(const V*)(out + n + v * LANES);
        head[v] = (n + v * LANES) / W;
    }
    for (int64_t p = 0; p < count; ++p) {
        const T* row = rows + (int64_t)node[p] * (H * W) + n;
#pragma GCC unroll 8
        for (int v = 0; v < C; ++v) sum[v] += weights[p * H + head[v]] * *(const V*)(row + v * LANES);
    }
#pragma GCC unroll 8
    for (int v = 0; v < C; ++v) *(V*)(out + n + v * LANES) = sum[v];
}

// All vectors of some places: the sums stay in registers.
template <int64_t H, int64_t W, class T, class I>
static inline void sums_of(int64_t count, const I* node, const T* rows, const T* weights, T* out) {
    enum { LANES = dot_lanes<T>::LANES, WHOLE = W % LANES == 0 ? H * W : 0 };
    int64_t n = 0;
    for (; n + 8 * LANES <= WHOLE; n += 8 * LANES) some_sums<8, H, W>(count, node, rows, weights, n, out);
    for (; n + 2 * LANES <= WHOLE; n += 2 * LANES) some_sums<2, H, W>(count, node, rows, weights, n, out);
    for (; n + LANES <= WHOLE; n += LANES) some_sums<1, H, W>(count, node, rows, weights, n, out);
    if (n == H * W) return;
    for (int64_t p = 0; p < count; ++p) {
        const T* row = rows + (int64_t)node[p] * (H * W);
        for (int64_t h = 0; h < H; ++h)
#pragma omp simd
            for (int64_t w = 0; w < W; ++w) out[h * W + w] += weights[p * H + h] * row[h * W + w];
    }
}

// out[h][w] += sum over places of weights[p][h] * rows[node[p]][h][w]; from `left_out` on, of the next place.
template <int64_t H, int64_t W, class T, class I>
static void row_sums(int64_t count, int64_t left_out, const I* node, const T* rows, const T* weights, T* out) {
    const int64_t first = left_out < 0 ? 0 : left_out < count ? left_out : count;
    sums_of<H, W>(first, node, rows, weights, out);
    sums_of<H, W>(count - first, node + first + 1, rows, weights + first * H, out);
}

}  // namespace gdsl
