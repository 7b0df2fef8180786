import triton
import triton.language as tl


@triton.jit
def gdsl_larger(a, b):
    # NaN wins, as in torch.
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def gdsl_max(x, axis: tl.constexpr, keep: tl.constexpr):
    return tl.reduce(x, axis, gdsl_larger, keep_dims=keep)


# GATv2_0: row by row
#   left = sum[a](x * weight_l)
#   right = sum[a](x * weight_r)
@triton.jit(do_not_specialize=["num_rows"])
def GATv2_0(
    num_rows,
    x, weight_l, weight_r,
    left, right,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    b = tl.arange(0, 4)
    in_b = b < 3
    heads = tl.arange(0, 2)
    a = tl.arange(0, 4)
    weight_l_2 = tl.load(weight_l + a[None, None, :] * 6 + heads[:, None, None] * 3 + b[None, :, None], mask=in_b[None,
        :, None], other=0)
    weight_r_2 = tl.load(weight_r + a[None, None, :] * 6 + heads[:, None, None] * 3 + b[None, :, None], mask=in_b[None,
        :, None], other=0)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = row.to(INDEX)
    mask = live[:, :, None, None] & in_b[None, :]
    x_2 = tl.load(x + i[:, :, None, None, None] * 4 + a[None, None, :], mask=live[:, :, None, None, None], other=0)
    left_2 = tl.sum(x_2 * weight_l_2, axis=4)
    tl.store(left + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], left_2, mask=mask)
    right_2 = tl.sum(x_2 * weight_r_2, axis=4)
    tl.store(right + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], right_2, mask=mask)


