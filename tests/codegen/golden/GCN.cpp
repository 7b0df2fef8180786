// GCN_0: walks the in-edges of node i; j is the source
//   sum_load = sum@i(w)
//   chosen = where(sum_load != 0, rsqrt(where(sum_load != 0, sum_load, 1)), 0)
extern "C" void GCN_0(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ w,
    T* __restrict__ chosen
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
                if (end - begin > 16384) continue;  // a hub, left to GCN_0_hubs
                T acc_sum_load;
                acc_sum_load = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const int64_t id = edge[e];
                    const int64_t id_ahead = edge[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(w + id_ahead);
                    acc_sum_load += w[id];
                }
                const bool v = acc_sum_load != T(0.0);
                const T v_2 = (v ? acc_sum_load : T(1.0));
                const T v_3 = gdsl::rsqrt(v_2);
                chosen[i] = (v ? v_3 : T(0.0));
            }
        }
    }
}

// GCN_1: row by row
//   h = sum[a](x * weight)
extern "C" void GCN_1(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const T* __restrict__ x,
    const T* __restrict__ weight,
    T* __restrict__ h
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            for (int64_t i = first; i < last; ++i) {
                const T* __restrict__ x_i = x + i * 4;
                T h_2[3];
                for (int n = 0; n < 3; ++n) h_2[n] = 0;
                for (int64_t a = 0; a < 4; ++a) {
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        h_2[b] += x_i[a] * weight[a * 3 + b];
                    }
                }
                #pragma omp simd
                for (int64_t b = 0; b < 3; ++b) {
                    h[i * 3 + b] = h_2[b];
                }
            }
        }
    }
}

// GCN_2: walks the in-edges of node i; j is the source
//   sum_m = sum@i(m)
//   plus = sum_m + bias
extern "C" void GCN_2(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ w,
    const T* __restrict__ chosen,
    const T* __restrict__ h,
    const T* __restrict__ bias,
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
                if (end - begin > 16384) continue;  // a hub, left to GCN_2_hubs
                T acc_sum_m[3];
                for (int n = 0; n < 3; ++n) acc_sum_m[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const int64_t id = edge[e];
                    const T* __restrict__ h_j = h + j * 3;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(h + ahead * 3);
                    const int64_t id_ahead = edge[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(w + id_ahead);
                    const T v = chosen[i] * w[id];
                    const T norm = v * chosen[j];
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        const T m = norm * h_j[b];
                        acc_sum_m[b] += m;
                    }
                }
                #pragma omp simd
                for (int64_t b = 0; b < 3; ++b) {
                    plus[i * 3 + b] = acc_sum_m[b] + bias[b];
                }
            }
        }
    }
}

// GCN_backward_0: row by row
//   h = sum[a](x * weight)
//   chosen = where(sum_load != 0, rsqrt(where(sum_load != 0, sum_load, 1)), 0)
//   d_bias = total(d_y)
extern "C" void GCN_backward_0(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const T* __restrict__ d_y,
    const T* __restrict__ x,
    const T* __restrict__ weight,
    const T* __restrict__ sum_load,
    T* __restrict__ h,
    T* __restrict__ chosen,
    T* __restrict__ d_bias
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            T* __restrict__ total_d_bias = d_bias + group * 3;
            for (int64_t n = 0; n < 3; ++n) total_d_bias[n] = 0;
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            for (int64_t i = first; i < last; ++i) {
                const T* __restrict__ d_y_i = d_y + i * 3;
                const T* __restrict__ x_i = x + i * 4;
                T h_2[3];
                for (int n = 0; n < 3; ++n) h_2[n] = 0;
                for (int64_t a = 0; a < 4; ++a) {
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        h_2[b] += x_i[a] * weight[a * 3 + b];
                    }
                }
                #pragma omp simd
                for (int64_t b = 0; b < 3; ++b) {
                    h[i * 3 + b] = h_2[b];
                }
                const bool v = sum_load[i] != T(0.0);
                const T v_2 = (v ? sum_load[i] : T(1.0));
                const T v_3 = gdsl::rsqrt(v_2);
                chosen[i] = (v ? v_3 : T(0.0));
                #pragma omp simd
                for (int64_t b = 0; b < 3; ++b) {
                    total_d_bias[b] += d_y_i[b];
                }
            }
        }
    }
}

// GCN_backward_1: walks the in-edges of node i; j is the source
//   sum_product = sum@i(d_norm * chosen[j] * w)
extern "C" void GCN_backward_1(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ d_y,
    const T* __restrict__ h,
    const T* __restrict__ chosen,
    const T* __restrict__ w,
    T* __restrict__ sum_product
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
                if (end - begin > 16384) continue;  // a hub, left to GCN_backward_1_hubs
                const T* __restrict__ d_y_i = d_y + i * 3;
                T acc_sum_product;
                acc_sum_product = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const int64_t id = edge[e];
                    const T* __restrict__ h_j = h + j * 3;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(h + ahead * 3);
                    const int64_t id_ahead = edge[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(w + id_ahead);
                    T s[4] = {};
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        s[b] += d_y_i[b] * h_j[b];
                    }
                    const T d_norm = gdsl::sum<4>(s);
                    const T v = d_norm * chosen[j];
                    const T v_2 = v * w[id];
                    acc_sum_product += v_2;
                }
                sum_product[i] = acc_sum_product;
            }
        }
    }
}

