#!/usr/bin/env bash
# torch 2.13.0, CPU: whether attention has a second derivative depends on arguments that have nothing to do with it. The kernel that
# scaled_dot_product_attention prefers has none; one that has some is taken where there is dropout, where values are narrower than
# keys, or where a mask is to have a gradient. So a gradient penalty, or a loss on forces, through nn.MultiheadAttention(...,
# need_weights=False) works in training with dropout, and raises in evaluation or without dropout.
#
# Seen with torch 2.13.0 (the gradient of a function of a gradient):
#   attention: derivative for aten::_scaled_dot_product_flash_attention_for_cpu_backward is not implemented
#   attention with dropout: there
#   attention with narrower values: there
#   attention with a mask: derivative for aten::_scaled_dot_product_flash_attention_for_cpu_backward is not implemented
#   attention with a mask that wants a gradient: there
#   MultiheadAttention in training: there
#   MultiheadAttention in evaluation: derivative for aten::_scaled_dot_product_flash_attention_for_cpu_backward is not implemented
#   MultiheadAttention in evaluation, need_weights: there
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0
python <<'PY'
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention as attention

MISSING = "derivative for aten::_scaled_dot_product_flash_attention_for_cpu_backward is not implemented"
torch.manual_seed(0)
many = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
mask = torch.zeros(4, 4)
CASES = {
    "attention": lambda x: attention(x, x, x),
    "attention with dropout": lambda x: attention(x, x, x, dropout_p=0.1),
    "attention with narrower values": lambda x: attention(x, x, x[..., :4]),
    "attention with a mask": lambda x: attention(x, x, x, attn_mask=mask),
    "attention with a mask that wants a gradient": lambda x: attention(x, x, x, attn_mask=mask.clone().requires_grad_()),
    "MultiheadAttention in training": lambda x: many.train()(x[0], x[0], x[0], need_weights=False)[0],
    "MultiheadAttention in evaluation": lambda x: many.eval()(x[0], x[0], x[0], need_weights=False)[0],
    "MultiheadAttention in evaluation, need_weights": lambda x: many.eval()(x[0], x[0], x[0])[0],
}
WITHOUT = {"attention", "attention with a mask", "MultiheadAttention in evaluation"}
for name, call in CASES.items():
    x = torch.randn(1, 2, 4, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(call(x).sin().sum(), x, create_graph=True)
    try:
        torch.autograd.grad(slope.square().sum(), x)
        told = "there"
    except RuntimeError as error:
        told = str(error)
    print(f"{name}: {told}")
    assert told == (MISSING if name in WITHOUT else "there"), "changed"
PY
