import triton
import triton.language as tl


@triton.jit
def gdsl_larger(a, b):
    # NaN wins, as in torch.
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def gdsl_max(x, axis: tl.constexpr, keep: tl.constexpr):
    return tl.reduce(x, axis, gdsl_larger, keep_dims=keep)


# Pairs_0: walks the pairs of edge i; j is the edge before it
#   max_score = max@i(score)
#   sum_gather = sum@i(e_2[j])
#   sum_product = sum@i(exp(score - max@i(score)[i]) * e_2[j])
#   sum_exp = sum@i(exp(score - max@i(score)[i]))
#   heard = sum_product / where(in_degree > 0, sum_exp, 1)
@triton.jit(do_not_specialize=["num_rows"])
def Pairs_0(
    rows, num_rows, gdsl_node, gdsl_far, rowptr, gdsl_near, edge,
    e_2, in_degree,
    heard, sum_gather,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a = tl.arange(0, 4)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = tl.load(rows + row, mask=live, other=0).to(INDEX)
    gdsl_shared = tl.load(gdsl_node + i, mask=live, other=0)
    gdsl_back = tl.load(gdsl_far + i, mask=live, other=0)
    begin = tl.load(rowptr + gdsl_shared, mask=live, other=0)
    end = tl.load(rowptr + gdsl_shared + 1, mask=live, other=0)
    gdsl_some = tl.zeros_like(begin)
    most = tl.max(end - begin)
    acc_max_score = tl.full([1, BLOCK_ROWS], float("-inf"), tl.float32)
    acc_sum_gather = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    acc_sum_product = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    acc_sum_exp = tl.full([1, BLOCK_ROWS], 0.0, tl.float32)
    e_2_i = tl.load(e_2 + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        on = on & (tl.load(gdsl_near + e, mask=on, other=0) != gdsl_back)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        j = id
        gdsl_some += tl.sum(on.to(begin.dtype), axis=0, keep_dims=True)
        # Sums so far are relative to the largest score so far: where that grows, they shrink.
        before = acc_max_score
        e_2_j = tl.load(e_2 + j[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        score = tl.sum(e_2_j * e_2_i, axis=2)
        more = gdsl_max(tl.where(on, score, float("-inf")), 0, True)
        acc_max_score = tl.where((acc_max_score != acc_max_score) | (acc_max_score > more), acc_max_score, more)
        shrink = tl.where(before == acc_max_score, 1.0, tl.exp(before - acc_max_score))
        top = tl.where(acc_max_score == float("-inf"), 0.0, acc_max_score)
        acc_sum_gather += tl.sum(e_2_j, axis=0, keep_dims=True)
        v = score - top
        v_2 = tl.exp(v)
        v_3 = v_2[:, :, None] * e_2_j
        acc_sum_product = acc_sum_product * shrink[:, :, None] + tl.sum(tl.where(on[:, :, None], v_3, 0.0), axis=0,
            keep_dims=True)
        acc_sum_exp = acc_sum_exp * shrink + tl.sum(tl.where(on, v_2, 0.0), axis=0, keep_dims=True)
    acc_max_score = tl.where((gdsl_some > 0), acc_max_score, 0.0)
    acc_sum_product = tl.where(acc_max_score[:, :, None] == float("-inf"), float("nan"), acc_sum_product)
    acc_sum_exp = tl.where(acc_max_score == float("-inf"), float("nan"), acc_sum_exp)
    in_degree_i = tl.load(in_degree + i[:, :, None], mask=live[:, :, None], other=0)
    v_4 = in_degree_i > 0.0
    v_5 = tl.where(v_4, acc_sum_exp[:, :, None], 1.0)
    heard_2 = acc_sum_product / v_5
    tl.store(heard + i[:, :, None] * 4 + a, heard_2, mask=live[:, :, None])
    tl.store(sum_gather + i[:, :, None] * 4 + a, acc_sum_gather, mask=live[:, :, None])


# Pairs_1: walks the pairs of edge i; j is the edge behind it
#   most_2 = max@j(e_2[i] * sum_gather[j])
#   dot = sum[a]((heard * most_2) * w)
@triton.jit(do_not_specialize=["num_rows"])
def Pairs_1(
    rows, num_rows, gdsl_node, gdsl_far, rowptr, gdsl_near, edge,
    e_2, heard, sum_gather, w,
    dot,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a = tl.arange(0, 4)
    b = tl.arange(0, 4)
    in_b = b < 3
    w_2 = tl.load(w + a[None, :] * 3 + b[:, None], mask=in_b[:, None], other=0)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = tl.load(rows + row, mask=live, other=0).to(INDEX)
    gdsl_shared = tl.load(gdsl_node + i, mask=live, other=0)
    gdsl_back = tl.load(gdsl_far + i, mask=live, other=0)
    begin = tl.load(rowptr + gdsl_shared, mask=live, other=0)
    end = tl.load(rowptr + gdsl_shared + 1, mask=live, other=0)
    gdsl_some = tl.zeros_like(begin)
    most = tl.max(end - begin)
    acc_most = tl.full([1, BLOCK_ROWS, 4], float("-inf"), tl.float32)
    sum_gather_i = tl.load(sum_gather + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        on = on & (tl.load(gdsl_near + e, mask=on, other=0) != gdsl_back)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        j = id
        gdsl_some += tl.sum(on.to(begin.dtype), axis=0, keep_dims=True)
        e_2_j = tl.load(e_2 + j[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        v = e_2_j * sum_gather_i
        more = gdsl_max(tl.where(on[:, :, None], v, float("-inf")), 0, True)
        acc_most = tl.where((acc_most != acc_most) | (acc_most > more), acc_most, more)
    acc_most = tl.where((gdsl_some > 0)[:, :, None], acc_most, 0.0)
    mask = live[:, :, None] & in_b
    heard_i = tl.load(heard + i[:, :, None, None] * 4 + a[None, :], mask=live[:, :, None, None], other=0)
    v_2 = heard_i * acc_most[:, :, None, :]
    dot_2 = tl.sum(v_2 * w_2, axis=3)
    tl.store(dot + i[:, :, None] * 3 + b, dot_2, mask=mask)


# Pairs_2: walks the in-edges of node i; j is the source
#   sum_dot = sum@i(dot)
@triton.jit(do_not_specialize=["num_rows"])
def Pairs_2(
    rows, num_rows, rowptr, other, edge,
    dot,
    sum_dot,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    b = tl.arange(0, 4)
    in_b = b < 3
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = tl.load(rows + row, mask=live, other=0).to(INDEX)
    begin = tl.load(rowptr + i, mask=live, other=0)
    end = tl.load(rowptr + i + 1, mask=live, other=0)
    most = tl.max(end - begin)
    acc_sum_dot = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        mask = on[:, :, None] & in_b
        dot_e = tl.load(dot + id[:, :, None] * 3 + b, mask=mask, other=0)
        acc_sum_dot += tl.sum(dot_e, axis=0, keep_dims=True)
    mask_2 = live[:, :, None] & in_b
    tl.store(sum_dot + i[:, :, None] * 3 + b, acc_sum_dot, mask=mask_2)


# Pairs_2, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def Pairs_2_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    dot,
    sum_dot,
    part_sum_dot,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    b = tl.arange(0, 4)
    in_b = b < 3
    chunk = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = chunk < num_chunks
    hub = tl.load(owner + chunk, mask=live, other=0)
    i = tl.load(hubs + hub).to(INDEX)
    first = tl.load(first_chunk + hub)
    last = tl.load(first_chunk + hub + 1)
    begin = tl.load(rowptr + i)
    end = tl.load(rowptr + i + 1)
    begin = begin + (chunk - first) * 512
    end = tl.where(live, tl.minimum(begin + 512, end), begin)
    most = tl.max(end - begin)
    acc_sum_dot = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        mask = on[:, :, None] & in_b
        dot_e = tl.load(dot + id[:, :, None] * 3 + b, mask=mask, other=0)
        acc_sum_dot += tl.sum(dot_e, axis=0, keep_dims=True)
    mask_2 = live[:, :, None] & in_b
    tl.store(part_sum_dot + chunk[:, :, None] * 3 + b, acc_sum_dot, mask=mask_2)


# Pairs_2, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def Pairs_2_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    dot,
    sum_dot,
    part_sum_dot,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    b = tl.arange(0, 4)
    in_b = b < 3
    hub = tl.program_id(0) + tl.zeros([1, 1], tl.int32)
    live = hub >= 0
    i = tl.load(hubs + hub).to(INDEX)
    first = tl.load(first_chunk + hub)
    last = tl.load(first_chunk + hub + 1)
    begin = tl.load(rowptr + i)
    end = tl.load(rowptr + i + 1)
    acc_sum_dot = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    for at in range(0, tl.max(last - first)):
        part = first + at
        some = part < last
        acc_sum_dot += tl.load(part_sum_dot + part[:, :, None] * 3 + b, mask=some[:, :, None] & in_b, other=0.0)
    mask = live[:, :, None] & in_b
    tl.store(sum_dot + i[:, :, None] * 3 + b, acc_sum_dot, mask=mask)


# Pairs_backward_0: row by row
#   chosen = where(to_float(countmax_product) > 1.5, minimum(most_2 * 0.9999961853027344, most_2 * 1.0000038146972656), inf)
@triton.jit(do_not_specialize=["num_rows"])
def Pairs_backward_0(
    num_rows,
    countmax_product, most_2,
    chosen,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    a = tl.arange(0, 4)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = row.to(INDEX)
    countmax_product_2 = tl.load(countmax_product + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    v = countmax_product_2.to(tl.float32)
    v_2 = v > 1.5
    most_2_2 = tl.load(most_2 + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    v_3 = most_2_2 * 0.9999961853027344
    v_4 = most_2_2 * 1.0000038146972656
    v_5 = tl.minimum(v_3, v_4, propagate_nan=tl.PropagateNan.ALL)
    v_6 = tl.where(v_2, v_5, float("inf"))
    tl.store(chosen + i[:, :, None] * 4 + a, v_6, mask=live[:, :, None])


# Pairs_backward_1: row by row
#   dot = sum[b](d_y * w)
@triton.jit(do_not_specialize=["num_rows"])
def Pairs_backward_1(
    num_rows,
    d_y, w,
    dot,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    a = tl.arange(0, 4)
    b = tl.arange(0, 4)
    in_b = b < 3
    w_2 = tl.load(w + a[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = row.to(INDEX)
    mask = live[:, :, None, None] & in_b[None, :]
    d_y_2 = tl.load(d_y + i[:, :, None, None] * 3 + b[None, :], mask=mask, other=0)
    dot_2 = tl.sum(tl.where(in_b[None, :], d_y_2 * w_2, 0.0), axis=3)
    tl.store(dot + i[:, :, None] * 4 + a, dot_2, mask=live[:, :, None])


# Pairs_backward_2: walks the pairs of edge i; j is the edge behind it
#   sum_chosen = sum@j(where(e_2[i] * sum_gather[j] < chosen[j] and not(argmax_product[j] == node_id[i]), 0, 1))
#   maximum = maximum(sum_chosen, 1)
@triton.jit(do_not_specialize=["num_rows"])
def Pairs_backward_2(
    rows, num_rows, gdsl_node, gdsl_far, rowptr, gdsl_near, edge,
    e_2, sum_gather, chosen, argmax_product,
    maximum,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a = tl.arange(0, 4)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = tl.load(rows + row, mask=live, other=0).to(INDEX)
    gdsl_shared = tl.load(gdsl_node + i, mask=live, other=0)
    gdsl_back = tl.load(gdsl_far + i, mask=live, other=0)
    begin = tl.load(rowptr + gdsl_shared, mask=live, other=0)
    end = tl.load(rowptr + gdsl_shared + 1, mask=live, other=0)
    most = tl.max(end - begin)
    acc_sum_chosen = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    sum_gather_i = tl.load(sum_gather + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    chosen_i = tl.load(chosen + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    argmax_product_i = tl.load(argmax_product + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        on = on & (tl.load(gdsl_near + e, mask=on, other=0) != gdsl_back)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        j = id
        e_2_j = tl.load(e_2 + j[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        v = e_2_j * sum_gather_i
        v_2 = v < chosen_i
        v_3 = argmax_product_i == j[:, :, None]
        v_4 = ~v_3
        v_5 = v_2 & v_4
        v_6 = tl.where(v_5, 0.0, 1.0)
        acc_sum_chosen += tl.sum(tl.where(on[:, :, None], v_6, 0.0), axis=0, keep_dims=True)
    v_7 = tl.maximum(acc_sum_chosen, 1.0, propagate_nan=tl.PropagateNan.ALL)
    tl.store(maximum + i[:, :, None] * 4 + a, v_7, mask=live[:, :, None])


# Pairs_backward_3: walks the in-edges of node i; j is the source
#   ratio = d_most / maximum
#   chosen = where(in_degree > 0, sum[a](d_heard * (-heard / where(in_degree > 0, sum_exp, 1))), 0)
#   product = d_heard * (1 / where(in_degree > 0, sum_exp, 1))
#   gather = d_y[i]
@triton.jit(do_not_specialize=["num_rows"])
def Pairs_backward_3(
    rows, num_rows, rowptr, other, edge,
    most_2, d_y, dot, sum_product, in_degree, sum_exp, maximum, d_y1,
    ratio, chosen, product, gather,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a = tl.arange(0, 4)
    b = tl.arange(0, 4)
    in_b = b < 3
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = tl.load(rows + row, mask=live, other=0).to(INDEX)
    begin = tl.load(rowptr + i, mask=live, other=0)
    end = tl.load(rowptr + i + 1, mask=live, other=0)
    most = tl.max(end - begin)
    dot_i = tl.load(dot + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    mask_2 = live[:, :, None] & in_b
    d_y_i = tl.load(d_y + i[:, :, None] * 3 + b, mask=mask_2, other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        sum_product_e = tl.load(sum_product + id[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        in_degree_e = tl.load(in_degree + id[:, :, None], mask=on[:, :, None], other=0)
        v = in_degree_e > 0.0
        sum_exp_e = tl.load(sum_exp + id[:, :, None], mask=on[:, :, None], other=0)
        v_2 = tl.where(v, sum_exp_e, 1.0)
        heard = sum_product_e / v_2
        d_most = dot_i * heard
        maximum_e = tl.load(maximum + id[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        v_3 = d_most / maximum_e
        tl.store(ratio + id[:, :, None] * 4 + a, v_3, mask=on[:, :, None])
        in_degree_e_2 = tl.load(in_degree + id, mask=on, other=0)
        v_4 = in_degree_e_2 > 0.0
        d_y1_e = tl.load(d_y1 + id[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        most_2_e = tl.load(most_2 + id[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        v_5 = dot_i * most_2_e
        d_heard = d_y1_e + v_5
        v_6 = -heard
        v_7 = v_6 / v_2
        dot_2 = tl.sum(d_heard * v_7, axis=2)
        v_8 = tl.where(v_4, dot_2, 0.0)
        tl.store(chosen + id, v_8, mask=on)
        v_9 = 1.0 / v_2
        v_10 = d_heard * v_9
        tl.store(product + id[:, :, None] * 4 + a, v_10, mask=on[:, :, None])
        mask = on[:, :, None] & in_b
        tl.store(gather + id[:, :, None] * 3 + b, d_y_i, mask=mask)


# Pairs_backward_3, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def Pairs_backward_3_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    most_2, d_y, dot, sum_product, in_degree, sum_exp, maximum, d_y1,
    ratio, chosen, product, gather,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a = tl.arange(0, 4)
    b = tl.arange(0, 4)
    in_b = b < 3
    chunk = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = chunk < num_chunks
    hub = tl.load(owner + chunk, mask=live, other=0)
    i = tl.load(hubs + hub).to(INDEX)
    first = tl.load(first_chunk + hub)
    last = tl.load(first_chunk + hub + 1)
    begin = tl.load(rowptr + i)
    end = tl.load(rowptr + i + 1)
    begin = begin + (chunk - first) * 512
    end = tl.where(live, tl.minimum(begin + 512, end), begin)
    most = tl.max(end - begin)
    dot_i = tl.load(dot + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    mask_2 = live[:, :, None] & in_b
    d_y_i = tl.load(d_y + i[:, :, None] * 3 + b, mask=mask_2, other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        sum_product_e = tl.load(sum_product + id[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        in_degree_e = tl.load(in_degree + id[:, :, None], mask=on[:, :, None], other=0)
        v = in_degree_e > 0.0
        sum_exp_e = tl.load(sum_exp + id[:, :, None], mask=on[:, :, None], other=0)
        v_2 = tl.where(v, sum_exp_e, 1.0)
        heard = sum_product_e / v_2
        d_most = dot_i * heard
        maximum_e = tl.load(maximum + id[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        v_3 = d_most / maximum_e
        tl.store(ratio + id[:, :, None] * 4 + a, v_3, mask=on[:, :, None])
        in_degree_e_2 = tl.load(in_degree + id, mask=on, other=0)
        v_4 = in_degree_e_2 > 0.0
        d_y1_e = tl.load(d_y1 + id[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        most_2_e = tl.load(most_2 + id[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        v_5 = dot_i * most_2_e
        d_heard = d_y1_e + v_5
        v_6 = -heard
        v_7 = v_6 / v_2
        dot_2 = tl.sum(d_heard * v_7, axis=2)
        v_8 = tl.where(v_4, dot_2, 0.0)
        tl.store(chosen + id, v_8, mask=on)
        v_9 = 1.0 / v_2
        v_10 = d_heard * v_9
        tl.store(product + id[:, :, None] * 4 + a, v_10, mask=on[:, :, None])
        mask = on[:, :, None] & in_b
        tl.store(gather + id[:, :, None] * 3 + b, d_y_i, mask=mask)


# Pairs_backward_3, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def Pairs_backward_3_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    most_2, d_y, dot, sum_product, in_degree, sum_exp, maximum, d_y1,
    ratio, chosen, product, gather,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    hub = tl.program_id(0) + tl.zeros([1, 1], tl.int32)
    live = hub >= 0
    i = tl.load(hubs + hub).to(INDEX)
    first = tl.load(first_chunk + hub)
    last = tl.load(first_chunk + hub + 1)
    begin = tl.load(rowptr + i)
    end = tl.load(rowptr + i + 1)


# Pairs_backward_4: walks the pairs of edge i; j is the edge before it
#   sum_plus = sum@i(where(e_2[i] * sum_gather[j] < chosen[j] and not(argmax_product[j] == node_id[i]), 0, ratio[j]) * sum_gather[j] + d_score * e_2[j])
@triton.jit(do_not_specialize=["num_rows"])
def Pairs_backward_4(
    rows, num_rows, gdsl_node, gdsl_far, rowptr, gdsl_near, edge,
    e_2, sum_gather, chosen, argmax_product, ratio, chosen_2, product, max_score,
    sum_plus,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a = tl.arange(0, 4)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = tl.load(rows + row, mask=live, other=0).to(INDEX)
    gdsl_shared = tl.load(gdsl_node + i, mask=live, other=0)
    gdsl_back = tl.load(gdsl_far + i, mask=live, other=0)
    begin = tl.load(rowptr + gdsl_shared, mask=live, other=0)
    end = tl.load(rowptr + gdsl_shared + 1, mask=live, other=0)
    most = tl.max(end - begin)
    acc_sum_plus = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    e_2_i = tl.load(e_2 + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    chosen_2_i = tl.load(chosen_2 + i[:, :, None], mask=live[:, :, None], other=0)
    product_i = tl.load(product + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    max_score_i = tl.load(max_score + i, mask=live, other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        on = on & (tl.load(gdsl_near + e, mask=on, other=0) != gdsl_back)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        j = id
        sum_gather_j = tl.load(sum_gather + j[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        v = e_2_i * sum_gather_j
        chosen_j = tl.load(chosen + j[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        v_2 = v < chosen_j
        argmax_product_j = tl.load(argmax_product + j[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        v_3 = argmax_product_j == i[:, :, None]
        v_4 = ~v_3
        v_5 = v_2 & v_4
        ratio_j = tl.load(ratio + j[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        v_6 = tl.where(v_5, 0.0, ratio_j)
        v_7 = v_6 * sum_gather_j
        e_2_j = tl.load(e_2 + j[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        dot = tl.sum(product_i * e_2_j, axis=2)
        v_8 = chosen_2_i + dot[:, :, None]
        score = tl.sum(e_2_j * e_2_i, axis=2)
        v_9 = score - max_score_i
        v_10 = tl.exp(v_9)
        d_score = v_8 * v_10[:, :, None]
        v_11 = d_score * e_2_j
        v_12 = v_7 + v_11
        acc_sum_plus += tl.sum(tl.where(on[:, :, None], v_12, 0.0), axis=0, keep_dims=True)
    tl.store(sum_plus + i[:, :, None] * 4 + a, acc_sum_plus, mask=live[:, :, None])


# Pairs_backward_5: walks the pairs of edge i; j is the edge behind it
#   sum_product = sum@j(where(e_2[i] * sum_gather[j] < chosen[j] and not(argmax_product[j] == node_id[i]), 0, ratio[j]) * e_2[i])
@triton.jit(do_not_specialize=["num_rows"])
def Pairs_backward_5(
    rows, num_rows, gdsl_node, gdsl_far, rowptr, gdsl_near, edge,
    e_2, sum_gather, chosen, argmax_product, ratio,
    sum_product,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a = tl.arange(0, 4)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = tl.load(rows + row, mask=live, other=0).to(INDEX)
    gdsl_shared = tl.load(gdsl_node + i, mask=live, other=0)
    gdsl_back = tl.load(gdsl_far + i, mask=live, other=0)
    begin = tl.load(rowptr + gdsl_shared, mask=live, other=0)
    end = tl.load(rowptr + gdsl_shared + 1, mask=live, other=0)
    most = tl.max(end - begin)
    acc_sum_product = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    sum_gather_i = tl.load(sum_gather + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    chosen_i = tl.load(chosen + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    argmax_product_i = tl.load(argmax_product + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    ratio_i = tl.load(ratio + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        on = on & (tl.load(gdsl_near + e, mask=on, other=0) != gdsl_back)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        j = id
        e_2_j = tl.load(e_2 + j[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        v = e_2_j * sum_gather_i
        v_2 = v < chosen_i
        v_3 = argmax_product_i == j[:, :, None]
        v_4 = ~v_3
        v_5 = v_2 & v_4
        v_6 = tl.where(v_5, 0.0, ratio_i)
        v_7 = v_6 * e_2_j
        acc_sum_product += tl.sum(tl.where(on[:, :, None], v_7, 0.0), axis=0, keep_dims=True)
    tl.store(sum_product + i[:, :, None] * 4 + a, acc_sum_product, mask=live[:, :, None])


# Pairs_backward_6: walks the pairs of edge i; j is the edge behind it
#   sum_plus_2 = sum@j(sum_product[i] + product[i] * exp(score - max_score[i]) + d_score * e_2[i])
#   d_e = sum_plus + sum_plus_2
@triton.jit(do_not_specialize=["num_rows"])
def Pairs_backward_6(
    rows, num_rows, gdsl_node, gdsl_far, rowptr, gdsl_near, edge,
    e_2, chosen, product, max_score, sum_plus, sum_product,
    d_e,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a = tl.arange(0, 4)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = tl.load(rows + row, mask=live, other=0).to(INDEX)
    gdsl_shared = tl.load(gdsl_node + i, mask=live, other=0)
    gdsl_back = tl.load(gdsl_far + i, mask=live, other=0)
    begin = tl.load(rowptr + gdsl_shared, mask=live, other=0)
    end = tl.load(rowptr + gdsl_shared + 1, mask=live, other=0)
    most = tl.max(end - begin)
    acc_sum_plus = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    e_2_i = tl.load(e_2 + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        on = on & (tl.load(gdsl_near + e, mask=on, other=0) != gdsl_back)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        j = id
        sum_product_j = tl.load(sum_product + j[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        product_j = tl.load(product + j[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        e_2_j = tl.load(e_2 + j[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        score = tl.sum(e_2_i * e_2_j, axis=2)
        max_score_j = tl.load(max_score + j, mask=on, other=0)
        v = score - max_score_j
        v_2 = tl.exp(v)
        v_3 = product_j * v_2[:, :, None]
        v_4 = sum_product_j + v_3
        chosen_j = tl.load(chosen + j[:, :, None], mask=on[:, :, None], other=0)
        dot = tl.sum(product_j * e_2_i, axis=2)
        v_5 = chosen_j + dot[:, :, None]
        d_score = v_5 * v_2[:, :, None]
        v_6 = d_score * e_2_j
        v_7 = v_4 + v_6
        acc_sum_plus += tl.sum(tl.where(on[:, :, None], v_7, 0.0), axis=0, keep_dims=True)
    sum_plus_i = tl.load(sum_plus + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    d_e_2 = sum_plus_i + acc_sum_plus
    tl.store(d_e + i[:, :, None] * 4 + a, d_e_2, mask=live[:, :, None])


# Pairs_backward_7: walks the pairs of edge i; j is the edge before it
#   d_w = total(gather * (heard * most_2))
@triton.jit(do_not_specialize=["num_rows"])
def Pairs_backward_7(
    rows, num_rows, gdsl_node, gdsl_far, rowptr, gdsl_near, edge,
    most_2, sum_product, in_degree, sum_exp, gather,
    d_w,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a = tl.arange(0, 4)
    b = tl.arange(0, 4)
    total_d_w = tl.full([4, 4], 0.0, tl.float32)
    in_b = b < 3
    for block in range(tl.program_id(0), tl.cdiv(num_rows, BLOCK_ROWS), tl.num_programs(0)):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
        live = row < num_rows
        i = tl.load(rows + row, mask=live, other=0).to(INDEX)
        gdsl_shared = tl.load(gdsl_node + i, mask=live, other=0)
        gdsl_back = tl.load(gdsl_far + i, mask=live, other=0)
        begin = tl.load(rowptr + gdsl_shared, mask=live, other=0)
        end = tl.load(rowptr + gdsl_shared + 1, mask=live, other=0)
        most = tl.max(end - begin)
        mask = live[:, :, None, None] & in_b[None, :]
        gather_i = tl.load(gather + i[:, :, None, None] * 3 + b[None, :], mask=mask, other=0)
        sum_product_i = tl.load(sum_product + i[:, :, None, None] * 4 + a[:, None], mask=live[:, :, None, None],
            other=0)
        in_degree_i = tl.load(in_degree + i[:, :, None, None], mask=live[:, :, None, None], other=0)
        v = in_degree_i > 0.0
        sum_exp_i = tl.load(sum_exp + i[:, :, None, None], mask=live[:, :, None, None], other=0)
        v_2 = tl.where(v, sum_exp_i, 1.0)
        heard = sum_product_i / v_2
        most_2_i = tl.load(most_2 + i[:, :, None, None] * 4 + a[:, None], mask=live[:, :, None, None], other=0)
        v_3 = heard * most_2_i
        total_d_w += tl.sum(tl.sum(tl.where(live[:, :, None, None], gather_i * v_3, 0.0), axis=1), axis=0)
    tl.store(d_w + tl.program_id(0) * 12 + a[:, None] * 3 + b[None, :], total_d_w, mask=in_b[None, :])
