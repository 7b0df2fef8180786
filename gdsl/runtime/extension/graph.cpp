// A small graph, whose orders are made when they are read, and the graphs of the last few tensors.

struct Order {
    EdgeOrder at;
    std::vector<Tensor> memory;
};

int64_t rounded_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// The edges of a graph with less than HUB_EDGES of them: see EdgeEnds in order.py. Orders are made when they are read.
struct Small {
    Tensor ends;  // [2, L] int32
    int64_t loops, by_source, by_target, drop, added, sources, targets;
    std::mutex mutex;
    std::unique_ptr<Order> orders[2];
    std::shared_ptr<Small> rewired[2];  // without loops, with one a node

    int64_t listed() const { return ends.size(1); }
    int64_t kept() const { return listed() - (drop ? loops : 0); }
    int64_t edges() const { return kept() + added; }

    const EdgeOrder& order(int end) {
        std::lock_guard<std::mutex> lock(mutex);
        if (!orders[end]) orders[end] = sorted(end);
        return orders[end]->at;
    }

    std::unique_ptr<Order> sorted(int end) const {
        const int64_t rows = end ? targets : sources, count = edges();
        const int64_t shares = std::max<int64_t>(1, std::min({limits.max_blocks, (rows + count) / limits.block_work, rows}));
        const int64_t bounds = rounded_up(shares + 1, 2), index = rounded_up(rows + 1, 4);
        const int64_t edge = index + rounded_up(count, 4);
        Tensor memory = at::detail::empty_cpu({bounds + (edge + count + 1) / 2}, at::kLong);
        int64_t* const blocks = memory.mutable_data_ptr<int64_t>();
        int32_t* const rowptr = (int32_t*)(blocks + bounds);
        int32_t* const row = (int32_t*)ends.mutable_data_ptr<int32_t>();
        int32_t* const column = row + listed();
        int64_t schedule[7] = {limits.block_work, limits.max_blocks, limits.hub_edges, limits.chunk_edges, 0, 0, 0};
        // Of a list in order the nodes at the other end are as they should be, and are not written.
        const bool in_order = end ? by_target : by_source;
        const bool as_listed = in_order && count == kept() && count == listed();
        int32_t* const other = end ? row : column;
        int32_t* const at_index = as_listed ? other : rowptr + index;
        sort_edges(end ? column : row, other, listed(), kept(), rows, added, in_order, rowptr, at_index, rowptr + edge,
                   blocks, nullptr, nullptr, schedule, 1);
        auto found = std::make_unique<Order>();
        found->at = {rowptr, at_index, rowptr + edge, blocks, schedule[4] - 1, schedule[6]};
        found->memory = {memory, ends};
        return found;
    }

    // As Graph.remove_self_loops and Graph.add_self_loops, which begin from what is a list.
    std::shared_ptr<Small> with_loops(bool add) {
        std::lock_guard<std::mutex> lock(mutex);
        if (drop || added) return nullptr;
        if (!rewired[add]) {
            auto found = std::make_shared<Small>();
            found->ends = ends;
            found->loops = loops, found->by_source = by_source, found->by_target = by_target;
            found->drop = 1, found->added = add ? std::min(sources, targets) : 0;
            found->sources = sources, found->targets = targets;
            rewired[add] = found;
        }
        return rewired[add];
    }
};

// The graph of a plain list of edges; null where Python has to say what is wrong with it.
std::shared_ptr<Small> small_graph(const Tensor& edge_index, int64_t sources, int64_t targets) {
    const int64_t count = edge_index.size(1);
    auto found = std::make_shared<Small>();
    found->ends = at::detail::empty_cpu({2, count}, at::kInt);
    int64_t facts[6];
    const bool wide = edge_index.scalar_type() == at::kLong;
    const char* const first = (const char*)edge_index.const_data_ptr();
    (wide ? take_wide : take_narrow)(first, first + count * edge_index.element_size(), count, sources, targets,
                                     found->ends.mutable_data_ptr<int32_t>(), facts, 1);
    if (facts[0] >= 0) return nullptr;
    found->loops = facts[3], found->by_source = facts[4], found->by_target = facts[5];
    found->drop = found->added = 0;
    found->sources = sources, found->targets = targets;
    return found;
}

// The graphs of the last few tensors, while these live and are unchanged: see graph_of in recent.py.
struct Recent {
    c10::weak_intrusive_ptr<c10::TensorImpl> tensor;
    uint32_t version;
    const void* data;
    int64_t sources, targets;
    std::shared_ptr<Small> graph;
};
constexpr size_t RECENT = 16;
std::vector<Recent> recent;

// Whether only torch can write to it, which counts what it writes.
bool is_own(const Tensor& tensor) {
    const c10::Storage& storage = tensor.storage();
    return storage.resizable() && storage.data_ptr().get_deleter() == at::getCPUAllocator()->raw_deleter();
}

std::shared_ptr<Small> graph_of(const Tensor& t, int64_t sources, int64_t targets) {
    const bool counted = is_own(t);
    c10::TensorImpl* const impl = t.unsafeGetTensorImpl();
    if (counted) {
        for (const Recent& r : recent) {
            if (r.tensor._unsafe_get_target() == impl && !r.tensor.expired() && r.version == t._version() &&
                r.data == t.const_data_ptr() && r.sources == sources && r.targets == targets &&
                r.graph->listed() == t.size(1)) {
                return r.graph;
            }
        }
    }
    auto found = small_graph(t, sources, targets);
    if (found && counted) {
        std::erase_if(recent, [&](const Recent& r) { return r.tensor.expired() || r.tensor._unsafe_get_target() == impl; });
        if (recent.size() >= RECENT) recent.erase(recent.begin());
        recent.push_back({c10::weak_intrusive_ptr<c10::TensorImpl>(t.getIntrusivePtr()), (uint32_t)t._version(),
                          t.const_data_ptr(), sources, targets, found});
    }
    return found;
}
