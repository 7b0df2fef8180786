"""docs/functions.md, made from the language's own tables: ``python -m docs.site.functions > docs/functions.md``.

What is there comes from the tables, what it does from ``gdsl.language.meanings``; an example that a test compiles
stands here. A function without one is an error, so that none is left out.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping

import torch

import gdsl
from gdsl import errors
from gdsl.language import errors as language_errors
from gdsl.language import meanings
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
    node turn[3, 3']
    node on: bool
    edge w
    edge e[d]
    edge rel: int(bins)
    edge extra = 1
    param m[d, k] ~ glorot
    {statement}
    update y = {result}
}}"""

# name: an example
OF_VALUES = {
    "exp": "exp(x)",
    "expm1": "expm1(x)",
    "log": "log(x)",
    "log1p": "log1p(x)",
    "sqrt": "sqrt(x)",
    "rsqrt": "rsqrt(x)",
    "abs": "abs(x)",
    "sign": "sign(x)",
    "floor": "floor(x)",
    "sin": "sin(x)",
    "cos": "cos(x)",
    "acos": "acos(x)",
    "tanh": "tanh(x)",
    "sigmoid": "sigmoid(x)",
    "erf": "erf(x)",
    "relu": "relu(x)",
    "pow": "pow(x, 3)",
    "mod": "mod(x, 2)",
    "atan2": "atan2(x, z)",
    "max": "max(x, z, 0)",
    "min": "min(x, z)",
    "leaky_relu": "leaky_relu(x, 0.2)",
    "elu": "elu(x)",
    "selu": "selu(x)",
    "gelu": "gelu(x)",
    "silu": "silu(x)",
    "softplus": "softplus(x)",
    "log_sigmoid": "log_sigmoid(x)",
    "clamp": "clamp(x, -1, 1)",
    "where": "where(x > 0, x, z)",
    "roll": "roll(x, 1)",
    "dot": "dot(x, z)",
    "cdist": "cdist(p, q)",
    "cross": "cross(p, q)",
    "det": "det(turn)",
    "inverse": "q @ inverse(turn)",
    "solve": "solve(turn, p)",
}
OF_DIMS = {
    "sum": "sum[d](x)",
    "mean": "mean[d](x)",
    "max": "max[d](x)",
    "min": "min[d](x)",
    "mul": "mul[d](x)",
    "norm": "norm[d](x)",
    "var": "var[d](x)",
    "std": "std[d](x)",
    "softmax": "softmax[d](x)",
    "log_softmax": "log_softmax[d](x)",
    "logsumexp": "logsumexp[d](x)",
    "sparsemax": "sparsemax[d](x)",
    "topk": "where(topk[d](x, 2), x, 0)",
}
OF_EDGES = {
    "sum": "sum(w * x[j])",
    "mean": "mean(x[j])",
    "max": "max(x[j])",
    "min": "min(x[j])",
    "mul": "mul(e)",
    "var": "var(x[j])",
    "std": "std(x[j])",
    "logsumexp": "logsumexp(x[j])",
    "median": "median(x[j])",
    "quantile": "quantile(x[j], 0.9)",
    "stack": "sum[bins](stack(x[j], bins))",
}
OF_SHAPES = {
    "cat": "cat(x, z)",
    "merge": "merge(t, heads, width)",
    "split": "split(merge(t, heads, width), heads*width, heads, width)",
    "transpose": "transpose(t, width, heads)",
    "rename": "rename(x @ m, k -> d)",
    "outer": "sum[d](outer(x, x @ m))",
    "softmax": "sum(softmax(w) * x[j])",
    "log_softmax": "sum(log_softmax(w))",
    "sparsemax": "sum(sparsemax(w) * x[j])",
    "topk": "sum(where(topk(w, 4), x[j], 0))",
    "argmax": "argmax(x[j], w)",
    "int": "sum(one_hot(int(4 * w, bins)))",
    "norm": "norm(p)",
    "degree": "x / max(degree(i), 1)",
    "reverse": "sum(reverse(e, 0))",
    "dropout": "dropout(x, 0.5)",
    "one_hot": "sum(one_hot(rel))",
    "bspline": "sum[b](bspline(u, 5, 1; b))",
    "bspline_index": "sum[b](bspline(u, 5, 1; b) * one_hot(bspline_index(u, 5, 1; b))[0])",
    "harmonics": "sum[9](harmonics(p, 2))",
    "present": "where(present(extra), x, z)",
}
GRAPH = {
    "add_self_loops": "graph add_self_loops(w = 1)",
    "add_remaining_self_loops": "graph add_remaining_self_loops(w = 1)",
    "remove_self_loops": "graph remove_self_loops",
    "non_backtracking": "graph non_backtracking",
    "knn": "graph knn(p, 8)",
    "complete": "graph complete",
    "symmetric_norm": "graph symmetric_norm(w)",
}  # fmt: skip


