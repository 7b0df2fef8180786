// GAT_0: row by row
//   h = sum[a](x * weight)
//   left = sum[b](h * att_src)
//   right = sum[b](h * att_dst)
extern "C" void GAT_0(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const T* __restrict__ x,
    const T* __restrict__ weight,
    const T* __restrict__ att_src,
    const T* __restrict__ att_dst,
    T* __restrict__ h,
    T* __restrict__ left,
    T* __restrict__ right
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            for (int64_t i = first; i < last; ++i) {
                const T* __restrict__ x_i = x + i * 4;
                T h_2[6];
                for (int n = 0; n < 6; ++n) h_2[n] = 0;
                for (int64_t heads = 0; heads < 2; ++heads) {
                    for (int64_t a = 0; a < 4; ++a) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            h_2[heads * 3 + b] += x_i[a] * weight[a * 6 + heads * 3 + b];
                        }
                    }
                }
                T left_2[2];
                for (int64_t heads = 0; heads < 2; ++heads) {
                    T s[4] = {};
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        s[b] += h_2[heads * 3 + b] * att_src[heads * 3 + b];
                    }
                    left_2[heads] = gdsl::sum<4>(s);
                }
                T right_2[2];
                for (int64_t heads = 0; heads < 2; ++heads) {
                    T s_2[4] = {};
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        s_2[b] += h_2[heads * 3 + b] * att_dst[heads * 3 + b];
                    }
                    right_2[heads] = gdsl::sum<4>(s_2);
                }
                for (int64_t heads = 0; heads < 2; ++heads) {
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        h[i * 6 + heads * 3 + b] = h_2[heads * 3 + b];
                    }
                }
                #pragma omp simd
                for (int64_t heads = 0; heads < 2; ++heads) {
                    left[i * 2 + heads] = left_2[heads];
                    right[i * 2 + heads] = right_2[heads];
                }
            }
        }
    }
}

// GAT_1: walks the in-edges of node i; j is the source
//   max_score = max@i(score)
//   sum_product = sum@i(exp(score - max@i(score)[i]) * h[j])
//   sum_exp = sum@i(exp(score - max@i(score)[i]))
//   ratio = sum_product / where(in_degree > 0, sum_exp, 1)
extern "C" void GAT_1(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ h,
    const T* __restrict__ left,
    const T* __restrict__ right,
    const T* __restrict__ in_degree,
    T* __restrict__ ratio
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
                if (end - begin > 16384) continue;  // a hub, left to GAT_1_hubs
                const T* __restrict__ right_i = right + i * 2;
                T acc_max_score[2];
                for (int n = 0; n < 2; ++n) acc_max_score[n] = -__builtin_inf();
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ left_j = left + j * 2;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(left + ahead * 2);
                    #pragma omp simd
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        const T v = left_j[heads] + right_i[heads];
                        const T score = (v > 0 ? v : v * T(0.2));
                        acc_max_score[heads] = gdsl::larger(acc_max_score[heads], score);
                    }
                }
                if (begin == end) for (int n = 0; n < 2; ++n) acc_max_score[n] = 0;
                T acc_sum_product[6];
                for (int n = 0; n < 6; ++n) acc_sum_product[n] = 0;
                T acc_sum_exp[2];
                for (int n = 0; n < 2; ++n) acc_sum_exp[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ h_j = h + j * 6;
                    const T* __restrict__ left_j_2 = left + j * 2;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(left + ahead * 2);
                    __builtin_prefetch(h + ahead * 6);
                    T exp_2[2];
                    #pragma omp simd
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        const T v_2 = left_j_2[heads] + right_i[heads];
                        const T score_2 = (v_2 > 0 ? v_2 : v_2 * T(0.2));
                        const T v_3 = score_2 - acc_max_score[heads];
                        exp_2[heads] = gdsl::exp(v_3);
                    }
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            const T v_4 = exp_2[heads] * h_j[heads * 3 + b];
                            acc_sum_product[heads * 3 + b] += v_4;
                        }
                    }
                    #pragma omp simd
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        acc_sum_exp[heads] += exp_2[heads];
                    }
                }
                const bool v_5 = gdsl::holds(in_degree[i] > T(0.0));
                for (int64_t heads = 0; heads < 2; ++heads) {
                    const T v_6 = (v_5 ? acc_sum_exp[heads] : T(1.0));
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        ratio[i * 6 + heads * 3 + b] = acc_sum_product[heads * 3 + b] / v_6;
                    }
                }
            }
        }
    }
}

