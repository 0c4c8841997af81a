# Everything a developer runs. `make` alone lists it.
SHELL := /bin/sh
.DEFAULT_GOAL := help

# The environment's own Python once there is one, so that a choice made at the first setup stays; else python3.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
BIN := .venv/bin
TEST_WORKERS ?= 3

.PHONY: help setup run test bench bench-staging bench-cache bench-scale lint format typecheck lock ui down doctor clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv: locked packages, Open MPI, Horovod built for the locked torch (PYTHON=... chooses one)
	@command -v $(PYTHON) >/dev/null || { echo "setup: Python 3.10 to 3.13 is needed, and $(PYTHON) was not found;" \
	  "install one, or name it: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) deployments/environment/bootstrap.py

run: setup ## Train and validate the digits example, end to end
	@$(BIN)/python examples/prepare_digits.py --to .data/digits
	@$(BIN)/trainyard run examples/digits.yaml

test: setup ## Run all tests
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup

bench: setup ## Measure training speed under every launcher (BENCH="--rounds 1 --quick" only tries it)
	@$(BIN)/python benchmarks/training.py $(BENCH)

bench-staging: setup ## Measure staging from S3 against rclone, the AWS CLI and s3fs (BENCH="--quick" only tries it)
	@$(BIN)/python -m benchmarks.staging $(BENCH)

bench-cache: setup ## Measure what a verified cache hit costs (BENCH="--quick" only tries it)
	@$(BIN)/python -m benchmarks.cache $(BENCH)

bench-scale: setup ## Measure the memory of staging 100,000 objects and one of 20 GB, which needs as much free disk
	@$(BIN)/python -m benchmarks.scale $(BENCH)

lint: setup ## Check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: setup ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

typecheck: setup ## Check types (mypy, strict)
	@$(BIN)/mypy

lock: setup ## Resolve deployments/environment/requirements.lock anew
	@$(BIN)/python -m trainyard.deployments.environment.lockfile

ui: setup ## Start a Prefect server, two workers and the deployments; 'make down' ends them
	@$(BIN)/python examples/prepare_digits.py --to .data/digits
	@$(BIN)/trainyard up

down: ## End what 'make ui' and 'make run' left running
	@test ! -x $(BIN)/trainyard || $(BIN)/trainyard down

doctor: setup ## Say whether this machine can train, and why not
	@$(BIN)/trainyard doctor

clean: ## Remove caches and build artefacts, and .venv; built Horovod wheels stay in ~/.cache/trainyard
	@rm -rf .venv .trainyard build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
