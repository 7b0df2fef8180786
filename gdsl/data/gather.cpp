// A batch of graphs out of a packed data set: what gdsl/data/columns.py says of each result, which it also makes in
// torch; both give the same numbers.
#include <stdint.h>
#include <string.h>

namespace {

// The least bytes for a thread of its own: below, waking it costs more than it copies.
constexpr int64_t SHARE = 1 << 18;

// One array of a data set: for each graph a block of ``outer`` rows of as many items as the graph has.
struct Column {
    const char* values;
    char* out;
    int64_t length;         // which offsets tell where the items of a graph begin
    int64_t outer;
    int64_t inner;          // numbers an item has
    int64_t kind;           // bytes of a number that is copied, or one of the kinds below
    const int64_t* shifts;  // of each row: which offsets say what is added to the numbers of a graph
    int64_t closed;         // whether one number more, the total of the first shifts, ends it
};
constexpr int64_t NARROW = -1, WIDENED = -2, WIDE = -3;  // int32, int32 to int64, int64: shifted

template <class In, class Out>
void shifted(const Column& c, int64_t graph, int64_t from, int64_t to, int64_t items, int64_t all,
             const int64_t* const* places) {
    for (int64_t o = 0; o < c.outer; ++o) {
        const In* in = (const In*)c.values + (c.outer * from + o * items) * c.inner;
        Out* out = (Out*)c.out + (o * all + to) * c.inner;
        const Out more = (Out)places[c.shifts[o]][graph];
        for (int64_t n = 0; n < items * c.inner; ++n) out[n] = (Out)(in[n] + more);
    }
}

}  // namespace

// Where the items of each graph begin in the batch: [offsets, count + 1].
extern "C" void place(const int64_t* graphs, int64_t count, int64_t kinds, const int64_t* const* offsets,
                      int64_t* placed) {
    for (int64_t k = 0; k < kinds; ++k) {
        int64_t at = 0;
        *placed++ = 0;
        for (int64_t b = 0; b < count; ++b) {
            at += offsets[k][graphs[b] + 1] - offsets[k][graphs[b]];
            *placed++ = at;
        }
    }
}

extern "C" void gather(const int64_t* graphs, int64_t count, int64_t kinds, const int64_t* const* offsets,
                       const int64_t* placed, int64_t num_columns, const Column* columns, int64_t bytes, int threads) {
    const int64_t most = bytes / SHARE < count ? bytes / SHARE : count;
    const int parts = most < 1 ? 1 : most < threads ? (int)most : threads;
    const int64_t* places[kinds];
    for (int64_t k = 0; k < kinds; ++k) places[k] = placed + k * (count + 1);
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (int p = 0; p < parts; ++p) {
        for (int64_t k = 0; k < num_columns; ++k) {
            const Column& c = columns[k];
            const int64_t* const starts = offsets[c.length];
            const int64_t* const to = places[c.length];
            const int64_t all = to[count];
            if (c.closed && p == 0) ((int32_t*)c.out)[all] = (int32_t)places[c.shifts[0]][count];
            for (int64_t b = count * p / parts; b < count * (p + 1) / parts; ++b) {
                const int64_t from = starts[graphs[b]], items = to[b + 1] - to[b];
                if (c.kind == NARROW) {
                    shifted<int32_t, int32_t>(c, b, from, to[b], items, all, places);
                } else if (c.kind == WIDENED) {
                    shifted<int32_t, int64_t>(c, b, from, to[b], items, all, places);
                } else if (c.kind == WIDE) {
                    shifted<int64_t, int64_t>(c, b, from, to[b], items, all, places);
                } else {
                    const int64_t size = c.inner * c.kind;
                    for (int64_t o = 0; o < c.outer; ++o) {
                        memcpy(c.out + (o * all + to[b]) * size, c.values + (c.outer * from + o * items) * size,
                               items * size);
                    }
                }
            }
        }
    }
}

// The number of each item's graph in the batch.
extern "C" void number(const int64_t* placed, int64_t count, int64_t* out) {
    for (int64_t b = 0; b < count; ++b) {
        for (int64_t n = placed[b]; n < placed[b + 1]; ++n) out[n] = b;
    }
}

// Whether rows of graphs are what an order of their edges is: see gdsl/data/check.py. The first graph that is not, or -1.
extern "C" int64_t wrong_order(const int32_t* edges, const int64_t* edge_offsets, const int64_t* row_offsets,
                               int64_t graphs, int end, const int32_t* first, const int32_t* index,
                               const int32_t* edge) {
    for (int64_t g = 0; g < graphs; ++g) {
        const int64_t from = edge_offsets[g], count = edge_offsets[g + 1] - from;
        const int64_t rows = row_offsets[g + 1] - row_offsets[g];
        const int32_t* const begin = first + row_offsets[g];
        const int32_t* const row = edges + 2 * from + (end ? count : 0);
        const int32_t* const other = edges + 2 * from + (end ? 0 : count);
        if (rows ? begin[0] != 0 : count != 0) return g;
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t last = r + 1 < rows ? (int64_t)begin[r + 1] : count;
            if (begin[r] < 0 || last < begin[r] || last > count) return g;
            for (int64_t e = begin[r]; e < last; ++e) {
                const int64_t id = edge ? (int64_t)edge[from + e] : e;
                if (id < 0 || id >= count || row[id] != r || (index && index[from + e] != other[id])) return g;
                if (edge && e > begin[r] && edge[from + e - 1] >= id) return g;
            }
        }
    }
    return -1;
}
