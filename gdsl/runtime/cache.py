"""Generated C++ to a loaded library, compiled once a machine.

A kernel's file is named by a hash of all that it depends on: source, compiler, flags, processor. It is
written under a temporary name and renamed, so any number of processes may build the same kernel at once:
each finds a whole file or none. A lock, which ends with its process, lets one of them do the work; nothing
but time is lost without it. A checksum at a file's end tells a damaged one, which is built again.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gdsl.errors import CacheError, CompilerError
from gdsl.store import cache_folder, is_whole, replacing, seal

# NaN and infinity keep their meaning, so no -ffast-math; nobody looks at errno and floating-point traps,
# and giving them up is what lets loops become SIMD. Kernels use C headers only: with -nostdinc++, math.h is
# the plain C header, which compiles faster.
FLAGS = (
    "-O3",
    "-march=native",
    "-std=c++17",
    "-fPIC",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fno-exceptions",
    "-fno-rtti",
    "-nostdinc++",
    "-fopenmp",
)

# gcc computes what stands between two loops in the inner one where it unrolls the outer one: an erf for each product.
FLAGS_OF = {"gcc": ("-fno-loop-unroll-and-jam",), "clang": ()}

INSTALL = "install a C++ compiler: `apt install g++`, `dnf install gcc-c++` or `xcode-select --install`, or set CXX"

# What a compiler says of a place where it cannot write; it is no mistake in the source.
_NO_ROOM = ("No space left on device", "Disk quota exceeded", "File too large", "Read-only file system")
_STALE_SECONDS = 3600
_PATIENCE_SECONDS = 60
_ERROR_LINES = 12

# Before the words of a command that is to leave the processor to all others.
_TOOLS = (("chrt", "--idle", "0"), ("nice", "-n", "19"))
_MODESTLY = tuple(word for tool in _TOOLS if shutil.which(tool[0]) for word in tool)

_loaded: dict[str, ctypes.CDLL] = {}
_building: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
# Locks on files that this process has: a forked one inherits them, and a lock lasts until all have closed it.
_turns: set[int] = set()
# Compilers at work beside this process, and the files that they write, by the key of what is made.
_ahead: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a source is compiled that is no kernel: the words before it and after it."""

    flags: tuple[str, ...]
    link: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C++ compiler: its ``path``, the first line it prints of its ``version``, its ``kind`` (gcc or
    clang), and the words after its name in $CXX."""

    path: str
    version: str
    kind: str
    arguments: tuple[str, ...] = ()


def find_compiler() -> Compiler | None:
    """$CXX if it is set, else the first of c++, g++ and clang++ that runs; None if there is none. Looked up
    once."""
    return _find_compiler(os.environ.get("CXX", ""), os.environ.get("PATH", os.defpath))


@functools.cache
def _find_compiler(cxx: str, path: str) -> Compiler | None:
    candidates = [shlex.split(cxx)] if cxx.strip() else [["c++"], ["g++"], ["clang++"]]
    for name, *arguments in candidates:
        program = shutil.which(name, path=path)
        if program is None:
            continue
        try:
            shown = _run([program, *arguments, "--version"])
        except OSError:
            continue
        if shown.returncode == 0 and shown.stdout:
            kind = "clang" if "clang" in shown.stdout else "gcc"
            return Compiler(program, shown.stdout.splitlines()[0], kind, tuple(arguments))
    return None


def _library(path: str) -> ctypes.CDLL:
    return ctypes.CDLL(path)


def load(
    source: str,
    *,
    name: str,
    recipe: Recipe | None = None,
    open_library: Callable[[str], Any] = _library,
) -> Any:
    """The library of the C++ ``source``, compiled now or on an earlier day. ``name`` only makes its file
    easy to find. What is no kernel has a ``recipe``, and may be opened otherwise.

    Raises ``CompilerError`` when there is no compiler or it rejects the source, and ``CacheError`` when
    others could have written to the folder of compiled kernels. A folder that cannot be written to is
    replaced, with a warning, by a temporary one that lasts as long as the process.
    """
    command = _command(recipe)
    key = _key(source, command)
    with _building[key]:
        library = _loaded.get(key)
        if library is None:
            _collect(key)
            library = _loaded[key] = _load(source, _file(name, key), command, open_library)
    return library


def begin(source: str, *, name: str, recipe: Recipe | None = None) -> bool:
    """Start to compile what ``load`` will soon be asked for, beside what this process does until then. Whether it has.

    Nothing happens where a core would have to be shared, or where it cannot be: ``load`` says why.
    """
    if not has_free_core():
        return False
    with contextlib.suppress(OSError, CompilerError, CacheError):
        command = _command(recipe)
        key, folder = _key(source, command), cache_folder()
        library = folder / f"{_file(name, key)}.so"
        if key in _loaded or key in _ahead or library.exists():
            return False
        text = library.with_suffix(".cpp")
        with replacing(text) as written:
            written.write_text(source)
        # In a folder of its own: a compiler whose start was interrupted, so that nobody can end it, writes nowhere.
        temporary, nothing = Path(tempfile.mkdtemp(prefix=".building-", dir=folder)) / library.name, subprocess.DEVNULL
        try:
            line = command.line(text, temporary)
            if recipe is not None:  # nobody waits for it: it takes what time the threads of torch leave
                line = [*_MODESTLY, *line]
            _ahead[key] = (
                subprocess.Popen(line, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True),
                temporary,
            )
        except BaseException:
            shutil.rmtree(temporary.parent, ignore_errors=True)
            raise
        return True
    return False


def is_over(source: str, *, recipe: Recipe | None = None) -> bool:
    """Whether the compiler has ended that ``begin`` started."""
    found = _ahead.get(_key(source, _command(recipe)))
    return found is None or found[0].poll() is not None


def has_free_core() -> bool:
    """Whether there is a core besides this process's own that no compiler works on."""
    return sum(process.poll() is None for process, _ in list(_ahead.values())) + 1 < cores()


