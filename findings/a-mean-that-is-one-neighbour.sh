#!/usr/bin/env bash
# torch 2.13.0: ONNX has sums, products, largest and smallest for rows that are scattered, and no mean. torch.onnx.export writes a
# scatter_reduce or an index_reduce by "mean" all the same, as a scatter without any reduction: the file gives a node one of its
# neighbours, the last in the list, in place of their mean. Nothing is said, and the other four reductions are right. A mean that is
# written as a sum and a count, as torch_geometric's is, gets through.
#
# Seen with torch 2.13.0, onnxscript 0.7.2, onnxruntime 1.32.0 (neighbours 1, -2 of one node and 3, -4, 8 of another):
#   sum: torch [-1.0, 7.0] onnxruntime [-1.0, 7.0]
#   amax: torch [1.0, 8.0] onnxruntime [1.0, 8.0]
#   mean: torch [-0.5, 2.333] onnxruntime [-2.0, 8.0], reductions in the file: ['none']
#   mean by hand: torch [-0.5, 2.333] onnxruntime [-0.5, 2.333]
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
python <<'PY'
import contextlib
import io
import logging

import onnx
import onnxruntime
import torch
from torch import nn

logging.disable(logging.WARNING)  # of torchvision, which is not there


class Aggregate(nn.Module):
    def __init__(self, reduce):
        super().__init__()
        self.reduce = reduce

    def forward(self, messages, target):
        if self.reduce != "mean by hand":
            return messages.new_zeros(2).scatter_reduce(0, target, messages, self.reduce, include_self=False)
        count = messages.new_zeros(2).index_add(0, target, torch.ones_like(messages))
        return messages.new_zeros(2).index_add(0, target, messages) / count


def rounded(values):
    return [round(float(v), 3) for v in values]


messages, target = torch.tensor([1.0, -2.0, 3.0, -4.0, 8.0]), torch.tensor([0, 0, 1, 1, 1])
right, reductions = {}, {}
for reduce in ("sum", "amax", "mean", "mean by hand"):
    layer = Aggregate(reduce)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        torch.onnx.export(layer, (messages, target), "layer.onnx", dynamo=True)
    session = onnxruntime.InferenceSession("layer.onnx")
    names = [given.name for given in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, (messages.numpy(), target.numpy()))))
    nodes = onnx.load("layer.onnx").graph.node
    reductions[reduce] = [a.s.decode() for node in nodes if "Scatter" in node.op_type for a in node.attribute if a.name == "reduction"]
    expected = layer(messages, target)
    right[reduce] = torch.allclose(expected, torch.as_tensor(found))
    more = f", reductions in the file: {sorted(set(reductions[reduce]))}" if reduce == "mean" else ""
    print(f"{reduce}: torch {rounded(expected)} onnxruntime {rounded(found)}{more}")
assert [reduce for reduce, same in right.items() if not same] == ["mean"], "changed"
PY
