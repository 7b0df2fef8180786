"""``gdsl explore``: start the server, or write one file that needs none."""

from __future__ import annotations

import json
import os
import sys
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gdsl.errors import CommandError
from gdsl.explore import page
from gdsl.explore.reading import Settings, read
from gdsl.language.format import default_value
from gdsl.language.imports import Folder
from gdsl.language.parse import parse
from gdsl.language.program import Constant, ConstantTable
from gdsl.look.show import values_of

EXAMPLE = """\
# Graph attention, to begin with: change anything.
layer Attention(in_channels, out_channels) {
    param weight[in_channels, out_channels] ~ glorot
    param query[out_channels]               ~ glorot
    node  x[in_channels]

    h     = x @ weight                                # a value per node
    score = leaky_relu((h @ query)[i] + (h @ query)[j], 0.2)
    message   m = softmax(score) * h[j]               # a value per edge j -> i
    aggregate a = sum(m)                              # over the edges into i
    update    y = relu(a)
}
"""


def beginning(
    text: str,
    name: str,
    layer: str | None,
    settings: Sequence[str],
    inputs: Sequence[str],
    folder: Path | None = None,
) -> dict[str, Any]:
    """What a page begins with. Settings and inputs are checked where the text can be read.

    folder: where the files are that the text uses
    """
    text = as_in_a_browser(text)
    found = read(text, Settings(folder=folder))
    values: dict[str, str] = {}
    if settings and found.layers:
        given = values_of(settings, parse(text, files=None if folder is None else Folder(folder)).layers)
        values = {name: _as_text(value) for name, value in given.items()}
    if layer is not None and found.layers and layer not in found.layers:
        raise CommandError(f"the file has no layer `{layer}`; it has {', '.join(found.layers)}")
    chosen = {"layer": layer, "values": values, "inputs": list(inputs)}
    return {"text": text, "name": name, "settings": chosen, "server": True}


def _as_text(value: Constant) -> str:
    """A setting as a page gives it back."""
    return json.dumps(value.nested()) if isinstance(value, ConstantTable) else default_value(value)


def as_in_a_browser(text: str) -> str:
    """With the line ends that a browser gives what is typed into it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def write(start: dict[str, Any], file: str, folder: Path | None = None) -> None:
    """Write the page with its files and the whole view inside."""
    from gdsl.explore.machines import machines
    from gdsl.explore.reading import settings_of
    from gdsl.explore.view import whole

    view = whole(start["text"], settings_of(start["settings"], folder))
    text = page.single({**start, "server": False, "view": view, "machines": machines()})
    Path(file).write_text(text, encoding="utf-8")
    print(f"{file}: {len(text) / 1e6:.1f} MB, opens without a server")


def serve(
    start: dict[str, Any],
    again: Callable[[], str] | None,
    host: str,
    port: int,
    browser: bool,
    folder: Path | None = None,
) -> None:
    """Serve the page until the process is stopped. Raises :class:`CommandError` without the extra that it needs.

    again: reads the file that was given once more, so that the page follows another editor
    """
    try:
        from gdsl.explore import server
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise CommandError(f"{error.name} is not installed: pip install 'gdsl[explore]'") from error
    if not server.is_loopback(host):
        print(f"gdsl: whoever reaches {host} can have this machine compile texts", file=sys.stderr)

    def opened(address: str) -> None:
        print(f"gdsl explore: {address}   (Ctrl-C ends it)", flush=True)
        if browser and (sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            webbrowser.open(address)

    read_again = None if again is None else lambda: as_in_a_browser(again())
    server.serve({**start, "watched": again is not None}, read_again, host, port, opened, folder)
