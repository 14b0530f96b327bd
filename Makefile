# The only commands a newcomer needs. Each does its own set-up; `make help` lists them.
# What a tool on PATH does well enough is not installed; the rest goes into .venv, .lab and a cache that
# checkouts share (see docs/lab.md).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LAB := $(BIN)/python -m lab

# Tests run side by side; those that share a lab stay in one worker. Two more than there are cores: half of the time
# they wait for machines.
JOBS ?= $(shell expr $$(nproc) + 2)
TESTS ?= tests

# How many requests `make fuzz` puts to the guard.
N ?= 100000

# Hundreds of processes import the library in a test run: without bytecode each compiles it.
unexport PYTHONDONTWRITEBYTECODE
# What is written at the end is tested as people have it: with a buffer.
unexport PYTHONUNBUFFERED

# The inputs of the fleet's flake, for `make fleet-real`: directories that lie on this machine.
REAL_INPUTS := NIXPKGS HOME_MANAGER SOPS_NIX DISKO NIXOS_WSL NIXOS_IMAGES NIXOS_HARDWARE

.PHONY: help demo test unit check map fuzz fleet-real conformance bench lab up down reset status shell clean
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

demo: $(STAMP) ## a VM from nothing to a verified NixOS machine, in the embedded lab
	@$(LAB) demo

test: check ## check, then every test; CI=1: each property with all of its examples
	@$(LAB) programs
	@$(LAB) nix -- $(BIN)/pytest -n $(JOBS) --dist loadgroup $(TESTS)

# What of COVER (a package, such as nixherd.deploy) the unit tests reach is shown, and less than LEAST percent fails.
LEAST ?= 90

unit: $(STAMP) ## the tests that need neither Nix nor root nor the lab; COVER=PACKAGE: 90 % of its lines, or it fails
	@$(BIN)/pytest -q -m unit -n $$(nproc) --dist loadgroup \
	  $(if $(COVER),--cov=$(COVER) --cov-report=term-missing:skip-covered --cov-fail-under=$(LEAST)) $(TESTS)

check: $(STAMP) ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@PYTHONPATH=. $(BIN)/lint-imports --no-logo 2>/dev/null || PYTHONPATH=. $(BIN)/lint-imports

map: $(STAMP) ## make map [CHECK=1]: the library's structure, drawn from its imports into build/map; CHECK fails beyond a bound
	@$(BIN)/python -m bench.map $(if $(CHECK),--check)

fuzz: $(STAMP) ## make fuzz N=100000: as many requests through the guard, none of which may reach what is protected
	@$(BIN)/python -m tests.fuzz $(N)

fleet-real: $(STAMP) ## make fleet-real NIXPKGS=/path HOME_MANAGER=/path …: the fleet evaluated on a real nixpkgs (docs/fleet-real.md)
	@$(LAB) nix -- $(BIN)/python -m lab.real --jobs $(JOBS) $(if $(FLEET),--fleet '$(FLEET)') \
	  $(foreach name,$(REAL_INPUTS),$(if $($(name)),'$(name)=$($(name))'))

conformance: $(STAMP) ## the API emulator against recordings of real servers (../shared/pve)
	@$(BIN)/python -m tests.lab.conformance

$(VENV)/.bench: $(STAMP)
	@echo "set-up: what the benchmarks compare with"
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@! command -v cargo >/dev/null || [ -x .bench/crates/bin/deploy ] || cargo install -q deploy-rs@^1 --locked --root .bench/crates
	@touch $@

bench: $(VENV)/.bench ## make bench [ONLY=rekey]: how long it takes, side by side with what else would do it
	@$(LAB) nix -- $(BIN)/python -m bench $(ONLY)

lab: $(STAMP) ## make lab up | down | reset | status | shell: the embedded lab
	@$(if $(filter up down reset status shell,$(MAKECMDGOALS)),:,echo "make lab up | down | reset | status | shell")

up down reset status shell: $(STAMP)
	@$(LAB) $@

clean: ## stop the lab, remove what make made here (not the shared cache)
	@if [ -x $(BIN)/python ] && [ -d .lab ]; then $(LAB) down; fi
	@rm -rf .lab $(VENV) .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info
