# What a person runs. Everything lives in .venv; nothing else on the machine is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS := $(VENV)/.docs

.PHONY: demo test test-fast bench bench-gpu docs lint setup ui help

help: ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(INSTALLED) ## create .venv with everything that the project needs

$(INSTALLED): pyproject.toml constraints.txt install.py
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make setup PYTHON=/path/to/it") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python install.py '.[dev]'
	touch $@

# Beside the rest: who wants the demo need not wait for it.
$(DOCS): $(INSTALLED)
	$(BIN)/python install.py '.[docs]'
	touch $@

demo: $(INSTALLED) ## the whole pipeline on the packaged digits, from nothing
	PATH="$(CURDIR)/$(BIN):$$PATH" vit-vs-cnn run --preset demo --name demo

docs: $(DOCS) ## the documentation site, build/site/index.html; fails at a broken link
	$(BIN)/python docs/generate.py build/docs
	$(BIN)/zensical build --clean --strict

lint: $(INSTALLED) ## format, style, types, order of the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two processes and no more, also on more cores: the servers and trainings that they wait for need some too. From Python
# 3.12 on, counting lines costs next to nothing.
PYTEST = PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder
CORE = $(shell $(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")')
COUNTED = COVERAGE_CORE=$(CORE) PYTHONPATH="$(CURDIR)/tests/harness/measured$${PYTHONPATH:+:$$PYTHONPATH}" \
	TESTS_COVERAGE_CONFIG="$(CURDIR)/pyproject.toml" COVERAGE_FILE="$(CURDIR)/.coverage"

# What trains next to nothing.
FAST = $(addprefix tests/,config core data evaluation explain studies test_dvc_yaml.py)

test-fast: $(INSTALLED) ## lint and the quick tests, for the daily loop
	$(MAKE) --no-print-directory lint
	$(PYTEST) $(FAST)

test: $(INSTALLED) $(DOCS) ## every check
	$(MAKE) --no-print-directory lint
	rm -f .coverage .coverage.*
	$(COUNTED) $(PYTEST) --durations=20
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: export PATH := $(CURDIR)/$(BIN):$(PATH)
bench: $(INSTALLED) ## most benchmarks that need no GPU and no download, figures to build/bench; about an hour on 2 idle cores
	mkdir -p build/bench
	for preset in demo cpu; do \
		$(BIN)/python benchmarks/throughput.py --preset $$preset --json build/bench/throughput-$$preset.json || exit 1; \
		$(BIN)/python benchmarks/precision.py --preset $$preset --json build/bench/precision-$$preset.json || exit 1; \
		$(BIN)/python benchmarks/profile_epoch.py --preset $$preset --json build/bench/profile-$$preset.json || exit 1; \
	done
	$(BIN)/python benchmarks/allocator.py --preset cpu --json build/bench/allocator.json
	$(BIN)/python benchmarks/time_to_accuracy.py --preset demo --json build/bench/time-to-accuracy-demo.json
	$(BIN)/python benchmarks/scale.py --json build/bench/scale.json
	$(BIN)/python benchmarks/tuning_workers.py --json build/bench/tuning-workers.json
	$(BIN)/python benchmarks/gate_power.py --json build/bench/gate-power.json
	$(BIN)/python benchmarks/group_intervals.py --json build/bench/group-intervals.json
	$(BIN)/python benchmarks/replicates.py --json build/bench/replicates.json
	$(BIN)/python benchmarks/repeated_splits.py --json build/bench/repeated-splits.json
	$(BIN)/python benchmarks/overhead.py --json build/bench/overhead.json
	$(MAKE) --no-print-directory demo
	for version in 1 2; do \
		$(BIN)/python benchmarks/serving_latency.py --registry digits --model $$version \
			--json build/bench/serving-latency-$$version.json || exit 1; \
	done
	$(BIN)/python benchmarks/serving_load.py --registry digits --json build/bench/serving-load.json

bench-gpu: ## all that needs a GPU, on a host with the packages that benchmarks/gpu.py lists; DATA=copy of CIFAR-10; 40 minutes, then the rest when called again
	PYTHON="$(PYTHON)" benchmarks/gpu.sh $(if $(DATA),--data $(DATA))

ui: $(INSTALLED) ## Prefect's and MLflow's pages, and a worker, on loopback
	$(BIN)/vit-vs-cnn up
