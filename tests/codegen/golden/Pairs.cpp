// Pairs_0: walks the pairs of edge i; j is the edge before it
//   max_score = max@i(score)
//   sum_gather = sum@i(e_2[j])
//   sum_product = sum@i(exp(score - max@i(score)[i]) * e_2[j])
//   sum_exp = sum@i(exp(score - max@i(score)[i]))
//   heard = sum_product / where(in_degree > 0, sum_exp, 1)
extern "C" void Pairs_0(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ gdsl_rows, const idx_t* __restrict__ gdsl_node, const idx_t* __restrict__ gdsl_far,
    const idx_t* __restrict__ gdsl_rowptr, const idx_t* __restrict__ gdsl_near, const idx_t* __restrict__ gdsl_edges,
    const T* __restrict__ e_2,
    const T* __restrict__ in_degree,
    T* __restrict__ heard,
    T* __restrict__ sum_gather,
    T* __restrict__ scratch,
    idx_t* __restrict__ gdsl_room
) {
    #pragma omp parallel num_threads(threads)
    {
        T* const mine = scratch + omp_get_thread_num() * (max_degree + 1) * 1;
        T* __restrict__ kept_score = mine + (max_degree + 1) * 0;
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            idx_t* const other = gdsl_room + omp_get_thread_num() * (max_degree + 1);
            const idx_t* const edge = other;
            for (int64_t gdsl_row = first; gdsl_row < last; ++gdsl_row) {
                const int64_t i = gdsl_rows[gdsl_row];
                const idx_t gdsl_shared = gdsl_node[i], gdsl_back = gdsl_far[i];
                int64_t end = 0;
                for (int64_t e = gdsl_rowptr[gdsl_shared]; e < gdsl_rowptr[gdsl_shared + 1]; ++e) {
                    other[end] = gdsl_edges[e];
                    end += gdsl_near[e] != gdsl_back;
                }
                const int64_t begin = 0, stop = end;
                const T* __restrict__ e_2_i = e_2 + i * 4;
                T acc_max_score;
                acc_max_score = -__builtin_inf();
                T acc_sum_gather[4];
                for (int n = 0; n < 4; ++n) acc_sum_gather[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ e_2_j = e_2 + j * 4;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(e_2 + ahead * 4);
                    T s[4] = {};
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        s[a] += e_2_j[a] * e_2_i[a];
                    }
                    kept_score[(e - begin)] = gdsl::sum<4>(s);
                    acc_max_score = gdsl::larger(acc_max_score, kept_score[(e - begin)]);
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        acc_sum_gather[a] += e_2_j[a];
                    }
                }
                if (begin == end) acc_max_score = 0;
                T acc_sum_product[4];
                for (int n = 0; n < 4; ++n) acc_sum_product[n] = 0;
                T acc_sum_exp;
                acc_sum_exp = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ e_2_j_2 = e_2 + j * 4;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(e_2 + ahead * 4);
                    const T v = kept_score[(e - begin)] - acc_max_score;
                    const T exp_2 = gdsl::exp(v);
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        const T v_2 = exp_2 * e_2_j_2[a];
                        acc_sum_product[a] += v_2;
                    }
                    acc_sum_exp += exp_2;
                }
                const bool v_3 = gdsl::holds(in_degree[i] > T(0.0));
                const T v_4 = (v_3 ? acc_sum_exp : T(1.0));
                #pragma omp simd
                for (int64_t a = 0; a < 4; ++a) {
                    heard[i * 4 + a] = acc_sum_product[a] / v_4;
                    sum_gather[i * 4 + a] = acc_sum_gather[a];
                }
            }
        }
    }
}

