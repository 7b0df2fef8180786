"""Functions that are the same but for their names, as those of the rounds of a loop are: the compiler sees one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

# A word, unless it is of a namespace or called: that is not of the function's own.
_WORD = re.compile(r"(?<!::)\b[A-Za-z_]\w*\b(?!\s*\()")
_COMMENT = re.compile(r"//.*")


@dataclass(frozen=True)
class KernelSource:
    """A C function.

    name:  of the function
    text:  from the comment over it to its end
    words: the names that are its own: of parameters, variables, loops
    """

    name: str
    text: str
    words: Collection[str]


def once(sources: Iterable[KernelSource]) -> list[str]:
    """The texts of functions, in which one that is there already under another name is an alias of that."""
    sources = list(sources)
    lengths = [source.text.count("\n") for source in sources]
    often = Counter(lengths)
    first: dict[str, str] = {}
    found = []
    for source, length in zip(sources, lengths, strict=True):
        # Alone of its length it is like no other, and need not be looked at.
        same = first.setdefault(_anonymous(source), source.name) if often[length] > 1 else source.name
        found.append(source.text if same == source.name else _alias(source, same))
    return found


def _anonymous(source: KernelSource) -> str:
    """The text with names numbered in the order in which they come."""
    numbers: dict[str, str] = {}

    def numbered(match: re.Match[str]) -> str:
        word = match[0]
        return numbers.setdefault(word, f"?{len(numbers)}") if word in source.words else word

    text = _COMMENT.sub("", source.text).replace(f" {source.name}(", " ?(")
    return _WORD.sub(numbered, text)


def _alias(source: KernelSource, same: str) -> str:
    head = source.text[: source.text.index("\n) {")]
    return f'{head}\n) __attribute__((alias("{same}")));\n'
