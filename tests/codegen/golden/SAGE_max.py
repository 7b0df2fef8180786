import triton
import triton.language as tl


@triton.jit
def gdsl_larger(a, b):
    # NaN wins, as in torch.
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def gdsl_max(x, axis: tl.constexpr, keep: tl.constexpr):
    return tl.reduce(x, axis, gdsl_larger, keep_dims=keep)


# SAGE_max_0: walks the in-edges of node i; j is the source
#   a_2 = max@i(x[j])
#   plus = sum[a](a_2 * weight_l) + sum[a](x * weight_r)
@triton.jit(do_not_specialize=["num_rows"])
def SAGE_max_0(
    rows, num_rows, rowptr, other, edge,
    x, weight_l, weight_r,
    plus,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a = tl.arange(0, 4)
    b = tl.arange(0, 4)
    in_b = b < 3
    weight_l_2 = tl.load(weight_l + a[None, :] * 3 + b[:, None], mask=in_b[:, None], other=0)
    weight_r_2 = tl.load(weight_r + a[None, :] * 3 + b[:, None], mask=in_b[:, None], other=0)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = tl.load(rows + row, mask=live, other=0).to(INDEX)
    begin = tl.load(rowptr + i, mask=live, other=0)
    end = tl.load(rowptr + i + 1, mask=live, other=0)
    most = tl.max(end - begin)
    acc_a = tl.full([1, BLOCK_ROWS, 4], float("-inf"), tl.float32)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        x_j = tl.load(x + j[:, :, None] * 4 + a, mask=on[:, :, None], other=0)
        more = gdsl_max(tl.where(on[:, :, None], x_j, float("-inf")), 0, True)
        acc_a = tl.where((acc_a != acc_a) | (acc_a > more), acc_a, more)
    acc_a = tl.where((end > begin)[:, :, None], acc_a, 0.0)
    mask = live[:, :, None] & in_b
    dot = tl.sum(acc_a[:, :, None, :] * weight_l_2, axis=3)
    x_i = tl.load(x + i[:, :, None, None] * 4 + a[None, :], mask=live[:, :, None, None], other=0)
    dot_2 = tl.sum(x_i * weight_r_2, axis=3)
    v = dot + dot_2
    tl.store(plus + i[:, :, None] * 3 + b, v, mask=mask)


# SAGE_max_0, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def SAGE_max_0_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    x, weight_l, weight_r,
    plus,
    part_a,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a_2 = tl.arange(0, 4)
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
    acc_a = tl.full([1, BLOCK_ROWS, 4], float("-inf"), tl.float32)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        x_j = tl.load(x + j[:, :, None] * 4 + a_2, mask=on[:, :, None], other=0)
        more = gdsl_max(tl.where(on[:, :, None], x_j, float("-inf")), 0, True)
        acc_a = tl.where((acc_a != acc_a) | (acc_a > more), acc_a, more)
    tl.store(part_a + chunk[:, :, None] * 4 + a_2, acc_a, mask=live[:, :, None])


# SAGE_max_0, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def SAGE_max_0_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    x, weight_l, weight_r,
    plus,
    part_a,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a_2 = tl.arange(0, 4)
    b = tl.arange(0, 4)
    in_b = b < 3
    weight_l_2 = tl.load(weight_l + a_2[None, :] * 3 + b[:, None], mask=in_b[:, None], other=0)
    weight_r_2 = tl.load(weight_r + a_2[None, :] * 3 + b[:, None], mask=in_b[:, None], other=0)
    hub = tl.program_id(0) + tl.zeros([1, 1], tl.int32)
    live = hub >= 0
    i = tl.load(hubs + hub).to(INDEX)
    first = tl.load(first_chunk + hub)
    last = tl.load(first_chunk + hub + 1)
    begin = tl.load(rowptr + i)
    end = tl.load(rowptr + i + 1)
    acc_a = tl.full([1, BLOCK_ROWS, 4], float("-inf"), tl.float32)
    for at in range(0, tl.max(last - first)):
        part = first + at
        some = part < last
        more = tl.load(part_a + part[:, :, None] * 4 + a_2, mask=some[:, :, None], other=float("-inf"))
        acc_a = tl.where((acc_a != acc_a) | (acc_a > more), acc_a, more)
    acc_a = tl.where((end > begin)[:, :, None], acc_a, 0.0)
    mask = live[:, :, None] & in_b
    dot = tl.sum(acc_a[:, :, None, :] * weight_l_2, axis=3)
    x_i = tl.load(x + i[:, :, None, None] * 4 + a_2[None, :], mask=live[:, :, None, None], other=0)
    dot_2 = tl.sum(x_i * weight_r_2, axis=3)
    v = dot + dot_2
    tl.store(plus + i[:, :, None] * 3 + b, v, mask=mask)


# SAGE_max_backward_0: row by row
#   ratio = d_a / maximum(to_float(countmax_gather), 1)
#   d_weight_l = total(d_y * a)
#   d_weight_r = total(d_y * x)
@triton.jit(do_not_specialize=["num_rows"])
def SAGE_max_backward_0(
    num_rows,
    d_y, x, a, weight_l, countmax_gather,
    ratio, d_weight_l, d_weight_r,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    a_2 = tl.arange(0, 4)
    b = tl.arange(0, 4)
    total_d_weight_l = tl.full([4, 4], 0.0, tl.float32)
    total_d_weight_r = tl.full([4, 4], 0.0, tl.float32)
    in_b = b < 3
    weight_l_2 = tl.load(weight_l + a_2[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
    for block in range(tl.program_id(0), tl.cdiv(num_rows, BLOCK_ROWS), tl.num_programs(0)):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
        live = row < num_rows
        i = row.to(INDEX)
        mask = live[:, :, None, None] & in_b[None, :]
        d_y_2 = tl.load(d_y + i[:, :, None, None] * 3 + b[None, :], mask=mask, other=0)
        d_a = tl.sum(tl.where(in_b[None, :], d_y_2 * weight_l_2, 0.0), axis=3)
        countmax_gather_2 = tl.load(countmax_gather + i[:, :, None] * 4 + a_2, mask=live[:, :, None], other=0)
        v = countmax_gather_2.to(tl.float32)
        v_2 = tl.maximum(v, 1.0, propagate_nan=tl.PropagateNan.ALL)
        v_3 = d_a / v_2
        tl.store(ratio + i[:, :, None] * 4 + a_2, v_3, mask=live[:, :, None])
        a_3 = tl.load(a + i[:, :, None, None] * 4 + a_2[:, None], mask=live[:, :, None, None], other=0)
        total_d_weight_l += tl.sum(tl.sum(tl.where(live[:, :, None, None], d_y_2 * a_3, 0.0), axis=1), axis=0)
        x_2 = tl.load(x + i[:, :, None, None] * 4 + a_2[:, None], mask=live[:, :, None, None], other=0)
        total_d_weight_r += tl.sum(tl.sum(tl.where(live[:, :, None, None], d_y_2 * x_2, 0.0), axis=1), axis=0)
    tl.store(d_weight_l + tl.program_id(0) * 12 + a_2[:, None] * 3 + b[None, :], total_d_weight_l, mask=in_b[None, :])
    tl.store(d_weight_r + tl.program_id(0) * 12 + a_2[:, None] * 3 + b[None, :], total_d_weight_r, mask=in_b[None, :])


# SAGE_max_backward_1: walks the out-edges of node i; j is the target
#   sum_chosen = sum@j(where(x[j] < a[i], 0, ratio[i]))
#   d_x = sum[b](d_y * weight_r) + sum_chosen
@triton.jit(do_not_specialize=["num_rows"])
def SAGE_max_backward_1(
    rows, num_rows, rowptr, other, edge,
    d_y, weight_r, x, a, ratio,
    d_x,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a_2 = tl.arange(0, 4)
    b = tl.arange(0, 4)
    in_b = b < 3
    weight_r_2 = tl.load(weight_r + a_2[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = tl.load(rows + row, mask=live, other=0).to(INDEX)
    begin = tl.load(rowptr + i, mask=live, other=0)
    end = tl.load(rowptr + i + 1, mask=live, other=0)
    most = tl.max(end - begin)
    acc_sum_chosen = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    x_i = tl.load(x + i[:, :, None] * 4 + a_2, mask=live[:, :, None], other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        a_j = tl.load(a + j[:, :, None] * 4 + a_2, mask=on[:, :, None], other=0)
        v = x_i < a_j
        ratio_j = tl.load(ratio + j[:, :, None] * 4 + a_2, mask=on[:, :, None], other=0)
        v_2 = tl.where(v, 0.0, ratio_j)
        acc_sum_chosen += tl.sum(tl.where(on[:, :, None], v_2, 0.0), axis=0, keep_dims=True)
    mask = live[:, :, None, None] & in_b[None, :]
    d_y_i = tl.load(d_y + i[:, :, None, None] * 3 + b[None, :], mask=mask, other=0)
    dot = tl.sum(tl.where(in_b[None, :], d_y_i * weight_r_2, 0.0), axis=3)
    d_x_2 = dot + acc_sum_chosen
    tl.store(d_x + i[:, :, None] * 4 + a_2, d_x_2, mask=live[:, :, None])


# SAGE_max_backward_1, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def SAGE_max_backward_1_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    d_y, weight_r, x, a, ratio,
    d_x,
    part_sum_chosen,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a_2 = tl.arange(0, 4)
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
    acc_sum_chosen = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    x_i = tl.load(x + i[:, :, None] * 4 + a_2, mask=live[:, :, None], other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        a_j = tl.load(a + j[:, :, None] * 4 + a_2, mask=on[:, :, None], other=0)
        v = x_i < a_j
        ratio_j = tl.load(ratio + j[:, :, None] * 4 + a_2, mask=on[:, :, None], other=0)
        v_2 = tl.where(v, 0.0, ratio_j)
        acc_sum_chosen += tl.sum(tl.where(on[:, :, None], v_2, 0.0), axis=0, keep_dims=True)
    tl.store(part_sum_chosen + chunk[:, :, None] * 4 + a_2, acc_sum_chosen, mask=live[:, :, None])


# SAGE_max_backward_1, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def SAGE_max_backward_1_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    d_y, weight_r, x, a, ratio,
    d_x,
    part_sum_chosen,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a_2 = tl.arange(0, 4)
    b = tl.arange(0, 4)
    in_b = b < 3
    weight_r_2 = tl.load(weight_r + a_2[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
    hub = tl.program_id(0) + tl.zeros([1, 1], tl.int32)
    live = hub >= 0
    i = tl.load(hubs + hub).to(INDEX)
    first = tl.load(first_chunk + hub)
    last = tl.load(first_chunk + hub + 1)
    begin = tl.load(rowptr + i)
    end = tl.load(rowptr + i + 1)
    acc_sum_chosen = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    for at in range(0, tl.max(last - first)):
        part = first + at
        some = part < last
        acc_sum_chosen += tl.load(part_sum_chosen + part[:, :, None] * 4 + a_2, mask=some[:, :, None], other=0.0)
    mask = live[:, :, None, None] & in_b[None, :]
    d_y_i = tl.load(d_y + i[:, :, None, None] * 3 + b[None, :], mask=mask, other=0)
    dot = tl.sum(tl.where(in_b[None, :], d_y_i * weight_r_2, 0.0), axis=3)
    d_x_2 = dot + acc_sum_chosen
    tl.store(d_x + i[:, :, None] * 4 + a_2, d_x_2, mask=live[:, :, None])
