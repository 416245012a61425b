# Two commands: `make repro` runs the pipeline, `make test` the checks and the tests. Both set up what they need.
VENV   := .venv
PYTHON ?= python3
JOBS   ?= 2
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: setup setup-dev repro test check format bench experiments docs sweep rde-distributed marl-distributed rde-machines marl-machines dist clean help

help:            ## this list
	@grep -E '^[a-z-]+: .*##' Makefile | sed 's/:.*## */\t/' | awk -F'\t' '{printf "%-18s%s\n", $$1, $$2}'

# The install is skipped while the lock files and the package metadata are the ones that were installed.
setup:           ## .venv with the locked run-time dependencies and the package, editable
	@cat requirements.lock pyproject.toml | cmp -s - $(VENV)/installed || { \
	  { test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV); } && \
	  echo "installing the locked dependencies into $(VENV) (2.0 GB with a CPU build of torch)" && \
	  pip install --quiet --only-binary ta-lib -r requirements.lock && \
	  pip install --quiet --no-deps --no-build-isolation -e . && \
	  cat requirements.lock pyproject.toml > $(VENV)/installed; }

setup-dev: setup
	@cmp -s requirements-dev.lock $(VENV)/installed-dev || { \
	  pip install --quiet -r requirements-dev.lock && cp requirements-dev.lock $(VENV)/installed-dev; }

repro: setup     ## the pipeline, from raw bars to the exported policy and its report (10 minutes on two cores)
	@algospace params
	@dvc repro
	@algospace metrics
	@echo "report: reports/report.html"

test: setup-dev check  ## lint, types, tests (half an hour on two cores)
	@OMP_NUM_THREADS=1 pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder  # a core a worker: two threads would wait

check: setup-dev ## lint and types; never writes
	@ruff format --check --quiet .
	@ruff check --quiet .
	@PYTHONHASHSEED=0 mypy  # its verdict on joined types can follow the order of hashes

format: setup-dev ## rewrite the code in house form
	@ruff format .
	@ruff check --fix .

bench: setup-dev ## every benchmark, quick form
	@code=0; for script in benchmarks/[a-z]*.py; do python $$script --quick --json || code=1; done; exit $$code

# Columns of the table: name, the params that differ, and one to three validation figures of a stage. The census of Gate 1,
# a metric, is no column; its params are.
SHOWN := Experiment|(prepare|rde|mrms|marl|gate1(?!\.(default|prd)\.)|features|indicators|market|data|runtime)\.|seed$$|reconstruction_r2$$|proposed_mean_r$$|report\.trained\.mean_r$$|report\.traded\.consensus\.sharpe$$|report\.random_p_value$$
experiments:     ## what was tried, judged on validation
	@dvc exp show --no-pager --only-changed --drop '^(?!$(SHOWN))'

PROCESSES ?= 2
ALONE  = torchrun --standalone --nproc-per-node=$(PROCESSES)
SHARED = torchrun --nnodes=$(MACHINES) --nproc-per-node=$(PROCESSES) --rdzv-backend=c10d --rdzv-endpoint=$(MEET)
rde-distributed: setup  ## rde on PROCESSES processes of this machine (2)
	@$(ALONE) -m stages.rde && dvc commit --force rde

marl-distributed: setup ## the agents on PROCESSES processes of this machine (2)
	@$(ALONE) -m stages.marl && dvc commit --force marl

rde-machines: setup     ## rde on MACHINES machines that see one folder and meet at MEET=host:port; the same line on each
	@$(SHARED) -m stages.rde

marl-machines: setup    ## the agents on MACHINES machines, likewise
	@$(SHARED) -m stages.marl

TRIALS ?= 30
sweep: setup     ## search the agents' params (needs the extra sweep): TRIALS configurations in all, shared with others by STORAGE
	@algospace sweep --trials $(TRIALS) $(if $(STORAGE),--storage '$(STORAGE)')

docs: setup-dev  ## README, docs and the API as HTML, in site/
	@python .ci/docs.py site

dist: setup      ## wheel and sdist, in dist/
	@python -c "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"

clean:           ## back to a fresh checkout (data/raw, DVC's cache and the log of uses of the test bars stay)
	if test -d logs; then find logs -type f ! -name test_uses.jsonl -delete; fi
	rm -rf $(VENV) .ckpt build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	git clean -qfdX -- data/prepared data/regimes data/proposals models reports
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
