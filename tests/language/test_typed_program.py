"""A typed program prints as its rules with their types."""

from __future__ import annotations

import gdsl


def test_prints_rules_with_types() -> None:
    source = """
    layer Hops(channels, K = 2) {
        node x[channels]
        h = x
        for k in 1..K { aggregate h = mean(h[j]) }
        update y = h + x
    }
    """
    assert str(gdsl.compile(source, channels=3).program) == (
        "layer Hops(channels = 3, K = 2) {\n"
        "    h = x                     # node[channels]\n"
        "    aggregate h = mean(h[j])  # node[channels]\n"
        "    aggregate h = mean(h[j])  # node[channels]\n"
        "    update y = h + x          # node[channels]\n"
        "    return y\n"
        "}"
    )
