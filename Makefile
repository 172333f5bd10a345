# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Everything runs in .venv, built here from constraints.txt; nothing outside this folder changes.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench format clean

demo: .venv/ready
	$(BIN)/tilenet demo demo

test: check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile
	$(BIN)/python -m benchmarks.bench_blockwise --quick
	$(BIN)/python -m benchmarks.bench_predict --quick
	$(BIN)/python -m benchmarks.bench_plan --quick
	$(BIN)/python -m benchmarks.bench_metrics --quick
	$(BIN)/python -m benchmarks.bench_weight_map --quick
	$(BIN)/python -m benchmarks.bench_gpu --device cpu --quick

# Lint, types, import contracts, docstrings: what pre-commit runs too.
check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.docstrings

bench: .venv/ready
	$(BIN)/python -m benchmarks.bench_blockwise --json benchmarks/results/blockwise.json
	$(BIN)/python -m benchmarks.bench_predict --json benchmarks/results/predict.json
	$(BIN)/python -m benchmarks.bench_plan --json benchmarks/results/plan.json
	$(BIN)/python -m benchmarks.bench_metrics --json benchmarks/results/metrics.json
	$(BIN)/python -m benchmarks.bench_weight_map --json benchmarks/results/weight_map.json

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# PyTorch first and alone: its pinned build must not be replaced by what another package asks for.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "tilenet needs Python 3.11 or newer"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
