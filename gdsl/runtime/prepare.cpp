// What makes a list of edges ready for kernels: checked, copied, sorted by either end, and shared out among threads.
// gdsl/runtime/order.py does the same in torch, and says what each result is; both give the same numbers.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace {

// The least edges for a thread of its own: below, waking it costs more than it does.
constexpr int64_t SHARE = 1 << 15;

// From so many edges on, they are first put into buckets of neighbouring rows, whose parts of the result stay in the
// cache while they are filled. It takes some three times the instructions, which a few threads make up for.
constexpr int64_t BUCKET_EDGES = 1 << 21;
constexpr int64_t SHARED_BUCKET_EDGES = 1 << 18;
constexpr int BUCKET_THREADS = 4;
constexpr int64_t BUCKET_ROWS = 1 << 9;
constexpr int64_t MOST_BUCKETS = 1 << 10;

template <class X> X least(X a, X b) { return a < b ? a : b; }
template <class X> X most(X a, X b) { return a > b ? a : b; }

int parts_of(int64_t edges, int threads) { return (int)most<int64_t>(1, least<int64_t>(threads, edges / SHARE)); }

// Memory that is used once, in large pages where the system has some: most of its cost is in being given them.
void* scratch(int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr int64_t large = 1 << 21;
    const int64_t whole = (bytes + large - 1) / large * large;
    void* const found = aligned_alloc(large, whole);
    if (found) madvise(found, whole, MADV_HUGEPAGE);
    return found;
#else
    return malloc(bytes);
#endif
}

// What a pass over the edges finds out.
struct Facts {
    int64_t bad;     // the first edge with an end out of range, or -1
    int64_t source;  // the largest
    int64_t target;
    int64_t loops;   // edges j -> j
    int64_t by_source, by_target;  // whether they are sorted
};

template <class In, class Out, bool copy>
Facts look(const In* source, const In* target, int64_t first, int64_t last, Out* sources, Out* targets) {
    In high_source = -1, high_target = -1, sign = 0;
    int64_t loops = 0;
    In fell_source = 0, fell_target = 0;
    for (int64_t e = first; e < last; ++e) {
        const In s = source[e], t = target[e];
        sign |= s | t;
        high_source = most(high_source, s);
        high_target = most(high_target, t);
        loops += s == t;
        if constexpr (copy) {
            sources[e] = (Out)s;
            targets[e] = (Out)t;
        }
    }
    for (int64_t e = most<int64_t>(first, 1); e < last; ++e) fell_source |= source[e] < source[e - 1];
    for (int64_t e = most<int64_t>(first, 1); e < last; ++e) fell_target |= target[e] < target[e - 1];
    return {sign < 0 ? first : -1, high_source, high_target, loops, !fell_source, !fell_target};
}

// Facts of all edges, and a copy of them. Sizes of -1 are those of the largest node.
template <class In, class Out, bool copy>
void take(const In* source, const In* target, int64_t edges, int64_t num_sources, int64_t num_targets, Out* ends,
          Facts* facts, int threads) {
    const int parts = parts_of(edges, threads);
    Facts own[parts];
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (int p = 0; p < parts; ++p) {
        own[p] = look<In, Out, copy>(source, target, edges * p / parts, edges * (p + 1) / parts, ends, ends + edges);
    }
    Facts all = own[0];
    for (int p = 1; p < parts; ++p) {
        all.bad = most(all.bad, own[p].bad);
        all.source = most(all.source, own[p].source);
        all.target = most(all.target, own[p].target);
        all.loops += own[p].loops;
        all.by_source &= own[p].by_source;
        all.by_target &= own[p].by_target;
    }
    const int64_t sources = num_sources < 0 ? INT64_MAX : num_sources, targets = num_targets < 0 ? INT64_MAX : num_targets;
    if (all.bad >= 0 || all.source >= sources || all.target >= targets) {
        int64_t e = 0;
        while (e < edges && source[e] >= 0 && source[e] < sources && target[e] >= 0 && target[e] < targets) ++e;
        all.bad = e;
    }
    *facts = all;
}

// The rows of an order, shared out. The numbers are those of gdsl/runtime/schedule.py.
struct Schedule {
    int64_t block_work, max_blocks, hub_edges, chunk_edges;
    int64_t num_bounds, num_hubs, max_degree;  // what was found
};

