# drape from a bare machine: git, make, and Python 3.11 or newer with pip.
#
#   make demo       bundled people in bundled clothes -> demo/
#   make test       lint, types, tests
#   make test-all   also the slow tests and those of torch.compile
#   make check      lint and types only
#   make venv       only build .venv
#   make lock       resolve pyproject.toml again, keeping the pins that fit (UPGRADE=1: the newest releases)
#   make clean      delete what make built
#
# When .venv is built, PYTHON=python3.12 chooses its interpreter and TORCH=cpu, on Linux, a torch without CUDA.

PYTHON ?= python3
TORCH ?=
export TORCH
UPGRADE ?=
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY := .venv/ready
# As many processes as cores, one thread each; the tests of a file stay together, since they share what they prepared.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile
SECONDS = $$(($$(date +%s) - start))

.PHONY: demo test test-all check venv lock clean

demo: $(READY)
	$(BIN)/drape demo --out demo

test: check
	@start=`date +%s`; $(PYTEST) -m "not slow and not compile" && echo "tests took $(SECONDS) s" && cat $(READY)

test-all: check
	@start=`date +%s`; $(PYTEST) -m "not compile" && DRAPE_CHECK_SHAPES=0 $(PYTEST) -m compile && \
	  echo "tests took $(SECONDS) s" && cat $(READY)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

venv: $(READY)

$(READY): requirements.lock requirements-cpu.lock requirements-cuda.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) found; drape needs Python 3.11 or newer" >&2; exit 2; }
	@$(PYTHON) tools/setup_venv.py

lock: $(READY)
	$(BIN)/python tools/lock.py $(if $(UPGRADE),--upgrade)

clean:
	rm -rf .venv demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
