"""Graph layers with the interface of torch_geometric's, written in the gdsl language: change one import."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

# Where each layer lives. They are imported on first use, since a model has a few of them.
_FAMILIES = {
    "gcn": ("GCNConv",),
    "sage": ("SAGEConv",),
    "gat": ("GATConv",),
    "spectral": (
        "APPNP", "ARMAConv", "ChebConv", "ClusterGCNConv", "GCN2Conv", "LGConv", "MixHopConv", "SGConv", "SSGConv",
        "TAGConv",
    ),
    "simple": (
        "AntiSymmetricConv", "DirGNNConv", "GatedGraphConv", "GraphConv", "LEConv", "MFConv", "SignedConv",
        "SimpleConv", "WLConv", "WLConvContinuous",
    ),
    "attention": (
        "AGNNConv", "FAConv", "FeaStConv", "GATv2Conv", "GeneralConv", "SuperGATConv", "TransformerConv",
    ),
    "dna": ("DNAConv",),
    "hypergraph": ("HypergraphConv",),
    "types": ("HEATConv", "HGTConv", "RGATConv"),
    "hetero": ("HANConv", "HeteroConv"),
    "edge": (
        "CGConv", "DynamicEdgeConv", "ECConv", "EdgeConv", "GENConv", "GINConv", "GINEConv", "NNConv",
        "ResGatedGraphConv",
    ),
    "points": (
        "GMMConv", "GravNetConv", "PPFConv", "PointConv", "PointGNNConv", "PointNetConv", "PointTransformerConv",
        "SplineConv", "XConv",
    ),
    "relations": ("FastRGCNConv", "FiLMConv", "RGCNConv"),
    "paths": ("PANConv",),
    "mesh": ("MeshCNNConv",),
    "mixed": ("EGConv", "GPSConv", "PDNConv", "PNAConv"),
}  # fmt: skip

# What is no layer.
_PARTS = {
    "aggr": (
        "Aggregation", "AttentionalAggregation", "DeepSetsAggregation", "DegreeScalerAggregation",
        "EquilibriumAggregation", "GRUAggregation", "GraphMultisetTransformer", "LCMAggregation", "LSTMAggregation",
        "MLPAggregation", "MaxAggregation", "MeanAggregation", "MedianAggregation", "MinAggregation", "MulAggregation",
        "MultiAggregation", "PatchTransformerAggregation", "PowerMeanAggregation", "QuantileAggregation", "Set2Set",
        "SetTransformerAggregation", "SoftmaxAggregation", "SortAggregation", "StdAggregation", "SumAggregation",
        "VarAggregation", "VariancePreservingAggregation",
    ),
    "attention": ("PerformerAttention", "SGFormerAttention"),
    "clusters": ("ClusterPooling", "MemPooling"),
    "conversion.convert": ("convert", "convertible"),
    "dense.convs": ("DenseGATConv", "DenseGCNConv", "DenseGINConv", "DenseGraphConv", "DenseSAGEConv"),
    "dense.hetero": ("HeteroDictLinear", "HeteroLinear"),
    "dense.pooling": ("DMoNPooling", "dense_diff_pool", "dense_mincut_pool"),
    "encoding": ("PositionalEncoding", "TemporalEncoding"),
    "functional": ("bro", "gini"),
    "kge.base": ("KGEModel",),
    "kge.embeddings": ("ComplEx", "DistMult", "RotatE", "TransE"),
    "knn_index": (
        "ApproxL2KNNIndex", "ApproxMIPSKNNIndex", "KNNIndex", "L2KNNIndex", "MIPSKNNIndex", "approx_knn",
        "approx_knn_graph",
    ),
    "linear": ("Linear",),
    "models.attentive_fp": ("AttentiveFP",),
    "models.autoencoders": ("ARGA", "ARGVA", "GAE", "InnerProductDecoder", "VGAE"),
    "models.basic": ("EdgeCNN", "GAT", "GCN", "GIN", "GraphSAGE", "PNA"),
    "models.deepgcn": ("DeepGCNLayer",),
    "models.dimenet": ("DimeNet", "DimeNetPlusPlus"),
    "models.fingerprint": ("NeuralFingerprint",),
    "models.frames": ("MaskLabel", "MetaLayer"),
    "models.infomax": ("DeepGraphInfomax",),
    "models.jumping": ("HeteroJumpingKnowledge", "JumpingKnowledge"),
    "models.labels": ("CorrectAndSmooth", "LabelPropagation"),
    "models.lightgcn": ("LightGCN",),
    "models.linkx": ("LINKX",),
    "models.metapath": ("MetaPath2Vec",),
    "models.mlp": ("MLP",),
    "models.node2vec": ("Node2Vec",),
    "models.pmlp": ("PMLP",),
    "models.rect": ("RECT_L",),
    "models.schnet": ("SchNet",),
    "models.sgformer": ("SGFormer",),
    "models.signed": ("SignedGCN",),
    "models.unet": ("GraphUNet",),
    "message_passing": ("MessagePassing",),
    "neighbors": ("fps", "knn", "knn_graph", "nearest", "radius", "radius_graph"),
    "norm": (
        "BatchNorm", "DiffGroupNorm", "GraphNorm", "GraphSizeNorm", "HeteroBatchNorm", "HeteroLayerNorm",
        "InstanceNorm", "LayerNorm", "MeanSubtractionNorm", "MessageNorm", "PairNorm",
    ),
    "coarsening": (
        "avg_pool", "avg_pool_neighbor_x", "avg_pool_x", "graclus", "max_pool", "max_pool_neighbor_x", "max_pool_x",
        "voxel_grid",
    ),
    "pool": ("ASAPooling", "EdgePooling", "PANPooling", "SAGPooling", "TopKPooling"),
    "readouts": ("global_add_pool", "global_max_pool", "global_mean_pool", "global_sort_pool"),
    "unpool": ("knn_interpolate",),
}  # fmt: skip

_HOMES = {
    **{name: f"gdsl.nn.{module}" for module, names in _PARTS.items() for name in names},
    **{name: f"gdsl.nn.conv.{family}" for family, names in _FAMILIES.items() for name in names},
}

# What torch_geometric has in a package, too, and stands beside it here.
_ALSO = {"conv": ("MessagePassing",), "dense": ("Linear",)}

_MODULES = (
    "aggr", "attention", "conv", "dense", "encoding", "functional", "kge", "models", "neighbors", "norm", "pool",
    "unpool",
)  # fmt: skip

__all__ = sorted([*_HOMES, *_MODULES])


def lazily(package: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """``__all__``, ``__getattr__`` and ``__dir__`` of a package in here, which has the names of what lives there."""
    own = [name for name, home in _HOMES.items() if home.startswith(f"gdsl.nn.{package}.")]
    names = sorted([*own, *_ALSO.get(package, ())])

    def member(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module 'gdsl.nn.{package}' has no attribute {name!r}")
        return getattr(import_module("gdsl.nn"), name)

    return names, member, lambda: sorted({*vars(import_module(f"gdsl.nn.{package}")), *names})


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"gdsl.nn.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'gdsl.nn' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
