# What a newcomer and a contributor run. A fresh clone needs git, make, Python 3.11+ and the package registries, no more.
#
#   make demo                      distil a real speech model and prove it (sets up first)
#   make test                      the whole test suite, offline (sets up first)
#
# PYTHON=python3.12                which interpreter makes the virtual environment
# TORCH_INDEX=URL                  one more package index, for example PyTorch's index of CPU builds (see the README)
# JOBS=2                           how many test processes
# ARGS="-k loop"                   passed on to pytest or to `tutelage demo`

PYTHON ?= python3
JOBS ?= 2
ARGS ?=

venv := .venv
bin := $(venv)/bin
stamp := $(venv)/tutelage-installed
pip := $(bin)/python -m pip --disable-pip-version-check
install = $(pip) install --quiet --constraint constraints/tested.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# One thread a process is the fast setting under load; nothing that the tests do may reach a hub or a registry.
offline := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 PIP_NO_INDEX=1

.PHONY: help setup demo test check lint types bench docs acceptance clean
.DEFAULT_GOAL := help

help: ## what each target does
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(stamp) ## the virtual environment .venv with the tested versions; does nothing when it is current

$(stamp): pyproject.toml constraints/tested.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "$(PYTHON) is Python %d.%d.%d, and 3.11 or newer is needed: name one, for example make setup PYTHON=python3.12" % v[:3])'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo '$(PYTHON) has no ensurepip, so it cannot make a virtual environment: install its venv package, or name another with PYTHON=' >&2; exit 1; }
	@echo "setting up $(venv) (once; this downloads PyTorch, which is large)" >&2
	@$(PYTHON) -m venv $(venv)
	@# torch alone and first: a package that asks for an open range must find the tested build already there
	@$(install) torch
	@$(install) --editable '.[speech,fit,report,ctranslate2,datasets,trackers,engines,ray,dev]'
	@touch $@

demo: $(stamp) ## distil a real speech model and prove it
	@$(bin)/tutelage demo $(ARGS)

test: $(stamp) ## the whole test suite, offline
	@$(offline) $(bin)/python -m pytest -n $(JOBS) $(ARGS)

check: lint types ## format, lint, types, imports and the fast tests: before each commit
	@$(offline) $(bin)/python -m pytest -n $(JOBS) -m 'not slow' -q $(ARGS)

lint: $(stamp) ## format, lint and who may import whom
	@$(bin)/ruff format --check --quiet . || { $(bin)/ruff format --check .; exit 1; }
	@$(bin)/ruff check --quiet .
	@$(bin)/lint-imports --no-logo

types: $(stamp) ## mypy, strict
	@$(bin)/mypy

bench: $(stamp) ## every benchmark; each prints JSON
	@for file in benchmarks/*.py; do echo "$$file" >&2; $(bin)/python "$$file" || exit 1; done

docs: $(stamp) ## write again what is made from the source: docs/cli.md, the tree, the README table
	@$(bin)/python scripts/cli_help.py
	@$(bin)/python scripts/source_tree.py
	@$(bin)/python scripts/readme_table.py

acceptance: $(stamp) ## the long runs behind the claims of the README; writes their dated results
	@$(bin)/python scripts/acceptance.py $(ARGS)

clean: ## remove what was built: the environment, caches, packages (never runs or caches of models)
	@rm -rf $(venv) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
