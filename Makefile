# Two commands do everything on a fresh machine: `make demo` and `make test`. `make test-long` runs
# what takes longer, before a release.
# Everything runs in .venv, built here from constraints.txt; nothing outside this folder changes.

PYTHON ?= python3
BIN := .venv/bin
PEERS := .venv-peers/bin
# Test processes: one more than cores, for many tests wait for other processes.
PROCESSES ?= 3
# Short benchmarks check results and give no figures, so two run at once, the longest first.
SHORT := bench_predict bench_plan bench_blockwise bench_io bench_metrics bench_weight_map \
	'bench_gpu --device cpu'

# Tests of storage, which names of Zarr that it does not promise decide.
BOUNDS := tests/whole/test_private_names.py tests/volumes/test_volume_open.py tests/volumes/test_volume_write.py \
	tests/volumes/stores/test_local_store.py tests/volumes/stores/test_urls.py tests/volumes/test_listing.py \
	tests/formats/test_source.py tests/inference/test_streaming.py

.PHONY: demo test test-long check bench peers newest oldest format clean

demo: .venv/ready
	$(BIN)/tilenet demo demo

test: check
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
	printf '%s\n' $(SHORT) | xargs -P 2 -I '{}' sh -c '$(BIN)/python -m benchmarks.{} --quick'

test-long: check newest oldest
	$(BIN)/python -m pytest -m long --numprocesses 2 --dist loadfile
	$(BIN)/python -m benchmarks.bench_peers --quick
	$(BIN)/python -m benchmarks.bench_scale

# Lint, types, import contracts, docstrings: what pre-commit runs too.
check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.docstrings

bench: .venv/ready .venv-peers/ready
	$(BIN)/python -m benchmarks.bench_blockwise --json benchmarks/results/blockwise.json
	$(BIN)/python -m benchmarks.bench_predict --json benchmarks/results/predict.json
	$(BIN)/python -m benchmarks.bench_plan --json benchmarks/results/plan.json
	$(BIN)/python -m benchmarks.bench_io --json benchmarks/results/io.json
	$(BIN)/python -m benchmarks.bench_metrics --json benchmarks/results/metrics.json
	$(BIN)/python -m benchmarks.bench_weight_map --json benchmarks/results/weight_map.json
	$(PEERS)/python -m benchmarks.bench_peers --json benchmarks/results/peers.json

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

# The same with the extra `peers`, apart: chunkflow cannot have the python-dateutil of constraints.txt.
peers: .venv-peers/ready

.venv-peers/ready: pyproject.toml constraints.txt benchmarks/peers/constraints.txt
	$(PYTHON) -m venv .venv-peers
	grep -v '^python-dateutil==' constraints.txt > .venv-peers/constraints.txt
	$(PEERS)/python -m pip install --quiet --constraint .venv-peers/constraints.txt torch
	$(PEERS)/python -m pip install --quiet --constraint .venv-peers/constraints.txt \
		--constraint benchmarks/peers/constraints.txt --editable '.[peers]'
	touch $@

# What stands on Zarr, with the newest versions of all that tilenet needs, the upper bounds of
# pyproject.toml lifted, and with the oldest that it allows. PyTorch stays as constrained: its builds
# differ by index.
newest: .venv-newest/ready
	.venv-newest/bin/python -m pytest $(BOUNDS)

oldest: .venv-oldest/ready
	.venv-oldest/bin/python -m pytest $(BOUNDS)

.venv-newest/ready .venv-oldest/ready: .venv-%/ready: pyproject.toml constraints.txt tests/bounds.py
	$(PYTHON) -m venv .venv-$*
	grep '^torch==' constraints.txt > .venv-$*/torch.txt
	$(PYTHON) -m tests.bounds $* > .venv-$*/requirements.txt
	.venv-$*/bin/python -m pip install --quiet --requirement .venv-$*/torch.txt
	.venv-$*/bin/python -m pip install --quiet --constraint .venv-$*/torch.txt \
		--requirement .venv-$*/requirements.txt
	touch $@

clean:
	rm -rf .venv .venv-peers .venv-newest .venv-oldest demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
