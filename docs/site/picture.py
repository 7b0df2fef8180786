"""The picture of the README: a program, a loop of its kernel, and what fusing was measured to save.

    python -m docs.site.picture > docs/picture.svg

The loop is of the code that the compiler makes of the README's program, the bars are of
``benchmarks/results/layers.json``.
"""

from __future__ import annotations

import json
import re
import sys
from html import escape
from pathlib import Path

import gdsl

REPOSITORY = Path(__file__).resolve().parents[2]
INK, PALE, OURS, THEIRS = "#1f2328", "#f6f8fa", "#2563eb", "#9aa4b2"
NAMES = {"gdsl": "gdsl", "pyg": "torch_geometric", "dgl": "DGL"}
LINE = 15


def program() -> str:
    """The first program of the README, without its comments."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r'SOURCE = """\n(.*?)"""', readme, re.DOTALL)
    return "\n".join(re.sub(r"\s+#.*", "", line) for line in text.splitlines())


def walk(text: str) -> str:
    """The loop of the C++ kernel that makes the messages and adds them up, without hints to the processor."""
    kernels = gdsl.compile(text, in_channels=16, out_channels=32).kernels
    kernel = next(k for k in kernels if "exp(" in k.source)
    lines = kernel.source.splitlines()
    first = max(k for k, line in enumerate(lines) if "for (int64_t e = begin" in line)
    indent = len(lines[first]) - len(lines[first].lstrip())
    last = next(k for k in range(first, len(lines)) if lines[k] == " " * indent + "}")
    kept = [line[indent:] for line in lines[first : last + 1] if "ahead" not in line and "#pragma" not in line]
    return "\n".join(line.replace("__restrict__ ", "") for line in kept)


def measured() -> list[tuple[str, float, float]]:
    """Who, milliseconds and megabytes of GAT's forward + backward."""
    found = json.loads((REPOSITORY / "benchmarks" / "results" / "layers.json").read_text(encoding="utf-8"))
    rows = {row["implementation"]: row for row in found["results"] if row["layer"] == "GAT"}
    return [(NAMES[by], rows[by]["both"]["ms"], rows[by]["memory"]["both"]["mb"]) for by in NAMES]


def code(x: int, y: int, text: str) -> str:
    rows = (
        f'<tspan x="{x}" y="{y + k * LINE}" xml:space="preserve">{escape(line)}</tspan>'
        for k, line in enumerate(text.splitlines())
    )
    return f'<text class="code">{"".join(rows)}</text>'


def box(x: int, width: int, title: str, inside: str, height: int) -> str:
    frame = f'<rect x="{x}" y="34" width="{width}" height="{height}" rx="6" fill="{PALE}" stroke="#d0d7de"/>'
    return f'<text class="title" x="{x}" y="22">{escape(title)}</text>{frame}{inside}'


def bars(x: int, y: int, title: str, unit: str, values: list[tuple[str, float]], width: int) -> str:
    most = max(value for _, value in values)
    parts = [f'<text class="small" x="{x}" y="{y}">{escape(title)}</text>']
    for k, (who, value) in enumerate(values):
        top, long = y + 10 + 22 * k, max(2.0, width * value / most)
        color = OURS if who == "gdsl" else THEIRS
        parts.append(f'<rect x="{x}" y="{top}" width="{long:.1f}" height="14" fill="{color}"/>')
        place = f'x="{x + long + 5:.1f}" y="{top + 11}"'
        parts.append(
            f'<text class="small" {place}>{escape(who)} {value:{",.0f" if value >= 10 else ".1f"}} {unit}</text>'
        )
    return "".join(parts)


def picture() -> str:
    text, times = program(), measured()
    loop = walk(text)
    height = LINE * max(len(part.splitlines()) for part in (text, loop)) + 18
    left = box(10, 416, "A layer is text.", code(20, 54, text), height)
    middle = box(456, 446, "gdsl writes its kernels. A loop of one, in C++:", code(466, 54, loop), height)
    time = bars(942, 60, "GAT, forward + backward", "ms", [(who, ms) for who, ms, _ in times], 120)
    memory = bars(942, 152, "memory that this adds", "MB", [(who, mb) for who, _, mb in times], 120)
    right = box(932, 290, "Measured: a million edges, two cores", time + memory, height)
    arrows = "".join(f'<path d="M{x} 130 h16 m-6 -5 l6 5 l-6 5" fill="none" stroke="{INK}"/>' for x in (433, 909))
    style = (
        f"text {{ fill: {INK}; }} .code {{ font: 10.6px ui-monospace, monospace; }} "
        ".small { font: 12px sans-serif; } .title { font: bold 13px sans-serif; fill: #57606a; }"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1232 {height + 44}" role="img">'
    title = "<title>A layer as text, a loop of its fused kernel, and measured time and memory</title>"
    back = '<rect width="100%" height="100%" fill="white"/>'
    return f"{head}{title}<style>{style}</style>{back}{left}{middle}{right}{arrows}</svg>\n"


if __name__ == "__main__":
    sys.stdout.write(picture())
