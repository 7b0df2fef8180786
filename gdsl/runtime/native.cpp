// A call like one before, natively: its arguments are compared with those of the checked call, the graph is prepared,
// the steps of the plan run, and autograd gets a node. What is not just as it was gives None, and Python does the call.
// gdsl/runtime/native.py says what is passed; steps.cpp and prepare.cpp do the work, by addresses.
#include <atomic>
#include <cmath>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/utils/pybind.h>

namespace {

using at::Tensor;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// As in gdsl/runtime/steps.py, gdsl/runtime/cpp.py and gdsl/codegen/schedule.py, which hand them over.
struct Limits {
    int64_t most_bytes, small, least_groups, block_work, max_blocks, hub_edges, chunk_edges;
} limits;

// Functions of prepare.cpp, for edges that fit in 32 bits.
using Take = void (*)(const void*, const void*, int64_t, int64_t, int64_t, int32_t*, int64_t*, int);
using Sort = void (*)(const int32_t*, const int32_t*, int64_t, int64_t, int64_t, int64_t, int, int32_t*, int32_t*,
                      int32_t*, int64_t*, int64_t*, int64_t*, int64_t*, int);
Take take_wide, take_narrow;
Sort sort_edges;

PyObject *name_training, *name_parameters, *name_buffers, *name_modules, *name_last, *name_small;

struct Owned {  // a reference
    PyObject* object;
    explicit Owned(PyObject* o = nullptr) : object(o) { Py_XINCREF(o); }
    Owned(const Owned& other) : Owned(other.object) {}
    Owned& operator=(const Owned& other) {
        Py_XINCREF(other.object);
        Py_XDECREF(object);
        object = other.object;
        return *this;
    }
    ~Owned() {
        if (!object || !Py_IsInitialized()) return;
        pybind11::gil_scoped_acquire held;
        Py_DECREF(object);
    }
};

Owned stolen(PyObject* o) {
    Owned found(o);
    Py_XDECREF(o);
    return found;
}

// -- a small graph ---------------------------------------------------------------------------------

struct EdgeOrder {  // as in steps.cpp
    const void *rowptr, *index, *edge, *blocks;
    int64_t num_blocks, max_degree;
};

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

// The graphs of the last few tensors, while these live and are unchanged: see graph_of in graph.py.
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

// -- the steps of a plan ---------------------------------------------------------------------------

bool is_plain(const Tensor& t, at::ScalarType dtype) {
    return t.scalar_type() == dtype && t.is_cpu() && t.layout() == at::kStrided && t.is_contiguous() && !t.is_neg() &&
           !t.is_conj() && !t.is_inference() && !at::isTensorSubclassLike(t) && t.has_storage();
}

struct Given {
    int64_t place;  // among the tensors of a call
    at::ScalarType dtype;
};

struct Made {
    int64_t rows;
    std::vector<int64_t> shape;
    at::ScalarType dtype;
};

// Numbers of a call before the addresses of tensors: see Call in steps.cpp.
constexpr size_t FIXED = 19, MOST_TENSORS = 64;

struct Steps {
    void (*function)(const int64_t*, const void*);
    std::vector<int64_t> words;
    std::vector<Given> given;
    std::vector<Made> made;
    std::vector<std::pair<int64_t, int64_t>> inner;  // rows, bytes of each
    int64_t orders[2], kept, totals, alignment;

    // What a call of the steps needs.
    struct Need {
        int64_t rows[5], threads, room;
    };

    // Nothing where the steps must run one by one, for graphs that are large and tensors that are no plain ones.
    std::optional<Need> need(Small& graph, const std::vector<Tensor>& tensors) const {
        Need n = {{1, graph.targets, graph.sources, graph.edges(), 1}, at::get_num_threads(), 0};
        int64_t groups = 0, longest = 0;
        for (int end = 0; end < 2; ++end) {
            if (!orders[end]) continue;
            const EdgeOrder& order = graph.order(end);
            if (order.num_blocks > limits.least_groups) return {};
            groups = std::max(groups, order.num_blocks), longest = std::max(longest, order.max_degree);
        }
        n.room = totals * groups + alignment;
        if (kept) n.room += kept * std::min(n.threads, groups) * (longest + 1);
        for (const auto& [place, width] : inner) n.room += n.rows[place] * width;
        if (n.room > limits.most_bytes) return {};
        for (const Given& g : given) {
            if (!is_plain(tensors[g.place], g.dtype)) return {};
        }
        return n;
    }

