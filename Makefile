# What is done often. `make` alone lists it.

python := .venv/bin/python
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help install lint format types test test-fast faults bench docs

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

install: ## make .venv with all that the tests and checks need
	source scripts/lib/environment.sh && make_environment --dev

lint: ## read the code: ruff, its layout, spelling, shell, layers
	scripts/check.sh lint layout spelling shell layers

format: ## lay the code out, and sort its imports
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

types: ## check the types of src/
	scripts/check.sh types

test: ## all checks and all tests, as in continuous integration
	./run_tests.sh

test-fast: ## the tests that start no process
	$(python) -m pytest -m "not processes"

faults: ## the fault campaign: make faults FLAGS="--seed 1 --kills 100 --malformed 200"
	PYTHONPATH=$(CURDIR):$(CURDIR)/scripts:$(CURDIR)/tests:$(CURDIR)/tests/robustness \
		$(python) -m faults.campaign $(FLAGS)

bench: ## the quick benchmarks: the loader, and a training epoch
	$(python) benchmarks/loader.py
	$(python) benchmarks/training.py

docs: ## make the tables of flags and cfg keys
	$(python) scripts/make_tables.py
