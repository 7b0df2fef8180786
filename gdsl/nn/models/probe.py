"""How much embeddings tell, by a simple model on them."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def score(
    train_z: Tensor, train_y: Tensor, test_z: Tensor, test_y: Tensor, solver: str = "lbfgs", *args: Any, **kwargs: Any
) -> float:
    """The accuracy of scikit-learn's logistic regression, whose arguments the last are: embeddings [N, channels] and
    labels [N] to learn from, and others to try.
    """
    from sklearn.linear_model import LogisticRegression

    x, y, more, right = (t.detach().cpu().numpy() for t in (train_z, train_y, test_z, test_y))
    return float(LogisticRegression(*args, solver=solver, **kwargs).fit(x, y).score(more, right))
