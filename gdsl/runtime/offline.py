"""Triton kernels as machine code for a GPU that need not be there: text of every stage, registers, spills.

Triton decides when it is imported whether it interprets kernels or compiles them. In a process that interprets, another
is started to compile.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from gdsl.codegen.launch import configure
from gdsl.codegen.storage import partials
from gdsl.codegen.targets import PRECISE, SUM_PRECISE, TARGETS
from gdsl.codegen.triton import TritonFunction
from gdsl.errors import CompilerError, InputError
from gdsl.passes.plan import Kernel
from gdsl.runtime.items import Storage


@dataclass(frozen=True)
class Job:
    """A function to compile: the text of its module, its name, the types of its arguments, its constants."""

    source: str
    name: str
    types: tuple[str, ...]
    constants: dict[str, int | str]
    options: dict[str, int]


@dataclass(frozen=True)
class Binary:
    """A compiled function.

    asm:       stage -> text: ttir, ttgir, llir, then ptx and sass, or amdgcn
    registers: that a thread uses
    shared:    bytes of shared memory that a program uses
    spills:    bytes of a thread's registers that did not fit, and went to memory
    """

    asm: dict[str, str]
    registers: int
    shared: int
    spills: int


# What Triton calls a dtype.
_TYPES = {
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.bool: "i1",
    torch.int32: "i32",
    torch.int64: "i64",
}


def job(function: TritonFunction, kernel: Kernel, source: str, storage: Storage, target: str) -> Job:
    """A function at a target's block sizes for a typical graph that 32 bits can count."""
    types = ["i32" if t is None else f"*{_TYPES[t]}" for t in argument_types(function, kernel, storage)]
    config = configure(function, warp=TARGETS[target][2])
    options = {**config.compiler, **function.compiler}
    return Job(source, function.name, tuple(types), {**config.blocks, "INDEX": "int32"}, options)


def argument_types(function: TritonFunction, kernel: Kernel, storage: Storage) -> list[torch.dtype | None]:
    """The dtypes of the tensors that a function takes; None is a number."""
    others = {"num_rows": None, "num_chunks": None, "first_chunk": torch.int64, "owner": torch.int64}
    types = [others.get(name, storage.index) for name in function.arguments]
    types += [storage.of(node) for node in (*kernel.buffers, *kernel.outputs)]
    if function.part is not None:
        types += [storage.of_part(node, best) for node, best in partials(kernel)]
    return types


def compile_all(jobs: Sequence[Job], target: str) -> list[Binary]:
    """Compile functions for a GPU.

    Raises ``InputError`` for a target that there is not, and ``CompilerError`` when Triton refuses a kernel.
    """
    if target not in TARGETS:
        raise InputError(f"there is no target {target!r}; there are {', '.join(TARGETS)}")
    if not jobs:
        return []
    if os.environ.get("TRITON_INTERPRET", "0") in ("0", "", "false"):
        return [_compile(j, target) for j in jobs]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", __name__, target],
        input=json.dumps([asdict(j) for j in jobs]),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise CompilerError(f"Triton could not compile for {target}:\n{done.stderr[-4000:]}")
    return [Binary(**found) for found in json.loads(done.stdout.splitlines()[-1])]


def _compile(job: Job, target: str) -> Binary:
    # Late: what describes a kernel must not need Triton.
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from gdsl.runtime.source import load

    function = load(job.source, job.name)[job.name]
    names = function.arg_names
    places, precision = getattr(tl, str(job.constants["INDEX"])), PRECISE[TARGETS[target][0]]
    constants = {**job.constants, "INDEX": places, "PRECISION": precision, "SUM_PRECISION": SUM_PRECISE}
    signature = dict(zip(names, (*job.types, *["constexpr"] * len(constants)), strict=True))
    # What torch allocates lies on 16 bytes and more.
    aligned = {(k,): [["tt.divisibility", 16]] for k, t in enumerate(job.types) if t.startswith("*")}
    made = ASTSource(function, signature, constexprs=constants, attrs=aligned)
    try:
        binary = triton.compile(made, target=GPUTarget(*TARGETS[target]), options=job.options)
    except Exception as problem:
        raise CompilerError(f"Triton could not compile {job.name} for {target}: {problem}") from problem
    asm = {stage: text for stage, text in binary.asm.items() if isinstance(text, str)}
    shared = int(binary.metadata.shared)
    if "cubin" in binary.asm:
        registers, spills = _nvidia_resources(binary.asm["cubin"], asm["ptx"])
        asm["cubin"] = base64.b64encode(binary.asm["cubin"]).decode()
        return Binary(asm, registers, shared, spills)
    text = asm["amdgcn"]
    spills = _number(r"\.private_segment_fixed_size:\s+(\d+)", text)
    return Binary(asm, _number(r"\.vgpr_count:\s+(\d+)", text), shared, spills)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


def _nvidia_resources(cubin: bytes, ptx: str) -> tuple[int, int]:
    from triton import knobs
    from triton.backends.nvidia.compiler import get_ptxas

    text = _of_cubin(cubin, [knobs.nvidia.cuobjdump.path, "-res-usage"])
    registers, stack = _number(r"REG:(\d+)", text), _number(r"STACK:(\d+)", text)
    if not stack:
        return registers, 0
    # A stack may also hold what no register is meant for: the assembler tells.
    architecture = re.search(r"\.target sm_(\d+)(a?)", ptx)
    assert architecture is not None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.ptx")
        file.write_text(ptx)
        name = f"--gpu-name=sm_{architecture[1]}{architecture[2]}"
        command = [get_ptxas(int(architecture[1])).path, "-v", name, str(file), "-o", str(file.with_suffix(".cubin"))]
        log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return registers, _number(r"(\d+) bytes spill stores", log)


def sass(cubin: str, places: bool = False) -> str:
    """The machine code of an NVIDIA GPU as text; with ``places``, ``//## File`` lines say what follows is for."""
    from triton import knobs

    tool, *options = (knobs.nvidia.nvdisasm, "-gi", "-c") if places else (knobs.nvidia.cuobjdump, "-sass")
    return _of_cubin(base64.b64decode(cubin), [tool.path, *options])


def _of_cubin(cubin: bytes, command: list[str]) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([*command, file.name], capture_output=True, text=True, check=True).stdout


def _main() -> None:
    jobs = [Job(**{**j, "types": tuple(j["types"])}) for j in json.load(sys.stdin)]
    print(json.dumps([asdict(_compile(j, sys.argv[1])) for j in jobs]))


if __name__ == "__main__":
    _main()
