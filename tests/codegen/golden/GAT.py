import triton
import triton.language as tl


@triton.jit
def gdsl_larger(a, b):
    # NaN wins, as in torch.
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def gdsl_max(x, axis: tl.constexpr, keep: tl.constexpr):
    return tl.reduce(x, axis, gdsl_larger, keep_dims=keep)


# GAT_0: row by row
#   h = sum[a](x * weight)
#   left = sum[b](h * att_src)
#   right = sum[b](h * att_dst)
@triton.jit(do_not_specialize=["num_rows"])
def GAT_0(
    num_rows,
    x, weight, att_src, att_dst,
    h, left, right,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    b = tl.arange(0, 4)
    in_b = b < 3
    heads = tl.arange(0, 2)
    a = tl.arange(0, 4)
    weight_2 = tl.load(weight + a[None, None, :] * 6 + heads[:, None, None] * 3 + b[None, :, None], mask=in_b[None, :,
        None], other=0)
    att_src_2 = tl.load(att_src + heads[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
    att_dst_2 = tl.load(att_dst + heads[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = row.to(INDEX)
    mask = live[:, :, None, None] & in_b[None, :]
    x_2 = tl.load(x + i[:, :, None, None, None] * 4 + a[None, None, :], mask=live[:, :, None, None, None], other=0)
    h_2 = tl.sum(x_2 * weight_2, axis=4)
    tl.store(h + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], h_2, mask=mask)
    left_2 = tl.sum(tl.where(in_b[None, :], h_2 * att_src_2, 0.0), axis=3)
    tl.store(left + i[:, :, None] * 2 + heads, left_2, mask=live[:, :, None])
    right_2 = tl.sum(tl.where(in_b[None, :], h_2 * att_dst_2, 0.0), axis=3)
    tl.store(right + i[:, :, None] * 2 + heads, right_2, mask=live[:, :, None])


# GAT_1: walks the in-edges of node i; j is the source
#   max_score = max@i(score)
#   sum_product = sum@i(exp(score - max@i(score)[i]) * h[j])
#   sum_exp = sum@i(exp(score - max@i(score)[i]))
#   ratio = sum_product / where(in_degree > 0, sum_exp, 1)
@triton.jit(do_not_specialize=["num_rows"])
def GAT_1(
    rows, num_rows, rowptr, other, edge,
    h, left, right, in_degree,
    ratio,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    in_b = b < 3
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
    right_i = tl.load(right + i[:, :, None] * 2 + heads, mask=live[:, :, None], other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        # Sums so far are relative to the largest score so far: where that grows, they shrink.
        before = acc_max_score
        left_j = tl.load(left + j[:, :, None] * 2 + heads, mask=on[:, :, None], other=0)
        v = left_j + right_i
        score = tl.where(v > 0, v, v * 0.2)
        more = gdsl_max(tl.where(on[:, :, None], score, float("-inf")), 0, True)
        acc_max_score = tl.where((acc_max_score != acc_max_score) | (acc_max_score > more), acc_max_score, more)
        shrink = tl.where(before == acc_max_score, 1.0, tl.exp(before - acc_max_score))
        top = tl.where(acc_max_score == float("-inf"), 0.0, acc_max_score)
        v_2 = score - top
        v_3 = tl.exp(v_2)
        mask = on[:, :, None, None] & in_b[None, :]
        h_j = tl.load(h + j[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
        v_4 = v_3[:, :, :, None] * h_j
        acc_sum_product = acc_sum_product * shrink[:, :, :, None] + tl.sum(tl.where(on[:, :, None, None], v_4, 0.0),
            axis=0, keep_dims=True)
        acc_sum_exp = acc_sum_exp * shrink + tl.sum(tl.where(on[:, :, None], v_3, 0.0), axis=0, keep_dims=True)
    acc_max_score = tl.where((end > begin)[:, :, None], acc_max_score, 0.0)
    acc_sum_product = tl.where(acc_max_score[:, :, :, None] == float("-inf"), float("nan"), acc_sum_product)
    acc_sum_exp = tl.where(acc_max_score == float("-inf"), float("nan"), acc_sum_exp)
    mask_2 = live[:, :, None, None] & in_b[None, :]
    in_degree_i = tl.load(in_degree + i[:, :, None, None], mask=live[:, :, None, None], other=0)
    v_5 = in_degree_i > 0.0
    v_6 = tl.where(v_5, acc_sum_exp[:, :, :, None], 1.0)
    v_7 = acc_sum_product / v_6
    tl.store(ratio + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], v_7, mask=mask_2)


# GAT_1, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def GAT_1_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    h, left, right, in_degree,
    ratio,
    part_max_score, part_sum_product, part_sum_exp,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
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
    acc_max_score = tl.full([1, BLOCK_ROWS, 2], float("-inf"), tl.float32)
    acc_sum_product = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
    acc_sum_exp = tl.full([1, BLOCK_ROWS, 2], 0.0, tl.float32)
    right_i = tl.load(right + i[:, :, None] * 2 + heads, mask=live[:, :, None], other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        # Sums so far are relative to the largest score so far: where that grows, they shrink.
        before = acc_max_score
        left_j = tl.load(left + j[:, :, None] * 2 + heads, mask=on[:, :, None], other=0)
        v = left_j + right_i
        score = tl.where(v > 0, v, v * 0.2)
        more = gdsl_max(tl.where(on[:, :, None], score, float("-inf")), 0, True)
        acc_max_score = tl.where((acc_max_score != acc_max_score) | (acc_max_score > more), acc_max_score, more)
        shrink = tl.where(before == acc_max_score, 1.0, tl.exp(before - acc_max_score))
        top = tl.where(acc_max_score == float("-inf"), 0.0, acc_max_score)
        v_2 = score - top
        v_3 = tl.exp(v_2)
        mask = on[:, :, None, None] & in_b[None, :]
        h_j = tl.load(h + j[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
        v_4 = v_3[:, :, :, None] * h_j
        acc_sum_product = acc_sum_product * shrink[:, :, :, None] + tl.sum(tl.where(on[:, :, None, None], v_4, 0.0),
            axis=0, keep_dims=True)
        acc_sum_exp = acc_sum_exp * shrink + tl.sum(tl.where(on[:, :, None], v_3, 0.0), axis=0, keep_dims=True)
    tl.store(part_max_score + chunk[:, :, None] * 2 + heads, acc_max_score, mask=live[:, :, None])
    mask_2 = live[:, :, None, None] & in_b[None, :]
    tl.store(part_sum_product + chunk[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], acc_sum_product,
        mask=mask_2)
    tl.store(part_sum_exp + chunk[:, :, None] * 2 + heads, acc_sum_exp, mask=live[:, :, None])


# GAT_1, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def GAT_1_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    h, left, right, in_degree,
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


# GAT_backward_0: row by row
#   product = d_y * (1 / where(in_degree > 0, sum_exp, 1))
#   h = sum[a](x * weight)
#   left = sum[b](h * att_src)
#   right = sum[b](h * att_dst)
#   chosen = where(in_degree > 0, sum[b](d_y * (-(sum_product / where(in_degree > 0, sum_exp, 1)) / where(in_degree > 0, sum_exp, 1))), 0)
@triton.jit(do_not_specialize=["num_rows"])
def GAT_backward_0(
    num_rows,
    d_y, in_degree, sum_exp, x, weight, att_src, att_dst, sum_product,
    product, h, left, right, chosen,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    b = tl.arange(0, 4)
    in_b = b < 3
    heads = tl.arange(0, 2)
    a = tl.arange(0, 4)
    weight_2 = tl.load(weight + a[None, None, :] * 6 + heads[:, None, None] * 3 + b[None, :, None], mask=in_b[None, :,
        None], other=0)
    att_src_2 = tl.load(att_src + heads[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
    att_dst_2 = tl.load(att_dst + heads[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = row.to(INDEX)
    mask = live[:, :, None, None] & in_b[None, :]
    d_y_2 = tl.load(d_y + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
    in_degree_2 = tl.load(in_degree + i[:, :, None, None], mask=live[:, :, None, None], other=0)
    v = in_degree_2 > 0.0
    sum_exp_2 = tl.load(sum_exp + i[:, :, None, None] * 2 + heads[:, None], mask=live[:, :, None, None], other=0)
    v_2 = tl.where(v, sum_exp_2, 1.0)
    v_3 = 1.0 / v_2
    v_4 = d_y_2 * v_3
    tl.store(product + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], v_4, mask=mask)
    x_2 = tl.load(x + i[:, :, None, None, None] * 4 + a[None, None, :], mask=live[:, :, None, None, None], other=0)
    h_2 = tl.sum(x_2 * weight_2, axis=4)
    tl.store(h + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], h_2, mask=mask)
    left_2 = tl.sum(tl.where(in_b[None, :], h_2 * att_src_2, 0.0), axis=3)
    tl.store(left + i[:, :, None] * 2 + heads, left_2, mask=live[:, :, None])
    right_2 = tl.sum(tl.where(in_b[None, :], h_2 * att_dst_2, 0.0), axis=3)
    tl.store(right + i[:, :, None] * 2 + heads, right_2, mask=live[:, :, None])
    in_degree_3 = tl.load(in_degree + i[:, :, None], mask=live[:, :, None], other=0)
    v_5 = in_degree_3 > 0.0
    sum_product_2 = tl.load(sum_product + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
    v_6 = sum_product_2 / v_2
    v_7 = -v_6
    v_8 = v_7 / v_2
    dot = tl.sum(tl.where(in_b[None, :], d_y_2 * v_8, 0.0), axis=3)
    v_9 = tl.where(v_5, dot, 0.0)
    tl.store(chosen + i[:, :, None] * 2 + heads, v_9, mask=live[:, :, None])


# GAT_backward_1: walks the out-edges of node i; j is the target
#   sum_product = sum@j(product[i] * exp(score - max_score[i]))
#   d_left = sum@j(d_score * where(left[j] + right[i] > 0, 1, 0.2))
#   d_att_src = total(d_left * h)
@triton.jit(do_not_specialize=["num_rows"])
def GAT_backward_1(
    rows, num_rows, rowptr, other, edge,
    product, h, left, right, max_score, chosen,
    sum_product, d_left, d_att_src,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    total_d_att_src = tl.full([2, 4], 0.0, tl.float32)
    in_b = b < 3
    for block in range(tl.program_id(0), tl.cdiv(num_rows, BLOCK_ROWS), tl.num_programs(0)):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
        live = row < num_rows
        i = tl.load(rows + row, mask=live, other=0).to(INDEX)
        begin = tl.load(rowptr + i, mask=live, other=0)
        end = tl.load(rowptr + i + 1, mask=live, other=0)
        most = tl.max(end - begin)
        acc_sum_product = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
        acc_d_left = tl.full([1, BLOCK_ROWS, 2], 0.0, tl.float32)
        left_i = tl.load(left + i[:, :, None] * 2 + heads, mask=live[:, :, None], other=0)
        mask_2 = live[:, :, None, None] & in_b[None, :]
        h_i = tl.load(h + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask_2, other=0)
        for at in range(0, most, BLOCK_EDGES):
            e = begin + at + lane
            on = e < end
            j = tl.load(other + e, mask=on, other=0).to(INDEX)
            id = tl.load(edge + e, mask=on, other=0).to(INDEX)
            mask = on[:, :, None, None] & in_b[None, :]
            product_j = tl.load(product + j[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
            right_j = tl.load(right + j[:, :, None] * 2 + heads, mask=on[:, :, None], other=0)
            v = left_i + right_j
            score = tl.where(v > 0, v, v * 0.2)
            max_score_j = tl.load(max_score + j[:, :, None] * 2 + heads, mask=on[:, :, None], other=0)
            v_2 = score - max_score_j
            v_3 = tl.exp(v_2)
            v_4 = product_j * v_3[:, :, :, None]
            acc_sum_product += tl.sum(tl.where(on[:, :, None, None], v_4, 0.0), axis=0, keep_dims=True)
            chosen_j = tl.load(chosen + j[:, :, None] * 2 + heads, mask=on[:, :, None], other=0)
            dot = tl.sum(tl.where(in_b[None, :], product_j * h_i, 0.0), axis=3)
            v_5 = chosen_j + dot
            d_score = v_5 * v_3
            v_6 = v > 0.0
            v_7 = tl.where(v_6, 1.0, 0.2)
            v_8 = d_score * v_7
            acc_d_left += tl.sum(tl.where(on[:, :, None], v_8, 0.0), axis=0, keep_dims=True)
        tl.store(sum_product + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], acc_sum_product, mask=mask_2)
        tl.store(d_left + i[:, :, None] * 2 + heads, acc_d_left, mask=live[:, :, None])
        total_d_att_src += tl.sum(tl.sum(tl.where(live[:, :, None, None], acc_d_left[:, :, :, None] * h_i, 0.0),
            axis=1), axis=0)
    tl.store(d_att_src + tl.program_id(0) * 6 + heads[:, None] * 3 + b[None, :], total_d_att_src, mask=in_b[None, :])


# GAT_backward_1, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def GAT_backward_1_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    product, h, left, right, max_score, chosen,
    sum_product, d_left, d_att_src,
    part_sum_product, part_d_left,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
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
    acc_sum_product = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
    acc_d_left = tl.full([1, BLOCK_ROWS, 2], 0.0, tl.float32)
    left_i = tl.load(left + i[:, :, None] * 2 + heads, mask=live[:, :, None], other=0)
    mask_2 = live[:, :, None, None] & in_b[None, :]
    h_i = tl.load(h + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask_2, other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        mask = on[:, :, None, None] & in_b[None, :]
        product_j = tl.load(product + j[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
        right_j = tl.load(right + j[:, :, None] * 2 + heads, mask=on[:, :, None], other=0)
        v = left_i + right_j
        score = tl.where(v > 0, v, v * 0.2)
        max_score_j = tl.load(max_score + j[:, :, None] * 2 + heads, mask=on[:, :, None], other=0)
        v_2 = score - max_score_j
        v_3 = tl.exp(v_2)
        v_4 = product_j * v_3[:, :, :, None]
        acc_sum_product += tl.sum(tl.where(on[:, :, None, None], v_4, 0.0), axis=0, keep_dims=True)
        chosen_j = tl.load(chosen + j[:, :, None] * 2 + heads, mask=on[:, :, None], other=0)
        dot = tl.sum(tl.where(in_b[None, :], product_j * h_i, 0.0), axis=3)
        v_5 = chosen_j + dot
        d_score = v_5 * v_3
        v_6 = v > 0.0
        v_7 = tl.where(v_6, 1.0, 0.2)
        v_8 = d_score * v_7
        acc_d_left += tl.sum(tl.where(on[:, :, None], v_8, 0.0), axis=0, keep_dims=True)
    tl.store(part_sum_product + chunk[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], acc_sum_product,
        mask=mask_2)
    tl.store(part_d_left + chunk[:, :, None] * 2 + heads, acc_d_left, mask=live[:, :, None])


# GAT_backward_1, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def GAT_backward_1_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    product, h, left, right, max_score, chosen,
    sum_product, d_left, d_att_src,
    part_sum_product, part_d_left,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    in_b = b < 3
    total_d_att_src = tl.full([2, 4], 0.0, tl.float32)
    hub = tl.program_id(0) + tl.zeros([1, 1], tl.int32)
    live = hub >= 0
    i = tl.load(hubs + hub).to(INDEX)
    first = tl.load(first_chunk + hub)
    last = tl.load(first_chunk + hub + 1)
    begin = tl.load(rowptr + i)
    end = tl.load(rowptr + i + 1)
    acc_sum_product = tl.full([1, BLOCK_ROWS, 2, 4], 0.0, tl.float32)
    acc_d_left = tl.full([1, BLOCK_ROWS, 2], 0.0, tl.float32)
    for at in range(0, tl.max(last - first)):
        part = first + at
        some = part < last
        acc_sum_product += tl.load(part_sum_product + part[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :],
            mask=some[:, :, None, None] & in_b[None, :], other=0.0)
        acc_d_left += tl.load(part_d_left + part[:, :, None] * 2 + heads, mask=some[:, :, None], other=0.0)
    mask = live[:, :, None, None] & in_b[None, :]
    tl.store(sum_product + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], acc_sum_product, mask=mask)
    tl.store(d_left + i[:, :, None] * 2 + heads, acc_d_left, mask=live[:, :, None])
    h_i = tl.load(h + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
    total_d_att_src += tl.sum(tl.sum(tl.where(live[:, :, None, None], acc_d_left[:, :, :, None] * h_i, 0.0), axis=1),
        axis=0)
    tl.store(d_att_src + tl.program_id(0) * 6 + heads[:, None] * 3 + b[None, :], total_d_att_src, mask=in_b[None, :])


# GAT_backward_2: walks the in-edges of node i; j is the source
#   d_right = sum@i(d_score * where(left[j] + right[i] > 0, 1, 0.2))
#   d_att_dst = total(d_right * h)
@triton.jit(do_not_specialize=["num_rows"])
def GAT_backward_2(
    rows, num_rows, rowptr, other, edge,
    product, h, left, right, max_score, chosen,
    d_right, d_att_dst,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    total_d_att_dst = tl.full([2, 4], 0.0, tl.float32)
    in_b = b < 3
    for block in range(tl.program_id(0), tl.cdiv(num_rows, BLOCK_ROWS), tl.num_programs(0)):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
        live = row < num_rows
        i = tl.load(rows + row, mask=live, other=0).to(INDEX)
        begin = tl.load(rowptr + i, mask=live, other=0)
        end = tl.load(rowptr + i + 1, mask=live, other=0)
        most = tl.max(end - begin)
        acc_d_right = tl.full([1, BLOCK_ROWS, 2], 0.0, tl.float32)
        chosen_i = tl.load(chosen + i[:, :, None] * 2 + heads, mask=live[:, :, None], other=0)
        mask = live[:, :, None, None] & in_b[None, :]
        product_i = tl.load(product + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
        right_i = tl.load(right + i[:, :, None] * 2 + heads, mask=live[:, :, None], other=0)
        max_score_i = tl.load(max_score + i[:, :, None] * 2 + heads, mask=live[:, :, None], other=0)
        for at in range(0, most, BLOCK_EDGES):
            e = begin + at + lane
            on = e < end
            j = tl.load(other + e, mask=on, other=0).to(INDEX)
            id = tl.load(edge + e, mask=on, other=0).to(INDEX)
            mask_2 = on[:, :, None, None] & in_b[None, :]
            h_j = tl.load(h + j[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask_2, other=0)
            dot = tl.sum(tl.where(in_b[None, :], product_i * h_j, 0.0), axis=3)
            v = chosen_i + dot
            left_j = tl.load(left + j[:, :, None] * 2 + heads, mask=on[:, :, None], other=0)
            v_2 = left_j + right_i
            score = tl.where(v_2 > 0, v_2, v_2 * 0.2)
            v_3 = score - max_score_i
            v_4 = tl.exp(v_3)
            d_score = v * v_4
            v_5 = v_2 > 0.0
            v_6 = tl.where(v_5, 1.0, 0.2)
            v_7 = d_score * v_6
            acc_d_right += tl.sum(tl.where(on[:, :, None], v_7, 0.0), axis=0, keep_dims=True)
        tl.store(d_right + i[:, :, None] * 2 + heads, acc_d_right, mask=live[:, :, None])
        h_i = tl.load(h + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
        total_d_att_dst += tl.sum(tl.sum(tl.where(live[:, :, None, None], acc_d_right[:, :, :, None] * h_i, 0.0),
            axis=1), axis=0)
    tl.store(d_att_dst + tl.program_id(0) * 6 + heads[:, None] * 3 + b[None, :], total_d_att_dst, mask=in_b[None, :])


# GAT_backward_2, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def GAT_backward_2_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    product, h, left, right, max_score, chosen,
    d_right, d_att_dst,
    part_d_right,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
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
    acc_d_right = tl.full([1, BLOCK_ROWS, 2], 0.0, tl.float32)
    chosen_i = tl.load(chosen + i[:, :, None] * 2 + heads, mask=live[:, :, None], other=0)
    mask = live[:, :, None, None] & in_b[None, :]
    product_i = tl.load(product + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
    right_i = tl.load(right + i[:, :, None] * 2 + heads, mask=live[:, :, None], other=0)
    max_score_i = tl.load(max_score + i[:, :, None] * 2 + heads, mask=live[:, :, None], other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        mask_2 = on[:, :, None, None] & in_b[None, :]
        h_j = tl.load(h + j[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask_2, other=0)
        dot = tl.sum(tl.where(in_b[None, :], product_i * h_j, 0.0), axis=3)
        v = chosen_i + dot
        left_j = tl.load(left + j[:, :, None] * 2 + heads, mask=on[:, :, None], other=0)
        v_2 = left_j + right_i
        score = tl.where(v_2 > 0, v_2, v_2 * 0.2)
        v_3 = score - max_score_i
        v_4 = tl.exp(v_3)
        d_score = v * v_4
        v_5 = v_2 > 0.0
        v_6 = tl.where(v_5, 1.0, 0.2)
        v_7 = d_score * v_6
        acc_d_right += tl.sum(tl.where(on[:, :, None], v_7, 0.0), axis=0, keep_dims=True)
    tl.store(part_d_right + chunk[:, :, None] * 2 + heads, acc_d_right, mask=live[:, :, None])


# GAT_backward_2, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def GAT_backward_2_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    product, h, left, right, max_score, chosen,
    d_right, d_att_dst,
    part_d_right,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    total_d_att_dst = tl.full([2, 4], 0.0, tl.float32)
    in_b = b < 3
    hub = tl.program_id(0) + tl.zeros([1, 1], tl.int32)
    live = hub >= 0
    i = tl.load(hubs + hub).to(INDEX)
    first = tl.load(first_chunk + hub)
    last = tl.load(first_chunk + hub + 1)
    begin = tl.load(rowptr + i)
    end = tl.load(rowptr + i + 1)
    acc_d_right = tl.full([1, BLOCK_ROWS, 2], 0.0, tl.float32)
    for at in range(0, tl.max(last - first)):
        part = first + at
        some = part < last
        acc_d_right += tl.load(part_d_right + part[:, :, None] * 2 + heads, mask=some[:, :, None], other=0.0)
    tl.store(d_right + i[:, :, None] * 2 + heads, acc_d_right, mask=live[:, :, None])
    mask = live[:, :, None, None] & in_b[None, :]
    h_i = tl.load(h + i[:, :, None, None] * 6 + heads[:, None] * 3 + b[None, :], mask=mask, other=0)
    total_d_att_dst += tl.sum(tl.sum(tl.where(live[:, :, None, None], acc_d_right[:, :, :, None] * h_i, 0.0), axis=1),
        axis=0)
    tl.store(d_att_dst + tl.program_id(0) * 6 + heads[:, None] * 3 + b[None, :], total_d_att_dst, mask=in_b[None, :])


# GAT_backward_3: row by row
#   d_x = sum[heads, b](d_h * weight)
#   d_weight = total(d_h * x)
@triton.jit(do_not_specialize=["num_rows"])
def GAT_backward_3(
    num_rows,
    x, weight, att_src, att_dst, sum_product, d_right, d_left,
    d_x, d_weight,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    a = tl.arange(0, 4)
    heads = tl.arange(0, 2)
    b = tl.arange(0, 4)
    total_d_weight = tl.full([4, 2, 4], 0.0, tl.float32)
    in_b = b < 3
    att_dst_2 = tl.load(att_dst + heads[None, :, None] * 3 + b[None, None, :], mask=in_b[None, None, :], other=0)
    att_src_2 = tl.load(att_src + heads[None, :, None] * 3 + b[None, None, :], mask=in_b[None, None, :], other=0)
    weight_2 = tl.load(weight + a[:, None, None] * 6 + heads[None, :, None] * 3 + b[None, None, :], mask=in_b[None,
        None, :], other=0)
    for block in range(tl.program_id(0), tl.cdiv(num_rows, BLOCK_ROWS), tl.num_programs(0)):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
        live = row < num_rows
        i = row.to(INDEX)
        mask = live[:, :, None, None, None] & in_b[None, None, :]
        sum_product_2 = tl.load(sum_product + i[:, :, None, None, None] * 6 + heads[None, :, None] * 3 + b[None, None,
            :], mask=mask, other=0)
        d_right_2 = tl.load(d_right + i[:, :, None, None, None] * 2 + heads[None, :, None], mask=live[:, :, None, None,
            None], other=0)
        v = d_right_2 * att_dst_2
        v_2 = sum_product_2 + v
        d_left_2 = tl.load(d_left + i[:, :, None, None, None] * 2 + heads[None, :, None], mask=live[:, :, None, None,
            None], other=0)
        v_3 = d_left_2 * att_src_2
        d_h = v_2 + v_3
        d_x_2 = tl.sum(tl.sum(tl.where(in_b[None, None, :], d_h * weight_2, 0.0), axis=4), axis=3)
        tl.store(d_x + i[:, :, None] * 4 + a, d_x_2, mask=live[:, :, None])
        x_2 = tl.load(x + i[:, :, None, None, None] * 4 + a[:, None, None], mask=live[:, :, None, None, None], other=0)
        total_d_weight += tl.sum(tl.sum(tl.where(live[:, :, None, None, None], d_h * x_2, 0.0), axis=1), axis=0)
    tl.store(d_weight + tl.program_id(0) * 24 + a[:, None, None] * 6 + heads[None, :, None] * 3 + b[None, None, :],
        total_d_weight, mask=in_b[None, None, :])
