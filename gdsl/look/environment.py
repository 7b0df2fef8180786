"""What a report of a mistake must say of a machine: versions, processor, compiler, cache, settings.

No path of the user's machine is among it unless it is asked for: a home folder has a name in it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from gdsl import __version__
from gdsl.errors import CacheError, CompilerError
from gdsl.runtime import cache, native, products
from gdsl.store import cache_folder

# What decides how gdsl, torch, triton, the compiler and OpenMP work. Those whose values are no paths.
_SETTINGS = (
    "GDSL_PRODUCTS", "GDSL_TUNE", "TRITON_INTERPRET", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND",
    "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "PYTORCH_CUDA_ALLOC_CONF", "TORCH_DETERMINISTIC",
    "MALLOC_PERTURB_",
)  # fmt: skip
# Of vectors and of what is computed in half precision.
_FEATURES = re.compile(r"^(sse4_2|avx\w*|fma|f16c|amx_\w+|asimd\w*|sve\w*|bf16|fphp|i8mm)$")
_UNKNOWN = "unknown"


def facts(paths: bool = False) -> list[tuple[str, str]]:
    """All of it, by name.

    paths: where the compiler and the cache are, and the values of variables that may hold paths
    """
    return [(name, say(paths)) for name, say in _FACTS.items()]


def brief() -> list[str]:
    """What the head of a file says of where it was written."""
    return [f"{name}: {_FACTS[name](False)}" for name in _BRIEF]


def _version(package: str) -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return ""


def _system() -> str:
    libc = " ".join(platform.libc_ver()).strip()
    return ", ".join(part for part in (f"{platform.system()} {platform.machine()}", libc) if part)


def _torch() -> str:
    build = [
        f"CUDA {torch.version.cuda}" if torch.version.cuda else "",
        f"HIP {torch.version.hip}" if torch.version.hip else "",
        "MKL" if torch.backends.mkl.is_available() else "",
        "OpenMP" if torch.backends.openmp.is_available() else "",
        "deterministic algorithms" if torch.are_deterministic_algorithms_enabled() else "",
    ]
    return f"{torch.__version__} ({', '.join(filter(None, build)) or 'plain'})"


def _packages() -> str:
    found = {name: _version(name) for name in ("lark", "sympy", "numpy", "torch_geometric", "dgl")}
    return ", ".join(f"{name} {version}" for name, version in found.items() if version)


def _extras() -> str:
    """Which of gdsl's optional extras are there: all packages that they ask for."""
    try:
        asked = importlib.metadata.requires("gdsl") or []
    except importlib.metadata.PackageNotFoundError:
        return f"{_UNKNOWN}: gdsl is not installed, it is read from a folder"
    wanted: dict[str, list[str]] = {}
    for line in asked:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", line)
        name = re.match(r"[\w.-]+", line)
        if extra and name:
            wanted.setdefault(extra[1], []).append(name[0])
    there = [extra for extra, names in wanted.items() if all(map(_version, names))]
    return ", ".join(there) or "none"


def _backends() -> str:
    found = [("cpp", cache.find_compiler() is not None), ("triton", bool(_version("triton"))), ("torch", True)]
    return ", ".join(name for name, there in found if there)


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none"
    every = (torch.cuda.get_device_properties(k) for k in range(torch.cuda.device_count()))
    shown = [f"{p.name}, capability {p.major}.{p.minor}, {p.total_memory / 2**30:.0f} GiB" for p in every]
    return "; ".join(shown)


def _processor() -> str:
    """The name, the cores that this process may use, and the features that generated code depends on."""
    lines: dict[str, str] = {}
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
        lines = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in text.splitlines())}
    name = lines.get("model name") or platform.processor() or platform.machine()
    cores = cache.cores()
    features = [f for f in (lines.get("flags") or lines.get("Features") or "").split() if _FEATURES.match(f)]
    known = f": {' '.join(sorted(features))}" if features else ""
    return f"{name}, {cores} {'core' if cores == 1 else 'cores'}, {torch.backends.cpu.get_cpu_capability()}{known}"


def _compiler(paths: bool) -> str:
    found = cache.find_compiler()
    if found is None:
        return f"none: {cache.INSTALL}"
    return f"{found.version} ({found.path if paths else found.kind})"


def _flags() -> str:
    found = cache.find_compiler()
    return "none" if found is None else " ".join((*cache.FLAGS, *cache.FLAGS_OF[found.kind]))


def _native() -> str:
    try:
        return native.status()
    except (CompilerError, CacheError, OSError) as error:
        return f"none: {type(error).__name__}"


def _cache_line(folder_of: Callable[[], Path], paths: bool) -> str:
    """What the folder of compiled kernels holds, or why it cannot be used."""
    try:
        folder = folder_of()
        files = [(f.name, f.stat().st_size) for f in os.scandir(folder) if f.is_file(follow_symlinks=False)]
    except (CacheError, OSError) as error:
        return f"unusable: {error if paths else f'{type(error).__name__}; --paths says more'}"
    kernels = sum(name.endswith(".so") for name, _ in files)
    total = sum(size for _, size in files)
    writable = "" if os.access(folder, os.W_OK) else ", and cannot be written to"
    at = f"{folder}: " if paths else ""
    return f"{at}{kernels} compiled programs, {_human(total)}{writable}; $GDSL_CACHE puts it elsewhere"


def _settings(paths: bool) -> str:
    """Variables of the environment that are set. What may be a path is not shown."""
    plain = [f"{name}={os.environ[name]}" for name in _SETTINGS if name in os.environ]
    named = sorted(name for name in os.environ if name.startswith("GDSL_") or name == "CXX")
    others = [f"{name}={os.environ[name]}" if paths else f"{name} is set" for name in named if name not in _SETTINGS]
    unoptimised = [] if __debug__ else [f"python {' '.join('-O' for _ in range(sys.flags.optimize))}"]
    return ", ".join([*plain, *others, *unoptimised]) or "none"


def _human(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


_FACTS: dict[str, Callable[[bool], str]] = {
    "gdsl": lambda _: __version__,
    "python": lambda _: f"{platform.python_version()} ({platform.python_implementation()})",
    "system": lambda _: _system(),
    "torch": lambda _: _torch(),
    "triton": lambda _: _version("triton") or "none: layers on a GPU run on the slow torch backend",
    "other packages": lambda _: _packages(),
    "extras": lambda _: _extras(),
    "backends": lambda _: _backends(),
    "gpu": lambda _: _gpus(),
    "processor": lambda _: _processor(),
    "threads": lambda _: f"{torch.get_num_threads()} of torch, {torch.get_num_interop_threads()} between operators",
    "compiler": _compiler,
    "flags": lambda _: _flags(),
    "native calls": lambda _: _native(),
    "products": lambda _: "our own, of many rows by a matrix" if products.wanted() else "those of torch",
    "cache": lambda paths: _cache_line(cache_folder, paths),
    "settings": _settings,
}
_BRIEF = ("gdsl", "python", "system", "torch", "triton", "gpu", "processor", "threads", "compiler", "settings")
