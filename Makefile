PYTHON ?= python3
BIN := .venv/bin
# A spinning third thread on two cores makes everything many times slower.
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false

REAL := $(if $(SEQUENCES),--sequences "$(SEQUENCES)")

.DEFAULT_GOAL := help
.PHONY: help setup demo test reproduce reproduce-quick

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: .venv/installed  ## Make .venv with everything the project needs, pinned

.venv/installed: constraints.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, as by: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade --constraint constraints.txt pip setuptools
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

demo: setup  ## Compress the small teacher, show what it kept (some minutes on two cores), on SEQUENCES=videos if given
	$(BIN)/accelerate launch --num_cpu_threads_per_process 2 examples/compress.py --from_scratch $(if $(SEQUENCES),--eval "$(SEQUENCES)")

test: setup  ## Run style checks and tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

reproduce-quick: setup  ## Compare the method's parts on one seed (some ten minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/python examples/reproduce/run.py --tables quick --out outputs/reproduce-quick
	$(BIN)/python examples/reproduce/tables.py --tables quick --results outputs/reproduce-quick

reproduce: setup  ## All comparisons with all their seeds, on SEQUENCES=videos too; goes on where it stopped (hours)
	OMP_NUM_THREADS=1 $(BIN)/python examples/reproduce/run.py $(REAL)
	for row in "all three" "guidance + mimicking" "ground truth" "+ replacement"; do \
		OMP_NUM_THREADS=1 $(BIN)/python examples/reproduce/front.py --row "$$row" $(REAL) || exit 1; \
	done
	$(BIN)/python examples/reproduce/tables.py
