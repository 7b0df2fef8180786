#!/usr/bin/env bash
# ogb 1.3.6: its Evaluator is what results on link prediction are compared by. A model that has diverged, whose every score is NaN, has
# a mean reciprocal rank of 1, the best there is, in ogbl-citation2 and ogbl-wikikg2: ranks are counts of negatives that are larger, and none
# is larger than NaN. In ogbl-ppa, -collab and -ddi, a model that puts every negative above every edge has hits@K of 1 on a validation with
# fewer than K negatives, as one takes for a first try: 99 of them, 49, or 19. Nothing is said of either.
#
# Seen with ogb 1.3.6, torch 2.13.0:
#   ogbl-citation2, all scores NaN: mrr 1.0 hits@1 1.0
#   ogbl-wikikg2, all scores NaN: mrr 1.0 hits@1 1.0
#   ogbl-ppa, all edges below 99 negatives: hits@100 1.0; below 100: 0.0
#   ogbl-collab, all edges below 49 negatives: hits@50 1.0; below 50: 0.0
#   ogbl-ddi, all edges below 19 negatives: hits@20 1.0; below 20: 0.0
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 numpy==2.4.6 ogb==1.3.6
HOME=$FOLDER python <<'PY'
import torch
from ogb.linkproppred import Evaluator


def scored(name, positive, negative):
    found = Evaluator(name).eval({"y_pred_pos": positive, "y_pred_neg": negative})
    return {key.removesuffix("_list"): float(torch.as_tensor(value).float().mean()) for key, value in found.items()}


for name in ("ogbl-citation2", "ogbl-wikikg2"):
    found = scored(name, torch.full((10,), torch.nan), torch.full((10, 1000), torch.nan))
    print(f"{name}, all scores NaN: mrr {found['mrr']} hits@1 {found['hits@1']}")
    assert found["mrr"] == found["hits@1"] == 1.0, "changed"
for name, k in (("ogbl-ppa", 100), ("ogbl-collab", 50), ("ogbl-ddi", 20)):
    few, enough = (scored(name, torch.zeros(10), torch.ones(count))[f"hits@{k}"] for count in (k - 1, k))
    print(f"{name}, all edges below {k - 1} negatives: hits@{k} {few}; below {k}: {enough}")
    assert (few, enough) == (1.0, 0.0), "changed"
PY
