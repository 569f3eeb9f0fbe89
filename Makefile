# Every command prepares .venv by itself: Python 3.11, make and a C compiler (for
# torch.compile) are all that must be there. A second run installs nothing: the stamps in
# .venv are newer than pyproject.toml and constraints.txt, and are made last, so an
# interrupted installation is started again.

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
DEMO := digits
PYTHON_CANDIDATES := $(or $(PYTHON),python3.11 python3.12 python3.13 python3)

.DEFAULT_GOAL := help
.PHONY: help test demo docs pictures lint format setup clean

help:  ## list these commands
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/make \1\t\2/p' Makefile

test: $(VENV)/.ready-test  ## run the tests; ARGS="-k cached" passes options to pytest
	$(BIN)/python -m pytest $(ARGS)

demo: $(VENV)/.ready  ## train on digits with parametrized weights; or DEMO=copying, lora, ...
	$(BIN)/holdfast demo $(DEMO) $(ARGS)

docs: $(VENV)/.ready-docs  ## build the documentation into site/html; warnings are errors
	MPLBACKEND=Agg $(BIN)/python -m sphinx -W --keep-going -n -q -d site/doctrees docs site/html
	@echo "site/html/index.html"

pictures: $(VENV)/.ready  ## draw the pictures of docs/families; ARGS="norms" draws one
	$(BIN)/python docs/pictures/draw.py $(ARGS)

lint: $(VENV)/.ready-dev  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.ready-dev  ## repair style and formatting where that is automatic
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.ready-dev $(VENV)/.ready-docs  ## prepare .venv and do nothing else

clean:  ## remove .venv and everything else that is not in the repository
	rm -rf $(VENV) dist site docs/generated .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and pinned: asked for by another package, or without a version, pip
# would take the newest build and gigabytes of CUDA libraries with it.
$(VENV)/.ready: pyproject.toml constraints.txt
	@rm -f $@
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  for python in $(PYTHON_CANDIDATES); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	    python=; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo "holdfast needs Python 3.11 or newer, and none of these is: $(PYTHON_CANDIDATES)." >&2; \
	    echo "Name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	  fi; \
	  echo "Creating $(VENV) with $$python"; \
	  "$$python" -m venv --clear $(VENV); }
	@echo "Installing torch into $(VENV) (once)"
	@$(INSTALL) torch hatchling editables
	@echo "Installing holdfast and what its demos need"
	@$(INSTALL) --no-build-isolation --editable '.[demo,save]'
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	@rm -f $@
	@echo "Installing what the tests need, trainers among it"
	@$(INSTALL) --no-build-isolation --editable '.[test]'
	@touch $@

# The types of the integrations are those of the trainers.
$(VENV)/.ready-dev: $(VENV)/.ready-test
	@rm -f $@
	@echo "Installing the tools for style, types and packaging"
	@$(INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@

$(VENV)/.ready-docs: $(VENV)/.ready
	@rm -f $@
	@echo "Installing what builds the documentation"
	@$(INSTALL) --no-build-isolation --editable '.[docs]'
	@touch $@