// Pairs_1: walks the pairs of edge i; j is the edge behind it
//   most = max@j(e_2[i] * sum_gather[j])
//   dot = sum[a]((heard * most) * w)
extern "C" void Pairs_1(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ gdsl_rows, const idx_t* __restrict__ gdsl_node, const idx_t* __restrict__ gdsl_far,
    const idx_t* __restrict__ gdsl_rowptr, const idx_t* __restrict__ gdsl_near, const idx_t* __restrict__ gdsl_edges,
    const T* __restrict__ e_2,
    const T* __restrict__ heard,
    const T* __restrict__ sum_gather,
    const T* __restrict__ w,
    T* __restrict__ dot,
    idx_t* __restrict__ gdsl_room
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            idx_t* const other = gdsl_room + omp_get_thread_num() * (max_degree + 1);
            const idx_t* const edge = other;
            for (int64_t gdsl_row = first; gdsl_row < last; ++gdsl_row) {
                const int64_t i = gdsl_rows[gdsl_row];
                const idx_t gdsl_shared = gdsl_node[i], gdsl_back = gdsl_far[i];
                int64_t end = 0;
                for (int64_t e = gdsl_rowptr[gdsl_shared]; e < gdsl_rowptr[gdsl_shared + 1]; ++e) {
                    other[end] = gdsl_edges[e];
                    end += gdsl_near[e] != gdsl_back;
                }
                const int64_t begin = 0, stop = end;
                const T* __restrict__ heard_i = heard + i * 4;
                const T* __restrict__ sum_gather_i = sum_gather + i * 4;
                T acc_most[4];
                for (int n = 0; n < 4; ++n) acc_most[n] = -__builtin_inf();
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ e_2_j = e_2 + j * 4;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(e_2 + ahead * 4);
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        const T v = e_2_j[a] * sum_gather_i[a];
                        acc_most[a] = gdsl::larger(acc_most[a], v);
                    }
                }
                if (begin == end) for (int n = 0; n < 4; ++n) acc_most[n] = 0;
                T product[4];
                #pragma omp simd
                for (int64_t a = 0; a < 4; ++a) {
                    product[a] = heard_i[a] * acc_most[a];
                }
                T dot_2[3];
                for (int n = 0; n < 3; ++n) dot_2[n] = 0;
                for (int64_t a = 0; a < 4; ++a) {
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        dot_2[b] += product[a] * w[a * 3 + b];
                    }
                }
                #pragma omp simd
                for (int64_t b = 0; b < 3; ++b) {
                    dot[i * 3 + b] = dot_2[b];
                }
            }
        }
    }
}

// Pairs_2: walks the in-edges of node i; j is the source
//   sum_dot = sum@i(dot)
extern "C" void Pairs_2(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ dot,
    T* __restrict__ sum_dot
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
                if (end - begin > 16384) continue;  // a hub, left to Pairs_2_hubs
                T acc_sum_dot[3];
                for (int n = 0; n < 3; ++n) acc_sum_dot[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const int64_t id = edge[e];
                    const T* __restrict__ dot_id = dot + id * 3;
                    const int64_t id_ahead = edge[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(dot + id_ahead * 3);
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        acc_sum_dot[b] += dot_id[b];
                    }
                }
                #pragma omp simd
                for (int64_t b = 0; b < 3; ++b) {
                    sum_dot[i * 3 + b] = acc_sum_dot[b];
                }
            }
        }
    }
}

// Pairs_backward_0: row by row
//   chosen = where(to_float(countmax_product) > 1.5, minimum(most * 0.9999961853027344, most * 1.0000038146972656), inf)
extern "C" void Pairs_backward_0(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ countmax_product,
    const T* __restrict__ most,
    T* __restrict__ chosen
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            for (int64_t i = first; i < last; ++i) {
                const T* __restrict__ most_i = most + i * 4;
                const idx_t* __restrict__ countmax_product_i = countmax_product + i * 4;
                #pragma omp simd
                for (int64_t a = 0; a < 4; ++a) {
                    const T v = T(countmax_product_i[a]);
                    const bool v_2 = v > T(1.5);
                    const T v_3 = most_i[a] * T(0.9999961853027344);
                    const T v_4 = most_i[a] * T(1.0000038146972656);
                    const T v_5 = gdsl::minimum(v_3, v_4);
                    chosen[i * 4 + a] = (v_2 ? v_5 : T(__builtin_inf()));
                }
            }
        }
    }
}

