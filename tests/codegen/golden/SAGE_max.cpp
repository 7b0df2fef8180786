// SAGE_max_0: walks the in-edges of node i; j is the source
//   a = max@i(x[j])
//   plus = sum[a](a * weight_l) + sum[a](x * weight_r)
extern "C" void SAGE_max_0(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ x,
    const T* __restrict__ weight_l,
    const T* __restrict__ weight_r,
    T* __restrict__ plus
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            const int64_t stop = rowptr[last];
            for (int64_t i = first; i < last; ++i) {
                const int64_t begin = rowptr[i], end = rowptr[i + 1];
                if (end - begin > 16384) continue;  // a hub, left to SAGE_max_0_hubs
                const T* __restrict__ x_i = x + i * 4;
                T acc_a[4];
                for (int n = 0; n < 4; ++n) acc_a[n] = -__builtin_inf();
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ x_j = x + j * 4;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(x + ahead * 4);
                    #pragma omp simd
                    for (int64_t a_2 = 0; a_2 < 4; ++a_2) {
                        acc_a[a_2] = gdsl::larger(acc_a[a_2], x_j[a_2]);
                    }
                }
                if (begin == end) for (int n = 0; n < 4; ++n) acc_a[n] = 0;
                T dot[3];
                for (int n = 0; n < 3; ++n) dot[n] = 0;
                for (int64_t a_2 = 0; a_2 < 4; ++a_2) {
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        dot[b] += acc_a[a_2] * weight_l[a_2 * 3 + b];
                    }
                }
                T dot_2[3];
                for (int n = 0; n < 3; ++n) dot_2[n] = 0;
                for (int64_t a_2 = 0; a_2 < 4; ++a_2) {
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        dot_2[b] += x_i[a_2] * weight_r[a_2 * 3 + b];
                    }
                }
                #pragma omp simd
                for (int64_t b = 0; b < 3; ++b) {
                    plus[i * 3 + b] = dot[b] + dot_2[b];
                }
            }
        }
    }
}

// SAGE_max_backward_0: row by row
//   ratio = d_a / maximum(to_float(countmax_gather), 1)
//   d_weight_l = total(d_y * a)
//   d_weight_r = total(d_y * x)
extern "C" void SAGE_max_backward_0(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const T* __restrict__ d_y,
    const T* __restrict__ x,
    const T* __restrict__ a,
    const T* __restrict__ weight_l,
    const idx_t* __restrict__ countmax_gather,
    T* __restrict__ ratio,
    T* __restrict__ d_weight_l,
    T* __restrict__ d_weight_r
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            T* __restrict__ total_d_weight_l = d_weight_l + group * 12;
            for (int64_t n = 0; n < 12; ++n) total_d_weight_l[n] = 0;
            T* __restrict__ total_d_weight_r = d_weight_r + group * 12;
            for (int64_t n = 0; n < 12; ++n) total_d_weight_r[n] = 0;
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            for (int64_t i = first; i < last; ++i) {
                const T* __restrict__ x_i = x + i * 4;
                const T* __restrict__ a_i = a + i * 4;
                const idx_t* __restrict__ countmax_gather_i = countmax_gather + i * 4;
                const T* __restrict__ d_y_i = d_y + i * 3;
                T d_a[4];
                for (int64_t a_2 = 0; a_2 < 4; ++a_2) {
                    T s[4] = {};
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        s[b] += d_y_i[b] * weight_l[a_2 * 3 + b];
                    }
                    d_a[a_2] = gdsl::sum<4>(s);
                }
                #pragma omp simd
                for (int64_t a_2 = 0; a_2 < 4; ++a_2) {
                    const T v = T(countmax_gather_i[a_2]);
                    const T v_2 = gdsl::maximum(v, T(1.0));
                    ratio[i * 4 + a_2] = d_a[a_2] / v_2;
                }
                for (int64_t a_2 = 0; a_2 < 4; ++a_2) {
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        total_d_weight_l[a_2 * 3 + b] += d_y_i[b] * a_i[a_2];
                        total_d_weight_r[a_2 * 3 + b] += d_y_i[b] * x_i[a_2];
                    }
                }
            }
        }
    }
}

// SAGE_max_backward_1: walks the out-edges of node i; j is the target
//   sum_chosen = sum@j(where(x[j] < a[i], 0, ratio[i]))
//   d_x = sum[b](d_y * weight_r) + sum_chosen
extern "C" void SAGE_max_backward_1(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ d_y,
    const T* __restrict__ weight_r,
    const T* __restrict__ x,
    const T* __restrict__ a,
    const T* __restrict__ ratio,
    T* __restrict__ d_x
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            const int64_t stop = rowptr[last];
            for (int64_t i = first; i < last; ++i) {
                const int64_t begin = rowptr[i], end = rowptr[i + 1];
                if (end - begin > 16384) continue;  // a hub, left to SAGE_max_backward_1_hubs
                const T* __restrict__ d_y_i = d_y + i * 3;
                const T* __restrict__ x_i = x + i * 4;
                T acc_sum_chosen[4];
                for (int n = 0; n < 4; ++n) acc_sum_chosen[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ ratio_j = ratio + j * 4;
                    const T* __restrict__ a_j = a + j * 4;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(a + ahead * 4);
                    __builtin_prefetch(ratio + ahead * 4);
                    #pragma omp simd
                    for (int64_t a_2 = 0; a_2 < 4; ++a_2) {
                        const bool v = x_i[a_2] < a_j[a_2];
                        const T v_2 = (v ? T(0.0) : ratio_j[a_2]);
                        acc_sum_chosen[a_2] += v_2;
                    }
                }
                T dot[4];
                for (int64_t a_2 = 0; a_2 < 4; ++a_2) {
                    T s[4] = {};
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        s[b] += d_y_i[b] * weight_r[a_2 * 3 + b];
                    }
                    dot[a_2] = gdsl::sum<4>(s);
                }
                #pragma omp simd
                for (int64_t a_2 = 0; a_2 < 4; ++a_2) {
                    d_x[i * 4 + a_2] = dot[a_2] + acc_sum_chosen[a_2];
                }
            }
        }
    }
}
