"""What a step of training frees, the next one takes again: the system need not have it in between."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

# The largest piece that glibc's allocator learns from, less room for its own few bytes.
LEARNT = (1 << 25) - (1 << 13)


@cache
def keep() -> None:
    """Have the system's allocator keep what is freed, up to 64 MB, instead of giving it back page by page.

    glibc learns from what a program frees: pieces as large as the largest so far, of at most 32 MB, lie on its heap
    from then on, and it gives the end of the heap back where twice as much is free there. A process whose largest
    tensor has a few megabytes gives most of a step back at its end, and takes it again at 4 KB a fault: a tenth of the
    time of PNA on molecules. So it learns from one of 32 MB, which nobody writes to, as from any tensor of that size.
    Where a user has set ``MALLOC_TRIM_THRESHOLD_`` or the like, glibc does not learn; nor do other allocators.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
        library.free(library.malloc(LEARNT))
