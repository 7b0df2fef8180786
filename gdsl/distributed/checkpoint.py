"""A model in training, written by all processes and read by any number of them: ``torch.distributed.checkpoint``.

Folders ``step-<n>`` appear when they are whole. Values of nodes lie there in the order of the whole graph.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from gdsl.data import given
from gdsl.distributed.part import GraphPart
from gdsl.distributed.processes import agreeing
from gdsl.distributed.ranges import Ranges, ranges_of
from gdsl.errors import InputError
from gdsl.runtime.answers import answered, place

VERSION = 1
MARKER = "gdsl.json"

# Each tensor of an optimizer has a name of its own, so that one of rows is told by the parameter that it belongs to.
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


class Checkpoint(NamedTuple):
    """What was read: the step it was written after, what went with it, and its folder."""

    step: int
    extra: Any
    path: Path


class Training:
    """What a checkpoint holds.

    model, optimizer  parameters are the same on all processes, but for ``rows``
    rows    names of parameters of which each process has the rows of its own nodes; of several types of nodes a
            dictionary of their types, also of those in ``nodes``
    nodes   other such tensors by name; they are written to when a checkpoint is read
    part    the graph's part here, where there are rows of nodes
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        rows: Any = (),
        nodes: Mapping[str, Tensor] | None = None,
        part: GraphPart | None = None,
        group: ProcessGroup | None = None,
    ):
        self.model, self.optimizer, self.part = model, optimizer, part
        self.group = part.group if group is None and part is not None else group
        self.nodes = dict(nodes or {})
        self.rows: dict[str, str] = {}
        self._ranges: dict[str, Ranges] = {}
        with agreeing("what a checkpoint holds", self.group) as found:
            self.rows = dict(rows) if isinstance(rows, Mapping) else dict.fromkeys(given.names("rows", rows), "")
            self._check()
            found["value"] = (sorted(self.rows), sorted(self.nodes), None if part is None else part.fingerprint)

    def _check(self) -> None:
        if self.part is None:
            if self.rows or self.nodes:
                raise InputError("rows of nodes need part=, which says whose they are")
            return
        known: dict[str, Any] = get_model_state_dict(self.model) | self.nodes
        for name in {**self.rows, **self.nodes}:
            if name not in known:
                raise InputError(f"there is nothing named {name!r} in the model, of which rows= speaks")
            own, value = self.part.node_ids(self.rows.get(name) or None), known[name]
            if not isinstance(value, Tensor) or not value.dim() or len(value) != len(own):
                raise InputError(f"{name!r} must have a row for each of the {len(own)} nodes that are owned here")

    @property
    def begun(self) -> bool:
        """Whether the optimizer has a state, which it makes in its first step."""
        return self.optimizer is not None and bool(self.optimizer.state)

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """By name, with tensors as they are here."""
        found: dict[str, Any] = {f"model.{name}": v for name, v in get_model_state_dict(self.model).items()}
        if self.optimizer is not None:
            begun = self.begun
            flat = get_optimizer_state_dict(self.model, self.optimizer, options=_FLAT)
            if not begun:
                # torch has made it by a step of its own, after which a first step would be a second.
                self.optimizer.state.clear()
            found |= {f"optimizer.{name}": value for name, value in flat.items()}
        return found | {f"nodes.{name}": value for name, value in self.nodes.items()}

    def put(self, state: Mapping[str, Any], begun: bool) -> None:
        """Of the form that ``state`` gives; the optimizer is one before its first step unless it had ``begun``."""
        parts: dict[str, dict[str, Any]] = {"model": {}, "optimizer": {}, "nodes": {}}
        for name, value in state.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = value
        set_model_state_dict(self.model, parts["model"])
        if self.optimizer is not None:
            set_optimizer_state_dict(self.model, self.optimizer, parts["optimizer"], options=_FLAT)
            if not begun:
                self.optimizer.state.clear()
        with torch.no_grad():
            for name, value in parts["nodes"].items():
                self.nodes[name].copy_(value)

    def type_of_rows(self, name: str, value: Any) -> str | None:
        """The type of the nodes whose rows a tensor of the state has; None where it has none."""
        kind, _, rest = name.partition(".")
        if not isinstance(value, Tensor) or not value.dim():
            return None
        if kind == "nodes":
            return self.rows.get(rest, "")
        for parameter, type in self.rows.items():
            # Of the optimizer's as well, such as "state.embedding.exp_avg"; a count of steps is a number.
            if rest == parameter or (kind == "optimizer" and rest.startswith(f"state.{parameter}.")):
                return type
        return None

    def ranges(self, type: str) -> Ranges:
        """Every process must ask for it."""
        assert self.part is not None
        if type not in self._ranges:
            own = self.part.node_ids(type or None)
            self._ranges[type] = ranges_of(own, self.part.num_nodes(type or None), self.group)
        return self._ranges[type]

    @property
    def graph(self) -> str | None:
        """What tells the graph from others, however it is divided."""
        return None if self.part is None else self.part.fingerprint.partition(":")[0]


