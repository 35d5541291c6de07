# On a fresh machine with python3 (3.10 to 3.12) and pip: `make demo`.
# Without a GPU by design; for a GPU, see docs: pip install 'ssl4rl-plugin[gpu]'.

VENV   ?= .venv
PYTHON ?= python3
TORCH  ?= torch==2.13.0
# Where pip's default index has a CUDA build of torch (PyPI, on Linux), name PyTorch's CPU wheel index here:
TORCH_INDEX ?=
# One of constraints/cpu-*.txt, to install exactly that set; TORCH has to be the file's.
CONSTRAINTS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PACKAGING := pyproject.toml setup.py

# One process for each core; all tests of one task at one level in the same one, so that its samples are made once.
PARALLEL ?= --numprocesses auto --dist loadgroup
# Two trainings at a time, about 7 GB each: their starts use one core. All tests of one run in the same process.
RUNS ?= --numprocesses 2 --dist loadgroup

.DELETE_ON_ERROR:
.PHONY: help venv install demo learn test test-full test-fast test-e2e gpu-check lint types wheel coverage hooks constraints other-versions image-install format bench bench-build bench-once profile demo-seeds curriculum transfer gallery oracles docs clean distclean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

venv: $(VENV)/.made-venv ## Create the virtual environment with a CPU build of torch
install: $(VENV)/.made-install ## Install the package with everything the CPU demo, the tests and linting need

# Stamp files: a second `make` does nothing, and a changed pyproject.toml installs again.
$(VENV)/.made-venv:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	@$(BIN)/python -c 'import sys, torch; sys.exit(0 if torch.version.cuda is None else \
	  "pip chose a CUDA build of torch (" + torch.__version__ + "). Run `make distclean`, then `make install TORCH_INDEX=...` with the address of the CPU wheel index from the installation page of pytorch.org.")'
	@touch $@

$(VENV)/.made-install: $(VENV)/.made-venv $(PACKAGING)
	$(PIP) install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable ".[cpu,video,graph,eval,heif,dev]"
	$(BIN)/python -m ssl4rl_plugin.cpu.setup
	@touch $@

$(VENV)/.made-docs: $(VENV)/.made-install
	$(PIP) install --quiet --editable ".[docs]"
	@touch $@

demo: install ## Train a tiny vision-language model with verl on the CPU (minutes)
	$(BIN)/ssl4rl demo --out runs/demo

learn: install ## Rotation, jigsaw, position and contrastive, until accuracy has risen (up to an hour): make learn [PHOTOS=folder]
	$(BIN)/ssl4rl demo --learn $(if $(PHOTOS),--photos "$(PHOTOS)") --out runs/learn

test: install ## All tests
	$(BIN)/python -m pytest -m "not e2e" $(PARALLEL)
	$(BIN)/python -m pytest -m e2e $(RUNS)

test-full: install ## The tests that start no training, on five times as many samples
	SSL4RL_TEST_SAMPLES=500 $(BIN)/python -m pytest -m "not e2e" $(PARALLEL)

test-fast: install ## Those of them that are quick, on few samples
	SSL4RL_TEST_SAMPLES=20 $(BIN)/python -m pytest -m "not e2e and not slow" $(PARALLEL)

test-e2e: install ## The tests that run verl's trainer
	$(BIN)/python -m pytest -m e2e $(RUNS)

# A GPU's environment is not this one, which holds CPU builds: run it in that one, or name its Python in PYTHON.
GPU_CHECK ?= runs/gpu-check
STEPS ?= 4
gpu-check: $(if $(filter cpu,$(DEVICE)),install) ## A few steps on this machine's GPU, as a page: make gpu-check [MODEL=weights] [STEPS=4] [DEVICE=cpu]
	SSL4RL_GPU_CHECK="$(abspath $(GPU_CHECK))" DEVICE="$(DEVICE)" MODEL="$(MODEL)" STEPS="$(STEPS)" \
	  $(if $(filter cpu,$(DEVICE)),$(BIN)/python,$(PYTHON)) -m pytest tests/gpu -m gpu

lint: install types ## Style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## Types and import rules, over the package laid out as when it is installed
	$(BIN)/python .ci/lay_out.py
	$(BIN)/mypy
	cd build/package && $(abspath $(BIN))/lint-imports --no-logo --no-cache ../../pyproject.toml