    // What the steps make.
    std::vector<Tensor> run(const Need& n, Small& graph, const std::vector<Tensor>& tensors) const {
        int64_t call[FIXED + 2 * MOST_TENSORS] = {n.rows[0], n.rows[1], n.rows[2], n.rows[3], n.rows[4], n.threads};
        for (int end = 0; end < 2; ++end) {
            if (orders[end]) memcpy(call + 6 + 6 * end, &graph.order(end), sizeof(EdgeOrder));
        }
        size_t at = FIXED;
        for (const Given& g : given) call[at++] = (int64_t)tensors[g.place].const_data_ptr();
        std::vector<Tensor> results;
        results.reserve(made.size());
        for (const Made& m : made) {
            c10::SmallVector<int64_t, 5> shape;
            if (m.rows) shape.push_back(n.rows[m.rows]);
            shape.append(m.shape.begin(), m.shape.end());
            results.push_back(at::detail::empty_cpu(shape, m.dtype));
            call[at++] = (int64_t)results.back().mutable_data_ptr();
        }
        Tensor arena;
        if (n.room > limits.small) {
            arena = at::detail::empty_cpu({n.room}, at::kByte);
            call[FIXED - 1] = (int64_t)arena.mutable_data_ptr();
        }
        function(words.data(), call);
        return results;
    }
};

struct Adjoint {
    int64_t present;  // a bit for each output whose gradient it takes
    Steps steps;
    std::vector<int64_t> takes;  // of each input, its place among what is saved and the gradients
    std::vector<int64_t> gives;  // of each wanted input, the place of its gradient, or -1
};

// A program, by itself or with its adjoints.
struct Function {
    Steps forward;
    std::vector<int64_t> outputs;  // of each output, its place among what is made
    int64_t visible;
    bool differentiable;
    std::vector<int64_t> wanted, reads, kept, constant;
    std::vector<Adjoint> adjoints;
    Owned pull;  // what Python does where this cannot
    Owned ran;
    std::atomic<int> missed{0};  // derivatives that there was no adjoint for
};

// -- autograd --------------------------------------------------------------------------------------

PyObject* wrapped(const Tensor& t) {
    if (!t.defined()) Py_RETURN_NONE;
    return THPVariable_Wrap(t);
}

PyObject* small_object(const std::shared_ptr<Small>& graph);

// A node of autograd is counted by itself from some version of torch on, and by a shared_ptr before.
constexpr bool counts_itself = std::is_base_of_v<c10::intrusive_ptr_target, torch::autograd::Node>;

template <class N> auto new_node() {
    if constexpr (counts_itself) {
        return c10::make_intrusive<N>();
    } else {
        return std::shared_ptr<N>(new N(), [](auto* node) { deleteNode(node); });
    }
}

template <class N> auto pointer_to(N& node) {
    if constexpr (counts_itself) {
        return c10::intrusive_ptr<N>::unsafe_reclaim_from_nonowning(&node);
    } else {
        return node.shared_from_this();
    }
}

struct GdslBackward : torch::autograd::Node {
    std::shared_ptr<Function> function;
    std::shared_ptr<Small> graph;
    std::vector<SavedVariable> saved;
    bool over = false;

    std::string name() const override { return "GdslBackward"; }

    void release_variables() override {
        std::lock_guard<std::mutex> lock(mutex_);
        saved.clear();
        over = true;
    }

    variable_list apply(variable_list&& grads) override {
        const Function& f = *function;
        std::vector<Tensor> have;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            TORCH_CHECK(!over, torch::autograd::ERR_BACKWARD_TWICE);
            for (const SavedVariable& s : saved) have.push_back(s.unpack(pointer_to<torch::autograd::Node>(*this)));
        }
        const size_t first = have.size();
        bool plain = !torch::autograd::GradMode::is_enabled();
        for (size_t k = 0; k < f.wanted.size(); ++k) plain &= task_should_compute_output(k);
        int64_t present = 0;
        for (size_t k = 0; k < grads.size(); ++k) {
            const Tensor& g = grads[k];
            if (g.defined()) present |= (int64_t)1 << k, plain &= !g._is_zerotensor() && !at::isTensorSubclassLike(g);
            have.push_back(g);
        }
        if (plain) {
            for (const Adjoint& adjoint : f.adjoints) {
                if (adjoint.present != present) continue;
                std::vector<Tensor> tensors;
                for (int64_t k : adjoint.takes) {
                    tensors.push_back(k < (int64_t)first ? have[k] : have[k].contiguous());
                }
                const auto need = adjoint.steps.need(*graph, tensors);
                if (!need) break;
                const std::vector<Tensor> made = adjoint.steps.run(*need, *graph, tensors);
                variable_list found;
                for (int64_t k : adjoint.gives) found.push_back(k < 0 ? Tensor() : made[k]);
                return found;
            }
            ++function->missed;
        }
        return by_python(have, first);
    }

    variable_list by_python(const std::vector<Tensor>& have, size_t first) {
        pybind11::gil_scoped_acquire held;
        const size_t n = function->wanted.size();
        Owned needs = stolen(PyTuple_New(n)), values = stolen(PyTuple_New(first)),
              grads = stolen(PyTuple_New(have.size() - first));
        for (size_t k = 0; k < n; ++k) {
            PyTuple_SET_ITEM(needs.object, k, PyBool_FromLong(task_should_compute_output(k)));
        }
        for (size_t k = 0; k < have.size(); ++k) {
            PyObject* const value = wrapped(have[k]);
            if (!value) throw python_error();
            PyTuple_SET_ITEM(k < first ? values.object : grads.object, k < first ? k : k - first, value);
        }
        Owned edges = stolen(small_object(graph));
        Owned found = stolen(PyObject_CallFunctionObjArgs(function->pull.object, edges.object, needs.object,
                                                          values.object, grads.object, nullptr));
        if (!found.object) {
            python_error error;
            error.persist();
            throw error;
        }
        variable_list results;
        for (size_t k = 0; k < n; ++k) {
            PyObject* const item = PyTuple_GET_ITEM(found.object, k);
            results.push_back(item == Py_None ? Tensor() : THPVariable_Unpack(item));
        }
        return results;
    }
};