// GCN_backward_2: walks the out-edges of node i; j is the target
//   sum_product = sum@j(d_norm * (chosen[i] * w))
//   d_h = sum@j(d_y[i] * norm)
//   d_x = sum[b](d_h * weight)
//   d_weight = total(d_h * x)
extern "C" void GCN_backward_2(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ d_y,
    const T* __restrict__ x,
    const T* __restrict__ weight,
    const T* __restrict__ h,
    const T* __restrict__ chosen,
    const T* __restrict__ w,
    T* __restrict__ sum_product,
    T* __restrict__ d_x,
    T* __restrict__ d_weight
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            T* __restrict__ total_d_weight = d_weight + group * 12;
            for (int64_t n = 0; n < 12; ++n) total_d_weight[n] = 0;
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            const int64_t stop = rowptr[last];
            for (int64_t i = first; i < last; ++i) {
                const int64_t begin = rowptr[i], end = rowptr[i + 1];
                if (end - begin > 16384) continue;  // a hub, left to GCN_backward_2_hubs
                const T* __restrict__ x_i = x + i * 4;
                const T* __restrict__ h_i = h + i * 3;
                T acc_sum_product;
                acc_sum_product = 0;
                T acc_d_h[3];
                for (int n = 0; n < 3; ++n) acc_d_h[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const int64_t id = edge[e];
                    const T* __restrict__ d_y_j = d_y + j * 3;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(d_y + ahead * 3);
                    const int64_t id_ahead = edge[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(w + id_ahead);
                    T s[4] = {};
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        s[b] += d_y_j[b] * h_i[b];
                    }
                    const T d_norm = gdsl::sum<4>(s);
                    const T v = chosen[j] * w[id];
                    const T v_2 = d_norm * v;
                    acc_sum_product += v_2;
                    const T v_3 = chosen[j] * w[id];
                    const T norm = v_3 * chosen[i];
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        const T v_4 = d_y_j[b] * norm;
                        acc_d_h[b] += v_4;
                    }
                }
                T d_x_2[4];
                for (int64_t a = 0; a < 4; ++a) {
                    T s_2[4] = {};
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        s_2[b] += acc_d_h[b] * weight[a * 3 + b];
                    }
                    d_x_2[a] = gdsl::sum<4>(s_2);
                }
                sum_product[i] = acc_sum_product;
                #pragma omp simd
                for (int64_t a = 0; a < 4; ++a) {
                    d_x[i * 4 + a] = d_x_2[a];
                }
                for (int64_t a = 0; a < 4; ++a) {
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        total_d_weight[a * 3 + b] += acc_d_h[b] * x_i[a];
                    }
                }
            }
        }
    }
}

// GCN_backward_3: row by row
//   chosen = where(sum_load != 0, where(sum_load != 0, sum_product + sum_product_2, 0) * (-0.5 * rsqrt(where(sum_load != 0, sum_load, 1)) / where(sum_load !...
extern "C" void GCN_backward_3(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const T* __restrict__ sum_load,
    const T* __restrict__ sum_product,
    const T* __restrict__ sum_product_2,
    T* __restrict__ chosen
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            for (int64_t i = first; i < last; ++i) {
                const bool v = sum_load[i] != T(0.0);
                const T v_2 = sum_product[i] + sum_product_2[i];
                const T v_3 = (v ? v_2 : T(0.0));
                const T v_4 = (v ? sum_load[i] : T(1.0));
                const T v_5 = gdsl::rsqrt(v_4);
                const T v_6 = T(-0.5) * v_5;
                const T v_7 = v_6 / v_4;
                const T v_8 = v_3 * v_7;
                chosen[i] = (v ? v_8 : T(0.0));
            }
        }
    }
}

// GCN_backward_4: walks the in-edges of node i; j is the source
//   d_w = d_norm * chosen[j] * chosen[i] + chosen_2[i]
extern "C" void GCN_backward_4(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ d_y,
    const T* __restrict__ h,
    const T* __restrict__ chosen,
    const T* __restrict__ chosen_2,
    T* __restrict__ d_w
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
                if (end - begin > 16384) continue;  // a hub, left to GCN_backward_4_hubs
                const T* __restrict__ d_y_i = d_y + i * 3;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const int64_t id = edge[e];
                    const T* __restrict__ h_j = h + j * 3;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(h + ahead * 3);
                    const int64_t id_ahead = edge[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(d_w + id_ahead);
                    T s[4] = {};
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        s[b] += d_y_i[b] * h_j[b];
                    }
                    const T d_norm = gdsl::sum<4>(s);
                    const T v = d_norm * chosen[j];
                    const T v_2 = v * chosen[i];
                    d_w[id] = v_2 + chosen_2[i];
                }
            }
        }
    }
}
