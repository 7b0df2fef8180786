"""Processes join, agree, and end with a clear error when one of them fails, dies or hangs; training is resumed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from gdsl.distributed import agree, answered, divide, init, load_checkpoint, partition, save_checkpoint
from gdsl.distributed import processes as ours
from gdsl.errors import DistributedError, InputError
from gdsl.nn import SimpleConv
from gdsl.runtime import answers
from gdsl.runtime.together import _Sum
from tests.distributed.pool import Pool
from tests.distributed.processes import SECONDS, CaseError, held_port, processes
from tests.distributed.test_checkpoint import Run, equal

ENVIRONMENT = (*ours.ENVIRONMENT, "LOCAL_WORLD_SIZE")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No variable of torchrun's is set."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


# -- joining ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variables", [(), ("MASTER_ADDR",), ENVIRONMENT], ids=len)
def test_a_run_of_one_meets_nobody(bare: Any, variables: Any) -> None:
    """A script without torchrun, also where a variable of it was left over, and one that torchrun starts alone."""
    values = {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "nowhere.invalid"}
    for name in variables:
        bare.setenv(name, values.get(name, "0"))
    with init() as world:
        assert (world.rank, world.size, world.local_rank) == (0, 1, 0)
        assert dist.get_world_size() == 1
        assert agree("a number", None, 3) == [3]
        with pytest.raises(InputError, match="joined already"):
            init()
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("variables", "arguments", "match"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, {}, "LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set: start the script by"),
        ({"WORLD_SIZE": "2"}, {}, "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set"),
        ({"RANK": "first"}, {}, "RANK must be a number, not 'first'"),
        ({"RANK": "2"}, {}, "RANK is 2, and WORLD_SIZE says that there are 2 processes"),
        ({}, {"backend": "mpi"}, "backend is 'gloo', 'nccl' or None, not 'mpi'"),
        ({}, {"timeout": 0}, "timeout must be above zero"),
    ],
)  # fmt: skip
def test_variables_that_are_wrong(bare: Any, variables: Any, arguments: Any, match: str) -> None:
    if not arguments and len(variables) == 1 and "RANK" in variables:
        variables = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"} | variables
    for name, value in variables.items():
        bare.setenv(name, value)
    with pytest.raises(InputError, match=match):
        init(**arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.usefixtures("bare")
def test_nccl_needs_a_gpu() -> None:
    with pytest.raises(InputError, match="nccl needs a GPU for each process"):
        init("nccl")


def test_others_that_do_not_come(bare: Any) -> None:
    with held_port() as held:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{held.getsockname()[1]}"}
        for name, value in ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"} | address).items():
            bare.setenv(name, value)
        with pytest.raises(DistributedError, match=r"process 0 of 2 could not join the others at .*:\d+ within 0.5 s"):
            init("gloo", timeout=0.5)


AT_THE_END = """
import atexit, sys
import torch.distributed as dist
from gdsl.distributed import init

atexit.register(lambda: print(dist.is_initialized()))  # runs after what is registered later
init()
print(dist.is_initialized())
if "again" in sys.argv:
    dist.destroy_process_group()
    init()
if "fails" in sys.argv:
    raise ValueError
"""


@pytest.mark.parametrize("how", ["returns", "again", "fails"])
@pytest.mark.usefixtures("bare")
def test_a_script_without_a_block_ends_the_group(how: str) -> None:
    # Where it does not, some process in ten aborts when Python ends, and torchrun says that the run has failed.
    done = subprocess.run([sys.executable, "-c", AT_THE_END, how], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "False"], done.stderr
    assert done.returncode == (how == "fails")


THREADS = """
import os
import torch
from gdsl.distributed import init

before = len(os.listdir("/proc/self/task"))
with init("gloo"):
    import torch.distributed.nn.functional  # as optimizers and profilers do
    during = len(os.listdir("/proc/self/task"))
