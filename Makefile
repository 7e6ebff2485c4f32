# Each target first installs what it needs into .venv, at the versions of constraints.txt.
# On a machine whose own Python has everything (torch with CUDA, say): make gpu PYTHON=python3
# Real measured data for the tests and the demo that can use it: SCIML_REAL_DATA=/path/to/data make test

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BASE ?= python3
VENV := .venv
WORKERS ?= 2
PIP := $(VENV)/bin/python -m pip -qq --disable-pip-version-check install --no-compile --progress-bar off -c constraints.txt

ifdef PYTHON
READY :=
TOOLS :=
PEERS :=
else
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.installed
TOOLS := $(VENV)/.tools
PEERS := $(VENV)/.peers
endif

ifdef SCIML_REAL_DATA
export SCIML_REAL_DATA
endif
export MPLBACKEND := Agg

.PHONY: help demo test check bench gpu build clean

help:
	@echo "make demo    solve an equation, train a network, use it as a solver (under five minutes, installation included)"
	@echo "make test    the whole test suite"
	@echo "make check   lint, format, types, architecture"
	@echo "make bench   side-by-side timings with the peers; tables and JSON go to build/bench"
	@echo "make gpu     the tests and the timings that need a GPU, in one call (PYTHON=python3 to use that Python as it is)"
	@echo "make build   wheel and source distribution into dist/"
	@echo "make clean   removes .venv, caches and builds"

$(VENV)/bin/python:
	@$(BASE) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (once) ..."
	@$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.tools: $(VENV)/.installed
	@$(PIP) ruff mypy build
	@touch $@

$(VENV)/.peers: $(VENV)/.installed
	@$(PIP) -e '.[bench]'
	@touch $@

demo: $(READY)
	@$(PYTHON) examples/demo.py

test: $(READY)
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n $(WORKERS) tests

check: $(READY) $(TOOLS)
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy --strict sciml tests/architecture/refused_by_types.py
	@$(PYTHON) -m pytest tests/architecture

bench: $(READY) $(PEERS)
	@mkdir -p build/bench
	@for file in $(filter-out %/networks.py,$(wildcard tests/benchmark/[!_]*.py)); do \
	  name=$$(basename $$file .py); echo "== $$name"; \
	  PYTHONPATH=. $(PYTHON) -m tests.benchmark.$$name --out build/bench/$$name.md; \
	done

gpu: $(READY)
	@$(PYTHON) -m pytest -p no:cacheprovider tests/gpu
	@PYTHONPATH=. $(PYTHON) tests/gpu/timings.py

build: $(READY) $(TOOLS)
	@$(PYTHON) -m build --no-isolation --outdir dist .

clean:
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
