# Everything here needs Python 3.11+ with venv, and make. `setup` makes .venv with pinned, hashed packages.
PYTHON ?= python3
PORT ?= 8000
DATA_DIR ?= recsys-data
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --require-hashes

.PHONY: setup run test check format bench locks sizes openapi clean

setup: $(VENV)/.installed

$(VENV)/.installed: locks/dev.txt pyproject.toml
	@echo "Installing pinned packages into $(VENV) (TensorFlow is large: a minute or two) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP_INSTALL) -r locks/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# MiniStack pins its own botocore, so it lives apart.
.venv-ministack/.installed: locks/ministack.txt
	@echo "Installing the MiniStack emulator for the tests …"
	@test -x .venv-ministack/bin/python || $(PYTHON) -m venv .venv-ministack
	@.venv-ministack/bin/python $(PIP_INSTALL) -r locks/ministack.txt
	@touch $@

run: setup
	@$(BIN)/recsys serve --port $(PORT) --data-dir $(DATA_DIR) --sample

test: setup .venv-ministack/.installed
	$(BIN)/python -m pytest -n 2 --dist loadgroup

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cfn-lint template.yaml

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
