"""What the page of ``gdsl explore`` shows, as values: without a browser or a server."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from gdsl.errors import GdslError, InputError
from gdsl.explore import page
from gdsl.explore.code import machine_code, sources
from gdsl.explore.flow import flow
from gdsl.explore.formulas import Polynomial, SizeFormulas, evaluate
from gdsl.explore.making import Making
from gdsl.explore.one_node import call, one_node
from gdsl.explore.origins import lines_of_code
from gdsl.explore.reading import MOST_NODES, Reading, Settings, as_json, read, settings_of
from gdsl.explore.rewrites import REST, equations, equations_of, rewrites
from gdsl.explore.view import PARTS, node_of, view, whole
from gdsl.ir.types import Dim, Domain
from gdsl.language.parse import MAX_TEXT
from gdsl.passes import cost

GAT = """layer Attention(in_channels, out_channels) {
    param weight[in_channels, out_channels] ~ glorot
    param query[out_channels] ~ glorot
    node x[in_channels]

    h = x @ weight
    score = leaky_relu((h @ query)[i] + (h @ query)[j], 0.2)
    message m = softmax(score) * h[j]
    aggregate a = sum(m)
    update y = relu(a)
}
"""
LIBRARY = sorted((Path(__file__).parents[2] / "gdsl/nn/programs").glob("*.gdsl"))
# Of these programs the arguments have a meaning that no stand-in has.
UNFIT = {"mixhop"}


@pytest.fixture(scope="module")
def gat() -> Making:
    return Making(read(GAT))


def mistakes(text: str, settings: Settings = Settings()) -> list[dict]:  # noqa: B008
    return as_json(read(text, settings))["diagnostics"]


# ---------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.stem)
def test_every_layer_of_the_library_opens_with_stand_ins(path: Path) -> None:
    found = read(path.read_text())
    assert (found.typed is None) == (path.stem in UNFIT)
    json.dumps(as_json(found), allow_nan=False)


def test_a_mistake_has_its_place_in_javascripts_counting_and_a_hint() -> None:
    text = "# 𝒢raphs\nlayer A(d) {\n    node x[d]\n    aggregate a = sum(x[j])\n    update y = rel(a)\n}\n"
    (found,) = mistakes(text)
    assert (found["severity"], found["line"], found["column"]) == ("error", 5, 16)
    assert "relu" in found["hint"]
    units = text.encode("utf-16-le")
    assert units[2 * found["start"] : 2 * found["end"]].decode("utf-16-le") == "rel"


@pytest.mark.parametrize(
    "text", ["", "layer", "layer A {", "layer A { node x[d] update y = ", "\x00", "layer A { \ud800 }"]
)
def test_a_text_that_is_half_typed_has_mistakes_and_no_more(text: str) -> None:
    found = view(text)
    assert found["diagnostics"]
    assert found["parts"] == {}
    json.dumps(found)


def test_every_beginning_of_a_program_has_a_view() -> None:
    for length in range(0, len(GAT), 7):
        found = view(GAT[:length], parts=["flow"])
        assert found["diagnostics"] or found["parts"], GAT[:length]


def test_a_text_that_is_too_long() -> None:
    (found,) = mistakes("#" * (MAX_TEXT + 1))
    assert str(MAX_TEXT) in found["message"]


def test_sizes_that_do_not_fit_are_a_mistake_that_names_them() -> None:
    text = "layer A(a, b) { node x[a] node z[b] update y = x + rename(z, b -> a) }"
    assert not mistakes(text)
    (found,) = mistakes(text, Settings(values=(("a", 2), ("b", 3))))
    assert "a = 2" in found["detail"]


def test_warnings_leave_the_program_as_it_is() -> None:
    found = read("layer A(d, unused) { node x[d] aggregate a = sum(x[j]) update y = a }")
    assert [d.severity for d in found.diagnostics] == ["warning"]
    assert found.typed is not None


def test_one_layer_of_several() -> None:
    other = "layer Other(k) { node z[k] update out = tanh(z) }"
    first, second = view(GAT + other), view(GAT + other, Settings(layer="Other"))
    assert first["layers"] == second["layers"] == ["Attention", "Other"]
    assert (first["layer"], second["layer"]) == ("Attention", "Other")
    assert [v["name"] for v in second["values"]] == ["z", "out"]
    # A mistake in any of them is said whichever is shown.
    broken = view(GAT + other.replace("tanh", "tan_h"))
    assert [d["line"] for d in broken["diagnostics"]] == [12] and broken["parts"] == {}
    gone = view(GAT, Settings(layer="Other"))
    assert gone["layer"] == "Attention"


def test_settings_of_names_that_the_text_has_no_more_are_passed_over() -> None:
    found = read(GAT, Settings(values=(("in_channels", 8), ("gone", 3)), inputs=frozenset({"gone"})))
    assert found.values == {"in_channels": 8, "out_channels": 16}
    assert found.given == {"in_channels"}


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"values": {"d": 3}},
        {"values": []},
        {"inputs": "w"},
        {"inputs": [1]},
        {"layer": 1},
        {"device": "disk"},
        {"nodes": 0},
        {"nodes": True},
        {"nodes": MOST_NODES + 1},
        {"degree": math.nan},
        {"degree": "many"},
    ],
)
def test_settings_that_are_none(data: object) -> None:
    with pytest.raises(InputError):
        settings_of(data)


def test_settings_from_json() -> None:
    found = settings_of({"layer": "A", "values": {"d": "4", "on": "true"}, "inputs": ["w"], "nodes": 10, "degree": 2})
    assert dict(found.values) == {"d": 4, "on": True}
    assert (found.layer, found.inputs, found.nodes, found.degree) == ("A", {"w"}, 10, 2)


# ----------------------------------------------------------------------------------- values, lines, rules


def test_values_have_types_dims_and_lines() -> None:
    found = {v["name"]: v for v in as_json(read(GAT))["values"]}
    assert found["m"]["type"] == "edge[out_channels]"
    assert found["m"]["dims"] == [["out_channels", 32]]
    assert {name: v["line"] for name, v in found.items()} == {
        "weight": 2, "query": 3, "x": 4, "h": 6, "score": 7, "m": 8, "a": 9, "y": 10,
    }  # fmt: skip


def test_a_statement_of_several_lines_ends_where_it_ends() -> None:
    found = {v["name"]: v for v in as_json(read("layer A(d) {\n node x[d]\n update y = x\n  + x\n   * x\n}"))["values"]}
    assert (found["y"]["line"], found["y"]["last"]) == (3, 5)


def test_each_equation_is_for_the_line_that_says_it(gat: Making) -> None:
    written = {text.split(" =")[0]: line for text, _, line in equations_of(gat.plain, gat.origins.lines)}
    assert {name: written[name] for name in ("h", "score", "m", "a", "y")} == {
        "h": 6,
        "score": 7,
        "m": 8,
        "a": 9,
        "y": 10,
    }
    after = dict.fromkeys(line for _, _, line in equations_of(gat.optimised[0], gat.origins.lines))
    assert {6, 7, 8, 9, 10} <= set(after)
    backward = [line for a in gat.inspection.adjoints for _, _, line in equations_of(a.program, gat.origins.lines)]
    assert {6, 7, 8, 9, 10} <= set(backward)


def test_linear_maps_of_the_layer_are_part_of_the_program() -> None:
    """As in a call of the layer: nothing is cut at them, and their tensors are for the line that declares them."""
    text = """layer A(d, k) {
    linear lin(d -> k)
    mlp m(k -> k -> d, relu, norm = batch_norm, dropout = 0.5)
    node x[d]
    h = lin(x)
    aggregate a = sum(m(h)[j])
    update y = a
}"""
    for values in ((), (("d", 10**7), ("k", 10**7))):
        making = Making(read(text, Settings(values=values)))
        found = flow(making)
        assert len(making.stages) == 1 and found["modules"] == []
        lines = {n.attrs.name: line for n, line in making.origins.lines.items() if n.op == "load"}
        assert lines["lin.weight"] == lines["lin.bias"] == 2
        assert lines["m.0.weight"] == lines["m.1.running_mean"] == 3
    assert Making(read(text)).typed.outputs == call(read(text)).typed.outputs


@pytest.mark.parametrize("name", ["gat", "gatv2", "pna", "gmm", "rgcn", "spline", "edge_pool", "transformer"])
def test_what_fired_leads_from_the_program_to_what_is_compiled(name: str) -> None:
    making = Making(read((LIBRARY[0].parent / f"{name}.gdsl").read_text()))
    sections = rewrites(making)
    assert [s["title"] for s in sections] == ["forward", "backward", "before kernels"]
    ends = [making.optimised[0].nodes, sum((a.program.nodes for a in making.inspection.adjoints), ())]
    for found, end in zip(sections, ends, strict=False):
        assert len(found["states"]) == len(found["steps"]) + 1
        assert REST not in [step["rule"] for step in found["steps"]]
        assert len(found["states"][-1]) > 0 and end
    for step in (step for found in sections for step in found["steps"]):
        assert "-->" in step["equation"]
    lines = [s["texts"][n][0] for s in sections[:1] for n in s["states"][-1]]
    assert lines == [text for text, _, _ in equations_of(making.optimised[0], making.origins.lines)]


def test_a_long_program_shows_its_first_rewrites_and_says_that_there_are_more() -> None:
    rules = "aggregate a = sum(x[j] * w[k] + 0) x = relu(a) * 1 + x"
    text = f"layer A(d) {{ node x[d] param w[40, d] ~ ones for k in 0..39 {{ {rules} }} update y = x }}"
    forward = view(text, parts=["rewrites"])["parts"]["rewrites"][0]
    assert 20 < len(forward["steps"]) <= 201
    assert forward["steps"][-1]["rule"] == REST


def test_every_rule_has_an_equation() -> None:
    from gdsl.passes import layout, pipeline, vendor
    from gdsl.passes.options import Options
    from gdsl.passes.reassociate import OUTERMOST_FIRST, PROPOSALS

    options = Options()
    rules = [*pipeline.LAST_RULES, *layout.rules(options), *vendor.rules(options), *PROPOSALS, *OUTERMOST_FIRST]
    missing = {rule.__name__ for rule in rules} - set(equations())
    assert missing <= {"drop_stop_gradient"}


# ------------------------------------------------------------------------------------------- costs


@pytest.mark.parametrize(
    ("name", "device"),
    [*((n, "cpu") for n in ("gat", "spline", "rgcn", "cheb", "pna", "dimenet", "hgt")), ("gat", "cuda")],
)
def test_formulas_give_what_the_cost_model_counts(name: str, device: str) -> None:
    making = Making(read((LIBRARY[0].parent / f"{name}.gdsl").read_text(), Settings(device=device)))
    found = flow(making)
    rows = dict.fromkeys(cost.ROWS.values(), 900) | {"N": 1000, "N_dst": 1000, "E": 16000, "P": 100_000, "B": 10}
    counts = {domain: rows[letter] for domain, letter in cost.ROWS.items()}
    sizes = {**found["sizes"], **rows}
    kernels = [k for _, plan in making.inspection.plans for k in plan.kernels]
    boxes = [step for step in found["steps"] if step["kind"] == "kernel"]
    for kernel, box in zip(kernels, boxes, strict=True):
        assert evaluate(box["bytes"], sizes) == cost.bytes_moved(kernel, cost.Numbers(counts))
        assert evaluate(box["flops"], sizes) == cost.operations(kernel, cost.Numbers(counts))


def test_a_dim_of_two_sizes_is_a_number_in_formulas() -> None:
    sizes = SizeFormulas({"n": 3}, [Dim("n", 3), Dim("n", 5), Dim("m", 4), Dim("m*k", 8), Dim("2*m", 8), Dim("m", 4)])
    assert sizes.sizes == {"m": 4}
    assert sizes.size(Dim("m", 4)).as_json() == [(1, {"m": 1})]
    assert sizes.size(Dim("2*m", 8)).as_json() == [(2, {"m": 1})]
    assert sizes.size(Dim("n", 5)).as_json() == [(5, {})]
    assert sizes.size(Dim("m*k", 8)).as_json() == [(8, {})]  # nobody knows k
    assert sizes.size(Dim("__import__('os')", 2)).as_json() == [(2, {})]
    assert sizes.rows(Domain.GLOBAL).as_json() == [(1, {})]


def test_polynomials() -> None:
    a, b = Polynomial.name("a"), Polynomial.name("b")
    found = (a + b) ** 2 * 3 - b * b * 3 + 0
    assert sorted(found.as_json(), key=str) == [(3, {"a": 2}), (6, {"a": 1, "b": 1})]
    assert evaluate(found.as_json(), {"a": 2, "b": 5}) == 3 * (49 - 25)
    assert (a - a).as_json() == []


def test_boxes_and_what_flows_between_them(gat: Making) -> None:
    found = flow(gat)
    names = [step["name"] for step in found["steps"] if step["kind"] == "kernel"]
    assert names == [k.name for k in gat.inspection.kernels("cpp")]
    assert {step["direction"] for step in found["steps"]} == {"forward", "backward"}
    steps = {step["id"]: step for step in found["steps"]}
    for link in found["links"]:
        across = steps[link["from"]]["direction"] != steps[link["to"]]["direction"]
        assert link["kept"] == across
        assert link["from"] < link["to"]
    assert any(link["kept"] for link in found["links"])
    saved = sum(len(a.saved) for a in gat.inspection.adjoints)
    assert len(found["saved"]) == saved
    attention = next(step for step in found["steps"] if step["name"] == "Attention_1")
    assert attention["over"] == "in-edges of each node"
    assert {8, 9} <= set(attention["lines"])


def test_tensors_live_from_the_step_that_makes_them(gat: Making) -> None:
    found = flow(gat)
    steps = {step["id"]: step for step in found["steps"]}
    for direction, tensors in found["memory"].items():
        assert tensors
        for t in tensors:
            assert steps[t["first"]]["direction"] == steps[t["last"]]["direction"] == direction
            assert t["first"] <= t["last"]


# ------------------------------------------------------------------------------------------- code


@pytest.mark.parametrize("name", ["gat", "agnn", "feast", "gmm", "dimenet", "spline"])
def test_code_with_labels_is_the_same_code(name: str) -> None:
    making = Making(read((LIBRARY[0].parent / f"{name}.gdsl").read_text()))
    for kernels in sources(making).values():
        for kernel in kernels:
            assert len(kernel["lines"]) == len(kernel["origins"])
            assert any(kernel["origins"]), kernel["name"]


@pytest.mark.parametrize("language", ["cpp", "triton"])
def test_a_line_of_code_is_for_the_line_whose_value_it_computes(gat: Making, language: str) -> None:
    kernel = next(k for k in sources(gat)[language] if k["name"] == "Attention_1")
    of = {
        re.sub(r"^const T ", "", text.strip()).split(" ")[0]: n
        for text, n in zip(kernel["lines"], kernel["origins"], strict=True)
    }
    assert of["score"] == 7
    assert of["acc_max_score"] == of["acc_sum_exp"] == 8
    start = next(k for k, line in enumerate(kernel["lines"]) if line.startswith(('extern "C"', "def ")))
    assert kernel["origins"][start] is None


def test_a_call_that_is_broken_by_its_width_is_one_statement() -> None:
    source = "def k(\n    a,\n):\n    a = f(b, c,\n        d)\n    e = g(h)"
    labelled = "def k(\n    a,\n):\n    srcline3 = f(b, c, d)\n    srcline4 = g(\n        srcline2)"
    assert lines_of_code(source, labelled) == [None, None, None, 3, 3, 4]
    assert lines_of_code(source, "def k():") == [None] * 6  # not the same code: no line is better than a wrong one


def test_assembly_is_of_lines_of_the_kernel(gat: Making) -> None:
    found = machine_code(gat, "cpp", "Attention_1", "asm")
    kernel = next(k for k in sources(gat)["cpp"] if k["name"] == "Attention_1")
    assert len(found["lines"]) == len(found["of"]) > 50
    placed = {n for n in found["of"] if n is not None}
    assert placed and max(placed) < len(kernel["lines"])
    assert 7 in {kernel["origins"][n] for n in placed}
    assert not any(line.lstrip().startswith((".loc", ".cfi")) for line in found["lines"])
    other = machine_code(gat, "cpp", "Attention_0", "asm")
    assert other["lines"] != found["lines"]


def test_ptx_is_of_lines_of_the_kernel(gat: Making) -> None:
    found = machine_code(gat, "triton", "Attention_0", "ptx")
    kernel = next(k for k in sources(gat)["triton"] if k["name"] == "Attention_0")
    product = next(k for k, line in enumerate(kernel["lines"]) if "tl.sum" in line)
    assert any(
        "fma" in line or "mul" in line for line, n in zip(found["lines"], found["of"], strict=True) if n == product
    )
    assert found["registers"] > 0
    for stage in ("ttir", "ttgir", "llir", "sass"):
        more = machine_code(gat, "triton", "Attention_0", stage)
        assert product in more["of"], stage


@pytest.mark.slow
def test_code_for_a_gpu_of_another_vendor(gat: Making) -> None:
    kernel = next(k for k in sources(gat)["triton"] if k["name"] == "Attention_0")
    product = next(k for k, line in enumerate(kernel["lines"]) if "tl.sum" in line)
    amd = machine_code(gat, "triton", "Attention_0", "amdgcn", "gfx942")
    assert product in amd["of"] and any(
        "v_fma" in line or "v_pk_fma" in line or "v_mul" in line for line in amd["lines"]
    )


@pytest.mark.parametrize(
    ("language", "kernel", "stage"), [("cpp", "Attention_1", "ptx"), ("c", "x", "asm"), ("cpp", "x", "asm")]
)
def test_machine_code_that_there_is_not(gat: Making, language: str, kernel: str, stage: str) -> None:
    with pytest.raises(InputError):
        machine_code(gat, language, kernel, stage)


# --------------------------------------------------------------------------------------- one node


@pytest.mark.parametrize("profile", ["even", "skewed"])
def test_the_messages_of_a_node_add_up(profile: str) -> None:
    found = one_node(call(read(GAT), profile), 0)
    steps = {step["name"]: step for step in found["steps"]}
    messages = [numbers for _, numbers, _ in steps["m"]["rows"]]
    assert len(messages) == (4 if profile == "even" else 11)
    ((_, total, count),) = steps["a"]["rows"]
    assert count == 32
    for k, value in enumerate(total):
        assert sum(m[k] for m in messages) == pytest.approx(value, abs=1e-4)
    ((_, result, _),) = steps["y"]["rows"]
    assert result == [max(0.0, v) for v in total]
    assert all("from" in label for label, _, _ in steps["m"]["rows"])


def test_a_node_of_a_graph_that_the_layer_changes() -> None:
    text = "layer A(d) { node x[d] graph add_self_loops() message m = 2 * x[j] aggregate a = sum(m) update y = a }"
    steps = {step["name"]: step for step in one_node(call(read(text)), 5)["steps"]}
    assert [label for label, _, _ in steps["m"]["rows"]][-1] == "its own loop"
    assert len(steps["m"]["rows"]) == 5


def test_a_node_of_a_graph_with_as_many_edges_as_the_layer_asks_for() -> None:
    text = "layer B(d) { node x[d] message m = 2 * x[j] aggregate a = stack(m, 3) update y = sum[3](a) }"
    found = one_node(call(read(text)), 5)
    assert [label for label, _, _ in found["steps"][0]["rows"]] == ["from 6", "from 7", "from 8"]


def test_a_node_of_a_layer_that_is_too_large_or_that_there_is_not() -> None:
    with pytest.raises(InputError, match="too large"):
        call(read(GAT, Settings(values=(("in_channels", 100_000), ("out_channels", 100_000)))))
    wide = "layer A(d, k) { mlp lin(d -> k -> d, relu) node x[d] aggregate a = sum(lin(x)[j]) update y = a }"
    with pytest.raises(InputError, match="too large"):
        call(read(wide, Settings(values=(("d", 10), ("k", 10**9)))))
    with pytest.raises(InputError):
        one_node(call(read(GAT)), 99)
    with pytest.raises(GdslError):
        call(read("layer A(d) { module f node x[d] aggregate a = sum(f(x)[j]) update y = a }"))


# ---------------------------------------------------------------------------------------- the view


def test_a_view_has_the_parts_that_are_asked_for() -> None:
    assert set(view(GAT, parts=["flow"])["parts"]) == {"flow"}
    assert set(view(GAT)["parts"]) == set(PARTS)
    with pytest.raises(InputError):
        view(GAT, parts=["secrets"])


def test_a_view_of_another_graph_may_be_another_program() -> None:
    # With hardly an edge a node, products are cheaper on edges' sums; with many, on nodes.
    few, many = (view(GAT, Settings(degree=d, nodes=1 << 16), ["stages"])["parts"]["stages"] for d in (1, 256))
    assert few and many
    json.dumps([few, many], allow_nan=False)


def test_a_page_without_a_server_holds_everything_and_no_text_ends_its_script(monkeypatch: pytest.MonkeyPatch) -> None:
    # Compiling for a GPU takes seconds, and is another test's.
    monkeypatch.setattr("gdsl.explore.view._SHOWN", (("cpp", "asm"),))
    monkeypatch.setattr("gdsl.explore.view.compile_together", lambda kernels: [])
    text = GAT.replace("relu(a)", 'relu(a) # </script><script>alert("x")</script><!-- & ]]>')
    made = page.single({"text": text, "name": "<b>", "server": False, "view": whole(text), "machines": []})
    assert made.count("<script") == 2 and made.count("</script>") == 2  # the page's own, and its data
    assert "http://" not in made.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in made
    data = json.loads(re.search(r'<script type="application/json" id="start">(.*?)</script>', made, re.S).group(1))
    assert data["text"] == text
    assert data["view"]["machine"]["cpp/Attention_1/asm"]["lines"]
    assert data["view"]["nodes"]["even/3"]["node"] == 3
    policy = re.search(r'content="([^"]*)"', made[made.index("Content-Security-Policy") :]).group(1)
    script = re.search(r"<script>(.*?)</script>", made, re.S).group(1)
    assert page._hash(script) in policy


def test_the_pages_own_files_are_there_and_reach_for_nothing() -> None:
    for name in (*page.STYLES, *page.SCRIPTS, "index.html"):
        text = (page.FOLDER / name).read_text(encoding="utf-8")
        assert "innerHTML" not in text and "eval(" not in text and "@import" not in text
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_what_is_read_is_the_same_as_what_a_reading_says() -> None:
    found = read(GAT)
    assert isinstance(found, Reading)
    assert view(GAT, parts=[])["values"] == as_json(found)["values"]


NETWORK = """use GATConv
use Block from "block.gdsl"
layer Net {
    node x[3]
    update y = GATConv(Block(x); 4)
}
"""


def test_files_are_used_beside_a_file_alone(tmp_path: Path) -> None:
    """No request can say where files are: a page that was started without a file uses none."""
    block = "layer Block {\n    linear lin(d -> d)\n    node x[d]\n    update y = lin(x)\n}\n"
    (tmp_path / "block.gdsl").write_text(block)
    (refused,) = read(NETWORK, settings_of({"folder": str(tmp_path)})).diagnostics
    assert "in no folder" in refused.message
    found = view(NETWORK, Settings(folder=tmp_path))
    assert not found["diagnostics"] and found["problem"] is None and set(found["parts"]) == set(PARTS)
    assert node_of(NETWORK, Settings(folder=tmp_path), 1, "even")["node"] == 1
    (tmp_path / "block.gdsl").write_text("layer Block {\n    node x[d]\n    update y = relu\n}\n")
    (wrong,) = as_json(read(NETWORK, Settings(folder=tmp_path)))["diagnostics"]
    assert wrong["line"] == 5 and "in Block in block.gdsl, line 3: update y = relu" in wrong["detail"]