constexpr int64_t MANY_ROWS = 512;

// The results of a call, for which autograd gets a node.
std::vector<Tensor> run(const std::shared_ptr<Function>& function, const Steps::Need& need,
                        const std::shared_ptr<Small>& graph, const std::vector<Tensor>& tensors) {
    const Function& f = *function;
    std::vector<Tensor> made, results;
    {
        // A few rows take no longer than another thread needs to notice that it may run.
        std::optional<pybind11::gil_scoped_release> free;
        if (graph->targets + graph->edges() > MANY_ROWS) free.emplace();
        made = f.forward.run(need, *graph, tensors);
    }
    for (int64_t k = 0; k < f.visible; ++k) results.push_back(made[f.outputs[k]]);  // shares what autograd is told
    if (!f.differentiable) return results;
    auto node = new_node<GdslBackward>();
    torch::autograd::edge_list edges;
    for (int64_t k : f.wanted) edges.push_back(torch::autograd::impl::gradient_edge(tensors[k]));
    node->set_next_edges(std::move(edges));
    node->function = function, node->graph = graph;
    // What is saved of the outputs, too: a derivative of the derivative goes through it.
    for (int64_t k = 0; k < (int64_t)f.outputs.size(); ++k) {
        if (std::find(f.constant.begin(), f.constant.end(), k) == f.constant.end()) {
            torch::autograd::set_history(made[f.outputs[k]], node);
        }
    }
    for (int64_t k : f.reads) node->saved.emplace_back(tensors[k], false);
    for (int64_t k : f.kept) {
        const Tensor& value = made[f.outputs[k]];
        node->saved.emplace_back(value, value.requires_grad());
    }
    return results;
}

// -- calls like one before -------------------------------------------------------------------------

enum { NOTHING, TENSOR, GRAPH };

struct Argument {
    int64_t kind, rows;  // which size of the graph counts its rows; -1 where it has none
    at::ScalarType dtype;
    std::vector<int64_t> shape;  // besides the rows
};

struct State {
    Owned path, leaf;  // names of the modules on the way; of the tensor
    at::ScalarType dtype;
    std::vector<int64_t> shape;
};

// A part of the module that was called, and all that it was then, by identity: what a Python function makes of a module
// is the same for as long as nothing in it is another object.
struct Watched {
    Owned path;                           // names of the modules on the way
    PyTypeObject* type;                   // lives as long as the parts that are held here
    std::vector<Owned> names, values;     // of its attributes; no value where it does not matter
    std::vector<Py_ssize_t> sizes;        // of those that are dictionaries, or -1
    std::vector<bool> has;                // of its parameters and buffers, whether they are there

    bool is_same(PyObject* owner) const;
};

std::vector<Owned> global_hooks;  // dictionaries that are empty unless somebody looks at all modules

struct Known {
    PyObject* owner;  // or null, for any; not held
    std::vector<Watched> watched;
    bool training;
    Owned states;
    std::vector<Argument> arguments;
    std::vector<State> state;
    std::vector<std::pair<int64_t, int64_t>> inputs;  // of each tensor of the program: argument or state, and its place
    std::vector<int64_t> real;                        // whether it may have a gradient
    int64_t graph, sources, targets, loops;           // loops: -1 as they are, 0 without, 1 with one a node
    int64_t returns;                                  // which result is the call's, or -1 for all
    std::vector<std::pair<int64_t, double>> fills;    // values of edges, and those of the loops that are added
    bool bipartite, seed;
    PyTypeObject* graph_type;
    Owned find, store;
    struct Found {
        std::shared_ptr<Function> function;
        int asked = 0;  // how often Python was asked for it
    };
    std::unordered_map<int64_t, Found> functions;
};

const Tensor* plain_tensor(PyObject* value) {
    return value && THPVariable_CheckTypeExact(Py_TYPE(value)) ? &THPVariable_Unpack(value) : nullptr;
}

bool has_shape(const Tensor& t, const std::vector<int64_t>& shape, bool rows) {
    const auto sizes = t.sizes();
    return sizes.size() == shape.size() + rows && std::equal(shape.begin(), shape.end(), sizes.begin() + rows);
}

// A module in another one; nothing where there is none.
Owned module_at(PyObject* owner, const Owned& path) {
    Owned module(owner);
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(path.object); ++k) {
        Owned modules = stolen(PyObject_GetAttr(module.object, name_modules));
        PyObject* const next =
            modules.object ? PyDict_GetItemWithError(modules.object, PyTuple_GET_ITEM(path.object, k)) : nullptr;
        if (!next) return PyErr_Clear(), Owned();
        module = Owned(next);
    }
    return module;
}

