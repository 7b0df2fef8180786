"""Whole models, made of the layers. Interface and names of ``torch_geometric.nn.models``."""

import gdsl.nn

__all__, __getattr__, __dir__ = gdsl.nn.lazily("models")
