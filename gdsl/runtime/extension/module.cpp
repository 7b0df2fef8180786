// What Python hands over, and the module that it sees.

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

Made made_of(PyObject* about) {
    long long rows;
    PyObject *shape, *dtype;
    parse(about, "LOO", &rows, &shape, &dtype);
    return {rows, numbers(shape), dtype_of(dtype)};
}

// (function, words, given, made, outputs, most, places, orders, kept, totals, alignment)
Steps steps_of(PyObject* about) {
    Steps s;
    long long function, kept, totals, alignment;
    PyObject *words, *given, *made, *outputs, *most, *places, *orders;
    parse(about, "LOOOOOOOLLL", &function, &words, &given, &made, &outputs, &most, &places, &orders, &kept, &totals,
          &alignment);
    s.function = (void (*)(const int64_t*, const void*))function;
    s.words = numbers(words), s.kept = kept, s.totals = totals, s.alignment = alignment;
    each(given, [&](PyObject* item) {
        long long place, rows, width;
        PyObject* dtype;
        parse(item, "LOLL", &place, &dtype, &rows, &width);
        s.given.push_back({place, dtype_of(dtype), rows, width});
    });
    each(made, [&](PyObject* item) { s.made.push_back(made_of(item)); });
    each(outputs, [&](PyObject* item) {
        long long place;
        int copied;
        PyObject* like;
        parse(item, "LpO", &place, &copied, &like);
        s.outputs.push_back({place, (bool)copied, made_of(like)});
    });
    TORCH_CHECK(s.given.size() <= MOST_TENSORS && s.made.size() <= MOST_TENSORS, "too many tensors");
    const auto pairs = [](PyObject* sequence, auto& found) {
        each(sequence, [&](PyObject* item) {
            const auto pair = numbers(item);
            found.push_back({pair.at(0), pair.at(1)});
        });
    };
    pairs(most, s.most), pairs(places, s.places);
    const auto used = numbers(orders);
    s.orders[0] = used.at(0), s.orders[1] = used.at(1);
    return s;
}

// Function(forward, visible, ran, differentiable): differentiable is None or (wanted, reads, kept, constant,
// adjoints, pull), an adjoint (present, steps, takes, gives)
PyObject* function_new(PyTypeObject* type, PyObject* given, PyObject*) {
    HANDLE_TH_ERRORS
    PyObject *forward, *ran, *derivative;
    long long visible;
    parse(given, "OLOO", &forward, &visible, &ran, &derivative);
    auto f = std::make_shared<Function>();
    f->forward = steps_of(forward), f->visible = visible, f->ran = Owned(ran);
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

// (graph, tensors) -> results or None: not asked whether they are those of a program
PyObject* function_call(PyObject* self, PyObject* given, PyObject*) {
    HANDLE_TH_ERRORS
    PyObject *edges, *list;
    if (!PyArg_ParseTuple(given, "O!O!", &SmallType, &edges, &PyList_Type, &list)) return nullptr;
    if (c10::InferenceMode::is_enabled()) Py_RETURN_NONE;
    const std::shared_ptr<Function> function = *((FunctionObject*)self)->function;
    if (function->missed >= MOST_MISSED) Py_RETURN_NONE;
    std::vector<Tensor> tensors;
    for (Py_ssize_t k = 0; k < PyList_GET_SIZE(list); ++k) {
        const Tensor* const t = plain_tensor(PyList_GET_ITEM(list, k));
        if (!t) Py_RETURN_NONE;
        tensors.push_back(*t);
    }
    const std::shared_ptr<Small> graph = *((SmallObject*)edges)->graph;
    const auto need = function->forward.need(*graph, tensors);
    if (!need) Py_RETURN_NONE;
    return wrapped(run(function, *need, graph, tensors));
    END_HANDLE_TH_ERRORS
}

PyObject* function_missed(PyObject* self, void*) {
    return PyBool_FromLong((*((FunctionObject*)self)->function)->missed >= MOST_MISSED);
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
            for (const Owned& inner : w.inner) Py_VISIT(inner.object);
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
        // Each call takes the parameters and buffers that are there then.
        const bool looks = matters && name != name_parameters && name != name_buffers;
        w.inner.push_back(looks ? contents(value) : Owned());
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
    TORCH_CHECK(known->inputs.size() < MOST_INPUTS, "too many tensors");
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

PyGetSetDef function_parts[] = {{"missed", function_missed, nullptr, nullptr, nullptr},
                                {nullptr, nullptr, nullptr, nullptr, nullptr}};
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
    type_of("gdsl.native.Function", sizeof(FunctionObject), function_new, function_free, nullptr, function_call);

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
    FunctionType.tp_getset = function_parts;
    CallsType.tp_flags |= Py_TPFLAGS_HAVE_GC;
    CallsType.tp_traverse = calls_traverse, CallsType.tp_clear = calls_clear, CallsType.tp_free = PyObject_GC_Del;
    for (const auto& [name, type] : types) {
        if (PyType_Ready(type) < 0 || PyModule_AddObjectRef(made, name, (PyObject*)type) < 0) return nullptr;
    }
    return made;
}