// GAT_backward_0: row by row
//   product = d_y * (1 / where(in_degree > 0, sum_exp, 1))
//   h = sum[a](x * weight)
//   left = sum[b](h * att_src)
//   right = sum[b](h * att_dst)
//   chosen = where(in_degree > 0, sum[b](d_y * (-(sum_product / where(in_degree > 0, sum_exp, 1)) / where(in_degree > 0, sum_exp, 1))), 0)
extern "C" void GAT_backward_0(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const T* __restrict__ d_y,
    const T* __restrict__ in_degree,
    const T* __restrict__ sum_exp,
    const T* __restrict__ x,
    const T* __restrict__ weight,
    const T* __restrict__ att_src,
    const T* __restrict__ att_dst,
    const T* __restrict__ sum_product,
    T* __restrict__ product,
    T* __restrict__ h,
    T* __restrict__ left,
    T* __restrict__ right,
    T* __restrict__ chosen
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            for (int64_t i = first; i < last; ++i) {
                const T* __restrict__ sum_exp_i = sum_exp + i * 2;
                const T* __restrict__ sum_product_i = sum_product + i * 6;
                const T* __restrict__ d_y_i = d_y + i * 6;
                const T* __restrict__ x_i = x + i * 4;
                T h_2[6];
                for (int n = 0; n < 6; ++n) h_2[n] = 0;
                for (int64_t heads = 0; heads < 2; ++heads) {
                    for (int64_t a = 0; a < 4; ++a) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            h_2[heads * 3 + b] += x_i[a] * weight[a * 6 + heads * 3 + b];
                        }
                    }
                }
                T left_2[2];
                for (int64_t heads = 0; heads < 2; ++heads) {
                    T s[4] = {};
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        s[b] += h_2[heads * 3 + b] * att_src[heads * 3 + b];
                    }
                    left_2[heads] = gdsl::sum<4>(s);
                }
                T right_2[2];
                for (int64_t heads = 0; heads < 2; ++heads) {
                    T s_2[4] = {};
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        s_2[b] += h_2[heads * 3 + b] * att_dst[heads * 3 + b];
                    }
                    right_2[heads] = gdsl::sum<4>(s_2);
                }
                const bool v = gdsl::holds(in_degree[i] > T(0.0));
                T dot[2];
                for (int64_t heads = 0; heads < 2; ++heads) {
                    T s_3[4] = {};
                    const T v_2 = (v ? sum_exp_i[heads] : T(1.0));
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        const T v_3 = sum_product_i[heads * 3 + b] / v_2;
                        const T v_4 = -v_3;
                        const T v_5 = v_4 / v_2;
                        s_3[b] += d_y_i[heads * 3 + b] * v_5;
                    }
                    dot[heads] = gdsl::sum<4>(s_3);
                }
                const bool v_6 = gdsl::holds(in_degree[i] > T(0.0));
                for (int64_t heads = 0; heads < 2; ++heads) {
                    const T v_7 = (v_6 ? sum_exp_i[heads] : T(1.0));
                    const T v_8 = T(1.0) / v_7;
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        product[i * 6 + heads * 3 + b] = d_y_i[heads * 3 + b] * v_8;
                        h[i * 6 + heads * 3 + b] = h_2[heads * 3 + b];
                    }
                }
                const bool v_9 = gdsl::holds(in_degree[i] > T(0.0));
                #pragma omp simd
                for (int64_t heads = 0; heads < 2; ++heads) {
                    left[i * 2 + heads] = left_2[heads];
                    right[i * 2 + heads] = right_2[heads];
                    chosen[i * 2 + heads] = (v_9 ? dot[heads] : T(0.0));
                }
            }
        }
    }
}

