# make quickstart   a whole search in miniature, on this machine
# make test         what CI runs
# make test-all     slow tests too, all that is drawn, and nothing skipped for want of a program
# make notebooks    runs the notebooks, on what `make quickstart` made, and stores their output
# make bench        how fast: beside other libraries and beside plain computations, on a quiet machine
# make chaos        kills a real search 27 times and compares it with an undisturbed one; half an hour

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FOLDER ?= runs/quickstart
BENCH ?=

.PHONY: help quickstart test test-all notebooks bench chaos check format clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,6s/^# //p' Makefile

# Two marks: someone who only runs a search needs no test tools.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "kdsearch needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: $(VENV)/.installed
	$(BIN)/kdsearch launch search_spaces/quickstart.yaml --folder $(FOLDER) --address local

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# In three processes: what starts Ray or watches the clock, and, on what that leaves of the machine, the
# rest in two. Of what these start, each would compile it all again unless one keeps what it compiled.
test: export PYTHONDONTWRITEBYTECODE =
test: check
	@nice $(BIN)/pytest -m "not undisturbed" -o cache_dir=.pytest_cache/a tests/test_[a-l]*.py \
	  > $(VENV)/rest-a.log 2>&1 & a=$$!; \
	nice $(BIN)/pytest -m "not undisturbed" -o cache_dir=.pytest_cache/m tests/test_[m-z]*.py \
	  > $(VENV)/rest-m.log 2>&1 & m=$$!; \
	$(BIN)/pytest -m undisturbed $$(grep -l mark.undisturbed tests/test_*.py); ray=$$?; \
	wait $$a; a=$$?; wait $$m; m=$$?; cat $(VENV)/rest-a.log $(VENV)/rest-m.log; \
	exit $$((ray | a | m))

test-all: export KDSEARCH_TEST_ALL = 1
test-all: test

notebooks: $(VENV)/.installed-dev
	KDSEARCH_STUDY=$(abspath $(FOLDER)) $(BIN)/python notebooks/store.py

# What it compares with is no dependency: where it cannot be installed, these sides are skipped.
$(VENV)/.installed-bench: $(VENV)/.installed benchmarks/requirements.txt
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r benchmarks/requirements.txt
	@! $(BIN)/python -m pip show --quiet torchvision 2>/dev/null || \
	  $(BIN)/python -c 'import torchvision' 2>/dev/null || { \
	  echo "torchvision is no build of torch's kind and is removed, torchdistill with it: see benchmarks/requirements.txt"; \
	  $(BIN)/python -m pip uninstall --quiet --yes torchvision torchdistill; }
	@touch $@

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/suite.py $(BENCH)

chaos: $(VENV)/.installed-dev
	$(BIN)/python tests/chaos.py --kills 27

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist
