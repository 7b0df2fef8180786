"""The look inside that every module with compiled programs gives: kernels, accounts, one node, checks, choices."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gdsl.codegen.targets import DEFAULT_TARGET, TARGETS
from gdsl.errors import InputError
from gdsl.language import ast
from gdsl.language.program import TypedProgram
from gdsl.look.kernels import LANGUAGES, Kernels
from gdsl.look.short import Explanation, LongText
from gdsl.module.ways import Ran
from gdsl.passes.options import CHOICES, Options
from gdsl.passes.stages import Stage
from gdsl.runtime.graph import Graph
from gdsl.runtime.local import LocalGraph
from gdsl.runtime.recent import graph_of

_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9}


class Inspected(nn.Module):
    """A module that compiles programs."""

    backend: str
    _options: Options  # what was chosen about the passes

    def _choose(self, options: Options) -> None:
        """Take other options, and forget what was compiled with those before."""
        raise NotImplementedError

    def _ran(self) -> tuple[Ran, ...]:
        """What the last call ran, program by program. Raises :class:`gdsl.InputError` where none can be told."""
        raise NotImplementedError

    def _definition(self) -> ast.Layer | None:
        """The text of the layer, if it has one."""
        return None

    def _seen(self, graph: Graph) -> Graph:
        """A graph of the user's as the rules see it."""
        return graph

    def _on(self, ran: Ran, graph: Any) -> Graph:
        """The graph that a program runs on where the user passes this."""
        return self._seen(graph_of(graph, None, None) if type(graph) is Tensor else Graph.from_any(graph))

    def _named_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by the names of ``forward``."""
        found = inspect.signature(self.forward).bind(*args, **kwargs).arguments
        return {**{name: value for name, value in found.items() if name != "kwargs"}, **found.get("kwargs", {})}

    @property
    def program(self) -> TypedProgram:
        """The typed program of the last call; of a layer that is a text, also before any call."""
        return self._ran()[-1].compiled.typed

    @property
    def kernels(self) -> Kernels:
        """The kernels of the last call, forward then backward: name, direction, language, source, bytes, flops."""
        on_gpu = any(ran.backend == "triton" for ran in self._ran())
        return self.kernels_for("triton" if on_gpu else "cpp")

    def kernels_for(self, language: str, target: str = DEFAULT_TARGET) -> Kernels:
        """The kernels in "cpp" or "triton", whatever the layer runs on. No GPU need be there.

        target: "sm_80", "sm_90", "gfx942"...: what ``kernel.asm("ptx")`` and ``kernel.binary`` are for

        Raises :class:`gdsl.InputError` for a language or a target that there is not.
        """
        if language not in LANGUAGES:
            raise InputError(f"there are kernels in {' and '.join(LANGUAGES)}, not in {language!r}")
        if target not in TARGETS:
            raise InputError(f"there is no target {target!r}; there are {', '.join(TARGETS)}")
        device = "cuda" if language == "triton" else "cpu"
        of_all = (ran.on_device(device).inspection.kernels(language, target) for ran in self._ran())
        return Kernels(k for found in of_all for k in found)

    def explain(
        self, graph: Any = None, *, node: int | None = None, inputs: Sequence[Tensor] | None = None
    ) -> Explanation:
        """How the layer is compiled, as text: program, optimised IR, kernels with their costs, what the backward keeps.

        graph:  a graph or ``edge_index``, or of a layer on several these by name: adds the ledger of a compilation for
                it. Each rule that fired, what it saved, what was not fused and why, the schedule, a forecast of
                memory by tensor, and what bounds each kernel
        node:   a target of the graph: shows its messages, weights and result instead, step by step, from the
                reference and from the kernels
        inputs: for ``node``, the tensors of a call in order, without the graph; drawn at random if not given

        Raises :class:`gdsl.InputError` for a node that the graph does not have.
        """
        if node is not None and graph is None:
            raise InputError("explain(graph, node=...) needs the graph")
        shown = []
        for ran in self._ran():
            found = None if graph is None else self._on(ran, graph)
            if node is not None and found is not None:
                from gdsl.module.node import explain_node

                shown.append(explain_node(self, ran.on(found), found, node, inputs))
            else:
                shown.append(_explained(ran if found is None else ran.on(found), found))
        return Explanation("\n\n".join(shown))

    def _repr_html_(self) -> str:
        from gdsl.look import html

        source = getattr(self, "source", None) if "source" in dir(self) else None
        try:
            program = self.program if "program" in dir(self) else None
        except InputError:
            program = None
        return html.layer(self, source, program)

    def check(self, *args: Any, **kwargs: Any) -> Any:
        """Test the layer's derivatives and kernels on your own data: see :mod:`gdsl.look.check`."""
        from gdsl.module.checked import check_module

        return check_module(self, args, kwargs)

    def reproduce(self, *args: Any, path: str | Path | None = None, values: bool = False, **kwargs: Any) -> LongText:
        """A Python file that runs a call of the layer anywhere, and compares it with the reference: for a bug report.

        args, kwargs: of a call, which is made on a copy of the layer; the file has its program, options and graph, and
                      of its tensors sizes, dtypes, strides and flags. Without them it has what is known of the last
                      call: its program and options, on made-up tensors and a made-up graph of about its size
        path:         where to write the file, too
        values:       write the numbers of all tensors; without, there are random ones in their place

        A graph of more than 256 edges is a random one in the file. Raises what the call raises where it comes to no
        program, and :class:`gdsl.InputError` where there is none.
        """
        from gdsl.look.environment import brief
        from gdsl.look.reproduce import written
        from gdsl.module.recorded import recorded_call, recorded_kind

        if values and not (args or kwargs):
            raise InputError("reproduce(values=True) writes the numbers of a call: pass its arguments, too")
        calls = recorded_call(self, args, kwargs) if args or kwargs else recorded_kind(self)
        text = LongText(written(calls, self._get_name(), brief(), values))
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def choose(self, *, memory: int | str | None = None, **choices: str) -> Any:
        """Take choices out of the cost model's hands: ``layer.choose(aggregate="first", memory="64MB")``.

        memory:          the most to keep between the forward and the backward pass, in bytes or as in "64MB": on a
                         graph where it would be more, the backward pass computes it again. None sets no limit
        aggregate:       sum over edges before ("first") or after ("last") products with matrices
        weight_gradient: sum a weight's gradient over "nodes", or over "edges"
        kinds:           of values that a chain of `where` chooses from, compute the one that is "picked", or "all"
        save:            keep "all" that the backward pass can use, or "nothing" and compute it again
        sums:            plain weighted sums by a "kernel" of gdsl's, or as the sparse product of the "vendor": MKL on
                         a CPU, cuSPARSE on a GPU, whose bits may depend on the number of threads
        ties:            "split" the gradient of equal maxima or minima evenly, as torch does and "auto" is, or give it
                         all to the "first", which spares messages that are computed on edges a second computation

        wire:            on a part of a distributed graph, send rows and their gradients as "bfloat16": half the bytes
                         of float32, and three digits

        "auto" gives a choice back. Returns the layer. Raises :class:`gdsl.InputError` for a choice or a value that
        there is not.
        """
        for name, value in choices.items():
            if name not in CHOICES:
                raise InputError(f"there is no choice `{name}`; there are memory, {', '.join(CHOICES)}")
            if value not in CHOICES[name]:
                raise InputError(f"`{name}` is one of {', '.join(CHOICES[name])}, not {value!r}")
        options = replace(self._options, budget=_count_bytes(memory))
        for name, value in choices.items():
            options = options.with_choice(name, value)
        self._choose(options)
        return self


def _explained(ran: Ran, graph: Graph | None) -> str:
    """One program, and its accounts on a graph."""
    found = ran.compiled
    modules = _describe_modules([d.name for d in found.typed.of_role("module") if d.present], found.stages)
    text = ran.inspection.explain() + (f"\n\n== modules ==\n{modules}" if modules else "")
    if graph is None:
        return text
    from gdsl.look.accounts import ledger

    if isinstance(graph, LocalGraph):
        graph = graph.walked
    return text + "\n" + ledger(ran.inspection, graph, ran.kind.dtype)


def _describe_modules(names: Sequence[str], stages: Sequence[Stage]) -> str:
    """A line for each module: whether it is part of the program or runs as it is."""
    # Of a list of modules some may run: "lins.0".
    called = {s.module.split(".")[0]: s.kind for s in stages if s.module is not None}
    how = {
        None: "read into the program",
        "map": "runs as it is, between kernels, on whole tensors",
        "aggregate": "runs as it is, between kernels, on the edges sorted by node",
    }
    return "\n".join(f"    {name}: {how[called.get(name)]}" for name in names)


def _count_bytes(memory: int | str | None) -> int | None:
    """Bytes from a number, or from text such as "64MB"."""
    if isinstance(memory, str):
        text, unit = memory[:-2].strip(), memory[-2:]
        if unit in _UNITS and text.isdigit():
            return int(text) * _UNITS[unit]
    elif memory is None or (isinstance(memory, int) and not isinstance(memory, bool) and memory >= 0):
        return memory
    raise InputError(f'`memory` is a number of bytes, or text such as "64MB", not {memory!r}')