// Pairs_backward_1: row by row
//   dot = sum[b](d_y * w)
extern "C" void Pairs_backward_1(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const T* __restrict__ d_y,
    const T* __restrict__ w,
    T* __restrict__ dot
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            for (int64_t i = first; i < last; ++i) {
                const T* __restrict__ d_y_i = d_y + i * 3;
                T dot_2[4];
                for (int64_t a = 0; a < 4; ++a) {
                    T s[4] = {};
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        s[b] += d_y_i[b] * w[a * 3 + b];
                    }
                    dot_2[a] = gdsl::sum<4>(s);
                }
                #pragma omp simd
                for (int64_t a = 0; a < 4; ++a) {
                    dot[i * 4 + a] = dot_2[a];
                }
            }
        }
    }
}

// Pairs_backward_2: walks the pairs of edge i; j is the edge behind it
//   sum_chosen = sum@j(where(e_2[i] * sum_gather[j] < chosen[j] and not(argmax_product[j] == node_id[i]), 0, 1))
//   maximum = maximum(sum_chosen, 1)
extern "C" void Pairs_backward_2(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ gdsl_rows, const idx_t* __restrict__ gdsl_node, const idx_t* __restrict__ gdsl_far,
    const idx_t* __restrict__ gdsl_rowptr, const idx_t* __restrict__ gdsl_near, const idx_t* __restrict__ gdsl_edges,
    const T* __restrict__ e_2,
    const T* __restrict__ sum_gather,
    const T* __restrict__ chosen,
    const idx_t* __restrict__ argmax_product,
    T* __restrict__ maximum,
    idx_t* __restrict__ gdsl_room
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            idx_t* const other = gdsl_room + omp_get_thread_num() * (max_degree + 1);
            const idx_t* const edge = other;
            for (int64_t gdsl_row = first; gdsl_row < last; ++gdsl_row) {
                const int64_t i = gdsl_rows[gdsl_row];
                const idx_t gdsl_shared = gdsl_node[i], gdsl_back = gdsl_far[i];
                int64_t end = 0;
                for (int64_t e = gdsl_rowptr[gdsl_shared]; e < gdsl_rowptr[gdsl_shared + 1]; ++e) {
                    other[end] = gdsl_edges[e];
                    end += gdsl_near[e] != gdsl_back;
                }
                const int64_t begin = 0, stop = end;
                const idx_t* __restrict__ argmax_product_i = argmax_product + i * 4;
                const T* __restrict__ chosen_i = chosen + i * 4;
                const T* __restrict__ sum_gather_i = sum_gather + i * 4;
                T acc_sum_chosen[4];
                for (int n = 0; n < 4; ++n) acc_sum_chosen[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ e_2_j = e_2 + j * 4;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(e_2 + ahead * 4);
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        const T v = e_2_j[a] * sum_gather_i[a];
                        const bool v_2 = v < chosen_i[a];
                        const bool v_3 = argmax_product_i[a] == j;
                        const bool v_4 = !v_3;
                        const bool v_5 = v_2 & v_4;
                        const T v_6 = (v_5 ? T(0.0) : T(1.0));
                        acc_sum_chosen[a] += v_6;
                    }
                }
                #pragma omp simd
                for (int64_t a = 0; a < 4; ++a) {
                    maximum[i * 4 + a] = gdsl::maximum(acc_sum_chosen[a], T(1.0));
                }
            }
        }
    }
}

