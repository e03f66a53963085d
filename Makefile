# Everything lives in .venv. PYTHON is the interpreter it is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help sweep test lint format benchmark clean

help:  ## What can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

sweep: $(VENV)/run  ## The card's sweep on the embedded model: table, parquet, picture
	$(BIN)/python -m blip2sweep -m quant.bits=2,4,8 part=vit,llm,qformer

test: $(VENV)/dev  ## All tests
	$(BIN)/python -m pytest

lint: $(VENV)/dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev  ## Let ruff write
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(VENV)/run  ## How long things take on this machine
	$(BIN)/python scripts/bench_cli.py

clean:  ## Remove the environment and caches, never outputs/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache

# torch comes first and pinned, so that no other package chooses it.
$(VENV)/run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/dev: $(VENV)/run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,optuna,methods]'
	touch $@
