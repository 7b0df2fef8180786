"""Embeddings of knowledge graphs against torch_geometric's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn
from tests.parity.drop_in import outcome, pyg
from tests.programs import harness

NODES, RELATIONS, CHANNELS, TRIPLETS = 9, 3, 4, 7

MODELS: list[tuple[str, dict[str, Any]]] = [
    ("TransE", {}), ("TransE", {"margin": 2.0, "p_norm": 2.0}), ("DistMult", {}), ("DistMult", {"margin": 0.5}),
    ("ComplEx", {}), ("RotatE", {}), ("RotatE", {"margin": 3.0}),
]  # fmt: skip


def triplets() -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randint(NODES, (TRIPLETS,)),
        torch.randint(RELATIONS, (TRIPLETS,)),
        torch.randint(NODES, (TRIPLETS,)),
    )


class Both(nn.Module):
    """Scores and loss, with the same draws."""

    def __init__(self, model: nn.Module, given: Any):
        super().__init__()
        self.model, self.given = model, given

    def forward(self) -> Any:
        torch.manual_seed(7)
        return self.model(*self.given), self.model.loss(*self.given)


@pytest.mark.parametrize(("name", "options"), MODELS, ids=str)
def test_models(name: str, options: dict[str, Any]) -> None:
    made = []
    for library in (gdsl.nn, pyg):
        torch.manual_seed(0)
        made.append(getattr(library, name)(NODES, RELATIONS, CHANNELS, **options).double())
    ours, theirs = made
    assert repr(ours) == repr(theirs)
    for again in (False, True):
        for model in made if again else ():
            torch.manual_seed(1)
            model.reset_parameters()
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert harness.difference(list(ours.state_dict().values()), list(theirs.state_dict().values())) < 1e-15
    given = triplets()
    found, expected = (outcome(Both(model, given), (), None, {}) for model in made)
    assert found.keys() == expected.keys()
    assert harness.difference(list(found.values()), list(expected.values())) < 1e-9
    assert ours.test(*given, batch_size=4, k=3, log=False) == pytest.approx(
        theirs.test(*given, batch_size=4, k=3, log=False)
    )
    ours.test(*given, batch_size=4)
    for seed in range(3):
        drawn = []
        for model in made:
            torch.manual_seed(seed)
            drawn.append([*model.random_sample(*given), *next(iter(model.loader(*given, batch_size=3, shuffle=True)))])
        assert all(map(torch.equal, *drawn))
    sparse = getattr(gdsl.nn, name)(NODES, RELATIONS, CHANNELS, sparse=True)
    sparse(*given).sum().backward()
    assert sparse.node_emb.weight.grad.is_sparse


def test_the_base_gives_no_score() -> None:
    model = gdsl.nn.KGEModel(NODES, RELATIONS, CHANNELS)
    for function in (model, model.loss):
        with pytest.raises(NotImplementedError):
            function(*triplets())
    torch.manual_seed(0)
    model.reset_parameters()
    other = pyg.KGEModel(NODES, RELATIONS, CHANNELS)
    torch.manual_seed(0)
    other.reset_parameters()
    assert harness.difference(list(model.state_dict().values()), list(other.state_dict().values())) == 0
