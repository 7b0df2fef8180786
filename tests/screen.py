"""Whether what is shown fits a screen, as text and as a page."""

from __future__ import annotations

from html.parser import HTMLParser

LINES, COLUMNS = 40, 120

_BLOCKS = frozenset({"div", "tr", "summary", "pre", "details", "b", "table"})
_VOID = frozenset({"br", "hr", "img"})
_TAGS = _BLOCKS | {"td", "th", "span"}


def fits(text: str) -> bool:
    """Whether a text has no more lines than a screen, counting those that it breaks."""
    return sum(max(len(line) - 1, 0) // COLUMNS + 1 for line in text.splitlines()) <= LINES


class Page(HTMLParser):
    """A piece of a page. Raises AssertionError where it is not well formed, or has what only a text of a user's would
    bring.

    shown: its words that are seen before anything is unfolded; words: all of them
    """

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.shown: list[str] = []
        self.words: list[str] = []
        self.folds: list[bool] = []  # of the `details` that are open here, whether they are folded
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _TAGS, tag
        assert {name for name, _ in attrs} <= {"style", "open"}
        assert tag not in _VOID
        self.open.append(tag)
        if tag == "details":
            self.folds.append(("open", None) not in attrs)
        self.at_line(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "details":
            self.folds.pop()
        self.at_line(tag)

    def at_line(self, tag: str) -> None:
        if tag in _BLOCKS and not self.hidden:
            self.shown.append("\n")

    @property
    def hidden(self) -> bool:
        """The summary of a `details` is seen, unless that is in one that is folded itself."""
        folded = self.folds[:-1] if "summary" in self.open[-2:] else self.folds
        return any(folded)

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if not self.hidden:
            self.shown.append(data)


def visible(html: str) -> int:
    """How many lines of a page are seen before anything is unfolded. A scrolling part counts with all its lines."""
    return len([line for line in "".join(Page(html).shown).split("\n") if line.strip()])
