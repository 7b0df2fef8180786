"""What a prompt and a notebook show: never more than a screen, and nothing of a user's text as markup."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import gdsl
import gdsl.data
import gdsl.nn as ours
from gdsl.look import html
from gdsl.look.check import CheckReport, CheckRow
from gdsl.look.short import Explanation, rows, short
from tests.screen import Page, fits, visible

ROUNDS = """
# A layer of <b>many</b> rounds.
layer Rounds(K, d, word = "<script>alert(1)</script>") {
    node x[d]
    param w[d, d'] ~ glorot
    mlp phi(d -> d -> d -> d, relu)
    linear lins[K](d -> d)
    h = x
    for k in 0..K - 1 { h = tanh(sum(h[j] * 0.5) + lins[k](h)) }
    if word == "<i>" { h = 2 * h }
    update y = phi(h) @ w
}"""


@pytest.fixture(scope="module")
def layer() -> gdsl.Layer:
    made = gdsl.compile(ROUNDS, K=12, d=4, backend="torch")
    made(torch.randn(6, 4), torch.randint(6, (2, 20)))
    return made


def test_all_that_a_long_layer_gives(layer: Any) -> None:
    graph = gdsl.Graph(torch.randint(6, (2, 20)), num_nodes=6)
    explained = layer.explain(graph)
    assert len(explained.splitlines()) > 100
    assert len(layer.kernels) > 12
    (ran,) = layer._ran()
    found = [layer, layer.program, layer.kernels, layer.kernels[0], explained, graph, *ran.inspection.programs]
    found.append(layer.reproduce())
    for value in found:
        assert fits(repr(value)), type(value)
        page = value._repr_html_()
        assert visible(page) <= 40, type(value)
        assert "<script" not in page
        assert "<i>" not in page
    assert "<script>" in "".join(Page(layer._repr_html_()).words)  # as words, where the text is unfolded
    assert "h = tanh" in "".join(Page(layer.program._repr_html_()).words)


@pytest.mark.parametrize("called", [False, True])
def test_layers_of_the_library(called: bool) -> None:
    conv = ours.GATConv(8, 4, heads=3, backend="torch")
    if called:
        conv(torch.randn(6, 8), torch.randint(6, (2, 20)))
    page = Page(conv._repr_html_())
    shown, words = "".join(page.shown), "".join(page.words)
    assert shown.split("\n")[2] == "GATConv(8, 4, heads=3)"
    assert "132 parameters in 4 tensors" in shown
    assert ("aggregate" in words) and ("softmax" in words)  # the text of its program
    assert ("types" in shown) == called
    assert visible(conv._repr_html_()) <= 12


def test_a_layer_whose_sizes_come_with_a_call() -> None:
    conv = ours.GCNConv(-1, 4)
    assert "4 parameters in 1 tensor," in "".join(Page(conv._repr_html_()).shown)
    open_ended = gdsl.compile("layer A { node x[d] update y = 2 * x }")
    assert "update" in "".join(Page(open_ended._repr_html_()).words)
    assert "types" not in "".join(Page(open_ended._repr_html_()).shown)


def test_showing_a_layer_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = gdsl.compile(ROUNDS, K=2, d=4)
    monkeypatch.setattr("gdsl.look.kernels.differentiate", None)
    monkeypatch.setattr("gdsl.look.kernels.lower", None)
    assert "parameters in" in made._repr_html_()


def test_kernels_unfold(layer: Any) -> None:
    kernels = layer.kernels
    assert kernels == list(kernels)
    assert repr(kernels).count("\n") <= 24
    words = "".join(Page(kernels._repr_html_()).words)
    for kernel in kernels:
        assert kernel.source in words
    one = "".join(Page(kernels[0]._repr_html_()).words)
    assert f"bytes: {kernels[0].bytes}" in one
    assert kernels[0].source in one
    of_triton = gdsl.compile("layer A { node x[2] update y = sum(x[j]) }").kernels_for("triton")
    assert "forward, triton, sm_90" in "".join(Page(of_triton._repr_html_()).shown)


def test_an_explanation_is_a_text(layer: Any) -> None:
    found = layer.explain()
    assert isinstance(found, str)
    assert isinstance(found, Explanation)
    assert f"{found}" == "".join(found)
    assert repr(found).endswith("\n(print it to see all)")
    assert [title for title, _ in found.parts][:2] == ["Rounds: the rules", "optimised"]
    words = "".join(Page(found._repr_html_()).words)
    assert all(line.strip() in words for line in found.splitlines()[:40] if not line.startswith("=="))


def test_a_report() -> None:
    lines = tuple(CheckRow(f"check <{k}>", k != 7, 1e-9, 1e-6, "note & more") for k in range(90))
    report = CheckReport("Layer", lines)
    page = Page(report._repr_html_())
    assert "1 of 90 checks failed" in "".join(page.shown)
    assert "check <7>" in "".join(page.shown)
    assert "check <8>" not in "".join(page.shown)
    assert "check <8>" in "".join(page.words)
    assert visible(report._repr_html_()) <= 12
    assert fits(repr(report))


def test_a_model_that_was_converted() -> None:
    pyg = pytest.importorskip("torch_geometric.nn")
    model = nn.ModuleList(pyg.GCNConv(2, 2) for _ in range(100))
    report = ours.convertible(model)
    assert fits(repr(report))
    assert str(report).count("GCNConv") > 100


def test_data() -> None:
    pyg = pytest.importorskip("torch_geometric.data")
    edges = torch.tensor([[0, 1], [1, 2]])
    graphs = [pyg.Data(x=torch.randn(3, 2), edge_index=edges) for _ in range(200)]
    packed = gdsl.data.pack(graphs)
    found = [packed, gdsl.data.Loader(packed, batch_size=4), next(iter(gdsl.data.Loader(packed, batch_size=150)))]
    assert all(fits(repr(value)) for value in found)


def test_values_of_the_prompt() -> None:
    made = gdsl.compile(
        "layer A(d, " + ", ".join(f"a{k} = {k}" for k in range(300)) + ") { node x[d] update y = x }", d=3
    )
    for value in (made, made.signature, made.definition, made.program, *made.arguments):
        assert fits(repr(value)), type(value)
    many = gdsl.compile(
        "layer A(d) { node x[d]\n" + "".join(f"linear l{k}(d -> d)\n" for k in range(200)) + "update y = l0(x) }", d=3
    )
    assert fits(repr(many))
    assert "... 1" in repr(many)
    assert repr(many).splitlines()[-1] == ")"


def test_short() -> None:
    assert short("a\nb") == "a\nb"
    text = "\n".join(f"  line {k}" for k in range(100))
    assert len(short(text).splitlines()) == 24
    assert "  ... 77 more lines ..." in short(text)
    assert short(text).splitlines()[-1] == "  line 99"
    assert short("x" * 500) == "x" * 97 + "..."
    assert rows([1, 2]) == "[1,\n 2]"
    assert rows([]) == "[]"


def test_a_text_that_is_too_long_for_a_page() -> None:
    page = html.text("<" * 70_000)
    assert "10,000 more characters: print it" in page
    assert len(page) < 60_000 * 4 + 1000


def test_colours() -> None:
    found = html.text("layer A { node x[3] update y = relu(x) } # <b>", "gdsl")
    assert "<b>" not in found
    pytest.importorskip("pygments")
    assert '<span style="color: #2f7fb8">layer</span>' in found
