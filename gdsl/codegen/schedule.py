"""How the edges of a graph are shared out among threads, in numbers that graphs and kernels agree on."""

# Work is counted in edges + rows. A block of this much takes many microseconds to walk, well above the cost of handing
# it to a thread; more blocks than this would cost memory where a kernel keeps a partial sum for each.
BLOCK_WORK = 4096
MAX_BLOCKS = 1024

# A row with more edges than this is a hub: all threads walk it together, in chunks of this many edges.
HUB_EDGES = 1 << 14
CHUNK_EDGES = 1 << 12

# A kernel that adds up all rows makes a partial sum for each group of blocks: never fewer than feed the threads.
LEAST_GROUPS = 8

# Steps that run in one native call have their inner values in one piece of memory, which is not given back between
# them: of so many bytes that is no matter. So few of them lie on the stack.
MOST_BYTES = 1 << 25
SMALL = 1 << 16

# The same on a GPU, where a program takes a few rows, of each a few edges at a time: its longest row decides how long
# it runs, which must be little of what the whole kernel takes. A hub has more edges than this, and than so many times
# the mean where all rows are long; each chunk of it is walked by a program of its own.
GPU_HUB_EDGES = 1 << 8
GPU_HUB_MEANS = 8
GPU_CHUNK_EDGES = 1 << 9

# A GPU kernel writes this many partial sums of a total over all rows at most: few enough to add up quickly, enough to
# fill the largest GPU. Fixed, so that every GPU gives the same bits.
GPU_GROUPS = 1024
