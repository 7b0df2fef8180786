# make cora      install into .venv and train the Cora example, which prints a compiled kernel on the way
# make test      install into .venv and run the tests
# make nightly   20,000 random programs; GDSL_PROGRAMS=n and GDSL_SEED=k for others
# make sanitize  generated C++ under the compiler's sanitizers, Triton's kernels under one of ours
# make gpu       on a machine with one, in ten minutes and installing nothing: a smoke test, the tests, the benchmark
# make pictures  the pictures of docs/explore.md, with Debian's chromium and chromium-driver
# make fuzz      programs, then operators of exported models, that a fuzzer makes, for ten minutes each
# make docs      the documentation as a site, in build/docs/index.html
# make gpu-sanitize  Triton's kernels under compute-sanitizer
#
# A second call installs nothing, unless pyproject.toml or constraints.txt changed.

PYTHON ?= python3
VENV   ?= .venv
STAMP  := $(VENV)/.gdsl-installed

CORA_ARGS   ?= --model both --dataset cora --seeds 3
PYTEST_ARGS ?=
GPU_ARGS    ?=

# Waiting threads sleep instead of spinning: several times faster when something else keeps the machine busy.
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help install cora test nightly sanitize gpu gpu-sanitize fuzz pictures lint types check clean docs

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

install: $(STAMP)

# torch goes in first and alone, at the version of constraints.txt, so that nothing installed after it picks another build.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gdsl needs Python 3.11 or newer; set PYTHON=... (found %s)" % sys.version.split()[0])'
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt torch
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[test,examples,trainer,metis,explore,lsp,notebook,docs]'
	@touch $@

cora: $(STAMP)
	$(VENV)/bin/python examples/cora.py $(CORA_ARGS)

test: $(STAMP)
	$(VENV)/bin/python -m pytest -n logical --maxprocesses 4 --dist worksteal $(PYTEST_ARGS)

# Memory that nothing has written to is full of large numbers here (glibc), so that a read of it shows.
nightly: $(STAMP)
	MALLOC_PERTURB_=128 GDSL_PROGRAMS=$(or $(GDSL_PROGRAMS),20000) $(VENV)/bin/python -m pytest -n auto tests/programs/test_random_texts.py

sanitize: $(STAMP)
	$(VENV)/bin/python -m tests.sanitize
	$(VENV)/bin/python -m tests.triton.sanitize

gpu-sanitize: $(STAMP)
	compute-sanitizer --error-exitcode 1 $(VENV)/bin/python -m pytest -m gpu tests/triton/test_gpu.py

pictures: $(STAMP)
	$(VENV)/bin/python -m tests.explore.screenshots

fuzz: $(STAMP)
	$(VENV)/bin/python -m pip install --quiet atheris
	$(VENV)/bin/python -m tests.fuzz

# PYTHON as it is: a machine with a GPU brings its own build of torch. GPU_ARGS="--wheels FOLDER" for what it lacks.
gpu:
	$(PYTHON) benchmarks/card.py $(GPU_ARGS)

lint: $(STAMP)
	$(VENV)/bin/python -m ruff check .

types: $(STAMP)
	$(VENV)/bin/python -m mypy

check: test lint types docs

# Warnings are errors: a link or an anchor to nothing, a page that no other leads to, a docstring that cannot be set.
docs: $(STAMP)
	$(VENV)/bin/python -m sphinx --quiet --fail-on-warning --keep-going -d build/doctrees docs build/docs

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
