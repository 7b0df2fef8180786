import ctypes, hashlib, os, subprocess, glob, torch
def load(source, *, name):
    d = "/tmp/gdsl_stub_cache"; os.makedirs(d, exist_ok=True)
    gomp = glob.glob(os.path.join(os.path.dirname(torch.__file__), "lib", "libgomp*.so*"))
    k = hashlib.sha256(source.encode()).hexdigest()[:16]
    so = f"{d}/{k}.so"
    if not os.path.exists(so):
        cpp = f"{d}/{name}-{k}.cpp"; open(cpp, "w").write(source)
        flags = "-O3 -march=native -std=c++17 -fPIC -fno-math-errno -fno-trapping-math -ffp-contract=fast -fopenmp".split()
        subprocess.run(["g++", *flags, "-c", cpp, "-o", so+".o"], check=True)
        subprocess.run(["g++", "-shared", so+".o", *(gomp or ["-fopenmp"]), "-o", so], check=True)
    return ctypes.CDLL(so)