// GAT_backward_1: walks the out-edges of node i; j is the target
//   sum_product = sum@j(product[i] * exp(score - max_score[i]))
//   d_left = sum@j(d_score * where(left[j] + right[i] > 0, 1, 0.2))
//   d_att_src = total(d_left * h)
extern "C" void GAT_backward_1(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ product,
    const T* __restrict__ h,
    const T* __restrict__ left,
    const T* __restrict__ right,
    const T* __restrict__ max_score,
    const T* __restrict__ chosen,
    T* __restrict__ sum_product,
    T* __restrict__ d_left,
    T* __restrict__ d_att_src
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            T* __restrict__ total_d_att_src = d_att_src + group * 6;
            for (int64_t n = 0; n < 6; ++n) total_d_att_src[n] = 0;
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            const int64_t stop = rowptr[last];
            for (int64_t i = first; i < last; ++i) {
                const int64_t begin = rowptr[i], end = rowptr[i + 1];
                if (end - begin > 16384) continue;  // a hub, left to GAT_backward_1_hubs
                const T* __restrict__ h_i = h + i * 6;
                const T* __restrict__ left_i = left + i * 2;
                T acc_sum_product[6];
                for (int n = 0; n < 6; ++n) acc_sum_product[n] = 0;
                T acc_d_left[2];
                for (int n = 0; n < 2; ++n) acc_d_left[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ chosen_j = chosen + j * 2;
                    const T* __restrict__ product_j = product + j * 6;
                    const T* __restrict__ max_score_j = max_score + j * 2;
                    const T* __restrict__ right_j = right + j * 2;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(right + ahead * 2);
                    __builtin_prefetch(max_score + ahead * 2);
                    __builtin_prefetch(product + ahead * 6);
                    __builtin_prefetch(chosen + ahead * 2);
                    T exp_2[2];
                    #pragma omp simd
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        const T v = left_i[heads] + right_j[heads];
                        const T score = (v > 0 ? v : v * T(0.2));
                        const T v_2 = score - max_score_j[heads];
                        exp_2[heads] = gdsl::exp(v_2);
                    }
                    T dot[2];
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        T s[4] = {};
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            s[b] += product_j[heads * 3 + b] * h_i[heads * 3 + b];
                        }
                        dot[heads] = gdsl::sum<4>(s);
                    }
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            const T v_3 = product_j[heads * 3 + b] * exp_2[heads];
                            acc_sum_product[heads * 3 + b] += v_3;
                        }
                    }
                    #pragma omp simd
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        const T v_4 = chosen_j[heads] + dot[heads];
                        const T d_score = v_4 * exp_2[heads];
                        const T v_5 = left_i[heads] + right_j[heads];
                        const bool v_6 = v_5 > T(0.0);
                        const T v_7 = (v_6 ? T(1.0) : T(0.2));
                        const T v_8 = d_score * v_7;
                        acc_d_left[heads] += v_8;
                    }
                }
                for (int64_t heads = 0; heads < 2; ++heads) {
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        sum_product[i * 6 + heads * 3 + b] = acc_sum_product[heads * 3 + b];
                    }
                }
                #pragma omp simd
                for (int64_t heads = 0; heads < 2; ++heads) {
                    d_left[i * 2 + heads] = acc_d_left[heads];
                }
                for (int64_t heads = 0; heads < 2; ++heads) {
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        total_d_att_src[heads * 3 + b] += acc_d_left[heads] * h_i[heads * 3 + b];
                    }
                }
            }
        }
    }
}

