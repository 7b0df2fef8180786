// GATv2_0: row by row
//   left = sum[a](x * weight_l)
//   right = sum[a](x * weight_r)
extern "C" void GATv2_0(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const T* __restrict__ x,
    const T* __restrict__ weight_l,
    const T* __restrict__ weight_r,
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
                T left_2[6];
                for (int n = 0; n < 6; ++n) left_2[n] = 0;
                for (int64_t heads = 0; heads < 2; ++heads) {
                    for (int64_t a = 0; a < 4; ++a) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            left_2[heads * 3 + b] += x_i[a] * weight_l[a * 6 + heads * 3 + b];
                        }
                    }
                }
                T right_2[6];
                for (int n = 0; n < 6; ++n) right_2[n] = 0;
                for (int64_t heads = 0; heads < 2; ++heads) {
                    for (int64_t a = 0; a < 4; ++a) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            right_2[heads * 3 + b] += x_i[a] * weight_r[a * 6 + heads * 3 + b];
                        }
                    }
                }
                for (int64_t heads = 0; heads < 2; ++heads) {
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        left[i * 6 + heads * 3 + b] = left_2[heads * 3 + b];
                        right[i * 6 + heads * 3 + b] = right_2[heads * 3 + b];
                    }
                }
            }
        }
    }
}

// GATv2_1: walks the in-edges of node i; j is the source
//   max_score = max@i(score)
//   sum_product = sum@i(exp(score - max@i(score)[i]) * left[j])
//   sum_exp = sum@i(exp(score - max@i(score)[i]))
//   ratio = sum_product / where(in_degree > 0, sum_exp, 1)
extern "C" void GATv2_1(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ left,
    const T* __restrict__ right,
    const T* __restrict__ att,
    const T* __restrict__ in_degree,
    T* __restrict__ ratio,
    T* __restrict__ scratch
) {
    #pragma omp parallel num_threads(threads)
    {
        T* const mine = scratch + omp_get_thread_num() * (max_degree + 1) * 2;
        T* __restrict__ kept_score = mine + (max_degree + 1) * 0;
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            const int64_t stop = rowptr[last];
            for (int64_t i = first; i < last; ++i) {
                const int64_t begin = rowptr[i], end = rowptr[i + 1];
                if (end - begin > 16384) continue;  // a hub, left to GATv2_1_hubs
                const T* __restrict__ right_i = right + i * 6;
                T acc_max_score[2];
                for (int n = 0; n < 2; ++n) acc_max_score[n] = -__builtin_inf();
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ left_j = left + j * 6;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(left + ahead * 6);
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        T s[4] = {};
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            const T v = left_j[heads * 3 + b] + right_i[heads * 3 + b];
                            const T z = (v > 0 ? v : v * T(0.2));
                            s[b] += z * att[heads * 3 + b];
                        }
                        kept_score[(e - begin) * 2 + heads] = gdsl::sum<4>(s);
                    }
                    #pragma omp simd
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        acc_max_score[heads] = gdsl::larger(acc_max_score[heads], kept_score[(e - begin) * 2 + heads]);
                    }
                }
                if (begin == end) for (int n = 0; n < 2; ++n) acc_max_score[n] = 0;
                T acc_sum_product[6];
                for (int n = 0; n < 6; ++n) acc_sum_product[n] = 0;
                T acc_sum_exp[2];
                for (int n = 0; n < 2; ++n) acc_sum_exp[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ left_j_2 = left + j * 6;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(left + ahead * 6);
                    T exp_2[2];
                    #pragma omp simd
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        const T v_2 = kept_score[(e - begin) * 2 + heads] - acc_max_score[heads];
                        exp_2[heads] = gdsl::exp(v_2);
                    }
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            const T v_3 = exp_2[heads] * left_j_2[heads * 3 + b];
                            acc_sum_product[heads * 3 + b] += v_3;
                        }
                    }
                    #pragma omp simd
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        acc_sum_exp[heads] += exp_2[heads];
                    }
                }
                const bool v_4 = gdsl::holds(in_degree[i] > T(0.0));
                for (int64_t heads = 0; heads < 2; ++heads) {
                    const T v_5 = (v_4 ? acc_sum_exp[heads] : T(1.0));
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        ratio[i * 6 + heads * 3 + b] = acc_sum_product[heads * 3 + b] / v_5;
                    }
                }
            }
        }
    }
}