bool Watched::is_same(PyObject* owner) const {
    const Owned module = module_at(owner, path);
    if (!module.object || Py_TYPE(module.object) != type) return false;
    const Owned all = stolen(PyObject_GenericGetDict(module.object, nullptr));
    if (!all.object) return PyErr_Clear(), false;
    if ((size_t)PyDict_GET_SIZE(all.object) != names.size()) return false;
    PyObject *name, *value;
    Py_ssize_t at = 0;
    for (size_t k = 0; PyDict_Next(all.object, &at, &name, &value); ++k) {
        if (name != names[k].object || (values[k].object && value != values[k].object)) return false;
        if (sizes[k] >= 0 && (!PyDict_Check(value) || PyDict_GET_SIZE(value) != sizes[k])) return false;
    }
    size_t count = 0;
    for (PyObject* kind : {name_parameters, name_buffers}) {
        PyObject* const held = PyDict_GetItemWithError(all.object, kind);
        if (!held || !PyDict_Check(held)) return PyErr_Clear(), false;
        at = 0;
        while (PyDict_Next(held, &at, &name, &value)) {
            if (count >= has.size() || has[count++] != (value != Py_None)) return false;
        }
    }
    return count == has.size();
}

// The tensor of a module that a program reads, where it is a parameter or a buffer.
const Tensor* tensor_of(PyObject* owner, const State& state) {
    const Owned module = module_at(owner, state.path);
    if (!module.object) return nullptr;
    for (PyObject* name : {name_parameters, name_buffers}) {
        Owned held = stolen(PyObject_GetAttr(module.object, name));
        PyObject* const found = held.object ? PyDict_GetItemWithError(held.object, state.leaf.object) : nullptr;
        if (found) return plain_tensor(found);
        PyErr_Clear();
    }
    return nullptr;
}

// What GraphShape.of keeps of the sizes.
int64_t shape_key(int64_t sources, int64_t targets, int64_t edges) {
    const double rows = (double)std::max<int64_t>(1, targets);
    const int64_t size = std::max<int64_t>(1, std::nearbyint(std::log2(rows) / 4)) * 4;
    const int64_t more = sources == std::max<int64_t>(1, targets)
                             ? size
                             : size + std::nearbyint(std::log2((double)std::max<int64_t>(1, sources) / rows));
    const int64_t deep = size + std::nearbyint(std::log2((double)std::max<int64_t>(1, edges) / rows));
    return (std::max<int64_t>(0, more) << 12 | size << 6 | std::max<int64_t>(0, deep));
}

struct CallsObject {
    PyObject_HEAD
    std::vector<std::shared_ptr<Known>>* known;
};

struct SmallObject {
    PyObject_HEAD
    std::shared_ptr<Small>* graph;
};

struct FunctionObject {
    PyObject_HEAD
    std::shared_ptr<Function>* function;
};

extern PyTypeObject CallsType, SmallType, FunctionType;

PyObject* small_object(const std::shared_ptr<Small>& graph) {
    auto* const found = (SmallObject*)SmallType.tp_alloc(&SmallType, 0);
    if (found) found->graph = new std::shared_ptr<Small>(graph);
    return (PyObject*)found;
}

// The edges of a call's graph; null for one that is not small, or that Python has to look at.
std::shared_ptr<Small> edges_of(const Known& known, PyObject* const* args) {
    PyObject* const given = args[known.graph];
    if (Py_TYPE(given) == known.graph_type) {
        Owned found = stolen(PyObject_GetAttr(given, name_small));
        if (!found.object) throw python_error();
        return found.object == Py_None ? nullptr : *((SmallObject*)found.object)->graph;
    }
    const Tensor* const t = plain_tensor(given);
    if (!t || t->dim() != 2 || t->size(0) != 2 || t->size(1) > limits.hub_edges) return nullptr;
    if (!is_plain(*t, at::kLong) && !is_plain(*t, at::kInt)) return nullptr;
    const auto rows = [&](int64_t at) { return at < 0 ? -1 : THPVariable_Unpack(args[at]).size(0); };
    int64_t sources = rows(known.sources), targets = rows(known.targets);
    if (sources < 0 || targets < 0 || std::max(sources, targets) > INT32_MAX) return nullptr;
    return graph_of(*t, sources, targets);
}

bool is_same(const Known& known, PyObject* owner, PyObject* states) {
    if (!known.owner) {
        const int same = PyObject_RichCompareBool(known.states.object, states, Py_EQ);
        if (same < 0) throw python_error();
        return same;
    }
    if (known.owner != owner) return false;
    for (const Owned& hooks : global_hooks) {
        if (PyDict_GET_SIZE(hooks.object)) return false;
    }
    return std::all_of(known.watched.begin(), known.watched.end(), [&](const Watched& w) { return w.is_same(owner); });
}

bool matches(const Known& known, PyObject* const* args, size_t count) {
    if (count != known.arguments.size()) return false;
    for (size_t k = 0; k < count; ++k) {
        const Argument& a = known.arguments[k];
        if (a.kind == NOTHING) {
            if (args[k] != Py_None) return false;
        } else if (a.kind == TENSOR) {
            const Tensor* const t = plain_tensor(args[k]);
            if (!t || t->scalar_type() != a.dtype || !has_shape(*t, a.shape, a.rows >= 0)) return false;
        }
    }
    return true;
}

