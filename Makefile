# Everything that is made here lies below build/, which `make clean` removes.
PYTHON ?= python3
VENV := build/venv
BIN := $(VENV)/bin
ROUNDS ?= 10
EXAMPLES ?= 2000
BENCH ?= all
FOLDERS := broker quotas adapters storage accounting cli
export PYTHONPATH := tests
unexport PYTHONDONTWRITEBYTECODE
export HYPOTHESIS_STORAGE_DIRECTORY := build/cache/hypothesis

.PHONY: help demo up down test check bench torture-all clean pins packages
help: ## Say what can be made.
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

demo: packages $(VENV)/.ready ## One job's whole trip on a throwaway Slurm; leaves nothing running.
	$(BIN)/python tests/demo.py demo

up: packages $(VENV)/.ready ## The same, left running to play with.
	$(BIN)/python tests/demo.py up

down: $(VENV)/.ready ## End what `make up` left running.
	$(BIN)/python tests/demo.py down

test: packages packages-postgres $(VENV)/.ready checks ## All tests, those against real Slurm, sshd and PostgreSQL included.
	IDF_TORTURE_ROUNDS=$(ROUNDS) IDF_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest

check: $(VENV)/.ready checks ## Lint, types, import directions and the fast tests.
	$(BIN)/python -m pytest -q --numprocesses=auto -m "not cluster and not postgres and not slow"

.PHONY: checks packages-postgres
checks: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --cache-dir build/cache/import-linter

bench: packages $(VENV)/.ready ## Measure ours against the raw thing; BENCH=name for one.
	$(BIN)/python tests/bench/run.py $(BENCH)

torture-all: packages packages-postgres $(VENV)/.ready ## Every fault test at its issue's full number of rounds.
	IDF_TORTURE_ROUNDS=50 $(BIN)/python -m pytest -m torture --timeout=7200

packages:
	@sh tests/clusters/install-packages.sh python slurm

packages-postgres:
	@sh tests/clusters/install-packages.sh postgres

$(VENV)/.ready: requirements/dev.txt pyproject.toml
	@sh tests/clusters/install-packages.sh python
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@# Compiled code lies below build/ too, whoever starts this environment's Python and from where.
	@printf 'import sys; sys.pycache_prefix = "%s"\n' "$(CURDIR)/build/cache/python" \
		> "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pycache_below_build.pth"
	@$(BIN)/python -m compileall -q -j 2 $(VENV)/lib $(FOLDERS)
	@touch $@

pins: $(VENV)/.ready ## Renew the pinned requirements.
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes pyproject.toml -o requirements/run.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --group dev pyproject.toml -o requirements/dev.txt

clean: ## Remove everything that was made here.
	@if [ -x $(BIN)/python ]; then $(BIN)/python tests/demo.py down; fi
	rm -rf build
