# Every target makes its own .venv first (seconds when it is up to date). Only Python >= 3.11 and make are needed.
#   TORCH=gpu        the CUDA build of PyTorch (several GB) instead of the CPU one; stays until TORCH=cpu
#   PYTHON=...       the interpreter for a new .venv
#   ARGS="..."       more arguments, e.g. make test ARGS="-k geometry", make demo ARGS="--help"
#   SEMKEY_SHARED    folder of the development data (default ../shared); tests that need it skip where it is absent

SHELL := /bin/sh
BIN := .venv/bin
SEMKEY_SHARED ?= $(abspath ../shared)
export SEMKEY_SHARED PYTHON TORCH

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format docs dist lock release-check clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@sed -n 's/^#   /  /p' $(MAKEFILE_LIST)

setup: ## Make .venv from requirements.lock, with semkey installed editable
	@scripts/setup.sh

demo: setup ## Detect, match and run SLAM in a rendered room (no download, no data)
	@$(BIN)/semkey demo $(ARGS)

# One process a core, three at most: each needs 0.8 GB, and one of them up to 3.8 for images of a hundred megapixels.
# The floor of coverage holds for all tests, not for those that ARGS chooses.
COVERAGE := --cov --cov-report= --cov-fail-under=90
test: lint ## Linter, formatter, type checker, all tests and the floor of coverage
	$(BIN)/python -m pytest -n logical --maxprocesses 3 --dist worksteal $(if $(ARGS),$(ARGS),$(COVERAGE))

lint: setup ## Linter, formatter and type checker only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check

format: setup ## Format and fix what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## Build the site of the documentation into build/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

dist: setup ## Build wheel and sdist into dist/, and check them as an index would
	$(BIN)/python scripts/release_check.py --build-only

lock: setup ## Pin the dependencies of pyproject.toml anew into requirements.lock
	@scripts/lock.sh $(ARGS)

release-check: setup ## Build wheel and sdist, install into an empty environment, run README's lines there
	$(BIN)/python scripts/release_check.py

clean: ## Remove .venv and everything generated
	rm -rf .venv build dist out .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
