#!/usr/bin/env bash
# torch 2.13.0: its wheel for x86 carries two libraries of products, and on a processor that is not Intel's they see two machines. MKL,
# which multiplies float32 and float64 matrices (torch.mm, nn.Linear), finds no vector extension that it knows and says so by naming none;
# oneDNN, which multiplies bfloat16 ones, finds AVX-512 or AVX2. torch.__config__ and torch.backends.cpu.get_cpu_capability() tell of the
# second. A float32 product is then computed with half of a vector where there is AVX-512: with oneDNN's inner product, or code compiled with
# -march=native, the same product runs twice as fast.
#
# Seen with torch 2.13.0 on an AMD EPYC with AVX-512 (on an Intel processor, or another kind, the script says that it does not apply):
#   capability of torch: AVX512
#   MKL, of a float32 product: names no vector extension
#   oneDNN, of a bfloat16 product: names one
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0
python <<'PY'
import platform
import subprocess
import sys

import torch

text = open("/proc/cpuinfo").read() if platform.system() == "Linux" else ""
if platform.machine() != "x86_64" or "AuthenticAMD" not in text or not torch.backends.mkl.is_available():
    print("does not apply: no AMD processor on Linux with a torch that has MKL")
    sys.exit()


def lines(variable, dtype):
    code = f"import torch; a = torch.ones(64, 64, dtype=torch.{dtype}); torch.nn.functional.linear(a, a)"
    done = subprocess.run([sys.executable, "-c", code], env={"PATH": "", variable: "1"}, capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines()


(mkl,) = [line for line in lines("MKL_VERBOSE", "float32") if line.startswith("MKL_VERBOSE oneMKL")]
(isa,) = [line for line in lines("ONEDNN_VERBOSE", "bfloat16") if "cpu,isa:" in line]
print("capability of torch:", torch.backends.cpu.get_cpu_capability())
print("MKL, of a float32 product:", "names one" if "AVX" in mkl or "Vector Extensions" in mkl else "names no vector extension")
print("oneDNN, of a bfloat16 product:", "names one" if "AVX" in isa else "names no vector extension")
assert "AVX" not in mkl and "Vector Extensions" not in mkl and "AVX" in isa, "changed"
PY
