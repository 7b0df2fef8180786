"""Same constructor, same state, same words, same numbers: a layer of gdsl.nn against torch_geometric's of that name.

A family of layers has a table of :class:`Case` and calls :func:`make_tests`, which makes its tests.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import gdsl
import gdsl.nn
from tests.programs import harness

pyg = pytest.importorskip("torch_geometric.nn")

NODES, TARGETS, EDGES, IN, IN_TARGET, EDGE, RELATIONS = 9, 6, 24, 5, 3, 3, 3
Values = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A class and the calls that are compared.

    layer:    the name of the class, here and there
    args:     of the constructor; a callable makes a module afresh, for each of the two
    kwargs:   of the constructor, in all calls; callables as in ``args``
    options:  for each further argument, values to try besides leaving it out: each by itself on the reference, and some
              of their combinations, which hypothesis draws
    compiled: option values of the run of the generated C++, by default for the first case of a class
    x:        what comes first: "x" [N, 5], "pair" ([N, 5], [M, 3]), "equal pair" ([N, 5], [M, 5]), "source" ([N, 5],
              None), or any kind of ``KINDS``
    then:     kinds of the arguments between the features and the graph
    call:     further arguments of the call: name -> kind
    graph:    "any", "symmetric", "loop-free", "knn" or "mesh" (3 or 4 edges into each node), or None for no graph
    exact:    how near float64 comes
    half:     how near bfloat16 comes to it
    strict:   whether the repr must be the same
    drawn:    parameters that torch_geometric forgets to draw, here or in ``reset_parameters``
    """

    layer: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    compiled: Mapping[str, Any] = field(default_factory=dict)
    x: str = "x"
    then: tuple[str, ...] = ()
    call: Mapping[str, str] = field(default_factory=dict)
    graph: str | None = "any"
    exact: float = 1e-9
    half: float = 0.1
    strict: bool = True
    drawn: tuple[str, ...] = ()
    note: str = ""

    @property
    def id(self) -> str:
        return " ".join(part for part in (self.layer, self.x if self.x != "x" else "", *self.call, self.note) if part)


# What the first object of a class of torch_geometric's is like decides for all later ones whether sparse matrices are
# multiplied: one with aggr="lstm" would leave the others without. So each gets a plain first one.
for _name in ("SAGEConv", "GraphConv"):
    getattr(pyg, _name)(1, 1)


def floats(*shape: int) -> Callable[[torch.Generator, int], Tensor]:
    """A kind: normal numbers of this shape."""
    return lambda g, edges: torch.randn(*shape, generator=g, dtype=torch.float64)


# The rows of a kind: of nodes, or of edges; -1 stands for the number of edges.
KINDS: dict[str, Callable[[torch.Generator, int], Any]] = {
    "x": floats(NODES, IN),
    "x3": floats(3, NODES, IN),
    "pos": floats(NODES, 3),
    "normal": lambda g, e: torch.nn.functional.normalize(
        torch.randn(NODES, 3, generator=g, dtype=torch.float64), dim=1
    ),
    "pair": lambda g, e: (floats(NODES, IN)(g, e), floats(TARGETS, IN_TARGET)(g, e)),
    "equal pair": lambda g, e: (floats(NODES, IN)(g, e), floats(TARGETS, IN)(g, e)),
    "source": lambda g, e: (floats(NODES, IN)(g, e), None),
    "pos pair": lambda g, e: (floats(NODES, 3)(g, e), floats(TARGETS, 3)(g, e)),
    "lambda": lambda g, e: torch.rand((), generator=g, dtype=torch.float64) + 1.5,
    "lambdas": lambda g, e: torch.rand(2, generator=g, dtype=torch.float64) + 1.5,
    "batch": lambda g, e: torch.arange(NODES) // 5,
    "w": lambda g, e: torch.rand(e, generator=g, dtype=torch.float64) + 0.1,
    "e": lambda g, e: torch.randn(e, EDGE, generator=g, dtype=torch.float64),
    "e5": lambda g, e: torch.randn(e, IN, generator=g, dtype=torch.float64),
    "unit": lambda g, e: torch.rand(e, 2, generator=g, dtype=torch.float64),
    "rel": lambda g, e: torch.randint(RELATIONS, (e,), generator=g),
    "kind": lambda g, e: torch.randint(2, (NODES,), generator=g),
    "none": lambda g, e: None,
    "true": lambda g, e: True,
}


