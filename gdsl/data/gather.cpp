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

// Blocks are mostly some hundred bytes, and lie far from each other: they are asked for so many graphs ahead.
constexpr int64_t AHEAD = 16, LINE = 64, FEW = 4;

void soon(const char* from, int64_t bytes) {
    for (int64_t k = 0; k < FEW; ++k) __builtin_prefetch(from + (k * LINE < bytes ? k * LINE : 0));
    for (int64_t k = FEW; k < 4 * FEW && k * LINE < bytes; ++k) __builtin_prefetch(from + k * LINE);
}

template <class In, class Out>
inline void piece(const In* __restrict in, Out* __restrict out, Out more) {
    for (int64_t k = 0; k < LINE / (int64_t)sizeof(In); ++k) out[k] = (Out)(in[k] + more);
}

// They are copied in pieces of a fixed size, one or a few at once, which saves the processor a wrong guess, and which
// reach over into the next block, written after it: as long as the numbers that may be read and written, ``most``,
// allow it.
template <class In, class Out>
inline void block(const In* in, Out* out, int64_t count, int64_t most, Out more) {
    constexpr int64_t size = LINE / sizeof(In);
    int64_t n = 0;
    if (count <= size && size <= most) {
        piece(in, out, more);
        return;
    }
    if (count <= FEW * size && FEW * size <= most) {
        for (int64_t k = 0; k < FEW; ++k) piece(in + k * size, out + k * size, more);
        return;
    }
    for (; n < count && n + size <= most; n += size) piece(in + n, out + n, more);
    for (; n < count; ++n) out[n] = (Out)(in[n] + more);
}

// What a column has of the graphs of a batch from ``first`` to ``last``. ``inner``: numbers of an item; ``whole``: of the
// column.
template <class In, class Out>
void some(const Column& c, const int64_t* graphs, int64_t first, int64_t last, const int64_t* starts, const int64_t* to,
          int64_t all, int64_t inner, int64_t whole, const int64_t* const* places) {
    const In* const values = (const In*)c.values;
    for (int64_t b = first - AHEAD; b < last; ++b) {
        if (b + AHEAD < last) {
            const int64_t count = (to[b + AHEAD + 1] - to[b + AHEAD]) * inner;
            soon((const char*)(values + c.outer * starts[graphs[b + AHEAD]] * inner), c.outer * count * sizeof(In));
        }
        if (b < first) continue;
        const int64_t count = (to[b + 1] - to[b]) * inner, room = (to[last] - to[b]) * inner;
        int64_t from = c.outer * starts[graphs[b]] * inner;
        for (int64_t o = 0; o < c.outer; ++o, from += count) {
            const Out more = c.shifts && c.kind < 0 ? (Out)places[c.shifts[o]][b] : Out();
            const int64_t most = whole - from < room ? whole - from : room;
            block(values + from, (Out*)c.out + (o * all + to[b]) * inner, count, most, more);
        }
    }
}

// By kinds of columns: see gdsl/data/columns.py.
constexpr decltype(&some<char, char>) SHIFTED[] = {
    some<uint8_t, int32_t>, some<int16_t, int32_t>, some<int32_t, int32_t>, some<int32_t, int64_t>,
    some<int64_t, int64_t>,
};

template <class I>
int64_t wrong_order(const I* edges, const int64_t* edge_offsets, const int64_t* row_offsets, int64_t graphs, int end,
                    const I* first, const I* index, const I* edge) {
    for (int64_t g = 0; g < graphs; ++g) {
        const int64_t from = edge_offsets[g], count = edge_offsets[g + 1] - from;
        const int64_t rows = row_offsets[g + 1] - row_offsets[g];
        const I* const begin = first + row_offsets[g];
        const I* const row = edges + 2 * from + (end ? count : 0);
        const I* const other = edges + 2 * from + (end ? 0 : count);
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

}  // namespace

// Where the items of each graph begin in the batch: [offsets, count + 1]; and how many there are, [offsets].
extern "C" void place(const int64_t* graphs, int64_t count, int64_t kinds, const int64_t* const* offsets,
                      int64_t* placed, int64_t* totals) {
    for (int64_t k = 0; k < kinds; ++k) {
        int64_t at = 0;
        *placed++ = 0;
        for (int64_t b = 0; b < count; ++b) {
            at += offsets[k][graphs[b] + 1] - offsets[k][graphs[b]];
            *placed++ = at;
        }
        totals[k] = at;
    }
}

// ``total``: the graphs of the data set.
extern "C" void gather(const int64_t* graphs, int64_t count, int64_t total, int64_t kinds,
                       const int64_t* const* offsets, const int64_t* placed, int64_t num_columns, const Column* columns,
                       int threads) {
    const int64_t* places[kinds];
    for (int64_t k = 0; k < kinds; ++k) places[k] = placed + k * (count + 1);
    int64_t bytes = 0;
    for (int64_t k = 0; k < num_columns; ++k) {
        const Column& c = columns[k];
        bytes += c.outer * c.inner * places[c.length][count] * (c.kind > 0 ? c.kind : (int64_t)sizeof(int64_t));
    }
    const int64_t most = bytes / SHARE < count ? bytes / SHARE : count;
    const int parts = most < 1 ? 1 : most < threads ? (int)most : threads;
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (int p = 0; p < parts; ++p) {
        const int64_t first = count * p / parts, last = count * (p + 1) / parts;
        for (int64_t k = 0; k < num_columns; ++k) {
            const Column& c = columns[k];
            const int64_t *const starts = offsets[c.length], *const to = places[c.length], all = to[count];
            if (c.closed && p == 0) ((int32_t*)c.out)[all] = (int32_t)places[c.shifts[0]][count];
            const int64_t inner = c.kind > 0 ? c.inner * c.kind : c.inner, whole = c.outer * starts[total] * inner;
            const auto fill = c.kind > 0 ? some<char, char> : SHIFTED[-1 - c.kind];
            fill(c, graphs, first, last, starts, to, all, inner, whole, places);
        }
    }
}

// The number of each item's graph in the batch.
extern "C" void number(const int64_t* placed, int64_t count, int64_t* out) {
    for (int64_t b = 0; b < count; ++b) {
        for (int64_t n = placed[b]; n < placed[b + 1]; ++n) out[n] = b;
    }
}

// Whether rows of graphs are what an order of their edges is: see ``wrong_graph`` in gdsl/data/topology.py. The first
// graph that is not, or -1.
#define WRONG_ORDER(type)                                                                                           \
    extern "C" int64_t wrong_order_##type(const type##_t* edges, const int64_t* edge_offsets,                        \
                                          const int64_t* row_offsets, int64_t graphs, int end, const type##_t* first, \
                                          const type##_t* index, const type##_t* edge) {                             \
        return wrong_order<type##_t>(edges, edge_offsets, row_offsets, graphs, end, first, index, edge);             \
    }
WRONG_ORDER(uint8)
WRONG_ORDER(int16)
WRONG_ORDER(int32)
