// Neighbours of seeds, hop by hop, over the edges into each node: what gdsl/data/sampler.py says of each argument and
// result, and gdsl/data/slow_sampler.py does in Python; both give the same sample.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

namespace {

// The least picks for a thread of its own.
constexpr int64_t SHARE = 1 << 12;

// How many nodes ahead rows are asked for.
constexpr int64_t AHEAD = 16;

// Of a type with so few nodes each has a place in the table of those met, which is cleared for every sample.
constexpr int64_t FEW = 1 << 17;

// -- what grows ------------------------------------------------------------------------------------

template <class T> struct Many {
    T* data = nullptr;
    int64_t size = 0, room = 0;
    ~Many() { free(data); }
    bool reserve(int64_t least) {
        if (least <= room) return true;
        int64_t more = room ? room : 256;
        while (more < least) more *= 2;
        T* const found = (T*)realloc(data, more * sizeof(T));
        if (!found) return false;
        data = found;
        room = more;
        return true;
    }
    bool push(T value) {
        if (size == room && !reserve(size + 1)) return false;
        data[size++] = value;
        return true;
    }
};

// The nodes of a type that were met, and a table of their places: by their number, and with ``apart`` by their tree.
// ``all``: how many there are, where the table has a place for each; else 0.
struct Nodes {
    Many<int64_t> node;
    Many<int32_t> tree;
    int32_t* table = nullptr;
    int64_t room = 0, all = 0;
    bool apart = false;
    int64_t begin = 0, end = 0;
    ~Nodes() { free(table); }
    int64_t first(int64_t number, int32_t of) const {
        if (all) return number;
        const uint64_t h = ((uint64_t)number + (apart ? (uint64_t)of << 32 : 0)) * 0x9E3779B97F4A7C15u;
        return (int64_t)((h ^ (h >> 32)) & (uint64_t)(room - 1));
    }
    // Where a node stands in the table, or is to be put.
    int64_t slot(int64_t number, int32_t of) const {
        int64_t at = first(number, of);
        while (!all && table[at] >= 0 && (node.data[table[at]] != number || (apart && tree.data[table[at]] != of))) {
            at = (at + 1) & (room - 1);
        }
        return at;
    }
    // Room for so many nodes more.
    bool reserve(int64_t more) {
        const int64_t size = node.size + more;
        int64_t larger = all ? all : room ? room : 1024;
        while (!all && larger < 2 * size) larger *= 2;
        if (size > INT32_MAX || !node.reserve(size) || !tree.reserve(size)) return false;
        if (larger == room) return true;
        free(table);
        table = (int32_t*)malloc(larger * sizeof(int32_t));
        if (!table) return false;
        room = larger;
        memset(table, 0xff, room * sizeof(int32_t));
        for (int64_t n = 0; n < node.size; ++n) note(n);
        return true;
    }
    // Of a node that is there twice, the first place counts.
    void note(int64_t place) {
        int32_t& at = table[slot(node.data[place], tree.data[place])];
        if (at < 0) at = (int32_t)place;
    }
    void push(int64_t number, int32_t of) {
        node.data[node.size++] = number;
        tree.data[tree.size++] = of;
    }
    // The place of a node, or -1.
    int32_t find(int64_t number, int32_t of) const { return room ? table[slot(number, of)] : -1; }
    // The place of a node, which is the next if it is new.
    int32_t place(int64_t number, int32_t of) {
        int32_t& at = table[slot(number, of)];
        if (at < 0) {
            at = (int32_t)node.size;
            push(number, of);
        }
        return at;
    }
};

// -- random numbers --------------------------------------------------------------------------------

// Philox4x32-10 by a counter: the n-th number of the picks of a node, on any thread. Two numbers come of each count, and
// those of some counts are made together, in lanes of a vector.
struct Stream {
    static constexpr int LANES = 8;
    uint32_t k0, k1, c1, c2, c3, next = 0;
    uint64_t kept[2 * LANES];
    Stream(uint64_t key, int64_t node, int32_t step)
        : k0((uint32_t)key), k1((uint32_t)(key >> 32)), c1((uint32_t)node), c2((uint32_t)((uint64_t)node >> 32)),
          c3((uint32_t)step) {}
    uint64_t bits() {
        if (next % (2 * LANES) == 0) draw();
        return kept[next++ % (2 * LANES)];
    }
    void draw() {
        uint64_t a[LANES], b[LANES], c[LANES], d[LANES];
        for (int k = 0; k < LANES; ++k) a[k] = (uint32_t)(next / 2 + k), b[k] = c1, c[k] = c2, d[k] = c3;
        uint32_t x = k0, y = k1;
        for (int round = 0; round < 10; ++round, x += 0x9E3779B9u, y += 0xBB67AE85u) {
#pragma omp simd
            for (int k = 0; k < LANES; ++k) {
                const uint64_t p = 0xD2511F53u * a[k], q = 0xCD9E8D57u * c[k];
                a[k] = (q >> 32) ^ b[k] ^ x;
                c[k] = (p >> 32) ^ d[k] ^ y;
                b[k] = (uint32_t)q;
                d[k] = (uint32_t)p;
            }
        }
        for (int k = 0; k < LANES; ++k) kept[2 * k] = b[k] << 32 | a[k], kept[2 * k + 1] = d[k] << 32 | c[k];
    }
    // Below n; of each with the same chance, but for one part in 2^64.
    int64_t below(int64_t n) { return (int64_t)(((unsigned __int128)bits() * (uint64_t)n) >> 64); }
    // In (0, 1).
    double open() { return ((double)(bits() >> 11) + 0.5) * 0x1p-53; }
};

// -- the neighbours of one node --------------------------------------------------------------------

struct EdgeKind {
    int64_t source, target;  // types of nodes
    const void *rowptr, *index, *edge;
    const double* weight;    // of each edge by row, or null
    const double* upto;      // the sum of the weights of a row up to each edge, with it
    const int64_t* time;     // of each edge by row, rising within a row, or null
    int64_t wide;            // whether rowptr, index and edge are int64 and not int32
    int64_t at(const void* numbers, int64_t k) const {
        return wide ? ((const int64_t*)numbers)[k] : (int64_t)((const int32_t*)numbers)[k];
    }
    // Most of the time goes into waiting for memory that is not in the cache: it is asked for some nodes ahead.
    void soon(const void* numbers, int64_t k) const {
        __builtin_prefetch((const char*)numbers + k * (wide ? sizeof(int64_t) : sizeof(int32_t)));
    }
};

enum { REPLACE = 1, DISJOINT = 2, LAST = 4, INDUCED = 8 };

// ``count`` of ``n``, each set of them with the same chance (Floyd). ``seen`` has room for a table of 4 * count.
void some(Stream& random, int64_t n, int64_t count, int64_t first, int64_t* picks, int64_t* seen) {
    int64_t room = 1;
    while (room < 2 * count) room *= 2;
    if (count > 32) memset(seen, 0xff, room * sizeof(int64_t));
    for (int64_t j = n - count, found = 0; j < n; ++j, ++found) {
        int64_t pick = random.below(j + 1);
        bool taken = false;
        if (count <= 32) {
            for (int64_t k = 0; k < found; ++k) taken |= picks[k] == first + pick;
            if (taken) pick = j;
        } else {
            for (int again = 0; again < 2; ++again) {
                int64_t at = (int64_t)((uint64_t)pick * 0x9E3779B97F4A7C15u >> 20) & (room - 1);
                while (seen[at] >= 0 && seen[at] != pick) at = (at + 1) & (room - 1);
                if (seen[at] < 0) {
                    seen[at] = pick;
                    break;
                }
                pick = j;
            }
        }
        picks[found] = first + pick;
    }
}

// The ``count`` edges of the smallest -log(u) / weight: drawn one after the other, each by its weight among the rest
// (Efraimidis and Spirakis, 2006). Gives how many there are of positive weight, at most ``count``.
int64_t weighted(Stream& random, const double* weight, int64_t first, int64_t last, int64_t count, int64_t* picks,
                 double* keys) {
    int64_t found = 0;
    for (int64_t e = first; e < last; ++e) {
        const double key = -log(random.open()) / weight[e];
        if (!(weight[e] > 0) || (found == count && key >= keys[found - 1])) continue;
        int64_t at = found < count ? found++ : found - 1;
        for (; at > 0 && keys[at - 1] > key; --at) keys[at] = keys[at - 1], picks[at] = picks[at - 1];
        keys[at] = key;
        picks[at] = e;
    }
    return found;
}

int64_t picks_of(const EdgeKind& kind, int flags, Stream random, int64_t first, int64_t last, int64_t count,
                 int64_t* picks, int64_t* room) {
    const int64_t n = last - first;
    if (!n || !count) return 0;
    if (kind.weight && count > 0) {
        if (!(flags & REPLACE)) return weighted(random, kind.weight, first, last, count, picks, (double*)room);
        const double all = kind.upto[last - 1];
        if (!(all > 0)) return 0;
        for (int64_t k = 0; k < count; ++k) {
            const double at = random.open() * all;
            int64_t low = first, high = last - 1;
            while (low < high) {
                const int64_t middle = (low + high) / 2;
                if (kind.upto[middle] > at) high = middle;
                else low = middle + 1;
            }
            picks[k] = low;
        }
        return count;
    }
    if (count < 0 || (!(flags & REPLACE) && count >= n)) {
        for (int64_t k = 0; k < n; ++k) picks[k] = first + k;
        return n;
    }
    if (flags & LAST) {
        const int64_t some = count < n ? count : n;
        for (int64_t k = 0; k < some; ++k) picks[k] = last - some + k;
        return some;
    }
    if (flags & REPLACE) {
        for (int64_t k = 0; k < count; ++k) picks[k] = first + random.below(n);
        return count;
    }
    some(random, n, count, first, picks, room);
    return count;
}

// -- all of them -----------------------------------------------------------------------------------

struct Edges {
    Many<int32_t> source, target;
    Many<int64_t> edge;
};

}  // namespace

