"""Texts that a coverage-guided fuzzer makes: whatever a text says, it is a program or a mistake, in good time.

    python -m tests.fuzz                 ten minutes each: programs, and operators of exported models
    python -m tests.fuzz calls --seconds 60

Needs atheris (``pip install atheris``, Linux). What is not a mistake of the text's, takes over ten seconds or 4 GB is a
finding, and is printed.

programs  begin with every program of the tests and of the library, and change by bytes and tokens, to reach new lines
          of gdsl.language. A text is parsed, written out and parsed again, and checked with all its flags.
calls     begin with an operator for each op and some layers, and change by fields, to reach new lines of
          gdsl.ir and gdsl.module.operators. What is read is verified, written, read again,
          evaluated, and made kernels of.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gdsl.ir.program import Program

# The keys and places on the way to a value in JSON.
Way = tuple[str | int, ...]

SECONDS_A_TEXT = 10
MEGABYTES = 4096

TOKEN = re.compile(
    r'"[^"\n]*"|#[^\n]*|[A-Za-z_][A-Za-z0-9_]*\'*|[0-9.]+(?:[eE][+-]?[0-9]+)?|\*\*|->|\.\.|[<>=!]=|\s+|.'
)
# What programs of people rarely say.
RARE = """9 0 -1 1e308 1e-320 inf nan 99999999999999999999 0.1 '' ' i j g none true false 1..K 0..0 9**9 d' 3' init at j
by rel ; -> ~ : int(3) = 1 @ ** % $ \\ / // /* */ \N{SNOWMAN} \0 "a" "*/" graph layer""".split()


def attack(text: str) -> bool:
    """Whether the text is a program. Anything but a program or a LanguageError is raised."""
    from gdsl.language.errors import LanguageError
    from gdsl.language.format import format_program
    from gdsl.language.parse import parse
    from gdsl.language.placeholders import check_any

    try:
        program = parse(text)
        written = format_program(program)
        if format_program(parse(written)) != written:
            raise AssertionError("the written program is written in another way the second time")
        for layer in program.layers:
            check_any(layer)
    except LanguageError as error:
        str(error)
        return False
    return True


def programs() -> list[str]:
    """Every program at hand, once."""
    from tests.programs.sources import PROGRAMS

    here = Path(__file__).resolve().parent
    files = [*here.parent.glob("gdsl/nn/programs/*.gdsl"), *here.parent.glob("examples/*.gdsl")]
    wrong = (here / "language" / "mistakes.txt").read_text(encoding="utf-8").split("\n---")
    return [*(text for text, *_ in PROGRAMS.values()), *(f.read_text(encoding="utf-8") for f in sorted(files)), *wrong]


def changed(text: str, chance: random.Random, others: list[str]) -> str:
    """The text with a few tokens left out, doubled, exchanged, or taken from elsewhere."""
    tokens = TOKEN.findall(text)
    pool = TOKEN.findall(chance.choice(others)) + RARE
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at, length = chance.randrange(len(tokens) + 1), chance.choice((1, 1, 1, 2, 5, 20))
        part = tokens[at : at + length]
        start = chance.randrange(len(pool))
        new = (
            [],
            part * chance.choice((2, 2, 3, 40)),
            part[::-1],
            [chance.choice(pool)],
            pool[start : start + length],
            [*pool[start : start + length], *part],
        )
        tokens[at : at + length] = chance.choice(new)
    return "".join(tokens)


# ---------------------------------------------------------------------------- operators of exported models

# What a field may be changed to besides what stands in other fields.
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 2**31 - 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "a", "q", "i", "j", "g", "sum", "argmax", "float", "int", "bool", "edge", "global", "0", "-1",
    "acc", "h); gdsl_mark(", "*/ gdsl_mark", "gdsl_mark\n", "__import__('gdsl_mark')", [], {}, [[]], {"node": 0},
    {"node": "0"},
]  # fmt: skip


