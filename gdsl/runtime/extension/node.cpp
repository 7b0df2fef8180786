// The node of autograd, whose derivative is a plan, too, or what Python makes of it.

PyObject* wrapped(const Tensor& t) {
    if (!t.defined()) Py_RETURN_NONE;
    return THPVariable_Wrap(t);
}

// A tuple, or null with Python's error set.
PyObject* wrapped(const std::vector<Tensor>& tensors) {
    Owned all = stolen(PyTuple_New(tensors.size()));
    if (!all.object) return nullptr;
    for (size_t k = 0; k < tensors.size(); ++k) {
        PyObject* const value = THPVariable_Wrap(tensors[k]);
        if (!value) return nullptr;
        PyTuple_SET_ITEM(all.object, k, value);
    }
    Py_INCREF(all.object);
    return all.object;
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
                if (!need) return by_python(have, first);
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

// What a backward pass reads of an input: see kept_apart in gdsl/runtime/copies.py.
Tensor kept_apart(const Tensor& t) {
    if (!t.grad_fn() || (t.is_view() && t._base().is_leaf())) return t;
    const c10::StorageImpl& storage = *t.storage().unsafeGetStorageImpl();
    const bool shared = c10::impl::cow::is_cow_data_ptr(storage.data_ptr());
    if (!shared && !c10::impl::cow::has_simple_data_ptr(storage)) return t;
    Tensor copy;
    {
        at::AutoDispatchBelowADInplaceOrView guard;
        copy = at::_lazy_clone(t);
    }
    torch::autograd::impl::set_gradient_edge(copy, torch::autograd::impl::gradient_edge(t));
    return copy;
}

// The results of a call, for which autograd gets a node.
std::vector<Tensor> run(const std::shared_ptr<Function>& function, const Steps::Need& need,
                        const std::shared_ptr<Small>& graph, const std::vector<Tensor>& tensors) {
    const Function& f = *function;
    std::vector<Tensor> made;
    {
        // A few rows take no longer than another thread needs to notice that it may run.
        std::optional<pybind11::gil_scoped_release> free;
        if (graph->targets + graph->edges() > MANY_ROWS) free.emplace();
        made = f.forward.run(need, *graph, tensors);
    }
    std::vector<Tensor> results(made.begin(), made.begin() + f.visible);  // share what autograd is told
    if (!f.differentiable) return results;
    auto node = new_node<GdslBackward>();
    torch::autograd::edge_list edges;
    for (int64_t k : f.wanted) edges.push_back(torch::autograd::impl::gradient_edge(tensors[k]));
    node->set_next_edges(std::move(edges));
    node->function = function, node->graph = graph;
    // What is saved of the outputs, too: a derivative of the derivative goes through it.
    for (int64_t k = 0; k < (int64_t)made.size(); ++k) {
        if (std::find(f.constant.begin(), f.constant.end(), k) == f.constant.end()) {
            torch::autograd::set_history(made[k], node);
        }
    }
    for (int64_t k : f.reads) node->saved.emplace_back(kept_apart(tensors[k]), false);
    for (int64_t k : f.kept) node->saved.emplace_back(made[k], made[k].requires_grad());
    return results;
}