template <class I>
void share_out(const I* rowptr, int64_t rows, int64_t* bounds, int64_t* hubs, int64_t* chunks, Schedule* schedule) {
    const int64_t hub_edges = schedule->hub_edges;
    I longest = 0;
    for (int64_t r = 0; r < rows; ++r) longest = most<I>(longest, rowptr[r + 1] - rowptr[r]);
    int64_t total = rows + (int64_t)rowptr[rows], num_hubs = 0;
    if (longest > hub_edges) {
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t degree = rowptr[r + 1] - rowptr[r];
            if (degree <= hub_edges) continue;
            total -= degree;
            hubs[num_hubs] = r;
            if (!num_hubs) chunks[0] = 0;
            chunks[num_hubs + 1] = chunks[num_hubs] + (degree + schedule->chunk_edges - 1) / schedule->chunk_edges;
            ++num_hubs;
        }
    }
    const int64_t count = most<int64_t>(
        1, least(least(schedule->max_blocks, total / schedule->block_work), rows));
    // The work of the rows before one grows with it: each bound is searched for, between hubs, which are no work.
    int64_t found = 0, k = 0, first = 0, skipped = 0;
    for (int64_t h = 0; h <= num_hubs; ++h) {
        const int64_t last = h < num_hubs ? hubs[h] : rows;
        while (k <= count && k * total / count <= last + (int64_t)rowptr[last] - skipped) {
            int64_t low = first, high = last;
            while (low < high) {
                const int64_t middle = (low + high) / 2;
                if (middle + (int64_t)rowptr[middle] - skipped < k * total / count) low = middle + 1;
                else high = middle;
            }
            bounds[found++] = low;
            while (k <= count && k * total / count <= low + (int64_t)rowptr[low] - skipped) ++k;
            first = low;
        }
        first = last + 1;
        if (h < num_hubs) skipped += rowptr[last + 1] - rowptr[last];
    }
    schedule->num_bounds = found;
    schedule->num_hubs = num_hubs;
    schedule->max_degree = longest;
}

template <class I> struct Item {
    I row, other, id;
};

// Edges that lie in two arrays, of which loops may be left out.
template <class I> struct Listed {
    const I *row, *other;
    bool drop;
    template <class F> void each(int64_t first, int64_t last, I id, F use) const {
        if (!drop) {
            for (int64_t e = first; e < last; ++e) use(row[e], other[e], (I)(id + (e - first)));
            return;
        }
        for (int64_t e = first; e < last; ++e) {
            if (row[e] != other[e]) use(row[e], other[e], id++);
        }
    }
};

template <class I> struct Bucketed {
    const Item<I>* items;
    template <class F> void each(int64_t first, int64_t last, I, F use) const {
        for (int64_t e = first; e < last; ++e) use(items[e].row, items[e].other, items[e].id);
    }
};

// The edges ``first`` to ``last`` of a list, which are all those of some rows, by row. Their place in the order begins
// at ``at``. A row below ``loops`` ends with its own loop, whose id is that of the kept edges' end plus the row.
template <class I, class List>
void fill(const List& list, int64_t first, int64_t last, int64_t first_row, int64_t last_row, int64_t at, int64_t loops,
          int64_t kept, I* rowptr, I* index, I* edge) {
    I* const ends = rowptr + 1;  // ends[r] is where the next edge of row r goes, and at last where they end
    memset(ends + first_row, 0, (last_row - first_row) * sizeof(I));
    list.each(first, last, 0, [&](I row, I, I) { ++ends[row]; });
    for (int64_t r = first_row; r < last_row; ++r) {
        const I count = ends[r];
        ends[r] = (I)at;
        at += count + (r < loops);
    }
    list.each(first, last, 0, [&](I row, I other, I id) {
        const I to = ends[row]++;
        index[to] = other;
        edge[to] = id;
    });
    for (int64_t r = first_row; r < least(last_row, loops); ++r) {
        const I to = ends[r]++;
        index[to] = (I)r;
        edge[to] = (I)(kept + r);
    }
}

