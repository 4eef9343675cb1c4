# Everything starts here: `make run` computes the default experiment, `make test` checks the code.
# Both create .venv from requirements.lock first; Python 3.11 or later and make are all they need.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
CORES ?= all
EXPERIMENT ?= testbed
# Further options of every Snakemake call, for example SNAKEMAKE_OPTIONS="--configfile examples/smoke.yaml".
SNAKEMAKE_OPTIONS ?=
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES) $(SNAKEMAKE_OPTIONS)
# Worker processes of the tests; numerical libraries inside them use one thread each. Which tests go together is said in
# tests/conftest.py.
TEST_WORKERS ?= 2

.PHONY: help
help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 28

# --- environment ----------------------------------------------------------------------------------------------------

.PHONY: environment
environment: $(VENV)/.package ## Create .venv from requirements.lock and install the package in it

$(VENV)/.python:
	@for python in $${PYTHON:-} python3.11 python3 python3.12 python3.13 python3.14 python; do \
	    if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        echo "Creating $(VENV) with $$("$$python" --version)"; \
	        "$$python" -m venv "$(VENV)"; touch "$@"; exit 0; \
	    fi; \
	done; \
	echo "ConceptBench needs Python 3.11 or later with its venv module; install it, or name it: make PYTHON=/path/to/python3.11" >&2; \
	exit 1

$(VENV)/.lock: $(VENV)/.python requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --requirement requirements.lock
	@touch $@

$(VENV)/.package: $(VENV)/.lock pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: lock
lock: ## Renew requirements.lock with the newest versions that pyproject.toml allows
	rm -rf .venv-lock && python3.11 -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --upgrade setuptools
	.venv-lock/bin/python -m pip install --quiet '.[dev,dvc,s3,slurm]'
	{ head -n 1 requirements.lock; .venv-lock/bin/python -m pip freeze --all --exclude conceptbench --exclude pip \
	    | sed -E 's/\+[a-z0-9]+$$//; s/^((nvidia|cuda)-.*|triton==.*)$$/\1 ; sys_platform == "linux"/' \
	    | LC_ALL=C sort -f; } > requirements.new
	mv requirements.new requirements.lock && rm -rf .venv-lock

# --- results --------------------------------------------------------------------------------------------------------

.PHONY: run
run: environment ## Compute the default experiment: tables, figures, metrics and report
	$(SNAKEMAKE)
	$(SNAKEMAKE) --quiet --report results/$(EXPERIMENT)/report.zip
	@echo "Report: results/$(EXPERIMENT)/report.zip"

# The committed numbers are those of the default experiment, within the tolerances of reference/tolerances.yaml.
FINISHED := $(SNAKEMAKE) --dry-run 2>&1 | grep 'Nothing to be done' >/dev/null

.PHONY: verify
verify: environment ## Compute what is missing and compare the metrics with the committed reference
	$(SNAKEMAKE) --quiet all -- results/$(EXPERIMENT)/metrics.json
	$(BIN)/python -m conceptbench.compare reference/metrics.json results/$(EXPERIMENT)/metrics.json \
	    --tolerances reference/tolerances.yaml

.PHONY: reference
reference: environment ## Make the metrics of a finished run the committed reference
	@$(FINISHED) || { echo "results/$(EXPERIMENT) is not finished; compute it first: make run" >&2; exit 1; }
	cp results/$(EXPERIMENT)/metrics.json reference/metrics.json

# Files that DVC has written or linked get one common time, newer than the code: Snakemake then takes them as they are,
# except where today's configuration is not the one they were recorded with, because it writes those parameter stamps
# anew. (snakemake --touch would not do: it reads the configuration first and accepts old results for new parameters.)
ONE_TIME := touch .dvc/tmp/moment && find results/$(EXPERIMENT) -type f -exec touch -r .dvc/tmp/moment {} +

IS_RECORDED = grep -qF -- '- results/$(EXPERIMENT):' dvc.yaml || \
    { echo "dvc.yaml does not record results/$(EXPERIMENT); name it there, or leave EXPERIMENT as it is." >&2; exit 1; }

# What else may be recorded than a run of one committed revision: unknown, changed, revisions (docs/workflow.md).
ALLOW ?=

.PHONY: record
record: environment ## Record a finished run with DVC and push it to the default remote
	@$(IS_RECORDED)
	@test -z "$$(git status --porcelain)" || \
	    { echo "The checkout has changes; commit them first, so that the record belongs to a revision." >&2; exit 1; }
	@$(FINISHED) || { echo "results/$(EXPERIMENT) is not finished; compute it first: make run" >&2; exit 1; }
	@$(BIN)/python -m conceptbench.run_manifest results/$(EXPERIMENT)/manifest.json $(if $(ALLOW),--allow $(ALLOW))
	$(BIN)/dvc commit --quiet --force benchmark
	@$(ONE_TIME)
	$(BIN)/dvc push
	@echo "Recorded; keep it with: git add dvc.lock && git commit"

.PHONY: restore
restore: environment ## Bring back the recorded run, and say what today's configuration would compute anew
	@$(IS_RECORDED)
	@test -f dvc.lock || { echo "There is no dvc.lock here, so no run was recorded; take a revision with one, or compute the run: make run" >&2; exit 1; }
	$(BIN)/dvc pull
	@$(BIN)/dvc status benchmark
	@$(ONE_TIME)
	@$(SNAKEMAKE) --dry-run --quiet rules

.PHONY: docs
docs: environment ## Bring the figures and numbers of finished experiments into README.md and docs/
	$(BIN)/python docs/publish.py

.PHONY: train-backbones
train-backbones: environment ## Train the shipped backbones again from scratch (an hour or two on two cores)
	for name in clip-tiny image-tiny random-tiny; do $(BIN)/python -m conceptbench.backbones train $$name; done

# --- benchmarks -----------------------------------------------------------------------------------------------------

BENCHMARKS := sae_training step_breakdown lockstep scaling ksvd masking_curve maple_step recording

.PHONY: bench
bench: bench-environment ## Measure speed and memory against other toolkits (about an hour; idle machine)
	for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name; done
	$(BIN)/python -m benchmarks.page

.PHONY: bench-environment
bench-environment: environment ## Install the other toolkits, each in an environment of its own
	$(BIN)/python -m benchmarks.environments create

.PHONY: bench-page
bench-page: environment ## Write docs/performance.md from the measured results
	$(BIN)/python -m benchmarks.page

# --- checks ---------------------------------------------------------------------------------------------------------

SNAKEFILES := $(wildcard Snakefile rules/*.smk)

.PHONY: lint
lint: environment ## Check style, types and the floors of the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(if $(SNAKEFILES),$(BIN)/snakefmt --check $(SNAKEFILES))

.PHONY: test
test: lint ## Check style and types, then run every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_WORKERS) --dist loadscope --no-loadscope-reorder

.PHONY: kill-test
kill-test: environment ## Kill the smoke experiment at 20 random moments; its results must not change
	OMP_NUM_THREADS=1 CONCEPTBENCH_KILLS=20 $(BIN)/python -m pytest -q -n 0 tests/workflow/test_kill.py

.PHONY: slurm-test
slurm-test: environment ## Run the smoke experiment on a SLURM of one node (root; slurm-wlm and munge installed)
	OMP_NUM_THREADS=1 CONCEPTBENCH_SLURM=1 $(BIN)/python -m pytest -q -n 0 -rs tests/workflow/test_slurm.py

.PHONY: clean
clean: ## Remove caches (never results)
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build src/*.egg-info