constexpr int MOST_MISSED = 3, MOST_ASKED = 16;

// The values of edges, and the same one at all loops that are added to a graph without any.
Tensor with_loops(const Tensor& values, double fill, const Small& graph) {
    auto shape = values.sizes().vec();
    shape[0] = graph.added;
    return at::cat({values, at::full(shape, fill, values.options())});
}

// None where Python has to do the call.
PyObject* call(Known& known, PyObject* owner, PyObject* const* args) {
    std::vector<Tensor> tensors;
    tensors.reserve(known.inputs.size());
    const bool grads = torch::autograd::GradMode::is_enabled();
    int64_t mask = 0;
    for (size_t k = 0; k < known.inputs.size(); ++k) {
        const auto& [from, place] = known.inputs[k];
        const Tensor* t;
        if (from) {
            const State& state = known.state[place];
            t = tensor_of(owner, state);
            if (!t || t->scalar_type() != state.dtype || !has_shape(*t, state.shape, false)) Py_RETURN_NONE;
        } else {
            t = &THPVariable_Unpack(args[place]);
        }
        if (grads && known.real[k] && t->requires_grad()) mask |= (int64_t)1 << k;
        tensors.push_back(*t);
    }
    std::shared_ptr<Small> graph = edges_of(known, args);
    if (!graph) Py_RETURN_NONE;
    const int64_t sizes[3] = {graph->targets, graph->sources, graph->edges()};
    if (sizes[0] != sizes[1] && !known.bipartite) Py_RETURN_NONE;
    for (size_t k = 0; k < known.arguments.size(); ++k) {
        const int64_t rows = known.arguments[k].rows;
        if (rows >= 0 && THPVariable_Unpack(args[k]).size(0) != sizes[rows]) Py_RETURN_NONE;
    }
    if (!known.fills.empty() && graph->loops) Py_RETURN_NONE;
    if (known.loops >= 0) graph = graph->with_loops(known.loops);
    if (!graph || graph->edges() > limits.hub_edges) Py_RETURN_NONE;
    const int64_t key = mask << 20 | shape_key(graph->sources, graph->targets, graph->edges());
    Known::Found& kept = known.functions[key];
    // One whose derivatives lack an adjoint is asked for again: Python has compiled more since.
    if (!kept.function || kept.function->missed >= MOST_MISSED) {
        if (kept.asked == MOST_ASKED) Py_RETURN_NONE;
        ++kept.asked;
        Owned found = stolen(PyObject_CallFunction(known.find.object, "LLLL", (long long)graph->sources,
                                                   (long long)graph->targets, (long long)graph->edges(),
                                                   (long long)mask));
        if (!found.object) return nullptr;
        kept.function = found.object == Py_None ? nullptr : *((FunctionObject*)found.object)->function;
        if (!kept.function) Py_RETURN_NONE;
    }
    const std::shared_ptr<Function> function = kept.function;
    for (const auto& [place, fill] : known.fills) tensors[place] = with_loops(tensors[place], fill, *graph);
    const Tensor seed = known.seed ? at::empty({}, at::kLong) : Tensor();  // drawn once nothing is in the way
    if (known.seed) tensors.push_back(seed);
    const auto need = function->forward.need(*graph, tensors);
    if (!need) Py_RETURN_NONE;
    if (known.seed) seed.random_((int64_t)1 << 62);
    const std::vector<Tensor> results = run(function, *need, graph, tensors);
    if (PyObject_SetAttr(known.store.object, name_last, function->ran.object) < 0) return nullptr;
    if (known.returns >= 0) return THPVariable_Wrap(results.at(known.returns));
    Owned all = stolen(PyTuple_New(results.size()));
    for (size_t k = 0; k < results.size(); ++k) PyTuple_SET_ITEM(all.object, k, THPVariable_Wrap(results[k]));
    Py_INCREF(all.object);
    return all.object;
}

// (owner, arguments, states) -> results or None
PyObject* calls_call(PyObject* self, PyObject* given, PyObject*) {
    HANDLE_TH_ERRORS
    PyObject *owner, *args, *states;
    if (!PyArg_ParseTuple(given, "OO!O", &owner, &PyTuple_Type, &args, &states)) return nullptr;
    if (c10::InferenceMode::is_enabled() || at::autocast::is_autocast_enabled(at::kCPU)) Py_RETURN_NONE;
    Owned training = stolen(PyObject_GetAttr(owner, name_training));
    if (!training.object) return nullptr;
    const bool trains = training.object == Py_True;
    PyObject* const* const items = &PyTuple_GET_ITEM(args, 0);
    const auto& all = *((CallsObject*)self)->known;
    for (size_t k = 0; k < all.size(); ++k) {
        const auto& known = all[k];
        if (known->training != trains || !matches(*known, items, PyTuple_GET_SIZE(args))) continue;
        const std::shared_ptr<Known> own = known;  // while others may be added
        if (is_same(*own, owner, states)) return call(*own, owner, items);
    }
    Py_RETURN_NONE;
    END_HANDLE_TH_ERRORS
}

