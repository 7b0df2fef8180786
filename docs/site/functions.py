"""docs/functions.md, made from the language's own tables: ``python -m docs.site.functions > docs/functions.md``.

What is there comes from the tables; what it does, and an example that a test compiles, stands here. A function that has
no words here is an error, so that none is left out.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterable, Mapping

import torch

import gdsl
from gdsl import errors
from gdsl.language import errors as language_errors
from gdsl.language.forms import SPECIAL
from gdsl.language.functions import DIM_REDUCERS, FUNCTIONS, ORDERED_REDUCERS, REQUIRED, SEGMENT_REDUCERS
from gdsl.language.program import ACTIVATIONS, INITS
from gdsl.language.transforms import TRANSFORMS

# What the examples read, and how each becomes the result of a layer.
SETTING = """layer Example(d, k, heads = 2, width = 3, bins = 4) {{
    node x[d]
    node z[d]
    node t[heads, width]
    node p[3]
    node q[3]
    node u[2]
    node on: bool
    edge w
    edge e[d]
    edge rel: int(bins)
    edge extra = 1
    param m[d, k] ~ glorot
    {statement}
    update y = {result}
}}"""

# name: an example, and what it is
OF_VALUES = {
    "exp": ("exp(x)", "e to the x"),
    "expm1": ("expm1(x)", "e to the x, less 1, exact near 0"),
    "log": ("log(x)", "natural logarithm"),
    "log1p": ("log1p(x)", "log(1 + x), exact near 0"),
    "sqrt": ("sqrt(x)", "square root"),
    "rsqrt": ("rsqrt(x)", "1 / sqrt(x)"),
    "abs": ("abs(x)", "absolute value; its gradient at 0 is 0"),
    "sign": ("sign(x)", "-1, 0 or 1; no gradient"),
    "floor": ("floor(x)", "rounded down; no gradient"),
    "sin": ("sin(x)", "sine"),
    "cos": ("cos(x)", "cosine"),
    "acos": ("acos(x)", "arc cosine"),
    "tanh": ("tanh(x)", "hyperbolic tangent"),
    "sigmoid": ("sigmoid(x)", "1 / (1 + exp(-x))"),
    "erf": ("erf(x)", "error function"),
    "relu": ("relu(x)", "max(x, 0); its gradient at 0 is 0"),
    "pow": ("pow(x, 3)", "x to a power, also `x ** 3`"),
    "mod": ("mod(x, 2)", "remainder with the sign of the divisor, as Python's `%`"),
    "atan2": ("atan2(x, z)", "angle of the point (z, x)"),
    "max": ("max(x, z, 0)", "largest of two or more; equal ones share the gradient"),
    "min": ("min(x, z)", "smallest of two or more; equal ones share the gradient"),
    "leaky_relu": ("leaky_relu(x, 0.2)", "x, or slope * x below 0"),
    "elu": ("elu(x)", "x, or alpha * (exp(x) - 1) below 0"),
    "selu": ("selu(x)", "a scaled elu, Klambauer et al. 2017"),
    "gelu": ("gelu(x)", "x times the normal distribution function, by erf"),
    "silu": ("silu(x)", "x * sigmoid(x)"),
    "softplus": ("softplus(x)", "log(1 + exp(x))"),
    "log_sigmoid": ("log_sigmoid(x)", "log(sigmoid(x))"),
    "clamp": ("clamp(x, -1, 1)", "held between low and high; the gradient is 1 between and at them"),
    "where": ("where(x > 0, x, z)", "a where the condition holds, else b; the other one's gradient is 0"),
    "roll": ("roll(x, 1)", "the last dim turned round by shift places"),
    "dot": ("dot(x, z)", "sum over the last dim of x, which z has too"),
    "cdist": ("cdist(p, q)", "distance over the last dim"),
    "cross": ("cross(p, q)", "cross product over the last dim, of size 3"),
}
OF_DIMS = {
    "sum": ("sum[d](x)", "sum"),
    "mean": ("mean[d](x)", "mean"),
    "max": ("max[d](x)", "largest; equal ones share the gradient"),
    "min": ("min[d](x)", "smallest"),
    "mul": ("mul[d](x)", "product"),
    "norm": ("norm[d](x)", "Euclidean norm; its gradient at 0 is 0. `norm(x)` is over the last dim"),
    "var": ("var[d](x)", "mean((x - mean(x))²)"),
    "std": ("std[d](x)", "root of the variance; its gradient is 0 where all are equal"),
    "softmax": ("softmax[d](x)", "the dim stays; 0 where all are -inf"),
    "log_softmax": ("log_softmax[d](x)", "the dim stays; as torch's"),
    "logsumexp": ("logsumexp[d](x)", "log of the sum of exponentials"),
}
OF_EDGES = {
    "sum": ("sum(w * x[j])", "sum"),
    "mean": ("mean(x[j])", "mean"),
    "max": ("max(x[j])", "largest; equal ones share the gradient"),
    "min": ("min(x[j])", "smallest"),
    "mul": ("mul(e)", "product"),
    "var": ("var(x[j])", "mean((m - mean(m))²), in two walks, so that no digits are lost"),
    "std": ("std(x[j])", "root of the variance; its gradient is 0 where all are equal"),
    "logsumexp": ("logsumexp(x[j])", "log of the sum of exponentials"),
    "median": ("median(x[j])", "lower of two middle values, as torch.median"),
    "quantile": ("quantile(x[j], 0.9)", "linear between two values, as torch.quantile"),
    "stack": ("sum[bins](stack(x[j], bins))", "the K values of a node's edges side by side, where each has K"),
}
OF_SHAPES = {
    "cat": ("cat(x, z)", "joined along the last dim; `cat(x, z; d)` names it"),
    "merge": ("merge(t, heads, width)", "several dims as one, `heads*width`"),
    "split": ("split(merge(t, heads, width), heads*width, heads, width)", "one dim as several"),
    "transpose": ("transpose(t, width, heads)", "dims in another order; only what is joined or stored sees it"),
    "rename": ("rename(x @ m, k -> d)", "a dim under another name, of the same size"),
    "outer": ("sum[d](outer(x, x @ m))", "a number for every pair of places; `outer(a + b)` of a sum"),
    "softmax": ("sum(softmax(w) * x[j])", "over the edges into each node; `by rel`, `at j`; 0 where all are -inf"),
    "log_softmax": ("sum(log_softmax(w))", "its logarithm, as torch's"),
    "int": ("sum(one_hot(int(4 * w, bins)))", "rounded down to an integer of 0 to bound - 1; no gradient"),
    "norm": ("norm(p)", "Euclidean norm over the last dim; its gradient at 0 is 0"),
    "degree": (
        "x / max(degree(i), 1)",
        "how many edges lead into each node; `degree(j)` out of it; `degree(w)` their sum",
    ),
    "reverse": ("sum(reverse(e, 0))", "the value of the edge that goes the other way, or a number; `e[reverse]`"),
    "dropout": ("dropout(x, 0.5)", "in training 0 with probability p, and scaled up otherwise"),
    "one_hot": ("sum(one_hot(rel))", "1 at the place of an integer with a bound, else 0"),
    "bspline": ("sum[b](bspline(u, 5, 1; b))", "the B-spline basis of a pseudo-coordinate: weights of its places"),
    "bspline_index": ("sum[b](bspline(u, 5, 1; b) * one_hot(bspline_index(u, 5, 1; b))[0])", "which places these are"),
    "present": ("where(present(extra), x, z)", "whether an optional input was passed, known when a call is compiled"),
}
GRAPH = {
    "add_self_loops": ("graph add_self_loops(w = 1)", "a loop at every node, besides those that are there"),
    "add_remaining_self_loops": ("graph add_remaining_self_loops(w = 1)", "a loop at every node that has none"),
    "remove_self_loops": ("graph remove_self_loops", "no loops"),
    "non_backtracking": ("graph non_backtracking", "of pairs of edges those that do not go back"),
    "knn": ("graph knn(p, 8)", "another graph: an edge from each of the k nearest nodes by a value; `loop = true`"),
    "symmetric_norm": ("graph symmetric_norm(w)", "w over the roots of the degrees of both ends; without w, `norm`"),
}  # fmt: skip
STARTS = {
    "zeros": "0",
    "ones": "1",
    "constant": "a number",
    "glorot": "uniform, Glorot and Bengio 2010; a gain",
    "glorot_normal": "normal, the same",
    "kaiming_uniform": "uniform, He et al. 2015; fan, slope of a leaky relu",
    "kaiming_normal": "normal, the same",
    "linear": "as torch.nn.Linear's; the fan",
    "uniform": "uniform between two numbers, or one and its negative; 0 to 1 without",
    "normal": "normal; mean and deviation, or the deviation; 0 and 1 without",
    "orthogonal": "an orthogonal matrix; a gain",
    "eye": "1 on the diagonal, else 0",
    "linspace": "from a to b along the last dim",
    "arange": "start, start + step, ... along the last dim",
}

HEAD = """# Functions, reducers, errors