# GATv2_1: walks the in-edges of node i; j is the source
#   max_score = max@i(score)
#   sum_product = sum@i(exp(score - max@i(score)[i]) * left[j])
#   sum_exp = sum@i(exp(score - max@i(score)[i]))
#   ratio = sum_product / where(in_degree > 0, sum_exp, 1)
@triton.jit(do_not_specialize=["num_rows"])
def GATv2_1(
    rows, num_rows, rowptr, other, edge,
    left, right, att, in_degree,
    ratio,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    in_b = b < 3
    att_2 = tl.load(att + heads[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = tl.load(rows + row, mask=live, other=0).to(INDEX)
    begin = tl.load(rowptr + i, mask=live, other=0)
    end = tl.load(rowptr + i + 1, mask=live, other=0)
    most = tl.max(end - begin)
    acc_max_score = tl.full([1, BLOCK_ROWS, 2], float("-inf"), tl.float32)
    acc_sum_product = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
    acc_sum_exp = tl.full([1, BLOCK_ROWS, 2], 0.0, tl.float32)
    mask_2 = live[:, :, None, None] & in_b[None, :]
    right_i = tl.load(right + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask_2, other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        # Sums so far are relative to the largest score so far: where that grows, they shrink.
        before = acc_max_score
        mask = on[:, :, None, None] & in_b[None, :]
        left_j = tl.load(left + j[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
        v = left_j + right_i
        z = tl.where(v > 0, v, v * 0.2)
        score = tl.sum(tl.where(in_b[None, :], z * att_2, 0.0), axis=3)
        more = gdsl_max(tl.where(on[:, :, None], score, float("-inf")), 0, True)
        acc_max_score = tl.where((acc_max_score != acc_max_score) | (acc_max_score > more), acc_max_score, more)
        shrink = tl.where(before == acc_max_score, 1.0, tl.exp(before - acc_max_score))
        top = tl.where(acc_max_score == float("-inf"), 0.0, acc_max_score)
        v_2 = score - top
        v_3 = tl.exp(v_2)
        v_4 = v_3[:, :, :, None] * left_j
        acc_sum_product = acc_sum_product * shrink[:, :, :, None] + tl.sum(tl.where(on[:, :, None, None], v_4, 0.0),
            axis=0, keep_dims=True)
        acc_sum_exp = acc_sum_exp * shrink + tl.sum(tl.where(on[:, :, None], v_3, 0.0), axis=0, keep_dims=True)
    acc_max_score = tl.where((end > begin)[:, :, None], acc_max_score, 0.0)
    acc_sum_product = tl.where(acc_max_score[:, :, :, None] == float("-inf"), float("nan"), acc_sum_product)
    acc_sum_exp = tl.where(acc_max_score == float("-inf"), float("nan"), acc_sum_exp)
    in_degree_i = tl.load(in_degree + i[:, :, None, None], mask=live[:, :, None, None], other=0)
    v_5 = in_degree_i > 0.0
    v_6 = tl.where(v_5, acc_sum_exp[:, :, :, None], 1.0)
    v_7 = acc_sum_product / v_6
    tl.store(ratio + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], v_7, mask=mask_2)


# GATv2_1, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def GATv2_1_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    left, right, att, in_degree,
    ratio,
    part_max_score, part_sum_product, part_sum_exp,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    in_b = b < 3
    att_2 = tl.load(att + heads[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
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
    acc_max_score = tl.full([1, BLOCK_ROWS, 2], float("-inf"), tl.float32)
    acc_sum_product = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
    acc_sum_exp = tl.full([1, BLOCK_ROWS, 2], 0.0, tl.float32)
    mask_2 = live[:, :, None, None] & in_b[None, :]
    right_i = tl.load(right + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask_2, other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        # Sums so far are relative to the largest score so far: where that grows, they shrink.
        before = acc_max_score
        mask = on[:, :, None, None] & in_b[None, :]
        left_j = tl.load(left + j[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
        v = left_j + right_i
        z = tl.where(v > 0, v, v * 0.2)
        score = tl.sum(tl.where(in_b[None, :], z * att_2, 0.0), axis=3)
        more = gdsl_max(tl.where(on[:, :, None], score, float("-inf")), 0, True)
        acc_max_score = tl.where((acc_max_score != acc_max_score) | (acc_max_score > more), acc_max_score, more)
        shrink = tl.where(before == acc_max_score, 1.0, tl.exp(before - acc_max_score))
        top = tl.where(acc_max_score == float("-inf"), 0.0, acc_max_score)
        v_2 = score - top
        v_3 = tl.exp(v_2)
        v_4 = v_3[:, :, :, None] * left_j
        acc_sum_product = acc_sum_product * shrink[:, :, :, None] + tl.sum(tl.where(on[:, :, None, None], v_4, 0.0),
            axis=0, keep_dims=True)
        acc_sum_exp = acc_sum_exp * shrink + tl.sum(tl.where(on[:, :, None], v_3, 0.0), axis=0, keep_dims=True)
    tl.store(part_max_score + chunk[:, :, None] * 2 + heads, acc_max_score, mask=live[:, :, None])
    tl.store(part_sum_product + chunk[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], acc_sum_product,
        mask=mask_2)
    tl.store(part_sum_exp + chunk[:, :, None] * 2 + heads, acc_sum_exp, mask=live[:, :, None])


# GATv2_1, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def GATv2_1_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    left, right, att, in_degree,
    ratio,
    part_max_score, part_sum_product, part_sum_exp,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    in_b = b < 3
    hub = tl.program_id(0) + tl.zeros([1, 1], tl.int32)
    live = hub >= 0
    i = tl.load(hubs + hub).to(INDEX)
    first = tl.load(first_chunk + hub)
    last = tl.load(first_chunk + hub + 1)
    begin = tl.load(rowptr + i)
    end = tl.load(rowptr + i + 1)
    acc_max_score = tl.full([1, BLOCK_ROWS, 2], float("-inf"), tl.float32)
    acc_sum_product = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
    acc_sum_exp = tl.full([1, BLOCK_ROWS, 2], 0.0, tl.float32)
    for at in range(0, tl.max(last - first)):
        part = first + at
        some = part < last
        before = acc_max_score
        more = tl.load(part_max_score + part[:, :, None] * 2 + heads, mask=some[:, :, None], other=float("-inf"))
        acc_max_score = tl.where((acc_max_score != acc_max_score) | (acc_max_score > more), acc_max_score, more)
        shrink = tl.where(before == acc_max_score, 1.0, tl.exp(before - acc_max_score))
        share = tl.where(more == acc_max_score, 1.0, tl.exp(more - acc_max_score))
        acc_sum_product = acc_sum_product * shrink[:, :, :, None] + tl.load(part_sum_product + part[:, :, None,
            None] * 6 + heads[:, None] * 3 + b[None, :], mask=some[:, :, None, None] & in_b[None, :],
            other=0.0) * share[:, :, :, None]
        acc_sum_exp = acc_sum_exp * shrink + tl.load(part_sum_exp + part[:, :, None] * 2 + heads, mask=some[:, :,
            None], other=0.0) * share
    acc_max_score = tl.where((end > begin)[:, :, None], acc_max_score, 0.0)
    acc_sum_product = tl.where(acc_max_score[:, :, :, None] == float("-inf"), float("nan"), acc_sum_product)
    acc_sum_exp = tl.where(acc_max_score == float("-inf"), float("nan"), acc_sum_exp)
    mask = live[:, :, None, None] & in_b[None, :]
    in_degree_i = tl.load(in_degree + i[:, :, None, None], mask=live[:, :, None, None], other=0)
    v = in_degree_i > 0.0
    v_2 = tl.where(v, acc_sum_exp[:, :, :, None], 1.0)
    v_3 = acc_sum_product / v_2
    tl.store(ratio + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], v_3, mask=mask)


# GATv2_backward_0: row by row
#   chosen = where(in_degree > 0, sum[b](d_y * (-(sum_product / where(in_degree > 0, sum_exp, 1)) / where(in_degree > 0, sum_exp, 1))), 0)
#   product = d_y * (1 / where(in_degree > 0, sum_exp, 1))
#   left = sum[a](x * weight_l)
#   right = sum[a](x * weight_r)
@triton.jit(do_not_specialize=["num_rows"])
def GATv2_backward_0(
    num_rows,
    in_degree, d_y, sum_product, sum_exp, x, weight_l, weight_r,
    chosen, product, left, right,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    in_b = b < 3
    a = tl.arange(0, 4)
    weight_l_2 = tl.load(weight_l + a[None, None, :] * 6 + heads[:, None, None] * 3 + b[None, :, None], mask=in_b[None,
        :, None], other=0)
    weight_r_2 = tl.load(weight_r + a[None, None, :] * 6 + heads[:, None, None] * 3 + b[None, :, None], mask=in_b[None,
        :, None], other=0)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = row.to(INDEX)
    in_degree_2 = tl.load(in_degree + i[:, :, None], mask=live[:, :, None], other=0)
    v = in_degree_2 > 0.0
    mask = live[:, :, None, None] & in_b[None, :]
    d_y_2 = tl.load(d_y + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
    sum_product_2 = tl.load(sum_product + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
    in_degree_3 = tl.load(in_degree + i[:, :, None, None], mask=live[:, :, None, None], other=0)
    v_2 = in_degree_3 > 0.0
    sum_exp_2 = tl.load(sum_exp + i[:, :, None, None] * 2 + heads[:, None], mask=live[:, :, None, None], other=0)
    v_3 = tl.where(v_2, sum_exp_2, 1.0)
    v_4 = sum_product_2 / v_3
    v_5 = -v_4
    v_6 = v_5 / v_3
    dot = tl.sum(tl.where(in_b[None, :], d_y_2 * v_6, 0.0), axis=3)
    v_7 = tl.where(v, dot, 0.0)
    tl.store(chosen + i[:, :, None] * 2 + heads, v_7, mask=live[:, :, None])
    v_8 = 1.0 / v_3
    v_9 = d_y_2 * v_8
    tl.store(product + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], v_9, mask=mask)
    x_2 = tl.load(x + i[:, :, None, None, None] * 4 + a[None, None, :], mask=live[:, :, None, None, None], other=0)
    left_2 = tl.sum(x_2 * weight_l_2, axis=4)
    tl.store(left + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], left_2, mask=mask)
    right_2 = tl.sum(x_2 * weight_r_2, axis=4)
    tl.store(right + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], right_2, mask=mask)


# GATv2_backward_1: walks the out-edges of node i; j is the target
#   d_left = sum@j(product[i] * exp(score - max_score[i]) + d_z * where(left[j] + right[i] > 0, 1, 0.2))
#   dot = sum[heads, b](d_left * weight_l)
#   d_weight_l = total(d_left * x)
@triton.jit(do_not_specialize=["num_rows"])
def GATv2_backward_1(
    rows, num_rows, rowptr, other, edge,
    chosen, product, x, weight_l, left, right, att, max_score,
    dot, d_weight_l,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a = tl.arange(0, 4)
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    total_d_weight_l = tl.full([4, 2, 4], 0.0, tl.float32)
    in_b = b < 3
    att_2 = tl.load(att + heads[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
    weight_l_2 = tl.load(weight_l + a[:, None, None] * 6 + heads[None, :, None] * 3 + b[None, None, :], mask=in_b[None,
        None, :], other=0)
    for block in range(tl.program_id(0), tl.cdiv(num_rows, BLOCK_ROWS), tl.num_programs(0)):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
        live = row < num_rows
        i = tl.load(rows + row, mask=live, other=0).to(INDEX)
        begin = tl.load(rowptr + i, mask=live, other=0)
        end = tl.load(rowptr + i + 1, mask=live, other=0)
        most = tl.max(end - begin)
        acc_d_left = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
        mask_2 = live[:, :, None, None] & in_b[None, :]
        left_i = tl.load(left + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask_2, other=0)
        for at in range(0, most, BLOCK_EDGES):
            e = begin + at + lane
            on = e < end
            j = tl.load(other + e, mask=on, other=0).to(INDEX)
            id = tl.load(edge + e, mask=on, other=0).to(INDEX)
            mask = on[:, :, None, None] & in_b[None, :]
            product_j = tl.load(product + j[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
            right_j = tl.load(right + j[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
            v = left_i + right_j
            z = tl.where(v > 0, v, v * 0.2)
            score = tl.sum(tl.where(in_b[None, :], z * att_2, 0.0), axis=3)
            max_score_j = tl.load(max_score + j[:, :, None] * 2 + heads, mask=on[:, :, None], other=0)
            v_2 = score - max_score_j
            v_3 = tl.exp(v_2)
            v_4 = product_j * v_3[:, :, :, None]
            chosen_j = tl.load(chosen + j[:, :, None, None] * 2 + heads[:, None], mask=on[:, :, None, None], other=0)
            dot_2 = tl.sum(tl.where(in_b[None, :], product_j * left_i, 0.0), axis=3)
            v_5 = chosen_j + dot_2[:, :, :, None]
            d_score = v_5 * v_3[:, :, :, None]
            d_z = d_score * att_2
            v_6 = v > 0.0
            v_7 = tl.where(v_6, 1.0, 0.2)
            v_8 = d_z * v_7
            v_9 = v_4 + v_8
            acc_d_left += tl.sum(tl.where(on[:, :, None, None], v_9, 0.0), axis=0, keep_dims=True)
        dot_3 = tl.sum(tl.sum(tl.where(in_b[None, None, :], acc_d_left[:, :, None, :, :] * weight_l_2, 0.0), axis=4),
            axis=3)
        tl.store(dot + i[:, :, None] * 4 + a, dot_3, mask=live[:, :, None])
        x_i = tl.load(x + i[:, :, None, None, None] * 4 + a[:, None, None], mask=live[:, :, None, None, None], other=0)
        total_d_weight_l += tl.sum(tl.sum(tl.where(live[:, :, None, None, None], acc_d_left[:, :, None, :, :] * x_i,
            0.0), axis=1), axis=0)
    tl.store(d_weight_l + tl.program_id(0) * 24 + a[:, None, None] * 6 + heads[None, :, None] * 3 + b[None, None, :],
        total_d_weight_l, mask=in_b[None, None, :])


# GATv2_backward_1, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def GATv2_backward_1_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    chosen, product, x, weight_l, left, right, att, max_score,
    dot, d_weight_l,
    part_d_left,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    in_b = b < 3
    att_2 = tl.load(att + heads[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
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
    acc_d_left = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
    mask_2 = live[:, :, None, None] & in_b[None, :]
    left_i = tl.load(left + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask_2, other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        mask = on[:, :, None, None] & in_b[None, :]
        product_j = tl.load(product + j[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
        right_j = tl.load(right + j[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
        v = left_i + right_j
        z = tl.where(v > 0, v, v * 0.2)
        score = tl.sum(tl.where(in_b[None, :], z * att_2, 0.0), axis=3)
        max_score_j = tl.load(max_score + j[:, :, None] * 2 + heads, mask=on[:, :, None], other=0)
        v_2 = score - max_score_j
        v_3 = tl.exp(v_2)
        v_4 = product_j * v_3[:, :, :, None]
        chosen_j = tl.load(chosen + j[:, :, None, None] * 2 + heads[:, None], mask=on[:, :, None, None], other=0)
        dot_2 = tl.sum(tl.where(in_b[None, :], product_j * left_i, 0.0), axis=3)
        v_5 = chosen_j + dot_2[:, :, :, None]
        d_score = v_5 * v_3[:, :, :, None]
        d_z = d_score * att_2
        v_6 = v > 0.0
        v_7 = tl.where(v_6, 1.0, 0.2)
        v_8 = d_z * v_7
        v_9 = v_4 + v_8
        acc_d_left += tl.sum(tl.where(on[:, :, None, None], v_9, 0.0), axis=0, keep_dims=True)
    tl.store(part_d_left + chunk[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], acc_d_left, mask=mask_2)


# GATv2_backward_1, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def GATv2_backward_1_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    chosen, product, x, weight_l, left, right, att, max_score,
    dot, d_weight_l,
    part_d_left,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    in_b = b < 3
    a = tl.arange(0, 4)
    total_d_weight_l = tl.full([4, 2, 4], 0.0, tl.float32)
    weight_l_2 = tl.load(weight_l + a[:, None, None] * 6 + heads[None, :, None] * 3 + b[None, None, :], mask=in_b[None,
        None, :], other=0)
    hub = tl.program_id(0) + tl.zeros([1, 1], tl.int32)
    live = hub >= 0
    i = tl.load(hubs + hub).to(INDEX)
    first = tl.load(first_chunk + hub)
    last = tl.load(first_chunk + hub + 1)
    begin = tl.load(rowptr + i)
    end = tl.load(rowptr + i + 1)
    acc_d_left = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
    for at in range(0, tl.max(last - first)):
        part = first + at
        some = part < last
        acc_d_left += tl.load(part_d_left + part[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=some[:,
            :, None, None] & in_b[None, :], other=0.0)
    dot_2 = tl.sum(tl.sum(tl.where(in_b[None, None, :], acc_d_left[:, :, None, :, :] * weight_l_2, 0.0), axis=4),
        axis=3)
    tl.store(dot + i[:, :, None] * 4 + a, dot_2, mask=live[:, :, None])
    x_i = tl.load(x + i[:, :, None, None, None] * 4 + a[:, None, None], mask=live[:, :, None, None, None], other=0)
    total_d_weight_l += tl.sum(tl.sum(tl.where(live[:, :, None, None, None], acc_d_left[:, :, None, :, :] * x_i, 0.0),
        axis=1), axis=0)
    tl.store(d_weight_l + tl.program_id(0) * 24 + a[:, None, None] * 6 + heads[None, :, None] * 3 + b[None, None, :],
        total_d_weight_l, mask=in_b[None, None, :])


# GATv2_backward_2: walks the in-edges of node i; j is the source
#   d_right = sum@i(d_z * where(left[j] + right[i] > 0, 1, 0.2))
#   d_att = total(d_score * z)
#   dot = sum[heads, b](d_right * weight_r)
#   d_weight_r = total(d_right * x)
@triton.jit(do_not_specialize=["num_rows"])
def GATv2_backward_2(
    rows, num_rows, rowptr, other, edge,
    chosen, product, x, left, weight_r, right, att, max_score,
    dot, d_weight_r, d_att,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    total_d_att = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
    a = tl.arange(0, 4)
    total_d_weight_r = tl.full([4, 2, 4], 0.0, tl.float32)
    in_b = b < 3
    att_2 = tl.load(att + heads[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
    weight_r_2 = tl.load(weight_r + a[:, None, None] * 6 + heads[None, :, None] * 3 + b[None, None, :], mask=in_b[None,
        None, :], other=0)
    for block in range(tl.program_id(0), tl.cdiv(num_rows, BLOCK_ROWS), tl.num_programs(0)):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
        live = row < num_rows
        i = tl.load(rows + row, mask=live, other=0).to(INDEX)
        begin = tl.load(rowptr + i, mask=live, other=0)
        end = tl.load(rowptr + i + 1, mask=live, other=0)
        most = tl.max(end - begin)
        acc_d_right = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
        chosen_i = tl.load(chosen + i[:, :, None, None] * 2 + heads[:, None], mask=live[:, :, None, None], other=0)
        mask = live[:, :, None, None] & in_b[None, :]
        product_i = tl.load(product + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
        right_i = tl.load(right + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
        max_score_i = tl.load(max_score + i[:, :, None] * 2 + heads, mask=live[:, :, None], other=0)
        for at in range(0, most, BLOCK_EDGES):
            e = begin + at + lane
            on = e < end
            j = tl.load(other + e, mask=on, other=0).to(INDEX)
            id = tl.load(edge + e, mask=on, other=0).to(INDEX)
            mask_2 = on[:, :, None, None] & in_b[None, :]
            left_j = tl.load(left + j[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask_2, other=0)
            dot_2 = tl.sum(tl.where(in_b[None, :], product_i * left_j, 0.0), axis=3)
            v = chosen_i + dot_2[:, :, :, None]
            v_2 = left_j + right_i
            z = tl.where(v_2 > 0, v_2, v_2 * 0.2)
            score = tl.sum(tl.where(in_b[None, :], z * att_2, 0.0), axis=3)
            v_3 = score - max_score_i
            v_4 = tl.exp(v_3)
            d_score = v * v_4[:, :, :, None]
            d_z = d_score * att_2
            v_5 = v_2 > 0.0
            v_6 = tl.where(v_5, 1.0, 0.2)
            v_7 = d_z * v_6
            acc_d_right += tl.sum(tl.where(on[:, :, None, None], v_7, 0.0), axis=0, keep_dims=True)
            total_d_att += tl.sum(tl.where(on[:, :, None, None], d_score * z, 0.0), axis=0, keep_dims=True)
        dot_3 = tl.sum(tl.sum(tl.where(in_b[None, None, :], acc_d_right[:, :, None, :, :] * weight_r_2, 0.0), axis=4),
            axis=3)
        tl.store(dot + i[:, :, None] * 4 + a, dot_3, mask=live[:, :, None])
        x_i = tl.load(x + i[:, :, None, None, None] * 4 + a[:, None, None], mask=live[:, :, None, None, None], other=0)
        total_d_weight_r += tl.sum(tl.sum(tl.where(live[:, :, None, None, None], acc_d_right[:, :, None, :, :] * x_i,
            0.0), axis=1), axis=0)
    tl.store(d_att + tl.program_id(0) * 6 + heads[:, None] * 3 + b[None, :], tl.sum(tl.sum(total_d_att, axis=1),
        axis=0), mask=in_b[None, :])
    tl.store(d_weight_r + tl.program_id(0) * 24 + a[:, None, None] * 6 + heads[None, :, None] * 3 + b[None, None, :],
        total_d_weight_r, mask=in_b[None, None, :])


# GATv2_backward_2, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def GATv2_backward_2_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    chosen, product, x, left, weight_r, right, att, max_score,
    dot, d_weight_r, d_att,
    part_d_right,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    total_d_att = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
    in_b = b < 3
    att_2 = tl.load(att + heads[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
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
    acc_d_right = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
    chosen_i = tl.load(chosen + i[:, :, None, None] * 2 + heads[:, None], mask=live[:, :, None, None], other=0)
    mask = live[:, :, None, None] & in_b[None, :]
    product_i = tl.load(product + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
    right_i = tl.load(right + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
    max_score_i = tl.load(max_score + i[:, :, None] * 2 + heads, mask=live[:, :, None], other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        mask_2 = on[:, :, None, None] & in_b[None, :]
        left_j = tl.load(left + j[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask_2, other=0)
        dot_2 = tl.sum(tl.where(in_b[None, :], product_i * left_j, 0.0), axis=3)
        v = chosen_i + dot_2[:, :, :, None]
        v_2 = left_j + right_i
        z = tl.where(v_2 > 0, v_2, v_2 * 0.2)
        score = tl.sum(tl.where(in_b[None, :], z * att_2, 0.0), axis=3)
        v_3 = score - max_score_i
        v_4 = tl.exp(v_3)
        d_score = v * v_4[:, :, :, None]
        d_z = d_score * att_2
        v_5 = v_2 > 0.0
        v_6 = tl.where(v_5, 1.0, 0.2)
        v_7 = d_z * v_6
        acc_d_right += tl.sum(tl.where(on[:, :, None, None], v_7, 0.0), axis=0, keep_dims=True)
        total_d_att += tl.sum(tl.where(on[:, :, None, None], d_score * z, 0.0), axis=0, keep_dims=True)
    tl.store(part_d_right + chunk[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], acc_d_right, mask=mask)
    tl.store(d_att + tl.program_id(0) * 6 + heads[:, None] * 3 + b[None, :], tl.sum(tl.sum(total_d_att, axis=1),
        axis=0), mask=in_b[None, :])


# GATv2_backward_2, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def GATv2_backward_2_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    chosen, product, x, left, weight_r, right, att, max_score,
    dot, d_weight_r, d_att,
    part_d_right,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    in_b = b < 3
    a = tl.arange(0, 4)
    total_d_weight_r = tl.full([4, 2, 4], 0.0, tl.float32)
    weight_r_2 = tl.load(weight_r + a[:, None, None] * 6 + heads[None, :, None] * 3 + b[None, None, :], mask=in_b[None,
        None, :], other=0)
    hub = tl.program_id(0) + tl.zeros([1, 1], tl.int32)
    live = hub >= 0
    i = tl.load(hubs + hub).to(INDEX)
    first = tl.load(first_chunk + hub)
    last = tl.load(first_chunk + hub + 1)
    begin = tl.load(rowptr + i)
    end = tl.load(rowptr + i + 1)
    acc_d_right = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
    for at in range(0, tl.max(last - first)):
        part = first + at
        some = part < last
        acc_d_right += tl.load(part_d_right + part[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :],
            mask=some[:, :, None, None] & in_b[None, :], other=0.0)
    dot_2 = tl.sum(tl.sum(tl.where(in_b[None, None, :], acc_d_right[:, :, None, :, :] * weight_r_2, 0.0), axis=4),
        axis=3)
    tl.store(dot + i[:, :, None] * 4 + a, dot_2, mask=live[:, :, None])
    x_i = tl.load(x + i[:, :, None, None, None] * 4 + a[:, None, None], mask=live[:, :, None, None, None], other=0)
    total_d_weight_r += tl.sum(tl.sum(tl.where(live[:, :, None, None, None], acc_d_right[:, :, None, :, :] * x_i, 0.0),
        axis=1), axis=0)
    tl.store(d_weight_r + tl.program_id(0) * 24 + a[:, None, None] * 6 + heads[None, :, None] * 3 + b[None, None, :],
        total_d_weight_r, mask=in_b[None, None, :])


# GATv2_backward_3: row by row
#   d_x = dot + dot_2
@triton.jit(do_not_specialize=["num_rows"])
def GATv2_backward_3(
    num_rows,
    dot, dot_2,
    d_x,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    a = tl.arange(0, 4)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = row.to(INDEX)
    dot_3 = tl.load(dot + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    dot_2_2 = tl.load(dot_2 + i[:, :, None] * 4 + a, mask=live[:, :, None], other=0)
    d_x_2 = dot_3 + dot_2_2
    tl.store(d_x + i[:, :, None] * 4 + a, d_x_2, mask=live[:, :, None])