struct Sample {
    int64_t node_types, edge_types, hops;
    Nodes* nodes;
    Edges* edges;
    Many<int64_t> counts;  // of each hop: the new nodes of each type, and before the first the seeds; then the edges
};

struct Request {
    int64_t node_types, edge_types, hops;
    const EdgeKind* kinds;
    const int64_t* fan_outs;    // [edge types, hops]
    const int64_t* num_nodes;   // of each type
    int64_t flags;
    uint64_t key;
    int64_t seed_types;
    const int64_t* seed_type;   // [seed types]
    const int64_t* seed_count;
    const int64_t* seeds;       // of all types, one after the other
    const int64_t* seed_time;   // likewise, or null
    int64_t threads;
};

extern "C" void drop(Sample* sample) {
    if (!sample) return;
    // Made of zeroed memory, with the functions of C alone.
    for (int64_t t = 0; sample->nodes && t < sample->node_types; ++t) sample->nodes[t].~Nodes();
    for (int64_t k = 0; sample->edges && k < sample->edge_types; ++k) sample->edges[k].~Edges();
    sample->counts.~Many();
    free(sample->nodes);
    free(sample->edges);
    free(sample);
}

namespace {

// The edges that may be taken into the node at a place: a row, of which with times those that are not later.
void row_of(const EdgeKind& kind, const Nodes& at, const int64_t* times, int64_t place, int64_t* first,
            int64_t* last) {
    *first = kind.at(kind.rowptr, at.node.data[place]);
    *last = kind.at(kind.rowptr, at.node.data[place] + 1);
    if (!kind.time || !times) return;
    const int64_t limit = times[at.tree.data[place]];
    int64_t low = *first, high = *last;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (kind.time[middle] <= limit) low = middle + 1;
        else high = middle;
    }
    *last = low;
}

