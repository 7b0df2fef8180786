"""Compiling and loading generated C++: right after damage, safe from others, in torch's pool of threads."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import gdsl
from gdsl.errors import CacheError, CompilerError, GdslError
from gdsl.runtime import cache

pytestmark = pytest.mark.skipif(cache.find_compiler() is None, reason="no C++ compiler")

ROOT = os.geteuid() == 0


def constant(number: int) -> str:
    return f'extern "C" int number() {{ return {number}; }}\n'


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """A cache folder of the test's own, and a process that has loaded nothing."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GDSL_CACHE", str(folder))
    monkeypatch.setattr(cache, "_loaded", {})
    cache._warn_once.cache_clear()
    return folder


@pytest.fixture
def builds(monkeypatch):
    """Counts the runs of the compiler."""
    done = []
    build = cache._build
    monkeypatch.setattr(cache, "_build", lambda *args: done.append(args[2]) or build(*args))
    return done


def load_elsewhere(source: str, name: str) -> None:
    """In another process, so that this one has nothing of the library in its memory."""
    process = multiprocessing.get_context("fork").Process(target=cache.load, args=(source,), kwargs={"name": name})
    process.start()
    process.join()
    assert process.exitcode == 0


def test_find_compiler():
    compiler = cache.find_compiler()
    assert os.access(compiler.path, os.X_OK)
    assert compiler.version and compiler.kind in ("gcc", "clang")
    assert cache.find_compiler() is compiler


def test_cxx_chooses_the_compiler(monkeypatch, tmp_path):
    real = cache.find_compiler().path
    script = tmp_path / "my-cxx"
    script.write_text(f'#!/bin/sh\nshift\nexec {real} "$@"\n')
    script.chmod(0o700)
    monkeypatch.setenv("CXX", f"{script} --first-word")
    compiler = cache.find_compiler()
    assert compiler.path == str(script) and compiler.arguments == ("--first-word",)
    assert cache.load(constant(1), name="one").number() == 1


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cache.find_compiler() is None
    with pytest.raises(CompilerError) as caught:
        cache.load(constant(1), name="one")
    assert str(caught.value) == (
        "no C++ compiler was found; install a C++ compiler: `apt install g++`, `dnf install gcc-c++` or "
        "`xcode-select --install`, or set CXX"
    )
    assert isinstance(caught.value, GdslError)
    monkeypatch.setenv("CXX", "no-such-program -v")
    with pytest.raises(CompilerError, match=r"CXX is set to 'no-such-program -v', which does not run; install"):
        cache.load(constant(1), name="one")


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(cache, "cores", lambda: 2)
    monkeypatch.setattr(cache, "_ahead", {})


@pytest.mark.usefixtures("two_cores")
def test_begun_beside_the_process(folder, builds):
    cache.begin(constant(7), name="seven")
    cache.begin(constant(7), name="seven")
    assert len(cache._ahead) == 1
    assert cache.load(constant(7), name="seven").number() == 7
    assert not builds and not cache._ahead and not list(folder.glob(".building-*"))
    (library,) = folder.glob("*.so")
    assert cache.is_whole(library)
    cache.begin(constant(7), name="seven")
    assert not cache._ahead


@pytest.mark.usefixtures("two_cores")
def test_what_was_begun_and_fails_is_told_by_load(folder):
    cache.begin("this is no C++", name="bad")
    with pytest.raises(CompilerError, match="rejected a generated kernel"):
        cache.load("this is no C++", name="bad")
    assert not list(folder.glob(".building-*"))


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize(("source", "kept"), [(constant(7), True), ("this is no C++", False)])
def test_what_nobody_came_for_is_kept_if_it_is_ready(folder, source, kept):
    cache.begin(source, name="late")
    ((process, _),) = cache._ahead.values()
    process.wait()
    cache._abandon()
    assert not cache._ahead and not list(folder.glob(".building-*"))
    assert cache.is_built(source, name="late") is kept
    assert cache.begin(source, name="late") is not kept
    cache._abandon()


def test_nothing_is_begun_on_a_core_that_is_taken(monkeypatch):
    monkeypatch.setattr(cache, "_ahead", {})
    monkeypatch.setattr(cache, "cores", lambda: 1)
    cache.begin(constant(1), name="one")
    assert not cache._ahead
    monkeypatch.setattr(cache, "cores", lambda: 2)
    for k in range(3):
        cache.begin("#include <stdio.h>\n" * 2000 + constant(k), name="many")
    assert len(cache._ahead) == 1
    cache._abandon()


@pytest.mark.usefixtures("two_cores")
def test_a_folder_that_is_not_ours_begins_nothing(folder):
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    cache.begin(constant(1), name="one")
    assert not cache._ahead


