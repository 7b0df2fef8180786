"""Which dims of values taken together are one dim, and which pairs of dims nobody meant to pair.

A sum whose operands each lack a dim of the other would have a number for every pair of places: an outer sum. It is
hardly ever meant, and only sizes would tell, so it has to be said, with ``outer``.

``d'`` is a second name for ``d``, for values that have both, such as a matrix ``w[d, d']``. Where no value has both,
they are one dim: a sum and the left side of ``@`` read the name with more primes as the one with fewer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from gdsl.ir import build
from gdsl.ir.node import Node
from gdsl.language import ast, format
from gdsl.language.errors import Mistake

# What a hint repeats is written out up to this many characters.
_SHORT = 60


def base(name: str) -> str:
    """The name without its primes; ``heads*width`` for ``heads*width'``."""
    return name.replace("'", "")


def variants(names: Iterable[str], name: str) -> set[str]:
    """The dims among these that are this one but for their primes."""
    return {n for n in names if base(n) == base(name)}


def plainest(names: Collection[str]) -> str | None:
    """The name with fewest primes, if there is one: ``a'*b`` and ``a*b'`` have as many."""
    fewest = min((n.count("'") for n in names), default=0)
    found = [n for n in names if n.count("'") == fewest]
    return found[0] if len(found) == 1 else None


def of_module(name: str) -> bool:
    """Whether a module made the dim and nobody named it."""
    return ".out" in name


def one_name(lists: Sequence[Sequence[str]]) -> dict[str, str]:
    """The dims that a sum of values with these dims reads under another name: ``d'`` as ``d``, where none has both."""
    found: dict[str, str] = {}
    every = {n for names in lists for n in names}
    for name in every:
        plain = plainest(variants(every, name))
        if plain is not None and plain != name and all(len(variants(names, name)) < 2 for names in lists):
            found[name] = plain
    return found


def read_primes(nodes: Sequence[Node]) -> list[Node]:
    """The operands of a sum under the names of :func:`one_name`, where the sizes agree."""
    names = one_name([x.type.names for x in nodes])
    sizes = {d.name: d.size for x in nodes for d in x.dims}
    names = {old: new for old, new in names.items() if sizes[old] == sizes[new]}
    if not names:
        return list(nodes)
    return [build.rename(x, {n: names.get(n, n) for n in x.type.names}) for x in nodes]


def factor_dim(name: str, left: Iterable[str], right: Sequence[str]) -> str | None:
    """The dim of the right side that ``@`` sums over for the left side's last one; None where it could be two.

    An exact name counts where it is the plainest of the right side's, or the left side has two itself. Otherwise the
    plainest counts, if it is the first too: so ``h[d'] @ w[d, d']`` is read as ``h[d] @ w[d, d']``, and nobody can say
    whether ``h[d'] @ w[d', d]`` is a second weight, or one that is stored with its output first and used again.
    """
    theirs = [n for n in right if base(n) == base(name)]
    plain = plainest(theirs)
    if not theirs or len(variants(left, name)) > 1 or name == plain:
        return name
    return plain if theirs[0] == plain else None


def read_factor(a: Node, b: Node, texts: Sequence[ast.Tree], e: ast.Tree) -> Node:
    """The left side of ``a @ b`` with its last dim under the name that it has in b.

    So ``h @ w`` with ``w[d, d']`` sums over ``d`` for an ``h[d]`` and for an ``h[d']`` that such a product gave.
    """
    if not a.dims:
        return a
    last = a.dims[-1]
    name = factor_dim(last.name, a.type.names, b.type.names)
    if name is None:
        plain = min(variants(b.type.names, last.name), key=lambda n: (n.count("'"), n))
        left, right = map(_short, texts)
        raise Mistake(
            f"`@` could sum over `{plain}` and over `{last.name}`",
            e.span,
            detail=f"{a.type} and {b.type}",
            hint=f"rename({left}, {last.name} -> {plain}) @ {right} for `{plain}`; "
            f"sum[{last.name}]({left} * {right}) for `{last.name}`; or a name for the dim between two weights",
        )
    if name == last.name or b.type.dim(name).size != last.size:
        return a
    return build.rename(a, {last.name: name})