bool expand(const Request& r, Sample& s, int64_t hop, int64_t k) {
    const EdgeKind& kind = r.kinds[k];
    const int64_t fan_out = r.fan_outs[k * r.hops + hop];
    Nodes &from = s.nodes[kind.source], &at = s.nodes[kind.target];
    const int64_t begin = at.begin, count = at.end - at.begin;
    if (!fan_out || !count) return true;
    Many<int64_t> starts;
    if (!starts.reserve(count + 1)) return false;
    int64_t all = 0, widest = 0;
    for (int64_t n = 0; n < count; ++n) {
        int64_t first, last;
        if (n + AHEAD < count) kind.soon(kind.rowptr, at.node.data[begin + n + AHEAD]);
        row_of(kind, at, r.seed_time, begin + n, &first, &last);
        const int64_t size = last - first;
        const int64_t most = !size ? 0 : fan_out < 0 ? size : r.flags & REPLACE || fan_out < size ? fan_out : size;
        starts.data[n] = all;
        all += most;
        widest = most > widest ? most : widest;
    }
    starts.data[count] = all;
    const int64_t parts = all / SHARE < 1 ? 1 : all / SHARE < r.threads ? all / SHARE : r.threads;
    Many<int64_t> picks, nodes, found, room;
    const int64_t each = 4 * widest + 8;
    if (!picks.reserve(all + 1) || !nodes.reserve(all + 1) || !found.reserve(count) || !room.reserve(parts * each)) {
        return false;
    }
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (int64_t p = 0; p < parts; ++p) {
        const int64_t from_node = count * p / parts, to_node = count * (p + 1) / parts;
        for (int64_t n = from_node; n < to_node + AHEAD; ++n) {
            if (n < to_node) {
                int64_t first, last;
                row_of(kind, at, r.seed_time, begin + n, &first, &last);
                const Stream random(r.key, begin + n, (int32_t)(hop * r.edge_types + k));
                int64_t* const mine = picks.data + starts.data[n];
                found.data[n] = picks_of(kind, (int)r.flags, random, first, last, fan_out, mine, room.data + p * each);
                for (int64_t j = 0; j < found.data[n]; ++j) kind.soon(kind.index, mine[j]), kind.soon(kind.edge, mine[j]);
            }
            const int64_t ready = n - AHEAD;
            if (ready < from_node) continue;
            for (int64_t j = starts.data[ready]; j < starts.data[ready] + found.data[ready]; ++j) {
                nodes.data[j] = kind.at(kind.index, picks.data[j]);
                picks.data[j] = kind.at(kind.edge, picks.data[j]);
            }
        }
    }
    Edges& edges = s.edges[k];
    const int64_t size = edges.source.size + all;
    if (!edges.source.reserve(size) || !edges.target.reserve(size) || !edges.edge.reserve(size)) return false;
    int64_t next = edges.source.size;
    for (int64_t n = 0; n < count; ++n) {
        const int32_t tree = at.tree.data[begin + n];
        const int64_t first = starts.data[n], last = first + found.data[n];
        // Enough for this node alone: of all that were picked, most are often there.
        if (!from.reserve(last - first)) return false;
        for (int64_t j = first; j < last; ++j, ++next) {
            if (j + AHEAD < all) __builtin_prefetch(from.table + from.first(nodes.data[j + AHEAD], tree));
            edges.source.data[next] = from.place(nodes.data[j], tree);
            edges.target.data[next] = (int32_t)(begin + n);
            edges.edge.data[next] = picks.data[j];
        }
    }
    edges.source.size = edges.target.size = edges.edge.size = next;
    return true;
}

