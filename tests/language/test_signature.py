"""What a layer takes, read from its text."""

from __future__ import annotations

from gdsl.language.parse import parse
from gdsl.language.placeholders import size_names
from gdsl.language.signature import signature_of

SOURCE = """
layer A(d, rate, K = 2, extra = none) {
    module nn
    module other = none
    hidden = 2 * d
    edge w = 1
    edge e[hidden]
    node x[channels]
    node z[d, 3] = none
    graph u[d]
    if extra { edge f[extra] = none }
    for k in 1..K { x = dropout(x, rate) }
    update y = x
}
"""


def test_order_of_a_call() -> None:
    signature = signature_of(parse(SOURCE).layer())
    assert [p.name for p in signature.arguments] == ["d", "rate", "K", "extra", "other"]
    assert signature.modules == (("nn", False), ("other", True))
    assert [i.name for i in signature.before_graph] == ["x", "u", "z"]
    assert [(i.name, i.optional, i.default) for i in signature.after_graph] == [
        ("e", False, None),
        ("w", True, 1),
        ("f", True, None),
    ]
    assert signature.free_dims == ("channels",)
    assert not signature.builds_graph


def test_parts() -> None:
    text = """layer A(d, bias = true) {
        node x[d]
        linear lin(d -> hidden)
        mlp phi(hidden -> wide -> hidden, relu) = none
        param bias[d] ~ zeros = none
        module act = relu
    }"""
    signature = signature_of(parse(text).layer())
    shown = [(p.name, p.required, p.default) for p in signature.arguments]
    assert shown == [("d", True, None), ("bias", False, True), ("phi", False, None), ("act", False, "relu")]
    assert signature.modules == (("lin", True), ("phi", True), ("act", True))
    assert (signature.parts, signature.choices) == (("phi", "bias"), ("act",))
    assert signature.free_dims == ("hidden", "wide")


def test_knn_builds_the_graph() -> None:
    assert signature_of(parse("layer A { node x[3] graph knn(x, 2) update y = x }").layer()).builds_graph


def test_size_names() -> None:
    assert {"d", "K", "extra", "hidden"} <= size_names(parse(SOURCE).layer())