def graph_of(kind: str | None, seed: int, bipartite: bool) -> Tensor | None:
    """Isolated nodes, nodes without in-edges, self-loops, parallel edges; never two loops at one node, see test_pyg."""
    g = torch.Generator().manual_seed(seed)
    if kind is None:
        return None
    if kind in ("knn", "mesh"):
        k = 3 if kind == "knn" else 4
        return torch.stack([torch.randint(NODES, (k * NODES,), generator=g), torch.arange(NODES).repeat_interleave(k)])
    source = torch.randint(NODES - 1, (EDGES,), generator=g)
    target = torch.randint((TARGETS if bipartite else NODES) - 1, (EDGES,), generator=g)
    edges = torch.stack([source, target])
    edges[:, -1] = edges[:, 0]  # parallel
    loop = edges[0] == edges[1]
    if kind == "loop-free":
        return edges[:, ~loop]
    first = torch.zeros_like(loop)
    for node in edges[0, loop].unique():
        first[int(((edges[0] == node) & loop).nonzero()[0])] = True
    edges = edges[:, ~loop | first]
    return (
        torch.cat([edges[:, ~(edges[0] == edges[1])], edges[:, ~(edges[0] == edges[1])].flip(0)], 1)
        if (kind == "symmetric")
        else edges
    )


def build(case: Case, namespace: Any, options: Mapping[str, Any]) -> nn.Module:
    """The layer, in float64, evaluation mode. Modules among the arguments are made afresh with the same weights."""
    torch.manual_seed(3)
    args = [a() if callable(a) else a for a in case.args]
    kwargs = {k: v() if callable(v) else v for k, v in {**case.kwargs, **options}.items()}
    return getattr(namespace, case.layer)(*args, **kwargs).double().eval()


