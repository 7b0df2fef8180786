#!/usr/bin/env bash
# torch 2.13.0: `torch.kron` fails where one of its two matrices is transposed, and with it the products that are written most,
# like kron(a, b.T) of vec(b x a) = kron(a.T, b) vec(x). It works where both are, where a slice is not contiguous, and with the
# same numbers made contiguous. No page of torch asks for contiguous operands; other products take them as they come.
#
# Seen with torch 2.13.0:
#   kron(a, b): works
#   kron(a, b.T): view size is not compatible
#   kron(a.T, b): view size is not compatible
#   kron(a.T, b.T): works
#   kron(a, b[:, ::2]): works
#   kron(a, b.T.contiguous()): works
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0
python <<'PY'
import torch

a, b = torch.arange(6.0).view(2, 3), torch.arange(20.0).view(4, 5)
seen = {}
for told, one, two in [
    ("kron(a, b)", a, b),
    ("kron(a, b.T)", a, b.T),
    ("kron(a.T, b)", a.T, b),
    ("kron(a.T, b.T)", a.T, b.T),
    ("kron(a, b[:, ::2])", a, b[:, ::2]),
    ("kron(a, b.T.contiguous())", a, b.T.contiguous()),
]:
    try:
        found = torch.kron(one, two)
        seen[told] = "works" if torch.equal(found[: two.shape[0], two.shape[1] :][:, : two.shape[1]], one[0, 1] * two) else "wrong"
    except RuntimeError as error:
        seen[told] = str(error)[: len("view size is not compatible")]
    print(f"{told}: {seen[told]}")
failed = [told for told, what in seen.items() if what == "view size is not compatible"]
assert failed == ["kron(a, b.T)", "kron(a.T, b)"] and set(seen.values()) == {"works", "view size is not compatible"}, "changed"
PY
