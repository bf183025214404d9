# make demo: everything from nothing. Each target sets up what it needs first.
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CPU_ONLY := $(shell nvidia-smi -L >/dev/null 2>&1 || echo -c constraints-cpu.txt)

.PHONY: setup demo test fast check docs bench fuzz
.DELETE_ON_ERROR:

setup: $(STAMP)

demo: setup
	$(BIN)/lfpc demo --out out/demo

test: setup
	$(BIN)/python -m pytest

fast: setup
	$(BIN)/python -m pytest -m "not slow"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

fuzz: setup
	$(BIN)/python tests/fuzz_parsers.py

bench: setup
	$(BIN)/python -m bench

# One pip command, so that the constraint holds for torch too: installed later, another package could bring the CUDA build.
$(STAMP): pyproject.toml constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(CPU_ONLY) -e '.[dev,lora]'
	touch $(STAMP)