Made by `python -m docs.site.functions > docs/functions.md` from the language's own tables; a test compares, and
compiles every example. [The language](language.md) says what they are used for. The gradient is that of the
formula where nothing else is said.
"""


def program(example: str) -> list[str]:
    """Layers of which one reads an example: as a value of nodes, as one of edges, or as a statement."""
    if example.startswith("graph "):
        return [SETTING.format(statement=example, result="x")]
    return [SETTING.format(statement="", result=result) for result in (example, f"sum({example})")]


def table(names: Iterable[str], words: Mapping[str, tuple[str, str]], head: str = "is") -> str:
    rows = [f"| `{name}` | `{words[name][0]}` | {words[name][1]} |" for name in names]
    return f"| name | example | {head} |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def signature(name: str) -> str:
    function = FUNCTIONS[name]
    parts = [p if default is REQUIRED else f"{p} = {default}" for p, default in function.parameters]
    return f"{name}({', '.join([*parts, '...'] if function.variadic else parts)})"


def _example(name: str) -> str:
    """Of a function, where it says more than the signature."""
    example = OF_VALUES[name][0]
    return "" if example == signature(name) else f"`{example}`"


def of_no_edges(name: str) -> str:
    """What a node without edges gets, by trying."""
    if name == "stack":  # its nodes have K edges each
        return ""
    call = "quantile(x[j], 0.9)" if name == "quantile" else f"{name}(x[j])"
    layer = gdsl.compile(f"layer Empty(d) {{ node x[d] update y = {call} }}", d=1, backend="torch")
    found = layer(torch.ones(2, 1), torch.tensor([[0], [1]]))
    return f"{float(found[0, 0]):g}"


def text() -> str:
    values = "\n".join(f"| `{signature(n)}` | {_example(n)} | {OF_VALUES[n][1]} |" for n in FUNCTIONS)
    reducers = [*SEGMENT_REDUCERS, *ORDERED_REDUCERS]
    edges = "\n".join(f"| `{n}` | `{OF_EDGES[n][0]}` | {OF_EDGES[n][1]} | {of_no_edges(n)} |" for n in reducers)
    starts = "\n".join(f"| `{n}` | {_count(INITS[n])} | {STARTS[n]} |" for n in INITS)
    return "\n".join([
        HEAD,
        "## Of values\n\nPlace by place. Operators are `+ - * / ** @`, comparisons, `and`, `or`, `not`.\n",
        f"| function | example | is |\n|---|---|---|\n{values}\n",
        "## Over dims\n\n`name[d](x)`, or several dims: `name[d, k](x)`.\n",
        table(DIM_REDUCERS, OF_DIMS),
        "## Over the edges of a node\n\n`name(m)` of an edge value is over the edges into each node; `at j` over those "
        "out of it, `by rel` for each value of an integer (the first eight). Of a value of nodes, in a `pool` rule, "
        "over the nodes of each graph.\n",
        f"| reducer | example | is | of no edges |\n|---|---|---|---:|\n{edges}\n",
        "`reduce name(acc, m) = body init c` declares one of your own, a fold in the order of the edges.\n",
        "## Of shapes, edges and graphs\n",
        table(SPECIAL, OF_SHAPES),
        "## What the graph is\n",
        table(TRANSFORMS, GRAPH, "makes"),
        "## How a param starts\n",
        f"| name | arguments | values |\n|---|---:|---|\n{starts}\n",
        "## Between the maps of an mlp\n",
        ", ".join(f"`{name}`" for name in ACTIVATIONS) + ".\n",
        "## Errors and warnings\n",
        _errors(),
    ])  # fmt: skip


def _count(least_and_most: tuple[int, int]) -> str:
    least, most = least_and_most
    return str(least) if least == most else f"{least} to {most}"


def _errors() -> str:
    found = [
        kind
        for module in (errors, language_errors)
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, errors.GdslError | Warning) and kind.__module__ == module.__name__
    ]
    rows = [f"| `{_path(k)}` | {', '.join(f'`{b.__name__}`' for b in k.__bases__)} | {_said(k)} |" for k in found]
    return "| class | is a | when |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _path(kind: type) -> str:
    return f"gdsl.{kind.__name__}" if kind.__name__ in gdsl.__all__ else f"{kind.__module__}.{kind.__name__}"


def _said(kind: type) -> str:
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].replace("``", "`").split())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.stdout.write(text())