@pytest.mark.usefixtures("two_cores")
def test_what_was_begun_is_another_process_in_a_fork(folder):
    cache.begin(constant(9), name="nine")
    load_elsewhere(constant(9), "nine")
    assert cache.load(constant(9), name="nine").number() == 9


@pytest.mark.usefixtures("two_cores")
def test_a_backward_that_was_begun(folder, builds):
    """It is the same, and only the forward pass is waited for."""
    text = "layer L { node x[c] aggregate a = sum(tanh(x[j])) update y = a * x }"
    x, edges = torch.randn(5, 3, requires_grad=True), torch.tensor([[0, 1, 2], [1, 2, 4]])
    y = gdsl.compile(text, backend="cpp")(x, edges)
    assert len(builds) == 1 and len(cache._ahead) == 1
    (found,) = torch.autograd.grad(y.sum(), x)
    assert len(builds) == 1 and not cache._ahead
    (wanted,) = torch.autograd.grad(gdsl.compile(text, backend="torch")(x, edges).sum(), x)
    torch.testing.assert_close(found, wanted)


def test_built_once(folder, builds):
    load_elsewhere(constant(7), "seven")
    library = cache.load(constant(7), name="seven")
    assert library.number() == 7
    assert cache.load(constant(7), name="seven") is library
    assert not builds
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    names = sorted(path.name for path in folder.iterdir())
    assert [name[:6] for name in names] == ["seven-", "seven-"]
    assert [Path(name).suffix for name in names] == [".cpp", ".so"]
    assert (folder / names[0]).read_text() == constant(7)


def test_names_cannot_leave_the_folder(folder):
    cache.load(constant(1), name="../../x; rm -rf '$HOME'/\n" + "long" * 50)
    assert all(path.name.startswith("_x_rm_rf_HOME_longlong") for path in folder.iterdir())
    assert all(len(path.name) < 100 for path in folder.iterdir())