// Edges that are sorted already: no more than where each row begins.
template <class I>
void sorted_order(const I* row, const I* other, int64_t edges, int64_t rows, I* rowptr, I* edge, int parts) {
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (int p = 0; p < parts; ++p) {
        const int64_t first = edges * p / parts, last = edges * (p + 1) / parts;
        int64_t next = first ? (int64_t)row[first - 1] + 1 : 0;
        for (int64_t e = first; e < last; ++e) {
            edge[e] = (I)e;
            while (next <= row[e]) rowptr[next++] = (I)e;
        }
    }
    for (int64_t r = edges ? (int64_t)row[edges - 1] + 1 : 0; r <= rows; ++r) rowptr[r] = (I)edges;
}

// In two steps: into buckets of rows, each thread its part of the edges; then each bucket for itself.
template <class I>
bool bucket_order(const Listed<I>& list, int64_t edges, int64_t rows, int64_t loops, I* rowptr, I* index, I* edge,
                  int parts) {
    int shift = 0;
    while ((BUCKET_ROWS << shift) < rows && (rows >> shift) > MOST_BUCKETS) ++shift;
    while (((int64_t)1 << shift) < BUCKET_ROWS) ++shift;
    const int64_t buckets = ((rows - 1) >> shift) + 1;
    Item<I>* const items = (Item<I>*)scratch(edges * sizeof(Item<I>));
    int64_t* const counts = (int64_t*)calloc((parts + 1) * (buckets + 1), sizeof(int64_t));
    if (!items || !counts) {
        free(items);
        free(counts);
        return false;
    }
    // counts[p][b]: the edges of a part in a bucket, then where they go; its last is all that the part keeps.
    const int64_t width = buckets + 1;
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (int p = 0; p < parts; ++p) {
        int64_t* const mine = counts + p * width;
        list.each(edges * p / parts, edges * (p + 1) / parts, 0, [&](I row, I, I) { ++mine[row >> shift]; });
        for (int64_t b = 0; b < buckets; ++b) mine[buckets] += mine[b];
    }
    int64_t* const starts = counts + parts * width;
    int64_t kept = 0, at = 0;
    for (int p = 0; p < parts; ++p) {
        const int64_t count = counts[p * width + buckets];
        counts[p * width + buckets] = kept;
        kept += count;
    }
    for (int64_t b = 0; b < buckets; ++b) {
        starts[b] = at;
        for (int p = 0; p < parts; ++p) {
            const int64_t count = counts[p * width + b];
            counts[p * width + b] = at;
            at += count;
        }
    }
    starts[buckets] = at;
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (int p = 0; p < parts; ++p) {
        int64_t* const mine = counts + p * width;
        list.each(edges * p / parts, edges * (p + 1) / parts, (I)mine[buckets], [&](I row, I other, I id) {
            items[mine[row >> shift]++] = {row, other, id};
        });
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(parts) if (parts > 1)
    for (int64_t b = 0; b < buckets; ++b) {
        const int64_t first_row = b << shift, last_row = least((b + 1) << shift, rows);
        fill<I>(Bucketed<I>{items}, starts[b], starts[b + 1], first_row, last_row, starts[b] + least(first_row, loops),
                loops, kept, rowptr, index, edge);
    }
    free(items);
    free(counts);
    return true;
}

// The edges by ``row``, those of a row in the order of their ids. ``kept`` of them are no loops that are left out;
// nodes below ``loops`` are given one.
template <class I>
void order(const I* row, const I* other, int64_t edges, int64_t kept, int64_t rows, int64_t loops, int sorted,
           I* rowptr, I* index, I* edge, int64_t* blocks, int64_t* hubs, int64_t* chunks, Schedule* schedule,
           int threads) {
    const bool drop = kept < edges;
    rowptr[0] = 0;
    const int parts = parts_of(edges, threads);
    if (sorted && !drop && !loops) {
        sorted_order<I>(row, other, edges, rows, rowptr, edge, parts);
    } else {
        const Listed<I> list{row, other, drop};
        const bool many = edges >= (parts < BUCKET_THREADS ? BUCKET_EDGES : SHARED_BUCKET_EDGES) && rows > BUCKET_ROWS;
        if (!many || !bucket_order<I>(list, edges, rows, loops, rowptr, index, edge, parts)) {
            fill<I>(list, 0, edges, 0, rows, 0, loops, kept, rowptr, index, edge);
        }
    }
    share_out<I>(rowptr, rows, blocks, hubs, chunks, schedule);
}

// What removing the loops and adding one to each node below ``loops`` leaves: the ends of the new edges, which edges
// were kept, and the last loop that each of these nodes had. Each may be null.
template <class I>
void rewire(const I* source, const I* target, int64_t edges, int64_t kept, int64_t loops, I* ends, int64_t* ids,
            int64_t* loop_edge) {
    const int64_t all = kept + loops;
    if (ends) {
        int64_t to = 0;
        for (int64_t e = 0; e < edges; ++e) {
            if (kept < edges && source[e] == target[e]) continue;
            ends[to] = source[e];
            ends[all + to++] = target[e];
        }
        for (int64_t v = 0; v < loops; ++v) ends[kept + v] = ends[all + kept + v] = (I)v;
    }
    if (ids) {
        for (int64_t e = 0; e < edges; ++e) {
            if (source[e] != target[e]) *ids++ = e;
        }
    }
    if (loop_edge) {
        for (int64_t v = 0; v < loops; ++v) loop_edge[v] = -1;
        for (int64_t e = 0; e < edges; ++e) {
            if (source[e] == target[e]) loop_edge[target[e]] = e;
        }
    }
}

// An order with a loop more at the end of each row below ``loops``: what sorting the edges and the loops gives.
template <class I>
void looped(const I* rowptr, const I* index, const I* edge, int64_t edges, int64_t rows, int64_t loops, I* new_rowptr,
            I* new_index, I* new_edge) {
    new_rowptr[0] = 0;
    for (int64_t r = 0; r < rows; ++r) {
        I to = new_rowptr[r];
        for (int64_t e = rowptr[r]; e < rowptr[r + 1]; ++e, ++to) {
            new_index[to] = index[e];
            new_edge[to] = edge[e];
        }
        if (r < loops) {
            new_index[to] = (I)r;
            new_edge[to++] = (I)(edges + r);
        }
        new_rowptr[r + 1] = to;
    }
}

// The ends and ids of the edges of an order, sorted by the node at their other end, then by their own, then by id.
template <class I>
void turned(const I* rowptr, const I* index, const I* edge, int64_t rows, const I* first, I* next, I* end, I* id) {
    for (int64_t r = 0; r < rows; ++r) next[r] = first[r];
    for (int64_t r = 0; r < rows; ++r) {
        for (I e = rowptr[r]; e < rowptr[r + 1]; ++e) {
            const I at = next[index[e]]++;
            end[at] = (I)r;
            id[at] = edge[e];
        }
    }
}

// For each edge the edge that goes the other way, or -1: of a node the edges into it and those out of it, both sorted by
// the node at the other end, are gone through side by side. There is room for four numbers an edge and one a node.
template <class I>
void reversed(const I* into, const I* source, const I* in_edge, const I* out, const I* target, const I* out_edge,
              int64_t edges, int64_t rows, I* room, I* found) {
    I *ins = room, *in_id = ins + edges, *outs = in_id + edges, *out_id = outs + edges, *next = out_id + edges;
    turned<I>(out, target, out_edge, rows, into, next, ins, in_id);
    turned<I>(into, source, in_edge, rows, out, next, outs, out_id);
    for (int64_t v = 0; v < rows; ++v) {
        I at = into[v];
        for (I e = out[v]; e < out[v + 1]; ++e) {
            while (at < into[v + 1] && ins[at] < outs[e]) ++at;
            found[out_id[e]] = at < into[v + 1] && ins[at] == outs[e] ? in_id[at++] : (I)-1;
        }
    }
}

// The row of each edge from where the rows begin.
template <class In, class Out> void expand(const In* rowptr, int64_t rows, Out* row) {
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t e = rowptr[r]; e < rowptr[r + 1]; ++e) row[e] = (Out)r;
    }
}

