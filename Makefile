# Everything runs in .venv, which is made at first use and left alone until pyproject.toml or constraints.txt change.

VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev

# The first of these that is a Python we have wheels for.
PYTHON ?= $(shell for python in python3 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$python && break; done)

.PHONY: help demo serve test lint format bench clean

help:
	@echo "make demo    the whole job on shipped photographs, on this machine"
	@echo "make serve   the server and a training worker, on this machine"
	@echo "make test    all tests but those that need an accelerator; ARGS='-k pose' selects, ARGS=-n2 takes two cores"
	@echo "make lint    ruff, mypy, import contracts"
	@echo "make format  rewrite the layout of all files"
	@echo "make bench   every measurement, one after the other"
	@echo "make clean   forget $(VENV)"

demo: $(RUN)
	$(BIN)/likeness demo

serve: $(RUN)
	$(BIN)/likeness serve

test: $(DEV)
	$(BIN)/python -m pytest -m "not gpu" $(ARGS)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV)
	$(BIN)/ruff format .

bench: $(DEV)
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or 3.12 on the path; or say make PYTHON=/path/to/it" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment" >&2; exit 1; }

# OpenCV's own wheel needs libGL and GLib, which small machines lack; its headless twin holds the same code without windows.
define install
@echo "Installing into $(VENV): some minutes, once ..."
@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(1)'
@$(BIN)/python -c 'import cv2' 2>/dev/null || { echo "No libGL or GLib here: taking OpenCV without windows."; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		--no-deps --force-reinstall opencv-contrib-python-headless; }
@$(BIN)/python -c 'import cv2'
@touch $@
endef

$(RUN): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,)

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,[dev$(comma)recipe])
	@touch $(RUN)

comma := ,
