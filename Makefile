VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: setup sweep test quick format docs

sweep: setup  ## Train and measure 74 networks on generated animals; about ten minutes on two cores.
	$(BIN)/orch sweep --grid all-categories --profile laptop

test: setup  ## Everything that must hold: style, types, tests. The same command as CI.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

quick: setup  ## The tests without real sweeps and kills.
	$(BIN)/pytest -m "not slow"

docs: setup  ## HTML pages of the API of the four packages, in build/api/.
	$(BIN)/python -W error::UserWarning docs/api.py build/api

format: setup  ## Fix style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
