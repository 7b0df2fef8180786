"""The constructors of all ops, under one name: ``build.gather(x, "j")``.

Each checks its typing rule and raises :class:`IRError` with a remedy. They stand with the ops' definitions.
"""

from __future__ import annotations

from gdsl.ir.attributes import IRError
from gdsl.ir.ops.edges import gather, gather_by, segment
from gdsl.ir.ops.elementwise import as_node, broadcast, elementwise, join_dims, join_domains, replay, to_float
from gdsl.ir.ops.exchange import all_reduce, collect, exchange
from gdsl.ir.ops.exchange_edges import collect_pairs, exchange_pairs, exchange_reverse
from gdsl.ir.ops.folds import order_rank, scan, scan_step
from gdsl.ir.ops.functions import to_int
from gdsl.ir.ops.indexing import cat, index, reduce, scatter, select, slice_dim
from gdsl.ir.ops.leaves import const, element_id, graph_value, iota, is_const, load, random, row_ids
from gdsl.ir.ops.libraries import call, grouped_product, sparse_product
from gdsl.ir.ops.products import contract, matmul, spread, sum_dims, total
from gdsl.ir.ops.reversal import reverse
from gdsl.ir.ops.splines import bspline, bspline_index
from gdsl.ir.ops.supports import support
from gdsl.ir.ops.views import merge, rename, reshape, reshape_like, split, stop_gradient, transpose