HEAD = """# Functions, reducers, errors

Made by `python -m docs.site.functions > docs/functions.md` from the language's own tables; a test compares, and
compiles every example. [The language](language.md) says what they are used for. The gradient is that of the
formula where nothing else is said.
"""


def program(example: str) -> list[str]:
    """Layers of which one reads an example: as a value of nodes, as one of edges, or as a statement."""
    if example.startswith("graph "):
        text = SETTING.format(statement=example, result="x")
        # Of the edges of a complete graph there are no values to pass.
        edges = "\n    edge " if "complete" in example else "no line"
        return ["".join(line for line in text.splitlines(keepends=True) if not ("\n" + line).startswith(edges))]
    return [SETTING.format(statement="", result=result) for result in (example, f"sum({example})")]


def says(name: str, of: str) -> str:
    """The words of a function as one of values, or along a dim ("[d]"), or over edges ("(m")."""
    found = meanings.FUNCTIONS[name]
    fitting = [m for m in found if (m.form.startswith(name + of) if of else not _is_reduced(m.form))]
    return "; ".join(f"`{m.form}`: {m.says}" if len(fitting) > 1 else m.says for m in fitting)


def _is_reduced(form: str) -> bool:
    return "[d]" in form or "(m)" in form or "(m," in form


def table(names: Iterable[str], examples: Mapping[str, str], words: Callable[[str], str], head: str = "is") -> str:
    rows = [f"| `{name}` | `{examples[name]}` | {words(name)} |" for name in names]
    return f"| name | example | {head} |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def signature(name: str) -> str:
    function = FUNCTIONS[name]
    parts = [p if default is REQUIRED else f"{p} = {default}" for p, default in function.parameters]
    return f"{name}({', '.join([*parts, '...'] if function.variadic else parts)})"


def _example(name: str) -> str:
    """Of a function, where it says more than the signature."""
    example = OF_VALUES[name]
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
    values = "\n".join(f"| `{signature(n)}` | {_example(n)} | {says(n, '')} |" for n in FUNCTIONS)
    reducers = [*SEGMENT_REDUCERS, *ORDERED_REDUCERS]
    edges = "\n".join(f"| `{n}` | `{OF_EDGES[n]}` | {says(n, '(m')} | {of_no_edges(n)} |" for n in reducers)
    starts = "\n".join(f"| `{n}` | {_count(INITS[n])} | {meanings.INITS[n][0].says} |" for n in INITS)
    return "\n".join([
        HEAD,
        "## Of values\n\nPlace by place. Operators are `+ - * / ** @`, comparisons, `and`, `or`, `not`.\n",
        f"| function | example | is |\n|---|---|---|\n{values}\n",
        "## Over dims\n\n`name[d](x)`, or several dims: `name[d, k](x)`.\n",
        table(DIM_REDUCERS, OF_DIMS, lambda name: says(name, "[d]")),
        "## Over the edges of a node\n\n`name(m)` of an edge value is over the edges into each node; `at j` over those "
        "out of it, `by rel` for each value of an integer (the first eight). Of a value of nodes, in a `pool` rule, "
        "over the nodes of each graph.\n",
        f"| reducer | example | is | of no edges |\n|---|---|---|---:|\n{edges}\n",
        "`reduce name(acc, m) = body init c` declares one of your own, a fold in the order of the edges.\n",
        "## Of shapes, edges and graphs\n",
        table(SPECIAL, OF_SHAPES, lambda name: says(name, "")),
        "## What the graph is\n",
        table(TRANSFORMS, GRAPH, lambda name: meanings.TRANSFORMS[name][0].says, "makes"),
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
