# Everything lives in .venv. PYTHON is the interpreter it is made from.
PYTHON ?= python3
# STUDY is a copy of the published study's data (docs/blip2-coco.md); without one its report is not built.
STUDY ?= $(BLIP2SWEEP_STUDY_DATA)
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
# Empty is unset: tests start Python by the hundred, and each start compiled every module again.
export PYTHONDONTWRITEBYTECODE :=
.PHONY: help sweep report docs test test-all lint format benchmark clean

help:  ## What can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

sweep: $(VENV)/run  ## The card's sweep on the embedded model: table, parquet, picture
	$(BIN)/python -m blip2sweep -m quant.bits=2,4,8 part=vit,llm,qformer

report: $(VENV)/run  ## The report of the card's sweep; with STUDY=FOLDER that of the published BLIP-2 study too
	$(BIN)/python -m blip2sweep -m +study=card sweep_name=card
	$(BIN)/python -m blip2sweep report card
	$(if $(STUDY),$(BIN)/python -m blip2sweep import blip2-coco "$(STUDY)" && $(BIN)/python -m blip2sweep report blip2-coco)

docs: $(VENV)/docs  ## The pages of docs/ as a site, site/index.html, with those of the Python API
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo 'site/index.html; with search: $(BIN)/python -m http.server -d site'

test: $(VENV)/dev  ## The tests that need no service and no patience
	$(BIN)/python -m pytest -m 'not thorough'

test-all: $(VENV)/dev  ## All tests, as CI runs them
	$(BIN)/python -m pytest -n 3  # on two cores: one of them mostly waits, for Slurm's clock or a browser

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
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache

# torch comes first and pinned, so that no other package chooses it.
$(VENV)/run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/dev: $(VENV)/run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs,optuna,methods,recover,openvino,onnx,compressed-tensors]'
	touch $@

$(VENV)/docs: $(VENV)/run
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@
