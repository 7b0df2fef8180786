// Steps of a plan, kernels and products of matrices, one after the other in one call: on a small graph what Python does
// between them takes longer than they do. gdsl/runtime/steps.py writes the program, and says what each number is.
#include <stdint.h>
#include <string.h>

namespace {

constexpr int MOST_POINTERS = 112;
constexpr int64_t ALIGNMENT = 64;

// What takes no more than this lies on the stack, which is given for nothing.
constexpr int64_t SMALL = 1 << 16;

enum { KERNEL, PRODUCTS, OVER_ROWS, DEGREE, ARITHMETIC, ARRANGE, PART };

// What arithmetic does, by place in _ARITHMETIC of steps.py.
enum { ADD, SUB, MUL, DIV, NEG, LEAKY_RELU, WHERE, EQ, NE, LT, LE, GT, GE };

// An operand of arithmetic: a number of the program, one for all places, one for each.
enum { FIXED, ONE, ALL };

// -- a function with so many pointers --------------------------------------------------------------

template <int... I> struct Places {};
template <int n, int... I> struct Count : Count<n - 1, n - 1, I...> {};
template <int... I> struct Count<0, I...> { typedef Places<I...> Of; };

template <int> using Pointer = void*;

struct Blocks {
    int64_t num_blocks, groups;
    int threads;
    int64_t max_degree;
    const void* blocks;
};

template <int... I> void call(void* function, const Blocks& b, void** p, Places<I...>) {
    typedef void (*Function)(int64_t, int64_t, int, int64_t, const void*, Pointer<I>...);
    ((Function)function)(b.num_blocks, b.groups, b.threads, b.max_degree, b.blocks, p[I]...);
}

template <int n> void with_pointers(void* function, const Blocks& blocks, void** pointers, int count) {
    if (count == n) return call(function, blocks, pointers, typename Count<n>::Of());
    if constexpr (n > 0) with_pointers<n - 1>(function, blocks, pointers, count);
}

// -- one program -----------------------------------------------------------------------------------

// Sizes are 64 bits wide, of which a BLAS with sizes of 32 bits reads the lower ones.
template <class T>
using Gemm = void (*)(const char*, const char*, const int64_t*, const int64_t*, const int64_t*, const T*, const T*,
                      const int64_t*, const T*, const int64_t*, const T*, T*, const int64_t*);

// Our own products, where they are faster: products.cpp has them.
template <class T> struct Own {
    void (*by_matrix)(int64_t, int64_t, int64_t, const T*, const T*, int, const T*, int, T*, int64_t);
    void (*over_rows)(int64_t, int64_t, int64_t, const T*, const T*, T*, int64_t);
};

template <class T> struct Machine {
    const int64_t* program;
    const Call& with;
    void** slots;
    char* room;
    Gemm<T> gemm;
    Own<T> own;

    int64_t next() { return *program++; }
    void* slot() { return slots[next()]; }

    void* take(int64_t bytes) {
        char* const found = room;
        room += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        return found;
    }

    void kernel() {
        void* const function = (void*)next();
        const EdgeOrder& order = with.orders[next()];
        void* pointers[MOST_POINTERS];
        int count = 0;
        if (next()) {
            pointers[count++] = (void*)order.rowptr;
            pointers[count++] = (void*)order.index;
            pointers[count++] = (void*)order.edge;
        }
        const int64_t kept = next(), buffers = next();
        void** const own = pointers + count;
        for (int64_t k = 0; k < buffers; ++k) pointers[count++] = slot();
        const int64_t groups = order.num_blocks, totals = next();
        const int64_t* const about = program;  // of each total, its place among the buffers and its numbers
        program += 2 * totals;
        if (!groups) {
            for (int64_t k = 0; k < totals; ++k) memset(own[about[2 * k]], 0, about[2 * k + 1] * sizeof(T));
            return;
        }
        char* const before = room;
        T* sums[MOST_POINTERS];
        for (int64_t k = 0; groups > 1 && k < totals; ++k) {
            sums[k] = (T*)own[about[2 * k]];
            own[about[2 * k]] = take(groups * about[2 * k + 1] * sizeof(T));
        }
        const int64_t threads = with.threads < groups ? with.threads : groups;
        if (kept) pointers[count++] = take(threads * kept * (order.max_degree + 1));
        const Blocks blocks = {groups, groups, (int)threads, order.max_degree, order.blocks};
        with_pointers<MOST_POINTERS>(function, blocks, pointers, count);
        for (int64_t k = 0; groups > 1 && k < totals; ++k) {
            const int64_t width = about[2 * k + 1];
            const T* const parts = (const T*)own[about[2 * k]];
            memcpy(sums[k], parts, width * sizeof(T));
            for (int64_t g = 1; g < groups; ++g) {
                for (int64_t i = 0; i < width; ++i) sums[k][i] += parts[g * width + i];
            }
        }
        room = before;
    }

    // A BLAS has columns where we have rows: its product is ours with the operands in the other order.
    void multiply(const char* turn_right, const char* turn_left, int64_t rows, int64_t width, int64_t depth,
                  const void* left, int64_t left_width, const void* right, int64_t right_width, T more, void* to) {
        const T one = 1;
        gemm(turn_right, turn_left, &width, &rows, &depth, &one, (const T*)right, &right_width, (const T*)left,
             &left_width, &more, (T*)to, &width);
    }

    void products() {
        T* const to = (T*)slot();
        const int64_t rows = with.rows[next()], width = next(), biases = next();
        const T* const bias = own.by_matrix && biases == 1 ? (const T*)slot() : nullptr;
        for (int64_t k = 0; !bias && k < biases; ++k) {
            const T* const more = (const T*)slot();
            for (int64_t i = 0; rows && i < width; ++i) to[i] = k ? to[i] + more[i] : more[i];
        }
        for (int64_t r = 1; !bias && biases && r < rows; ++r) memcpy(to + r * width, to, width * sizeof(T));
        const int64_t pairs = next();
        for (int64_t k = 0; k < pairs; ++k) {
            const void *const left = slot(), *const right = slot();
            const int64_t depth = next(), lies = next();
            const bool add = k || (biases && !bias);
            if (own.by_matrix)
                own.by_matrix(rows, width, depth, (const T*)left, (const T*)right, (int)lies, bias, add, to, with.threads);
            else
                multiply(lies ? "T" : "N", "N", rows, width, depth, left, depth, right, lies ? depth : width, (T)add, to);
        }
    }

    void over_rows() {
        void* const to = slot();
        const int64_t rows = with.rows[next()];
        const void* const left = slot();
        const int64_t depth = next();
        const void* const right = slot();
        const int64_t width = next();
        if (own.over_rows)
            return own.over_rows(rows, width, depth, (const T*)left, (const T*)right, (T*)to, with.threads);
        multiply("N", "T", depth, width, rows, left, depth, right, width, 0, to);
    }

    T fixed() {
        const int64_t bits = next();
        double value;
        memcpy(&value, &bits, sizeof value);
        return (T)value;
    }

    template <class V> struct Operand {
        V own;
        const V* at;
        int64_t step;
        V operator[](int64_t k) const { return at ? at[k * step] : own; }
    };

    template <class V> Operand<V> operand() {
        const int64_t kind = next();
        if (kind == FIXED) return {(V)fixed(), nullptr, 0};
        return {0, (const V*)slot(), kind == ALL};
    }

    // Where a number is 0 or 1, it is a bool.
    void arithmetic() {
        void* const to = slot();
        const int64_t op = next(), count = next();
        if (op == WHERE) {
            const auto chosen = operand<bool>();
            const auto left = operand<T>(), right = operand<T>();
            for (int64_t k = 0; k < count; ++k) ((T*)to)[k] = chosen[k] ? left[k] : right[k];
            return;
        }
        const auto left = operand<T>();
        const auto right = op == NEG ? left : operand<T>();
        for (int64_t k = 0; k < count; ++k) {
            const T a = left[k], b = right[k];
            switch (op) {
                case ADD: ((T*)to)[k] = a + b; break;
                case SUB: ((T*)to)[k] = a - b; break;
                case MUL: ((T*)to)[k] = a * b; break;
                case DIV: ((T*)to)[k] = a / b; break;
                case NEG: ((T*)to)[k] = -a; break;
                case LEAKY_RELU: ((T*)to)[k] = a > 0 ? a : a * b; break;
                case EQ: ((bool*)to)[k] = a == b; break;
                case NE: ((bool*)to)[k] = a != b; break;
                case LT: ((bool*)to)[k] = a < b; break;
                case LE: ((bool*)to)[k] = a <= b; break;
                case GT: ((bool*)to)[k] = a > b; break;
                case GE: ((bool*)to)[k] = a >= b; break;
            }
        }
    }

    void arrange() {
        T* to = (T*)slot();
        const int64_t rows = with.rows[next()];
        const T otherwise = fixed();
        const int64_t parts = next();
        const int64_t* const from = program;  // of each part, its slot and how many numbers a row of it has
        program += 2 * parts;
        const int64_t count = next();
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t* run = program;  // operand, start, how far apart, how many
            for (int64_t k = 0; k < count; ++k, run += 4) {
                const int64_t apart = run[2], many = run[3];
                if (run[0] < 0) {
                    for (int64_t n = 0; n < many; ++n) to[n] = otherwise;
                } else {
                    const int64_t* const part = from + 2 * run[0];
                    const T* const first = (const T*)slots[part[0]] + r * part[1] + run[1];
                    if (apart == 1) memcpy(to, first, many * sizeof(T));
                    else for (int64_t n = 0; n < many; ++n) to[n] = first[n * apart];
                }
                to += many;
            }
        }
        program += 4 * count;
    }