wheel: install ## Build the wheel, and use it in a new environment outside of the checkout
	$(BIN)/python .ci/check_wheel.py

coverage: install ## Lines that the fast tests reach, at few samples of each level (they run a third to two thirds slower)
	SSL4RL_TEST_SAMPLES=5 $(BIN)/python -m pytest -m "not e2e" $(PARALLEL) --cov --cov-report=term

# In an environment of its own: uv is no dependency of the package.
UV ?= build/uv
$(UV)/bin/uv:
	$(PYTHON) -m venv $(UV)
	$(UV)/bin/python -m pip --disable-pip-version-check install --quiet "uv==0.13.9"

constraints: $(UV)/bin/uv ## Make the constraints files; UPGRADE=1 takes the newest versions that fit
	PATH="$(abspath $(UV))/bin:$$PATH" $(PYTHON) .ci/make_constraints.py $(if $(UPGRADE),--upgrade)

# SET=cpu-vllm0.27 for the other set, FOLDER=... to keep the environment.
other-versions: install $(UV)/bin/uv ## The CPU path with the versions that a GPU user gets (7 GB, ten minutes)
	PATH="$(abspath $(UV))/bin:$$PATH" $(BIN)/python tests/bench/other_versions.py $(if $(SET),--set $(SET)) \
	  $(if $(FOLDER),--folder $(FOLDER)) $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

# PYTHON312: the image's Python, by name or path.
image-install: install $(UV)/bin/uv ## What pip would do in verl's container image: make image-install SSL4RL_VERL_REPO=clone of verl
	PATH="$(abspath $(UV))/bin:$$PATH" $(BIN)/python tests/bench/image_install.py $(if $(PYTHON312),--python $(PYTHON312))

# Not in [dev]: with them pip would search for a consistent set for many minutes.
hooks: install ## Install the pre-commit hooks
	$(PIP) install --quiet "pre-commit>=4,<5" "pre-commit-hooks>=6,<7"
	$(BIN)/pre-commit install

format: install ## Apply the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-build ## Speed and memory of the data pipeline and the rewards (half an hour)
	$(BIN)/python -m pytest tests/bench/bench_*.py --benchmark-only --benchmark-columns=median,iqr,ops,rounds
	$(BIN)/python tests/bench/import_time.py
	$(BIN)/python tests/bench/build_memory.py

bench-build: install ## Rows a second of a build beside a bare loop of Pillow, with one and two workers (minutes)
	$(BIN)/python tests/bench/building.py

bench-once: install ## Every bench once, at its smallest size: does it still run? (two minutes; CI does it)
	$(BIN)/python tests/bench/once.py

profile: install ## Where a training step's time goes on the CPU (five minutes)
	$(BIN)/python tests/bench/step_time.py

demo-seeds: install ## The demo with five seeds, and the table and picture of README and docs/cpu.md (half an hour)
	$(BIN)/python tests/bench/demo_seeds.py runs/seeds --docs

curriculum: install ## Train with nine ways to draw levels, eight seeds each (hours; goes on where it was stopped), and write docs/curriculum.md
	$(BIN)/python tests/bench/curriculum.py runs/curriculum --docs

transfer: install ## Train each task of cpu_learn alone and all together, test each on all (hours; goes on where it was stopped)
	$(BIN)/python tests/bench/transfer.py runs/transfer --docs

gallery: install ## Make docs/gallery.md and the tables of tasks and recipes anew (a minute or two)
	$(BIN)/python docs/make_gallery.py
	$(BIN)/python docs/make_recipes.py
	$(BIN)/python docs/make_gpu_settings.py
	$(BIN)/python docs/make_paper.py
	$(BIN)/python docs/make_answers.py

oracles: install ## How often solvers that see only pixels agree with the truth: make oracles PHOTOS=folder
	$(BIN)/python tests/bench/oracles.py $(PHOTOS)

docs: $(VENV)/.made-docs ## Build the documentation
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## Remove what tests, linting and builds leave behind
	rm -rf build dist site .coverage .pytest_cache .mypy_cache .ruff_cache .benchmarks *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## clean, and remove the virtual environment
	rm -rf $(VENV)
