"""The page of findings, from the headers of the scripts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "findings"
_ROW = re.compile(r"^\| \[([\w-]+)\]\(\1\.sh\) \| (.*) \| (.*) \|$", re.MULTILINE)
HEAD = """# Findings

What public libraries of our field do that a good engineer would not guess. Each is a script that installs the pinned
packages into a temporary folder, runs them on valid input without gdsl, prints what it sees, and fails if that has
changed: `bash findings/NAME.sh`.
"""


@dataclass(frozen=True)
class Finding:
    """The header of a script.

    package:  the library with its version, `torch_geometric 2.8.1`
    said:     what it does, and who meets it
    versions: what the output was seen with
    output:   what the script prints
    """

    name: str
    package: str
    said: str
    versions: str
    output: str


def read(path: Path) -> Finding:
    """The header of a script. Raises ValueError, with what is missing, for one of another form."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line[1:])
    text = "\n".join(comment)
    said, found, seen = text.partition("\n\n Seen with ")
    head = re.match(r" ([\w. ]+?\d+\.\d[\w.]*(?: with [\w]+ [\d.]+)?)([^:]*): ", said)
    if not head:
        raise ValueError(f"{path.name}: it does not begin with a package, its version and a colon")
    versions, colon, output = seen.partition(":\n")
    if not found or not colon or not output.strip():
        raise ValueError(f"{path.name}: it does not say `Seen with` versions, and below it the output")
    shown = "\n".join(line.removeprefix("   ") for line in output.splitlines())
    words = " ".join(said[head.end() :].split())
    return Finding(path.stem, head[1] + head[2], words[0].upper() + words[1:], versions, shown)


def scripts() -> list[Path]:
    return sorted(path for path in FOLDER.glob("*.sh") if path.name != "lib.sh")


def listed() -> dict[str, tuple[str, str]]:
    """What findings/README.md says of each script: what it shows, and what gdsl does."""
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    return {name: (shows, does) for name, shows, does in _ROW.findall(page)}


def pages() -> dict[str, str]:
    rows, parts, table = listed(), [], []
    for found in map(read, scripts()):
        shows, does = rows[found.name]
        title = found.name.replace("-", " ").capitalize()
        table.append(f"| [{title}](#{found.name}) | {found.package} | {shows} |")
        parts.append(
            f"({found.name})=\n## {title}\n\n**{found.package}.** {found.said}\n\n"
            f"Seen with {found.versions}:\n\n```text\n{found.output}\n```\n\n"
            f"In gdsl: {_linked(does)}.\n"
        )
    head = [HEAD, "| finding | package | shows |\n|---|---|---|\n" + "\n".join(table) + "\n"]
    return {"findings.md": "\n".join([*head, *parts])}


def _linked(text: str) -> str:
    return re.sub(r"docs/(\w+)\.md", r"[\1](../\1.md)", text)