    // A stretch of the numbers of another value, which lies there.
    void part() {
        void*& at = slots[next()];
        const T* const whole = (const T*)slot();
        at = (void*)(whole + next());
    }

    template <class I> void degree() {
        T* const to = (T*)slot();
        const int64_t order = next(), rows = with.rows[order ? 1 : 2];
        const I* const rowptr = (const I*)with.orders[order].rowptr;
        for (int64_t r = 0; r < rows; ++r) to[r] = (T)(rowptr[r + 1] - rowptr[r]);
    }
};

template <class T, class I> void run(const int64_t* program, const Call* with) {
    alignas(ALIGNMENT) char small[with->arena ? 1 : SMALL];
    Own<T> own;
    memcpy(&own, program + 1, sizeof own);
    const int64_t given = program[3], places = program[4], made = program[5], steps = program[6];
    void *slots[given + made], *at[places + 1];
    memcpy(slots, with->given, given * sizeof(void*));
    Machine<T> machine = {program + 7, *with, slots, with->arena ? with->arena : small, (Gemm<T>)program[0], own};
    for (int64_t k = 0; k < places; ++k) {
        const int64_t rows = with->rows[machine.next()];
        at[k] = machine.take(rows * machine.next());
    }
    for (int64_t k = 0; k < made; ++k) {
        const int64_t place = machine.next();
        slots[given + k] = place < 0 ? nullptr : at[place];
    }
    for (int64_t k = 0; k < steps; ++k) {
        switch (machine.next()) {
            case KERNEL: machine.kernel(); break;
            case PRODUCTS: machine.products(); break;
            case OVER_ROWS: machine.over_rows(); break;
            case DEGREE: machine.template degree<I>(); break;
            case ARITHMETIC: machine.arithmetic(); break;
            case ARRANGE: machine.arrange(); break;
            case PART: machine.part(); break;
        }
    }
}

}  // namespace

#define STEPS(number, index_type)                                                                \
    extern "C" void steps_##number##_##index_type(const int64_t* program, const void* with) {    \
        run<number, index_type##_t>(program, (const Call*)with);                                 \
    }
STEPS(float, int32)
STEPS(float, int64)
STEPS(double, int32)
STEPS(double, int64)
