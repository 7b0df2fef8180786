"""Generated C++ and Triton as text: read it in golden/. After a wanted change: pytest tests/codegen --update-golden"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gdsl.codegen import cpp, triton
from gdsl.ir.types import Kind
from gdsl.passes.one_walk import plan_on_gpu
from gdsl.passes.options import Options
from gdsl.passes.pipeline import differentiate, lower, optimise
from tests.ir.drive import LAYERS, pairs

GOLDEN = Path(__file__).with_name("golden")
ROOT = Path(__file__).resolve().parents[2]


LANGUAGES = {"cpp": ".cpp", "triton": ".py"}
PROGRAMS = {**LAYERS, "Pairs": pairs}


def kernels(layer: str, language: str = "cpp") -> str:
    """All kernels of a layer, forward and backward, without the fixed prelude."""
    p = optimise(PROGRAMS[layer]())
    wrt = [n for n in p.inputs if n.kind is Kind.FLOAT]
    back = differentiate(p, wrt, range(len(p.outputs)), None, Options()).program
    plans = [lower(p, Options()), lower(back, Options())]
    plans = plans if language == "cpp" else [plan_on_gpu(plan) for plan in plans]
    if language == "cpp":
        return "\n".join(cpp.kernel_source(k, plan) for plan in plans for k in plan.kernels)
    found = [triton.functions(k, plan.program, frozenset(), "float", "int32_t") for plan in plans for k in plan.kernels]
    return triton.unit([f for functions in found for f in functions])


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("layer", PROGRAMS)
def test_golden(layer: str, language: str, request: pytest.FixtureRequest) -> None:
    file, text = GOLDEN / f"{layer}{LANGUAGES[language]}", kernels(layer, language)
    if request.config.getoption("--update-golden", default=False):
        file.write_text(text)
    assert text == file.read_text(), f"{file.name} differs: pytest tests/codegen --update-golden, then read the diff"


def test_no_golden_is_left_over() -> None:
    for suffix in LANGUAGES.values():
        assert {f.stem for f in GOLDEN.glob(f"*{suffix}")} == set(PROGRAMS)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("layer", PROGRAMS)
def test_the_same_text_each_time(layer: str, language: str) -> None:
    assert kernels(layer, language) == kernels(layer, language)


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_the_same_text_in_another_process(hash_seed: str) -> None:
    """Sets of Python are in another order there; no text may depend on it."""
    code = (
        "from tests.codegen.test_golden import *\n"
        "print(*(kernels(name, language) for name in PROGRAMS for language in LANGUAGES), sep='', end='')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "".join(kernels(name, language) for name in PROGRAMS for language in LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("layer", PROGRAMS)
def test_generated_code_reads_well(layer: str, language: str) -> None:
    """A comment with the rule over each kernel, names from the program, no line that runs off the page."""
    text = kernels(layer, language)
    mark, head = {"cpp": ("//", 'extern "C"'), "triton": ("#", f"def {layer}")}[language]
    functions = text.count(head)
    assert functions > 0
    assert sum(line.startswith(f"{mark} {layer}") for line in text.splitlines()) == functions
    assert max(len(line) for line in text.splitlines()) <= 160
    assert not any(line != line.rstrip() or "\t" in line for line in text.splitlines())
