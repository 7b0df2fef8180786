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
    expm1 | expm1(x) | e to the power x, less 1, exact near 0
    log | log(x) | the natural logarithm
    log1p | log1p(x) | the logarithm of 1 + x, exact near 0
    sqrt | sqrt(x) | the square root
    rsqrt | rsqrt(x) | one over the square root
    abs | abs(x) | the absolute value; its gradient at 0 is 0
    sign | sign(x) | -1, 0 or 1; no gradient
    floor | floor(x) | x rounded down to a whole number; no gradient
    sin | sin(x) | the sine
    cos | cos(x) | the cosine
    acos | acos(x) | the angle, from 0 to pi, whose cosine is x
    tanh | tanh(x) | the hyperbolic tangent
    sigmoid | sigmoid(x) | 1 / (1 + exp(-x))
    erf | erf(x) | the error function
    relu | relu(x) | x where it is positive, else 0; its gradient at 0 is 0
    pow | pow(a, b) | a to the power b, as a ** b
    mod | mod(a, b) | the remainder of a / b with the sign of b, as Python's %
    atan2 | atan2(a, b) | the angle of the point (b, a), from -pi to pi
    max | max(a, b, ...) | the largest of two or more values; equal ones share the gradient
    max | max(m) | the largest over the edges into each node; equal ones share the gradient
    max | max[d](x) | the largest along a dim; equal ones share the gradient
    min | min(a, b, ...) | the smallest of two or more values; equal ones share the gradient
    min | min(m) | the smallest over the edges into each node; equal ones share the gradient
    min | min[d](x) | the smallest along a dim; equal ones share the gradient
    leaky_relu | leaky_relu(x, slope = 0.01) | x where it is positive, else slope * x
    elu | elu(x, alpha = 1.0) | x where it is positive, else alpha * (exp(x) - 1)
    selu | selu(x) | a scaled elu, Klambauer et al. 2017
    gelu | gelu(x) | x times the normal distribution function of x, by erf
    silu | silu(x) | x * sigmoid(x)
    softplus | softplus(x) | log(1 + exp(x))
    log_sigmoid | log_sigmoid(x) | log(sigmoid(x))
    clamp | clamp(x, low, high) | x held between low and high; its gradient is 1 between and at them
    where | where(c, a, b) | a where c holds, else b; the other one's gradient is 0
    roll | roll(x, shift) | the places of the last dim moved on by shift, round the end
    dot | dot(a, b) | the sum of a * b over the last dim of a, which b has too
    cdist | cdist(a, b) | the Euclidean distance over the last dim
    cross | cross(a, b) | the cross product over the last dim, of size 3
    det | det(a) | the determinant of the last two dims, of one size up to 4
    inverse | inverse(a) | the inverse of the last two dims [d, k], of one size up to 4, as [k, d]
    solve | solve(a, b) | x such that a[d, k] times x[k] is b[d]; a is up to 4 by 4
    sum | sum(m) | the sum over the edges into each node
    sum | sum[d](x) | the sum along a dim
    mean | mean(m) | the mean over the edges into each node
    mean | mean[d](x) | the mean along a dim
    mul | mul(m) | the product over the edges into each node
    mul | mul[d](x) | the product along a dim
    var | var(m) | the mean of (m - mean(m))² over the edges into each node, in two walks, so that no digits are lost
    var | var[d](x) | the mean of (x - mean(x))² along a dim
    std | std(m) | the root of the variance over the edges into each node; its gradient is 0 where all are equal
    std | std[d](x) | the root of the variance along a dim; its gradient is 0 where all are equal
    logsumexp | logsumexp(m) | the logarithm of the sum of exponentials over the edges into each node
    logsumexp | logsumexp[d](x) | the logarithm of the sum of exponentials along a dim
    median | median(m) | the median over the edges into each node: of two middle values the lower, as torch.median
    quantile | quantile(m, q) | the q-quantile over the edges into each node, linear between two, as torch.quantile
    stack | stack(m, K) | the values on the K edges into each node side by side, in a first dim K
    softmax | softmax(e) | exp(e) over its sum over the edges into each node: an attention; 0 where all are -inf
    softmax | softmax[d](x) | exp(x) over its sum along a dim, which stays; 0 where all are -inf
    log_softmax | log_softmax(e) | the logarithm of the softmax over the edges, as torch's
    log_softmax | log_softmax[d](x) | the logarithm of the softmax along a dim, which stays; as torch's
    sparsemax | sparsemax(e) | the nearest to e that is at least 0 and 1 in sum over the edges into each node
    sparsemax | sparsemax[d](x) | the nearest to x that is at least 0 and 1 in sum along a dim, which stays
    topk | topk(e, k) | whether an edge is among the k into its node with the largest e: never where that is -inf
    topk | topk[d](x, k) | whether a place is among the k largest along a dim, which stays: never where x is -inf
    argmax | argmax(e, key) | the e of the edge into each node on which the key is largest: of the newest, say
    norm | norm(x) | the Euclidean norm over the last dim; its gradient at 0 is 0
    norm | norm[d](x) | the Euclidean norm along a dim; its gradient at 0 is 0
    int | int(x, bound) | x rounded down to an integer of 0 to bound - 1, which can pick a place; no gradient
    degree | degree(i) | how many edges lead into each node; degree(j) out of it
    degree | degree(w) | the sum of an edge value over the edges into each node
    reverse | reverse(e, default) | an edge value at the edge that goes the other way, or default where there is none
    dropout | dropout(x, p) | in training, 0 with probability p, else x / (1 - p); x otherwise
    one_hot | one_hot(index; dim) | 1 at the place of an integer with a bound, else 0
    bspline | bspline(pseudo, kernel_size, degree; dim) | the weights of the B-splines that are not 0 at a point
    bspline_index | bspline_index(pseudo, kernel_size, degree; dim) | which B-splines those of bspline are
    harmonics | harmonics(v, degree, normalize = true; dim) | spherical harmonics of a vector, degrees 0 to degree
    present | present(name) | whether an optional input is passed, known when a call is compiled
    cat | cat(a, b, ...; dim) | values joined along their last dims, or along the dim that is named
    merge | merge(x, a, b) | some dims as one, the last of them fastest
    split | split(x, whole, a, b) | one dim as several, the last of them fastest
    transpose | transpose(x, a, b) | the dims in this order; only what is joined or stored sees it
    rename | rename(x, old -> new) | a dim under another name, of the same size
    outer | outer(a, b) | the product, with a number for every pair of places
    outer | outer(a + b) | the sum, with a number for every pair of places
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
    graph | graph bonds, near | the graphs of a call by name, where there are several
    graph | graph writes: author -> paper | a graph from the nodes of a set to those of a set
    nodes | nodes paper, author | the sets that nodes are of, where there are several
    node | node x[d] | an input with one value for each node
    source | source x[d] | an input of the nodes that edges come from, where these are a set of their own
    target | target x[d] | an input of the nodes that edges go to, where these are a set of their own
    edge | edge w[d] | an input with one value for each edge
    module | module nn | a torch module that the layer is given
    linear | linear lin(d -> k) | a linear map of the layer's own, as torch.nn.Linear
    mlp | mlp phi(d -> hidden -> k, relu) | linear maps of the layer's own, with a function between two
    use | use conv = GATConv(16, heads = 4) | a layer under a name, which is called as conv(x)
    use | use Block from "block.gdsl" | above a layer: one of a file, or, without from, of the library
    from | use Block from "block.gdsl" | the file that a layer is in
    message | message m = x[j] | a value of each edge
    aggregate | aggregate a = sum(m) | a value of each node, from its edges
    update | update y = a + x | a value of each node; without `return` the last one is the result
    pool | pool r = mean(x) | a value of each graph: reductions in it are over the nodes of each graph
    def | def f(a, b) = a * b | a function: its body is written out where it is called
    reduce | reduce f(acc, m) = acc + m init 0 | a reduction of the writer's own, one edge after the other
    for | for k in 1..K { ... } | statements for each k, both ends too: written out when the layer is made
    if | if flag { ... } else { ... } | statements that depend on the arguments, and on which optional inputs are passed
    return | return y, alpha | the results of the layer
    else | if flag { ... } else { ... } | statements for when the condition does not hold
    in | for k in 1..K { ... } | what the index of a loop runs through
    in | edge w in bonds | the graph of an input of edges, or the set of one of nodes
    init | reduce f(acc, m) = acc + m init 0 | the first value of a reduction
    at | sum(m) at j | a reduction over the edges out of each node; at i, the default, into it
    by | softmax(e) by rel | a reduction over the edges of one relation at a time
    over | sum(x[j]) over bonds | what is read of edges, of the graph of this name
    and | a and b | whether both hold
    or | a or b | whether one holds
    not | not a | whether it does not hold
    true | true | a flag that is set
    false | false | a flag that is not set
    none | none | nothing: what a part or a module is when it is left out