def pair(case: Case, options: Mapping[str, Any]) -> tuple[nn.Module, nn.Module] | None:
    """Ours and theirs with the same weights; None where both refuse the arguments, in the same way."""
    try:
        theirs = build(case, pyg, options)
    except (ValueError, RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        with pytest.raises(type(error)):
            build(case, gdsl.nn, options)
        return None
    ours = build(case, gdsl.nn, options)
    return ours, theirs


def same_state(case: Case, ours: nn.Module, theirs: nn.Module) -> None:
    """The same names in the same order and the same shapes, and each loads what the other saves."""
    mine, other = ours.state_dict(), theirs.state_dict()
    assert {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in other.items()}
    with torch.no_grad():  # zeros hide mistakes
        for k, p in enumerate(theirs.parameters()):
            if not bool(p.any()):
                p.uniform_(-1, 1, generator=torch.Generator().manual_seed(k))
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    if case.strict:
        assert repr(ours) == repr(theirs)


def same_draws(case: Case) -> None:
    """From the same seed the same parameters, at first and from ``reset_parameters``: so are the distributions."""
    made = pair(case, {})
    if made is None:
        return
    for again in (False, True):
        for layer in made if again and hasattr(made[1], "reset_parameters") else ():
            torch.manual_seed(4)
            layer.reset_parameters()
        ours, theirs = (layer.state_dict() for layer in made)
        for name, value in theirs.items():
            assert name in case.drawn or torch.equal(ours[name], value), f"{name} starts otherwise"


def flat(result: Any) -> list[Tensor]:
    """All tensors of a result, in order."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, dict):
        return [t for part in result.values() for t in flat(part)]
    return [t for part in result for t in flat(part)] if isinstance(result, tuple | list) else []


def leaves(value: Any) -> Any:
    """A copy whose float tensors want gradients."""
    if isinstance(value, Tensor):
        return value.clone().requires_grad_(value.is_floating_point())
    return tuple(leaves(v) for v in value) if isinstance(value, tuple) else value


def outcome(layer: nn.Module, first: tuple[Any, ...], graph: Tensor | None, values: Values) -> dict[str, Tensor]:
    """Outputs, and gradients of a mix of them by every input and parameter."""
    first, values = leaves(first), {k: leaves(v) for k, v in values.items()}
    outputs = flat(layer(*first, *(() if graph is None else (graph,)), **values))
    wanted: dict[str, Tensor] = {
        f"d/dinput {k}": t for k, t in enumerate(flat([*first, *values.values()])) if t.requires_grad
    }
    wanted |= {f"d/d{name}": p for name, p in layer.named_parameters() if p.requires_grad}
    floats = [o for o in outputs if o.is_floating_point() and o.requires_grad]
    found = {f"output {k}": o.detach() for k, o in enumerate(outputs)}
    if floats and wanted:
        score = sum((harness._weights(o.double(), 0.7) * o).sum() for o in floats)
        grads = torch.autograd.grad(score, list(wanted.values()), allow_unused=True)
        found |= {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(wanted.items(), grads, strict=True)}
    return found


def compare(case: Case, options: Mapping[str, Any], backend: str, seeds: Sequence[int] = (1, 2)) -> None:
    """Fails where state, words, outputs or gradients differ."""
    made = pair(case, options)
    if made is None:
        return
    ours, theirs = made
    same_state(case, ours, theirs)
    set_backend(ours, backend)
    for seed in seeds:
        first, graph, values = draw(case, seed)
        try:
            expected = outcome(theirs, first, graph, values)
        except (ValueError, AssertionError, NotImplementedError) as error:
            with pytest.raises(type(error)):
                outcome(ours, first, graph, values)
            continue
        found = outcome(ours, first, graph, values)
        assert found.keys() == expected.keys()
        for part, value in expected.items():
            assert found[part].shape == value.shape, f"{part}: {list(found[part].shape)}, not {list(value.shape)}"
            gap = harness.difference([found[part].double()], [value.double()])
            assert gap < case.exact, f"{backend}, graph {seed}, {dict(options)}: {part} is {gap:.1e} off"


def draw(case: Case, seed: int) -> tuple[tuple[Any, ...], Tensor | None, Values]:
    """Features, graph and further arguments of a call."""
    g = torch.Generator().manual_seed(seed)
    graph = graph_of(case.graph, seed, "pair" in case.x)
    edges = 0 if graph is None else graph.shape[1]
    first = tuple(KINDS[kind](g, edges) for kind in (case.x, *case.then))
    return first, graph, {name: KINDS[kind](g, edges) for name, kind in case.call.items()}


def set_backend(layer: nn.Module, backend: str) -> None:
    """For the layer and every layer inside it."""
    for part in layer.modules():
        if hasattr(part, "backend"):
            part.backend = backend


def single(case: Case) -> list[dict[str, Any]]:
    """The plain layer, and each option by itself."""
    return [{}, *({name: value} for name, values in case.options.items() for value in values)]


def make_tests(cases: Sequence[Case]) -> dict[str, Callable[..., None]]:
    """The tests of a family, to be put into its module: ``globals().update(make_tests(CASES))``."""
    each = [
        pytest.param(case, options, id=f"{case.id} {' '.join(f'{k}={_word(v)}' for k, v in options.items())}".strip())
        for case in cases
        for options in single(case)
    ]
    whole = [pytest.param(case, id=case.id) for case in cases]
    # A kernel takes a second to compile: by default one call of each class.
    first = {case.layer: case for case in reversed(cases)}
    compiled = [
        pytest.param(case, id=case.id, marks=[] if first[case.layer] is case else pytest.mark.slow) for case in cases
    ]
    many = [
        pytest.param(case, id=case.id, marks=[] if first[case.layer] is case else pytest.mark.slow)
        for case in cases
        if len(case.options) > 1
    ]

    @pytest.mark.parametrize(("case", "options"), each)
    def test_each_option(case: Case, options: Mapping[str, Any]) -> None:
        compare(case, options, "torch")

    @pytest.mark.parametrize("case", compiled)
    def test_generated_code(case: Case) -> None:
        compare(case, case.compiled, "cpp", (1,))

    @pytest.mark.parametrize("case", compiled)
    def test_same_draws(case: Case) -> None:
        same_draws(case)

    @pytest.mark.parametrize("case", many)
    def test_combinations(case: Case) -> None:
        choices = st.fixed_dictionaries(
            {}, optional={name: st.sampled_from(list(values)) for name, values in case.options.items()}
        )

        @settings(
            max_examples=4, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(choices)
        def run(options: Mapping[str, Any]) -> None:
            compare(case, options, "torch", (1,))

        run()

    @pytest.mark.slow
    @pytest.mark.parametrize("case", whole)
    def test_interpreted_gpu_kernels(case: Case) -> None:
        compare(case, case.compiled, "triton", (1,))

    @pytest.mark.parametrize("case", whole)
    @pytest.mark.parametrize(
        "backend", ["torch", *(pytest.param(b, marks=pytest.mark.slow) for b in ("cpp", "triton"))]
    )
    def test_bfloat16(case: Case, backend: str) -> None:
        half_precision(case, backend)

    return {
        "test_each_option": test_each_option,
        "test_generated_code": test_generated_code,
        "test_same_draws": test_same_draws,
        "test_combinations": test_combinations,
        "test_interpreted_gpu_kernels": test_interpreted_gpu_kernels,
        "test_bfloat16": test_bfloat16,
    }


def half_precision(case: Case, backend: str) -> None:
    """bfloat16 in and out, near the float64 result."""
    made = pair(case, {})
    assert made is not None
    ours, theirs = made
    set_backend(ours, backend)
    first, graph, values = draw(case, 1)
    if refused(theirs, first, graph, values):
        return
    # Numbers that bfloat16 has, so that nothing but the computation is rounded.
    first, values = rounded(first), {k: rounded(v) for k, v in values.items()}
    ours.load_state_dict({k: rounded(v) for k, v in ours.state_dict().items()})
    expected = outcome(ours, first, graph, values)
    found = outcome(ours.bfloat16(), halved(first), graph, {k: halved(v) for k, v in values.items()})
    for part, value in expected.items():
        if value.is_floating_point():
            assert found[part].dtype == torch.bfloat16
            gap = harness.difference([found[part].double()], [value])
            assert gap < case.half, f"{part} is {gap:.2f} off"


def refused(layer: nn.Module, first: tuple[Any, ...], graph: Tensor | None, values: Values) -> bool:
    """Whether a call is one that torch_geometric does not take."""
    try:
        layer(*first, *(() if graph is None else (graph,)), **values)
    except (ValueError, AssertionError, NotImplementedError):
        return True
    return False


def rounded(value: Any) -> Any:
    """Float tensors with numbers that bfloat16 has."""
    if isinstance(value, Tensor):
        return value.bfloat16().to(value.dtype) if value.is_floating_point() else value
    return tuple(rounded(v) for v in value) if isinstance(value, tuple) else value


def halved(value: Any) -> Any:
    """Float tensors in bfloat16."""
    if isinstance(value, Tensor):
        return value.bfloat16() if value.is_floating_point() else value
    return tuple(halved(v) for v in value) if isinstance(value, tuple) else value


def _word(value: Any) -> str:
    return getattr(value, "__name__", None) or str(value).replace("\n", "")


def mlp(*sizes: int) -> Callable[[], nn.Module]:
    """A maker of a perceptron with ReLUs between."""

    def make() -> nn.Module:
        pairs = list(itertools.pairwise(sizes))
        parts = [part for a, b in pairs for part in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*parts[:-1])

    return functools.wraps(mlp)(make)
