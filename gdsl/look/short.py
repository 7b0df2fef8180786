"""What a prompt shows: never more than a screen."""

from __future__ import annotations

from collections.abc import Sequence

from gdsl.html import folded, page, text

LINES, COLUMNS = 24, 100


def short(words: str, lines: int = LINES, columns: int = COLUMNS) -> str:
    """A text with its middle left out where it has more lines, and the ends of lines that are longer."""
    found = words.splitlines()
    if len(found) > lines:
        head = lines * 2 // 3
        tail = lines - head - 1
        left_out = f"... {len(found) - head - tail} more lines ..."
        indent = len(found[head]) - len(found[head].lstrip())
        found = [*found[:head], " " * indent + left_out, *found[len(found) - tail :]]
    return "\n".join(line if len(line) <= columns else line[: columns - 3] + "..." for line in found)


class LongText(str):
    """A text of which a prompt shows the start and the end, and a notebook lets the rest unfold."""

    __slots__ = ()

    def __repr__(self) -> str:
        return short(str(self).strip()) + "\n(print it to see all)"

    def _repr_html_(self) -> str:
        lines = self.splitlines()
        return page(f"{len(lines)} lines", folded(short("".join(lines[:1])), text(self)))


class Explanation(LongText):
    """What ``explain`` gives. A notebook shows its parts."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        before = "".join(text(words) for title, words in self.parts if not title)
        parts = [folded(title, text(words)) for title, words in self.parts if title]
        return page("explanation", before, *parts)

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """Its parts: a title and a text each. What stands before the first title has the title ``""``."""
        found: list[tuple[str, list[str]]] = [("", [])]
        for line in self.splitlines():
            if line.startswith("== ") and line.endswith(" =="):
                found.append((line.strip("= "), []))
            else:
                found[-1][1].append(line)
        return tuple((title, "\n".join(lines).strip("\n")) for title, lines in found if title or any(lines))


def rows(items: Sequence[object], lines: int = LINES) -> str:
    """A list with one item a line, as far as a screen goes."""
    return short("[" + ",\n ".join(map(repr, items)) + "]", lines)
