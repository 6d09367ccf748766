# Everything runs in .venv, which is made at first use and left alone until pyproject.toml or constraints.txt change.

VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev

# The first of these that is a Python we have wheels for; uv's are those that it has installed already.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 \
	$$(uv python find --no-project --managed-python --no-python-downloads '>=3.11,<3.15' 2>/dev/null); do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $$python && break; done)

.PHONY: help demo serve test lint lint-web lint-modules format format-modules bench clean

help:
	@echo "make demo    the whole job on shipped photographs, on this machine"
	@echo "make serve   the server and a training worker, on this machine"
	@echo "make test    all tests but those that need an accelerator; ARGS='-k pose' selects, ARGS=-n2 takes two cores"
	@echo "make lint    ruff, mypy, import contracts; make lint-web: types and layout of the web app's modules"
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

# The web app's modules: types by TypeScript, layout by Prettier, where npm is.
WEB_TOOLS := $(VENV)/share/web-tools
MODULES := 'src/likeness/web/*.js' 'src/likeness/web/components/*.js' 'src/likeness/web/pages/*.js'
PRETTIER = $(WEB_TOOLS)/node_modules/.bin/prettier --config tests/web/prettier.json --log-level warn

$(WEB_TOOLS): $(DEV)
	@npm install --silent --no-save --no-audit --no-fund --prefix $(WEB_TOOLS) prettier@3.6.2 typescript@5.9.3
	@touch $@

lint-web:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory lint-modules; \
		else echo "skipped: npm is not installed, which checks types and layout of the web app's modules"; fi

lint-modules: $(WEB_TOOLS)
	$(WEB_TOOLS)/node_modules/.bin/tsc --project tests/web/jsconfig.json
	$(PRETTIER) --check $(MODULES)

format: $(DEV)
	$(BIN)/ruff format .
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory format-modules; fi

format-modules: $(WEB_TOOLS)
	$(PRETTIER) --write $(MODULES)

bench: $(DEV)
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 to 3.14 on the path; or say make PYTHON=/path/to/it" >&2; \
		! command -v uv >/dev/null || echo "or let uv install one: uv python install 3.13" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment" >&2; exit 1; }

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Packages, then the files of the networks that find faces, which no package of the present carries.
define install
@echo "Installing into $(VENV): some minutes, once ..."
@$(PIP_INSTALL) -c constraints.txt -e '.$(1)'
@$(BIN)/python -m likeness.photos.fetch
@touch $@
endef

# tritonserver runs models with numpy 1, so it has an environment of its own; our packages come after its numpy.
TRITON := $(VENV)/share/tritonserver
define install_triton
@$(BIN)/python -m venv --clear $(TRITON)
@$(TRITON)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
	nvidia-pytriton==0.7.0 numpy==1.26.4 2>/dev/null && \
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$($(TRITON)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/likeness.pth || \
	{ rm -rf $(TRITON); echo "No tritonserver for this system and Python: its tests will skip."; }
endef

$(RUN): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,)

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,[dev$(comma)recipe])
	$(install_triton)
	@touch $(RUN)

comma := ,
