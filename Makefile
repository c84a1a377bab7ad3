# `make demo` and `make test` need nothing but git, python3 (3.11 or newer) and make: each sets up what it uses.
#
#   make demo [ARGS="--devices 3"]     the worked example on real data; no server, nothing outside this folder
#   make test [ARGS="tests/unit"]      the tests; installs Mosquitto, PostgreSQL, Chromium, SPIN from Debian where it may
#   make lint                          style, types, the direction of imports, the size of functions and files
#   make bench [ARGS=…]                the benchmarks
#   make fuzz [FUZZ_SECONDS=300]       coverage-guided fuzzing of the parsers
#   make simulate [SEEDS=1000]         the deterministic simulation of whole deployments
#   make model [ARGS=--full]           the model of the handover protocol, in every state (installs SPIN)
#   make wheel                         dist/datasync-….whl and the source archive
#   make clean                         remove what the targets above made

SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
SEEDS ?= 100
FUZZ_SECONDS ?= 300

.DEFAULT_GOAL := demo
.PHONY: demo test lint bench fuzz simulate model wheel clean

demo: .venv/.with-demo
	$(BIN)/datasync demo $(ARGS)

test: .venv/.with-all
	.ci/test $(ARGS)

lint: .venv/.with-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/shape.py datasync migrations tests .ci

bench: .venv/.with-bench
	.ci/with-servers $(BIN)/python -m tests.benchmarks.run $(ARGS)

simulate: .venv/.with-all
	$(BIN)/python -m tests.simulation.run --seeds $(SEEDS)

model: .venv/.with-all
	.ci/with-servers $(BIN)/python -m tests.model.run $(ARGS)

fuzz: .venv/.with-all
	$(BIN)/python -m tests.fuzz.run --seconds $(FUZZ_SECONDS) $(ARGS)

wheel: .venv/.with-all
	rm -rf dist
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf .venv .demo dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .fuzz

# The stamps: an environment is made again only when what it depends on has changed.
.venv/.with-demo: pyproject.toml .ci/venv
	PYTHON="$(PYTHON)" .ci/venv demo
	touch $@

.venv/.with-all: pyproject.toml .ci/venv
	PYTHON="$(PYTHON)" .ci/venv demo,dev,postgres
	touch $@ .venv/.with-demo

.venv/.with-bench: pyproject.toml .ci/venv
	PYTHON="$(PYTHON)" .ci/venv demo,dev,postgres,bench
	touch $@ .venv/.with-all .venv/.with-demo
