"""How the edges of a graph are shared out among threads, in numbers that graphs and kernels agree on."""

# Work is counted in edges + rows. A block of this much takes many microseconds to walk, well above the cost of handing
# it to a thread; more blocks than this would cost memory where a kernel keeps a partial sum for each.
BLOCK_WORK = 4096
MAX_BLOCKS = 1024

# A row with more edges than this is a hub: all threads walk it together, in chunks of this many edges.
HUB_EDGES = 1 << 14
CHUNK_EDGES = 1 << 12
