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
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import gdsl
import gdsl.nn as ours
from gdsl.nn.conversion.twins import kind_of

theirs: Any = pytest.importorskip("torch_geometric.nn")

N = 9


def edges(seed: int = 1) -> Tensor:
    return torch.randint(N, (2, 30), generator=torch.Generator().manual_seed(seed))


def features(size: int = 5, seed: int = 2) -> Tensor:
    return torch.randn(N, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def convert(model: nn.Module, **options: Any) -> Any:
    return ours.convert(model, verbose=False, **options)


def is_ours(module: nn.Module) -> bool:
    return kind_of(module).__module__.startswith("gdsl.")


def near(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


class Mine(theirs.MessagePassing):  # type: ignore[misc]
    """A layer of a user's own."""

    def __init__(self, size: int):
        super().__init__()
        self.lin = theirs.Linear(size, size)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        result: Tensor = self.propagate(edge_index, x=self.lin(x))
        return result

    def message(self, x_j: Tensor) -> Tensor:
        return x_j.tanh()


class Scaled(theirs.GCNConv):  # type: ignore[misc]
    """A layer of torch_geometric's with a message of a user's own."""

    def message(self, x_j: Tensor, edge_weight: Tensor) -> Tensor:
        return 2 * edge_weight.view(-1, 1) * x_j


class Net(nn.Module):
    """Layers of all sorts, one of them twice, and lists and methods that modules keep besides their parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = theirs.GCNConv(5, 5)
        self.own = Mine(5)
        self.scaled = Scaled(5, 5)
        gin = theirs.GINConv(nn.Sequential(nn.Linear(5, 5), nn.ReLU(), theirs.Linear(5, 5)))
        self.convs = nn.ModuleList([gin, self.first])
        self.norm = theirs.BatchNorm(5)
        self.readout = theirs.MeanAggregation()
        self.order = [self.own, self.scaled]
        self.act = self.squashed

    def squashed(self, x: Tensor) -> Tensor:
        return self.norm(x).tanh()  # type: ignore[no-any-return]

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.act(self.first(x, edge_index))
        for conv in self.order:
            x = conv(x, edge_index)
        for conv in self.convs:
            x = conv(x, edge_index)
        return self.readout(x)  # type: ignore[no-any-return]


def net() -> Net:
    torch.manual_seed(0)
    return Net().double()


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


# -- the sample ----------------------------------------------------------------------------------


def test_a_sample_changes_nothing() -> None:
    model = net()
    model.first.cached = True
    state = copy.deepcopy(model.state_dict())
    draws = torch.get_rng_state()
    convert(model, sample=(features(), edges()))
    assert torch.equal(draws, torch.get_rng_state())
    assert model.training and all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert model.first._cached_edge_index is None and all(p.grad is None for p in model.parameters())
    convert(theirs.Linear(2, 2).double(), sample=torch.ones(1, 2, dtype=torch.float64))
    convert(theirs.GCNConv(5, 2).double(), sample={"edge_index": edges(), "x": features()})


class Apart(nn.Module):
    """A model that knows whose its layer is: not the same before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = theirs.GCNConv(5, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        y: Tensor = self.conv(x, edge_index)
        return y + 0.5 * y.square() if isinstance(self.conv, ours.GCNConv) else y


@pytest.mark.parametrize("inplace", [False, True])
def test_a_difference_is_an_error(inplace: bool) -> None:
    model = Apart().double()
    with pytest.raises(gdsl.InputError) as error:
        convert(model, sample=(features(), edges()), inplace=inplace)
    for words in ("output is ", "off at [", "the gradient of conv.lin.weight", "the gradient of argument 0"):
        assert words in str(error.value)
    assert type(model.conv) is theirs.GCNConv, "nothing is changed"
    convert(model, sample=(features(), edges()), tolerance=1e3)


class Wide(Apart):
    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        y: Tensor = self.conv(x, edge_index)
        return (y, y[:1]) if isinstance(self.conv, ours.GCNConv) else (y, y.float())


def test_other_shapes_and_dtypes_are_an_error() -> None:
    with pytest.raises(gdsl.InputError, match=r"output\[1\] is float64\[1, 4\], and was float32\[9, 4\]"):
        convert(Wide().double(), sample=(features(), edges()))


def test_what_is_recomputed_has_no_gradients_to_compare() -> None:
    def make(**options: Any) -> nn.Module:
        return theirs.DeepGCNLayer(theirs.GCNConv(5, 5), nn.LayerNorm(5), nn.ReLU(), **options).double()

    with pytest.raises(gdsl.InputError, match=r"torch\.utils\.checkpoint.* leave `sample` out"):
        convert(make(ckpt_grad=True).train(), sample=(features(), edges()))
    assert is_ours(convert(make(ckpt_grad=True)))
    convert(make(), sample=(features(), edges()))


def test_noise_is_no_difference() -> None:
    """In float32 a gradient that is 0 in exact numbers is the rest of larger ones."""
    torch.manual_seed(0)
    model = theirs.GAT(5, 8, 3, 2, heads=2)
    for seed in range(3):
        convert(model, sample=(features(seed=seed).float(), edges(seed)))


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


# -- wrappers ------------------------------------------------------------------------------------


def test_compiled() -> None:
    model = nn.Sequential(theirs.MLP([5, 4, 3], norm=None)).double()
    compiled = torch.compile(model, backend="eager")
    wanted = model(features())
    made = convert(compiled)
    assert type(made) is type(compiled) and made is not compiled and is_ours(made._orig_mod[0])
    assert not is_ours(model[0])
    near(made(features()), wanted)
    assert convert(compiled, inplace=True) is compiled and is_ours(model[0])
    near(compiled(features()), wanted)
    layer: Any = torch.compile(theirs.GCNConv(5, 4), backend="eager")
    assert is_ours(convert(layer, inplace=True)._orig_mod) and not is_ours(layer._orig_mod)


def test_compiled_by_themselves() -> None:
    model = nn.Sequential(theirs.MLP([5, 4, 3], norm=None), theirs.Linear(3, 2)).double()
    model.compile(backend="eager")
    model[1].compile(backend="eager")
    report = ours.convertible(model)
    assert list(report.replaced) == ["0"] and "convert it before" in report.left["1"].reason
    wanted = model(features())
    for inplace in (False, True):
        made = convert(model, inplace=inplace)
        assert is_ours(made[0]) and not is_ours(made[1])
        near(made(features()), wanted)


def test_data_parallel() -> None:
    model = nn.DataParallel(net())
    made = convert(model, sample=(features(), edges()))
    assert type(made) is nn.DataParallel and is_ours(made.module.first) and not is_ours(model.module.first)


def test_distributed(tmp_path: Any) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(net())
        twin = net()
        with pytest.raises(gdsl.InputError, match="inplace=True"):
            convert(model)
        convert(model, inplace=True, sample=(features(), edges()))
        assert is_ours(model.module.first)
        for one in (model, twin):
            one(features(), edges()).sum().backward()
        near([p.grad for p in model.module.parameters()], [p.grad for p in twin.parameters()])
    finally:
        dist.destroy_process_group()


class FullyShardedDataParallel(nn.Module):
    """Known by its name."""


def test_sharded() -> None:
    with pytest.raises(gdsl.InputError, match="sharded"):
        convert(FullyShardedDataParallel())


def test_scripted() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(5, 5)))
    model = nn.ModuleList([scripted, theirs.GCNConv(5, 5)])
    report = ours.convertible(model)
    assert list(report.replaced) == ["1"] and convert(model)[0] is scripted


def test_several_types() -> None:
    def make() -> Any:
        torch.manual_seed(0)
        convs = {
            ("a", "to", "b"): theirs.SAGEConv((5, 5), 4),
            ("b", "of", "a"): theirs.GATConv((5, 5), 4, add_self_loops=False),
            ("a", "is", "a"): Mine(5),
        }
        return theirs.HeteroConv(convs).double()

    model, twin = make(), make()
    made = convert(model)
    assert type(made) is ours.HeteroConv and list(made.state_dict()) == list(twin.state_dict())
    x = {"a": features(), "b": features(seed=4)}
    edge_index = {key: edges(k) for k, key in enumerate([("a", "to", "b"), ("b", "of", "a")])}
    near(made(x, edge_index), twin(x, edge_index))


def test_models_made_for_several_types() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = theirs.SAGEConv((5, 5), 4), theirs.SAGEConv((4, 4), 3)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.b(self.a(x, edge_index).relu(), edge_index)  # type: ignore[no-any-return]

    metadata = (["u", "v"], [("u", "to", "v"), ("v", "to", "u")])
    model = theirs.to_hetero(Two(), metadata, aggr="sum").double()
    made = convert(model)
    assert len(ours.convertible(model).replaced) == 4 and sum(map(is_ours, made.modules())) >= 4
    x = {"u": features(), "v": features(seed=3)}
    edge_index = {("u", "to", "v"): edges(1), ("v", "to", "u"): edges(2)}
    near(made(x, edge_index), model(x, edge_index))
    assert not any(map(is_ours, model.modules()))


def test_a_frame_of_torch_geometric_s() -> None:
    """What gdsl.nn has not, around layers that it has."""
    model = theirs.GroupAddRev(theirs.SAGEConv(2, 2), num_groups=2).double()
    assert set(ours.convertible(model).replaced) == {"convs.0", "convs.1"}
    near(convert(model)(features()[:, :4], edges(1)), model(features()[:, :4], edges(1)))


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
