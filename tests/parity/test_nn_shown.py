"""What a prompt and a notebook show of each module of gdsl.nn, before any call."""

from __future__ import annotations

import pytest
import torch

import gdsl.nn
from tests.parity.drop_in import build
from tests.parity.test_nn_convert import FIRST, OTHERS
from tests.screen import fits, visible


def test_every_layer() -> None:
    for case in FIRST.values():
        made = build(case, gdsl.nn, {})
        assert fits(repr(made)), case.layer
        if hasattr(made, "_repr_html_"):
            assert visible(made._repr_html_()) <= 12, case.layer


@pytest.mark.parametrize("make", OTHERS, ids=lambda make: "")
def test_every_other_module(make) -> None:  # type: ignore[no-untyped-def]
    if "DimeNet" in make.__code__.co_names:
        pytest.skip("it works out spherical harmonics first")
    torch.manual_seed(0)
    made = make(gdsl.nn)
    assert fits(repr(made))
    if hasattr(made, "_repr_html_"):
        assert visible(made._repr_html_()) <= 12
