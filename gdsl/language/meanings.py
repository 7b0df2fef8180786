"""A line for each word and function of the language: how it is written, and what it means.

The tables of the language say what there is; a test holds these against them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Meaning:
    """``form`` is how it is written, ``says`` what it means: one line in words."""

    form: str
    says: str


def _table(text: str) -> dict[str, tuple[Meaning, ...]]:
    """Lines of ``word | form | meaning``; a word may have several."""
    found: dict[str, tuple[Meaning, ...]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" | ")
        form, _, says = rest.partition(" | ")
        found[word.strip()] = (*found.get(word.strip(), ()), Meaning(form.strip(), says.strip()))
    return found


# Functions and reductions. A word that is several has a line for each.
FUNCTIONS = _table("""
    exp | exp(x) | e to the power x
    expm1 | expm1(x) | e to the power x, less 1, also where x is small
    log | log(x) | the natural logarithm
    log1p | log1p(x) | the logarithm of 1 + x, also where x is small
    sqrt | sqrt(x) | the square root
    rsqrt | rsqrt(x) | one over the square root
    abs | abs(x) | the absolute value
    sign | sign(x) | -1, 0 or 1
    floor | floor(x) | the greatest whole number that is not above x
    sin | sin(x) | the sine
    cos | cos(x) | the cosine
    acos | acos(x) | the angle, from 0 to pi, whose cosine is x
    tanh | tanh(x) | the hyperbolic tangent
    sigmoid | sigmoid(x) | 1 / (1 + exp(-x))
    erf | erf(x) | the error function
    relu | relu(x) | x where it is positive, else 0
    pow | pow(a, b) | a to the power b, as a ** b
    mod | mod(a, b) | the remainder of a / b, with the sign of b
    atan2 | atan2(a, b) | the angle of the point (b, a), from -pi to pi
    max | max(a, b, ...) | the largest of some values, place by place
    max | max(m) | the largest over the edges into each node; in a pool, over the nodes of each graph
    max | max[d](x) | the largest along a dim
    min | min(a, b, ...) | the smallest of some values, place by place
    min | min(m) | the smallest over the edges into each node; in a pool, over the nodes of each graph
    min | min[d](x) | the smallest along a dim
    leaky_relu | leaky_relu(x, slope = 0.01) | x where it is positive, else slope * x
    elu | elu(x, alpha = 1.0) | x where it is positive, else alpha * (exp(x) - 1)
    selu | selu(x) | the scaled elu of self-normalising networks
    gelu | gelu(x) | x times the normal distribution function of x
    silu | silu(x) | x * sigmoid(x)
    softplus | softplus(x) | log(1 + exp(x))
    log_sigmoid | log_sigmoid(x) | log(sigmoid(x))
    clamp | clamp(x, low, high) | x, held between low and high
    where | where(c, a, b) | a where c holds, else b
    roll | roll(x, shift) | the places of the last dim moved on by shift, round the end
    dot | dot(a, b) | the sum of a * b over the last dim of a
    cdist | cdist(a, b) | the Euclidean distance over the last dim
    cross | cross(a, b) | the cross product over the last dim, of size 3
    sum | sum(m) | the sum over the edges into each node; in a pool, over the nodes of each graph
    sum | sum[d](x) | the sum along a dim
    mean | mean(m) | the mean over the edges into each node; in a pool, over the nodes of each graph
    mean | mean[d](x) | the mean along a dim
    mul | mul(m) | the product over the edges into each node; in a pool, over the nodes of each graph
    mul | mul[d](x) | the product along a dim
    var | var(m) | the variance, by the count, over the edges into each node; in a pool, over the nodes of each graph
    var | var[d](x) | the variance along a dim, by its size
    std | std(m) | the root of the variance over the edges into each node; in a pool, over the nodes of each graph
    std | std[d](x) | the root of the variance along a dim
    logsumexp | logsumexp(m) | the logarithm of the sum of exp(m) over the edges into each node, or of a graph's nodes
    logsumexp | logsumexp[d](x) | the logarithm of the sum of exp(x) along a dim
    median | median(m) | the median over the edges into each node: of two middle values the lower
    quantile | quantile(m, q) | the q-quantile over the edges into each node, linear between two values
    stack | stack(m, K) | the values on the K edges into each node side by side, in a first dim K
    softmax | softmax(e) | exp(e) over its sum, over the edges into each node: the weights of an attention
    softmax | softmax[d](x) | exp(x) over its sum along a dim
    log_softmax | log_softmax(e) | the logarithm of the softmax over the edges into each node
    log_softmax | log_softmax[d](x) | the logarithm of the softmax along a dim
    norm | norm(x) | the Euclidean norm over the last dim
    norm | norm[d](x) | the Euclidean norm along a dim
    int | int(x, bound) | a number as an integer in [0, bound), so that it can pick a place
    degree | degree(i) | how many edges each node has: degree(i) into it, degree(j) out of it
    degree | degree(w) | the sum of an edge weight over the edges into each node
    reverse | reverse(m, default) | an edge value at the edge that goes the other way, or default where there is none
    dropout | dropout(x, p) | in training, 0 with probability p, else x / (1 - p); x otherwise
    one_hot | one_hot(index; dim) | 1 at the place of an integer with a bound, else 0
    bspline | bspline(pseudo, kernel_size, degree; dim) | the weights of the B-splines that are not 0 at a point
    bspline_index | bspline_index(pseudo, kernel_size, degree; dim) | which B-splines those of `bspline` are
    present | present(name) | whether an optional input is passed
    cat | cat(a, b, ...; dim) | values joined along their last dims, or along the dim that is named
    merge | merge(x, a, b) | some dims as one, the last of them fastest
    split | split(x, whole, a, b) | one dim as several, the last of them fastest
    transpose | transpose(x, a, b) | the same value with its dims in this order
    rename | rename(x, old -> new) | the same value with a dim of another name
    outer | outer(a, b) | the product, with a number for every pair of places
    outer | outer(a + b) | the operation inside, with a number for every pair of places
