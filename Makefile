# vqtok: `make help` lists the targets.

CONFIG ?= configs/sample.yaml
NPROC  ?= 2
ENGINE ?= processes
ARGS   ?=
PYTHON ?= python3

# What Python has compiled it keeps in .venv: where it may not, each process compiles all of PyTorch anew.
export PYTHONDONTWRITEBYTECODE :=

BIN  := .venv/bin
LOCK := scripts/requirements.lock
RUN  := $(BIN)/vqtok
# All but bench, whose packages hold others back.
EXTRAS := --extra sample --extra objects --extra turbojpeg --extra parquet --extra guests --extra formats --extra ray --extra dev
BENCH  := .venv/bench
LOWEST := .venv/lowest
# Without uv on the machine, pip puts one into .venv.
UV   := PATH="$$PATH:.venv/uv/bin" uv

# Unless it is told how many, tokenizing starts one process or more for each GPU, of NVIDIA or AMD.
GPUS := $(wildcard /dev/nvidia[0-9]* /dev/kfd)
PROCESSES := $(if $(and $(filter file,$(origin NPROC)),$(GPUS)),auto,$(NPROC))

# What torchrun hands on. It would die of SIGUSR1, by which Slurm and others announce the end.
SIGNALS := SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1

.DEFAULT_GOAL := help
.PHONY: help setup lock sample train tokenize status verify report ar var masked lint test test-lowest test-slow chaos gpu-check bench-costs \
	bench-loader bench-tokenize bench-vqgan bench-gpu bench-feed bench-ar bench-ar-vqgan bench-export bench clean

help: ## list the targets
	@echo "make TARGET [CONFIG=configs/sample.yaml] [NPROC=2] [ARGS='--set section.key=value']"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: .venv/installed ## make .venv with the locked versions

.venv/installed: $(LOCK) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON): install Python 3.11 or later, or set PYTHON="; exit 1; }
	@$(UV) --version >/dev/null 2>&1 || $(PYTHON) -m pip install --quiet --upgrade --target .venv/uv uv
	@echo "installing the locked versions into .venv (several GB with the CUDA libraries of torch)"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	@$(UV) pip install --quiet --python $(BIN)/python -r $(LOCK)
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

lock: setup ## choose the newest allowed versions anew
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 $(EXTRAS) --no-annotate --no-header \
		--no-emit-index-url pyproject.toml -o $(LOCK)

sample: setup ## make the sample data set in data/sample
	@$(RUN) sample data/sample

# Only the configurations that ship for it need the sample data set.
ifneq ($(filter configs/sample.yaml configs/sample-var.yaml,$(CONFIG)),)
DATA := sample
endif

train: setup $(DATA) ## train a tokenizer (in NPROC processes: make train NPROC=8)
ifeq ($(origin NPROC),file)
	@$(RUN) train --config $(CONFIG) $(ARGS)
else
	@$(BIN)/torchrun --standalone --nproc-per-node $(NPROC) --signals-to-handle $(SIGNALS) \
		--no-python $(RUN) train --config $(CONFIG) $(ARGS)
endif

tokenize: setup $(DATA) ## train unless there is a tokenizer, tokenize in NPROC processes (on GPUs: as many as are best; ENGINE=ray: tasks of Ray), report; run again to resume
	@$(RUN) run --config $(CONFIG) --engine $(ENGINE) --processes $(PROCESSES) $(ARGS)

status: setup ## say how far a job is
	@$(RUN) status --config $(CONFIG) $(ARGS)

verify: setup $(DATA) ## check a store against its source
	@$(RUN) verify --config $(CONFIG) $(ARGS)

report: setup $(DATA) ## write report.html for a finished store
	@$(RUN) report --config $(CONFIG) $(ARGS)

# One process, unless NPROC says how many.
EXAMPLE := $(BIN)/$(if $(filter file,$(origin NPROC)),python,torchrun --standalone --nproc-per-node $(NPROC))

ar: setup $(DATA) ## train a small autoregressive transformer on the store, tokenizing first; ARGS are its own options
	@$(RUN) run --config $(CONFIG) --processes $(PROCESSES)
	@$(EXAMPLE) scripts/examples/train_ar.py --config $(CONFIG) $(ARGS)

var: CONFIG = configs/sample-var.yaml
var: setup $(DATA) ## the same, one that predicts scale by scale, as VAR does (by default on configs/sample-var.yaml)
	@$(RUN) run --config $(CONFIG) --processes $(PROCESSES)
	@$(EXAMPLE) scripts/examples/train_var.py --config $(CONFIG) $(ARGS)

