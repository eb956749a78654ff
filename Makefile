# `make demo` and `make test` set themselves up in .venv; they need Python 3.10+ and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
export MPLBACKEND ?= Agg
# packages are compiled at their first import, and kept: some machines forbid that, and each process compiles anew
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo docs ruff types lint test test-data test-models test-training test-all dist audit clean
help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/'

.venv/.done: setup.cfg pyproject.toml constraints.txt monai_simclr/_version.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed: make PYTHON=python3.11 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "this Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@echo "setting up .venv (once, a few minutes)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check --no-compile -c constraints.txt -e ".[cluster,dev,dicom,docs,export,faiss,hub,nifti,pacs,timm,tracking]"
	@$(BIN)/python -W ignore -c 'import monai_simclr.study' # compiles the third of all modules that anything imports
	@touch $@

demo: .venv/.done  ## run the whole main job on drawn phantoms and write demo/report.html
	@$(BIN)/monai-simclr demo

docs: .venv/.done  ## build the site offline, warnings are errors: docs/_build/html/index.html
	$(BIN)/python -m sphinx -q -n -W --keep-going -b html docs docs/_build/html

lint: ruff types  ## style and types

ruff: .venv/.done  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.done  ## mypy
	$(BIN)/mypy

test: ruff  ## lint, types and the tests, in four processes: on two cores the tests that wait cost no time
	@$(MAKE) --no-print-directory -j4 types test-data test-models test-training

MODELS := engines inference losses networks report runtime transforms
TRAINING := bundles cli handlers study training workflows
test-models: .venv/.done  ## tests of networks, losses, transforms and inference
	$(BIN)/python -m pytest -p no:cacheprovider $(MODELS:%=tests/%)

test-training: .venv/.done  ## tests of bundles, training and studies
	$(BIN)/python -m pytest -p no:cacheprovider $(TRAINING:%=tests/%)

test-data: .venv/.done  ## all other tests: data, evaluation, docs
	$(BIN)/python -m pytest $(MODELS:%=--ignore=tests/%) $(TRAINING:%=--ignore=tests/%)

test-all: lint  ## the slow tests too
	$(BIN)/python -m pytest -m ""

dist: .venv/.done  ## wheel and sdist in dist/, checked
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt build twine setuptools
	rm -rf dist build
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

audit: .venv/.done  ## known vulnerabilities of what is installed; fails where PyPI's list of them cannot be reached
	$(BIN)/pip install -q --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --strict --skip-editable

clean:  ## remove what was made, .venv too
	rm -rf .venv demo build dist docs/_build docs/reference .pytest_cache .mypy_cache .ruff_cache