// All edges between the nodes that were met, within a tree.
bool induce(const Request& r, Sample& s, int64_t k) {
    const EdgeKind& kind = r.kinds[k];
    Nodes &from = s.nodes[kind.source], &at = s.nodes[kind.target];
    Edges& edges = s.edges[k];
    edges.source.size = edges.target.size = edges.edge.size = 0;
    for (int64_t n = 0; n < at.node.size; ++n) {
        int64_t first, last;
        if (n + 2 * AHEAD < at.node.size) kind.soon(kind.rowptr, at.node.data[n + 2 * AHEAD]);
        if (n + AHEAD < at.node.size) kind.soon(kind.index, kind.at(kind.rowptr, at.node.data[n + AHEAD]));
        row_of(kind, at, r.seed_time, n, &first, &last);
        for (int64_t e = first; e < last; ++e) {
            const int32_t place = from.find(kind.at(kind.index, e), at.tree.data[n]);
            if (place < 0) continue;
            if (!(edges.source.push(place) && edges.target.push((int32_t)n) && edges.edge.push(kind.at(kind.edge, e))))
                return false;
        }
    }
    return true;
}

bool run(const Request& r, Sample& s) {
    int32_t tree = 0;
    const int64_t* seed = r.seeds;
    for (int64_t t = 0; t < r.seed_types; ++t) {
        Nodes& at = s.nodes[r.seed_type[t]];
        if (!at.reserve(r.seed_count[t])) return false;
        for (int64_t n = 0; n < r.seed_count[t]; ++n) {
            at.push(*seed++, tree++);
            at.note(at.node.size - 1);
        }
    }
    for (int64_t t = 0; t < r.node_types; ++t) {
        s.nodes[t].end = s.nodes[t].node.size;
        if (!s.counts.push(s.nodes[t].end)) return false;
    }
    for (int64_t hop = 0; hop < r.hops; ++hop) {
        Many<int64_t> before;
        for (int64_t k = 0; k < r.edge_types; ++k) {
            if (!before.push(s.edges[k].source.size) || !expand(r, s, hop, k)) return false;
        }
        for (int64_t t = 0; t < r.node_types; ++t) {
            Nodes& at = s.nodes[t];
            at.begin = at.end;
            at.end = at.node.size;
            if (!s.counts.push(at.end - at.begin)) return false;
        }
        for (int64_t k = 0; k < r.edge_types; ++k) {
            if (!s.counts.push(s.edges[k].source.size - before.data[k])) return false;
        }
    }
    for (int64_t k = 0; r.flags & INDUCED && k < r.edge_types; ++k) {
        if (!induce(r, s, k)) return false;
    }
    return true;
}

}  // namespace

