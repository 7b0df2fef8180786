"""Data sets of graphs: packed once, and batches of them that are ready for layers."""

from gdsl.data.batch import Batch, Store
from gdsl.data.clusters import ClusterData, ClusterLoader
from gdsl.data.folders import data_root
from gdsl.data.layerwise import LayerwiseInference
from gdsl.data.links import LinkNeighborLoader
from gdsl.data.loader import Loader
from gdsl.data.neighbors import NeighborLoader
from gdsl.data.ogb import load_ogb, load_ogb_split
from gdsl.data.packed import Packed, pack, pack_arrays
from gdsl.data.planetoid import NodeData, load_planetoid
from gdsl.data.saint import GraphSAINTEdgeSampler, GraphSAINTNodeSampler, GraphSAINTRandomWalkSampler
from gdsl.data.tu import load_tu

__all__ = [
    "Batch",
    "ClusterData",
    "ClusterLoader",
    "GraphSAINTEdgeSampler",
    "GraphSAINTNodeSampler",
    "GraphSAINTRandomWalkSampler",
    "LayerwiseInference",
    "LinkNeighborLoader",
    "Loader",
    "NeighborLoader",
    "NodeData",
    "Packed",
    "Store",
    "data_root",
    "load_ogb",
    "load_ogb_split",
    "load_planetoid",
    "load_tu",
    "pack",
    "pack_arrays",
]
