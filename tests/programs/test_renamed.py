"""A program whose dims have other names means the same: names say which dims are one, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gdsl
from gdsl.ir.printer import print_program
from tests.programs import harness
from tests.programs.random_texts import Case, cases, inputs
from tests.typed import typed_of

# Turned in a circle, so that whatever goes by the alphabet or by length shows; and names of other kinds.
RENAMINGS = (
    {"a": "b", "b": "c", "c": "a", "R": "K", "K": "R"},
    {"a": "Zeta", "b": "in_channels", "c": "_", "R": "dim2", "K": "depth"},
)
UNHURRIED = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def renamed(text: str, names: Mapping[str, str]) -> str:
    """The text with other names for dims, wherever they stand; what is counted along a dim keeps its own name."""
    return re.sub(r"(?<!\w)[A-Za-z_]\w*", lambda m: names.get(m.group(), m.group()), text)


def printed(case: Case) -> str:
    made = case.layer("torch")
    typed = typed_of(made, training=case.training, present=case.passed, free=dict.fromkeys(made.signature.free_dims, 3))
    return re.sub(r" +", " ", print_program(typed.program))


@pytest.mark.parametrize("names", RENAMINGS)
def test_random_programs(names: Mapping[str, str]) -> None:
    @settings(max_examples=60, **UNHURRIED)
    @given(cases())
    def check(case: Case) -> None:
        other = replace(case, text=renamed(case.text, names))
        assert printed(other) == renamed(printed(case), names)

    check()


@settings(max_examples=8, **UNHURRIED)
@given(cases(), st.sampled_from(RENAMINGS))
def test_what_runs(case: Case, names: Mapping[str, str]) -> None:
    """Values and two derivatives, optimised: passes may not go by names either."""
    found = []
    for text in (case.text, renamed(case.text, names)):
        one = replace(case, text=text)
        made = one.layer("torch")
        torch.manual_seed(7)
        found.append(harness.run(made, inputs(made, one)))
    assert all(harness.difference(a, b) < 1e-9 for a, b in zip(*found, strict=True))


def test_primes_are_not_of_the_name() -> None:
    """What `d'` is read as goes by the primes alone."""
    text = "layer A(d = 3) { node x[d] param w[d', d] ~ normal h = x @ w update y = (x + tanh(h)) @ w }"
    first, second = (gdsl.compile(renamed(text, {"d": name})) for name in ("d", "zz"))
    assert str(first.program.outputs[0][1].type) == "node[d']"
    assert str(second.program.outputs[0][1].type) == "node[zz']"
