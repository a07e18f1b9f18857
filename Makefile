# make setup | demo | test | check | bench
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

BENCHES := $(filter-out benchmarks/measure.py,$(wildcard benchmarks/*.py))

.PHONY: setup demo test check bench

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

demo: setup
	$(BIN)/posttrain run recipes/tiny.yaml

# two processes of one thread each: the models are so small that threads only wait for each other
test: setup
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	@set -e; for bench in $(BENCHES); do \
	  name=$$(basename "$$bench" .py); mkdir -p benchmarks/results; \
	  $(BIN)/python "$$bench" --json "benchmarks/results/$$name.json"; \
	done