template <class I, class N> void degree(const I* rowptr, int64_t rows, N* found) {
    for (int64_t r = 0; r < rows; ++r) found[r] = (N)(rowptr[r + 1] - rowptr[r]);
}

}  // namespace

#define TAKE(in, out)                                                                                               \
    extern "C" void take_##in##_##out(const in##_t* source, const in##_t* target, int64_t edges, int64_t num_sources, \
                                      int64_t num_targets, out##_t* ends, Facts* facts, int threads) {               \
        take<in##_t, out##_t, true>(source, target, edges, num_sources, num_targets, ends, facts, threads);          \
    }
TAKE(int32, int32)
TAKE(int32, int64)
TAKE(int64, int32)
TAKE(int64, int64)

#define EXPAND(in, out)                                                                              \
    extern "C" void expand_##in##_##out(const in##_t* rowptr, int64_t rows, out##_t* row) {           \
        expand<in##_t, out##_t>(rowptr, rows, row);                                                   \
    }
EXPAND(int32, int32)
EXPAND(int32, int64)
EXPAND(int64, int32)
EXPAND(int64, int64)

#define ORDER(index_type)                                                                                             \
    extern "C" void order_##index_type(const index_type##_t* row, const index_type##_t* other, int64_t edges,         \
                                       int64_t kept, int64_t rows, int64_t loops, int sorted, index_type##_t* rowptr, \
                                       index_type##_t* index, index_type##_t* edge, int64_t* blocks, int64_t* hubs,   \
                                       int64_t* chunks, Schedule* schedule, int threads) {                            \
        order<index_type##_t>(row, other, edges, kept, rows, loops, sorted, rowptr, index, edge, blocks, hubs,        \
                              chunks, schedule, threads);                                                             \
    }                                                                                                                 \
    extern "C" void share_##index_type(const index_type##_t* rowptr, int64_t rows, int64_t* blocks, int64_t* hubs,     \
                                       int64_t* chunks, Schedule* schedule) {                                         \
        share_out<index_type##_t>(rowptr, rows, blocks, hubs, chunks, schedule);                                      \
    }                                                                                                                 \
    extern "C" void looped_##index_type(const index_type##_t* rowptr, const index_type##_t* index,                    \
                                        const index_type##_t* edge, int64_t edges, int64_t rows, int64_t loops,       \
                                        index_type##_t* new_rowptr, index_type##_t* new_index,                        \
                                        index_type##_t* new_edge) {                                                   \
        looped<index_type##_t>(rowptr, index, edge, edges, rows, loops, new_rowptr, new_index, new_edge);             \
    }                                                                                                                 \
    extern "C" void rewire_##index_type(const index_type##_t* source, const index_type##_t* target, int64_t edges,    \
                                        int64_t kept, int64_t loops, index_type##_t* ends, int64_t* ids,              \
                                        int64_t* loop_edge) {                                                         \
        rewire<index_type##_t>(source, target, edges, kept, loops, ends, ids, loop_edge);                             \
    }
