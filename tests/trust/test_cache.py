"""The folder of compiled kernels under many processes, kills, a full disk and damage: a right kernel or a clear word.

What one kernel's file goes through is in tests/runtime/test_cache.py; here are whole layers, and the grammar's tables.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import gdsl
from gdsl import store
from gdsl.runtime import cache

pytestmark = pytest.mark.skipif(cache.find_compiler() is None, reason="no C++ compiler")

LAYER = (
    "layer Shared%d(d = 3) { node x[d] edge w param p[d] ~ ones "
    "aggregate a = sum(softmax(w) * tanh(%d * x[j] * p)) update y = a }"
)
EDGES = [[0, 1, 2, 3, 3], [1, 2, 0, 0, 1]]


def train(number: int) -> list[float]:
    """The results and gradients of a layer that only this number has."""
    torch.set_num_threads(1)
    conv = gdsl.compile(LAYER % (number, number), backend="cpp")
    x = torch.linspace(-1, 1, 12).view(4, 3).requires_grad_()
    y = conv(x, torch.tensor(EDGES), torch.linspace(0, 1, 5))
    y.square().sum().backward()
    return [*y.flatten().tolist(), *x.grad.flatten().tolist(), *conv.p.grad.tolist()]


def expected(number: int) -> list[float]:
    x, p = torch.linspace(-1, 1, 12).view(4, 3).requires_grad_(), torch.ones(3, requires_grad=True)
    source, target = torch.tensor(EDGES)
    raised = torch.linspace(0, 1, 5).exp()
    alpha = raised / torch.zeros(4).index_add(0, target, raised)[target]
    y = torch.zeros(4, 3).index_add(0, target, alpha[:, None] * torch.tanh(number * x[source] * p))
    y.square().sum().backward()
    return [*y.flatten().tolist(), *x.grad.flatten().tolist(), *p.grad.tolist()]


def _work(folder: str, number: int, start: float, result: str) -> None:
    os.environ["GDSL_CACHE"] = folder
    time.sleep(max(0.0, start - time.time()))
    Path(result).write_text(json.dumps(train(number)))


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("GDSL_CACHE", str(folder))
    return folder


class Workers:
    """Processes that train the layer of one number, all at the same moment.

    They begin with what a server has imported, and nothing has run in them. They share nothing but the folder, so that
    a killed one cannot hold a lock of the test's own.
    """

    def __init__(self, folder: Path, count: int, number: int):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["gdsl.module.api", "tests.trust.test_cache"])
        start = time.time() + 0.02 * count
        self.files = [folder.parent / f"{number}-{k}.json" for k in range(count)]
        arguments = [(str(folder), number, start, str(file)) for file in self.files]
        self.processes = [context.Process(target=_work, args=a) for a in arguments]
        for process in self.processes:
            process.start()

    def results(self, count: int) -> list[list[float]]:
        """The results of the last so many processes, which must end well."""
        for process in self.processes:
            process.join(120)
        assert [p.exitcode for p in self.processes[-count:]] == [0] * count
        return [json.loads(file.read_text()) for file in self.files[-count:]]


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".building-")]


def orphans_end(folder: Path) -> None:
    """Wait for the compilers of processes that were killed, which go on writing."""
    end = time.monotonic() + 60
    while time.monotonic() < end and any(str(folder) in _words(p) for p in Path("/proc").glob("[0-9]*/cmdline")):
        time.sleep(0.05)


def _words(command: Path) -> str:
    try:
        return command.read_text(errors="replace")
    except OSError:  # it has ended
        return ""


def test_32_processes_compile_one_new_program_at_once(folder: Path) -> None:
    results = Workers(folder, 32, 2).results(32)
    assert all(result == results[0] for result in results)
    assert results[0] == pytest.approx(expected(2), abs=1e-5)
    assert not leftovers(folder)
    libraries = list(folder.glob("*.so"))
    assert 2 <= len(libraries) <= 4 and all(store.is_whole(library) for library in libraries)


def test_killed_while_they_compile(folder: Path) -> None:
    """Killed without warning at any moment: the others end well, and nothing waits for the dead."""
    workers, chance = Workers(folder, 8, 3), random.Random(0)
    for process in workers.processes[:5]:
        time.sleep(chance.random() * 0.5)
        process.kill()
    for result in workers.results(3):
        assert result == pytest.approx(expected(3), abs=1e-5)
    assert all(store.is_whole(library) for library in folder.glob("*.so"))
    orphans_end(folder)
    # The next process finds nothing that it must wait for, and removes what the dead left, once it is old.
    for name in leftovers(folder):
        os.utime(folder / name, (0, 0))
    assert Workers(folder, 1, 4).results(1)[0] == pytest.approx(expected(4), abs=1e-5)
    assert not leftovers(folder)


def test_no_flipped_byte_passes(folder: Path) -> None:
    Workers(folder, 1, 5).results(1)
    for path in (*folder.glob("*.so"), folder / "grammar.tables"):
        content, chance = path.read_bytes(), random.Random(1)
        assert store.is_whole(path)
        for at in [0, 1, len(content) - 1, *(chance.randrange(len(content)) for _ in range(60))]:
            path.write_bytes(content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :])
            assert not store.is_whole(path), at
        path.write_bytes(content[: len(content) // 2])
        assert not store.is_whole(path)
    # All of them are damaged now.
    assert Workers(folder, 1, 5).results(1)[0] == pytest.approx(expected(5), abs=1e-5)
    assert all(store.is_whole(path) for path in (*folder.glob("*.so"), folder / "grammar.tables"))


SETUP = "from tests.trust.test_cache import *\n"


def python(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SETUP + script]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (%d, %d))\n"


def test_no_room_for_any_file(folder: Path, tmp_path: Path) -> None:
    """Where nothing can be written, not even a temporary file, the torch backend still runs and C++ says why not."""
    script = LIMIT % (3000, 3000) + (
        "import warnings; warnings.simplefilter('ignore')\n"
        "try:\n    train(6)\n"
        "except gdsl.CompilerError as error:\n    print(error)\n"
    )
    done = python(script)
    assert done.returncode == 0, done.stderr
    assert "a compiled kernel cannot be stored or loaded in" in done.stdout
    assert "ile too large" in done.stdout and "report this bug" not in done.stdout
    assert not [p for p in folder.glob("*.so") if store.is_whole(p)] and not leftovers(folder)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a folder in memory with a size")
def test_full_disk(tmp_path: Path) -> None:
    """A real file system with no room for a kernel: it goes to a temporary folder, with a warning."""
    place = tmp_path / "small"
    place.mkdir()
    script = "print(json.dumps(train(7)))"
    mount = f"mount -t tmpfs -o size=16k,mode=700 tmpfs {place} && exec {sys.executable} -c '{SETUP}{script}'"
    environment = {**os.environ, "GDSL_CACHE": str(place / "cache")}
    done = subprocess.run(["unshare", "-m", "sh", "-c", mount], env=environment, capture_output=True, text=True)
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip("this user may not mount a file system")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(expected(7), abs=1e-5)
    assert "compiled kernels cannot be kept" in done.stderr and "o space left on device" in done.stderr


def test_interrupted_by_the_keyboard(folder: Path) -> None:
    """Control-C while a kernel compiles: KeyboardInterrupt, no half-made file under a kernel's name."""
    script = (
        "import signal, threading\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background ignores it
        # A compiler beside the process, whose start is interrupted, may leave a folder, which is swept an hour later.
        "from gdsl.runtime import cache\n"
        "cache.cores = lambda: 1\n"
        "train(99)\n"
        "stopped = threading.Event()\n"
        "def interrupt():\n"
        # Again, since Python drops an interrupt that hits a destructor; later, since one that hits what cleans up after
        # the first leaves something.
        "    for pause in (0.8, *[20] * 9):\n"
        "        if not stopped.wait(pause):\n            os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "try:\n    [train(n) for n in range(100, 200)]\n"
        "except KeyboardInterrupt:\n    stopped.set()\n    print('stopped')\n"
    )
    done = python(script)
    assert done.stdout.strip() == "stopped", done.stderr
    assert all(store.is_whole(library) for library in folder.glob("*.so")) and not leftovers(folder)


def test_another_compiler_makes_another_kernel(folder: Path, tmp_path: Path) -> None:
    """A kernel of one compiler, or of one version, is never loaded for another."""
    real = cache.find_compiler()
    assert real is not None
    script = "print(json.dumps(train(8)))"
    seen = []
    for version in ("1.0", "2.0"):
        wrapper = tmp_path / "cxx"
        wrapper.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec echo made-up {version}\nexec {real.path} "$@"\n')
        wrapper.chmod(0o700)
        done = python(script, CXX=str(wrapper))
        assert json.loads(done.stdout) == pytest.approx(expected(8), abs=1e-5), done.stderr
        seen.append({p.name for p in folder.glob("*.so")})
    assert seen[0] < seen[1] and len(seen[1]) == 2 * len(seen[0])
