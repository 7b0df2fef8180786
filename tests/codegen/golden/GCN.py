import triton
import triton.language as tl
from triton.language.extra import libdevice


# GCN_0: walks the in-edges of node i; j is the source
#   sum_load = sum@i(w)
#   chosen = where(sum_load != 0, rsqrt(where(sum_load != 0, sum_load, 1)), 0)
@triton.jit(do_not_specialize=["num_rows"])
def GCN_0(
    rows, num_rows, rowptr, other, edge,
    w,
    chosen,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = tl.load(rows + row, mask=live, other=0).to(INDEX)
    begin = tl.load(rowptr + i, mask=live, other=0)
    end = tl.load(rowptr + i + 1, mask=live, other=0)
    most = tl.max(end - begin)
    acc_sum_load = tl.full([1, BLOCK_ROWS], 0.0, tl.float32)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        w_e = tl.load(w + id, mask=on, other=0)
        acc_sum_load += tl.sum(w_e, axis=0, keep_dims=True)
    v = acc_sum_load != 0.0
    v_2 = tl.where(v, acc_sum_load, 1.0)
    v_3 = libdevice.rsqrt(v_2)
    v_4 = tl.where(v, v_3, 0.0)
    tl.store(chosen + i, v_4, mask=live)


# GCN_0, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def GCN_0_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    w,
    chosen,
    part_sum_load,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
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
    acc_sum_load = tl.full([1, BLOCK_ROWS], 0.0, tl.float32)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        w_e = tl.load(w + id, mask=on, other=0)
        acc_sum_load += tl.sum(w_e, axis=0, keep_dims=True)
    tl.store(part_sum_load + chunk * 1, acc_sum_load, mask=live)


# GCN_0, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def GCN_0_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    w,
    chosen,
    part_sum_load,
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
    acc_sum_load = tl.full([1, BLOCK_ROWS], 0.0, tl.float32)
    for at in range(0, tl.max(last - first)):
        part = first + at
        some = part < last
        acc_sum_load += tl.load(part_sum_load + part * 1, mask=some, other=0.0)
    v = acc_sum_load != 0.0
    v_2 = tl.where(v, acc_sum_load, 1.0)
    v_3 = libdevice.rsqrt(v_2)
    v_4 = tl.where(v, v_3, 0.0)
    tl.store(chosen + i, v_4, mask=live)


# GCN_1: row by row
#   h = sum[a](x * weight)
@triton.jit(do_not_specialize=["num_rows"])
def GCN_1(
    num_rows,
    x, weight,
    h,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    b = tl.arange(0, 4)
    in_b = b < 3
    a = tl.arange(0, 4)
    weight_2 = tl.load(weight + a[None, :] * 3 + b[:, None], mask=in_b[:, None], other=0)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = row.to(INDEX)
    mask = live[:, :, None] & in_b
    x_2 = tl.load(x + i[:, :, None, None] * 4 + a[None, :], mask=live[:, :, None, None], other=0)
    h_2 = tl.sum(x_2 * weight_2, axis=3)
    tl.store(h + i[:, :, None] * 3 + b, h_2, mask=mask)


# GCN_2: walks the in-edges of node i; j is the source
#   sum_m = sum@i(m)
#   plus = sum_m + bias
@triton.jit(do_not_specialize=["num_rows"])
def GCN_2(
    rows, num_rows, rowptr, other, edge,
    w, chosen, h, bias,
    plus,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    b = tl.arange(0, 4)
    in_b = b < 3
    bias_2 = tl.load(bias + b, mask=in_b, other=0)
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = tl.load(rows + row, mask=live, other=0).to(INDEX)
    begin = tl.load(rowptr + i, mask=live, other=0)
    end = tl.load(rowptr + i + 1, mask=live, other=0)
    most = tl.max(end - begin)
    acc_sum_m = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    chosen_i = tl.load(chosen + i[:, :, None], mask=live[:, :, None], other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        w_e = tl.load(w + id[:, :, None], mask=on[:, :, None], other=0)
        v = chosen_i * w_e
        chosen_j = tl.load(chosen + j[:, :, None], mask=on[:, :, None], other=0)
        norm = v * chosen_j
        mask = on[:, :, None] & in_b
        h_j = tl.load(h + j[:, :, None] * 3 + b, mask=mask, other=0)
        m = norm * h_j
        acc_sum_m += tl.sum(tl.where(on[:, :, None], m, 0.0), axis=0, keep_dims=True)
    mask_2 = live[:, :, None] & in_b
    v_2 = acc_sum_m + bias_2
    tl.store(plus + i[:, :, None] * 3 + b, v_2, mask=mask_2)


# GCN_2, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def GCN_2_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    w, chosen, h, bias,
    plus,
    part_sum_m,
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
    acc_sum_m = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    chosen_i = tl.load(chosen + i[:, :, None], mask=live[:, :, None], other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        w_e = tl.load(w + id[:, :, None], mask=on[:, :, None], other=0)
        v = chosen_i * w_e
        chosen_j = tl.load(chosen + j[:, :, None], mask=on[:, :, None], other=0)
        norm = v * chosen_j
        mask = on[:, :, None] & in_b
        h_j = tl.load(h + j[:, :, None] * 3 + b, mask=mask, other=0)
        m = norm * h_j
        acc_sum_m += tl.sum(tl.where(on[:, :, None], m, 0.0), axis=0, keep_dims=True)
    mask_2 = live[:, :, None] & in_b
    tl.store(part_sum_m + chunk[:, :, None] * 3 + b, acc_sum_m, mask=mask_2)


# GCN_2, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def GCN_2_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    w, chosen, h, bias,
    plus,
    part_sum_m,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    b = tl.arange(0, 4)
    in_b = b < 3
    bias_2 = tl.load(bias + b, mask=in_b, other=0)
    hub = tl.program_id(0) + tl.zeros([1, 1], tl.int32)
    live = hub >= 0
    i = tl.load(hubs + hub).to(INDEX)
    first = tl.load(first_chunk + hub)
    last = tl.load(first_chunk + hub + 1)
    begin = tl.load(rowptr + i)
    end = tl.load(rowptr + i + 1)
    acc_sum_m = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    for at in range(0, tl.max(last - first)):
        part = first + at
        some = part < last
        acc_sum_m += tl.load(part_sum_m + part[:, :, None] * 3 + b, mask=some[:, :, None] & in_b, other=0.0)
    mask = live[:, :, None] & in_b
    v = acc_sum_m + bias_2
    tl.store(plus + i[:, :, None] * 3 + b, v, mask=mask)


# GCN_backward_0: row by row
#   h = sum[a](x * weight)
#   chosen = where(sum_load != 0, rsqrt(where(sum_load != 0, sum_load, 1)), 0)
#   d_bias = total(d_y)
@triton.jit(do_not_specialize=["num_rows"])
def GCN_backward_0(
    num_rows,
    d_y, x, weight, sum_load,
    h, chosen, d_bias,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    b = tl.arange(0, 4)
    total_d_bias = tl.full([4], 0.0, tl.float32)
    in_b = b < 3
    a = tl.arange(0, 4)
    weight_2 = tl.load(weight + a[None, :] * 3 + b[:, None], mask=in_b[:, None], other=0)
    for block in range(tl.program_id(0), tl.cdiv(num_rows, BLOCK_ROWS), tl.num_programs(0)):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
        live = row < num_rows
        i = row.to(INDEX)
        mask = live[:, :, None] & in_b
        x_2 = tl.load(x + i[:, :, None, None] * 4 + a[None, :], mask=live[:, :, None, None], other=0)
        h_2 = tl.sum(x_2 * weight_2, axis=3)
        tl.store(h + i[:, :, None] * 3 + b, h_2, mask=mask)
        sum_load_2 = tl.load(sum_load + i, mask=live, other=0)
        v = sum_load_2 != 0.0
        v_2 = tl.where(v, sum_load_2, 1.0)
        v_3 = libdevice.rsqrt(v_2)
        v_4 = tl.where(v, v_3, 0.0)
        tl.store(chosen + i, v_4, mask=live)
        d_y_2 = tl.load(d_y + i[:, :, None] * 3 + b, mask=mask, other=0)
        total_d_bias += tl.sum(tl.sum(tl.where(live[:, :, None], d_y_2, 0.0), axis=1), axis=0)
    tl.store(d_bias + tl.program_id(0) * 3 + b, total_d_bias, mask=in_b)


# GCN_backward_1: walks the in-edges of node i; j is the source
#   sum_product = sum@i(d_norm * chosen[j] * w)
@triton.jit(do_not_specialize=["num_rows"])
def GCN_backward_1(
    rows, num_rows, rowptr, other, edge,
    d_y, h, chosen, w,
    sum_product,
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
    acc_sum_product = tl.full([1, BLOCK_ROWS], 0.0, tl.float32)
    mask = live[:, :, None] & in_b
    d_y_i = tl.load(d_y + i[:, :, None] * 3 + b, mask=mask, other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        mask_2 = on[:, :, None] & in_b
        h_j = tl.load(h + j[:, :, None] * 3 + b, mask=mask_2, other=0)
        d_norm = tl.sum(tl.where(in_b, d_y_i * h_j, 0.0), axis=2)
        chosen_j = tl.load(chosen + j, mask=on, other=0)
        v = d_norm * chosen_j
        w_e = tl.load(w + id, mask=on, other=0)
        v_2 = v * w_e
        acc_sum_product += tl.sum(tl.where(on, v_2, 0.0), axis=0, keep_dims=True)
    tl.store(sum_product + i, acc_sum_product, mask=live)


# GCN_backward_1, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def GCN_backward_1_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    d_y, h, chosen, w,
    sum_product,
    part_sum_product,
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
    acc_sum_product = tl.full([1, BLOCK_ROWS], 0.0, tl.float32)
    mask = live[:, :, None] & in_b
    d_y_i = tl.load(d_y + i[:, :, None] * 3 + b, mask=mask, other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        mask_2 = on[:, :, None] & in_b
        h_j = tl.load(h + j[:, :, None] * 3 + b, mask=mask_2, other=0)
        d_norm = tl.sum(tl.where(in_b, d_y_i * h_j, 0.0), axis=2)
        chosen_j = tl.load(chosen + j, mask=on, other=0)
        v = d_norm * chosen_j
        w_e = tl.load(w + id, mask=on, other=0)
        v_2 = v * w_e
        acc_sum_product += tl.sum(tl.where(on, v_2, 0.0), axis=0, keep_dims=True)
    tl.store(part_sum_product + chunk * 1, acc_sum_product, mask=live)


# GCN_backward_1, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def GCN_backward_1_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    d_y, h, chosen, w,
    sum_product,
    part_sum_product,
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
    acc_sum_product = tl.full([1, BLOCK_ROWS], 0.0, tl.float32)
    for at in range(0, tl.max(last - first)):
        part = first + at
        some = part < last
        acc_sum_product += tl.load(part_sum_product + part * 1, mask=some, other=0.0)
    tl.store(sum_product + i, acc_sum_product, mask=live)


# GCN_backward_2: walks the out-edges of node i; j is the target
#   sum_product = sum@j(d_norm * (chosen[i] * w))
#   d_h = sum@j(d_y[i] * norm)
#   d_x = sum[b](d_h * weight)
#   d_weight = total(d_h * x)
@triton.jit(do_not_specialize=["num_rows"])
def GCN_backward_2(
    rows, num_rows, rowptr, other, edge,
    d_y, x, weight, h, chosen, w,
    sum_product, d_x, d_weight,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    a = tl.arange(0, 4)
    b = tl.arange(0, 4)
    total_d_weight = tl.full([4, 4], 0.0, tl.float32)
    in_b = b < 3
    weight_2 = tl.load(weight + a[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
    for block in range(tl.program_id(0), tl.cdiv(num_rows, BLOCK_ROWS), tl.num_programs(0)):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
        live = row < num_rows
        i = tl.load(rows + row, mask=live, other=0).to(INDEX)
        begin = tl.load(rowptr + i, mask=live, other=0)
        end = tl.load(rowptr + i + 1, mask=live, other=0)
        most = tl.max(end - begin)
        acc_sum_product = tl.full([1, BLOCK_ROWS], 0.0, tl.float32)
        acc_d_h = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
        mask_2 = live[:, :, None] & in_b
        h_i = tl.load(h + i[:, :, None] * 3 + b, mask=mask_2, other=0)
        chosen_i = tl.load(chosen + i[:, :, None], mask=live[:, :, None], other=0)
        for at in range(0, most, BLOCK_EDGES):
            e = begin + at + lane
            on = e < end
            j = tl.load(other + e, mask=on, other=0).to(INDEX)
            id = tl.load(edge + e, mask=on, other=0).to(INDEX)
            mask = on[:, :, None] & in_b
            d_y_j = tl.load(d_y + j[:, :, None] * 3 + b, mask=mask, other=0)
            d_norm = tl.sum(tl.where(in_b, d_y_j * h_i, 0.0), axis=2)
            chosen_j = tl.load(chosen + j, mask=on, other=0)
            w_e = tl.load(w + id, mask=on, other=0)
            v = chosen_j * w_e
            v_2 = d_norm * v
            acc_sum_product += tl.sum(tl.where(on, v_2, 0.0), axis=0, keep_dims=True)
            chosen_j_2 = tl.load(chosen + j[:, :, None], mask=on[:, :, None], other=0)
            w_e_2 = tl.load(w + id[:, :, None], mask=on[:, :, None], other=0)
            v_3 = chosen_j_2 * w_e_2
            norm = v_3 * chosen_i
            v_4 = d_y_j * norm
            acc_d_h += tl.sum(tl.where(on[:, :, None], v_4, 0.0), axis=0, keep_dims=True)
        tl.store(sum_product + i, acc_sum_product, mask=live)
        d_x_2 = tl.sum(tl.where(in_b[None, :], acc_d_h[:, :, None, :] * weight_2, 0.0), axis=3)
        tl.store(d_x + i[:, :, None] * 4 + a, d_x_2, mask=live[:, :, None])
        x_i = tl.load(x + i[:, :, None, None] * 4 + a[:, None], mask=live[:, :, None, None], other=0)
        total_d_weight += tl.sum(tl.sum(tl.where(live[:, :, None, None], acc_d_h[:, :, None, :] * x_i, 0.0), axis=1),
            axis=0)
    tl.store(d_weight + tl.program_id(0) * 12 + a[:, None] * 3 + b[None, :], total_d_weight, mask=in_b[None, :])


# GCN_backward_2, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def GCN_backward_2_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    d_y, x, weight, h, chosen, w,
    sum_product, d_x, d_weight,
    part_sum_product, part_d_h,
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
    acc_sum_product = tl.full([1, BLOCK_ROWS], 0.0, tl.float32)
    acc_d_h = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    mask_2 = live[:, :, None] & in_b
    h_i = tl.load(h + i[:, :, None] * 3 + b, mask=mask_2, other=0)
    chosen_i = tl.load(chosen + i[:, :, None], mask=live[:, :, None], other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        mask = on[:, :, None] & in_b
        d_y_j = tl.load(d_y + j[:, :, None] * 3 + b, mask=mask, other=0)
        d_norm = tl.sum(tl.where(in_b, d_y_j * h_i, 0.0), axis=2)
        chosen_j = tl.load(chosen + j, mask=on, other=0)
        w_e = tl.load(w + id, mask=on, other=0)
        v = chosen_j * w_e
        v_2 = d_norm * v
        acc_sum_product += tl.sum(tl.where(on, v_2, 0.0), axis=0, keep_dims=True)
        chosen_j_2 = tl.load(chosen + j[:, :, None], mask=on[:, :, None], other=0)
        w_e_2 = tl.load(w + id[:, :, None], mask=on[:, :, None], other=0)
        v_3 = chosen_j_2 * w_e_2
        norm = v_3 * chosen_i
        v_4 = d_y_j * norm
        acc_d_h += tl.sum(tl.where(on[:, :, None], v_4, 0.0), axis=0, keep_dims=True)
    tl.store(part_sum_product + chunk * 1, acc_sum_product, mask=live)
    tl.store(part_d_h + chunk[:, :, None] * 3 + b, acc_d_h, mask=mask_2)


# GCN_backward_2, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def GCN_backward_2_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    d_y, x, weight, h, chosen, w,
    sum_product, d_x, d_weight,
    part_sum_product, part_d_h,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    lane = tl.arange(0, BLOCK_EDGES)[:, None]
    b = tl.arange(0, 4)
    in_b = b < 3
    a = tl.arange(0, 4)
    total_d_weight = tl.full([4, 4], 0.0, tl.float32)
    weight_2 = tl.load(weight + a[:, None] * 3 + b[None, :], mask=in_b[None, :], other=0)
    hub = tl.program_id(0) + tl.zeros([1, 1], tl.int32)
    live = hub >= 0
    i = tl.load(hubs + hub).to(INDEX)
    first = tl.load(first_chunk + hub)
    last = tl.load(first_chunk + hub + 1)
    begin = tl.load(rowptr + i)
    end = tl.load(rowptr + i + 1)
    acc_sum_product = tl.full([1, BLOCK_ROWS], 0.0, tl.float32)
    acc_d_h = tl.full([1, BLOCK_ROWS, 4], 0.0, tl.float32)
    for at in range(0, tl.max(last - first)):
        part = first + at
        some = part < last
        acc_sum_product += tl.load(part_sum_product + part * 1, mask=some, other=0.0)
        acc_d_h += tl.load(part_d_h + part[:, :, None] * 3 + b, mask=some[:, :, None] & in_b, other=0.0)
    tl.store(sum_product + i, acc_sum_product, mask=live)
    d_x_2 = tl.sum(tl.where(in_b[None, :], acc_d_h[:, :, None, :] * weight_2, 0.0), axis=3)
    tl.store(d_x + i[:, :, None] * 4 + a, d_x_2, mask=live[:, :, None])
    x_i = tl.load(x + i[:, :, None, None] * 4 + a[:, None], mask=live[:, :, None, None], other=0)
    total_d_weight += tl.sum(tl.sum(tl.where(live[:, :, None, None], acc_d_h[:, :, None, :] * x_i, 0.0), axis=1),
        axis=0)
    tl.store(d_weight + tl.program_id(0) * 12 + a[:, None] * 3 + b[None, :], total_d_weight, mask=in_b[None, :])


# GCN_backward_3: row by row
#   chosen = where(sum_load != 0, where(sum_load != 0, sum_product + sum_product_2, 0) * (-0.5 * rsqrt(where(sum_load != 0, sum_load, 1)) / where(sum_load !...
@triton.jit(do_not_specialize=["num_rows"])
def GCN_backward_3(
    num_rows,
    sum_load, sum_product, sum_product_2,
    chosen,
    BLOCK_ROWS: tl.constexpr, BLOCK_EDGES: tl.constexpr,
    INDEX: tl.constexpr, PRECISION: tl.constexpr, SUM_PRECISION: tl.constexpr,
):
    block = tl.program_id(0)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[None, :]
    live = row < num_rows
    i = row.to(INDEX)
    sum_load_2 = tl.load(sum_load + i, mask=live, other=0)
    v = sum_load_2 != 0.0
    sum_product_3 = tl.load(sum_product + i, mask=live, other=0)
    sum_product_2_2 = tl.load(sum_product_2 + i, mask=live, other=0)
    v_2 = sum_product_3 + sum_product_2_2
    v_3 = tl.where(v, v_2, 0.0)
    v_4 = tl.where(v, sum_load_2, 1.0)
    v_5 = libdevice.rsqrt(v_4)
    v_6 = (-0.5) * v_5
    v_7 = v_6 / v_4
    v_8 = v_3 * v_7
    v_9 = tl.where(v, v_8, 0.0)
    tl.store(chosen + i, v_9, mask=live)


# GCN_backward_4: walks the in-edges of node i; j is the source
#   d_w = d_norm * chosen[j] * chosen[i] + chosen_2[i]
@triton.jit(do_not_specialize=["num_rows"])
def GCN_backward_4(
    rows, num_rows, rowptr, other, edge,
    d_y, h, chosen, chosen_2,
    d_w,
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
    mask = live[:, :, None] & in_b
    d_y_i = tl.load(d_y + i[:, :, None] * 3 + b, mask=mask, other=0)
    chosen_i = tl.load(chosen + i, mask=live, other=0)
    chosen_2_i = tl.load(chosen_2 + i, mask=live, other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        mask_2 = on[:, :, None] & in_b
        h_j = tl.load(h + j[:, :, None] * 3 + b, mask=mask_2, other=0)
        d_norm = tl.sum(tl.where(in_b, d_y_i * h_j, 0.0), axis=2)
        chosen_j = tl.load(chosen + j, mask=on, other=0)
        v = d_norm * chosen_j
        v_2 = v * chosen_i
        d_w_2 = v_2 + chosen_2_i
        tl.store(d_w + id, d_w_2, mask=on)


# GCN_backward_4, walk 0 over the hubs, in chunks of 512 edges
@triton.jit(do_not_specialize=["num_chunks"])
def GCN_backward_4_chunk0(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    d_y, h, chosen, chosen_2,
    d_w,
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
    mask = live[:, :, None] & in_b
    d_y_i = tl.load(d_y + i[:, :, None] * 3 + b, mask=mask, other=0)
    chosen_i = tl.load(chosen + i, mask=live, other=0)
    chosen_2_i = tl.load(chosen_2 + i, mask=live, other=0)
    for at in range(0, most, BLOCK_EDGES):
        e = begin + at + lane
        on = e < end
        j = tl.load(other + e, mask=on, other=0).to(INDEX)
        id = tl.load(edge + e, mask=on, other=0).to(INDEX)
        mask_2 = on[:, :, None] & in_b
        h_j = tl.load(h + j[:, :, None] * 3 + b, mask=mask_2, other=0)
        d_norm = tl.sum(tl.where(in_b, d_y_i * h_j, 0.0), axis=2)
        chosen_j = tl.load(chosen + j, mask=on, other=0)
        v = d_norm * chosen_j
        v_2 = v * chosen_i
        d_w_2 = v_2 + chosen_2_i
        tl.store(d_w + id, d_w_2, mask=on)


# GCN_backward_4, the rows that are hubs: adds up what their chunks wrote down
@triton.jit(do_not_specialize=["num_chunks"])
def GCN_backward_4_hubs(
    hubs, first_chunk, owner, num_chunks, rowptr, other, edge,
    d_y, h, chosen, chosen_2,
    d_w,
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
