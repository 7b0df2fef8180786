"""Text as an attack: it cannot crash or stall the compiler, reach its command line, or write its own generated code.

``python -m tests.fuzz`` looks for more with a coverage-guided fuzzer.
"""

from __future__ import annotations

import random
import subprocess
from typing import Any

import pytest
import torch
from torch import nn

import gdsl
from tests.fuzz import attack, changed, programs

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])


def test_changed_programs_are_programs_or_mistakes() -> None:
    chance, texts = random.Random(0), programs()
    accepted = sum(attack(changed(chance.choice(texts), chance, texts)) for _ in range(1200))
    assert 20 < accepted < 1180


# ------------------------------------------------------------------------------ programs that grow

HEAD = "layer Grown(d = 2) { node x[d] edge w[d] param p[d, d'] ~ glorot\n"
# What is written in a few words and is large once written out, or has exponentially many paths through it.
GROWING = {
    "deep chain": "h = x for k in 1..600 { h = tanh(h + x) } update y = h",
    "deep sum": "h = x for k in 1..600 { h = h + tanh(k * x) } update y = h",
    "diamonds": "h = x for k in 1..60 { h = h * tanh(h) + h } update y = h",
    "diamonds on edges": "h = x[j] + w for k in 1..60 { h = tanh(h) * h } aggregate a = sum(h) update y = a",
    "diamonds in a product": "h = x[j] + w for k in 1..60 { h = tanh(h) * h } aggregate a = sum(h @ p) update y = a",
    "sums of sums": "h = x[j] + w g = x[i] for k in 1..60 { s = h + g g = h h = s } aggregate a = sum(h) update y = a",
    "many layers": "h = x for k in 1..200 { h = tanh(sum(h[j] + w) + x) } update y = h",
    "many softmaxes": "h = x for k in 1..40 { h = sum(softmax(h[j]) * w) + x } update y = h",
}
REFUSED = {
    "calls": (
        "def f0(z) = z " + "".join(f"def f{k + 1}(z) = f{k}(z) * f{k}(-z) " for k in range(30)) + "update y = f30(x)",
        "more than 10000 calls once those inside functions are written out",
    ),
    "loops": (
        "h = x for a in 1..1000 { for b in 1..1000 { h = h + x } } update y = h",
        "more than 10000 statements once its loops are written out",
    ),
}