def test_what_nobody_waits_for_leaves_the_processor_to_others(monkeypatch, tmp_path):
    lines = []

    class Started:
        pid = 0

        def __init__(self, line, **_):
            lines.append(line)

        def poll(self):
            return 0

        wait = poll

    monkeypatch.setenv("GDSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "cores", lambda: 8)
    monkeypatch.setattr(cache.subprocess, "Popen", Started)
    compiler = cache.find_compiler().path
    assert cache.begin("kernel", name="a")
    assert cache.begin("extension", name="b", recipe=cache.Recipe(("-O1",), ()))
    cache._abandon()
    assert lines[0][0] == compiler
    assert tuple(lines[1][: len(cache._MODESTLY) + 2]) == (*cache._MODESTLY, compiler, "-O1")


def test_key_depends_on_everything(monkeypatch):
    command = cache._command(None)
    words = command.words
    keys = {cache._key("a", command), cache._key("b", command)}
    keys.add(cache._key("a", replace(command, words=(*words, "-g"))))
    keys.add(cache._key("a", replace(command, words=(*words[:-2], "".join(words[-2:])))))
    keys.add(cache._key("a", replace(command, link=(*command.link, "-lm"))))
    monkeypatch.setattr(cache, "processor", lambda: "another")
    keys.add(cache._key("a", command))
    changed = cache.Compiler(words[0], "another version", "gcc")
    monkeypatch.setattr(cache, "find_compiler", lambda: changed)
    keys.add(cache._key("a", command))
    assert len(keys) == 7


DAMAGE = {
    "empty": lambda so: so.write_bytes(b""),
    "cut short": lambda so: so.write_bytes(so.read_bytes()[:5000]),
    "one bit": lambda so: so.write_bytes(bytes([*so.read_bytes()[:3000], 255, *so.read_bytes()[3001:]])),
    "text": lambda so: so.write_text("not a library"),
    "gone": lambda so: so.unlink(),
    "open to others": lambda so: so.chmod(0o777),
    "a link": lambda so: so.symlink_to(so.rename(so.with_suffix(".elsewhere"))),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_file_is_built_again(folder, builds, damage):
    load_elsewhere(constant(5), "five")
    damage(next(folder.glob("*.so")))
    assert cache.load(constant(5), name="five").number() == 5
    assert len(builds) == 1
    library = next(folder.glob("*.so"))
    assert not library.is_symlink() and stat.S_IMODE(library.stat().st_mode) == 0o700


@pytest.mark.skipif(not ROOT, reason="only root can give a file away")
def test_foreign_file_is_built_again(folder, builds):
    load_elsewhere(constant(5), "five")
    library = next(folder.glob("*.so"))
    os.chown(library, 12345, 12345)
    assert cache.load(constant(5), name="five").number() == 5
    assert len(builds) == 1
    assert library.stat().st_uid == os.geteuid()


def test_foreign_folder_is_refused(folder, monkeypatch):
    folder.mkdir(mode=0o700)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(CacheError) as caught:
        cache.load(constant(5), name="five")
    assert str(caught.value) == (
        f"the kernel cache {folder} belongs to another user (uid {owner}), whose code would run as yours; "
        "set GDSL_CACHE to a folder of your own"
    )


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_open_folder_is_refused(folder, mode):
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(CacheError) as caught:
        cache.load(constant(5), name="five")
    assert str(caught.value) == (
        f"others can write to the kernel cache {folder} (mode {mode:o}), and their code would run as yours; "
        f"empty it and run `chmod 700 {folder}`, or set GDSL_CACHE to another place"
    )


def test_a_file_in_place_of_the_folder(folder):
    folder.write_text("")
    with pytest.raises(CacheError) as caught:
        cache.load(constant(5), name="five")
    assert str(caught.value) == f"the kernel cache {folder} is not a folder; set GDSL_CACHE to another place"


def test_place_of_the_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("GDSL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "gdsl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.cache_folder() == tmp_path / "home" / ".cache" / "gdsl"
    assert stat.S_IMODE((tmp_path / "home" / ".cache" / "gdsl").stat().st_mode) == 0o700


def falls_back() -> None:
    """Both kernels load, from a private folder, with one warning."""
    with pytest.warns(RuntimeWarning, match="compiled kernels cannot be kept"):
        library = cache.load(constant(5), name="five")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.load(constant(6), name="six").number() == 6
    assert library.number() == 5
    private = Path(library._name).parent
    assert private.name.startswith("gdsl-") and stat.S_IMODE(private.stat().st_mode) == 0o700


def test_folder_that_cannot_be_made(monkeypatch):
    monkeypatch.setenv("GDSL_CACHE", "/proc/gdsl")  # not even root can make it
    falls_back()


@pytest.mark.skipif(ROOT, reason="root writes to read-only folders")
def test_read_only_folder(folder):
    folder.mkdir(mode=0o500)
    falls_back()


def test_read_only_folder_with_the_kernel_in_it(folder, monkeypatch):
    load_elsewhere(constant(5), "five")
    monkeypatch.setattr(cache, "_build", None)
    folder.chmod(0o500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.load(constant(5), name="five").number() == 5


def test_full_disk(folder, monkeypatch):
    run = cache._run

    def full(command, *args):
        if "-shared" in command and str(folder) in " ".join(command):
            return subprocess.CompletedProcess(command, 1, "", "ld: final link failed: No space left on device\n")
        return run(command, *args)

    monkeypatch.setattr(cache, "_run", full)
    falls_back()
    assert not list(folder.glob(".building-*"))


def test_rejected_source(folder):
    source = "int fine;\nint broken = missing_name;\n"
    with pytest.raises(CompilerError) as caught:
        cache.load(source, name="bad")
    text = str(caught.value)
    place = next(folder.glob("bad-*.cpp"))
    assert text.startswith(
        f"the C++ compiler rejected a generated kernel (its source: {place}); "
        "please report this bug of gdsl\n"
        f"{place}:2:14: error: "
    )
    assert "missing_name" in text
    assert not list(folder.glob("*.so")) and not list(folder.glob(".building-*"))
    with pytest.raises(CompilerError, match=r"<stdin>:2:14: error: "):
        cache.assembly(source)


def test_assembly():
    text = cache.assembly('extern "C" void twice(float* x) { for (int n = 0; n < 1024; ++n) x[n] *= 2; }')
    assert "twice:" in text


def test_leftovers_of_killed_processes_are_swept(folder):
    folder.mkdir(mode=0o700)
    old, new = folder / ".building-old", folder / ".building-new"
    old.write_text("")
    new.write_text("")
    os.utime(old, (time.time() - 10_000,) * 2)
    cache.load(constant(5), name="five")
    assert not old.exists() and new.exists()


def test_killed_process_leaves_no_lock(folder, monkeypatch, tmp_path):
    slow = tmp_path / "slow-cxx"
    slow.write_text('#!/bin/sh\n[ "$1" = --version ] && exec echo slow 1.0\nexec sleep 60\n')
    slow.chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setenv("CXX", str(slow))
        context = multiprocessing.get_context("fork")
        process = context.Process(target=cache.load, args=(constant(5),), kwargs={"name": "x"})
        process.start()
        deadline = time.monotonic() + 20
        while not list(folder.glob(".building-*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.join()
    assert cache.load(constant(5), name="x").number() == 5


def _load_and_report(start, found, source):
    start.wait()
    found.put(cache.load(source, name="shared").number())


def test_many_processes_at_once(folder):
    context = multiprocessing.get_context("fork")
    start, found = context.Event(), context.Queue()
    arguments = (start, found, constant(9))
    processes = [context.Process(target=_load_and_report, args=arguments) for _ in range(12)]
    for process in processes:
        process.start()
    start.set()
    assert [found.get(timeout=60) for _ in processes] == [9] * len(processes)
    for process in processes:
        process.join()
    assert sorted(path.suffix for path in folder.iterdir()) == [".cpp", ".so"]


def test_many_threads_at_once(builds):
    found = []

    def load() -> None:
        found.append(cache.load(constant(3), name="three"))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(library) for library in found}) == 1 and len(found) == 8
    assert len(builds) == 1


def test_the_private_folder_goes_with_the_process():
    script = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from gdsl.runtime import cache\n"
        "print(cache.load('extern \"C\" int number() { return 4; }', name='n')._name)\n"
    )
    environment = {**os.environ, "GDSL_CACHE": "/proc/gdsl"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert not Path(done.stdout.strip()).parent.exists()


OPENMP = """
#include <omp.h>
#include <math.h>
extern "C" int threads() {
    int count = 0;
#pragma omp parallel
#pragma omp single
    count = omp_get_num_threads();
    return count;
}
extern "C" double power(double x) { return pow(x, 0.3); }
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_one_openmp_in_the_process():
    script = (
        "import torch\n"
        "from gdsl.runtime import cache\n"
        f"library = cache.load({OPENMP!r}, name='openmp')\n"
        "torch.set_num_threads(2)\n"
        "print(library.threads())\n"
        "maps = open('/proc/self/maps').read().split()\n"
        "print(*{word for word in maps if 'omp.so' in word or 'omp5.so' in word})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    threads, *libraries = done.stdout.split()
    assert threads == "2"
    assert len(libraries) == 1, libraries
    bundled = list(Path(torch.__file__).parent.joinpath("lib").glob("libgomp*"))
    if bundled:
        assert libraries == [str(bundled[0])]


@pytest.mark.skipif(shutil.which("ldd") is None, reason="no ldd")
def test_needs_no_more_than_it_must():
    library = cache.load(OPENMP, name="openmp")
    library.power.restype, library.power.argtypes = ctypes.c_double, [ctypes.c_double]
    assert library.power(2.0) == pytest.approx(2.0**0.3, rel=1e-15)
    needed = subprocess.run(["ldd", library._name], capture_output=True, text=True, check=True).stdout
    assert "libstdc++" not in needed and "libtorch" not in needed
    assert needed.count("omp") >= 1


def test_nan_and_infinity_keep_their_meaning():
    source = """
        #include <math.h>
        extern "C" int is_nan(double x) { return x != x; }
        extern "C" double difference(double x) { return x - x; }
        extern "C" double zero_times(double x) { return x * 0.0; }
        extern "C" int is_inf(double x) { return isinf(x); }
    """
    library = cache.load(source, name="nan")
    for function in (library.difference, library.zero_times):
        function.restype, function.argtypes = ctypes.c_double, [ctypes.c_double]
        assert function(float("inf")) != function(float("inf"))
    for function in (library.is_nan, library.is_inf):
        function.argtypes = [ctypes.c_double]
    assert library.is_nan(float("nan")) and not library.is_nan(1.0)
    assert library.is_inf(float("inf")) and not library.is_inf(1.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_turn_is_not_inherited(folder):
    """A forked process does not keep the lock that its parent had: the next one in line would wait for its end."""
    folder.mkdir(mode=0o700)
    begun, ready = os.pipe()
    with cache._turn(folder / ".building-x"):
        child = os.fork()
        if child == 0:
            os.read(begun, 1)  # until the parent is through
            os._exit(0)
    started = time.monotonic()
    with cache._turn(folder / ".building-x"):
        waited = time.monotonic() - started
    os.write(ready, b"x")
    os.waitpid(child, 0)
    assert waited < cache._PATIENCE_SECONDS / 4


def test_what_is_left_half_built_is_swept(folder):
    """Files, and folders of compilers that were begun, once they are old."""
    folder.mkdir(mode=0o700)
    (folder / ".building-file").write_text("")
    (folder / ".building-folder").mkdir()
    (folder / ".building-folder" / "x.so").write_text("")
    (folder / ".building-new").mkdir()
    for name in ("file", "folder"):
        os.utime(folder / f".building-{name}", (0, 0))
    cache.load(constant(3), name="three")
    assert [p.name for p in folder.glob(".building-*")] == [".building-new"]