// The sample of a request; null where there is no memory. ``sizes`` get the nodes of each type and the edges of each.
extern "C" Sample* sample(const Request* request, int64_t* sizes) {
    Sample* const s = (Sample*)calloc(1, sizeof(Sample));
    if (!s) return nullptr;
    s->node_types = request->node_types, s->edge_types = request->edge_types, s->hops = request->hops;
    s->nodes = (Nodes*)calloc(request->node_types, sizeof(Nodes));
    s->edges = (Edges*)calloc(request->edge_types, sizeof(Edges));
    for (int64_t t = 0; s->nodes && t < s->node_types; ++t) {
        s->nodes[t].apart = request->flags & DISJOINT;
        s->nodes[t].all = s->nodes[t].apart || request->num_nodes[t] > FEW ? 0 : request->num_nodes[t];
    }
    if (!s->nodes || !s->edges || !run(*request, *s)) {
        drop(s);
        return nullptr;
    }
    for (int64_t t = 0; t < s->node_types; ++t) *sizes++ = s->nodes[t].node.size;
    for (int64_t k = 0; k < s->edge_types; ++k) *sizes++ = s->edges[k].source.size;
    return s;
}

// ``count`` walks: ``length`` steps over the edges out of each node, each edge with the same chance, from a node that is
// drawn likewise. A walk stays where no edge leads on. out: [count, length + 1] nodes.
extern "C" void walk(const void* rowptr, const void* index, int64_t wide, int64_t nodes, int64_t count, int64_t length,
                     uint64_t key, int64_t* out, int64_t threads) {
    const EdgeKind kind = {0, 0, rowptr, index, nullptr, nullptr, nullptr, nullptr, wide};
    const int64_t steps = count * (length + 1);
    const int64_t parts = steps / SHARE < 1 ? 1 : steps / SHARE < threads ? steps / SHARE : threads;
#pragma omp parallel for schedule(static) num_threads(parts) if (parts > 1)
    for (int64_t w = 0; w < count; ++w) {
        Stream random(key, w, 0);
        int64_t node = random.below(nodes);
        int64_t* const mine = out + w * (length + 1);
        mine[0] = node;
        for (int64_t step = 1; step <= length; ++step) {
            const int64_t first = kind.at(rowptr, node), size = kind.at(rowptr, node + 1) - first;
            if (size) node = kind.at(index, first + random.below(size));
            mine[step] = node;
        }
    }
}

// The sum of the weights of each row up to each edge, with it.
extern "C" void add_up(const int64_t* rowptr, int64_t rows, const double* weight, double* upto) {
    for (int64_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (int64_t e = rowptr[r]; e < rowptr[r + 1]; ++e) upto[e] = sum += weight[e];
    }
}

// Copies what was found: of each type of nodes their numbers and trees, of each type of edges both ends, ids, and where
// the edges into each of ``targets[k]`` nodes begin; then the counts.
extern "C" void take(const Sample* s, void* const* out, const int64_t* targets) {
    for (int64_t t = 0; t < s->node_types; ++t, out += 2) {
        const Nodes& nodes = s->nodes[t];
        if (nodes.node.size) memcpy(out[0], nodes.node.data, nodes.node.size * sizeof(int64_t));
        if (nodes.node.size && out[1]) {
            for (int64_t n = 0; n < nodes.node.size; ++n) ((int64_t*)out[1])[n] = nodes.tree.data[n];
        }
    }
    for (int64_t k = 0; k < s->edge_types; ++k, out += 3) {
        const Edges& edges = s->edges[k];
        const int64_t count = edges.source.size;
        int32_t* const ends = (int32_t*)out[0];
        if (count) {
            memcpy(ends, edges.source.data, count * sizeof(int32_t));
            memcpy(ends + count, edges.target.data, count * sizeof(int32_t));
            memcpy(out[1], edges.edge.data, count * sizeof(int64_t));
        }
        int32_t* const rowptr = (int32_t*)out[2];
        int64_t next = 0;
        for (int64_t e = 0; e < count; ++e) {
            while (next <= edges.target.data[e]) rowptr[next++] = (int32_t)e;
        }
        while (next <= targets[k]) rowptr[next++] = (int32_t)count;
    }
    memcpy(out[0], s->counts.data, s->counts.size * sizeof(int64_t));
}
