# `make test` and `make demo` work from a clean clone: the first call creates the virtual environment.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: install test lint types unit demo clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/ccop-eval install-detectron2
	touch $@

test: lint types unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo

types: install
	$(BIN)/mypy ccop_hub pretrain eval

# Two test processes of one thread each fill two cores.
unit: export OMP_NUM_THREADS ?= 1
unit: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

demo: install
	$(BIN)/python scripts/demo.py

clean:
	rm -rf demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
