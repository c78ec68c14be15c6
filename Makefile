# Every command of the project, one line a verb. README and CI call these and nothing else.
PYTHON ?= python3
VENV   ?= .venv
# Processes of make test: most tests wait more than they work.
JOBS   ?= 2
# torch's own name is pinned, so that one build serves everybody; the extras only ask for a range.
TORCH  ?= torch==2.13.0
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Progress for a person at a terminal, silence for a log.
PIP     = $(BIN)/python -m pip install --disable-pip-version-check $$(test -t 1 || echo --quiet)

.PHONY: help setup archives quick-archives run demo check format test unit contract e2e fault load contract-genuine bench bench-quick bench-peers docs floors clean

help: ## Show this list.
	@grep -hE '^[a-z -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z -]+):[^#]*## /  \1|/' | column -t -s '|'

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "marserve needs Python 3.11 or newer; this is %s. Name another one: make PYTHON=python3.12 ..." % sys.version.split()[0])'
	@echo "Making $(VENV): this takes a few minutes once."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) $(TORCH)
	@$(PIP) --editable ".[onnx,torch,load,environments,train,flask,bench,dev]"
	@touch $(READY)

setup: $(READY) ## Make the virtual environment and install everything.

archives: setup ## Train and export the worked models, and build their archives into model-store/.
	@$(BIN)/python scripts/build_archives.py

quick-archives: setup ## Those of the worked archives that take seconds to train.
	@$(BIN)/python scripts/build_archives.py --without-long

run: quick-archives ## Serve these archives: predict, scale, load-test, then keep serving until Ctrl-C.
	@$(BIN)/python scripts/tour.py

demo: quick-archives ## The same as run, and stop at the end.
	@$(BIN)/python scripts/tour.py --exit

check: setup floors ## Lint, format and types.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup ## Put the code into its format.
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

test: setup check ## Every test, and the coverage.
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --cov --cov-report=
	@$(BIN)/coverage report --skip-covered --sort=cover | tail -25

unit contract e2e fault load: setup ## One part of the tests: make unit, make contract, ...
	@$(BIN)/python -m pytest -q tests/$@

contract-genuine: setup ## Ask the original servers what tests/contract asks marserve (needs Java 17).
	@$(BIN)/python scripts/contract_genuine.py

bench: quick-archives ## Measure against the floors and print the ratios.
	@$(BIN)/python -m bench.run

bench-quick: setup ## The ratios in half a minute, beside those stored of such a machine; fails nothing.
	-@$(BIN)/python -m bench.run --brief

bench-peers: quick-archives ## Measure beside other servers, half an hour; QUICK=--quick for five minutes.
	@$(BIN)/python -m bench.peers.install
	@$(BIN)/python -m bench.peers.run $(QUICK)

docs: setup ## Write the pages that are made from the code.
	@$(BIN)/python scripts/docs.py

floors: setup ## Prove that imports go downward and make no circle.
	@$(BIN)/lint-imports --no-cache

clean: ## Remove what the commands above have made, the environment included.
	rm -rf $(VENV) .venv-peers build dist model-store .pytest_cache .mypy_cache .ruff_cache .coverage* src/*.egg-info
