# Two commands need nothing but Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LAKE ?= demo-lake
SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint types layers check bench fuzz clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("ckptlake needs Python 3.11 or newer, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[torch,dev]'
	@touch $@

demo: $(READY)  ## Train six small models, log them to a lake and print its leaderboard
	$(BIN)/python -m examples.aircraft_pose.demo --lake $(LAKE)

test: $(READY)  ## Run every test
	$(BIN)/python -m pytest -m 'not slow'

test-slow: $(READY)  ## Run the long fault and soak tests
	$(BIN)/python -m pytest -m slow --timeout 3600

lint: $(READY)  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## Check types
	$(BIN)/mypy

layers: $(READY)  ## Check that modules import only from layers below
	$(BIN)/lint-imports

check: lint types layers test  ## Everything CI runs

bench: $(READY)  ## Measure speed against references; results as JSON in benchmarks/results
	$(BIN)/python -m benchmarks

fuzz: $(READY)  ## Give every reader damaged and hostile files; needs atheris in .venv
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

clean:  ## Delete the environment and everything made
	rm -rf $(VENV) $(LAKE) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz
