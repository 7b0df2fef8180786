"""Random programs of the language on random graphs: text to derivatives, every backend against plain torch.

``make nightly`` writes 20,000 of them on all cores (``GDSL_PROGRAMS`` says how many, ``GDSL_SEED`` which); the default
tests write a few, always the same. A failure prints the program, shrunk.
"""

from __future__ import annotations

import os
import re

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from gdsl.codegen import unrolled
from gdsl.ir.printer import print_program
from gdsl.language.check import check
from gdsl.language.format import format_text
from gdsl.language.forms import SPECIAL
from gdsl.language.functions import DIM_REDUCERS, FUNCTIONS, OPERATORS, ORDERED_REDUCERS, SEGMENT_REDUCERS
from gdsl.language.parse import parse
from gdsl.language.transforms import TRANSFORMS
from gdsl.passes.options import Options
from gdsl.runtime.triton import interpreted
from tests.programs import harness
from tests.programs.random_texts import Case, cases, inputs

COUNT = int(os.environ.get("GDSL_PROGRAMS", "40"))
SEED = int(os.environ.get("GDSL_SEED", "0"))
SHARD = 20 if COUNT < 1000 else 250  # programs in one test: what one process does at a time
TOLERANCE = 1e-8

# Backend and whether the program is optimised; Triton needs its interpreter where there is no GPU.
WAYS = [("torch", True), ("cpp", True), ("cpp", False)] + [("triton", True)] * interpreted()


def test_ways() -> None:
    assert len(WAYS) == 4


def difference(case: Case, backend: str, optimised: bool, expected: harness.Results) -> float:
    made = case.layer(backend)
    made.options = Options(optimise=optimised, save=optimised)
    torch.manual_seed(7)
    found = harness.run(made, inputs(made, case))
    return max(harness.difference(a, b) for a, b in zip(found, expected, strict=True))


def test_the_writer_knows_the_language() -> None:
    """Every function, operator, reducer and statement comes up within some hundred programs."""
    tables = (FUNCTIONS, OPERATORS, SPECIAL, DIM_REDUCERS, SEGMENT_REDUCERS, ORDERED_REDUCERS, TRANSFORMS)
    statements = (
        "graph param global node source target edge message aggregate update pool const module linear mlp use def"
        " reduce for if return"
    )
    missing = {name for table in tables for name in table} | set(statements.split())

    @settings(max_examples=100, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(cases())
    def write(case: Case) -> None:
        missing.difference_update(re.findall(r"[A-Za-z_]+(?=\[[^]]*\]\()|\w+|\*\*|[<>=!]=|[-+*/@<>]", case.text))

    # The draws depend on more than the seed: hypothesis takes constants from all modules that are loaded.
    for batch in range(60):
        if missing:
            seed(batch)(write)()
    assert missing == set()


# What random programs have found, made small; what had more to do with other things is tested there.
FOUND = {
    "Triton picked places of a sum over edges of which another dim was written out": """
layer C(c = 4, a = 16) {
    node x[c]
    param p[c, a] ~ normal
    param q[a, c] ~ normal
    update h = tanh((transpose(var(p), a, c) @ q)[2])
}
""",
    "Triton counted a constant once in a sum over a dim": """
layer C(c = 4) {
    node x
    param p[c] ~ normal
    update h = tanh(mean[c](x + p))
}
""",
    "Triton loaded one number of a table, picked by a dim, with a mask for the dim": """
layer C(a = 3, R = 3) {
    node x
    node kind: int(R)
    param p[R, a] ~ normal
    param q[a] ~ normal
    v = sum[a](cross(p[kind][j], q))
    update y = x
    return y, v
}
""",
    "a choice that is known at construction lost the type of the other branch": """
layer C(a = 3) {
    node x[a]
    param p[a] ~ normal
    def f(z, t) = where(z < 0.213, t, 0.3 * z)
    update y = f(0.3, x) @ p
}
""",
    "a part of a cat has a dim that another part gives up": """
layer C(b = 2, c = 4) {
    node x
    param p[b, c] ~ normal
    param q[b] ~ normal
    update y = x * std[b](outer(cat(p, p; c, b)) + q)
}
""",
    "a product of an edge alone, less its mean, was what rounding the product loses, and its root had a slope": """
layer C() {
    node x
    edge w
    aggregate a = std(w * x[j])
    aggregate c = std(0.4 * w + w) at j
    update y = a * c
}
""",
    "a default as a result could not be printed": """
layer C() {
    node x
    edge w = 1
    update y = x
    return y, w
}
""",
}


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str) -> None:
    compare(Case(FOUND[name], "random"))


@pytest.mark.parametrize("shard", range(-(-COUNT // SHARD)))
def test_every_backend(shard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if shard % 2:  # Triton writes out the short dims of these, as otherwise only beside long ones
        monkeypatch.setattr(unrolled, "LEAST_BESIDE", 2)
    run = given(cases())(compare)
    # Making a failure smaller takes minutes: the nightly run does so.
    phases = [Phase.generate, Phase.shrink] if COUNT >= 1000 else [Phase.generate]
    health = list(HealthCheck)
    run = settings(max_examples=SHARD, database=None, deadline=None, phases=phases, suppress_health_check=health)(run)
    seed(SEED * 1_000_003 + shard)(run)()


def compare(case: Case) -> None:
    """Round trip of the text; values, gradients and second derivatives by every way of running it."""
    check_round_trip(case)
    reference = case.layer("torch", readable=True)
    reference.options = Options(optimise=False, save=False)
    torch.manual_seed(7)
    # Dropout's mask is drawn in a call, so a program in training has no oracle but a call.
    expected = (harness.run if case.training else harness.oracle)(reference, inputs(reference, case))
    for backend, optimised in WAYS:
        assert difference(case, backend, optimised, expected) < TOLERANCE, f"{backend}, optimised: {optimised}"


def check_round_trip(case: Case) -> None:
    """Formatted and parsed again, a text is the same program."""
    text = format_text(case.text)
    assert format_text(text) == text
    assert _printed(case, text) == _printed(case, case.text)


def _printed(case: Case, text: str) -> str:
    made = case.layer("torch")
    definition = parse(text).layers[-1]
    free = dict.fromkeys(made.signature.free_dims, 3)
    modules = {name: made._modules[name] for name in made._text.module_names if made._modules.get(name) is not None}
    typed = check(definition, made.arguments, modules=modules, present=case.passed, free_dims=free)
    return print_program(typed.program)
