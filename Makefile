# Two commands matter: `make demo` (install, then the whole sweep) and `make check` (what CI runs).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
# Which CUDA torch is built for: 13, or 12 for older drivers and GPUs. `ubt doctor` says which of them this machine runs.
CUDA ?= 13
LOCK_13 := requirements.lock
LOCK_12 := requirements-cuda12.lock
LOCK := $(or $(LOCK_$(CUDA)),$(error CUDA must be 13 or 12, not $(CUDA)))
INSTALLED := $(VENV)/.installed-cuda$(CUDA)
OTHER_CUDA := $(filter-out $(INSTALLED),$(wildcard $(VENV)/.installed-cuda*))
COMPILE := $(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
	--generate-hashes --no-header --quiet
# A process a core, a test file at a time: files share what they train. Where one has crashed, a new one waits for
# tests for ever in some versions of xdist, so that there is none. Files with slow tests go first (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile \
	--no-loadscope-reorder
# The variable silences a notice that is about the theme's future, not about these pages.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.PHONY: demo install test check coverage clusters test-gpu bench-gpu vendored docs format lock image tree fuzz chaos clean

demo: install  ## build the embedded victim and sweep UBT's four knobs over it
	$(BIN)/ubt sweep demo

install: $(INSTALLED)  ## make .venv from the pinned requirements; CUDA=12 for older drivers

# Byte code is compiled here, once: it halves the start of every worker that imports torch and open_clip.
# An environment for another CUDA is made anew: the libraries of both would take 9 GB.
$(INSTALLED): $(LOCK) pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say PYTHON=python3.11")'
	$(PYTHON) -m venv $(if $(OTHER_CUDA),--clear) $(VENV)
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r $(LOCK)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

test: install  ## all tests
	$(PYTEST)

check: install  ## format, lint, types, docs, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MKDOCS)
	$(PYTEST)

coverage: install  ## all tests, and which lines none of them reaches: a third longer
	$(PYTEST) --cov --cov-report=term:skip-covered

# One at a time: each has a cluster of its own.
clusters: install  ## the tests on clusters: minutes
	$(BIN)/python -m pytest -m clusters tests

# Elsewhere than on a machine with CUDA these tests are skipped.
test-gpu: install  ## tests that need a GPU: what it computes beside a CPU, who is given one, its memory
	CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES:-0} $(BIN)/python -m pytest -m gpu tests

bench-gpu: install  ## how much of a GPU the stages use, as a table and in bench-gpu.json: ten minutes, 17 GB of disk
	$(BIN)/python benchmarks/gpu.py --out bench-gpu.json

vendored:  ## fetch the libraries that the report's page contains, from npm
	$(BIN)/python docs/vendor.py

docs: install  ## write the reference pages anew and build the site into site/
	$(BIN)/python docs/make_reference.py
	$(MKDOCS)

format: install  ## rewrite the sources as `check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: install  ## pin every dependency anew for both CUDAs, with hashes and without any index address
	$(COMPILE) --output-file $(LOCK_13)
	$(COMPILE) --constraint deploy/cuda12.txt --output-file $(LOCK_12)

image: ## build the container image of a cluster's nodes: ubt:cuda13, or CUDA=12
	docker build --file deploy/Dockerfile --build-arg CUDA=$(CUDA) \
		--build-arg COMMIT="$$(git rev-parse --short=12 HEAD)$$(git diff --quiet HEAD -- ubt sweeps analysis || echo +)" \
		--tag ubt:cuda$(CUDA) .

fuzz: install  ## plan 5,200 studies that are spoilt at random: minutes
	$(BIN)/python benchmarks/fuzz_studies.py

# As root it may also fill disks; rounds that failed are kept in /tmp/ubt-chaos, see docs/reliability.md.
export CHAOS_ROUNDS CHAOS_SEED
chaos: install  ## kill, stop, fill and damage what a sweep depends on, at random: 20 rounds, or CHAOS_ROUNDS=…
	$(BIN)/python tests/chaos/chaos.py

clean:  ## remove the environment and caches; runs and the store stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .coverage

tree: install  ## write the tree of docs/architecture.md anew
	$(BIN)/python docs/make_tree.py