def places(data: Any, path: Way = ()) -> Iterator[Way]:
    """The way to each value in the data, to those that hold others too."""
    yield path
    if isinstance(data, dict | list):
        for key in data if isinstance(data, dict) else range(len(data)):
            yield from places(data[key], (*path, key))


def at(data: Any, path: Way) -> Any:
    for key in path:
        data = data[key]
    return data


def changed_call(text: str, chance: random.Random, others: list[str]) -> str:
    """The operator with a few values exchanged, by one of the same kind most times, left out, doubled or renamed."""
    data = json.loads(text)
    other = json.loads(chance.choice(others))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        paths = list(places(data))[1:]
        if not paths:
            break
        *way, key = chance.choice(paths)
        holder = at(data, tuple(way))
        old = holder[key]
        alike = [v for v in (at(d, p) for d in (data, other) for p in places(d)) if type(v) is type(old)]
        new = copy.deepcopy(chance.choice(alike if chance.random() < 0.7 else VALUES))
        how = chance.random()
        if how < 0.1 and isinstance(holder, dict):
            holder[str(new)[:40]] = holder.pop(key)
        elif how < 0.2:
            del holder[key]
        elif how < 0.3 and isinstance(holder, list):
            holder.insert(key, new)
        else:
            holder[key] = new
    return json.dumps(data)


def attack_call(text: str) -> bool:
    """Whether the text is an operator. One that is must be well formed, and evaluate to what its types say."""
    from gdsl.errors import GdslError
    from gdsl.ir.serialise import from_data, to_data
    from gdsl.ir.verify import verify
    from gdsl.module.operators import call_of

    try:
        found = call_of.__wrapped__(text)
    except ValueError as error:
        str(error)
        return False
    program = verify(found.program)
    assert from_data(to_data(program)) == program
    if size_of(program) <= LARGEST:
        evaluate(program)
        with contextlib.suppress(GdslError):
            write_kernels(program)
    return True


# The numbers in a program that is evaluated; larger ones are only read.
LARGEST = 20_000
NODES, EDGES = 4, [[0, 1, 2, 2], [1, 1, 0, 2]]


def size_of(program: Program) -> int:
    """The numbers of all its values, some of which count once a factor."""
    from gdsl.ir.node import walk

    products = {n: math.prod(i.type.numel for i in n.inputs) for n in walk(program.nodes) if n.op == "contract"}
    return sum(n.type.numel + products.get(n, 0) for n in walk(program.nodes))


def evaluate(program: Program) -> None:
    """By plain torch, on tensors as its types say."""
    import torch

    from gdsl.runtime import reference
    from gdsl.runtime.graph import Graph

    graph = Graph(torch.tensor(EDGES), NODES)
    frame = reference.Frame(graph, torch.float64, torch.device("cpu"), torch.tensor([0, 0, 1, 1]), 2)
    values = {}
    for load in program.inputs:
        shape = (*(() if load.domain.value == "global" else (frame.rows(load.domain),)), *load.type.shape)
        if load.type.bound == 0 and math.prod(shape):
            return  # no tensor has such numbers
        made = torch.linspace(0.1, 0.9, math.prod(shape), dtype=torch.float64).reshape(shape)
        whole = (made * (load.type.bound or 9)).long()
        values[load] = {"float": made, "bool": made > 0.5, "int": whole}[load.kind.value]
    for node, value in zip(program.nodes, reference.run(program.nodes, values, frame), strict=True):
        rows = () if node.domain.value == "global" else (frame.rows(node.domain),)
        assert value.shape == (*rows, *node.type.shape), (node, value.shape)


def write_kernels(program: Program) -> tuple[str, str]:
    """The C++ and the Triton text of a program."""
    from gdsl.codegen import cpp, triton
    from gdsl.codegen.storage import packed_buffers
    from gdsl.passes.options import Options
    from gdsl.passes.pipeline import lower

    plan = lower(program, Options())
    packed = packed_buffers(plan, "float", None)
    functions = [f for k in plan.kernels for f in triton.functions(k, plan.program, packed, "float", "int32_t", 0)]
    return "\n".join(cpp.kernel_source(k, plan, packed) for k in plan.kernels), triton.unit(functions)