// -- what Python hands over ------------------------------------------------------------------------

std::vector<int64_t> numbers(PyObject* sequence) {
    std::vector<int64_t> found;
    Owned items = stolen(PySequence_Fast(sequence, "numbers"));
    if (!items.object) throw python_error();
    for (Py_ssize_t k = 0; k < PySequence_Fast_GET_SIZE(items.object); ++k) {
        found.push_back(PyLong_AsLongLong(PySequence_Fast_GET_ITEM(items.object, k)));
    }
    if (PyErr_Occurred()) throw python_error();
    return found;
}

template <class F> void each(PyObject* sequence, F&& with) {
    Owned items = stolen(PySequence_Fast(sequence, "a sequence"));
    if (!items.object) throw python_error();
    for (Py_ssize_t k = 0; k < PySequence_Fast_GET_SIZE(items.object); ++k) {
        with(PySequence_Fast_GET_ITEM(items.object, k));
    }
}

template <class... A> void parse(PyObject* tuple, const char* format, A... a) {
    if (!PyArg_ParseTuple(tuple, format, a...)) throw python_error();
}

at::ScalarType dtype_of(PyObject* dtype) {
    TORCH_CHECK(THPDtype_Check(dtype), "a dtype");
    return ((THPDtype*)dtype)->scalar_type;
}

// (function, words, given, made, inner, orders, kept, totals, alignment)
Steps steps_of(PyObject* about) {
    Steps s;
    long long function, kept, totals, alignment;
    PyObject *words, *given, *made, *inner, *orders;
    parse(about, "LOOOOOLLL", &function, &words, &given, &made, &inner, &orders, &kept, &totals, &alignment);
    s.function = (void (*)(const int64_t*, const void*))function;
    s.words = numbers(words), s.kept = kept, s.totals = totals, s.alignment = alignment;
    each(given, [&](PyObject* item) {
        long long place;
        PyObject* dtype;
        parse(item, "LO", &place, &dtype);
        s.given.push_back({place, dtype_of(dtype)});
    });
    each(made, [&](PyObject* item) {
        long long rows;
        PyObject *shape, *dtype;
        parse(item, "LOO", &rows, &shape, &dtype);
        s.made.push_back({rows, numbers(shape), dtype_of(dtype)});
    });
    TORCH_CHECK(s.given.size() <= MOST_TENSORS && s.made.size() <= MOST_TENSORS, "too many tensors");
    each(inner, [&](PyObject* item) {
        const auto pair = numbers(item);
        s.inner.push_back({pair.at(0), pair.at(1)});
    });
    const auto used = numbers(orders);
    s.orders[0] = used.at(0), s.orders[1] = used.at(1);
    return s;
}

// Function(forward, outputs, visible, ran, differentiable): differentiable is None or (wanted, reads, kept, constant,
// adjoints, pull), an adjoint (present, steps, takes, gives)
PyObject* function_new(PyTypeObject* type, PyObject* given, PyObject*) {
    HANDLE_TH_ERRORS
    PyObject *forward, *outputs, *ran, *derivative;
    long long visible;
    parse(given, "OOLOO", &forward, &outputs, &visible, &ran, &derivative);
    auto f = std::make_shared<Function>();
    f->forward = steps_of(forward), f->outputs = numbers(outputs), f->visible = visible, f->ran = Owned(ran);
    f->differentiable = derivative != Py_None;
    if (f->differentiable) {
        PyObject *wanted, *reads, *kept, *constant, *adjoints, *pull;
        parse(derivative, "OOOOOO", &wanted, &reads, &kept, &constant, &adjoints, &pull);
        f->wanted = numbers(wanted), f->reads = numbers(reads), f->kept = numbers(kept);
        f->constant = numbers(constant), f->pull = Owned(pull);
        each(adjoints, [&](PyObject* item) {
            long long present;
            PyObject *steps, *takes, *gives;
            parse(item, "LOOO", &present, &steps, &takes, &gives);
            f->adjoints.push_back({present, steps_of(steps), numbers(takes), numbers(gives)});
        });
    }
    auto* const self = (FunctionObject*)type->tp_alloc(type, 0);
    if (self) self->function = new std::shared_ptr<Function>(f);
    return (PyObject*)self;
    END_HANDLE_TH_ERRORS
}

void function_free(PyObject* self) {
    delete ((FunctionObject*)self)->function;
    Py_TYPE(self)->tp_free(self);
}

PyObject* calls_new(PyTypeObject* type, PyObject*, PyObject*) {
    auto* const self = (CallsObject*)type->tp_alloc(type, 0);
    if (self) self->known = new std::vector<std::shared_ptr<Known>>();
    return (PyObject*)self;
}

// What is held of a module may hold the module, which holds this.
int calls_traverse(PyObject* self, visitproc visit, void* arg) {
    for (const auto& known : *((CallsObject*)self)->known) {
        for (const Watched& w : known->watched) {
            for (const Owned& value : w.values) Py_VISIT(value.object);
        }
    }
    return 0;
}

