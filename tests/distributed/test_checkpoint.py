"""Checkpoints: written by some processes, read by another number of them; half-written ones do not count."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gdsl.distributed import Training, average_gradients, load_checkpoint, partition, save_checkpoint
from gdsl.distributed.checkpoint import newest
from tests.distributed.pool import Pool
from tests.distributed.processes import CaseError

NODES = 11


class Model(nn.Module):
    """Rows of nodes, and a layer that all processes share."""

    def __init__(self, rows: Tensor):
        super().__init__()
        self.rows = nn.Parameter(rows)
        self.linear = nn.Linear(3, 2).double()

    def forward(self) -> Tensor:
        return self.linear(self.rows.tanh())  # type: ignore[no-any-return]


class Run:
    """A model in training on a ring of nodes, which moves a value of nodes along as well."""

    def __init__(self, group: Any, folder: str, nodes: int = NODES):
        ring = torch.arange(nodes)
        self.part = partition(torch.stack([ring, (ring + 1) % nodes]), how="hash", group=group)
        random = torch.Generator().manual_seed(1)
        x, self.y = torch.randn(nodes, 3, generator=random).double(), torch.randn(nodes, 2, generator=random).double()
        torch.manual_seed(7)
        self.model = Model(self.part.scatter(x))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.history = torch.zeros(len(self.part.node_ids()), dtype=torch.float64)
        self.folder = folder
        self.training = Training(self.model, self.optimizer, ["rows"], {"history": self.history}, self.part, group)

    def steps(self, count: int) -> None:
        target = self.part.scatter(self.y)
        for _ in range(count):
            self.optimizer.zero_grad()
            losses = (self.model() - target).square().sum(dim=1)
            self.part.mean(losses).backward()
            average_gradients(self.model, ["rows"], self.part.group)
            self.optimizer.step()
            self.history += losses.detach()

    def state(self) -> dict[str, Tensor]:
        moments = self.optimizer.state[self.model.rows]["exp_avg"]
        return {
            "rows": self.part.gather(self.model.rows.detach()),
            "moments": self.part.gather(moments),
            "history": self.part.gather(self.history),
            "weight": self.model.linear.weight.detach().clone(),
            "weight's": self.optimizer.state[self.model.linear.weight]["exp_avg_sq"].clone(),
        }


def trained(group: Any, folder: str, steps: int, save: bool) -> dict[str, Tensor]:
    run = Run(group, folder)
    run.steps(steps)
    if save:
        save_checkpoint(folder, steps, run.training, extra={"epoch": 3})
    return run.state()


def resumed(group: Any, folder: str, steps: int) -> Any:
    run = Run(group, folder)
    found = load_checkpoint(folder, run.training)
    run.steps(steps)
    return found and (found.step, found.extra, found.path.name), run.state()


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-10, atol=1e-10)


def test_training_goes_on_with_another_number_of_processes(pool: Pool, tmp_path: Path) -> None:
    expected = pool.together(trained, str(tmp_path / "none"), 5, False, world=1)[0]
    for state in pool.together(trained, str(tmp_path / "none"), 5, False, world=3):
        equal(expected, state)
    pool.together(trained, str(tmp_path), 3, True, world=2)
    for world in (1, 2, 4):
        for about, state in pool.together(resumed, str(tmp_path), 2, world=world):
            assert about == (3, {"epoch": 3}, "step-3")
            equal(expected, state)
    pool.together(trained, str(tmp_path / "by one"), 3, True, world=1)
    for _, state in pool.together(resumed, str(tmp_path / "by one"), 2, world=3):
        equal(expected, state)


def test_a_run_without_processes(tmp_path: Path) -> None:
    trained(None, str(tmp_path), 2, True)
    about, _ = resumed(None, str(tmp_path), 0)
    assert about == (2, {"epoch": 3}, "step-2")
    whole = Training(nn.Linear(2, 2))
    save_checkpoint(tmp_path / "plain", 1, whole)
    assert load_checkpoint(tmp_path / "plain", whole) is not None


def test_there_is_none_to_begin_with(tmp_path: Path) -> None:
    assert resumed(None, str(tmp_path / "missing"), 1)[0] is None


def test_one_before_the_first_step_is_of_an_optimizer_without_a_state(tmp_path: Path) -> None:
    expected = trained(None, str(tmp_path), 2, False)
    run = Run(None, str(tmp_path))
    save_checkpoint(tmp_path, 0, run.training)
    assert not run.optimizer.state
    run.steps(2)
    equal(expected, run.state())
    assert load_checkpoint(tmp_path, run.training) is not None
    run.steps(2)
    equal(expected, run.state())


def test_old_ones_go_and_half_written_ones_do_not_count(tmp_path: Path) -> None:
    run = Run(None, str(tmp_path))
    for step in (1, 2, 10):
        run.steps(1)
        save_checkpoint(tmp_path, step, run.training)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-10", "step-2"]
    before = run.state()
    # As a process leaves it that dies while it writes.
    shutil.copytree(tmp_path / "step-10", tmp_path / ".step-11.partial")
    (tmp_path / ".step-11.partial" / "gdsl.json").unlink()
    found = newest(tmp_path)
    assert found is not None and found.name == "step-10"
    run.steps(1)
    save_checkpoint(tmp_path, 11, run.training, keep=None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-10", "step-11", "step-2"]
    shutil.rmtree(tmp_path / "step-11")
    assert load_checkpoint(tmp_path, run.training) is not None
    equal(before, run.state())
    save_checkpoint(tmp_path, 10, run.training, keep=None)  # the same again
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-10", "step-2"]
    # As a process leaves it that dies before the new one has its name.
    (tmp_path / "step-10").rename(tmp_path / ".step-10.old")
    found = newest(tmp_path)
    assert found is not None and found.name == ".step-10.old"
    save_checkpoint(tmp_path, 3, run.training)  # of a run that began anew
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-2", "step-3"]
    save_checkpoint(tmp_path, 1, run.training, keep=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-1"]


# -- what does not fit -----------------------------------------------------------------------------


def refused(pool: Pool, match: str, case: Any, *args: Any) -> None:
    with pytest.raises(CaseError) as caught:
        pool.together(case, *args, world=2)
    for error in caught.value.errors:
        assert error is not None and error[0] == "InputError", str(caught.value)
        assert match in error[1], error[1]


def of_another_graph(group: Any, folder: str) -> None:
    load_checkpoint(folder, Run(group, folder, nodes=12).training)


def of_another_model(group: Any, folder: str) -> None:
    run = Run(group, folder)
    run.model.linear = nn.Linear(3, 4).double()
    run.optimizer = torch.optim.SGD(run.model.parameters(), lr=0.1)
    weight = run.model.linear.weight.detach().clone()
    try:
        load_checkpoint(folder, Training(run.model, run.optimizer, ["rows"], {"history": run.history}, run.part, group))
    finally:
        assert torch.equal(run.model.linear.weight, weight)


def with_more(group: Any, folder: str) -> None:
    run = Run(group, folder)
    run.model.more = nn.Linear(3, 2).double()
    load_checkpoint(folder, Training(run.model, None, ["rows"], {}, run.part, group))


def test_a_checkpoint_of_something_else(pool: Pool, tmp_path: Path) -> None:
    pool.together(trained, str(tmp_path), 1, True, world=2)
    refused(pool, "step-1 is of another graph", of_another_graph, str(tmp_path))
    refused(pool, "the checkpoint cannot be read", of_another_model, str(tmp_path))
    refused(pool, "model.more", with_more, str(tmp_path))


def test_a_damaged_checkpoint(pool: Pool, tmp_path: Path) -> None:
    pool.together(trained, str(tmp_path), 1, True, world=2)
    file = sorted((tmp_path / "step-1").glob("*.distcp"))[0]
    file.write_bytes(file.read_bytes()[:-5])
    refused(pool, f"step-1 is damaged: {file.name} is missing or cut short", resumed, str(tmp_path), 1)
    (tmp_path / "step-1" / "gdsl.json").write_text("{")
    refused(pool, "step-1 is no checkpoint, or is damaged", resumed, str(tmp_path), 1)
    (tmp_path / "step-1" / "gdsl.json").write_text(json.dumps({"version": 0}))
    refused(pool, "step-1 is of version 0, and 1 is read", resumed, str(tmp_path), 1)


def wrong_training(group: Any, kind: str, folder: str) -> None:
    run, rank = Run(group, folder), group.rank()
    if kind == "name":
        Training(run.model, None, ["rose"], None, run.part, group)
    elif kind == "length":
        Training(run.model, None, ["rows"], {"history": torch.zeros(99 if rank else len(run.history))}, run.part, group)
    elif kind == "no part":
        Training(run.model, None, ["rows"], group=group)
    elif kind == "names":
        Training(run.model, None, ["rows"], {"history" if rank else "story": run.history}, run.part, group)
    elif kind == "step":
        save_checkpoint(folder, rank, run.training)
    elif kind == "extra":
        save_checkpoint(folder, 1, run.training, extra={"a": torch.ones(1)} if rank else None)
    else:
        save_checkpoint(__file__, 1, run.training)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("name", "nothing named 'rose' in the model"),
        ("length", "'history' must have a row for each of the"),
        ("no part", "rows of nodes need part="),
        ("names", "what a checkpoint holds must be the same on all processes"),
        ("step", "the checkpoint that is written must be the same on all processes"),
        ("extra", "extra must be numbers, texts, lists and dictionaries"),
        ("file", "cannot be made, where a checkpoint is to be written"),
    ],
)
def test_what_cannot_be_written(pool: Pool, tmp_path: Path, kind: str, match: str) -> None:
    refused(pool, match, wrong_training, kind, str(tmp_path))
    assert not list(tmp_path.iterdir())
