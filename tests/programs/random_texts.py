"""Random programs of the language as text: a hypothesis strategy for whole layers, and for graphs to run them on.

Every domain, operator, function, reducer and statement of the language can come up, in any well-typed combination.
The writer keeps its own account of domains and dims, so that a program that the checker refuses is a finding too.
Values stay tame: what could blow up is squashed, and no step stands where rounding would decide it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import gdsl
from gdsl.ir.types import Domain, Kind
from gdsl.language.dims import factor_dim, one_name, paired, plainest, related, variants
from gdsl.language.sizes import Size
from tests.typed import typed_of


def _table(text: str) -> tuple[str, ...]:
    return tuple(" ".join(entry.split()) for entry in text.split("|"))


BASE = {"a": 3, "b": 2, "c": 4}
SIZES = {**BASE, "R": 3, "K": 2, "free": 3, "9": 9}
MAX_DIMS, MAX_NUMBERS = 3, 60

# Steps (floor, sign, mod, comparisons) stand away from 0: values that cancel are 0 or nearly so.
UNARY = _table("""
    tanh({}) | 0.5 * {} | {} + 0.3 | -{} | sigmoid({}) | sin({}) | cos({}) | erf({}) | relu({}) | leaky_relu({}, 0.2) |
    leaky_relu({}, slope = 0.1) | elu({}) | elu({}, 0.7) | selu(tanh({})) | gelu({}) | silu({}) | softplus({}) |
    log_sigmoid({}) | abs({} + 0.21) | exp(tanh({})) | expm1(tanh({})) | log(1.5 + tanh({})) | log1p(sigmoid({})) |
    sqrt(1.2 + tanh({})) | rsqrt(1.2 + tanh({})) | acos(0.8 * tanh({})) | sign({} + 0.137) | floor(2.1 * {} + 0.37) |
    mod({} + 0.31, 0.7) | pow(1.3 + tanh({}), 1.4) | (1.4 + tanh({})) ** 0.5 | (1.4 + tanh({})) ** -0.5 |
    tanh({}) ** 2 | tanh({}) ** 3 | (1.3 + tanh({})) ** -1.2 | clamp({}, -0.4, 0.6) |
    clamp({}, low = -0.3, high = 0.9) | where({} < 0.213, 0.4, 1.2) | 1 / (1.6 + tanh({})) |
    max({}, 0.117) | min({}, 0.219, 0.7) | dropout({}, 0.3) | dropout({}, p = 0.0)
""")
BINARY = _table("""
    {} + {} | {} * {} | {} - {} | {} / (1.5 + tanh({})) | max({}, {} + 0.017) | min({}, 0.9 * {} + 0.013) |
    max({}, {}, 0.3) | atan2({}, 1.2 + tanh({})) | pow(1.4 + tanh({}), tanh({})) | (1.4 + sin({})) ** sin({}) |
    sigmoid({}) * {} | where({} < 0.213, {}, 0.3) | where({} > -0.147 and {} <= 0.613, 0.2, 1.1) |
    where(not ({} >= 0.153) or {} > 0.31, -0.2, 0.4) | where({} < {} + 0.0713, 1, 0) | ({} > 0.0917) * {}
""")
# Those of them in which dims of one part may stand beside dims of the other.
PRODUCTS = _table("""
    {} * {} | {} / (1.5 + tanh({})) | pow(1.4 + tanh({}), tanh({})) | (1.4 + sin({})) ** sin({}) | sigmoid({}) * {} |
    ({} > 0.0917) * {}
""")
OVER_DIMS = _table("""
    0.5 * sum[{d}]({x}) | mean[{d}]({x}) | max[{d}]({x}) | min[{d}]({x}) | norm[{d}]({x} + 1.3) | var[{d}]({x}) |
    logsumexp[{d}]({x}) | mul[{d}](0.8 + 0.1 * tanh({x}))
""")
REDUCERS = _table("""
    0.4 * sum({}) | mean({}) | max({}) | min({}) | var({}) | mul(0.8 + 0.1 * tanh({})) | tanh(logsumexp({}))