masked: setup $(DATA) ## the same, one that fills in hidden tokens, as MaskGIT does
	@$(RUN) run --config $(CONFIG) --processes $(PROCESSES)
	@$(EXAMPLE) scripts/examples/train_masked.py --config $(CONFIG) $(ARGS)

lint: setup ## ruff, the type checker, and which package may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Twice as many workers as the cores of a small machine: a third of the time a test waits for processes and servers.
test: lint ## all of lint, and the tests
	$(BIN)/pytest -n 4 --dist worksteal --durations=25

test-lowest: $(LOWEST)/installed ## the tests with the lowest versions that pyproject.toml allows
	$(LOWEST)/bin/pytest -n 4 --dist worksteal

$(LOWEST)/installed: .venv/installed pyproject.toml
	@echo "installing the lowest allowed versions into $(LOWEST)"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) $(LOWEST)
	@$(UV) pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
		--editable '.[sample,objects,turbojpeg,parquet,guests,formats,ray,dev]'
	@touch $@

test-slow: setup ## the long tests too
	$(BIN)/pytest -m "slow or not slow"

chaos: setup ## a thousand kills of tokenizing processes, ten thousand damages to stores: what is lost or wrong (some 45 minutes)
	@PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)
	@PYTHONPATH=tests $(BIN)/python -m chaos.fuzz $(FUZZ_ARGS)
	@PYTHONPATH=tests $(BIN)/python -m chaos.hostile $(HOSTILE_ARGS)

gpu-check: setup ## whether all is right on this machine's GPU, as a table (some minutes)
	@$(BIN)/python scripts/gpu_check.py $(ARGS)

bench-costs: setup ## what exactness costs: resuming, claims and commits, handing out, memory, a billion rows (some 40 minutes)
	@$(BIN)/python scripts/benchmarks/bench_costs.py resume
	@$(BIN)/python scripts/benchmarks/bench_costs.py start
	@$(BIN)/python scripts/benchmarks/bench_costs.py commits --side 64
	@$(BIN)/python scripts/benchmarks/bench_costs.py commits --side 256 --shards 4
	@$(BIN)/python scripts/benchmarks/bench_costs.py handout
	@$(BIN)/python scripts/benchmarks/bench_costs.py requests
	@$(BIN)/python scripts/benchmarks/bench_costs.py reading
	@$(BIN)/python scripts/benchmarks/bench_costs.py memory
	@$(BIN)/python scripts/benchmarks/bench_costs.py rows

bench-loader: $(BENCH)/installed ## how fast tokens are read, beside other loaders (10 to 20 minutes): ARGS="--markdown docs/benchmarks.md"
	@$(BENCH)/bin/python scripts/benchmarks/bench_loader.py $(ARGS)

$(BENCH)/installed: .venv/installed pyproject.toml
	@echo "installing other loaders into $(BENCH)"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) $(BENCH)
	@$(UV) pip install --quiet --python $(BENCH)/bin/python --editable '.[bench]'
	@touch $@

bench-tokenize: setup ## how fast photographs become tokens, beside other ways (15 minutes): ARGS="--markdown docs/benchmarks.md"
	@$(BIN)/python scripts/benchmarks/bench_tokenize.py $(ARGS)

bench-vqgan: setup ## how fast a published tokenizer of real size makes tokens (ten minutes): ARGS="--markdown docs/benchmarks.md"
	@$(BIN)/python scripts/benchmarks/bench_vqgan.py $(ARGS)

bench-gpu: setup ## the same on a GPU, with a large tokenizer too
	@$(BIN)/python scripts/benchmarks/bench_gpu.py $(ARGS)

bench-feed: setup ## how fast threads turn photographs into batches of pixels, and what Python takes of it (two minutes)
	@$(BIN)/python scripts/benchmarks/bench_feed.py $(ARGS)

bench-ar: setup $(DATA) ## training steps from stored tokens beside steps with the tokenizer in the loop (some minutes)
	@$(RUN) run --config $(CONFIG) --processes $(PROCESSES)
	@$(BIN)/python scripts/examples/bench_ar.py --config $(CONFIG) $(ARGS)

bench-ar-vqgan: setup ## the same with a tokenizer of 72 M weights and photographs of 256 px (some minutes)
	@PYTHONPATH=scripts/benchmarks $(BIN)/python scripts/examples/bench_ar_vqgan.py $(ARGS)

bench-export: setup ## how fast a store is exported in each format (some minutes)
	@$(BIN)/python scripts/benchmarks/bench_export.py $(ARGS)

bench: ## all benchmarks but that of a GPU, with their defaults (over an hour)
	@$(MAKE) --no-print-directory ARGS= bench-tokenize bench-vqgan bench-costs bench-loader bench-ar bench-ar-vqgan bench-export

clean: ## delete the environment, the sample data set and all runs
	rm -rf .venv data runs
