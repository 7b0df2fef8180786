"""Graph convolutions: each a program of the language and a thin class. Names of ``torch_geometric.nn.conv``."""

import gdsl.nn

__all__, __getattr__, __dir__ = gdsl.nn.lazily("conv")