// Pairs_backward_3: walks the in-edges of node i; j is the source
//   ratio = d_most / maximum
//   chosen = where(in_degree > 0, sum[a](d_heard * (-heard / where(in_degree > 0, sum_exp, 1))), 0)
//   product = d_heard * (1 / where(in_degree > 0, sum_exp, 1))
//   gather = d_y[i]
extern "C" void Pairs_backward_3(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ rowptr, const idx_t* __restrict__ other, const idx_t* __restrict__ edge,
    const T* __restrict__ most,
    const T* __restrict__ d_y,
    const T* __restrict__ dot,
    const T* __restrict__ sum_product,
    const T* __restrict__ in_degree,
    const T* __restrict__ sum_exp,
    const T* __restrict__ maximum,
    const T* __restrict__ d_y1,
    T* __restrict__ ratio,
    T* __restrict__ chosen,
    T* __restrict__ product,
    T* __restrict__ gather
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
                if (end - begin > 16384) continue;  // a hub, left to Pairs_backward_3_hubs
                const T* __restrict__ d_y_i = d_y + i * 3;
                const T* __restrict__ dot_i = dot + i * 4;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const int64_t id = edge[e];
                    const T* __restrict__ maximum_id = maximum + id * 4;
                    const T* __restrict__ sum_product_id = sum_product + id * 4;
                    const T* __restrict__ most_id = most + id * 4;
                    const T* __restrict__ d_y1_id = d_y1 + id * 4;
                    const int64_t id_ahead = edge[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(d_y1 + id_ahead * 4);
                    __builtin_prefetch(most + id_ahead * 4);
                    __builtin_prefetch(sum_product + id_ahead * 4);
                    __builtin_prefetch(in_degree + id_ahead);
                    __builtin_prefetch(sum_exp + id_ahead);
                    __builtin_prefetch(maximum + id_ahead * 4);
                    __builtin_prefetch(ratio + id_ahead * 4);
                    __builtin_prefetch(chosen + id_ahead);
                    __builtin_prefetch(product + id_ahead * 4);
                    __builtin_prefetch(gather + id_ahead * 3);
                    T s[4] = {};
                    const bool v_2 = gdsl::holds(in_degree[id] > T(0.0));
                    const T v_3 = (v_2 ? sum_exp[id] : T(1.0));
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        const T v = dot_i[a] * most_id[a];
                        const T d_heard = d_y1_id[a] + v;
                        const T heard = sum_product_id[a] / v_3;
                        const T v_4 = -heard;
                        const T v_5 = v_4 / v_3;
                        s[a] += d_heard * v_5;
                    }
                    const T dot_2 = gdsl::sum<4>(s);
                    const bool v_6 = gdsl::holds(in_degree[id] > T(0.0));
                    const T v_7 = (v_6 ? sum_exp[id] : T(1.0));
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        const T heard_2 = sum_product_id[a] / v_7;
                        const T d_most = dot_i[a] * heard_2;
                        ratio[id * 4 + a] = d_most / maximum_id[a];
                    }
                    const bool v_8 = in_degree[id] > T(0.0);
                    chosen[id] = (v_8 ? dot_2 : T(0.0));
                    const bool v_10 = gdsl::holds(in_degree[id] > T(0.0));
                    const T v_11 = (v_10 ? sum_exp[id] : T(1.0));
                    const T v_12 = T(1.0) / v_11;
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        const T v_9 = dot_i[a] * most_id[a];
                        const T d_heard_2 = d_y1_id[a] + v_9;
                        product[id * 4 + a] = d_heard_2 * v_12;
                    }
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        gather[id * 3 + b] = d_y_i[b];
                    }
                }
            }
        }
    }
}

