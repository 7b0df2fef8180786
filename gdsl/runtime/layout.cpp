// What native code is told of a graph and in a call of some steps: steps.py and extension/steps.cpp write it, steps.cpp
// reads it. It stands before the text of each.
#include <stdint.h>

namespace {

struct EdgeOrder {
    const void *rowptr, *index, *edge, *blocks;
    int64_t num_blocks, max_degree;
};

struct Call {
    int64_t rows[5];  // of a global value, targets, sources, edges, graphs
    int64_t threads;
    EdgeOrder orders[2];  // by source, by target
    char* arena;  // or null, where little is needed
    void* given[];
};

}  // namespace
