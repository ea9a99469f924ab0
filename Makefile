VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: setup sweep test quick format docs

sweep: setup  ## Train and measure 74 networks on generated animals: five to ten minutes on two cores.
	$(BIN)/orch sweep --grid all-categories --profile laptop

test: setup  ## Style, types and every test: the command of CI.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

quick: setup  ## Tests without real sweeps and kills.
	$(BIN)/pytest -m "not slow"

docs: setup  ## HTML pages of the four packages' API, in build/api/.
	$(BIN)/python -W error::UserWarning docs/api.py build/api

format: setup  ## Fix style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
