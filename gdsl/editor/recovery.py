"""A text with mistakes as far as it parses, and what could stand at a place in it: by the parser's own tables.

Where a token does not fit, the statement around it is left out, and a block that is never closed ends with the text.
So an editor knows the names and the types of a layer while one of its lines is being written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import lark
from lark.parsers.lalr_analysis import Shift

from gdsl.editor.tokens import Token, tokens
from gdsl.language import ast
from gdsl.language.errors import Mistake
from gdsl.language.parse import parser

# So many statements that the tree builder refuses are left out one by one; a text with more has no layers.
_MOST_REFUSED = 50
_END = "$END"

# The states of the automaton, the innermost one last.
Stack = tuple[int, ...]


@functools.cache
def _table() -> Any:
    """The tables of the LALR automaton: ``states[state][terminal]`` is an action."""
    return parser().parse_interactive("").parser_state.parse_conf


def _start() -> Stack:
    return (_table().start_state,)


def _fed(stack: Stack, kind: str) -> Stack | None:
    """The automaton after one more token, or None where it does not fit."""
    states, changed = _table().states, list(stack)
    while True:
        action, argument = states[changed[-1]].get(kind, (None, None))
        if action is None:
            return None
        if action is Shift:
            return (*changed, argument)
        if argument.expansion:
            del changed[-len(argument.expansion) :]
        changed.append(states[changed[-1]][argument.origin.name][1])
        if changed[-1] == _table().end_state:
            return tuple(changed)


def _is_between(stack: Stack) -> bool:
    """Whether this is a state between two statements, or between two layers."""
    row = _table().states[stack[-1]]
    return any(row.get(kind, (None,))[0] is Shift for kind in ("RETURN", "LAYER"))


class _Mending:
    """Goes through tokens and leaves out the statements that do not fit.

    indices: of the tokens that are kept, None for a brace that was missing
    stack:   the automaton after them
    starts:  of those indices, where a statement or a layer starts, and the automaton there
    """

    def __init__(self) -> None:
        self.indices: list[int | None] = []
        self.stack = _start()
        self.starts = [(0, self.stack)]

    def take(self, index: int | None, kind: str) -> bool:
        after = _fed(self.stack, kind)
        if after is None:
            return False
        if _is_between(after[:-1]):
            self.starts.append((len(self.indices), after[:-1]))
        self.indices.append(index)
        self.stack = after
        return True

    def back(self) -> None:
        """To before the statement that is being read."""
        count, self.stack = self.starts.pop() if len(self.starts) > 1 else self.starts[0]
        del self.indices[count:]

    def go(self, kinds: Sequence[str], left_out: Collection[int]) -> None:
        for k, kind in enumerate(kinds):
            if k in left_out or self.take(k, kind):
                continue
            if not _is_between(self.stack):
                self.back()  # without that the token may start the next statement
            # In `a = b +` and `c = d` on the next line, what does not fit is the second `=`.
            if kind == "EQUAL" and k and kinds[k - 1] == "NAME" and k - 1 not in left_out and _is_between(self.stack):
                self.take(k - 1, "NAME")
            while not self.take(k, kind) and kind == "LAYER" and self.take(None, "RBRACE"):
                pass

    def close(self) -> None:
        """The end of the text: the statement that it breaks off is left out, and open blocks are closed."""
        if _fed(self.stack, "RBRACE") is None and _fed(self.stack, _END) is None:
            self.back()
        while _fed(self.stack, _END) is None and self.take(None, "RBRACE"):
            pass


def trees_of(text: str) -> tuple[ast.Layer | ast.Use, ...]:
    """The layers of a text and what it uses, without the statements that do not parse."""
    found = list(tokens(text))
    kinds = [token.kind for token in found]
    left_out: set[int] = set()
    for _ in range(_MOST_REFUSED):
        mending = _Mending()
        mending.go(kinds, left_out)
        mending.close()
        try:
            return _built(text, found, mending)
        except _Refused as refused:
            left_out |= refused.tokens
    return ()


class _Refused(Exception):
    """The tree builder refuses a statement that fits the grammar: these are its tokens."""

    def __init__(self, tokens: set[int]):
        self.tokens = tokens


def _built(text: str, found: Sequence[Token], kept: _Mending) -> tuple[ast.Layer | ast.Use, ...]:
    parsing, place = parser().parse_interactive(""), _placer(text)
    starts = {k for k, _ in kept.starts}
    end, statement = 0, set[int]()
    try:
        for k, index in enumerate(kept.indices):
            token = found[index] if index is not None else Token("RBRACE", "}", end)
            parsing.feed_token(place(token))
            end = token.end
            # A statement is built with the token after it.
            statement = set() if k in starts else statement
            statement |= {index} if index is not None else set()
        trees: Any = parsing.feed_eof()
    except Mistake:
        raise _Refused(statement) from None
    return trees


def _placer(text: str) -> Callable[[Token], lark.Token]:
    """Tokens as lark has them. Lines are counted on from the token before."""
    line, start, seen = 1, 0, 0

    def place(token: Token) -> lark.Token:
        nonlocal line, start, seen
        count = text.count("\n", seen, token.start)
        if count:
            line, start = line + count, text.rfind("\n", seen, token.start) + 1
        seen = token.start
        return lark.Token(token.kind, token.text, token.start, line, token.start - start + 1, end_pos=token.end)

    return place


def expected(before: Sequence[Token]) -> frozenset[str]:
    """The terminals that could come after these tokens."""
    mending = _Mending()
    mending.go([token.kind for token in before], ())
    row = _table().states[mending.stack[-1]]
    return frozenset(kind for kind in row if kind.isupper() and _fed(mending.stack, kind) is not None)