""")

# What the graph can be asked to be.
TRANSFORMS = _table("""
    add_self_loops | graph add_self_loops(w = 1) | a loop at every node, on which the input w is 1
    add_remaining_self_loops | graph add_remaining_self_loops(w = 1) | a loop at every node that has none
    remove_self_loops | graph remove_self_loops | no loops
    non_backtracking | graph non_backtracking | of pairs of edges k -> j -> i those that do not go back, k = i
    knn | graph knn(x, k, loop = false) | another graph: an edge from each of the k nearest nodes by the value x
    complete | graph complete(loops = true) | another graph: all pairs of nodes of each graph of the batch, never stored
    symmetric_norm | graph symmetric_norm(w) | 1 / sqrt(edges into i * edges into j) as `norm`, or w times that
""")

# How a param or buffer starts.
INITS = _table("""
    zeros | ~ zeros | 0 everywhere
    ones | ~ ones | 1 everywhere
    constant | ~ constant(c) | one number everywhere
    glorot | ~ glorot | uniform, Glorot and Bengio 2010; glorot(gain)
    glorot_normal | ~ glorot_normal | normal, Glorot and Bengio 2010; glorot_normal(gain)
    kaiming_uniform | ~ kaiming_uniform | uniform, He et al. 2015; kaiming_uniform(fan, slope of a leaky relu)
    kaiming_normal | ~ kaiming_normal | normal, He et al. 2015; kaiming_normal(fan, slope of a leaky relu)
    linear | ~ linear | as torch.nn.Linear starts; linear(fan)
    uniform | ~ uniform(a, b) | uniform from a to b; uniform(b) is from -b to b, and without numbers from 0 to 1
    normal | ~ normal(mean, std) | normal; normal(std) has mean 0, and without numbers deviation 1
    orthogonal | ~ orthogonal | an orthogonal matrix; orthogonal(gain)
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