print(before, during, len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not tell threads")
@pytest.mark.usefixtures("bare")
def test_no_thread_of_a_group_outlives_it() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    before, during, after = map(int, done.stdout.split())
    assert before == after < during


# -- processes that fail, die or hang ---------------------------------------------------------------

STEPS = 5


def works(group: Any, folder: str, how: str, timeout: float) -> Any:
    """Training with a checkpoint after every second step, until the last process is in trouble in the fifth."""
    with init("gloo", timeout=timeout) as world:
        run = Run(None, folder)
        for step in range(1, STEPS + 1):
            in_trouble = world.rank == world.size - 1 and step == STEPS
            if in_trouble and how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if in_trouble and how == "fails":
                raise ValueError("no such luck")
            if in_trouble and how == "dies while it writes":
                dcp.FileSystemWriter.write_data = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore
            run.steps(1)
            if step % 2 == 0 or how == "dies while it writes":
                save_checkpoint(folder, step, run.training, keep=1)
        return None


def goes_on(group: Any, folder: str) -> Any:
    with init("gloo", timeout=30):
        run = Run(None, folder)
        found = load_checkpoint(folder, run.training)
        assert found is not None
        run.steps(7 - found.step)
        return found.step, run.state()


@pytest.fixture(scope="module")
def expected() -> Any:
    run = Run(None, "")
    run.steps(7)
    return run.state()


@pytest.mark.parametrize("how", ["dies", "dies while it writes"])
def test_training_is_resumed_after_a_process_died(tmp_path: Path, expected: Any, how: str) -> None:
    with processes(3, joined=False) as first, pytest.raises(CaseError) as caught:
        first.run(works, str(tmp_path), how, 30.0)
    *others, dead = caught.value.errors
    assert dead is not None and dead[1] == "the process has died"
    for error in others:
        assert error is not None and error[0] == "DistributedError", str(caught.value)
        # On a busy machine process 0, which holds the store, may be gone before process 1 is told.
        assert "process 2 does not answer" in error[1] or "has died" in error[1]
        assert "start again from the last checkpoint" in error[1]
    assert not (tmp_path / "step-5").exists()
    with processes(2, joined=False) as second:
        for step, state in second.run(goes_on, str(tmp_path)):
            assert step == 4
            equal(expected, state)


def test_the_others_say_why_a_process_failed(tmp_path: Path) -> None:
    with processes(2, joined=False) as made, pytest.raises(CaseError) as caught:
        made.run(works, str(tmp_path), "fails", 30.0)
    (first, message), failed = caught.value.errors[0] or ("", ""), caught.value.errors[1]
    assert failed == ("ValueError", "no such luck")
    assert first == "DistributedError" and "process 1 has failed (ValueError: no such luck)" in message


SCRIPT = """
import os, signal, sys
from pathlib import Path

import torch
from gdsl.distributed import init, load_checkpoint, save_checkpoint
from tests.distributed.test_checkpoint import Run

folder = Path(sys.argv[1])
with init("gloo", timeout=60) as world:
    run = Run(None, str(folder / "checkpoints"))
    found = load_checkpoint(folder / "checkpoints", run.training)
    for step in range(found.step + 1 if found else 1, 8):
        if step == 6 and world.rank == 1 and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        run.steps(1)
        if step % 2 == 0:
            save_checkpoint(folder / "checkpoints", step, run.training)
    torch.save((found and found.step, run.state()), folder / f"state-{world.rank}")
"""


@pytest.mark.slow
def test_torchrun_starts_again_from_the_last_checkpoint(tmp_path: Path, expected: Any, repository: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1",
            str(tmp_path / "script.py"), str(tmp_path),
        ],
        env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "died").exists()
    for rank in range(2):
        step, state = torch.load(tmp_path / f"state-{rank}")
        assert step == 4
        equal(expected, state)


def alone(group: Any, which: int, signal_: int | None) -> Any:
    with init("gloo", timeout=SECONDS) as world:
        agree("a number", None, 1)
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=2))
        if world.rank == which:
            if signal_ is not None:
                os.kill(os.getpid(), signal_)
            time.sleep(3600)
        try:
            agree("a number", None, 1)
        except DistributedError as error:
            return str(error)


@pytest.mark.parametrize(
    ("which", "signal_", "words"),
    [
        (1, None, "process 1 does not answer: it died, hangs, or is slower than the timeout"),
        (0, signal.SIGKILL, "the process that holds the store of the run, mostly process 0, has died"),
    ],
)
def test_what_is_wrong_is_told_within_the_timeout(which: int, signal_: int | None, words: str) -> None:
    with processes(2, joined=False) as made:
        for connection in made.connections:
            connection.send((alone, (which, signal_), 2))
        found, message = made.answer(made.connections[1 - which])
    assert found and words in message