def _collect(key: str) -> None:
    """Wait for what was begun. What failed is left to ``load``, which says why."""
    if key not in _ahead:
        return
    process, temporary = _ahead[key]
    try:
        # Where the process has children waited for elsewhere, 0 is also said of one that failed.
        if process.wait() == 0 and temporary.stat().st_size:
            seal(temporary)
            os.replace(temporary, temporary.parents[1] / temporary.name)
    except OSError:
        pass
    finally:  # after an interrupt, too
        _ahead.pop(key, None)
        _end(process, temporary)


def _end(process: subprocess.Popen[bytes], temporary: Path) -> None:
    """Leave nothing of a compiler behind."""
    if process.poll() is None:
        # With all that it has started; by a signal on which it removes what it has written elsewhere.
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        with contextlib.suppress(OSError):  # no such group: all have ended
            for _ in range(50):
                os.killpg(process.pid, 0)
                time.sleep(0.01)
    shutil.rmtree(temporary.parent, ignore_errors=True)


@functools.cache
def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _abandon() -> None:
    """Nobody waits for these any more. What is ready is kept: the next process would begin it again."""
    for key, (process, _) in list(_ahead.items()):
        if process.poll() is not None:
            _collect(key)
    while _ahead:
        _, (process, temporary) = _ahead.popitem()
        _end(process, temporary)


atexit.register(_abandon)


def is_built(source: str, *, name: str, recipe: Recipe | None = None) -> bool:
    """Whether ``load`` would find the library, without a compiler's work. Raises as ``load`` does."""
    key = _key(source, _command(recipe))
    return key in _loaded or is_whole(cache_folder() / f"{_file(name, key)}.so")


def _file(name: str, key: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_]+', '_', name)[:40]}-{key[:32]}"


def assembly(source: str, places: bool = False) -> str:
    """The assembler text of the C++ ``source`` for this machine, with ``places`` in the source as ``.loc``. Raises
    ``CompilerError`` as ``load`` does."""
    told = ["-g1"] if places else []
    command = [*_command(None).words, *told, "-S", "-fno-asynchronous-unwind-tables", "-x", "c++", "-", "-o", "-"]
    done = _run(command, source)
    if done.returncode:
        raise CompilerError(_failure(done, None))
    return done.stdout


@dataclass(frozen=True, slots=True)
class _Command:
    """The words for a compiler before the source and after it."""

    words: tuple[str, ...]
    link: tuple[str, ...]

    def line(self, source: Path, library: Path) -> list[str]:
        return [*self.words, "-pipe", "-shared", str(source), "-o", str(library), *self.link]


def _command(recipe: Recipe | None) -> _Command:
    compiler = find_compiler()
    if compiler is None:
        cxx = os.environ.get("CXX", "").strip()
        found = f"CXX is set to {cxx!r}, which does not run" if cxx else "no C++ compiler was found"
        raise CompilerError(f"{found}; {INSTALL}")
    flags = (*FLAGS, *FLAGS_OF[compiler.kind]) if recipe is None else recipe.flags
    link = _link_flags(compiler.kind) if recipe is None else recipe.link
    return _Command((compiler.path, *compiler.arguments, *flags), link)


def _key(source: str, command: _Command) -> str:
    compiler = find_compiler()
    assert compiler is not None
    parts = (source, compiler.version, *command.words, *command.link, processor())
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        # With its length, so that no two lists of parts give the same bytes.
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


