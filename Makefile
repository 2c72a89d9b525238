# Everything that is made here lies below build/, which `make clean` removes.
PYTHON ?= python3
VENV := build/venv
BIN := $(VENV)/bin
ROUNDS ?= 10
EXAMPLES ?= 2000
BENCH ?= all
FOLDERS := broker quotas adapters storage accounting cli
COVERS := $(addprefix tests/unit/test_,$(addsuffix .py,adjustments aid aid_arithmetic aid_of_awards aid_settings \
	award_dates award_import award_life awards_and_jobs can_award ceilings charged_jobs charging contracts forecast \
	ledger policy programmes programme_commands reclaims refunds restores tariffs typed_aid underuse writer)) \
	tests/property/test_charging.py tests/property/test_lifecycle.py
ALONE := not cluster and not kubernetes
MEASURED := --cov=quotas --cov-branch
WHOLE := --cov-report=term-missing:skip-covered --cov-fail-under=100
export COVERAGE_FILE := $(CURDIR)/build/coverage
export PYTHONPATH := tests
unexport PYTHONDONTWRITEBYTECODE
export HYPOTHESIS_STORAGE_DIRECTORY := build/cache/hypothesis

.PHONY: help demo up down k8s-up k8s-down test check coverage bench torture torture-k8s torture-all clean pins packages
help: ## Say what can be made.
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

demo: packages $(VENV)/.ready ## One job's whole trip on a throwaway Slurm; leaves nothing running.
	$(BIN)/python tests/demo.py demo

up: packages $(VENV)/.ready ## The same, left running to play with.
	$(BIN)/python tests/demo.py up

down: $(VENV)/.ready ## End what `make up` left running.
	$(BIN)/python tests/demo.py down

k8s-up: pool-programs ## A throwaway Kubernetes GPU pool to play with; ten minutes of building the first time.
	$(BIN)/python tests/clusters/kubernetes/pool.py start pool --base build/kubernetes

k8s-down: $(VENV)/.ready ## End what `make k8s-up` left running.
	$(BIN)/python tests/clusters/kubernetes/pool.py wipe pool --base build/kubernetes

test: packages packages-postgres checks ## All tests, those on real Slurm, sshd, PostgreSQL and Kubernetes included.
	@# The pool's programs are built on one core meanwhile: the tests on Slurm mostly wait.
	$(MAKE) --jobs=2 test-slurm pool-programs
	IDF_TORTURE_ROUNDS=$(ROUNDS) IDF_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest --durations=15 --numprocesses=auto -m "$(ALONE)" $(MEASURED) $(WHOLE)
	IDF_TORTURE_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest --durations=15 -m kubernetes

.PHONY: test-slurm
test-slurm: packages $(VENV)/.ready
	IDF_TORTURE_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest --durations=15 --numprocesses=2 --dist=loadfile -m cluster

check: $(VENV)/.ready checks ## Lint, types, import directions, and the tests that need no database or server.
	$(BIN)/python -m pytest -q --numprocesses=auto -m "$(ALONE) and not slow and not database"

coverage: packages-postgres $(VENV)/.ready ## Every branch of quotas/ is taken by a test: the gate of `make test`, in minutes.
	@# What reads from PostgreSQL has branches of its own; all others are taken on SQLite alike.
	$(BIN)/python -m pytest -q $(MEASURED) --cov-report= tests/unit/test_audit.py
	$(BIN)/python -m pytest -q --numprocesses=auto -m "not postgres and not slow" $(MEASURED) --cov-append $(WHOLE) $(COVERS)

.PHONY: checks packages-kubernetes packages-postgres pool-programs
checks: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --cache-dir build/cache/import-linter

bench: packages pool-programs ## Measure ours against the raw thing; BENCH=name for one.
	$(BIN)/python tests/bench/run.py $(BENCH)

torture: ROUNDS = 200
torture: packages $(VENV)/.ready ## Rounds of faults on a real cluster, and their table; ROUNDS=200 unless you say otherwise.
	IDF_TORTURE_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -q --capture=no --timeout=36000 tests/integration/test_fault_rounds.py

torture-k8s: ROUNDS = 200
torture-k8s: pool-programs ## The same on a real Kubernetes pool.
	IDF_TORTURE_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -q --capture=no --timeout=36000 tests/integration/test_kubernetes_rounds.py

torture-all: packages packages-postgres pool-programs $(VENV)/.ready ## Every fault test at its issue's full number of rounds.
	IDF_TORTURE_ROUNDS=100 $(BIN)/python -m pytest -m torture --timeout=36000 --ignore=tests/integration/test_fault_rounds.py --ignore=tests/integration/test_kubernetes_rounds.py
	$(MAKE) torture
	$(MAKE) torture-k8s

packages:
	@sh tests/clusters/install-packages.sh python slurm

packages-kubernetes:
	@sh tests/clusters/install-packages.sh kubernetes

pool-programs: packages-kubernetes $(VENV)/.ready
	@$(BIN)/python tests/clusters/kubernetes/binaries.py >/dev/null

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
	@if [ -d build/kubernetes ]; then $(BIN)/python tests/clusters/kubernetes/pool.py wipe pool --base build/kubernetes; fi
	rm -rf build