def changed(group: Any, kind: str) -> None:
    """A first call that is the same everywhere, and a second one that is another on the last process."""
    ring = torch.arange(8)
    part = partition(torch.stack([ring, (ring + 1) % 8]), how=ring % 2, group=group)
    graph, conv, x = part.local(), SimpleConv(), torch.randn(4, 3)
    conv(x, graph)
    if group.rank() == 1 and kind == "graph":
        graph = divide(torch.stack([ring, (ring + 3) % 8]), 2, ring % 2).part(1, group).local()
    if group.rank() == 1 and kind == "features":
        x = torch.randn(4, 5)
    conv(x, graph)


@pytest.mark.parametrize(("kind", "words"), [("graph", "on parts of two graphs"), ("features", "with x [5]")])
def test_a_call_that_changes_on_one_process_is_an_error_on_all(pool: Pool, kind: str, words: str) -> None:
    with pytest.raises(CaseError) as caught:
        pool.together(changed, kind, world=2)
    for error in caught.value.errors:
        assert error is not None and error[0] == "GraphError"
        assert "process 1 in a call of SimpleConv" in error[1] and words in error[1]


def astray(group: Any) -> None:
    """The second process leaves a norm out and is in the next call, which the others have not come to."""
    if group.rank() == 0:
        _Sum.apply(torch.ones(3), group)
    else:
        answers.agree("a call of SimpleConv", group, torch.device("cpu"))


def test_processes_that_wait_with_different_calls_say_which() -> None:
    with processes(2, timeout=4.0) as made, pytest.raises(CaseError) as caught:
        made.run(astray)
    for error in caught.value.errors:
        assert error is not None and error[0] == "DistributedError"
        assert "processes make different calls" in error[1]
        assert "a sum over all processes" in error[1] and "with a call of SimpleConv" in error[1]


def leaves(group: Any, port: int | None) -> None:
    """Two runs of the same processes: both make the first one, of which process 0 is the last to go; process 1 leaves
    the second.

    port: of a store that outlives both, as torchrun's does; without one it is process 0's
    """
    if port is not None:
        os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": str(port)}
    for last in (False, True):
        with contextlib.suppress(SystemExit), init("gloo", timeout=30) as world:
            if world.rank == 0 or not last:
                agree("a number", None, 1)
            if world.rank == 0 and not last:
                time.sleep(0.5)
            sys.exit(0)  # as a script may say that it is done


@pytest.mark.parametrize("outlives", [False, True], ids=["of process 0", "of torchrun"])
def test_a_process_that_has_ended_is_told(outlives: bool) -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) if outlives else None
    with processes(2, joined=False) as made, pytest.raises(CaseError) as caught:
        made.run(leaves, store and store.port)
    first, other = caught.value.errors
    assert other is None
    assert first is not None and "process 1 has ended its run, and the others have not" in first[1]


# -- agreement --------------------------------------------------------------------------------------


def agreement(group: Any, wrong: int, kind: str) -> Any:
    mine = group.rank() == wrong
    if kind == "error":
        agree("a number", group, 1, InputError("so not") if mine else None)
    if kind == "of a user's":
        with ours.agreeing("a number", group):
            raise ZeroDivisionError("so not") if mine else InputError("nor so")
    return agree("a number", group, 2 if mine else 1)


@pytest.mark.parametrize("wrong", [0, 2])
def test_all_processes_say_what_is_wrong_on_one(pool: Pool, wrong: int) -> None:
    for kind, match in (("error", "so not"), ("value", "a number must be the same on all processes: process 0 has")):
        with pytest.raises(CaseError) as caught:
            pool.together(agreement, wrong, kind, world=3)
        for rank, error in enumerate(caught.value.errors):
            assert error is not None and error[0] == "InputError" and match in error[1]
            assert kind == "value" or rank == wrong or error[1] == f"process {wrong}: so not"
    assert pool.together(agreement, 7, "value", world=3) == [[1, 1, 1]] * 3


def test_errors_of_other_kinds_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="of a user's"), answered():
        raise RuntimeError("an error of a user's")