// GAT_backward_2: walks the in-edges of node i; j is the source
//   d_right = sum@i(d_score * where(left[j] + right[i] > 0, 1, 0.2))
//   d_att_dst = total(d_right * h)
extern "C" void GAT_backward_2(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ product,
    const T* __restrict__ h,
    const T* __restrict__ left,
    const T* __restrict__ right,
    const T* __restrict__ max_score,
    const T* __restrict__ chosen,
    T* __restrict__ d_right,
    T* __restrict__ d_att_dst
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            T* __restrict__ total_d_att_dst = d_att_dst + group * 6;
            for (int64_t n = 0; n < 6; ++n) total_d_att_dst[n] = 0;
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            const int64_t stop = rowptr[last];
            for (int64_t i = first; i < last; ++i) {
                const int64_t begin = rowptr[i], end = rowptr[i + 1];
                if (end - begin > 16384) continue;  // a hub, left to GAT_backward_2_hubs
                const T* __restrict__ h_i = h + i * 6;
                const T* __restrict__ max_score_i = max_score + i * 2;
                const T* __restrict__ right_i = right + i * 2;
                const T* __restrict__ chosen_i = chosen + i * 2;
                const T* __restrict__ product_i = product + i * 6;
                T acc_d_right[2];
                for (int n = 0; n < 2; ++n) acc_d_right[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ left_j = left + j * 2;
                    const T* __restrict__ h_j = h + j * 6;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(h + ahead * 6);
                    __builtin_prefetch(left + ahead * 2);
                    T dot[2];
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        T s[4] = {};
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            s[b] += product_i[heads * 3 + b] * h_j[heads * 3 + b];
                        }
                        dot[heads] = gdsl::sum<4>(s);
                    }
                    #pragma omp simd
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        const T v = chosen_i[heads] + dot[heads];
                        const T v_2 = left_j[heads] + right_i[heads];
                        const T score = (v_2 > 0 ? v_2 : v_2 * T(0.2));
                        const T v_3 = score - max_score_i[heads];
                        const T v_4 = gdsl::exp(v_3);
                        const T d_score = v * v_4;
                        const bool v_5 = v_2 > T(0.0);
                        const T v_6 = (v_5 ? T(1.0) : T(0.2));
                        const T v_7 = d_score * v_6;
                        acc_d_right[heads] += v_7;
                    }
                }
                #pragma omp simd
                for (int64_t heads = 0; heads < 2; ++heads) {
                    d_right[i * 2 + heads] = acc_d_right[heads];
                }
                for (int64_t heads = 0; heads < 2; ++heads) {
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        total_d_att_dst[heads * 3 + b] += acc_d_right[heads] * h_i[heads * 3 + b];
                    }
                }
            }
        }
    }
}

// GAT_backward_3: row by row
//   d_x = sum[heads, b](d_h * weight)
//   d_weight = total(d_h * x)
extern "C" void GAT_backward_3(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const T* __restrict__ x,
    const T* __restrict__ weight,
    const T* __restrict__ att_src,
    const T* __restrict__ att_dst,
    const T* __restrict__ sum_product,
    const T* __restrict__ d_right,
    const T* __restrict__ d_left,
    T* __restrict__ d_x,
    T* __restrict__ d_weight
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            T* __restrict__ total_d_weight = d_weight + group * 24;
            for (int64_t n = 0; n < 24; ++n) total_d_weight[n] = 0;
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            for (int64_t i = first; i < last; ++i) {
                const T* __restrict__ x_i = x + i * 4;
                const T* __restrict__ d_left_i = d_left + i * 2;
                const T* __restrict__ d_right_i = d_right + i * 2;
                const T* __restrict__ sum_product_i = sum_product + i * 6;
                T d_h[6];
                for (int64_t heads = 0; heads < 2; ++heads) {
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        const T v = d_right_i[heads] * att_dst[heads * 3 + b];
                        const T v_2 = sum_product_i[heads * 3 + b] + v;
                        const T v_3 = d_left_i[heads] * att_src[heads * 3 + b];
                        d_h[heads * 3 + b] = v_2 + v_3;
                    }
                }
                T d_x_2[4];
                for (int64_t a = 0; a < 4; ++a) {
                    T s[4] = {};
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            s[b] += d_h[heads * 3 + b] * weight[a * 6 + heads * 3 + b];
                        }
                    }
                    d_x_2[a] = gdsl::sum<4>(s);
                }
                #pragma omp simd
                for (int64_t a = 0; a < 4; ++a) {
                    d_x[i * 4 + a] = d_x_2[a];
                }
                for (int64_t a = 0; a < 4; ++a) {
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            total_d_weight[a * 6 + heads * 3 + b] += d_h[heads * 3 + b] * x_i[a];
                        }
                    }
                }
            }
        }
    }
}