#define REVERSED(type)                                                                                          \
    extern "C" void reversed_##type(const type##_t* into, const type##_t* source, const type##_t* in_edge,      \
                                    const type##_t* out, const type##_t* target, const type##_t* out_edge,      \
                                    int64_t edges, int64_t rows, type##_t* room, type##_t* found) {             \
        reversed<type##_t>(into, source, in_edge, out, target, out_edge, edges, rows, room, found);             \
    }
REVERSED(int32)
REVERSED(int64)
typedef float float32_t;
typedef double float64_t;
#define DEGREE(in, out)                                                                              \
    extern "C" void degree_##in##_##out(const in##_t* rowptr, int64_t rows, out##_t* found) {         \
        degree<in##_t, out##_t>(rowptr, rows, found);                                                 \
    }
DEGREE(int32, float32)
DEGREE(int32, float64)
DEGREE(int32, int64)
DEGREE(int64, float32)
DEGREE(int64, float64)
DEGREE(int64, int64)

#define LOOK(type)                                                                                            \
    extern "C" void look_##type(const type##_t* source, const type##_t* target, int64_t edges, Facts* facts,   \
                                int threads) {                                                                 \
        take<type##_t, type##_t, false>(source, target, edges, -1, -1, (type##_t*)nullptr, facts, threads);    \
    }
LOOK(int32)
LOOK(int64)

ORDER(int32)
ORDER(int64)
