"""gdsl.nn.convert: models with everything that torch's users do to them."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import gdsl
import gdsl.nn as ours
from gdsl.nn.conversion.twins import kind_of
from tests.parity.converted import Mine, N, Scaled, convert, edges, features, is_ours, near, net, theirs

# -- the call ------------------------------------------------------------------------------------


@pytest.mark.parametrize("inplace", [False, True])
def test_a_model(inplace: bool) -> None:
    model, twin = net(), net()
    before = {name: kind_of(module) for name, module in model.named_modules()}
    names = [name for name, _ in model.named_parameters()]
    held = [id(p) for p in model.parameters()]
    made = convert(model, inplace=inplace, sample=(features(), edges()))
    assert (made is model) is inplace
    assert [name for name, _ in made.named_parameters()] == names
    assert [id(p) for p in made.parameters()] == held
    assert {n: v.shape for n, v in made.state_dict().items()} == {n: v.shape for n, v in twin.state_dict().items()}
    made.load_state_dict(twin.state_dict())
    twin.load_state_dict(made.state_dict())
    for part in (made.first, made.convs[0], made.norm, made.readout):
        assert is_ours(part)
    assert made.convs[1] is made.first
    assert type(made.own) is Mine and type(made.scaled) is Scaled
    # What a module keeps besides its parts goes with them.
    assert made.order == [made.own, made.scaled]
    assert made.act.__self__ is made
    for training in (False, True):
        near(made.train(training)(features(), edges()), twin.train(training)(features(), edges()))
    if not inplace:
        assert before == {name: kind_of(module) for name, module in model.named_modules()}
        assert model.order == [model.own, model.scaled] and model.act.__self__ is model
    near(made.eval()(features(), edges()), twin.eval()(features(), edges()))


def test_a_copy_has_a_mode_of_its_own() -> None:
    model = net()
    made = convert(model)
    made.eval()
    assert all(module.training for module in model.modules())
    model.norm.eval()
    assert convert(model).norm.training is False
    assert convert(model).norm.module.training is False


def test_an_optimizer_goes_on() -> None:
    results = []
    for change in (lambda m: m, convert, lambda m: convert(m, inplace=True)):
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for step in range(4):
            if step == 2:
                model = change(model)
            optimizer.zero_grad()
            model(features(), edges()).square().sum().backward()
            optimizer.step()
        results.append(model.eval()(features(), edges()))
    near(results[1], results[0])
    near(results[2], results[0])


def test_a_layer_by_itself() -> None:
    layer = theirs.GATConv(5, 4, heads=2, edge_dim=3).double()
    made = convert(layer, inplace=True)
    assert type(made) is ours.GATConv and made.att_src is layer.att_src
    e = torch.randn(30, 3, dtype=torch.float64)
    near(made(features(), edges(), e), layer(features(), edges(), e))


def test_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    report = ours.convertible(net())
    assert dict(report.replaced) == {
        "first": "GCNConv", "own.lin": "Linear", "scaled.lin": "Linear", "convs.0": "GINConv", "norm": "BatchNorm",
        "readout": "MeanAggregation",
    }  # fmt: skip
    assert list(report.left) == ["own", "scaled"]
    said = repr(report)
    assert said.startswith("replaced: 1 GCNConv, 2 Linear, 1 GINConv, 1 BatchNorm, 1 MeanAggregation\n")
    assert "own: Mine: a layer of your own: derive it from gdsl.nn.MessagePassing" in said
    assert "scaled: Scaled: a class of your own, derived from GCNConv" in said
    ours.convert(net())
    assert capsys.readouterr().out == str(report) + "\n"
    convert(net())
    assert capsys.readouterr().out == ""
    assert repr(ours.convertible(nn.Linear(2, 2))) == "replaced: nothing"


def test_what_is_no_model() -> None:
    for function in (ours.convert, ours.convertible):
        with pytest.raises(gdsl.InputError, match=r"a model is a torch\.nn\.Module, not a list"):
            function([net()])  # type: ignore[arg-type]


def test_torch_geometric_is_not_imported() -> None:
    code = (
        "import sys, torch, gdsl.nn\n"
        "gdsl.nn.convert(torch.nn.Sequential(torch.nn.Linear(2, 2)), sample=torch.ones(1, 2))\n"
        "assert 'torch_geometric' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- what modules have besides their parameters --------------------------------------------------


def test_sizes_of_the_first_call() -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        attention = theirs.GATConv((-1, -1), 3, add_self_loops=False)
        layers = [(theirs.SAGEConv(-1, 4), "x, e -> x"), nn.ReLU(), (attention, "x, e -> x")]
        model: nn.Module = theirs.Sequential("x, e", layers)
        return model.double()

    made, twin = convert(make()), make()
    with pytest.raises(gdsl.InputError, match="call the model once before"):
        convert(make(), sample=(features(), edges()))
    for model in (made, twin):
        torch.manual_seed(3)
        model(features(), edges())
    assert {n: v.shape for n, v in made.state_dict().items()} == {n: v.shape for n, v in twin.state_dict().items()}
    made.load_state_dict(twin.state_dict())
    near(made(features(), edges()), twin(features(), edges()))
    later = convert(twin, sample=(features(), edges()))
    assert is_ours(later.module_0) and not later.module_0.lin_l._forward_pre_hooks


@pytest.mark.parametrize("inplace", [False, True])
def test_hooks(inplace: bool) -> None:
    model = net()
    seen: list[str] = []

    class Watch:
        def pre(self, module: nn.Module, args: Any) -> None:
            seen.append("pre")

    handles = [
        model.first.register_forward_hook(lambda m, args, y: seen.append("forward") or 2 * y),
        model.first.register_forward_pre_hook(Watch().pre),
        model.first.lin.register_full_backward_hook(lambda m, i, o: seen.append("backward")),
        model.convs[0].nn[2].register_forward_hook(lambda m, args, kw, y: seen.append("inner"), with_kwargs=True),
        model.norm.register_state_dict_post_hook(lambda m, s, p, l: seen.append(f"saved {type(m).__module__[:4]}")),
        model.norm.register_load_state_dict_pre_hook(lambda m, *a: seen.append(f"loaded {type(m).__module__[:4]}")),
    ]
    wanted = copy.deepcopy(model)(features(), edges())
    seen.clear()
    made = convert(model, inplace=inplace)
    found = made(features(), edges())
    near(found, wanted)
    found.sum().backward()
    # The layer is there twice, and its linear map is called for itself where it has hooks.
    assert seen == ["pre", "forward", "inner", "pre", "forward", "backward", "backward"]
    seen.clear()
    made.load_state_dict(made.state_dict())
    assert seen == ["saved gdsl", "loaded gdsl"]
    seen.clear()
    if inplace:
        for handle in handles:
            handle.remove()
        made(features(), edges())
        assert seen == []


def test_hooks_of_messages_stay() -> None:
    layer = theirs.GCNConv(5, 4)
    layer.register_message_forward_hook(lambda *args: None)
    report = ours.convertible(nn.Sequential(layer, theirs.GCNConv(4, 4)))
    assert list(report.replaced) == ["1"] and "hooks of its messages" in report.left["0"].reason


def test_an_edge_mask_stays() -> None:
    layer = theirs.GCNConv(5, 4)
    layer.explain, layer._edge_mask = True, nn.Parameter(torch.ones(30))
    assert "mask" in ours.convertible(layer).left[""].reason


ALTERED: dict[str, Callable[[Any], Any]] = {
    "weight_norm": lambda conv: parametrizations.weight_norm(conv.lin),
    "spectral_norm": lambda conv: parametrizations.spectral_norm(conv.lin, n_power_iterations=2),
    "two": lambda conv: (parametrizations.weight_norm(conv.lin), parametrizations.orthogonal(conv.nn[0])),
    "old weight_norm": lambda conv: nn.utils.weight_norm(conv.lin),
    "old spectral_norm": lambda conv: nn.utils.spectral_norm(conv.lin),
    "pruned": lambda conv: prune.l1_unstructured(conv.lin, "weight", 0.5),
    "frozen": lambda conv: conv.lin.weight.requires_grad_(False),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ALTERED)
@pytest.mark.parametrize("inplace", [False, True])
def test_altered_parameters(name: str, inplace: bool) -> None:
    def make() -> Any:
        torch.manual_seed(0)
        conv = theirs.GINEConv(nn.Sequential(theirs.Linear(5, 5), nn.ReLU()), edge_dim=3).double()
        ALTERED[name](conv)
        return conv

    model, twin = make(), make()
    held = [{n: id(v) for n, v in values} for values in (model.named_parameters(), model.named_buffers())]
    made = convert(model, inplace=inplace)
    assert type(made) is ours.GINEConv and is_ours(made.lin) and is_ours(made.nn[0])
    assert [{n: id(v) for n, v in values} for values in (made.named_parameters(), made.named_buffers())] == held
    assert [p.requires_grad for p in made.parameters()] == [p.requires_grad for p in twin.parameters()]
    e = torch.randn(30, 3, dtype=torch.float64)
    for _ in range(2):
        results = []
        for layer in (made, twin):
            x = features().requires_grad_()
            y = layer(x, edges(), e)
            asked = [x, *(p for p in layer.parameters() if p.requires_grad)]
            results.append([y, *torch.autograd.grad(y.square().sum(), asked)])
        near(*results)
    # torch_geometric's linear maps save the tensors that were made of the parameters, and not these.
    assert set(made.state_dict()) == {*held[0], *held[1]}
    made.load_state_dict({k: v.clone() for k, v in made.state_dict().items()})
    near(made(features(), edges(), e), twin(features(), edges(), e))


def test_ties() -> None:
    model = nn.ModuleList([theirs.GCNConv(5, 5, bias=False), theirs.GCNConv(5, 5, bias=False), nn.Linear(5, 5)])
    model[1].lin = model[0].lin
    model[2].weight = model[0].lin.weight
    made: Any = convert(model)
    assert made[1].lin is made[0].lin and made[2].weight is made[0].lin.weight is model[0].lin.weight


def test_dtype_device_attributes_and_mode() -> None:
    layer = theirs.GATConv(5, 4).bfloat16().eval()
    layer.note, layer.dropout = {"by": "me"}, 0.25
    made = convert(layer)
    assert made.att_src.dtype == torch.bfloat16 and not made.training and not made.lin.training
    assert made.note == {"by": "me"} and made.dropout == 0.25
    gin = theirs.GINConv(nn.Sequential(nn.Linear(5, 4)), train_eps=True).to("meta")
    for empty in (convert(theirs.GATConv(5, 4).to("meta")), convert(gin)):
        assert is_ours(empty) and all(p.is_meta for p in empty.parameters())


CACHED: dict[str, Callable[[Any], Any]] = {
    "GCNConv": lambda n: n.GCNConv(4, 4, cached=True, improved=True),
    "GCNConv without loops": lambda n: n.GCNConv(4, 4, cached=True, add_self_loops=False),
    "GCNConv against the edges": lambda n: n.GCNConv(4, 4, cached=True, flow="target_to_source"),
    "APPNP": lambda n: n.APPNP(3, 0.1, cached=True),
    "GCN2Conv": lambda n: n.GCN2Conv(4, 0.1, cached=True),
    "DNAConv": lambda n: n.DNAConv(4, 2, cached=True),
    "FAConv": lambda n: n.FAConv(4, cached=True),
    "EGConv": lambda n: n.EGConv(4, 4, num_heads=2, cached=True),
    "EGConv of means": lambda n: n.EGConv(4, 4, ["mean"], num_heads=2, cached=True),
    "SGConv": lambda n: n.SGConv(4, 4, 2, cached=True),
    "SSGConv": lambda n: n.SSGConv(4, 4, 0.1, 2, cached=True),
}


@pytest.mark.parametrize("name", CACHED)
def test_what_a_layer_has_kept(name: str) -> None:
    """After the first call torch_geometric's layer sees no other graph, and neither does ours in its place."""
    old = CACHED[name](theirs).double()
    x = features(4)
    first = {"DNAConv": (x.view(N, 1, 4).expand(N, 3, 4),), "FAConv": (x, 2 * x), "GCN2Conv": (x, 2 * x)}.get(
        name, (x,)
    )
    loop_free = edges()[:, edges()[0] != edges()[1]]
    kept = old(*first, loop_free)
    made = convert(old)
    for part in made.modules():
        part.backend = "torch"
    assert is_ours(made)
    for again in (made, copy.deepcopy(made)):
        near(again(*first, edges(5)), kept)
        near(again(*first, edges(6)), kept)
    if name == "FAConv":
        alphas = [layer(*first, edges(5), return_attention_weights=True)[1][1] for layer in (old, made)]
        assert alphas[0].shape == alphas[1].shape
    made.reset_parameters()
    old.reset_parameters()
    made.load_state_dict(old.state_dict())
    near(made(*first, edges(5)), old(*first, edges(5)))


