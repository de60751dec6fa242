# Needs Rust (cargo), a C compiler and Python >= 3.11 with venv; the rest comes from PyPI and crates.io.

PYTHON  ?= python3
VENV    ?= .venv
PROFILE ?= release
LOOP    ?= oxloop:new_event_loop
HOST    ?= 127.0.0.1
PORT    ?= 8000
PYTEST_ARGS      ?=
PYTEST_WORKERS   ?=
TEST_LOOPS       ?= both
DEBUG_TESTS      ?= tests
CONFORMANCE_ARGS ?=
UPSTREAM_ARGS    ?=
BENCH_ARGS       ?=
QUICK            ?=
BENCH_PYTHONS    ?= python3.11 python3.15
CARGO_TARGET_DIR ?= target
FUZZ_SECONDS     ?= 60

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

PY     := $(VENV)/bin/python
STAMPS := $(VENV)/.stamps
LOCKED := $(if $(CI),--locked)

# Tests wait more than they work. A file's tests stay together: some share what is dear to make.
WORKERS := $(if $(PYTEST_WORKERS),--numprocesses=$(PYTEST_WORKERS) --dist=loadfile)

# What cargo needs to know of Python when maturin is not the one who calls it.
CARGO_ENV := PYO3_PYTHON=$(abspath $(PY)) PYO3_BUILD_EXTENSION_MODULE=1

EXTENSION_SOURCES := $(shell find crates -name '*.rs' -o -name Cargo.toml) \
	$(shell find python -name '*.py' -o -name '*.pyi' -o -name py.typed) \
	Cargo.toml Cargo.lock pyproject.toml README.md LICENSE-MIT LICENSE-APACHE

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables: PYTHON=$(PYTHON) VENV=$(VENV) PROFILE=$(PROFILE) LOOP=$(LOOP)"
	@echo "             HOST=$(HOST) PORT=$(PORT) SELFTEST= PYTEST_ARGS= PYTEST_WORKERS= CONFORMANCE_ARGS="
	@echo "             TEST_LOOPS=$(TEST_LOOPS) UPSTREAM_ARGS= DEBUG_TESTS= BENCH_ARGS= QUICK= BENCH_PYTHONS= FUZZ_SECONDS= CARGO_TARGET_DIR="

# --- build --------------------------------------------------------------------------------------

