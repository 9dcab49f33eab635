# `make demo` and `make test` are all a newcomer needs; `make help` lists the rest.

PYTHON ?= python3
BIN = $(CURDIR)/.venv/latest/bin
# Spark's workers run the driver's Python, not whatever `python3` is on the PATH.
LATEST = env PYSPARK_PYTHON=$(BIN)/python PYSPARK_DRIVER_PYTHON=$(BIN)/python PATH="$(BIN):$$PATH"
UV = $(CURDIR)/.venv/tools/bin/uv
LANES = latest spark35

.PHONY: help setup latest jars jvm demo demo-realtime examples test lint format doctor bench pictures soak lock wheel clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 15

setup: ## set up both lanes: .venv/latest, .venv/spark35
	@$(PYTHON) scripts/bootstrap.py $(LANES)

latest:
	@$(PYTHON) scripts/bootstrap.py latest

demo: latest ## the jobs one after another: train, evaluate, publish, score, compare
	@$(LATEST) $(BIN)/python scripts/demo.py

demo-realtime: latest jvm ## records scored in milliseconds, Kafka to Kafka, with a live line; ARGS="--seconds 60" for longer
	@$(LATEST) $(BIN)/python scripts/demo_realtime.py $(ARGS)

examples: latest ## every example, small: train, score a table, score a stream; ARGS="fraud --script" narrows
	@$(LATEST) $(BIN)/python examples/run.py $(ARGS)

jars: setup # before the tests, whose clocks run; where they cannot be had the tests that need them say so
	@$(BIN)/python scripts/jars.py >/dev/null || true

jvm: jars ## build sparkdl/jvm/sparkdl-jvm.jar, which scores inside Spark's JVM
	@$(BIN)/python scripts/build_jvm.py || true

wheel: jvm ## dist/*.whl, with the jar in it
	@$(UV) build --quiet --wheel --out-dir dist .

test: jvm ## all tests on both lanes; ARGS="--lane latest -- -k bundle" narrows
	@$(BIN)/python scripts/run_tests.py $(ARGS)

lint: latest ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: latest ## let ruff put the code in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

doctor: latest ## check this machine, with a real launch of two ranks
	@$(LATEST) $(BIN)/python -m sparkdl doctor --launch

bench: latest jvm ## every benchmark, the quick way
	@set -e; for name in launch scoring scoring_settings scoring_startup scoring_growth reader training scaling collectives streaming realtime; do \
	  $(LATEST) $(BIN)/python benchmarks/$$name.py --quick; \
	done

pictures: latest ## run the notebooks in a Zeppelin interpreter, and draw docs/zeppelin/*.png
	@$(LATEST) $(BIN)/python scripts/notebook_pictures.py

soak: jvm ## the long runs
	@$(BIN)/python scripts/run_tests.py -- -m soak --timeout 0

lock: latest ## pin the lanes' packages anew
	@set -e; cd locks; for lock in $(LANES) airflow; do \
	  $(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes $$lock.in -o $$lock.txt; \
	done; \
	$(UV) pip compile --quiet --universal --python-version 3.10 --generate-hashes tools.in -o tools.txt

clean: ## remove what set-up, tests and demo made here (not the caches in ~/.cache)
	@rm -rf .venv .demo .examples .reports build dist *.egg-info spark-warehouse metastore_db derby.log
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
