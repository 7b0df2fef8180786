"""Data sets of graphs: packed once, and batches of them that are ready for layers."""

from gdsl.data.batch import Batch, Store
from gdsl.data.loader import Loader
from gdsl.data.packed import Packed, pack, pack_arrays

__all__ = ["Batch", "Loader", "Packed", "Store", "pack", "pack_arrays"]
