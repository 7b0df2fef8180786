"""Random calls of random programs: what a caller sees on each backend is what plain torch shows, or torch's own error.

``GDSL_CALLS`` says how many, ``GDSL_SEED`` which; the default tests make a few, always the same. A failure prints the
call, shrunk where there are many.
"""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from gdsl.runtime.triton import interpreted
from tests.programs import harness
from tests.programs.random_calls import Call, calls, outcome, plain

COUNT = int(os.environ.get("GDSL_CALLS", "24"))
SEED = int(os.environ.get("GDSL_SEED", "0"))
SHARD = 12 if COUNT < 1000 else 250  # calls in one test: what one process does at a time
TOLERANCE = 1e-8

# A backend, and what compiles the call; Triton needs its interpreter where there is no GPU.
WAYS = [("torch", None), ("cpp", None), ("cpp", "eager"), ("cpp", "aot_eager")] + [("triton", None)] * interpreted()

REFUSED = "modified by an inplace operation"


@pytest.mark.parametrize("shard", range(-(-COUNT // SHARD)))
def test_every_way(shard: int) -> None:
    phases = [Phase.generate, Phase.shrink] if COUNT >= 1000 else [Phase.generate]
    health = list(HealthCheck)
    run = settings(max_examples=SHARD, database=None, deadline=None, phases=phases, suppress_health_check=health)(
        given(calls())(compare)
    )
    seed(SEED * 1_000_003 + shard)(run)()


def compare(call: Call) -> None:
    made = call.layer("torch")
    expected = outcome(call, plain(made), list(made.parameters()))
    for backend, compiler in WAYS:
        if compiler == "aot_eager" and call.second:
            continue  # torch differentiates what it has compiled only once
        made = call.layer(backend)
        torch._dynamo.reset()
        function = made if compiler is None else torch.compile(made, backend=compiler, fullgraph=True)
        try:
            found = outcome(call, function, list(made.parameters()))
        except RuntimeError as error:
            if call.write is None or REFUSED not in str(error):
                raise
            continue
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            gap = harness.difference([found[name]], [value])
            assert gap < TOLERANCE, f"{backend}, {compiler}: {name} is {gap:.1e} off"