def save_checkpoint(
    folder: str | Path, step: int, training: Training, extra: Any = None, keep: int | None = 2
) -> Path:
    """Write ``step-<step>`` in a folder that all processes share; all of them must call it.

    extra: what goes with it, of the same value everywhere: numbers, texts, lists and dictionaries
    keep:  how many of the newest are kept; None for all

    It appears when it is whole: a process that dies leaves the ones before. Raises ``InputError`` on every process
    where it cannot be written, ``DistributedError`` where a process does not answer.
    """
    rank = place(training.group)[0]
    with agreeing("the checkpoint that is written", training.group) as found:
        root, number = given.path(folder), given.count("step", step, 0)
        most = given.count_or_none("keep", keep, 1)
        found["value"] = (number, _as_text(extra))
    temporary, final = root / f".step-{number}.partial", root / f"step-{number}"
    with agreeing("the folder", training.group):
        if rank == 0:
            _make(temporary)
    with agreeing("the folder", training.group):
        if not temporary.is_dir():
            raise InputError(f"{root} is not shared: this process does not see what process 0 has made there")
    with _stored("written", training.group):
        begun = training.begun
        state = {name: _to_range(training, name, value) for name, value in training.state().items()}
        writer = dcp.FileSystemWriter(temporary)
        dcp.save(state, storage_writer=writer, process_group=training.group, no_dist=place(training.group)[1] == 1)
    with agreeing("the checkpoint that is written", training.group):
        if rank == 0:
            _finish(temporary, final, {"step": number, "extra": extra, "graph": training.graph, "begun": begun}, most)
    return final


def load_checkpoint(folder: str | Path, training: Training) -> Checkpoint | None:
    """Read the newest one of a folder, into the same model, optimizer and tensors, on any number of processes; all of
    them must call it. None where there is none.

    Nothing is changed where it does not fit. Raises ``InputError`` on every process where it is of another graph or
    another model, or is damaged. Its files are read by ``torch.load``, and its list of them by ``pickle``: read none
    that others could have written.
    """
    with agreeing("the newest checkpoint", training.group) as found:
        path = newest(given.path(folder))
        found["value"] = None if path is None else path.name
    if path is None:
        return None
    with agreeing("the checkpoint", training.group):
        about = _marker(path)
        if about["graph"] != training.graph:
            raise InputError(f"{path} is of another graph, or of none")
    with _stored("read", training.group):
        now = training.state()
        state = {name: _to_range(training, name, value, empty=True) for name, value in now.items()}
        reader = dcp.FileSystemReader(path)
        dcp.load(state, storage_reader=reader, process_group=training.group, no_dist=place(training.group)[1] == 1)
        found = {name: _from_range(training, name, now[name], value) for name, value in state.items()}
        training.put(found, about["begun"])
    return Checkpoint(about["step"], about["extra"], path)


def newest(folder: Path) -> Path | None:
    """The checkpoint of a folder after the most steps, of those that are whole."""
    # One that was put aside counts where the process died that was to put another in its place.
    found = [(step, whole, p) for p in _folders(folder) for step, whole in [_step(p)] if step is not None]
    return max(found)[2] if found else None