// GATv2_backward_0: row by row
//   chosen = where(in_degree > 0, sum[b](d_y * (-(sum_product / where(in_degree > 0, sum_exp, 1)) / where(in_degree > 0, sum_exp, 1))), 0)
//   product = d_y * (1 / where(in_degree > 0, sum_exp, 1))
//   left = sum[a](x * weight_l)
//   right = sum[a](x * weight_r)
extern "C" void GATv2_backward_0(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const T* __restrict__ in_degree,
    const T* __restrict__ d_y,
    const T* __restrict__ sum_product,
    const T* __restrict__ sum_exp,
    const T* __restrict__ x,
    const T* __restrict__ weight_l,
    const T* __restrict__ weight_r,
    T* __restrict__ chosen,
    T* __restrict__ product,
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
                const T* __restrict__ sum_exp_i = sum_exp + i * 2;
                const T* __restrict__ sum_product_i = sum_product + i * 6;
                const T* __restrict__ d_y_i = d_y + i * 6;
                const bool v = gdsl::holds(in_degree[i] > T(0.0));
                T dot[2];
                for (int64_t heads = 0; heads < 2; ++heads) {
                    T s[4] = {};
                    const T v_2 = (v ? sum_exp_i[heads] : T(1.0));
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        const T v_3 = sum_product_i[heads * 3 + b] / v_2;
                        const T v_4 = -v_3;
                        const T v_5 = v_4 / v_2;
                        s[b] += d_y_i[heads * 3 + b] * v_5;
                    }
                    dot[heads] = gdsl::sum<4>(s);
                }
                T left_2[6];
                for (int n = 0; n < 6; ++n) left_2[n] = 0;
                for (int64_t heads = 0; heads < 2; ++heads) {
                    for (int64_t a = 0; a < 4; ++a) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            left_2[heads * 3 + b] += x_i[a] * weight_l[a * 6 + heads * 3 + b];
                        }
                    }
                }
                T right_2[6];
                for (int n = 0; n < 6; ++n) right_2[n] = 0;
                for (int64_t heads = 0; heads < 2; ++heads) {
                    for (int64_t a = 0; a < 4; ++a) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            right_2[heads * 3 + b] += x_i[a] * weight_r[a * 6 + heads * 3 + b];
                        }
                    }
                }
                const bool v_6 = gdsl::holds(in_degree[i] > T(0.0));
                #pragma omp simd
                for (int64_t heads = 0; heads < 2; ++heads) {
                    chosen[i * 2 + heads] = (v_6 ? dot[heads] : T(0.0));
                }
                const bool v_7 = gdsl::holds(in_degree[i] > T(0.0));
                for (int64_t heads = 0; heads < 2; ++heads) {
                    const T v_8 = (v_7 ? sum_exp_i[heads] : T(1.0));
                    const T v_9 = T(1.0) / v_8;
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        product[i * 6 + heads * 3 + b] = d_y_i[heads * 3 + b] * v_9;
                        left[i * 6 + heads * 3 + b] = left_2[heads * 3 + b];
                        right[i * 6 + heads * 3 + b] = right_2[heads * 3 + b];
                    }
                }
            }
        }
    }
}

