"""Layers and poolings on dense adjacencies, and linear maps by type. Interface of ``torch_geometric.nn.dense``."""

import gdsl.nn

__all__, __getattr__, __dir__ = gdsl.nn.lazily("dense")