def _folders(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _step(path: Path) -> tuple[int | None, bool]:
    """After how many steps a checkpoint was written, and whether it has its name still; None of other folders."""
    found = re.fullmatch(r"step-(\d+)|\.step-(\d+)\.old", path.name)
    return (int(found[1] or found[2]), bool(found[1])) if found else (None, False)


# -- rows -------------------------------------------------------------------------------------------


def _to_range(training: Training, name: str, value: Any, empty: bool = False) -> Any:
    """A value as it is stored; with ``empty`` a place for it."""
    type = training.type_of_rows(name, value)
    if type is None:
        return value.detach().clone() if empty and isinstance(value, Tensor) else value
    ranges = training.ranges(type)
    rows = value.detach().cpu()
    part = rows.new_empty((ranges.count, *rows.shape[1:])) if empty else ranges.to_range(rows)
    if place(training.group)[1] == 1:
        return part
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor, Shard

    group = training.group or dist.distributed_c10d._get_default_group()
    shape = torch.Size((ranges.total, *rows.shape[1:]))
    stride = torch.empty(shape, device="meta").stride()
    mesh = DeviceMesh.from_group(group, "cpu")
    return DTensor.from_local(part, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)


def _from_range(training: Training, name: str, before: Any, value: Any) -> Any:
    type = training.type_of_rows(name, before)
    if type is None:
        return value
    part = value.to_local() if hasattr(value, "to_local") else value
    return training.ranges(type).from_range(part).to(before.device)


# -- folders ----------------------------------------------------------------------------------------


def _make(temporary: Path) -> None:
    try:
        for left in _folders(temporary.parent):
            if re.fullmatch(r"\.step-\d+\.partial", left.name):  # by a run that died
                shutil.rmtree(left)
        temporary.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{temporary} cannot be made, where a checkpoint is to be written: {error}") from None


def _finish(temporary: Path, final: Path, about: dict[str, Any], keep: int | None) -> None:
    """Name what is written, and take away what is old."""
    try:
        sizes = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
        with open(temporary / MARKER, "w") as out:
            json.dump({"version": VERSION, "files": sizes} | about, out)
            out.flush()
            os.fsync(out.fileno())
        if final.exists():
            old = final.with_name(f".{final.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            final.replace(old)
        temporary.replace(final)
        for path in _superseded(final, keep):
            shutil.rmtree(path)
    except OSError as error:
        raise InputError(f"{final} cannot be written: {error}") from None


def _superseded(final: Path, keep: int | None) -> list[Path]:
    """What a new checkpoint makes needless: itself never, though it be of fewer steps than others."""
    others = [(*_step(path), path) for path in _folders(final.parent) if path != final]
    aside = [path for step, whole, path in others if step is not None and not whole]
    older = [path for _, path in sorted((step, path) for step, whole, path in others if step is not None and whole)]
    return aside if keep is None else aside + older[: max(len(older) + 1 - keep, 0)]


def _marker(path: Path) -> dict[str, Any]:
    """What is said of a checkpoint, whose files are there and as long as they were."""
    try:
        about = json.loads((path / MARKER).read_text())
        if about["version"] != VERSION:
            raise InputError(f"{path} is of version {about['version']}, and {VERSION} is read")
        wrong = [n for n, size in about["files"].items() if not _is_of(path / n, size)]
        if wrong:
            raise InputError(f"{path} is damaged: {wrong[0]} is missing or cut short; delete the folder")
        # One before its first step was not told from others at first.
        return {name: about[name] for name in ("step", "extra", "graph")} | {"begun": about.get("begun", True)}
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is no checkpoint, or is damaged ({type(error).__name__}: {error})") from None


def _is_of(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _as_text(extra: Any) -> str:
    try:
        return json.dumps(extra, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"extra must be numbers, texts, lists and dictionaries of them: {error}") from None


@contextmanager
def _stored(what: str, group: ProcessGroup | None) -> Iterator[None]:
    """torch's own errors about a checkpoint, which it raises on every process, as ``InputError``."""
    try:
        with answered("a checkpoint"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own old ways
            yield
    except dcp.api.CheckpointException as error:
        first = next(iter(error.failures.values()))[0]
        raise InputError(f"the checkpoint cannot be {what}: {first}") from error
    except (KeyError, ValueError) as error:
        raise InputError(f"the checkpoint cannot be {what}: {error}") from error
