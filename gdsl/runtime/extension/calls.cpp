// Calls like one before: is this one, and what are its tensors and its graph?

enum { NOTHING, TENSOR, GRAPH };

// As MOST_TENSORS in gdsl/module/repeated.py: a bit for each in the key of a function.
constexpr size_t MOST_INPUTS = 40;

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
    std::vector<Owned> inner;             // what is in those that are lists or dictionaries, in order; else nothing
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
    int64_t graph, sources, targets;
    int64_t loops;                                    // -1 as they are, 0 without, 1 a new one a node, 2 old ones remain
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

// What is in a list or a dictionary, in order; nothing for other things.
Owned contents(PyObject* value) {
    if (PyList_Check(value)) return stolen(PyList_AsTuple(value));
    if (!PyDict_Check(value)) return Owned();
    Owned found = stolen(PyTuple_New(2 * PyDict_GET_SIZE(value)));
    PyObject *name, *inner;
    Py_ssize_t at = 0, k = 0;
    while (found.object && PyDict_Next(value, &at, &name, &inner)) {
        for (PyObject* one : {name, inner}) {
            Py_INCREF(one);
            PyTuple_SET_ITEM(found.object, k++, one);
        }
    }
    return found;
}

bool has_same(PyObject* value, PyObject* inner) {
    const Py_ssize_t count = PyTuple_GET_SIZE(inner);
    Py_ssize_t at = 0, k = 0;
    if (PyList_Check(value)) {
        if (PyList_GET_SIZE(value) != count) return false;
        while (k < count && PyList_GET_ITEM(value, k) == PyTuple_GET_ITEM(inner, k)) ++k;
        return k == count;
    }
    if (2 * PyDict_GET_SIZE(value) != count) return false;
    PyObject *name, *one;
    while (PyDict_Next(value, &at, &name, &one)) {
        if (PyTuple_GET_ITEM(inner, k) != name || PyTuple_GET_ITEM(inner, k + 1) != one) return false;
        k += 2;
    }
    return true;
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
        if (inner[k].object && !has_same(value, inner[k].object)) return false;
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

// The values of edges, of which loops are left out, and those of the loops that are added: the same one at all, or, where
// that is what remains, that of a node's own loop, of several the last.
Tensor with_loops(const Tensor& values, double fill, const Small& graph, bool remaining) {
    auto shape = values.sizes().vec();
    const int64_t count = graph.listed();
    shape[0] = graph.loops ? 1 : graph.added;
    const Tensor all = at::cat({values, at::full(shape, fill, values.options())});
    if (!graph.loops) return all;
    const Tensor from = at::detail::empty_cpu({graph.edges()}, at::kLong);
    int64_t* to = from.mutable_data_ptr<int64_t>();
    int64_t* const added = to + graph.kept();
    std::fill_n(added, graph.added, count);
    const int32_t *const sources = graph.ends.const_data_ptr<int32_t>(), *const targets = sources + count;
    for (int64_t k = 0; k < count; ++k) {
        if (sources[k] != targets[k]) *to++ = k;
        else if (remaining && sources[k] < graph.added) added[sources[k]] = k;
    }
    return all.index_select(0, from);
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
    for (const auto& [place, fill] : known.fills) {
        tensors[place] = with_loops(tensors[place], fill, *graph, known.loops == 2);
    }
    const Tensor seed = known.seed ? at::empty({}, at::kLong) : Tensor();  // drawn once nothing is in the way
    if (known.seed) tensors.push_back(seed);
    const auto need = function->forward.need(*graph, tensors);
    if (!need) Py_RETURN_NONE;
    if (known.seed) seed.random_((int64_t)1 << 62);
    const std::vector<Tensor> results = run(function, *need, graph, tensors);
    if (PyObject_SetAttr(known.store.object, name_last, function->ran.object) < 0) return nullptr;
    if (known.returns >= 0) return THPVariable_Wrap(results.at(known.returns));
    return wrapped(results);
}

// (owner, arguments, states) -> results or None
PyObject* calls_call(PyObject* self, PyObject* given, PyObject*) {
    HANDLE_TH_ERRORS
    PyObject *owner, *args, *states;
    if (!PyArg_ParseTuple(given, "OO!O", &owner, &PyTuple_Type, &args, &states)) return nullptr;
    if (c10::InferenceMode::is_enabled() || at::autocast::is_autocast_enabled(at::kCPU)) Py_RETURN_NONE;
    Owned training = stolen(PyObject_GetAttr(owner, name_training));
    if (!training.object) return nullptr;
    if (!PyBool_Check(training.object)) Py_RETURN_NONE;
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
