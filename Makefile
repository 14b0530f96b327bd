# The only commands a newcomer needs. Each does its own set-up; `make help` lists them.
# Suitable tools on PATH are used; everything else is installed into .venv, .lab and a cache that checkouts share (see
# docs/lab.md).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LAB := $(BIN)/python -m lab

# Tests run in parallel; those that share a lab stay in one worker. Four more workers than cores, because most of the
# time they wait for machines and deadlines. Evaluating real configurations, which needs memory, takes two more.
JOBS ?= $(shell expr $$(nproc) + $(if $(filter fleet-real,$(MAKECMDGOALS)),2,4))
TESTS ?= tests

# The number of requests that `make fuzz` sends through the guard.
N ?= 100000

# Hundreds of processes import the library in a test run; without bytecode each would compile it.
unexport PYTHONDONTWRITEBYTECODE
# Output is tested with a buffer, as users have it.
unexport PYTHONUNBUFFERED

# The inputs of the fleet's flake, for `make fleet-real`: local directories.
REAL_INPUTS := NIXPKGS HOME_MANAGER SOPS_NIX DISKO NIXOS_WSL NIXOS_IMAGES NIXOS_HARDWARE

.PHONY: help demo test unit check map fuzz fleet-real conformance bench docs reference lab up down reset status shell clean
.DEFAULT_GOAL := help

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is too old; nixherd needs Python 3.11 or newer (PYTHON=…)" >&2; exit 1; }
	@echo "set-up: Python packages into $(VENV)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV); } >&2 || \
	  { echo "make: $(PYTHON) cannot make a venv; install its venv module" >&2; exit 1; }
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[lab,dev]'
	@touch $@

demo: $(STAMP) ## make demo [VERBOSE=1]: a VM from nothing to a verified NixOS machine, in the embedded lab
	@VERBOSE='$(VERBOSE)' $(LAB) demo

test: check ## check, then every test; CI=1: each property with all of its examples
	@$(LAB) programs
	@$(LAB) nix -- $(BIN)/pytest -n $(JOBS) --dist loadgroup $(TESTS)

# Prints the coverage of COVER (a package, such as nixherd.deploy) by unit tests; less than LEAST percent fails.
LEAST ?= 90

unit: $(STAMP) ## the tests without Nix, root and lab; COVER=PACKAGE: requires 90 % of its lines
	@$(BIN)/pytest -q -m unit -n $$(nproc) --dist loadgroup \
	  $(if $(COVER),--cov=$(COVER) --cov-report=term-missing:skip-covered --cov-fail-under=$(LEAST)) $(TESTS)

check: $(STAMP) ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@PYTHONPATH=. $(BIN)/lint-imports --no-logo 2>/dev/null || PYTHONPATH=. $(BIN)/lint-imports

map: $(STAMP) ## make map [CHECK=1]: draw the library's structure from its imports into build/map; CHECK enforces the bounds
	@$(BIN)/python -m bench.map $(if $(CHECK),--check)

reference: $(STAMP) ## write docs/reference/ from the commands, operations, facts, data and variables
	@$(BIN)/python -m pages.reference

$(VENV)/.docs: $(STAMP)
	@echo "set-up: what builds the pages"
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(VENV)/.docs ## build README and docs/ as a site in build/site, with every inner link and anchor checked
	@$(BIN)/python -m pages.site

fuzz: $(STAMP) ## make fuzz N=100000: random requests through the guard, none of which may reach a protected guest
	@$(BIN)/python -m tests.fuzz $(N)

fleet-real: $(STAMP) ## make fleet-real NIXPKGS=/path HOME_MANAGER=/path …: evaluate the fleet on a real nixpkgs (docs/fleet-real.md)
	@$(LAB) nix -- $(BIN)/python -m lab.real --jobs $(JOBS) $(if $(FLEET),--fleet '$(FLEET)') \
	  $(foreach name,$(REAL_INPUTS),$(if $($(name)),'$(name)=$($(name))'))

conformance: $(STAMP) ## compare the API emulator with recordings of real servers (../shared/pve)
	@$(BIN)/python -m tests.lab.conformance

$(VENV)/.bench: $(STAMP)
	@echo "set-up: what the benchmarks compare with"
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@! command -v cargo >/dev/null || [ -x .bench/crates/bin/deploy ] || cargo install -q deploy-rs@^1 --locked --root .bench/crates
	@touch $@

bench: $(VENV)/.bench ## make bench [ONLY=rekey]: compare the speed with other tools
	@$(LAB) nix -- $(BIN)/python -m bench $(ONLY)

lab: $(STAMP) ## make lab up [HOSTS=N] | down | reset | status | shell: the embedded lab
	@$(if $(filter up down reset status shell,$(MAKECMDGOALS)),:,echo "make lab up | down | reset | status | shell")

up down reset status shell: $(STAMP)
	@$(LAB) $@ $(if $(filter up,$@),$(if $(HOSTS),--hosts '$(HOSTS)'))

clean: ## stop the lab, remove everything that make created here (not the shared cache)
	@if [ -x $(BIN)/python ] && [ -d .lab ]; then $(LAB) down; fi
	@rm -rf .lab $(VENV) .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info