""")

# Words of the grammar.
WORDS = _table("""
    layer | layer Name(arguments) { ... } | a layer: what it takes, computes and returns
    param | param w[d, k] ~ glorot | a tensor that is learned, the same everywhere
    buffer | buffer b[d] ~ zeros | a tensor that is kept with the layer and is not learned
    const | const c = 0.5 | a number known when the layer is made; const t[a, b] is a table of them
    global | global q[d] | an input that is the same everywhere
    graph | graph u[d] | an input with one value for each graph of a batch
    graph | graph add_self_loops | what the graph must be
    node | node x[d] | an input with one value for each node
    source | source x[d] | an input of the nodes that edges come from, where these are a set of their own
    target | target x[d] | an input of the nodes that edges go to, where these are a set of their own
    edge | edge w[d] | an input with one value for each edge
    module | module nn | a torch module that the layer is given
    linear | linear lin(d -> k) | a linear map of the layer's own, as torch.nn.Linear
    mlp | mlp phi(d -> hidden -> k, relu) | linear maps of the layer's own, with a function between two
    message | message m = x[j] | a value of each edge
    aggregate | aggregate a = sum(m) | a value of each node, from its edges
    update | update y = a + x | a value of each node; without `return` the last one is the result
    pool | pool r = mean(x) | a value of each graph, from its nodes
    def | def f(a, b) = a * b | a function: its body is written out where it is called
    reduce | reduce f(acc, m) = acc + m init 0 | a reduction of the writer's own, one edge after the other
    for | for k in 1..K { ... } | statements for each k, both ends too: written out when the layer is made
    if | if flag { ... } else { ... } | statements that depend on the arguments, and on which optional inputs are passed
    return | return y, alpha | the results of the layer
    else | if flag { ... } else { ... } | statements for when the condition does not hold
    in | for k in 1..K { ... } | what the index of a loop runs through
    init | reduce f(acc, m) = acc + m init 0 | the first value of a reduction
    at | sum(m) at j | a reduction over the edges out of each node; at i, the default, into it
    by | softmax(e) by rel | a reduction over the edges of one relation at a time
    and | a and b | whether both hold
    or | a or b | whether one holds
    not | not a | whether it does not hold
    true | true | a flag that is set
    false | false | a flag that is not set
    none | none | nothing: what a part or a module is when it is left out
""")

# What the graph can be asked to be.
TRANSFORMS = _table("""
    add_self_loops | graph add_self_loops(w = 1) | a new edge from each node to itself; w is what the input w is there
    add_remaining_self_loops | graph add_remaining_self_loops(w = 1) | a new edge to itself for each node without one
    remove_self_loops | graph remove_self_loops | without the edges from a node to itself
    non_backtracking | graph non_backtracking | pairs of edges k -> j -> i without those that go back, k = i
    knn | graph knn(x, k, loop = false) | edges from the k nearest nodes to each node, by the distance of x
    symmetric_norm | graph symmetric_norm(w) | 1 / sqrt(degree(i) * degree(j)) as `norm`, or w times that
""")

# How a param or buffer starts.
INITS = _table("""
    zeros | ~ zeros | 0 everywhere
    ones | ~ ones | 1 everywhere
    constant | ~ constant(c) | one number everywhere
    glorot | ~ glorot | uniform, with the bound of Glorot and Bengio
    glorot_normal | ~ glorot_normal | normal, with the deviation of Glorot and Bengio
    kaiming_uniform | ~ kaiming_uniform | uniform, with the bound of He et al.
    kaiming_normal | ~ kaiming_normal | normal, with the deviation of He et al.
    linear | ~ linear | as torch.nn.Linear starts
    uniform | ~ uniform(a, b) | uniform from a to b; uniform(b) is from -b to b, and without numbers from 0 to 1
    normal | ~ normal(mean, std) | normal; normal(std) has mean 0, and without numbers deviation 1
    orthogonal | ~ orthogonal | an orthogonal matrix
    eye | ~ eye | the identity in the last two dims
    linspace | ~ linspace(a, b) | from a to b along the last dim
    arange | ~ arange(start, step) | start, start + step, ... along the last dim; 0, 1, 2, ... without numbers
""")

# Where a value is read.
ENDS = _table("""
    i | x[i] | at the target of an edge j -> i
    j | x[j] | at the source of an edge j -> i
    g | u[g] | of the graph that a node is in
    kj | e[kj] | at the first edge of a pair k -> j -> i
    ji | e[ji] | at the second edge of a pair k -> j -> i
    reverse | e[reverse] | at the edge that goes the other way
""")

# The kinds of numbers.
KINDS = _table("""
    float | edge w: float | real numbers, which need not be said
    int | edge rel: int(R) | integers in [0, R)
    bool | node mask: bool | true or false
""")

CONSTANTS = _table("""
    inf | inf | infinity
    pi | pi | 3.14159...
""")

NORMS = _table("""
    layer_norm | norm = layer_norm | each row by its mean and deviation, before each function of an mlp
    batch_norm | norm = batch_norm | each column by its mean and deviation, before each function of an mlp
""")
