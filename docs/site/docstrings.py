"""Docstrings of gdsl as reStructuredText: lists of arguments become definition lists, and all other text is taken as it
is, so that no docstring can break a page.

    name:  what it is
    other: what that is,
           in two lines
    more   without a colon
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_ARGUMENT = re.compile(r"([\w*. ,\[\]]{1,40}?)(?:: +|  +)(\S.*)")
# What keeps its meaning: ``code``, :role:`target` and `code`.
_MARKUP = re.compile(r"``[^`]+``|:\w+:`[^`]+`|`[^`\n]+`")


def to_rest(lines: Sequence[str]) -> list[str]:
    blocks = list(_blocks(lines))
    written = [[_safe(" ".join(map(str.strip, blocks[0])))], *map(_written, blocks[1:])] if blocks else []
    return [line for block in written for line in (*block, "")]


def _blocks(lines: Sequence[str]) -> Iterator[list[str]]:
    """What stands between blank lines."""
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line.rstrip())
        elif block:
            yield block
            block = []


def _written(block: list[str]) -> list[str]:
    if all(line.startswith("    ") for line in block):
        return ["::", "", *block]
    if _ARGUMENT.fullmatch(block[0]):
        return _definitions(block)
    if block[0].startswith("- "):
        return _items(block)
    return [_safe(" ".join(line.strip() for line in block))]


def _definitions(block: list[str]) -> list[str]:
    items: list[tuple[str, list[str]]] = []
    for line in block:
        found = None if line.startswith(" ") else _ARGUMENT.fullmatch(line)
        if found:
            items.append((found[1], [found[2]]))
        elif line.startswith(" "):
            items[-1][1].append(line.strip())
        else:
            items.append((line, ["\\ "]))
    return [line for name, text in items for line in (f"``{name}``", f"    {_safe(' '.join(text))}")]


def _items(block: list[str]) -> list[str]:
    items: list[str] = []
    for line in block:
        if line.startswith("- "):
            items.append(line[2:])
        else:
            items[-1] += " " + line.strip()
    return [f"- {_safe(item)}" for item in items]


def _safe(text: str) -> str:
    """The text with all that reStructuredText would read as markup escaped, but code and roles."""
    parts, last = [], 0
    for found in _MARKUP.finditer(text):
        parts += [_escaped(text[last : found.start()]), found[0]]
        last = found.end()
    return "".join([*parts, _escaped(text[last:])])


def _escaped(text: str) -> str:
    return re.sub(r"([\\*`|]|_(?=\W|$))", r"\\\1", text)
