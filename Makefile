# Everything that a developer or the CI runs. Each target sets up what it needs: a virtual environment in .venv with
# the exact, hash-checked versions of requirements/dev.txt, and this tree installed in it in place.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; done)
ARGS ?=
JOBS ?= 2

BIN := .venv/bin
# Named after what was installed, so that another lock or another list of entry points installs again.
READY := .venv/ready-$(shell cat requirements/dev.txt pyproject.toml | sha256sum | cut -c 1-16)

.PHONY: help demo test check lint types contracts docs bench lock build clean

help:  ## Show the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(READY):
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed; name it with PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	rm -f .venv/ready-*
	touch $@

demo: $(READY)  ## Make sample data, serve it, walk through it (ARGS=--once ends by itself)
	$(BIN)/ndstream demo $(ARGS)

test: $(READY)  ## Run the tests (ARGS are for pytest)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

check: lint types contracts docs test  ## Everything that the CI runs

lint: $(READY)  ## Style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)  ## Static types
	$(BIN)/mypy

contracts: $(READY)  ## Who may import whom
	$(BIN)/lint-imports --no-cache

docs: $(READY)  ## Build the documentation into docs/_build
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

bench: $(READY)  ## Measure against limits taken in the same run (ARGS name groups of rows)
	$(BIN)/python -m benchmarks $(ARGS)

lock: $(READY)  ## Resolve the dependencies anew into requirements/ (UPGRADE=--upgrade takes newer versions)
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--all-extras --group dev pyproject.toml --output-file requirements/dev.txt $(UPGRADE)

build: $(READY)  ## Build the wheel and the source archive into dist/
	$(BIN)/python -m hatchling build

clean:  ## Remove everything that these targets made
	rm -rf .venv dist build docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
