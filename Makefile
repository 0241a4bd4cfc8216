# `make test` and `make demo` work from a fresh clone: the first run creates the virtual environment.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Pinned versions of everything but torch, for a reproducible environment; `make CONSTRAINTS= install` does without.
CONSTRAINTS ?= constraints.txt
# Another torch than the newest that pip finds: make install TORCH="torch==2.11.0 torchvision==0.26.0"
TORCH ?=

.DEFAULT_GOAL := help
.PHONY: help install test lint types unit faults soak fuzz demo docs leaderboard constraints clean

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/.installed ## create .venv with the three programs, Detectron2 and the development tools

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		$(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) $(TORCH) --editable '.[dev]'
	$(BIN)/ccop-eval install-detectron2
	touch $@

test: lint types unit ## run every check: lint, types and unit

lint: install ## check style, format and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo

types: install ## check types
	$(BIN)/mypy ccop_hub pretrain eval

# Two test processes of one thread each fill two cores. A file stays in one process, so that its fixtures are made once;
# in the order of the files, quick ones come last and both processes end together.
unit: install ## run the tests
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

faults: install ## try injected faults on real commands and rewrite docs/reliability.md, in up to 20 minutes
	$(BIN)/python -m tests.faults --results benchmarks/results/faults.json

soak: install ## load and kill real commands for MINUTES=30 and rewrite docs/reliability.md
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30) --results benchmarks/results/soak.json

fuzz: install ## fuzz the readers of untrusted files; MINUTES=5 each (needs the extra "fuzz")
	for target in $$($(BIN)/python -W ignore -m tests.fuzz); do \
		$(BIN)/python -m tests.fuzz $$target --minutes $(or $(MINUTES),5) || exit 1; done

demo: install ## run the full pipeline on synthetic images, in minutes on two CPU cores
	$(BIN)/python scripts/demo.py

docs: install ## build the documentation site, build/site/index.html
	$(BIN)/python scripts/site/build.py

leaderboard: install ## rebuild docs/leaderboard.md from the records in results/
	$(BIN)/ccop-eval leaderboard results docs/leaderboard.md

constraints: install ## rewrite constraints.txt for pyproject.toml; UPGRADE=1 moves every pin to its newest version
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-annotate --no-emit-package setuptools \
		--custom-compile-command "make constraints" $(if $(UPGRADE),--upgrade) pyproject.toml --output-file constraints.txt

clean: ## remove the demo and the caches, but not .venv
	rm -rf demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
