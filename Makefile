# make run    serve on 127.0.0.1:2525        make demo   watch two relays hold a partner to TLS
# make check  format, lint, types, imports   make test   the whole suite       make bench  beside Postfix (BENCH=--quick)
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help run demo check format test bench lock clean

help:
	@sed -n 's/^# //p' $(firstword $(MAKEFILE_LIST)) | head -n 2

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Ironpost needs Python 3.11 or newer; $(PYTHON) is older. Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Hashes are demanded of every package, the build back end included, so that no build fetches anything that is not locked.
$(VENV)/.runtime: requirements.txt pyproject.toml | $(BIN)/python
	$(PIP) --no-deps --require-hashes -r requirements.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# dkimpy comes as a source archive only: it is built with the locked setuptools that is there by now.
$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(PIP) --no-deps --no-build-isolation --require-hashes -r requirements-dev.txt
	@touch $@

run: $(VENV)/.runtime
	$(BIN)/relay init
	$(BIN)/relay serve

demo: $(VENV)/.runtime
	$(BIN)/relay demo

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/relay check --config connectors.yaml

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(VENV)/.dev
	@tests/install-peers
	$(BIN)/pytest -n 2 -rs --cov --cov-report= $(TESTS)
	$(BIN)/coverage report --include='relay/policy/*' --fail-under=100
	$(BIN)/coverage report --fail-under=90

bench: $(VENV)/.dev
	@tests/install-peers
	$(BIN)/python -m bench $(BENCH)

# Writes the two locked files anew. Needs uv; no index address is recorded, only names, versions and hashes.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
		pyproject.toml --extra build -o requirements.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		pyproject.toml --extra build --extra dev -c requirements.txt -o requirements-dev.txt

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