// GATv2_backward_1: walks the out-edges of node i; j is the target
//   d_left = sum@j(product[i] * exp(score - max_score[i]) + d_z * where(left[j] + right[i] > 0, 1, 0.2))
//   dot = sum[heads, b](d_left * weight_l)
//   d_weight_l = total(d_left * x)
extern "C" void GATv2_backward_1(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ chosen,
    const T* __restrict__ product,
    const T* __restrict__ x,
    const T* __restrict__ weight_l,
    const T* __restrict__ left,
    const T* __restrict__ right,
    const T* __restrict__ att,
    const T* __restrict__ max_score,
    T* __restrict__ dot,
    T* __restrict__ d_weight_l
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            T* __restrict__ total_d_weight_l = d_weight_l + group * 24;
            for (int64_t n = 0; n < 24; ++n) total_d_weight_l[n] = 0;
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            const int64_t stop = rowptr[last];
            for (int64_t i = first; i < last; ++i) {
                const int64_t begin = rowptr[i], end = rowptr[i + 1];
                if (end - begin > 16384) continue;  // a hub, left to GATv2_backward_1_hubs
                const T* __restrict__ x_i = x + i * 4;
                const T* __restrict__ left_i = left + i * 6;
                T acc_d_left[6];
                for (int n = 0; n < 6; ++n) acc_d_left[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ chosen_j = chosen + j * 2;
                    const T* __restrict__ product_j = product + j * 6;
                    const T* __restrict__ max_score_j = max_score + j * 2;
                    const T* __restrict__ right_j = right + j * 6;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(right + ahead * 6);
                    __builtin_prefetch(max_score + ahead * 2);
                    __builtin_prefetch(product + ahead * 6);
                    __builtin_prefetch(chosen + ahead * 2);
                    T score[2];
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        T s[4] = {};
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            const T v = left_i[heads * 3 + b] + right_j[heads * 3 + b];
                            const T z = (v > 0 ? v : v * T(0.2));
                            s[b] += z * att[heads * 3 + b];
                        }
                        score[heads] = gdsl::sum<4>(s);
                    }
                    T exp_2[2];
                    #pragma omp simd
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        const T v_2 = score[heads] - max_score_j[heads];
                        exp_2[heads] = gdsl::exp(v_2);
                    }
                    T dot_2[2];
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        T s_2[4] = {};
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            s_2[b] += product_j[heads * 3 + b] * left_i[heads * 3 + b];
                        }
                        dot_2[heads] = gdsl::sum<4>(s_2);
                    }
                    T d_score[2];
                    #pragma omp simd
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        const T v_3 = chosen_j[heads] + dot_2[heads];
                        d_score[heads] = v_3 * exp_2[heads];
                    }
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            const T v_4 = product_j[heads * 3 + b] * exp_2[heads];
                            const T d_z = d_score[heads] * att[heads * 3 + b];
                            const T v_5 = left_i[heads * 3 + b] + right_j[heads * 3 + b];
                            const bool v_6 = v_5 > T(0.0);
                            const T v_7 = (v_6 ? T(1.0) : T(0.2));
                            const T v_8 = d_z * v_7;
                            const T v_9 = v_4 + v_8;
                            acc_d_left[heads * 3 + b] += v_9;
                        }
                    }
                }
                T dot_3[4];
                for (int64_t a = 0; a < 4; ++a) {
                    T s_3[4] = {};
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            s_3[b] += acc_d_left[heads * 3 + b] * weight_l[a * 6 + heads * 3 + b];
                        }
                    }
                    dot_3[a] = gdsl::sum<4>(s_3);
                }
                #pragma omp simd
                for (int64_t a = 0; a < 4; ++a) {
                    dot[i * 4 + a] = dot_3[a];
                }
                for (int64_t a = 0; a < 4; ++a) {
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            total_d_weight_l[a * 6 + heads * 3 + b] += acc_d_left[heads * 3 + b] * x_i[a];
                        }
                    }
                }
            }
        }
    }
}

