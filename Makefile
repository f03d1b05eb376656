# `make check` is what a change must pass. PYTHON=.venv/bin/python picks an environment.
PYTHON ?= python

.PHONY: check format lint types test slow smoke lock lock-check

check: format lint types test

format:
	$(PYTHON) -m ruff format .

lint:
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m mypy

test:
	$(PYTHON) -m pytest

slow:
	$(PYTHON) -m pytest -m slow -n 0

smoke:
	$(PYTHON) tools/smoke.py --tests

# Both need the oldest supported Python and its packages from `.[dev]`.
lock:
	$(PYTHON) tools/lock.py

lock-check:
	$(PYTHON) tools/lock.py --check
