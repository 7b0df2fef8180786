"""Embeddings of knowledge graphs. Interface and names of ``torch_geometric.nn.kge``."""

import gdsl.nn

__all__, __getattr__, __dir__ = gdsl.nn.lazily("kge")