int calls_clear(PyObject* self) {
    std::vector<std::shared_ptr<Known>> gone;
    gone.swap(*((CallsObject*)self)->known);
    return 0;
}

void calls_free(PyObject* self) {
    PyObject_GC_UnTrack(self);
    delete ((CallsObject*)self)->known;
    Py_TYPE(self)->tp_free(self);
}

// (module, path, names that do not matter)
Watched watched_of(PyObject* about) {
    Watched w;
    PyObject *module, *path, *idle;
    parse(about, "OO!O!", &module, &PyTuple_Type, &path, &PyFrozenSet_Type, &idle);
    w.path = Owned(path), w.type = Py_TYPE(module);
    const Owned all = stolen(PyObject_GenericGetDict(module, nullptr));
    if (!all.object) throw python_error();
    PyObject *name, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(all.object, &at, &name, &value)) {
        const bool matters = !PySet_Contains(idle, name);
        w.names.emplace_back(name), w.values.emplace_back(matters ? value : nullptr);
        w.sizes.push_back(matters && PyDict_Check(value) ? PyDict_GET_SIZE(value) : -1);
    }
    for (PyObject* kind : {name_parameters, name_buffers}) {
        PyObject* const held = PyDict_GetItemWithError(all.object, kind);
        TORCH_CHECK(held && PyDict_Check(held), "a module");
        at = 0;
        while (PyDict_Next(held, &at, &name, &value)) w.has.push_back(value != Py_None);
    }
    return w;
}

// add(training, states, arguments, state, inputs, real, (graph, sources, targets, loops, returns), fills, bipartite, seed,
//     class of graphs, find, store, owner or None, watched)
PyObject* calls_add(PyObject* self, PyObject* given) {
    HANDLE_TH_ERRORS
    auto known = std::make_shared<Known>();
    int training, bipartite, seed;
    PyObject *states, *arguments, *state, *inputs, *real, *places, *fills, *graphs, *find, *store, *owner, *watched;
    parse(given, "pOOOOOOOppOOOOO", &training, &states, &arguments, &state, &inputs, &real, &places, &fills, &bipartite,
          &seed, &graphs, &find, &store, &owner, &watched);
    known->seed = seed;
    known->owner = owner == Py_None ? nullptr : owner;
    each(watched, [&](PyObject* item) { known->watched.push_back(watched_of(item)); });
    known->graph_type = (PyTypeObject*)graphs;  // lives as long as Python
    known->training = training, known->bipartite = bipartite, known->states = Owned(states);
    each(arguments, [&](PyObject* item) {
        long long kind, rows;
        PyObject *dtype, *shape;
        parse(item, "LLOO", &kind, &rows, &dtype, &shape);
        known->arguments.push_back(
            {kind, rows, dtype == Py_None ? at::kFloat : dtype_of(dtype), numbers(shape)});
    });
    each(state, [&](PyObject* item) {
        PyObject *path, *leaf, *dtype, *shape;
        parse(item, "O!OOO", &PyTuple_Type, &path, &leaf, &dtype, &shape);
        known->state.push_back({Owned(path), Owned(leaf), dtype_of(dtype), numbers(shape)});
    });
    each(inputs, [&](PyObject* item) {
        const auto pair = numbers(item);
        known->inputs.push_back({pair.at(0), pair.at(1)});
    });
    TORCH_CHECK(known->inputs.size() < 40, "too many tensors");
    known->real = numbers(real);
    const auto at = numbers(places);
    known->graph = at.at(0), known->sources = at.at(1), known->targets = at.at(2), known->loops = at.at(3);
    known->returns = at.at(4);
    each(fills, [&](PyObject* item) {
        long long place;
        double fill;
        parse(item, "Ld", &place, &fill);
        known->fills.push_back({place, fill});
    });
    known->find = Owned(find), known->store = Owned(store);
    auto& all = *((CallsObject*)self)->known;
    if (all.size() >= 16) all.erase(all.begin());
    all.push_back(known);
    Py_RETURN_NONE;
    END_HANDLE_TH_ERRORS
}

// Small(ends, loops, by_source, by_target, drop, added, sources, targets)
PyObject* small_new(PyTypeObject*, PyObject* given, PyObject*) {
    HANDLE_TH_ERRORS
    PyObject* ends;
    long long n[7];
    parse(given, "OLLLLLLL", &ends, n, n + 1, n + 2, n + 3, n + 4, n + 5, n + 6);
    auto graph = std::make_shared<Small>();
    const Tensor* const t = plain_tensor(ends);
    TORCH_CHECK(t && is_plain(*t, at::kInt) && t->dim() == 2, "ends of edges");
    graph->ends = *t;
    graph->loops = n[0], graph->by_source = n[1], graph->by_target = n[2], graph->drop = n[3], graph->added = n[4];
    graph->sources = n[5], graph->targets = n[6];
    return small_object(graph);
    END_HANDLE_TH_ERRORS
}

void small_free(PyObject* self) {
    delete ((SmallObject*)self)->graph;
    Py_TYPE(self)->tp_free(self);
}

