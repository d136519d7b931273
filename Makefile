# SPDX-License-Identifier: Apache-2.0
#
# Every target sets the checkout up first, as far as it needs it (tools/setup), which costs nothing
# when that is done.

SHELL := /bin/bash
.DEFAULT_GOAL := help
RUN := tools/run

# What `make demo` replays: empty is the scene that the project makes itself; otherwise the name of
# a sequence in the DATA folder.
SEQUENCE ?=
DATA ?= $(or $(LAZYXMEM_DATA),$(wildcard ../shared/data))
export LAZYXMEM_DATA := $(DATA)
# How fast, against the recording; empty leaves it to the demonstration.
RATE ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
# Tests run side by side, each worker with one thread; one that is done takes over tests of another.
WORKERS ?= 2
PYTEST := python -m pytest --numprocesses $(WORKERS) --dist worksteal --durations 20

PYTHON_SOURCES := lazyxmem_ros training bench examples test launch tools setup.py
# Those that exist: each name is a path that ruff may be given.
LINTED := $(wildcard $(PYTHON_SOURCES))
TYPED := $(wildcard lazyxmem_ros training bench examples)

# The graphs that demo, tests and benchmarks start are nobody else's business on the network.
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST

.PHONY: help setup setup-dev demo test test-fast test-again lint format train-smoke bench lock clean clean-all

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Prepare .venv and build the messages (the other targets do it, too)
	@tools/setup

setup-dev: ## The same with what tests and linters need
	@tools/setup --dev

demo: setup ## Track through a bag with the real nodes; SEQUENCE=camel, OPERATOR=browser to answer
	@$(RUN) python -m lazyxmem_ros.demo $(if $(SEQUENCE),--sequence $(SEQUENCE)) $(if $(RATE),--rate $(RATE)) $(if $(OPERATOR),--operator $(OPERATOR))

test: setup-dev ## Run every test; PYTEST_ARGS="-k memory" passes options on
	@$(RUN) $(PYTEST) $(PYTEST_ARGS)

test-fast: setup-dev ## Run the tests that are not marked slow
	@$(RUN) $(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-again: setup-dev ## Run the tests that failed last, one after the other
	@$(RUN) python -m pytest --last-failed --last-failed-no-failures none --verbose $(PYTEST_ARGS)

lint: setup-dev ## Check style, formatting and types
	$(RUN) ruff check $(LINTED)
	$(RUN) ruff format --check $(LINTED)
	$(RUN) mypy $(TYPED)

format: setup-dev ## Correct formatting, and the style where that is safe
	$(RUN) ruff check --fix $(LINTED)
	$(RUN) ruff format $(LINTED)

train-smoke: setup ## Train a tiny tracker and the refiner for a few steps, to see that training works
	@$(RUN) python -m training.smoke

bench: setup-dev ## Run every benchmark, and make one page of them: out/bench/summary.md
	@$(RUN) python bench/all.py $(BENCH_ARGS)

lock: setup ## Resolve requirements-lock.txt anew
	$(RUN) tools/lock

clean: ## Remove what was built and made, but not .venv and what was trained
	find out -mindepth 1 -maxdepth 1 ! -name training -exec rm -rf {} + 2>/dev/null || true
	rm -rf build install log .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

clean-all: clean ## Remove .venv and what was trained as well
	rm -rf .venv out