$(STAMPS)/venv:
	@command -v "$(PYTHON)" >/dev/null || { echo "make: $(PYTHON) is not there (make PYTHON=...)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1); oxloop needs Python >= 3.11 (make PYTHON=...)" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade pip
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/tools: scripts/requirements.txt | $(STAMPS)/venv
	$(PY) -m pip install --quiet -r $<
	@touch $@

$(STAMPS)/examples: examples/requirements.txt | $(STAMPS)/venv
	$(PY) -m pip install --quiet -r $<
	@touch $@

$(STAMPS)/tests: tests/requirements.txt examples/requirements.txt | $(STAMPS)/venv
	$(PY) -m pip install --quiet -r $<
	@touch $@

# One target directory an interpreter: PyO3 is compiled for one, and would be again at each change.
# A debug build of CPython has the tag of others, and flags of its own.
$(STAMPS)/oxloop-$(PROFILE): $(EXTENSION_SOURCES) $(STAMPS)/tools
	@command -v cargo >/dev/null || { echo "make: cargo is missing, install Rust" >&2; exit 1; }
	@rm -rf $(VENV)/wheel $(STAMPS)/oxloop-*
	$(PY) -m maturin build --quiet --profile $(PROFILE) $(LOCKED) --interpreter $(PY) \
	  --compatibility linux --out $(VENV)/wheel \
	  --target-dir $(CARGO_TARGET_DIR)/$$($(PY) -c 'import sys; print(sys.implementation.cache_tag + sys.abiflags)')
	$(PY) -m pip install --quiet --force-reinstall --no-deps $(VENV)/wheel/oxloop-*.whl
	@touch $@

.PHONY: build
build: $(STAMPS)/oxloop-$(PROFILE) ## Build oxloop into VENV, made with PYTHON if it does not exist
	@$(PY) -c 'import sys, oxloop; print("oxloop", oxloop.__version__, "on Python", sys.version.split()[0], "in $(VENV)")'

# --- run ----------------------------------------------------------------------------------------

.PHONY: run
run: $(STAMPS)/oxloop-$(PROFILE) $(STAMPS)/examples ## Serve examples/ on oxloop; SELFTEST=1 tests it instead
ifeq ($(filter-out 0,$(SELFTEST)),)
	@$(PY) -m uvicorn app:app --app-dir examples --loop $(LOOP) --host $(HOST) --port $(PORT) --no-access-log
else
	@$(PY) examples/selftest.py --loop $(LOOP)
endif

# --- test ---------------------------------------------------------------------------------------

.PHONY: test test-rust test-concurrency test-python test-conformance test-debug-python test-programs test-upstream
test: test-rust test-concurrency test-python test-conformance ## Rust tests, the Python suite, CPython's own asyncio tests

test-rust: $(STAMPS)/venv ## The Rust part of `make test`
	$(CARGO_ENV) cargo test $(LOCKED) --workspace

test-concurrency: ## Every interleaving of the notifier's lock-free state, by loom
	cargo test $(LOCKED) -p reactor --lib --features loom loom_

test-python: $(STAMPS)/oxloop-$(PROFILE) $(STAMPS)/tests ## The Python suite, on asyncio and on oxloop; TLS on both data paths
	$(PY) -m pytest $(WORKERS) --loop $(TEST_LOOPS) $(PYTEST_ARGS)
	$(if $(PYTEST_ARGS),,OXLOOP_TLS=memorybio $(PY) -m pytest $(WORKERS) tests/tls --loop oxloop)

test-conformance: $(STAMPS)/oxloop-$(PROFILE) ## CPython's test.test_asyncio with the loop swapped in
	$(PY) tests/conformance/run.py --loop oxloop $(CONFORMANCE_ARGS)

# multidict's C part shows the collector an object before it is whole, which Py_DEBUG makes a crash.
# The runners of other projects' tests are left out: theirs run no oxloop, under deadlines of seconds.
test-debug-python: ## The Python suite (or DEBUG_TESTS) on an interpreter built with Py_DEBUG
	python=$$(scripts/get-debug-python .cache/debug-python) && \
	  MULTIDICT_NO_EXTENSIONS=1 $(MAKE) debug-python-suite PYTHON=$$python VENV=.venv-debug PROFILE=dev

.PHONY: debug-python-suite
debug-python-suite: $(STAMPS)/oxloop-$(PROFILE) $(STAMPS)/tests
	$(PY) -c 'import sys; sys.gettotalrefcount()'
	$(PY) -m pytest $(WORKERS) -o faulthandler_timeout=250 --loop oxloop $(PYTEST_ARGS) \
	  --ignore=tests/conformance --ignore=tests/upstream $(DEBUG_TESTS)

test-programs: $(STAMPS)/oxloop-$(PROFILE) $(STAMPS)/tests ## Its real programs, with the servers that scripts/services starts
	@directory=$$(mktemp -d) && trap 'scripts/services stop $$directory; rm -rf $$directory' EXIT && \
	  scripts/services start $$directory && . $$directory/environment && \
	  $(PY) -m pytest tests/programs $(PYTEST_ARGS)

test-upstream: $(STAMPS)/oxloop-$(PROFILE) ## The tests of uvicorn, anyio, tornado, ... with the loop swapped in
	$(PY) tests/upstream/run.py $(UPSTREAM_ARGS)

# --- check --------------------------------------------------------------------------------------

.PHONY: check check-rust check-python check-stubs check-tidy format
check: check-tidy check-python check-rust check-stubs ## Formatting, lints, types, stubs, house rules

check-rust: $(STAMPS)/venv ## rustfmt, clippy and rustdoc, warnings are errors
	cargo fmt --all --check
	rustfmt --check --edition 2024 fuzz/fuzz_targets/*.rs
	$(CARGO_ENV) cargo clippy $(LOCKED) --workspace --all-targets -- -D warnings
	$(CARGO_ENV) RUSTDOCFLAGS="-D warnings" cargo doc $(LOCKED) --quiet --no-deps --document-private-items \
	  -p reactor -p tls -p oxloop

check-python: $(STAMPS)/tools $(STAMPS)/tests ## ruff and mypy --strict
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy python/oxloop
	$(PY) -m mypy --python-version 3.14 --no-warn-unreachable python/oxloop
	$(PY) -m mypy scripts examples benches

check-stubs: $(STAMPS)/oxloop-$(PROFILE) $(STAMPS)/tests ## The stubs against the built extension
	$(PY) -m mypy.stubtest oxloop --mypy-config-file pyproject.toml --allowlist scripts/stubtest-allowlist.txt

check-tidy: $(STAMPS)/venv ## The house rules that a program can check
	$(PY) scripts/tidy.py

format: $(STAMPS)/tools ## Format Rust and Python
	cargo fmt --all
	rustfmt --edition 2024 fuzz/fuzz_targets/*.rs
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

# --- bench --------------------------------------------------------------------------------------

IS_QUICK := $(filter-out 0,$(QUICK))
ifeq ($(IS_QUICK),)
BENCH_DIR := .cache/bench
BENCH_TO := docs
# Of 40 minutes on two cores these have 33; the others are for the build and the peers.
BENCH_LOOPS := --minutes 26
BENCH_SCALE := --minutes 5 --loops asyncio,zuvloop,oxloop \
  --curves 'request,timer-*,queue-item,lookup,child,connections-*-tcp-*,handles-*'
BENCH_MEMORY := --minutes 2 --loops asyncio,uvloop,zuvloop,oxloop
BENCH_MAIN := --rows main --minutes 3
else
BENCH_DIR := .cache/bench-quick
BENCH_TO := $(BENCH_DIR)
BENCH_LOOPS := --rows main --minutes 3 --quick
BENCH_SCALE := --quick --curves 'request,timer-*' --loops zuvloop,oxloop
BENCH_MEMORY := --quick --loops zuvloop,oxloop
BENCH_MAIN := $(BENCH_LOOPS)
endif

.PHONY: bench bench-versions bench-main bench-page bench-instructions
bench: $(STAMPS)/oxloop-$(PROFILE) ## Compare event loops and write docs/benchmarks.md; QUICK=1: a look in 8 minutes
	@mkdir -p $(BENCH_DIR)
	$(PY) benches/compare.py --setup --python $(abspath $(PY)) --oxloop $(VENV)/wheel/oxloop-*.whl \
	  --json $(BENCH_DIR)/loops.json $(BENCH_LOOPS) $(BENCH_ARGS)
	$(PY) benches/scale.py --json $(BENCH_DIR)/scale.json $(BENCH_SCALE)
	$(PY) benches/memory.py --json $(BENCH_DIR)/memory.json $(BENCH_MEMORY)
	@$(MAKE) --no-print-directory bench-page

bench-versions: ## The main rows on BENCH_PYTHONS too, 3 minutes each and the build; after `make bench`
	@for python in $(BENCH_PYTHONS); do \
	  $(MAKE) --no-print-directory bench-main PYTHON=$$python VENV=.venv-$${python##*python} || exit; \
	done
	@$(MAKE) --no-print-directory bench-page

bench-main: $(STAMPS)/oxloop-$(PROFILE)
	@mkdir -p $(BENCH_DIR)
	version=$$($(PY) -c 'import sys; print("%d.%d" % sys.version_info[:2])') && \
	  $(PY) benches/compare.py --setup --python $(abspath $(PY)) --venv .cache/bench-$$version \
	  --oxloop $(VENV)/wheel/oxloop-*.whl --json $(BENCH_DIR)/loops-$$version.json \
	  $(BENCH_MAIN) $(BENCH_ARGS)

bench-page: ## The page and its plots, of whatever was measured
	.cache/bench-venv/bin/python benches/document.py --to $(BENCH_TO) \
	  $(wildcard $(addprefix $(BENCH_DIR)/,loops.json loops-*.json scale.json memory.json))

bench-instructions: $(STAMPS)/oxloop-$(PROFILE) ## Instructions of ten hot paths against the committed figures
	valgrind=$$(scripts/get-valgrind .cache/valgrind) && \
	  $(PY) benches/instructions.py --valgrind "$$valgrind" $(BENCH_ARGS)

# --- fuzz ---------------------------------------------------------------------------------------

# The sanitizer is a nightly feature of a stable compiler.
.PHONY: fuzz
fuzz: ## Fuzz the TLS engine for FUZZ_SECONDS; needs cargo-fuzz
	RUSTC_BOOTSTRAP=1 cargo fuzz run engine -- -max_total_time=$(FUZZ_SECONDS)

# --- clean --------------------------------------------------------------------------------------

.PHONY: clean
clean: ## Remove what the other targets made
	rm -rf $(VENV) .venv-* $(CARGO_TARGET_DIR) fuzz/artifacts fuzz/corpus fuzz/target .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
