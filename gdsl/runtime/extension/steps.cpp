// The steps of a plan on tensors: where they lie goes to steps.cpp beside this folder.

bool is_plain(const Tensor& t, at::ScalarType dtype) {
    return t.scalar_type() == dtype && t.is_cpu() && t.layout() == at::kStrided && t.is_contiguous() && !t.is_neg() &&
           !t.is_conj() && !t._is_zerotensor() && !t.is_inference() && !at::isTensorSubclassLike(t) && t.has_storage();
}

struct Given {
    int64_t place;  // among the tensors of a call
    at::ScalarType dtype;
    int64_t rows, width;  // which number of the graph counts its rows, and the numbers of each
};

struct Made {
    int64_t rows;
    std::vector<int64_t> shape;
    at::ScalarType dtype;
};

// A result: what is made at a place, or, below 0, the tensor that was given at -1 - place. What has been a result before,
// or is somebody's tensor, is copied.
struct Result {
    int64_t place;
    bool copied;
    Made like;
};

constexpr size_t MOST_TENSORS = 128;

struct Steps {
    void (*function)(const int64_t*, const void*);
    std::vector<int64_t> words;
    std::vector<Given> given;
    std::vector<Made> made;
    std::vector<Result> outputs;
    std::vector<std::pair<int64_t, int64_t>> most;   // rows, how many there may be
    std::vector<std::pair<int64_t, int64_t>> places;  // of what nobody sees: rows, bytes of each
    int64_t orders[2], kept, totals, alignment;

    // What a call of the steps needs.
    struct Need {
        int64_t rows[5], threads, room;
    };

    // Nothing where the steps must run one by one, for graphs that are large and tensors that are no plain ones.
    std::optional<Need> need(Small& graph, const std::vector<Tensor>& tensors) const {
        Need n = {{1, graph.targets, graph.sources, graph.edges(), 1}, at::get_num_threads(), 0};
        for (const auto& [place, rows] : most) {
            if (n.rows[place] > rows) return {};
        }
        int64_t groups = 0, longest = 0;
        for (int end = 0; end < 2; ++end) {
            if (!orders[end]) continue;
            const EdgeOrder& order = graph.order(end);
            if (order.num_blocks > limits.least_groups) return {};
            groups = std::max(groups, order.num_blocks), longest = std::max(longest, order.max_degree);
        }
        n.room = totals * groups + alignment;
        if (kept) n.room += kept * std::min(n.threads, groups) * (longest + 1);
        for (const auto& [rows, width] : places) n.room += n.rows[rows] * width;
        if (n.room > limits.most_bytes) return {};
        for (const Given& g : given) {
            const Tensor& t = tensors[g.place];
            // What is saved for a derivative may have been given other memory since.
            if (!is_plain(t, g.dtype) || t.numel() != n.rows[g.rows] * g.width) return {};
        }
        return n;
    }

    static Tensor empty(const Made& m, const Need& n) {
        c10::SmallVector<int64_t, 5> shape;
        if (m.rows) shape.push_back(n.rows[m.rows]);
        shape.append(m.shape.begin(), m.shape.end());
        return at::detail::empty_cpu(shape, m.dtype);
    }

    // The results of the steps.
    std::vector<Tensor> run(const Need& n, Small& graph, const std::vector<Tensor>& tensors) const {
        alignas(Call) char space[sizeof(Call) + 2 * MOST_TENSORS * sizeof(void*)];
        Call& call = *new (space) Call();
        std::copy(n.rows, n.rows + 5, call.rows), call.threads = n.threads;
        for (int end = 0; end < 2; ++end) {
            if (orders[end]) call.orders[end] = graph.order(end);
        }
        void** at = call.given;
        for (const Given& g : given) *at++ = (void*)tensors[g.place].const_data_ptr();
        std::vector<Tensor> makes, results;
        makes.reserve(made.size()), results.reserve(outputs.size());
        for (const Made& m : made) {
            makes.push_back(empty(m, n));
            *at++ = makes.back().mutable_data_ptr();
        }
        Tensor arena;
        if (n.room > limits.small) {
            arena = at::detail::empty_cpu({n.room}, at::kByte);
            call.arena = (char*)arena.mutable_data_ptr();
        }
        function(words.data(), &call);
        for (const Result& r : outputs) {
            const Tensor& from = r.place < 0 ? tensors[given[-1 - r.place].place] : makes[r.place];
            results.push_back(r.copied ? empty(r.like, n) : from);
            if (r.copied && from.nbytes()) memcpy(results.back().mutable_data_ptr(), from.const_data_ptr(), from.nbytes());
        }
        return results;
    }
};

struct Adjoint {
    int64_t present;  // a bit for each output whose gradient it takes
    Steps steps;
    std::vector<int64_t> takes;  // of each input, its place among what is saved and the gradients
    std::vector<int64_t> gives;  // of each wanted input, the place of its gradient among the results, or -1
};

// A program, by itself or with its adjoints.
struct Function {
    Steps forward;
    int64_t visible;
    bool differentiable;
    std::vector<int64_t> wanted, reads, kept, constant;
    std::vector<Adjoint> adjoints;
    Owned pull;  // what Python does where this cannot
    Owned ran;
    std::atomic<int> missed{0};  // derivatives that there was no adjoint for
};