""")
ORDERED = _table("median({}) | quantile({}, 0.3) | quantile({}, q = 0.81)")
FUNCTIONS = _table("tanh(0.7 * z + 0.1 * t) | z * sigmoid(t) | where(z < 0.213, t, 0.3 * z) | 0.5 * (z + t) + sin(z)")
FOLDS = (
    ("acc, m", "acc + tanh(m)", "0"),
    ("acc, m", "acc * (0.9 + 0.1 * tanh(m))", "1"),
    ("acc, m", "max(acc, m)", "-0.213"),
    ("acc, m", "where(m > 0.113, acc + tanh(m), acc)", "0.5"),
    ("acc, m, t", "0.8 * acc + tanh(m) * sigmoid(t)", "0.1"),
)
GRAPHS = ("random", "one_node", "no_edges", "no_nodes", "self_loops", "parallel", "isolated", "hub", "dense")


# Layers that programs call, by the dims of their input; what has one dim is multiplied by a table of the caller's.
CALLED = """layer Called{count}(strength = 0.5) {{
    param s{dims} ~ normal
    node x{dims}
    edge w = 1
    aggregate near = sum(tanh(w * x[j] * s))
    update y = strength * x + 0.3 * near
    return y, near
}}
"""
DIMS_OF_CALLED = ("", "[p]", "[p, q]")


@dataclass(frozen=True)
class Value:
    """A value of the program: how it is written, where it lives, its dims in no order."""

    text: str
    domain: str = "global"
    dims: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Case:
    """A program, and what to run it with.

    modules: name, numbers in and out, and whether the program can read the module
    """

    text: str
    graph: str
    training: bool = False
    passed: frozenset[str] = frozenset()
    modules: tuple[tuple[str, int, int, bool], ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()

    def layer(self, backend: str, readable: bool = False) -> gdsl.Layer:
        """The layer with float64 parameters that differ from each other; ``readable``: with no opaque module."""
        torch.manual_seed(0)
        last = re.findall(r"^layer (\w+)", self.text, re.M)[-1]
        modules = {name: _module(m, n, readable or clear) for name, m, n, clear in self.modules}
        made = gdsl.compile(self.text, layer=last, backend=backend, **dict(self.arguments), **modules).double()
        with torch.no_grad():
            for p in made.parameters():
                p.copy_(0.6 * torch.randn_like(p))
        return made.train(self.training)


class Opaque(nn.Module):
    """A module that the program cannot read: it runs as it is."""

    def __init__(self, inside: nn.Module):
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x)


def _module(inside: int, outside: int, readable: bool) -> nn.Module:
    made = nn.Sequential(nn.Linear(inside, outside), nn.Tanh())
    return made if readable else Opaque(made)


@dataclass
class Writer:
    """Writes one statement after another. ``draw`` makes every choice; what stands first in a table is simplest."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    bipartite: bool = False
    builds_graph: bool = False
    complete: bool = False  # no value of its edges is stored, and they have no order
    pools: bool = False
    head: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    hops: list[str] = field(default_factory=list)
    layers: dict[frozenset[str], str] = field(default_factory=dict)
    modules: list[tuple[str, int, int, bool]] = field(default_factory=list)
    given: list[tuple[str, Any]] = field(default_factory=list)
    sizes: dict[str, tuple[Size, int]] = field(default_factory=dict)
    products: dict[str, tuple[str, str]] = field(default_factory=dict)
    integers: list[Value] = field(default_factory=list)
    count: int = 0
    pooling: bool = False
    degree: int | None = None

    # --------------------------------------------------------------------------------- choices

    def pick(self, options: Iterable[Any]) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def chance(self, percent: int) -> bool:
        return self.draw(st.integers(0, 99)) >= 100 - percent

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    @property
    def rows(self) -> tuple[str, ...]:
        return ("target", "source") if self.bipartite else ("node",)

    def ends(self, domain: str) -> str:
        """The ends at which a value of this domain can be read, or an aggregate into it stands."""
        return {"node": "ij", "source": "j", "target": "i"}[domain]

    # ------------------------------------------------------------------------------------ dims

    def size(self, dim: str) -> tuple[Size, int]:
        if dim not in self.sizes:
            self.sizes[dim] = Size.symbol(dim), SIZES[dim.rstrip("'")]
        return self.sizes[dim]

    def numbers(self, dims: Iterable[str]) -> int:
        return math.prod(self.size(d)[1] for d in dims)

    def some_dims(self, most: int = 2) -> list[str]:
        return self.draw(st.lists(st.sampled_from([*BASE]), max_size=most, unique=True))

    def declarable(self, dims: Iterable[str]) -> bool:
        """Whether a param may have these dims: the call gives the size of ``free``."""
        return not any("free" in d for d in dims)

    def tame(self, x: Value) -> Value:
        """At most so many dims and numbers a row."""
        dims = sorted(x.dims)
        while len(dims) > MAX_DIMS or self.numbers(dims) > MAX_NUMBERS:
            gone = dims.pop()
            x = Value(f"mean[{gone}]({x.text})", x.domain, x.dims - {gone})
        return x

    def last(self, x: Value, dim: str, first: bool = False) -> str:
        """The value's text with this dim as its last (or first) one."""
        rest = [d for d in sorted(x.dims) if d != dim]
        if not rest:
            return x.text
        order = [dim, *rest] if first else [*rest, dim]
        return f"transpose({x.text}, {', '.join(order)})"

    def fit(self, x: Value, dims: frozenset[str]) -> Value:
        """Without the dims that are not among these."""
        gone = sorted(x.dims - dims)
        return Value(f"mean[{', '.join(gone)}]({x.text})", x.domain, x.dims & dims) if gone else x

    # ------------------------------------------------------------------------------ expressions

    def param(self, dims: Iterable[str]) -> Value:
        name, dims = self.name("p"), list(dims)
        optional = self.chance(10)
        self.head.append(f"param {name}{_brackets(dims)} ~ normal(0.0, 0.5)" + " = none" * optional)
        self.given += [(name, True)] * optional
        return Value(name, "global", frozenset(dims))

    def join(self, template: str, *parts: Value) -> Value:
        """The template with the parts in its places, in brackets where it is no call."""
        domain = next((p.domain for p in parts if p.domain != "global"), "global")
        names = {} if template in PRODUCTS else one_name([list(p.dims) for p in parts])
        read = [frozenset(names.get(d, d) for d in p.dims) for p in parts]
        pairs = paired(read) is not None and (template not in PRODUCTS or related(*read))
        if pairs and self.chance(40):
            # Only the dims that a first one has: the others stand alone.
            first, *rest = parts
            return self.join(template, first, *(self.fit(p, first.dims) for p in rest))
        text = template.format(*(p.text for p in parts))
        if pairs:
            return self.tame(Value(f"outer({text})", domain, frozenset().union(*(p.dims for p in parts))))
        if not _is_call(text):
            text = f"({text})"
        return self.tame(Value(text, domain, frozenset().union(*read)))

    def expression(self, domain: str, depth: int | None = None) -> Value:
        """Something that lives in this domain, or everywhere."""
        depth = self.draw(st.integers(0, 3)) if depth is None else depth
        if depth <= 0:
            return self.leaf(domain)
        rule = self.pick(
            (
                self.unary,
                self.binary,
                self.over_dims,
                self.product,
                self.pair,
                self.shape,
                self.place,
                self.call,
                self.spline,
                self.geometry,
                self.over_pairs,
            )
        )
        return rule(domain, depth - 1)

    def leaf(self, domain: str) -> Value:
        known = [v for v in self.values if v.domain == domain]
        recent = [v for v in known[-3:] if v.text[0] in "mahv"]
        options: list[Callable[[], Value]] = [lambda: self.pick(known)] * (3 if known else 0)
        options += [lambda: self.pick(recent)] * (4 if recent else 0)
        if domain == "edge":
            options += [self.at_an_end] * 3
            if not self.bipartite and not self.complete:
                options += [lambda: self.over_pairs("edge", 0)] * 2
                options.append(lambda: Value(f"(0.2 * degree({self.pick(('ji', 'kj'))}))", "edge"))
        elif domain == "pair":
            options += [self.at_a_pair] * 5
        elif domain in self.rows:
            options += [lambda: self.degree_of(domain)]
            options += [] if self.pooling else [lambda: self.reduction(domain, 0)]
            graphs = [v for v in self.values if v.domain == "graph"]
            if graphs:
                options.append(lambda: self.at_graph(self.pick(graphs), domain))
        integers = [v for v in self.integers if v.domain == domain]
        if integers:
            options.append(lambda: self.by_integer(self.pick(integers)))
        everywhere = [v for v in self.values if v.domain == "global"]
        options += [lambda: self.pick(everywhere)] if everywhere else []
        options += [lambda: self.param(self.some_dims()), lambda: Value(self.pick(("0.7", "1", "-0.4", ".25", "3e-1")))]
        return self.pick(options)()

    def at_graph(self, u: Value, domain: str) -> Value:
        return Value(f"{u.text}[g]", domain, u.dims)

    def at_an_end(self) -> Value:
        rows = self.pick(self.rows)
        x = self.expression(rows, 1 if self.chance(30) else 0)
        return x if x.domain == "global" else Value(f"{x.text}[{self.pick(self.ends(rows))}]", "edge", x.dims)

    def at_a_pair(self) -> Value:
        x = self.expression("edge", 1 if self.chance(30) else 0)
        return x if x.domain == "global" else Value(f"{x.text}[{self.pick(('kj', 'ji'))}]", "pair", x.dims)

    def over_pairs(self, domain: str, depth: int) -> Value:
        """An edge value that is made of the pairs of each edge."""
        if domain != "edge" or self.bipartite or self.pooling or self.complete:
            return self.unary(domain, depth)
        x = self.expression("pair", depth)
        at = self.pick((" at ji", " at kj")) if x.domain == "global" else self.pick(("", " at ji", " at kj"))
        indices = [v for v in self.integers if v.domain == "pair"]
        if indices and "R" not in x.dims and len(x.dims) < MAX_DIMS and self.chance(20):
            found = self.reduced("0.4 * sum({})", x, f"{at} by {self.pick(indices).text}", "edge")
            return self.tame(Value(found.text, "edge", found.dims | {"R"}))
        if self.chance(25):
            return self.reduced(f"0.5 * sum(softmax({{0}}){at} * {{0}})", x, at, "edge")
        return self.reduced(self.pick(REDUCERS), x, at, "edge")

    def degree_of(self, domain: str) -> Value:
        return Value(f"(0.2 * degree({self.pick(self.ends(domain))}))", domain)

    def by_integer(self, index: Value) -> Value:
        if self.chance(30):
            return Value(f"one_hot({index.text})", index.domain, frozenset({"R"}))
        if self.chance(30):
            x = self.fit(self.leaf(index.domain), frozenset())
            table = self.param(["R", *self.some_dims()])
            # A number far from where it would be rounded the other way.
            at = f"int(floor(1.7 * {x.text}) + 0.5, R)"
            return Value(f"{table.text}[{at}]", x.domain, table.dims - {"R"}) if x.domain != "global" else table
        table = self.param(["R", *self.some_dims()])
        return Value(f"{table.text}[{index.text}]", index.domain, table.dims - {"R"})

    def unary(self, domain: str, depth: int) -> Value:
        template, x = self.pick(UNARY), self.expression(domain, depth)
        template = "tanh({})" if "dropout" in template and domain == "pair" else template
        # In training, dropout of a number is an edge value: it is the default of an edge input.
        return x if "dropout" in template and x.domain == "global" else self.join(template, x)

    def binary(self, domain: str, depth: int) -> Value:
        x, y, template = self.expression(domain, depth), self.expression(domain, depth), self.pick(BINARY)
        # A condition that is known now picks one of its values, and the dims of the other one go with it.
        decided = "where" in template and "global" in (x.domain, y.domain)
        return self.join("{} + {}" if decided else template, x, y)

    def over_dims(self, domain: str, depth: int) -> Value:
        x = self.expression(domain, depth)
        if not x.dims:
            return x
        d = self.pick(sorted(x.dims))
        if self.chance(15):
            return Value(f"{self.pick(('softmax', 'log_softmax'))}[{d}]({x.text})", x.domain, x.dims)
        if self.chance(10) and self.declarable([d]):
            return self.tame(Value(f"std[{d}]({x.text} + {self.param([d]).text})", x.domain, x.dims - {d}))
        every = ", ".join(sorted(x.dims)) if self.chance(20) else d
        text = self.pick(OVER_DIMS).format(d=every, x=x.text)
        return Value(text if _is_call(text) else f"({text})", x.domain, x.dims - set(every.split(", ")))

    def product(self, domain: str, depth: int) -> Value:
        """``x @ weight``: batch dims, and dims of the result, as they come."""
        x = self.expression(domain, depth)
        inner = [d for d in sorted(x.dims) if self.declarable([d])]
        if not inner:
            return x
        d = self.pick(inner)
        batch = [e for e in inner if e != d and self.chance(30)]
        new = [e for e in self.some_dims(1) if e not in x.dims]
        dims = self.draw(st.permutations([d, *batch, *new]))
        weight = self.table(dims) if self.chance(25) else self.param(dims)
        if self.chance(40):
            return self.tame(Value(f"sum[{d}]({weight.text} * {x.text})", x.domain, (x.dims | weight.dims) - {d}))
        return self.matmul(x, d, weight)

    def table(self, dims: Iterable[str]) -> Value:
        """Constant numbers, most of them 0, in the text or as an argument."""
        name, dims = self.name("k"), list(dims)
        numbers = self.draw(st.lists(st.sampled_from((0.0, 0.0, 0.5, -0.75)), min_size=1, max_size=5))
        whole = (numbers * self.numbers(dims))[: self.numbers(dims)]
        if self.chance(50):
            self.head.append(f"const {name}{_brackets(dims)} = [{', '.join(map(str, whole))}]")
        else:
            self.head.append(f"const {name}{_brackets(dims)}")
            self.given.append((name, torch.tensor(whole).view([self.size(d)[1] for d in dims])))
        return Value(name, "global", frozenset(dims))

    def matmul(self, x: Value, d: str, y: Value) -> Value:
        """``x @ y`` over a dim of x."""
        names = variants(y.dims, d)
        if len(names) > 1 and len(variants(x.dims, d)) == 1 and d != plainest(names):
            # `@` might take it for another name of the dim, or refuse to choose.
            text, gone = f"sum[{d}](outer({x.text}, {y.text}))", d
        else:
            text, gone = f"({self.last(x, d)} @ {y.text})", factor_dim(d, x.dims, list(y.dims)) or d
        return self.tame(Value(text, _domain(x, y), (x.dims - {d}) | (y.dims - {gone})))

    def pair(self, domain: str, depth: int) -> Value:
        """A product of two values over a dim that both have."""
        x, y = self.expression(domain, depth), self.expression(domain, depth)
        if not x.dims & y.dims and self.declarable(x.dims):
            y = self.param(sorted(x.dims)[:2])
        shared = sorted(x.dims & y.dims)
        if not shared:
            return self.join("{} * {}", x, y)
        d = self.pick(shared)
        first = self.last(x, d)
        cross = d == "a" and self.chance(60)
        template = "0.5 * cross({}, {})" if cross else self.pick(("@", "dot({}, {})", "cdist({}, {} + 1.7)"))
        if template == "@":
            return self.matmul(x, d, y)
        text = template.format(first, y.text)
        text = f"outer({text})" if related(x.dims, y.dims) else f"({text})"
        return self.tame(Value(text, _domain(x, y), (x.dims | y.dims) - (set() if cross else {d})))

    def shape(self, domain: str, depth: int) -> Value:
        x = self.expression(domain, depth)
        rule = self.pick((self.transpose, self.rename, self.merge, self.split, self.cat, self.roll))
        return rule(x, depth)

    def transpose(self, x: Value, depth: int) -> Value:
        if not x.dims:
            return x
        order = self.draw(st.permutations(sorted(x.dims)))
        return Value(f"transpose({x.text}, {', '.join(order)})", x.domain, x.dims)

    def roll(self, x: Value, depth: int) -> Value:
        if not x.dims:
            return x
        return Value(f"roll({self.last(x, self.pick(sorted(x.dims)))}, {self.pick((1, -1, 2))})", x.domain, x.dims)

    def rename(self, x: Value, depth: int) -> Value:
        pairs = [(d, f"{d}'" if d in BASE else d[:-1]) for d in sorted(x.dims) if d.rstrip("'") in BASE]
        pairs = [(old, new) for old, new in pairs if new not in x.dims]
        if not pairs:
            return x
        old, new = self.pick(pairs)
        return Value(f"rename({x.text}, {old} -> {new})", x.domain, x.dims - {old} | {new})

    def merge(self, x: Value, depth: int) -> Value:
        if len(x.dims) < 2:
            return x
        one, two = self.draw(st.permutations(sorted(x.dims)))[:2]
        (size, count), (more, times) = self.size(one), self.size(two)
        new = str(size * more)
        if new in x.dims:
            return x
        self.sizes[new] = size * more, count * times
        self.products[new] = one, two
        return Value(f"merge({x.text}{self.pick((',', ';'))} {one}, {two})", x.domain, x.dims - {one, two} | {new})

    def split(self, x: Value, depth: int) -> Value:
        for d in sorted(x.dims & self.products.keys()):
            one, two = self.products[d]
            if one not in x.dims and two not in x.dims:
                return Value(f"split({x.text}, {d}, {one}, {two})", x.domain, x.dims - {d} | {one, two})
        merged = self.merge(x, depth)
        return self.split(merged, depth) if merged is not x and self.chance(70) else merged

    def cat(self, x: Value, depth: int) -> Value:
        y = self.expression(x.domain, min(depth, 1)) if x.domain != "global" else x
        if not x.dims or not y.dims:
            return self.join("{} + {}", x, y)
        one, two = self.pick(sorted(x.dims)), self.pick(sorted(y.dims))
        (size, count), (more, times) = self.size(one), self.size(two)
        new, rest = str(size + more), x.dims - {one} | y.dims - {two}
        if new in rest:
            return x
        self.sizes[new] = size + more, count + times
        along = one if one == two and self.chance(50) else f"{one}, {two}"
        text = f"cat({x.text}, {y.text}; {along})"
        text = text if paired([x.dims - {one}, y.dims - {two}]) is None else f"outer({text})"
        return self.tame(Value(text, _domain(x, y), rest | {new}))

    def place(self, domain: str, depth: int) -> Value:
        """One place of a dim."""
        x = self.expression(domain, depth)
        if not x.dims:
            return x
        d = self.pick(sorted(x.dims))
        k = self.draw(st.integers(0, self.size(d)[1] - 1))
        text = self.last(x, d, first=True)
        return Value(f"{text}[{k}]" if _is_word(text) or _is_call(text) else f"({text})[{k}]", x.domain, x.dims - {d})

    def spline(self, domain: str, depth: int) -> Value:
        """A B-spline surface over a dim with two coordinates, away from its knots."""
        x = self.fit(self.expression(domain, depth), frozenset("b"))
        if not x.dims or x.domain == "global" or (x.domain == "edge" and self.complete):
            return x
        surface = self.param(["9", *(d for d in self.some_dims(1) if d != "b")])
        at = f"(sigmoid({x.text} + 0.17), 3, 1; s)"
        return Value(f"sum[s](bspline{at} * {surface.text}[bspline_index{at}])", x.domain, surface.dims - {"9"})

    def geometry(self, domain: str, depth: int) -> Value:
        """Harmonics of vectors that are not near 0, or of a matrix that is not far from the identity."""
        x = self.expression(domain, depth)
        if "a" in x.dims and "9" not in x.dims and self.chance(50):
            degree, places = self.pick(((1, "4"), (2, "9")))
            self.sizes[places] = Size.number(int(places)), int(places)
            call = self.pick(("harmonics({} + 1.7, {})", "harmonics(tanh({}), {}, normalize = false)"))
            text = call.format(self.last(x, "a"), degree)
            return self.tame(Value(text, x.domain, x.dims - {"a"} | {places}))
        d = next((d for d in ("b", "a") if d in x.dims and f"{d}'" not in x.dims), None)
        if d is None:
            return self.pair(domain, depth)
        matrix_dims = [d, f"{d}'"]
        eye, turn = self.name("eye"), self.param(matrix_dims)
        self.head.append(f"buffer {eye}{_brackets(matrix_dims)} ~ eye")
        changed = Value(f"({eye} + 0.2 * tanh({turn.text} * tanh({x.text})))", x.domain, x.dims | turn.dims)
        matrix = f"transpose({changed.text}, {', '.join([*sorted(x.dims - {d}), *matrix_dims])})"
        kind = self.pick(("det", "inverse", "solve"))
        if kind == "det":
            return Value(f"det({matrix})", x.domain, x.dims - {d})
        if kind == "inverse":
            return self.tame(Value(f"inverse({matrix})", x.domain, changed.dims))
        return Value(f"solve({matrix}, {x.text})", x.domain, x.dims - {d} | {matrix_dims[1]})

    def call(self, domain: str, depth: int) -> Value:
        """A softmax over edges, or a function or module of the user's."""
        x = self.expression(domain, depth)
        options: list[Callable[[], Value]] = [lambda: self.join("tanh({})", x)]
        stored = domain == "edge" and not self.complete
        if domain == "edge":
            at = "" if self.chance(60) else f" at {self.pick('ij')}"
            function = self.pick(("softmax", "softmax", "log_softmax"))
            keys = [v for v in self.integers if v.domain == "edge"]
            by = f" by {keys[0].text}" if keys and function == "softmax" and "R" not in x.dims and stored else ""
            by = by if self.chance(40) and len(x.dims) < MAX_DIMS else ""
            options = [lambda: Value(f"{function}({x.text}){by or at}", "edge", x.dims)]
            # No two weights are 1 apart, where one would begin to be 0.
            if stored:
                options.append(lambda: Value(f"sparsemax(0.73 * tanh({x.text})){at}", "edge", x.dims))
            weights = [v.text for v in self.values if v.domain == "edge" and re.fullmatch(r"w\d+", v.text)]
            if weights:
                kept = f"where(topk({weights[0]}, {self.pick((1, 2))}){at}, {x.text}, 0.3)"
                options.append(lambda: Value(kept, "edge", x.dims))
            if not self.bipartite and stored:
                options.append(lambda: Value(f"reverse({x.text}, {self.pick(('0', '0.3'))})", "edge", x.dims))
        if self.functions:
            y = self.expression(domain, min(depth, 1))
            options.append(lambda: self.join(f"{self.pick(self.functions)}({{}}, {{}})", x, y))
        if self.hops and x.domain == "node" and not self.pooling:
            options.append(lambda: Value(f"{self.pick(self.hops)}({x.text})", "node", x.dims))
        if x.domain == "node" and len(x.dims) < 3 and not self.pooling:
            options.append(lambda: self.layer(x))
        if domain == "pair":
            options = [lambda: Value(f"softmax({x.text}){self.pick((' at ji', ' at kj'))}", "pair", x.dims)]
        elif x.dims and len(self.modules) < 2 and (stored or domain != "edge"):
            options.append(lambda: self.module(x))
        return self.pick(options)()

    def layer(self, x: Value) -> Value:
        """A layer of the text's own, under a name, which may have been called before on the same dims."""
        named = self.layers.get(x.dims)
        if named is None:
            named = self.layers[x.dims] = self.name("lay")
            given = [self.table(x.dims).text] if len(x.dims) == 1 else []  # what has no default comes first
            given += self.pick(([], ["0.3"], ["strength = 0.7"]))
            count = self.pick(("", "[K]"))
            self.head.append(f"use {named}{count} = Called{len(x.dims)}({', '.join(given)})")
            named = self.layers[x.dims] = named + count.replace("K", "1")
        w = self.fit(self.expression("edge", 0), frozenset())
        weight = f", {self.pick(('', 'w = '))}{w.text}" if w.domain == "edge" and self.chance(40) else ""
        return Value(f"{named}({x.text}{weight})[{self.pick(('y', 'near', '0', '1'))}]", "node", x.dims)

    def module(self, x: Value) -> Value:
        d = self.pick(sorted(x.dims))
        outs = [e for e in BASE if e not in x.dims or e == d]
        if not outs:
            return x
        out, name = self.pick(outs), self.name("nn")
        kind = self.pick(("linear", "mlp", "function", "module")) if self.declarable([d]) else "module"
        if kind == "function":
            self.head.append(f"module {name} = {self.pick(('tanh', 'sin', 'relu'))}")
            return Value(f"{name}({x.text})", x.domain, x.dims)
        if kind != "module":
            return self.owned(kind, name, x, d, out)
        self.head.append(f"module {name}")
        self.modules.append((name, self.size(d)[1], self.size(out)[1], self.chance(60)))
        return Value(f"{name}({self.last(x, d)}; {out})", x.domain, x.dims - {d} | {out})

    def owned(self, kind: str, name: str, x: Value, d: str, out: str) -> Value:
        """Linear maps of the layer's own: one, one of a list, or several with a function between them."""
        count, sizes = "", f"{d} -> {out}"
        if kind == "mlp":
            sizes += self.pick((", silu", " -> " + out + ", tanh", f" -> {out}, elu(0.7), norm = layer_norm"))
        else:
            sizes += self.pick(("", ", bias = false", ", bias = zeros"))
            count = self.pick(("", "", "[K]"))
        ending = self.pick(("", " ~ glorot", " ~ normal = none"))
        if ending.endswith("none"):
            self.given.append((name, True))
        self.head.append(f"{kind} {name}{count}({sizes}){ending}")
        called = f"{name}[1]" if count else name
        return Value(f"{called}({self.last(x, d)})", x.domain, x.dims - {d} | {out})

    def reduction(self, domain: str, depth: int) -> Value:
        """Over the edges at the nodes of a domain (or, for a graph value, over its nodes)."""
        if domain == "graph":
            self.pooling = True  # in a pool, every reduction is one over graphs
            x, at = self.expression("node", depth), ""
            self.pooling = False
        else:
            x, end = self.expression("edge", depth), self.pick(self.ends(domain))
            at = "" if end == "i" and self.chance(70) else f" at {end}"
        scalars = [v for v in self.values if v.domain == "edge" and not v.dims and v.text.startswith("w")]
        indices = [v for v in self.integers if v.domain == "edge"]
        kind = self.pick(("plain", "plain", "plain", "ordered", "by", "std", "softmax", "stack"))
        if kind == "ordered" and domain != "graph" and not self.complete:
            return self.reduced(self.pick(ORDERED), x, at, domain)
        if kind == "std" and domain != "graph" and scalars:
            return self.reduced(self.pick(("std({} + ", "argmax({}, ")) + scalars[0].text + ")", x, at, domain)
        if kind == "by" and domain != "graph" and indices and "R" not in x.dims and len(x.dims) < MAX_DIMS:
            # Places of an extreme by kind that no edge has are known from a list of all edges alone.
            template = "sum({})" if self.complete else self.pick(REDUCERS[:-1])
            found = self.reduced(template, x, f"{at} by {indices[0].text}", domain)
            return self.tame(Value(found.text, domain, found.dims | {"R"}))
        if kind == "softmax" and domain != "graph":
            return self.reduced(f"0.5 * sum(softmax({{0}}){at} * {{0}})", x, at, domain)
        fits = domain == "node" and not at and len(x.dims) < MAX_DIMS and "K" not in x.dims
        if kind in ("stack", "by") and self.degree and fits:
            found = self.reduced("stack({}, K)", x, "", domain)
            return self.tame(Value(found.text, domain, found.dims | {"K"}))
        return self.reduced(self.pick(REDUCERS), x, at, domain)

    def reduced(self, template: str, x: Value, at: str, domain: str) -> Value:
        """``at`` and ``by`` go right behind the reduction: inside tanh(...) where there is one."""
        text = template.format(x.text)
        text = f"{text[:-1]}{at})" if template.startswith("tanh(logsumexp") else text + at
        return Value(text if _is_call(text) and not at else f"({text})", domain, x.dims)

    # ------------------------------------------------------------------------------- statements

    def define(self) -> None:
        domain = self.pick(("edge", *self.rows))
        self.keep("", "v", domain, self.expression(domain), squash=True)

    def message(self) -> None:
        domain = "pair" if not self.bipartite and not self.complete and self.chance(20) else "edge"
        x = self.expression(domain)
        self.keep("message ", "m", x.domain if x.domain != "global" else "edge", x, squash=True)

    def aggregate(self) -> None:
        rows = self.pick(self.rows)
        self.keep("aggregate ", "a", rows, self.reduction(rows, self.draw(st.integers(0, 2))))

    def update(self) -> None:
        rows = self.pick(self.rows)
        self.keep("update ", "h", rows, self.expression(rows), squash=True)

    def pool(self) -> None:
        if self.pools:
            self.keep("pool ", "u", "graph", self.reduction("graph", 1))
        else:
            self.update()

    def keep(self, rule: str, prefix: str, domain: str, x: Value, squash: bool = False) -> Value:
        if squash and not self.chance(30):
            x = self.join(self.pick(("tanh({})", "sin({})", "0.4 * {}")), x)
        name = self.name(prefix)
        # A rule puts what is the same everywhere at the targets.
        domain = (domain if x.domain != "global" or domain == "edge" else self.rows[0]) if rule else x.domain
        self.body.append(f"{rule}{name} = {_bare(x.text)}")
        self.values.append(Value(name, domain, x.dims))
        if self.chance(10):
            self.body[-1] += f"  # {self.pick(('a comment', 'x[j] @ {', 'end }'))}"
        return self.values[-1]

    def constant(self) -> None:
        if self.chance(30):
            self.values.append(self.table(self.some_dims() or ["a"]))
            return
        name = self.name("k")
        self.body.append(f"const {name} = {self.pick(('0.31', '1 / 3', '-sqrt(2)', '2 ** -1', 'max(0.2, 0.7)'))}")
        self.values.append(Value(name))

    def function(self) -> None:
        scalars = [v.text for v in self.values if v.domain == "edge" and not v.dims]
        if not self.bipartite and scalars and self.chance(30):
            self.hops.append(self.name("hop"))
            self.body.append(f"def {self.hops[-1]}(t) = 0.4 * sum({self.pick(scalars)} * t[j])")
        else:
            self.functions.append(self.name("f"))
            self.body.append(f"def {self.functions[-1]}(z, t) = {self.pick(FUNCTIONS)}")

    def fold(self) -> None:
        """``reduce``, and its use at once."""
        if self.complete:
            self.aggregate()
            return
        parameters, step, start = self.pick(FOLDS)
        name, rows = self.name("r"), self.pick(self.rows)
        self.body.append(f"reduce {name}({parameters}) = {step} init {start}")
        parts = [self.expression("edge", 1) for _ in parameters.split(",")[1:]]
        parts = [self.fit(p, parts[0].dims) for p in parts]
        end = self.pick(self.ends(rows))
        at = "" if end == "i" else f" at {end}"
        text = f"{name}({', '.join(p.text for p in parts)}){at}"
        dims = frozenset().union(*(p.dims for p in parts))
        self.keep("aggregate ", "a", rows, self.tame(Value(text, rows, dims)))

    def again(self, indices: Value | None = None) -> str | None:
        """A statement that gives a name its next value, of the same type."""
        known = [v for v in self.values if v.domain in self.rows and v.text[0] in "ahv" and self.declarable(v.dims)]
        if not known:
            return None
        h = self.pick(known)
        step = self.expression(h.domain, 2) if indices is None or self.chance(50) else self.join("{} + {}", h, indices)
        if not self.bipartite and self.chance(50):
            step = Value(f"mean({h.text}[j])", h.domain, h.dims)
        return f"{h.text} = tanh({h.text} + {self.fit(step, h.dims).text})"

    def loop(self) -> None:
        ways = (("1..K", "k - 1", "K"), ("0..K - 1", "k", "K"), ("1..K", "k", "1..K"))
        runs, place, declared = self.pick(ways)
        dims = self.some_dims(1)
        name, k = self.name("p"), self.name("k")
        self.head.append(f"param {name}[{', '.join([declared, *dims])}] ~ normal(0.0, 0.5)")
        index = Value(f"{name}[{place.replace('k', k)}]", "global", frozenset(dims))
        inside = [s for _ in range(self.draw(st.integers(1, 2))) if (s := self.again(index))]
        if not inside:
            self.head.pop()
            self.define()
            return
        start, stop = runs.split("..")
        self.body.append(f"for {k} in {start}..{stop} {{\n        " + "\n        ".join(inside) + "\n    }")

    def branch(self) -> None:
        one, two = self.again(), self.again()
        if one is None or two is None:
            self.define()
            return
        optional = [v.text for v in self.values if v.text.startswith("w_")]
        conditions = ["flag", "not flag", "K > 2", "K == 2 and flag", 'mode == "fast"', 'mode != "fast" or flag']
        conditions += [f(w) for w in optional for f in (str, "present({})".format)]
        text = f"if {self.pick(conditions)} {{\n        {one}\n    }}"
        otherwise = f" else {{\n        {two}\n    }}"
        self.body.append(text + (otherwise if self.chance(60) else ""))

    # -------------------------------------------------------------------------------- the whole

    def inputs(self) -> None:
        for rows in self.rows:
            for _ in range(self.draw(st.integers(1, 2))):
                self.input(rows, "x", self.some_dims())
            if self.chance(15):
                self.input(rows, "x", ["free"])
            if self.chance(30):
                name = self.name("kind")
                self.head.append(f"{rows} {name}: int(R)")
                self.integers.append(Value(name, rows))
                self.integers += [Value(f"{name}[{end}]", "edge") for end in self.ends(rows)]
        if self.pools and self.chance(50):
            self.input("graph", "u", self.some_dims(1))
        if self.chance(25):
            self.input("global", "q", self.some_dims())
        if self.complete:
            self.head.append(f"graph complete{self.pick(('', '(loops = false)'))}")
            return
        if self.builds_graph:
            near = next(v for v in self.values if v.domain == "node")
            self.head.append(f"node near[b]\n    graph knn(near, 2{self.pick(('', ', loop = true'))})")
            self.values.append(Value("near", near.domain, frozenset({"b"})))
            return
        self.input("edge", "w", [])
        if self.chance(40):
            self.input("edge", "e", self.some_dims())
        if self.chance(30):
            name = self.name("rel")
            self.head.append(f"edge {name}: int(R)")
            self.integers.insert(0, Value(name, "edge"))
            self.integers += [] if self.bipartite else [Value(f"{name}[{edge}]", "pair") for edge in ("kj", "ji")]
        elif not self.bipartite:
            self.transform()
        if self.chance(30):
            name = self.name("w_")
            self.head.append(f"edge {name} = {self.pick(('1', '0.5'))}")
            self.values.append(Value(name, "edge"))

    def input(self, role: str, prefix: str, dims: list[str]) -> None:
        name = self.name(prefix)
        self.head.append(
            f"{role} {name}{_brackets(dims) or ': float'}" if role == "graph" else f"{role} {name}{_brackets(dims)}"
        )
        self.values.append(Value(name, role, frozenset(dims)))

    def transform(self) -> None:
        inputs = [line.split()[1].partition("[")[0] for line in self.head if line.startswith("edge")]
        fills = ", ".join(f"{name} = {self.pick(('0.5', '1', 'mean', 'max'))}" for name in inputs)
        fills = re.sub(r"[a-z]+$|[a-z]+(?=,)", r'"\g<0>"', fills)
        if self.chance(40):
            self.head.append("graph non_backtracking")
        chosen = self.pick(("", "remove_self_loops", f"add_self_loops({fills})", f"add_remaining_self_loops({fills})"))
        if chosen:
            self.head.append(f"graph {chosen}")
        weight = next(v.text for v in self.values if v.domain == "edge" and not v.dims)
        norm = self.pick(("", "symmetric_norm", f"symmetric_norm({weight})"))
        if norm:
            self.head.append(f"graph {norm}")
            self.values += [Value("norm", "edge")] if norm.endswith("norm") else []

    def program(self) -> Case:
        shape = self.pick(("plain", "plain", "plain", "bipartite", "pool", "knn", "complete"))
        self.bipartite, self.pools, self.complete = (shape == s for s in ("bipartite", "pool", "complete"))
        self.builds_graph = shape in ("knn", "complete")
        graph = self.pick(GRAPHS)
        self.inputs()
        if shape == "plain" and not any("loops" in line for line in self.head) and self.chance(30):
            self.degree, graph = SIZES["K"], "regular"
        statements = (
            self.message, self.aggregate, self.aggregate, self.update, self.define, self.constant, self.function,
            self.fold, self.loop, self.branch, self.pool,
        )  # fmt: skip
        for _ in range(self.draw(st.integers(1, 10))):
            self.pick(statements)()
        last = self.keep("update ", "y", self.rows[0], self.expression(self.rows[0]))
        if self.chance(70):
            # Mostly what nothing else reads, so that little of the program is dead.
            text = "\n".join(self.body)
            left_out = ("global", "pair", *["edge"] * self.complete)
            made = [v.text for v in self.values if v.domain not in left_out and v is not last]
            unread = [v for v in made if v[0] in "mahvu" and len(re.findall(rf"\b{v}\b", text)) == 1]
            others = unread if unread and self.chance(80) else made
            picked = self.draw(st.lists(st.sampled_from(others), max_size=3, unique=True)) if others else []
            self.body.append(f"return {', '.join([last.text, *picked])}")
        lines = "\n".join(f"    {line}" for line in [*self.head, *self.body])
        sizes = ", ".join(f"{name} = {size}" for name, size in SIZES.items() if name.isalpha() and name != "free")
        arguments = tuple((name, value) for name, value in (("flag", False), ("mode", "fast")) if self.chance(30))
        optional = [line.split()[1] for line in self.head if line.startswith("edge w_")]
        called = "".join(
            CALLED.replace("~ normal", "~ normal\n    const t[p]").replace("[j]", "[j] * t").format(count=1, dims="[p]")
            if count == 1
            else CALLED.format(count=count, dims=DIMS_OF_CALLED[count])
            for count in dict.fromkeys(map(len, self.layers))
        )
        return Case(
            f'{called}layer Random({sizes}, flag = true, mode = "slow") {{\n{lines}\n}}\n',
            graph,
            self.chance(30),
            frozenset(name for name in optional if self.chance(50)),
            tuple(self.modules),
            (*arguments, *self.given),
        )