// Pairs_backward_4: walks the pairs of edge i; j is the edge before it
//   sum_plus = sum@i(where(e_2[i] * sum_gather[j] < chosen[j] and not(argmax_product[j] == node_id[i]), 0, ratio[j]) * sum_gather[j] + d_score * e_2[j])
extern "C" void Pairs_backward_4(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ gdsl_rows, const idx_t* __restrict__ gdsl_node, const idx_t* __restrict__ gdsl_far,
    const idx_t* __restrict__ gdsl_rowptr, const idx_t* __restrict__ gdsl_near, const idx_t* __restrict__ gdsl_edges,
    const T* __restrict__ e_2,
    const T* __restrict__ sum_gather,
    const T* __restrict__ chosen,
    const idx_t* __restrict__ argmax_product,
    const T* __restrict__ ratio,
    const T* __restrict__ chosen_2,
    const T* __restrict__ product,
    const T* __restrict__ max_score,
    T* __restrict__ sum_plus,
    idx_t* __restrict__ gdsl_room
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            idx_t* const other = gdsl_room + omp_get_thread_num() * (max_degree + 1);
            const idx_t* const edge = other;
            for (int64_t gdsl_row = first; gdsl_row < last; ++gdsl_row) {
                const int64_t i = gdsl_rows[gdsl_row];
                const idx_t gdsl_shared = gdsl_node[i], gdsl_back = gdsl_far[i];
                int64_t end = 0;
                for (int64_t e = gdsl_rowptr[gdsl_shared]; e < gdsl_rowptr[gdsl_shared + 1]; ++e) {
                    other[end] = gdsl_edges[e];
                    end += gdsl_near[e] != gdsl_back;
                }
                const int64_t begin = 0, stop = end;
                const T* __restrict__ e_2_i = e_2 + i * 4;
                const T* __restrict__ product_i = product + i * 4;
                T acc_sum_plus[4];
                for (int n = 0; n < 4; ++n) acc_sum_plus[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ ratio_j = ratio + j * 4;
                    const idx_t* __restrict__ argmax_product_j = argmax_product + j * 4;
                    const T* __restrict__ chosen_j = chosen + j * 4;
                    const T* __restrict__ sum_gather_j = sum_gather + j * 4;
                    const T* __restrict__ e_2_j = e_2 + j * 4;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(e_2 + ahead * 4);
                    __builtin_prefetch(sum_gather + ahead * 4);
                    __builtin_prefetch(chosen + ahead * 4);
                    __builtin_prefetch(argmax_product + ahead * 4);
                    __builtin_prefetch(ratio + ahead * 4);
                    T s[4] = {};
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        s[a] += product_i[a] * e_2_j[a];
                    }
                    const T dot = gdsl::sum<4>(s);
                    T s_2[4] = {};
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        s_2[a] += e_2_j[a] * e_2_i[a];
                    }
                    const T score = gdsl::sum<4>(s_2);
                    const T v = chosen_2[i] + dot;
                    const T v_2 = score - max_score[i];
                    const T v_3 = gdsl::exp(v_2);
                    const T d_score = v * v_3;
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        const T v_4 = e_2_i[a] * sum_gather_j[a];
                        const bool v_5 = v_4 < chosen_j[a];
                        const bool v_6 = argmax_product_j[a] == i;
                        const bool v_7 = !v_6;
                        const bool v_8 = v_5 & v_7;
                        const T v_9 = (v_8 ? T(0.0) : ratio_j[a]);
                        const T v_10 = v_9 * sum_gather_j[a];
                        const T v_11 = d_score * e_2_j[a];
                        const T v_12 = v_10 + v_11;
                        acc_sum_plus[a] += v_12;
                    }
                }
                #pragma omp simd
                for (int64_t a = 0; a < 4; ++a) {
                    sum_plus[i * 4 + a] = acc_sum_plus[a];
                }
            }
        }
    }
}