def test_what_a_layer_has_kept_under_torch_compile() -> None:
    old = theirs.GCNConv(4, 4, cached=True).double()
    kept = old(features(4), edges())
    made = convert(old)
    with pytest.raises(Exception, match="call it once uncompiled"):
        torch.compile(made, backend="eager", fullgraph=True)(features(4), edges(5))
    torch._dynamo.reset()
    compiled = torch.compile(made, backend="eager")
    for seed in (5, 6):
        near(compiled(features(4), edges(seed)), kept)


def test_a_layer_that_stays_keeps_its_parts() -> None:
    layer = theirs.GCNConv(5, 4)
    layer.register_message_forward_hook(lambda *args: None)
    made = convert(nn.ModuleList([layer]))
    assert type(made[0].lin) is theirs.Linear and type(made[0].aggr_module) is theirs.SumAggregation


def test_a_part_that_stays_holds_its_layer() -> None:
    layer = theirs.SAGEConv(5, 4)
    layer.lin_l.weight = nn.Parameter(torch.zeros(4, 7))
    reasons = ours.convertible(layer).left
    assert "part `lin_l`" in reasons[""].reason or "shape" in reasons[""].reason
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert convert(layer) is not layer


def test_methods_of_one_object_s_own_stay() -> None:
    for name in ("forward", "message"):
        layer = theirs.GCNConv(5, 4)
        setattr(layer, name, lambda *args, **kwargs: None)
        assert f"`{name}` is another one" in ours.convertible(layer).left[""].reason


def test_lists_and_hooks_of_a_copy() -> None:
    model = net()
    model.order.append(model.order)  # type: ignore[arg-type]
    model.register_load_state_dict_pre_hook(lambda module, *args: seen.append(module))
    seen: list[Any] = []
    made = convert(model)
    assert made.order[0] is made.own
    made.load_state_dict(made.state_dict())
    assert seen == [made]


def test_what_was_changed_after_it_was_made() -> None:
    """A layer that its arguments would not make is no layer that we know."""
    layer = theirs.GATConv(5, 4, heads=2)
    layer.heads = 3
    assert "att_src" in ours.convertible(layer).left[""].reason
    layer = theirs.GCNConv(5, 4)
    layer.extra = nn.Parameter(torch.ones(1))
    assert "extra" in ours.convertible(layer).left[""].reason
