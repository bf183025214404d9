# make demo: everything from nothing. Each target sets up what it needs first.
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
# make LOCK=requirements-lock.txt ...: the versions that continuous integration installs
LOCK ?=
FUZZ_REPLIES ?= 1000000
FUZZ_SECONDS ?= 600
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CPU_ONLY := $(shell nvidia-smi -L >/dev/null 2>&1 || echo -c constraints-cpu.txt)

.PHONY: setup lock demo test test-long test-annotation test-clients test-vllm test-verl fast check docs bench fuzz
.DELETE_ON_ERROR:

setup: $(STAMP)

demo: setup
	$(BIN)/lfpc demo --out out/demo

# Tests of a file stay together where they can, as they share what they set up.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
MAIN := not annotation and not clients and not vllm and not verl

test: setup
	$(PYTEST) -m "not long and $(MAIN)"

# Whole runs at length, and further cases of what a test of `make test` holds.
test-long: setup
	$(PYTEST) -m "long and $(MAIN)"

# `lfpc serve`, scores, exported files and metrics against other people's clients, harnesses, tools and trackers, in an environment of their own: .venv-clients, made once, 2.1 GB.
test-clients: setup
	$(BIN)/python -m environments clients
	$(BIN)/python -m pytest -m clients

# Box files against pycocotools, Label Studio's converter and its server, in an environment of their own: .venv-annotation, made once, 1 GB.
test-annotation: setup
	$(BIN)/python -m environments annotation
	$(BIN)/python -m pytest -m annotation

# Against a real vLLM server, in an environment of its own: .venv-vllm, made once, 4 GB.
test-vllm: setup
	$(BIN)/python -m environments vllm
	$(BIN)/python -m pytest -m vllm

# The cluster engine: the real verl on this machine's CPU, through the double in tests/verl_cpu.py, in an environment of its own.
test-verl: setup
	$(BIN)/python -m environments verl
	$(BIN)/pyright -p environments/pyright-verl.json --pythonpath .venv-verl/bin/python
	PYTHONPATH=src:tests OMP_NUM_THREADS=1 VERL_USE_EXTERNAL_MODULES=verl_cpu VERL_PLATFORM=cpu VERL_ENGINE_DEVICE=cuda \
		PUBLISHED_PACKAGES=$(abspath $(VENV))/published \
		.venv-verl/bin/python -m pytest -m verl $(addprefix tests/test_verl_,inside.py parity.py run.py models.py)

# No torch, no browser, nothing that waits: under a minute.
fast: setup
	$(PYTEST) -m "not slow and not browser and $(MAIN)"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Mutated replies, then coverage-guided ones; the second is left out, and says so, where atheris cannot be installed.
fuzz: setup
	$(BIN)/python tests/fuzz_parsers.py --replies $(FUZZ_REPLIES)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=2.3'
	$(BIN)/python tests/fuzz_coverage.py --seconds $(FUZZ_SECONDS)

# The versions in .venv become those of continuous integration.
lock: setup
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements-lock.txt

bench: setup
	$(BIN)/python -m bench

# One pip command, so that the constraint holds for torch too: installed later, another package could bring the CUDA build.
$(STAMP): pyproject.toml constraints-cpu.txt environments/published.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(CPU_ONLY) $(addprefix -c ,$(LOCK)) -e '.[data,dev,lora]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/published -r environments/published.txt
	touch $(STAMP)
