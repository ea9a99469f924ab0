VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: setup sweep test quick format docs secrets lock

sweep: setup  ## Train and measure 74 networks on generated animals: four to eight minutes on two cores.
	$(BIN)/orch sweep --grid all-categories --profile laptop

test: setup  ## Style, types and every test: the command of CI.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

quick: setup  ## Tests without real sweeps and kills.
	$(BIN)/pytest -m "not slow"

docs: setup  ## The reference at the end of docs/cli.md, and HTML pages of the packages' API in build/api/.
	$(BIN)/python docs/cli_reference.py
	$(BIN)/python -W error::UserWarning docs/api.py build/api

format: setup  ## Fix style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

secrets:  ## Passwords and keys for docker-compose.yml, in .env. Keeps those that are there; prints none.
	$(PYTHON) deploy/new_secrets.py

lock:  ## The packages of the image with their hashes, at the versions of constraints.txt. Needs uv.
	uv pip compile pyproject.toml --extra services --universal --python-version 3.11 --constraint constraints.txt \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --quiet \
	  --custom-compile-command 'make lock' --output-file requirements.lock

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