// Pairs_backward_5: walks the pairs of edge i; j is the edge behind it
//   sum_product = sum@j(where(e_2[i] * sum_gather[j] < chosen[j] and not(argmax_product[j] == node_id[i]), 0, ratio[j]) * e_2[i])
extern "C" void Pairs_backward_5(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ gdsl_rows, const idx_t* __restrict__ gdsl_node, const idx_t* __restrict__ gdsl_far,
    const idx_t* __restrict__ gdsl_rowptr, const idx_t* __restrict__ gdsl_near, const idx_t* __restrict__ gdsl_edges,
    const T* __restrict__ e_2,
    const T* __restrict__ sum_gather,
    const T* __restrict__ chosen,
    const idx_t* __restrict__ argmax_product,
    const T* __restrict__ ratio,
    T* __restrict__ sum_product,
    idx_t* __restrict__ gdsl_room
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            idx_t* const other = gdsl_room + omp_get_thread_num() * (max_degree + 1);
            const idx_t* const edge = other;
            for (int64_t gdsl_row = first; gdsl_row < last; ++gdsl_row) {
                const int64_t i = gdsl_rows[gdsl_row];
                const idx_t gdsl_shared = gdsl_node[i], gdsl_back = gdsl_far[i];
                int64_t end = 0;
                for (int64_t e = gdsl_rowptr[gdsl_shared]; e < gdsl_rowptr[gdsl_shared + 1]; ++e) {
                    other[end] = gdsl_edges[e];
                    end += gdsl_near[e] != gdsl_back;
                }
                const int64_t begin = 0, stop = end;
                const T* __restrict__ ratio_i = ratio + i * 4;
                const idx_t* __restrict__ argmax_product_i = argmax_product + i * 4;
                const T* __restrict__ chosen_i = chosen + i * 4;
                const T* __restrict__ sum_gather_i = sum_gather + i * 4;
                T acc_sum_product[4];
                for (int n = 0; n < 4; ++n) acc_sum_product[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ e_2_j = e_2 + j * 4;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(e_2 + ahead * 4);
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        const T v = e_2_j[a] * sum_gather_i[a];
                        const bool v_2 = v < chosen_i[a];
                        const bool v_3 = argmax_product_i[a] == j;
                        const bool v_4 = !v_3;
                        const bool v_5 = v_2 & v_4;
                        const T v_6 = (v_5 ? T(0.0) : ratio_i[a]);
                        const T v_7 = v_6 * e_2_j[a];
                        acc_sum_product[a] += v_7;
                    }
                }
                #pragma omp simd
                for (int64_t a = 0; a < 4; ++a) {
                    sum_product[i * 4 + a] = acc_sum_product[a];
                }
            }
        }
    }
}

// Pairs_backward_6: walks the pairs of edge i; j is the edge behind it
//   sum_plus_2 = sum@j(sum_product[i] + product[i] * exp(score - max_score[i]) + d_score * e_2[i])
//   d_e = sum_plus + sum_plus_2
extern "C" void Pairs_backward_6(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ gdsl_rows, const idx_t* __restrict__ gdsl_node, const idx_t* __restrict__ gdsl_far,
    const idx_t* __restrict__ gdsl_rowptr, const idx_t* __restrict__ gdsl_near, const idx_t* __restrict__ gdsl_edges,
    const T* __restrict__ e_2,
    const T* __restrict__ chosen,
    const T* __restrict__ product,
    const T* __restrict__ max_score,
    const T* __restrict__ sum_plus,
    const T* __restrict__ sum_product,
    T* __restrict__ d_e,
    idx_t* __restrict__ gdsl_room
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            idx_t* const other = gdsl_room + omp_get_thread_num() * (max_degree + 1);
            const idx_t* const edge = other;
            for (int64_t gdsl_row = first; gdsl_row < last; ++gdsl_row) {
                const int64_t i = gdsl_rows[gdsl_row];
                const idx_t gdsl_shared = gdsl_node[i], gdsl_back = gdsl_far[i];
                int64_t end = 0;
                for (int64_t e = gdsl_rowptr[gdsl_shared]; e < gdsl_rowptr[gdsl_shared + 1]; ++e) {
                    other[end] = gdsl_edges[e];
                    end += gdsl_near[e] != gdsl_back;
                }
                const int64_t begin = 0, stop = end;
                const T* __restrict__ sum_plus_i = sum_plus + i * 4;
                const T* __restrict__ e_2_i = e_2 + i * 4;
                T acc_sum_plus[4];
                for (int n = 0; n < 4; ++n) acc_sum_plus[n] = 0;
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t j = other[e];
                    const T* __restrict__ sum_product_j = sum_product + j * 4;
                    const T* __restrict__ product_j = product + j * 4;
                    const T* __restrict__ e_2_j = e_2 + j * 4;
                    const int64_t ahead = other[e + 8 < stop ? e + 8 : e];
                    __builtin_prefetch(e_2 + ahead * 4);
                    __builtin_prefetch(product + ahead * 4);
                    __builtin_prefetch(sum_product + ahead * 4);
                    T s[4] = {};
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        s[a] += e_2_i[a] * e_2_j[a];
                    }
                    const T score = gdsl::sum<4>(s);
                    const T v = score - max_score[j];
                    const T exp_2 = gdsl::exp(v);
                    T s_2[4] = {};
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        s_2[a] += product_j[a] * e_2_i[a];
                    }
                    const T dot = gdsl::sum<4>(s_2);
                    const T v_2 = chosen[j] + dot;
                    const T d_score = v_2 * exp_2;
                    #pragma omp simd
                    for (int64_t a = 0; a < 4; ++a) {
                        const T v_3 = product_j[a] * exp_2;
                        const T v_4 = sum_product_j[a] + v_3;
                        const T v_5 = d_score * e_2_j[a];
                        const T v_6 = v_4 + v_5;
                        acc_sum_plus[a] += v_6;
                    }
                }
                #pragma omp simd
                for (int64_t a = 0; a < 4; ++a) {
                    d_e[i * 4 + a] = sum_plus_i[a] + acc_sum_plus[a];
                }
            }
        }
    }
}

