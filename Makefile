# What a person types: demo, check, test, bench, sim, lint, fuzz. Each sets up what it needs and says what it installed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := .make/venv
SEEDS ?= 200
SIM ?=
HOURS ?= 1
REAL := tests/interop tests/crash tests/scenarios
SOURCES := farshore protocol engine site_primary site_secondary daemon console
WORKERS ?= $(shell expr $$(nproc) \* 3 / 2)
# What most changes meet first: the rules of the house, the formats, and what records of the journal mean.
QUICK := tests/tidy tests/unit/engine/copies tests/unit/engine/history \
  $(patsubst %,tests/unit/protocol/test_%.py,commands events frames golden_bytes messages question_messages)
MINUTES ?= 10
DEMO ?=
BENCH ?= --client-limit
GROWTH ?=

.DEFAULT_GOAL := help
.PHONY: help deb setup system-packages demo check quick test lint unit byte-code in-process processes daemons alone
.PHONY: sim sim-of-commit sim-long fuzz bench bench-growth clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/make \1: \2/'

setup: system-packages $(STAMP) ## system packages (as root or by sudo) and .venv
	@cat $(STAMP)

system-packages:
	@packaging/install-apt.sh

$(STAMP): pyproject.toml setup.py packaging/make-venv.sh | system-packages
	@mkdir -p $(dir $(STAMP))
	@packaging/make-venv.sh $(PYTHON) $(VENV) >$(STAMP).new || { cat $(STAMP).new; rm -f $(STAMP).new; exit 1; }
	@mv $(STAMP).new $(STAMP)

demo: setup ## two sites on this machine: write, back up, damage, restore (DEMO='--keep' leaves them running)
	$(BIN)/farshore demo $(DEMO)

# mypy takes one core from a cold start, the tests take the other.
check: ## before a commit, in less than a minute: lint, types, tidy and the quickest unit tests
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint quick

quick: setup
	$(BIN)/pytest -q -n auto $(QUICK)

lint: setup ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: setup ## the tests that need no daemon, on every core
	$(BIN)/pytest -n auto tests/tidy tests/unit tests/contract

sim: setup ## the simulator (SEEDS=n)
	$(BIN)/python -m tests.sim --seeds $(SEEDS)

sim-of-commit: setup ## 1,000 more of its seeds, other ones for each commit
	$(BIN)/python -m tests.sim --seeds 1000 --of-commit $(SIM)

sim-long: setup ## the simulator for HOURS=n, from where it last stopped; what fails is kept in .sim/
	$(BIN)/python -m tests.sim.long --hours $(HOURS)

fuzz: setup ## atheris on every decoder in turn (MINUTES=n for all); what it finds is kept in tests/fuzz/findings
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -e '.[test,fuzz]' </dev/null
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

# Written once, whatever PYTHONDONTWRITEBYTECODE says: each daemon and child would compile what it loads, and each
# worker every test. It takes one core, while mypy takes the other. What cannot be collected is said further on.
byte-code: setup
	$(BIN)/python -m compileall -q $(SOURCES)
	$(BIN)/pytest -q --collect-only -p no:xdist tests >/dev/null || true

# Tests that need no daemon. Those that take longest come first, and who has none left takes some of another's.
in-process: setup
	$(BIN)/pytest -n $(WORKERS) --dist worksteal tests/sim tests/tidy tests/unit tests/contract

# A tool that is missing makes its interop test fail here, never skip.
daemons: setup
	FARSHORE_REQUIRE_INTEROP=1 $(BIN)/pytest --durations 40 -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  -m 'not alone' $(REAL)

# What measures time: one after the other.
alone: setup
	FARSHORE_REQUIRE_INTEROP=1 $(BIN)/pytest --durations 20 -m alone $(REAL)

processes: setup
	@$(MAKE) --no-print-directory daemons
	@$(MAKE) --no-print-directory alone

# Tests wait for disks, timers and each other, so there are more workers than cores. Seeds 1 to 200 are among the
# tests in tests/sim; the others take what processes leave, most of it those that measure time, which wait most.
test: export PYTHONDONTWRITEBYTECODE :=
test: setup ## everything: lint, 1,200 simulator seeds, unit, contract, tidy, crash, interop, scenarios
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint byte-code
	@$(MAKE) --no-print-directory in-process
	@$(MAKE) --no-print-directory --jobs=2 processes sim-of-commit SIM=--idle

bench: setup ## Farshore and QEMU's own mirror in one run (BENCH='--quick'), and what the command takes to start
	$(BIN)/python -m bench.cli_start
	$(BIN)/python -m bench $(BENCH)

bench-growth: setup ## what costs more as it grows: groups (GROWTH='--groups 200'), hosts, history, writes of a mirrored volume
	$(BIN)/python -m bench.growth $(GROWTH)
	$(BIN)/python -m bench.hosts
	$(BIN)/python -m bench.history
	$(BIN)/python -m bench.paired
	$(BIN)/python -m bench.index_cost

deb: setup ## farshore_VERSION_ARCH.deb in dist/, with a virtual environment of its own
	packaging/make-deb.sh $(BIN)/python dist

clean: ## remove what the targets above made
	rm -rf $(VENV) .make .sim build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
