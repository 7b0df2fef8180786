// A call like one before, natively: its arguments are compared with those of the checked call, the graph is prepared,
// the steps of the plan run, and autograd gets a node. What is not just as it was gives None, and Python does the call.
// The files of this folder are compiled as one. gdsl/module/repeated.py says what is passed; steps.cpp and prepare.cpp
// beside it do the work, by addresses.
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
#include <ATen/ops/_lazy_clone.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/core/impl/COW.h>
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
