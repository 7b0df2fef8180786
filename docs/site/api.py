"""Pages of the public names, by module: signatures and docstrings, which Sphinx reads from the code."""

from __future__ import annotations

import inspect
from importlib import import_module

import gdsl.nn
from tests.parity import catalogue

# Modules with names of their own, and the pages that tell what they are for.
GUIDES = {
    "gdsl": "What is imported as `gdsl`: see [A layer from paper to trained model](../../learn/first-layer.md).",
    "gdsl.data": "Data sets, loaders and samplers: see [the guide](../../data.md).",
    "gdsl.distributed": "One graph on several processes: see [the guide](../../distributed.md).",
}


def pages() -> dict[str, str]:
    texts = {f"api/{name}.md": _page(name, said, _public(import_module(name))) for name, said in GUIDES.items()}
    for name in catalogue.PARTS:
        here = [(f"gdsl.nn.{n}", getattr(gdsl.nn, n)) for n in catalogue.names_of(name) if n in gdsl.nn._HOMES]
        if here:
            texts[f"api/gdsl.nn.{name}.md"] = _page(
                f"gdsl.nn.{name}", "Each is torch_geometric's of the same name.", here
            )
    own = [(f"gdsl.nn.{n}", getattr(gdsl.nn, n)) for n in ("MessagePassing", "convert", "convertible")]
    texts["api/gdsl.nn.md"] = _page("gdsl.nn", "Layers have [pages of their own](../../layers.md).", own)
    listed = "\n".join(f"{name.removeprefix('api/').removesuffix('.md')}" for name in sorted(texts))
    texts["api/index.md"] = f"# API\n\nSignatures and docstrings.\n\n```{{toctree}}\n{listed}\n```\n"
    return texts


def _public(module: object) -> list[tuple[str, object]]:
    name = module.__name__
    return [(f"{name}.{n}", getattr(module, n)) for n in module.__all__]


def _page(title: str, said: str, names: list[tuple[str, object]]) -> str:
    parts = [f"# {title}\n\n{said}\n"]
    parts += [f"## {name.rpartition('.')[2]}\n\n{entry(name, value)}" for name, value in names]
    return "\n".join(parts)


def entry(name: str, value: object, members: str | None = None) -> str:
    """A function, or a class with its public methods, or those that are named. What modules of gdsl.nn have from bases
    that all of them have is told once, of gdsl.Layer."""
    if not inspect.isclass(value):
        return f"```{{eval-rst}}\n.. autofunction:: {name}\n```\n"
    if members is None:
        inherited = "" if name.startswith("gdsl.nn.") else "   :inherited-members: Module\n"
        members = "" if issubclass(value, Exception) else f"   :members:\n{inherited}"
    return f"```{{eval-rst}}\n.. autoclass:: {name}\n{members}```\n"