// Pairs_backward_7: walks the pairs of edge i; j is the edge before it
//   d_w = total(gather * (heard * most))
extern "C" void Pairs_backward_7(
    int64_t num_blocks, int64_t groups, int threads, int64_t max_degree, const int64_t* blocks,
    const idx_t* __restrict__ gdsl_rows, const idx_t* __restrict__ gdsl_node, const idx_t* __restrict__ gdsl_far,
    const idx_t* __restrict__ gdsl_rowptr, const idx_t* __restrict__ gdsl_near, const idx_t* __restrict__ gdsl_edges,
    const T* __restrict__ most,
    const T* __restrict__ sum_product,
    const T* __restrict__ in_degree,
    const T* __restrict__ sum_exp,
    const T* __restrict__ gather,
    T* __restrict__ d_w,
    idx_t* __restrict__ gdsl_room
) {
    #pragma omp parallel num_threads(threads)
    {
        #pragma omp for schedule(dynamic, 1)
        for (int64_t group = 0; group < groups; ++group) {
            T* __restrict__ total_d_w = d_w + group * 12;
            for (int64_t n = 0; n < 12; ++n) total_d_w[n] = 0;
            const int64_t first = blocks[num_blocks * group / groups];
            const int64_t last = blocks[num_blocks * (group + 1) / groups];
            idx_t* const other = gdsl_room + omp_get_thread_num() * (max_degree + 1);
            const idx_t* const edge = other;
            for (int64_t gdsl_row = first; gdsl_row < last; ++gdsl_row) {
                const int64_t i = gdsl_rows[gdsl_row];
                const idx_t gdsl_shared = gdsl_node[i], gdsl_back = gdsl_far[i];
                int64_t end = 0;
                for (int64_t e = gdsl_rowptr[gdsl_shared]; e < gdsl_rowptr[gdsl_shared + 1]; ++e) {
                    other[end] = gdsl_edges[e];
                    end += gdsl_near[e] != gdsl_back;
                }
                const int64_t begin = 0, stop = end;
                const T* __restrict__ gather_i = gather + i * 3;
                const T* __restrict__ most_i = most + i * 4;
                const T* __restrict__ sum_product_i = sum_product + i * 4;
                const bool v = gdsl::holds(in_degree[i] > T(0.0));
                const T v_2 = (v ? sum_exp[i] : T(1.0));
                T product[4];
                #pragma omp simd
                for (int64_t a = 0; a < 4; ++a) {
                    const T heard = sum_product_i[a] / v_2;
                    product[a] = heard * most_i[a];
                }
                for (int64_t a = 0; a < 4; ++a) {
                    #pragma omp simd
                    for (int64_t b = 0; b < 3; ++b) {
                        total_d_w[a * 3 + b] += gather_i[b] * product[a];
                    }
                }
            }
        }
    }
}
