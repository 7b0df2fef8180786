"""What the site is made of: equations of programs, and docstrings as reStructuredText."""

from __future__ import annotations

import pytest

import gdsl
from docs.site import docstrings, typeset


def equation(text: str, **arguments: int) -> str | None:
    return typeset.equation(gdsl.compile(text, **arguments).program, {})


def test_a_program_as_an_equation() -> None:
    found = equation(
        """layer L(d, k) {
            param w[d, k] ~ glorot
            param alpha ~ ones
            node x[d]
            h1 = x @ w
            s = softmax(leaky_relu(alpha * sum[k](h1[i] - (h1[j] + 1)), 0.2))
            message m = s * h1[j] / 2
            aggregate a = sum(m)
            a = max(sum(m) at j, a ** 2)
            update y = (a + max(m)) * sqrt(abs(h1))
        }""",
        d=3,
        k=2,
    )
    assert found == (
        r"\begin{aligned}h^{(1)}_{i} &= x_{i}\,w" "\\\\\n"
        r"s_{ji} &= \operatorname{softmax}_{j \to i}\left(\operatorname{LeakyReLU}\left(\alpha\,"
        r"\left(\sum_{k} \left(h^{(1)}_{i} - \left(h^{(1)}_{j} + 1\right)\right)\right), 0.2\right)\right)" "\\\\\n"
        r"m_{ji} &= \frac{s_{ji}\,h^{(1)}_{j}}{2}" "\\\\\n"
        r"a_{i} &= \sum_{j \to i} m_{ji}" "\\\\\n"
        r"a_{i} &\leftarrow \max\left(\sum_{i : j \to i} m_{ji}, a_{i}^{2}\right)" "\\\\\n"
        r"y_{i} &= \left(a_{i} + \max_{j \to i} m_{ji}\right)\,\sqrt{\left|h^{(1)}_{i}\right|}\end{aligned}"
    )  # fmt: skip


def test_a_long_program_is_no_equation() -> None:
    assert (
        equation("layer L(d, K) { node x[d] h = x for k in 1..K { h = h + sum(h[j]) } update y = h }", d=2, K=60)
        is None
    )


@pytest.mark.parametrize(
    ("docstring", "rest"),
    [
        ("A |sum| of x_ and *args.", r"A \|sum\| of x\_ and \*args."),
        ("Keeps ``a*b`` and :class:`C_`.", "Keeps ``a*b`` and :class:`C_`."),
        (
            "Raises: never\n\nname: what\n  it is\nb, c:  other",
            "Raises: never\n\n``name``\n    what it is\n``b, c``\n    other",
        ),
        ("One.\n\nrows   [N] of them\nmore   of them", "One.\n\n``rows``\n    [N] of them\n``more``\n    of them"),
        ("One.\n\n    code * 2", "One.\n\n::\n\n    code * 2"),
        ("One.\n\n- a\n  b\n- c", "One.\n\n- a b\n- c"),
    ],
)
def test_docstrings(docstring: str, rest: str) -> None:
    assert "\n".join(docstrings.to_rest(docstring.splitlines())).strip() == rest


def test_the_page_of_a_layer() -> None:
    pytest.importorskip("torch_geometric")
    from docs.site import layers
    from tests.parity import test_nn_basic

    page = layers.page("SAGEConv", [case for case in test_nn_basic.CASES if case.layer == "SAGEConv"])
    assert r"a_{i} &= \operatorname{mean}_{j \to i}\left(m_{ji}\right)" in page
    assert "- forward, 2 kernels: an edge moves `4*lin_l.out + 4` bytes" in page
    assert "| SAGEConv, max | " in page and "options aggr, normalize" in page
    assert ".. autoclass:: gdsl.nn.SAGEConv" in page


def test_every_public_name_is_on_a_page() -> None:
    pytest.importorskip("torch_geometric")
    from docs.site import api

    texts = "\n".join(api.pages().values())
    for name in gdsl.__all__:
        assert f":: gdsl.{name}\n" in texts


def test_the_page_of_findings() -> None:
    from docs.site import findings

    (page,) = findings.pages().values()
    for path in findings.scripts():
        assert f"({path.stem})=" in page
