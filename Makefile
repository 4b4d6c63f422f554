SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Bytecode is compiled once at installation; an Airflow without it recompiles itself in each process.
unexport PYTHONDONTWRITEBYTECODE
# Another Airflow's settings must not reach this one.
unexport AIRFLOW_HOME AIRFLOW_CONFIG PYTHONPATH PYTHONHOME VIRTUAL_ENV

VENV := .venv
OFFICIAL := .venv-official
# Type checkers on the documentation's code; a part of `make lint`, because they take half a minute.
SHOWN := tests/packaging/test_types.py
PY := $(VENV)/bin/python
INSTALL = $(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(PY) --constraint constraints.txt

.PHONY: help
help:  ## show this list
	@awk -F ':.*  ## ' '/^[a-z0-9-]+:.*  ## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.run  ## submit requests on a real Airflow, kill the worker, save the results (docs/demo.md: a real API)
	@$(PY) -m scripts.demo $(if $(BATCH_ID),--batch-id '$(BATCH_ID)') $(if $(MODEL),--model '$(MODEL)')

.PHONY: up
up: $(VENV)/.run  ## Airflow's UI with the emulator and the examples, until Ctrl-C
	@exec $(PY) -m scripts.up

.PHONY: test
test: $(VENV)/.dev  ## all tests (ARGS="-k name" for some of them, COVERAGE=1 with branch coverage)
	@$(PY) -m pytest $(if $(ARGS),$(ARGS),-n 2 --no-loadscope-reorder --ignore=$(SHOWN) $(if $(COVERAGE),--cov --cov-report=term))

.PHONY: e2e
e2e: $(VENV)/.dev $(VENV)/.e2e  ## Airflow's UI in Chromium, then a search for secrets (SCREENSHOTS=docs/images keeps pictures)
	@$(if $(SCREENSHOTS),SCREENSHOTS='$(abspath $(SCREENSHOTS))') $(PY) -m pytest tests/e2e --exitfirst $(ARGS)

.PHONY: kills
kills: $(VENV)/.dev  ## a real Airflow: end tasks in each way that it has; waits, metrics and asset events
	@$(PY) -m pytest tests/kills tests/system $(ARGS)

.PHONY: e2e-distributed
e2e-distributed: $(VENV)/.distributed  ## kill each part of an Airflow on PostgreSQL, Redis and Celery (ARGS=--calm: none)
	@$(PY) -m scripts.distributed $(ARGS)

.PHONY: attack
attack: $(VENV)/.run  ## strike 100 busy teardowns with Airflow's timeout, each at a random moment (ARGS="--seed 7")
	@$(PY) -m scripts.attack $(ARGS)

.PHONY: attack-submit
attack-submit: $(VENV)/.dev  ## kill and suspend a task that submits at each step, under each fault (ARGS="--every 5")
	@$(PY) -m tests.integration.submission.attack $(ARGS)

.PHONY: conformance
conformance: $(VENV)/.run  ## other clients against the emulator (requires node, npm and curl), into docs/conformance.md
	@$(PY) -m scripts.conformance $(ARGS)

.PHONY: release-check
release-check:  ## whether a tag can be released (TAG=v1.2.3)
	@python3 -m scripts.release '$(TAG)'

.PHONY: compat
compat: $(VENV)/.compat  ## tests and demo on each Airflow from 3.0 on, into docs/compatibility.md (takes long)
	@rm -rf build/compat
	@$(PY) -m nox $(ARGS)
	@$(PY) -m scripts.compat render

.PHONY: lint
lint: $(VENV)/.dev  ## ruff, mypy, and the types of what the documentation shows
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(PY) -m pytest --quiet $(SHOWN)

.PHONY: reference
reference: $(VENV)/.dev  ## docs/reference.md from the docstrings
	@$(PY) -m scripts.reference

.PHONY: reliability
reliability: $(VENV)/.dev  ## docs/reliability.md from the fault matrix of the tests
	@$(PY) -m tests.integration.reliability.page

.PHONY: docs
docs: $(VENV)/.docs  ## the documentation as a site, in build/site (DOCS="serve" shows it while you write)
	@NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(VENV)/bin/mkdocs --quiet $(if $(DOCS),$(DOCS),build)

.PHONY: audit
audit: $(VENV)/.audit  ## look the pinned versions up in the database of known vulnerabilities
	@$(VENV)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

.PHONY: build
build: $(VENV)/.dev  ## wheel and source distribution in dist/
	@$(VENV)/bin/uv build --quiet --out-dir dist
	@ls dist

.PHONY: bench
bench: $(VENV)/.bench $(OFFICIAL)/.run  ## measure beside the official provider, into benchmarks/RESULTS.md (takes long)
	@$(PY) benchmarks/run.py --official $(OFFICIAL)/bin/python $(if $(ARGS),$(ARGS),--write)

.PHONY: constraints
constraints: $(VENV)/bin/uv  ## pin the newest versions that fit into constraints.txt
	@$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --upgrade --extra emulator \
		--group dev --group bench --group e2e --group distributed --group compat --group docs --group audit \
		--no-header --no-annotate --no-emit-index-url --output-file constraints.tmp pyproject.toml
	@{ echo "# The versions that development and CI run on; made by 'make constraints'."; \
		cat constraints.tmp; } > constraints.txt
	@rm constraints.tmp

.PHONY: clean
clean:  ## remove everything that these commands made
	@rm -rf $(VENV) $(OFFICIAL) build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .nox .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment: `.run` marks what the demo needs, `.dev`, `.bench`, ... the dependency groups on top of it.

$(VENV)/bin/uv:
	@python= ; for name in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
		if "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; \
		then python=$$name; break; fi; done; \
	if [ -z "$$python" ]; then echo 'Python 3.11, 3.12 or 3.13 is needed (make PYTHON=... names one).' >&2; exit 1; fi; \
	echo "Setting up $(VENV) with $$python ..."; \
	"$$python" -m venv $(VENV); \
	$(PY) -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/uv
	@echo 'Installing Airflow and this provider into $(VENV) ...'
	@$(INSTALL) --group airflow --editable '.[emulator]'
	@touch $@

$(VENV)/.%: $(VENV)/.run
	@echo 'Installing the dependency group $* into $(VENV) ...'
	@$(INSTALL) --group $*
	@touch $@

# The same Airflow with the official provider and common.ai, and without this one.
$(OFFICIAL)/.run: pyproject.toml constraints.txt | $(VENV)/.run
	@echo 'Installing Airflow and the official provider into $(OFFICIAL) ...'
	@$(VENV)/bin/uv venv --quiet --clear --python $(PY) $(OFFICIAL)
	@$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(OFFICIAL)/bin/python \
		--constraint constraints.txt --group airflow apache-airflow-providers-anthropic \
		'apache-airflow-providers-common-ai[anthropic]==1.0.0'
	@touch $@
