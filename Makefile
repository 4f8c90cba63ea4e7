# Two commands on a fresh machine: `make demo` and `make test`.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# One build of torch is enough for everybody: the CPU build of this version, where the index has it.
TORCH ?= torch==2.13.0
DEMO := demo
# The demo is the built-in model's, and the tests make their own settings: yours stay out of both.
unexport PARTITA_DB PARTITA_ENDPOINT PARTITA_MODEL PARTITA_API_KEY PARTITA_API_KEY_FILE PARTITA_EMBED_API_KEY \
	PARTITA_EMBED_API_KEY_FILE OPENAI_API_KEY

.PHONY: demo test check mini bench clean

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Partita needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.local: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[local,web]"
	touch $@

$(VENV)/.dev: $(VENV)/.local
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

demo: $(VENV)/.local  ## render playing cards, cluster them by suit with the built-in model, score the result
	rm -rf $(DEMO)
	$(BIN)/partita examples $(DEMO)/cards --kind cards --count 60 --seed 2026
	$(BIN)/partita run $(DEMO)/cards --by suit --session demo --db sqlite:///$(DEMO)/partita.db --picture $(DEMO)/clusters.png
	$(BIN)/partita score demo --db sqlite:///$(DEMO)/partita.db --labels $(DEMO)/cards/labels.csv --column suit

test: $(VENV)/.dev  ## every test that needs no GPU and no browser download
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

check: $(VENV)/.dev  ## lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## every figure of docs/benchmarks.md and its plots, about ten minutes on two quiet cores
	mkdir -p build/bench
	$(BIN)/python -m benchmarks.machine --json build/bench/machine.json
	$(BIN)/python -m benchmarks.client --calls 600 --rounds 2 --json build/bench/client.json
	$(BIN)/python -m benchmarks.assessments --json build/bench/assessments.json
	$(BIN)/python -m benchmarks.utilisation --json build/bench/utilisation.json
	$(BIN)/python -m benchmarks.graph --json build/bench/graph.json
	$(BIN)/python -m benchmarks.search --json build/bench/search.json
	$(BIN)/python -m benchmarks.web --json build/bench/web.json
	$(BIN)/python -m benchmarks.report

mini: $(VENV)/.dev  ## train partita-mini, stage by stage; goes on where it was stopped
	$(BIN)/python -m training.mini --out runs/mini

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
