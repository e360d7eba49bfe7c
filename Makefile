# Everything driftline does, as one-word commands. `make help` lists them.
# Needs python3.11 or newer, make and a package registry; every target sets up what it uses.

PYTHON    ?=
DEMO_ARGS ?=
TEST_ARGS ?=
TEST_PROCESSES ?= 2
FAULTS_ARGS ?=
BENCH_ARGS ?=

UV     := .tools/bin/uv
PY     := .venv/bin/python
CODE   := $(wildcard profiles learner stream tests benchmarks examples docs docker)
LOCKS  := requirements.lock requirements-data.lock
STAMP  := .venv/.driftline-setup

comma := ,
space := $(subst ,, )
# Use the python of this machine: uv must not fetch one of its own.
export UV_PYTHON_PREFERENCE := only-system
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1
# Once for all: where PYTHONDONTWRITEBYTECODE is set, every start would compile all it imports.
export UV_COMPILE_BYTECODE := 1
# uv separates by commas and fails on a folder that is missing; pip does neither.
FIND_LINKS := $(strip $(foreach link,$(PIP_FIND_LINKS),$(if $(findstring ://,$(link)),$(link),$(wildcard $(link)))))
ifneq ($(FIND_LINKS),)
export UV_FIND_LINKS := $(subst $(space),$(comma),$(FIND_LINKS))
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test check docs faults dashboards lock format clean FORCE

help:  ## list the targets
	@grep -hE '^[a-z%-]+:.*## ' $(firstword $(MAKEFILE_LIST)) \
	  | sed -E 's/^([a-z%-]+):.*## (.*)/\1\t\2/' \
	  | while IFS="$$(printf '\t')" read -r name text; do printf '  %-11s %s\n' "$$name" "$$text"; done

setup: $(STAMP)  ## install everything into .venv (done by every other target when needed)

demo: $(STAMP)  ## show the whole loop: broker, stream, learner and a release swap (DEMO_ARGS=...)
	.venv/bin/driftline demo $(DEMO_ARGS)

# Half of a test's time is waiting, for a broker or a worker: two processes, each with a broker of
# its own, take files in turns.
test: $(STAMP)  ## run the tests (TEST_ARGS="-k name", TEST_PROCESSES=0 for one after another)
	$(PY) -m pytest -n $(TEST_PROCESSES) --dist loadfile $(TEST_ARGS)

check: $(STAMP)  ## lint, format, types, import rules, security
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/bandit -q -c pyproject.toml -r profiles learner stream
	$(PY) -m tests.dependency_audit

docs: $(STAMP)  ## build the documentation site into build/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict

faults: $(STAMP)  ## the long fault-injection runs (FAULTS_ARGS=...)
	$(PY) -m tests.faults.lane $(FAULTS_ARGS)

bench-%: $(STAMP) FORCE  ## run one benchmark: bench-NAME runs benchmarks/bench_NAME.py (BENCH_ARGS=...)
	$(PY) -m benchmarks.bench_$(subst -,_,$*) $(BENCH_ARGS)

format: $(STAMP)  ## rewrite the code in the house format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

dashboards: $(STAMP)  ## write docker/grafana/dashboards anew from docker/grafana/board_*.py
	$(PY) -m docker.grafana.generate

lock: $(UV)  ## write requirements.lock anew from pyproject.toml (UPGRADE=1 for newer versions)
	$(UV) pip compile --quiet $(if $(UPGRADE),--upgrade) --universal --generate-hashes --no-header \
	  --no-emit-index-url --python-version 3.11 --extra dev pyproject.toml -o requirements.lock

clean:  ## remove the environment and every cache (the shared package cache stays)
	rm -rf .venv .tools build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# uv comes by pip into a small environment of its own, pinned by hash.
$(UV): requirements-tools.lock
	@set -eu; found=; \
	for candidate in $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11 python); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "setup: no python3.11 or newer found; install one or say 'make setup PYTHON=/path/to/python'" >&2; \
	  exit 1; fi; \
	rm -rf .tools; "$$found" -m venv .tools
	.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-tools.lock
	@touch $@

# `sync` installs exactly the locked set, by hard links from uv's shared cache, and resolves nothing:
# that is how recbole (wanted for the data set it carries) comes without its dependencies.
$(STAMP): pyproject.toml $(LOCKS) | $(UV)
	@[ -x $(PY) ] || $(UV) venv --quiet --python "$$(.tools/bin/python -c 'import sys; print(sys._base_executable)')" .venv
	$(UV) pip sync --quiet --python $(PY) --require-hashes $(LOCKS)
	$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@touch $@