@functools.cache
def processor() -> str:
    """What -march=native depends on, with the processor's maker."""
    lines = [platform.machine(), platform.processor()]
    # The first of several equal entries; the kernel makes the rest only when they are read.
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as info:
        for line in info:
            if not line.strip():
                break
            if line.startswith(("vendor_id", "cpu family", "model", "flags", "Features", "CPU ")):
                lines.append(line.strip())
    return "\n".join(lines)


@functools.cache
def _link_flags(kind: str) -> tuple[str, ...]:
    """Linking with the OpenMP library that torch has loaded gives one pool of threads in the process, not
    two that fight for the cores. Leaving out the default libraries is what leaves out the compiler's own
    OpenMP."""
    openmp = _torch_openmp()
    # Code from clang calls __kmpc_*, which libgomp lacks.
    if openmp is None or (kind == "clang" and "gomp" in os.path.basename(openmp)):
        return ("-fopenmp",)
    return ("-nodefaultlibs", openmp, "-lm", "-lc", "-lgcc")


def _torch_openmp() -> str | None:
    pattern = re.compile(r"lib(gomp|iomp5|omp)[-.].*")
    bundled = Path(torch.__file__).parent.joinpath("lib").glob("lib*omp*")
    found = sorted(str(path) for path in bundled if pattern.match(path.name))
    if found:
        return found[0]
    # A torch from conda or a distribution shares the system's.
    with contextlib.suppress(OSError), open("/proc/self/maps") as maps:
        for line in maps:
            _, slash, path = line.rstrip("\n").partition("/")
            if pattern.match(os.path.basename(path)):
                return slash + path
    return None


def _load(source: str, file: str, command: _Command, open_library: Callable[[str], Any]) -> Any:
    try:
        folder = cache_folder()
        return open_library(str(_built(folder, source, file, command)))
    except OSError as error:
        # Read-only, full, or mounted without the right to execute.
        _warn_once(str(error))
    folder = _private_folder(os.getpid())
    try:
        return open_library(str(_built(folder, source, file, command)))
    except OSError as error:
        raise CompilerError(f"a compiled kernel cannot be stored or loaded in {folder}: {error}") from error


def _built(folder: Path, source: str, file: str, command: _Command) -> Path:
    library = folder / f"{file}.so"
    if not is_whole(library):
        with _turn(folder / f".building-{file}"):
            if not is_whole(library):
                _build(folder, source, file, command)
    return library


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[None]:
    """One process at a time, as far as a lock on this file can be had in reasonable time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    _turns.add(descriptor)
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        path.unlink(missing_ok=True)
        if descriptor in _turns:  # it is not where the process was forked in between
            _turns.remove(descriptor)
            os.close(descriptor)


def _build(folder: Path, source: str, file: str, command: _Command) -> None:
    _sweep(folder)
    text = folder / f"{file}.cpp"
    with replacing(text) as temporary:
        temporary.write_text(source)
    with replacing(folder / f"{file}.so") as temporary:
        done = _run(command.line(text, temporary))
        if done.returncode:
            if (reason := next((r for r in _NO_ROOM if r in done.stderr), None)) is not None:
                raise OSError(f"{reason.lower()}: {folder}")
            raise CompilerError(_failure(done, text))
        seal(temporary)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half-built."""
    for left in folder.glob(".building-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _run(command: list[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, input=text, capture_output=True, text=True, env=environment, check=False)


def _failure(done: subprocess.CompletedProcess[str], source: Path | None) -> str:
    lines = done.stderr.splitlines()
    first = next((n for n, line in enumerate(lines) if "error" in line), 0)
    shown = "\n".join(lines[first : first + _ERROR_LINES])
    place = "" if source is None else f" (its source: {source})"
    return f"the C++ compiler rejected a generated kernel{place}; please report this bug of gdsl\n{shown}"


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(
        f"compiled kernels cannot be kept ({reason}): they go to a temporary folder and are compiled again "
        "in every process; set GDSL_CACHE to a folder that can be written to",
        RuntimeWarning,
        stacklevel=5,
    )


@functools.cache
def _private_folder(process: int) -> Path:
    """A folder for this process alone, removed at its end. A fork gets its own."""
    folder = tempfile.mkdtemp(prefix="gdsl-")

    def remove() -> None:
        if os.getpid() == process:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return Path(folder)


def _leave_turns() -> None:
    """In a forked process: what its parent builds is not for it to hold up."""
    while _turns:
        with contextlib.suppress(OSError):
            os.close(_turns.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_turns)
    # Another thread may have held one of these when the process was forked.
    os.register_at_fork(after_in_child=_building.clear)
    # Compilers are children of the process that started them.
    os.register_at_fork(after_in_child=_ahead.clear)