// The order by an end, which is known: (end, (rowptr, index, edge, blocks, num_blocks, max_degree), tensors)
PyObject* small_set(PyObject* self, PyObject* given) {
    HANDLE_TH_ERRORS
    long long end;
    PyObject *addresses, *tensors;
    parse(given, "LOO", &end, &addresses, &tensors);
    auto order = std::make_unique<Order>();
    const auto at = numbers(addresses);
    TORCH_CHECK(at.size() == 6, "an order");
    memcpy(&order->at, at.data(), sizeof(EdgeOrder));
    each(tensors, [&](PyObject* item) { order->memory.push_back(THPVariable_Unpack(item)); });
    (*((SmallObject*)self)->graph)->orders[end] = std::move(order);
    Py_RETURN_NONE;
    END_HANDLE_TH_ERRORS
}

// (ends, loops, by_source, by_target, drop, added, sources, targets)
PyObject* small_parts(PyObject* self, PyObject*) {
    HANDLE_TH_ERRORS
    const Small& g = **((SmallObject*)self)->graph;
    PyObject* const ends = THPVariable_Wrap(g.ends);
    if (!ends) return nullptr;
    return Py_BuildValue("NLLLLLLL", ends, (long long)g.loops, (long long)g.by_source, (long long)g.by_target,
                         (long long)g.drop, (long long)g.added, (long long)g.sources, (long long)g.targets);
    END_HANDLE_TH_ERRORS
}

PyMethodDef calls_methods[] = {{"add", calls_add, METH_VARARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
PyMethodDef small_methods[] = {{"set", small_set, METH_VARARGS, nullptr},
                               {"parts", small_parts, METH_NOARGS, nullptr},
                               {nullptr, nullptr, 0, nullptr}};

PyTypeObject type_of(const char* name, size_t size, newfunc make, destructor free, PyMethodDef* methods,
                     ternaryfunc called) {
    PyTypeObject type = {PyVarObject_HEAD_INIT(nullptr, 0)};
    type.tp_name = name, type.tp_basicsize = size, type.tp_flags = Py_TPFLAGS_DEFAULT;
    type.tp_new = make, type.tp_dealloc = free, type.tp_methods = methods, type.tp_call = called;
    return type;
}

PyTypeObject CallsType =
    type_of("gdsl.native.Calls", sizeof(CallsObject), calls_new, calls_free, calls_methods, calls_call);
PyTypeObject SmallType =
    type_of("gdsl.native.Small", sizeof(SmallObject), small_new, small_free, small_methods, nullptr);
PyTypeObject FunctionType =
    type_of("gdsl.native.Function", sizeof(FunctionObject), function_new, function_free, nullptr, nullptr);

// setup(limits, (take of int64, take of int32, order), dictionaries of hooks)
PyObject* setup(PyObject*, PyObject* given) {
    HANDLE_TH_ERRORS
    PyObject *sizes, *functions, *hooks;
    parse(given, "OOO", &sizes, &functions, &hooks);
    each(hooks, [](PyObject* item) { global_hooks.emplace_back(item); });
    const auto n = numbers(sizes), f = numbers(functions);
    limits = {n.at(0), n.at(1), n.at(2), n.at(3), n.at(4), n.at(5), n.at(6)};
    take_wide = (Take)f.at(0), take_narrow = (Take)f.at(1), sort_edges = (Sort)f.at(2);
    Py_RETURN_NONE;
    END_HANDLE_TH_ERRORS
}

// shape_key(sources, targets, edges), for a test
PyObject* shape_key_of(PyObject*, PyObject* given) {
    HANDLE_TH_ERRORS
    long long n[3];
    parse(given, "LLL", n, n + 1, n + 2);
    return PyLong_FromLongLong(shape_key(n[0], n[1], n[2]));
    END_HANDLE_TH_ERRORS
}

PyMethodDef functions[] = {{"setup", setup, METH_VARARGS, nullptr},
                           {"shape_key", shape_key_of, METH_VARARGS, nullptr},
                           {nullptr, nullptr, 0, nullptr}};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "gdsl_native", nullptr, -1, functions};

}  // namespace

PyMODINIT_FUNC PyInit_gdsl_native() {
    name_training = PyUnicode_InternFromString("training");
    name_parameters = PyUnicode_InternFromString("_parameters");
    name_buffers = PyUnicode_InternFromString("_buffers");
    name_modules = PyUnicode_InternFromString("_modules");
    name_last = PyUnicode_InternFromString("last");
    name_small = PyUnicode_InternFromString("_small");
    PyObject* const made = PyModule_Create(&module);
    struct { const char* name; PyTypeObject* type; } types[] = {
        {"Calls", &CallsType}, {"Small", &SmallType}, {"Function", &FunctionType}};
    CallsType.tp_flags |= Py_TPFLAGS_HAVE_GC;
    CallsType.tp_traverse = calls_traverse, CallsType.tp_clear = calls_clear, CallsType.tp_free = PyObject_GC_Del;
    for (const auto& [name, type] : types) {
        if (PyType_Ready(type) < 0 || PyModule_AddObjectRef(made, name, (PyObject*)type) < 0) return nullptr;
    }
    return made;
}
