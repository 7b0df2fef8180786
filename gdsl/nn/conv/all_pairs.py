"""Attention between all nodes of each graph with the parameters of torch's, without padding and without pairs in
memory."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from gdsl.language.parts import must_run
from gdsl.module.call import call
from gdsl.module.ways import Text, text_for
from gdsl.nn.conv.base import program_of
from gdsl.runtime.tracers import recording

# How many pairs of places, padding among them, torch's attention goes through in the time of one pair of nodes here, on
# graphs of so many nodes at most: 4 heads of 16 numbers, forward and backward on one thread of a CPU.
WORTH = ((64, 1.4), (float("inf"), 3.0))
# The same in training with dropout, where torch keeps a weight for each pair of places: on large graphs memory decides.
WORTH_DROPPED = ((1024, 1.5), (float("inf"), 0.0))
# The same on GPUs, where it was not measured: what padding alone decides.
WORTH_ON_GPU = 16.0


@lru_cache(maxsize=64)
def _text(heads: int, width: int, dropout: float) -> Text:
    of_no_nodes = dict.fromkeys(("query", "key", "value"), torch.empty(0, heads, width))
    return text_for(nn.Module(), program_of("all_pairs"), {"p": dropout}, of_no_nodes)


def fits(attention: nn.Module, count: Tensor) -> bool:
    """Whether all_pairs takes less time than torch's attention on graphs of so many nodes, padded to the largest.

    It stands for ``torch.nn.MultiheadAttention`` as GPS makes it: with nothing on it that its ``forward`` would call.
    """
    if type(attention) is not nn.MultiheadAttention or not count.numel():
        return False
    if torch.compiler.is_compiling() or recording():
        return False  # which of the two it is depends on the numbers of nodes
    plain = attention._qkv_same_embed_dim and attention.bias_k is None and not attention.add_zero_attn
    if not plain or must_run(attention) or hasattr(attention, "parametrizations"):
        return False
    squares, most = torch.stack([(count * count).sum(), count.max()]).tolist()
    on_cpu = WORTH_DROPPED if attention.training and attention.dropout else WORTH
    worth = next(worth for nodes, worth in on_cpu if most <= nodes) if count.is_cpu else WORTH_ON_GPU
    return bool(len(count) * most * most > worth * squares)


def all_pairs(attention: nn.MultiheadAttention, x: Tensor, batch: Tensor) -> Tensor:
    """[N, channels] to [N, channels]: what the attention gives for each graph alone."""
    heads, width = attention.num_heads, attention.head_dim
    mapped = nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = mapped.view(len(x), 3, heads, width).unbind(1)
    text = _text(heads, width, attention.dropout)
    heard: Tensor = call(text, attention, {}, (query * width**-0.5, key, value, batch), {}, "auto")
    out = attention.out_proj
    return nn.functional.linear(heard.reshape(len(x), heads * width), out.weight, out.bias)