def _brackets(dims: Iterable[str]) -> str:
    text = ", ".join(dims)
    return f"[{text}]" if text else ""


def _domain(*parts: Value) -> str:
    return next((p.domain for p in parts if p.domain != "global"), "global")


def _is_word(text: str) -> bool:
    return text.isidentifier()


def _is_call(text: str) -> bool:
    """Whether the text is one call or one group in brackets, so that it can stand anywhere."""
    head, _, rest = text.partition("(")
    if not rest or not re.fullmatch(r"\w*(\[[^][]*\])?", head):
        return False
    depth = 0
    for k, c in enumerate(text[len(head) :]):
        depth += {"(": 1, ")": -1}.get(c, 0)
        if depth == 0:
            return len(head) + k == len(text) - 1
    return False


def _bare(text: str) -> str:
    """Without brackets around the whole."""
    return text[1:-1] if text.startswith("(") and _is_call(text) else text


@st.composite
def cases(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Case:
    """Programs with a graph to run them on."""
    return Writer(draw).program()


# ------------------------------------------------------------------------------------------ running


def edges(kind: str, sources: int, targets: int, generator: torch.Generator) -> Tensor:
    """An edge list of one kind between so many nodes."""

    def some(count: int, least: int = 0) -> Tensor:
        if not sources - least > 0 or not targets - least > 0:
            return torch.empty(2, 0, dtype=torch.int64)
        ends = [torch.randint(least, n, (count,), generator=generator) for n in (sources, targets)]
        return torch.stack(ends)

    if kind == "no_edges":
        return some(0)
    if kind == "self_loops":
        loops = torch.arange(min(sources, targets)).repeat(2, 1)
        return torch.cat([loops, some(5)], 1)
    if kind == "parallel":
        return some(4).repeat(1, 3)
    if kind == "isolated":
        return some(6, least=min(sources, targets) // 2)
    if kind == "hub":
        found = some(24)
        found[1, : found.shape[1] // 2] = 0
        found[0, 3 * found.shape[1] // 4 :] = 0
        return found
    if kind == "regular":
        into = torch.arange(targets).repeat_interleave(SIZES["K"])
        return torch.stack([torch.randint(0, sources, into.shape, generator=generator), into])
    return some({"dense": 40}.get(kind, 12))


def inputs(made: gdsl.Layer, case: Case) -> dict[str, Any]:
    """Keyword arguments for a call of the layer, with floats that need gradients."""
    generator = torch.Generator().manual_seed(1)
    signature, graphs = made.signature, 2
    targets = {"one_node": 1, "no_nodes": 0}.get(case.graph, 5)
    typed = typed_of(made, training=case.training, present=case.passed, free={n: SIZES[n] for n in signature.free_dims})
    sources = targets + 2 if typed.bipartite and targets else targets
    edge_index = edges(case.graph, sources, targets, generator)
    counts = {
        Domain.EDGE: edge_index.shape[1],
        Domain.GRAPH: graphs,
        Domain.NODE: targets,
        Domain.SOURCE: sources,
        Domain.TARGET: targets,
    }
    values: dict[str, Any] = {}
    for d in typed.of_role("input"):
        assert d.type is not None
        if d.optional and d.name not in case.passed:
            continue
        shape = (*((counts[d.type.domain],) if d.type.domain in counts else ()), *d.type.shape)
        if d.type.kind is Kind.FLOAT:
            values[d.name] = (0.1 + torch.rand(shape, generator=generator, dtype=torch.float64)).requires_grad_()
        else:
            values[d.name] = torch.randint(0, d.type.bound or 2, shape, generator=generator)
    if not signature.builds_graph:
        values["graph"] = gdsl.Graph(edge_index, (sources, targets) if typed.bipartite else targets)
    if signature.batched or typed.complete is not None:
        values["batch"], values["num_graphs"] = torch.arange(targets) * graphs // max(targets, 1), graphs
    return values