// GATv2_backward_2: walks the in-edges of node i; j is the source
//   d_right = sum@i(d_z * where(left[j] + right[i] > 0, 1, 0.2))
//   d_att = total(d_score * z)
//   dot = sum[heads, b](d_right * weight_r)
//   d_weight_r = total(d_right * x)
extern "C" void GATv2_backward_2(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ chosen,
    const T* __restrict__ product,
    const T* __restrict__ x,
    const T* __restrict__ left,
    const T* __restrict__ weight_r,
    const T* __restrict__ right,
    const T* __restrict__ att,
    const T* __restrict__ max_score,
    T* __restrict__ dot,
    T* __restrict__ d_weight_r,
    T* __restrict__ d_att
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            T* __restrict__ total_d_weight_r = d_weight_r + group * 24;
            for (int64_t n = 0; n < 24; ++n) total_d_weight_r[n] = 0;
            T* __restrict__ total_d_att = d_att + group * 6;
            for (int64_t n = 0; n < 6; ++n) total_d_att[n] = 0;
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            const int64_t stop = rowptr[last];
            for (int64_t i = first; i < last; ++i) {
                const int64_t begin = rowptr[i], end = rowptr[i + 1];
                if (end - begin > 16384) continue;  // a hub, left to GATv2_backward_2_hubs
                const T* __restrict__ x_i = x + i * 4;
                const T* __restrict__ max_score_i = max_score + i * 2;
                const T* __restrict__ chosen_i = chosen + i * 2;
                const T* __restrict__ right_i = right + i * 6;
                const T* __restrict__ product_i = product + i * 6;
                T acc_d_right[6];
                for (int n = 0; n < 6; ++n) acc_d_right[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ left_j = left + j * 6;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(left + ahead * 6);
                    T dot_2[2];
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        T s[4] = {};
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            s[b] += product_i[heads * 3 + b] * left_j[heads * 3 + b];
                        }
                        dot_2[heads] = gdsl::sum<4>(s);
                    }
                    T score[2];
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        T s_2[4] = {};
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            const T v = left_j[heads * 3 + b] + right_i[heads * 3 + b];
                            const T z = (v > 0 ? v : v * T(0.2));
                            s_2[b] += z * att[heads * 3 + b];
                        }
                        score[heads] = gdsl::sum<4>(s_2);
                    }
                    T d_score[2];
                    #pragma omp simd
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        const T v_2 = chosen_i[heads] + dot_2[heads];
                        const T v_3 = score[heads] - max_score_i[heads];
                        const T v_4 = gdsl::exp(v_3);
                        d_score[heads] = v_2 * v_4;
                    }
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            const T d_z = d_score[heads] * att[heads * 3 + b];
                            const T v_5 = left_j[heads * 3 + b] + right_i[heads * 3 + b];
                            const bool v_6 = v_5 > T(0.0);
                            const T v_7 = (v_6 ? T(1.0) : T(0.2));
                            const T v_8 = d_z * v_7;
                            acc_d_right[heads * 3 + b] += v_8;
                            const T v_9 = left_j[heads * 3 + b] + right_i[heads * 3 + b];
                            const T z_2 = (v_9 > 0 ? v_9 : v_9 * T(0.2));
                            total_d_att[heads * 3 + b] += d_score[heads] * z_2;
                        }
                    }
                }
                T dot_3[4];
                for (int64_t a = 0; a < 4; ++a) {
                    T s_3[4] = {};
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            s_3[b] += acc_d_right[heads * 3 + b] * weight_r[a * 6 + heads * 3 + b];
                        }
                    }
                    dot_3[a] = gdsl::sum<4>(s_3);
                }
                #pragma omp simd
                for (int64_t a = 0; a < 4; ++a) {
                    dot[i * 4 + a] = dot_3[a];
                }
                for (int64_t a = 0; a < 4; ++a) {
                    for (int64_t heads = 0; heads < 2; ++heads) {
                        #pragma omp simd
                        for (int64_t b = 0; b < 3; ++b) {
                            total_d_weight_r[a * 6 + heads * 3 + b] += acc_d_right[heads * 3 + b] * x_i[a];
                        }
                    }
                }
            }
        }
    }
}

// GATv2_backward_3: row by row
//   d_x = dot + dot_2
extern "C" void GATv2_backward_3(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const T* __restrict__ dot,
    const T* __restrict__ dot_2,
    T* __restrict__ d_x
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            for (int64_t i = first; i < last; ++i) {
                const T* __restrict__ dot_2_i = dot_2 + i * 4;
                const T* __restrict__ dot_i = dot + i * 4;
                #pragma omp simd
                for (int64_t a = 0; a < 4; ++a) {
                    d_x[i * 4 + a] = dot_i[a] + dot_2_i[a];
                }
            }
        }
    }
}