DEEP = {
    "a cat of many": f"update y = cat({', '.join(['x'] * 400)})",
    "a cat of many on edges": f"update y = sum(cat({', '.join(['tanh(x[j])'] * 400)}))",
    "a long chain": "h = x for k in 1..400 { h = sin(k * h) + x } update y = sum(h[j])",
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_values_are_written_as_code(name: str) -> None:
    made = gdsl.compile(f"{HEAD}{DEEP[name]} }}", backend="cpp")
    assert made.kernels
    assert all(k.source for k in made.kernels)
    assert str(made.explain(EDGES))


@pytest.mark.parametrize("name", GROWING)
def test_growing_programs_run(name: str) -> None:
    """Optimised, differentiated and run; a walk that is exponential would not end, a recursion would fail."""
    made = gdsl.compile(f"{HEAD}{GROWING[name]} }}", backend="torch")
    x = torch.rand(3, 2, requires_grad=True)
    y = made(x, EDGES, torch.rand(3, 2))
    y.sum().backward()
    assert y.shape[0] == 3 and x.grad is not None


@pytest.mark.parametrize("name", ["deep chain", "diamonds", "diamonds on edges", "sums of sums"])
def test_growing_programs_are_written(name: str) -> None:
    """C++ and Triton text, and what is shown of a program, are of a size like the program's."""
    text = f"{HEAD}{GROWING[name].replace('1..600', '1..300')} }}"
    made = gdsl.compile(text, backend="cpp")
    for kernels in (made.kernels, made.kernels_for("triton", target="sm_90")):
        assert 0 < sum(len(k.source) for k in kernels) < 400_000
    assert len(made.explain()) < 400_000


@pytest.mark.parametrize("name", REFUSED)
def test_growing_programs_are_refused(name: str) -> None:
    text, message = REFUSED[name]
    with pytest.raises(gdsl.LanguageError, match=message):
        gdsl.compile(HEAD + text + " }")


# ----------------------------------------------------------------- text in places where code is made

# Words of C++, Python, Triton and the generated frame; names that compilers and loaders give a meaning.
WORDS = """int double class template typename asm volatile operator new delete this nullptr main malloc free system exit
abort printf memcpy NULL INFINITY NAN EOF errno stdin T idx_t rowptr other begin stop ahead threads scratch gdsl_exp
tl triton eval exec print open pid _start __attribute__ __asm__ __builtin_trap _Pragma defined
__LINE__ __VA_ARGS__ M_PI I unix linux omp omp_get_thread_num restrict register alignas""".split()


@pytest.mark.parametrize("backend", ["cpp", "triton"])
def test_names_are_never_code(backend: str) -> None:
    """A program whose names are words of the generated languages gives the numbers that it says."""
    for first in range(0, len(WORDS), 3):
        x, w, h = (WORDS * 2)[first : first + 3]
        text = (
            f"layer {x}({h}_ = 2) {{ node {x}[{h}_] edge {w} {h} = tanh({x}) "
            f"aggregate {w}_ = sum({w} * {h}[j]) update y = {w}_ }}"
        )
        made = gdsl.compile(text, backend=backend)
        value, weight = torch.rand(3, 2), torch.rand(3)
        expected = torch.zeros(3, 2).index_add(0, EDGES[1], weight[:, None] * value.tanh()[EDGES[0]])
        assert torch.allclose(made(value, EDGES, weight), expected, atol=1e-6), text


EVIL = [
    '*/ int gdsl_evil; /*',
    '\\\nint gdsl_evil;',
    '"; gdsl_evil',
    '$(touch gdsl_evil)',
    '`touch gdsl_evil`',
    '; rm gdsl_evil;',
    '\n#include "gdsl_evil"\n',
    "'''\ngdsl_evil = 1\n'''",
    '??/\ngdsl_evil',
    '%s%n{gdsl_evil}',
]  # fmt: skip


def sources(made: gdsl.Layer) -> str:
    return "\n".join(k.source for k in (*made.kernels, *made.kernels_for("triton", target="sm_90")))


@pytest.mark.parametrize("evil", EVIL)
def test_strings_stay_out_of_generated_code(evil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments, file names and names of modules' parameters may be any text; none reaches a kernel or a command."""
    commands: list[Any] = []
    run = subprocess.run

    def watched(command: Any, **options: Any) -> Any:
        commands.append(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", watched)
    text = """
layer C(mode = "sum", d = 2) {
    module nn
    node x[d]
    if mode == "max" { h = x } else { h = -x }
    update y = nn(h)
}
"""
    inner = nn.Sequential()
    inner.add_module(evil.replace(".", "_"), nn.Linear(2, 2))
    made = gdsl.compile(text, mode=evil, nn=inner, backend="cpp")
    x = torch.rand(3, 2)
    assert torch.allclose(made(x, EDGES), inner(-x))
    assert "evil" not in sources(made)
    assert all(isinstance(c, list) and not any("evil" in part for part in c) for c in commands)


@pytest.mark.parametrize(
    "text",
    [
        "layer C(d = 2) { node x[d] update y = x; } int evil() { return 1; }",
        "layer C(d = 2) { node x\\u0022[d] update y = x }",
        "layer C(d = 2) { node x[d] update y = x * 1.0f }",
        "layer C(d = 2) { node x[d] update y = x * 0x10 }",
        "layer C(d = 2) { node x[d] update y = __import__(x) }",
        'layer C(d = 2) { node x[d] update y = eval("1") }',
        'layer C(d = 2) { module nn = "os.system" node x[d] update y = nn(x) }',
        "layer C(d = 2) { node x[d] update y = x.data }",
        "layer C(d = 2) { node x[d] update y = x[0](1) }",
        'layer C(d = 2) { node x["; evil"] update y = x }',
        "layer \u0441(d = 2) { node x[d] update y = x }",
        "layer C(d = 2) { node x\u200b[d] update y = x }",
        "layer C(d = 2) { node x[d] update y = x\x00 }",
    ],
)
def test_text_that_is_no_program(text: str) -> None:
    with pytest.raises(gdsl.LanguageError):
        gdsl.compile(text)


def test_only_modules_run_python() -> None:
    text = "layer C(d = 2) { module nn node x[d] update y = nn(x) }"
    for given in ("os.system", print, object()):
        with pytest.raises(gdsl.GdslError, match="nn"):
            gdsl.compile(text, nn=given)
