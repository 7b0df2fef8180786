"""Random well-typed programs of the IR: any chain of ops that the builder accepts, over small dims.

The values stay tame (every step squashes or averages), so that gradients compare well.
"""

from __future__ import annotations

import functools
import operator
import random
from collections.abc import Callable

from gdsl.ir import build, library
from gdsl.ir.node import Node
from gdsl.ir.program import Program
from gdsl.ir.types import Dim, Domain, Kind, Type

DIMS = (Dim("a", 3), Dim("b", 2), Dim("c", 4))
RELATIONS = 3
SMOOTH = ("tanh", "sigmoid", "sin", "cos", "erf")


class Writer:
    """Adds one random value after another; every choice comes from one seed."""

    def __init__(self, seed: int, layers: bool):
        self.random = random.Random(seed)
        self.layers = layers
        self.nodes: list[Node] = []
        self.edges: list[Node] = []
        self.params = 0
        self.relation = build.load("rel", Type(Domain.EDGE, (), Kind.INT, RELATIONS), "input")
        for k in range(2):
            self.nodes.append(build.load(f"x{k}", Type(Domain.NODE, self.dims(1 + k)), "input"))
        self.edges.append(build.load("w", Type(Domain.EDGE, self.dims(self.random.randint(0, 1))), "input"))

    def dims(self, count: int) -> tuple[Dim, ...]:
        return tuple(self.random.sample(DIMS, count))

    def param(self, dims: tuple[Dim, ...]) -> Node:
        self.params += 1
        return build.load(f"p{self.params}", Type(Domain.GLOBAL, dims), "param")

    def pick(self, pool: list[Node]) -> Node:
        return self.random.choice(pool[-4:] if self.random.random() < 0.7 else pool)

    def program(self, steps: int) -> Program:
        for _ in range(steps):
            self.step()
        if not any(n.op == "segment" for n in self.nodes):
            self.aggregate()
        if self.layers:
            self.nodes.append(self.layer())
        outputs = [("y", self.nodes[-1])]
        if self.random.random() < 0.3:
            outputs.append(("z", self.pick(self.nodes + self.edges)))
        names = {n: f"v{k}" for k, n in enumerate(self.nodes + self.edges) if n.op != "load" and k % 2}
        return Program("Random", tuple(outputs), names)

    def step(self) -> None:
        if self.layers:
            self.nodes.append(self.layer())
        self.random.choice((self.read, self.read, self.aggregate, self.aggregate, self.on_nodes, self.on_edges))()

    def read(self) -> None:
        self.edges.append(build.gather(self.pick(self.nodes), self.random.choice("ij")))

    def aggregate(self) -> None:
        e, end = self.pick(self.edges), self.random.choice("iij")
        rules: list[Callable[[], Node]] = [
            lambda: build.segment(e, end, "sum", Domain.NODE) * 0.3,
            lambda: library.segment_mean(e, end, Domain.NODE),
            lambda: build.segment(e, end, "max", Domain.NODE),
            lambda: build.segment(e, end, "min", Domain.NODE),
            lambda: build.segment(
                library.segment_softmax(e, end, Domain.NODE) * self.pick(self.edges), end, "sum", Domain.NODE
            ),
            lambda: library.segment_var(e, end, Domain.NODE),
            lambda: build.segment(0.8 + 0.1 * e, end, "mul", Domain.NODE),
            lambda: self.by_relation(e, end),
        ]
        self.keep(self.random.choice(rules)())

    def by_relation(self, e: Node, end: str) -> Node:
        dim = Dim("r", RELATIONS)
        total = build.segment(e, end, "sum", Domain.NODE, self.relation, dim)
        return build.sum_dims(total * self.param((dim,)), ["r"])

    def on_nodes(self) -> None:
        self.keep(self.combine(self.pick(self.nodes), self.pick(self.nodes)))

    def on_edges(self) -> None:
        a, b = self.pick(self.edges), self.pick(self.edges)
        if self.random.random() < 0.15 and a.dims:
            table = self.param((Dim("r", RELATIONS), *a.dims))
            b = build.index(table, self.relation, "r")
        self.keep(self.combine(a, b))

    def combine(self, a: Node, b: Node) -> Node:
        rules: list[Callable[[], Node]] = [
            lambda: a * b,
            lambda: a + b,
            lambda: a - 0.5 * b,
            lambda: a / (1.5 + b * b),
            lambda: build.elementwise(self.random.choice(SMOOTH), a),
            lambda: build.elementwise("leaky_relu", a, 0.2),
            lambda: build.elementwise("where", b > 0.1, a, b),
            lambda: build.elementwise("maximum", a, b),
            lambda: build.elementwise("exp", -(a * a)),
            lambda: self.matrix(a),
            lambda: self.over_dim(a),
            lambda: self.view(a, b),
        ]
        return self.random.choice(rules)()

    def matrix(self, a: Node) -> Node:
        if not a.dims:
            return a * 0.7
        new = [d for d in DIMS if d.name not in a.type.names]
        weight = self.param((a.dims[-1], self.random.choice(new))) if new else self.param((a.dims[-1],))
        return 0.5 * build.matmul(a, weight)

    def layer(self) -> Node:
        """Products of a few node values with matrices, and biases, in any order."""
        out = self.dims(self.random.randint(1, 2))
        terms = [self.param(out) for _ in range(self.random.randint(0, 2))]
        for _ in range(self.random.randint(1, 3)):
            a = self.pick(self.nodes)
            clash = {d.name for d in out} & set(a.type.names)
            a = build.sum_dims(a, clash) * 0.5 if clash else a
            matrix = self.param((*self.random.sample(a.dims, len(a.dims)), *out))
            terms.append(build.contract([a, 0.3 * matrix], a.type.names, order=[d.name for d in out]))
        self.random.shuffle(terms)
        return functools.reduce(operator.add, terms)

    def over_dim(self, a: Node) -> Node:
        if not a.dims:
            return a
        name = self.random.choice(a.type.names)
        return self.random.choice(
            (
                lambda: build.sum_dims(a, [name]) * 0.5,
                lambda: build.reduce(a, "max", name),
                lambda: library.dim_softmax(a, [name]),
                lambda: library.dim_norm(a + 0.1, [name]),
            )
        )()

    def view(self, a: Node, b: Node) -> Node:
        shared = [n for n in a.type.names if n in b.type.names]
        if shared:
            name = shared[0]
            joined = build.cat([a, b], [name, name], Dim("joined", 2 * a.type.dim(name).size))
            start = self.random.randint(0, a.type.dim(name).size)
            return build.slice_dim(joined, "joined", start, a.type.dim(name))
        if len(a.dims) == 2:
            flat = build.merge(a, a.type.names, "flat")
            return build.split(flat, "flat", [a.dims[0], a.dims[1]])
        return build.spread(self.param(a.dims), a.domain) + a

    def keep(self, node: Node) -> None:
        """Squash what has grown, and put it where its domain says."""
        if len(node.dims) > 2:
            node = build.sum_dims(node, [node.dims[0].name]) * 0.3
        if self.random.random() < 0.3:
            node = build.elementwise("tanh", node)
        {Domain.NODE: self.nodes, Domain.EDGE: self.edges}[node.domain].append(node)


def write(seed: int, steps: int, layers: bool = False) -> Program:
    """The random program of a seed; with layers of dense products between its steps, where that is asked for."""
    return Writer(seed, layers).program(steps)
