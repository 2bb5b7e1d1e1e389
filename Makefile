# Downriver: every target does the set-up it needs. Python >= 3.11 and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-strip-extras --no-header

.DEFAULT_GOAL := help
.PHONY: help install demo test check bench lock wheel clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## make .venv with everything, locked by hash

$(VENV)/.installed: requirements-dev.lock requirements-dbt.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Downriver needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.12 install" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; needs the package registry) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@test -x $(VENV)/dbt/bin/python || $(PYTHON) -m venv $(VENV)/dbt
	@$(VENV)/dbt/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements-dbt.lock
	@ln -sf ../dbt/bin/dbt $(BIN)/dbt
	@touch $@

demo: install  ## run the main job end to end against local stand-ins, then exit
	@$(BIN)/downriver demo

test: install  ## run the tests (no service to install first)
	@$(BIN)/python -m pytest -n 2

check: install  ## what CI checks: tests, lint, types, contracts, docs, wheel
	@./.ci/run

bench: install  ## measure, side by side with the alternatives
	@$(BIN)/python -m bench

lock: install  ## write the hash-locked requirements anew
	$(UV_COMPILE) pyproject.toml -o requirements.lock
	$(UV_COMPILE) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	$(UV_COMPILE) --group dbt -o requirements-dbt.lock

wheel: install  ## build the wheel into dist/
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean:  ## remove what was made here, your data in .downriver/ apart
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
