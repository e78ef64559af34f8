# `make help` says what there is. Everything happens in .venv; as root, tests also install Debian packages.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where this is set, as in many images, each of the hundreds of daemons that tests start would compile all modules anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test test-engines test-elasticsearch docs lint format soak bench clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(VENV)/.ready: pyproject.toml
	@./tests/servers/install venv "$(PYTHON)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/.ready ## see it work: containers, routes and a live view
	$(BIN)/logroute demo

# Whole modules, for what the tests of one share; each worker has servers of its own, so there are not many.
WORKERS := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: $(VENV)/.ready ## every check and test; as root also against real servers
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint servers
	$(BIN)/pytest $(WORKERS)

.PHONY: servers
servers: # what the tests want beside Python; that is waiting for others, mostly, while `lint` computes
	@./tests/servers/install

ENGINES := debian newest trixie
test-engines: $(VENV)/.ready ## the tests with a real Docker engine, on three versions of it (as root; the slow ones too)
	@./tests/servers/install engines
	@failed=; for engine in $(ENGINES); do \
		echo "== $$engine"; \
		LOGROUTE_TEST_ENGINE=$$engine LOGROUTE_REQUIRE_SERVERS=1 $(BIN)/pytest -m real_engine || failed="$$failed $$engine"; \
	done; [ -z "$$failed" ] || { echo "failed on:$$failed"; exit 1; }

test-elasticsearch: $(VENV)/.ready ## 300,000 records into Elasticsearch and OpenSearch through kill -9 (as root; some minutes)
	@./tests/servers/install search
	LOGROUTE_REQUIRE_SERVERS=1 $(BIN)/pytest -s -m slow_search tests/end_to_end

docs: $(VENV)/.ready ## write docs/options.md from the options' models
	$(BIN)/python -m logroute.config.reference docs/options.md

lint: $(VENV)/.ready ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict -p logroute

format: $(VENV)/.ready ## write the code as ruff formats it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

SEED :=
MINUTES := 10
FAULTS :=
soak: $(VENV)/.ready ## hurt a daemon for MINUTES= and check what arrives; SEED= repeats a run, FAULTS= chooses
	$(BIN)/python -m tests.oracle --minutes "$(MINUTES)" --faults "$(FAULTS)" $(if $(SEED),--seed "$(SEED)")

bench: $(VENV)/.ready ## measure whole pipelines on a million lines; writes benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

clean: ## remove what was made here
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