def calls() -> list[str]:
    """An operator for each op, and for some layers."""
    from gdsl.module.operators import OperatorCall
    from tests.ir.drive import LAYERS
    from tests.ir.every_op import programs

    found = [*programs().values(), *(made() for made in LAYERS.values())]
    methods, requires, choices = ("add_self_loops",), (("i", 2),), (("save", "all"),)
    written = [p for p in found if is_written(p)]
    return [OperatorCall(p, "float32", "cpp", methods, requires, choices, floats(p)).text() for p in written]


def is_written(program: Program) -> bool:
    """Whether a file may have it."""
    from gdsl.ir.node import walk

    return all(n.op not in ("call", "grouped_product", "sparse_product") for n in walk(program.nodes))


def floats(program: Program) -> tuple[bool, ...]:
    return tuple(n.kind.value == "float" for n in program.inputs)


# ----------------------------------------------------------------------------------------- the fuzzer


@dataclass(frozen=True)
class Target:
    """What is attacked: the modules that are watched, the texts to begin with, how they change, and what is tried."""

    modules: tuple[str, ...]
    first: Callable[[], list[str]]
    changed: Callable[[str, random.Random, list[str]], str]
    attack: Callable[[str], bool]
    longest: int


TARGETS = {
    "programs": Target(("gdsl.language",), programs, changed, attack, 6000),
    "calls": Target(("gdsl.ir", "gdsl.module.operators"), calls, changed_call, attack_call, 40_000),
}


def fuzz(name: str, arguments: list[str]) -> None:
    """Run until the fuzzer's own limit: in a process of its own, which it ends."""
    import atheris

    target = TARGETS[name]
    with atheris.instrument_imports(include=list(target.modules)):
        import gdsl.language.check
        import gdsl.language.format
        import gdsl.language.parse
        import gdsl.language.placeholders
        import gdsl.module.operators  # noqa: F401
    others = target.first()

    def one(data: bytes) -> None:
        target.attack(data.decode("utf-8", "replace"))

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.3:
            mutated: bytes = atheris.Mutate(data, most)
            return mutated
        text = data.decode("utf-8", "replace")
        try:
            text = target.changed(text, chance, others)
        except (ValueError, RecursionError):  # no longer what can be changed by fields
            text = chance.choice(others)
        return text.encode("utf-8", "replace")[:most]

    atheris.Setup([sys.argv[0], *arguments], one, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], default=list(TARGETS))
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    return max(run(name, options.seconds, options.seed) for name in options.targets)


def run(name: str, seconds: int, seed: int) -> int:
    """Fuzz a target, and print what was found. 0 where nothing was."""
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        corpus, findings = folder / "corpus", folder / "findings"
        corpus.mkdir()
        findings.mkdir()
        for k, text in enumerate(TARGETS[name].first()):
            (corpus / str(k)).write_text(text, encoding="utf-8")
        limits = [
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-timeout={SECONDS_A_TEXT}",
            f"-rss_limit_mb={MEGABYTES}",
            f"-max_len={TARGETS[name].longest}",
            f"-artifact_prefix={findings}/",
            "-print_final_stats=1",
        ]
        script = f"from tests.fuzz import fuzz; fuzz({name!r}, {[str(corpus), *limits]!r})"
        done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, check=False)
        shown = [line for line in done.stderr.splitlines() if not re.match(r"#\d+\s+(NEW|REDUCE|RELOAD)", line)]
        print("\n".join(shown[-60:]))
        for finding in sorted(findings.iterdir()):
            print(f"\n--- {finding.name}\n{finding.read_text(encoding='utf-8', errors='replace')}")
        print(f"{name}: " + ("no finding" if done.returncode == 0 else "a finding: see above"))
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