def paired(lists: Sequence[Sequence[str]]) -> tuple[int, int] | None:
    """Two lists of dims of which each has one that the other lacks, unless one of all lists has every dim."""
    every = {name for names in lists for name in names}
    if any(every == set(names) for names in lists):
        return None
    for k, one in enumerate(lists):
        for m, other in enumerate(lists[:k]):
            if set(one) - set(other) and set(other) - set(one):
                return m, k
    return None


def related(one: Iterable[str], other: Iterable[str]) -> bool:
    """Whether dims that only one of two factors has could be meant for dims that only the other has."""
    first, second = set(one) - set(other), set(other) - set(one)
    if not first or not second:
        return False
    return bool({base(n) for n in first} & {base(n) for n in second}) or any(map(of_module, first | second))


def refusal(
    name: str,
    e: ast.Tree,
    nodes: Sequence[Node],
    texts: Sequence[ast.Tree],
    lists: Sequence[Sequence[str]] | None = None,
) -> Mistake | None:
    """The mistake of pairing dims of two values, with what to write instead; None where no dims would be paired.

    lists: the dims that count, where not all do
    """
    lists = lists or [n.type.names for n in nodes]
    found = paired(lists)
    if found is None:
        return None
    a, b = (nodes[k] for k in found)
    first, second = ([n for n in lists[k] if n not in lists[m]] for k, m in (found, found[::-1]))
    message = f"`{name}` would pair each place of {_dims(first)} with each of {_dims(second)}"
    hints = [_remedy(a, b, first, second, [texts[k] for k in found])]
    hints.append(f"outer({_short(e)}) for every pair, if that is meant")
    return Mistake(message, e.span, detail=f"{a.type} and {b.type}", hint="; ".join(h for h in hints if h))


def _short(e: ast.Tree) -> str:
    written = format.expression(e)
    return written if len(written) <= _SHORT else "..."


def _dims(names: Sequence[str]) -> str:
    return ", ".join(f"`{n}`" for n in names)


def _remedy(a: Node, b: Node, first: list[str], second: list[str], texts: Sequence[ast.Tree]) -> str | None:
    """Names for the dims that a module made; or the one dim that differs under the other value's name."""
    for value, own, other, text in ((a, first, second, texts[0]), (b, second, first, texts[1])):
        made = [n for n in own if of_module(n)]
        if made:
            module = re.sub(r"\W.*", "", made[0].rsplit(".out", 1)[0].rsplit("*", 1)[-1])
            name = next((n for n in other if not of_module(n)), "d")
            fits = [d.name for d in value.dims if d.name in own] == made[:1]
            return f"say which dim the module gives: {_applied(module, text)}; {name})" if fits else None
    if len(first) != 1 or len(second) != 1:
        return "rename dims that are one, as in rename(x, k -> d)"
    sizes = a.type.dim(first[0]).size, b.type.dim(second[0]).size
    if sizes[0] != sizes[1]:
        return f"`{first[0]}` has size {sizes[0]} and `{second[0]}` has size {sizes[1]}, so they are not one dim"
    # The right side is renamed, unless the left one has the name with more primes.
    moves = (texts[0], first[0], second[0]) if first[0].startswith(f"{second[0]}'") else (texts[1], second[0], first[0])
    text, old, new = moves
    written = "..." if isinstance(text, ast.Call) and text.function == "rename" else _short(text)
    return f"rename({written}, {old} -> {new}) to take them place by place"


def _applied(module: str, text: ast.Tree) -> str:
    """The call of a module in a text, up to its arguments."""
    for part in ast.walk(text):
        if isinstance(part, ast.Call) and part.function == module and not part.dims:
            return format.expression(part)[:-1]
    return f"{module}(..."
