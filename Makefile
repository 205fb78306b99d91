# The whole interface of the repository. `make help` lists the targets; CI runs the same ones.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
PACKAGES := prometheus gnupg
KIND_PACKAGES := docker.io debootstrap iptables conntrack
EXTRAS := train,cluster,operator,examples,test,release
SOURCES := launcher operator tests benchmarks examples

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-zA-Z_-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{split($$1, t, ":"); printf "%-16s %s\n", t[1], $$2}'

# --- set-up: each target below needs no other command before it -------------------------------

.PHONY: setup
setup: .setup/python .setup/packages ground ## Install everything: Python environment, Debian packages, test ground

# uv resolves and installs torch with everything in half a minute, where pip takes minutes.
.tools/bin/uv:
	$(PYTHON) -m venv .tools
	.tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.setup/python: pyproject.toml constraints.txt | .tools/bin/uv
	test -x $(BIN)/python || .tools/bin/uv venv --quiet --python $(PYTHON) .venv
	.tools/bin/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@mkdir -p .setup && touch $@

# Packages that some tests use. Without the right to install them those tests are left out.
.setup/packages: NEEDED := $(PACKAGES)
.setup/kind-packages: NEEDED := $(KIND_PACKAGES)
.setup/packages .setup/kind-packages:
	@mkdir -p .setup
	@if dpkg -s $(NEEDED) >/dev/null 2>&1; then touch $@; \
	elif command -v apt-get >/dev/null && { [ $$(id -u) = 0 ] || sudo -n true 2>/dev/null; }; then \
		sudo=$$([ $$(id -u) = 0 ] || echo sudo); \
		$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -qq -y --no-install-recommends $(NEEDED) >/dev/null && touch $@; \
	else echo "setup: skipped the Debian packages $(NEEDED): they need root or sudo"; fi

.PHONY: ground
ground: .setup/python ## Build etcd, the API server and helm for tests, once, into the user's cache
	@if command -v go >/dev/null || [ -n "$$KUBEBUILDER_ASSETS" ]; then PYTHONPATH=tests $(BIN)/python -m ground.build; \
	else echo "ground: skipped etcd and the API server: they need Go or KUBEBUILDER_ASSETS"; fi

.PHONY: constraints
constraints: .setup/python ## Pin what is installed now, without any index address
	.tools/bin/uv pip freeze --python $(BIN)/python --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' > constraints.txt

# --- check and test ---------------------------------------------------------------------------

.PHONY: check
check: .setup/python ## Format, lint, types and import contracts, in under a minute
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --config pyproject.toml

.PHONY: test
test: .setup/python ## All tests that need no cluster
	$(BIN)/pytest

.PHONY: test-gpu
test-gpu: .setup/python ## What needs an NVIDIA GPU; left out with one line where there is none
	$(BIN)/pytest tests/gpu tests/unit/worker

SEEDS ?= 1000

.PHONY: simulate
simulate: .setup/python ## Simulate the control plane under SEEDS=1000 seeds; tell what they reached
	PYTHONPATH=tests $(BIN)/python -m simulation --seeds $(SEEDS)

.PHONY: simulate-mutants
simulate-mutants: .setup/python ## Find each deliberate protocol bug from seed 0 on; tell which seed does
	PYTHONPATH=tests $(BIN)/python -m simulation --mutants

.PHONY: soak
soak: .setup/python ## Long runs: 64 workers, 20,000 rounds of workers that come and go, a minute without arbiter
	SOAK_ROUNDS=20000 $(BIN)/pytest -rP -m slow tests/integration/job/test_scale.py tests/integration/job/test_takeover.py

soak-data: export SOAK_SEEDS := $(or $(filter-out 1000,$(SEEDS)),20)
.PHONY: soak-data
soak-data: .setup/python ## Exact data under SEEDS=20 runs of 50 kills, joins and drains; 100 torn saves
	$(BIN)/pytest -m slow tests/integration/job/test_exact.py -k many_faults
	SOAK_CRASHES=100 $(BIN)/pytest --timeout 900 tests/unit/worker/test_crash.py

EVENTS ?= 1000
SEED ?= 1

.PHONY: chaos
chaos: .setup/python ## EVENTS=1000 random kills, freezes, cuts, joins and drains, from SEED=1
	CHAOS_EVENTS=$(EVENTS) CHAOS_SEED=$(SEED) $(BIN)/pytest -m slow tests/integration/job/test_exact.py -k chaos

soak-replay: export SOAK_SEEDS := $(or $(filter-out 1000,$(SEEDS)),20)
.PHONY: soak-replay
soak-replay: .setup/python ## Record SEEDS=20 runs of kills, joins and drains and play each again, bit for bit
	$(BIN)/pytest -m slow tests/integration/job/test_replay.py

# --- run and measure --------------------------------------------------------------------------

.PHONY: demo
demo: .setup/python ## Train digits with 6 workers; kill one, let one join, drain one
	$(BIN)/python -m examples.demo

.PHONY: bench
bench: bench-reform bench-accuracy bench-checkpoint bench-resume bench-control bench-operator ## Every benchmark that needs no GPU

.PHONY: bench-reform
bench-reform: .setup/python ## A worker dies: dssync beside torchrun, on the same script
	$(BIN)/python -m benchmarks.reform

.PHONY: bench-checkpoint
bench-checkpoint: .setup/python ## What a save costs: the training's stall, and the disk
	$(BIN)/python -m benchmarks.checkpoint

.PHONY: bench-resume
bench-resume: .setup/python ## Kill -9 of everything at 100 saves: whole resumes, lost work, accuracy
	$(BIN)/python -m benchmarks.resume

.PHONY: bench-accuracy
bench-accuracy: .setup/python ## The mean model of grid rounds beside that of allreduce, both examples
	$(BIN)/python -m benchmarks.accuracy

.PHONY: bench-control
bench-control: .setup/python ## Up to 1,000 fake members against one coordinator over real sockets
	$(BIN)/python -m benchmarks.control

.PHONY: bench-gpu
bench-gpu: .setup/python ## Communicators and a 100 M parameter transformer on a GPU
	PYTHONPATH=tests:. $(BIN)/python -m benchmarks.gpu

.PHONY: clean
clean: ## Remove what was built here; set-up stays
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the operator -----------------------------------------------------------------------------

.PHONY: test-api
test-api: .setup/python ## The operator against a real etcd and API server
	$(BIN)/pytest tests/api

.PHONY: chart
chart: .setup/python ## Bring the chart up to date and check it: lint, render matrix, schemas, alerts
	cp crds/dssyncjob.yaml charts/dssync/files/dssyncjob.yaml
	$(BIN)/python charts/readme.py
	$(BIN)/pytest tests/chart

PACKED ?= build/package

.PHONY: package
package: ground ## Pack the chart into build/package; with KEY=name KEYRING=file, sign it
	@mkdir -p $(PACKED)
	$$(PYTHONPATH=tests $(BIN)/python -c 'from ground import build; print(build.binary("helm"))') package charts/dssync \
		--destination $(PACKED) $(if $(KEY),--sign --key '$(KEY)' --keyring '$(KEYRING)')

.PHONY: kind-up kind-down kind-status kind-wipe
kind-up: .setup/python .setup/kind-packages ## Bring up a kind cluster of two nodes with fake GPUs; images are kept
	PYTHONPATH=tests $(BIN)/python -m ground.build kind
	PYTHONPATH=tests $(BIN)/python -m ground.kind up
kind-down: .setup/python ## Take the kind cluster down, and the Docker daemon if it is ours
	PYTHONPATH=tests $(BIN)/python -m ground.kind down
kind-status: .setup/python ## Show nodes and pods of the kind cluster
	PYTHONPATH=tests $(BIN)/python -m ground.kind status
kind-wipe: .setup/python ## As kind-down; remove what was kept, images as well
	PYTHONPATH=tests $(BIN)/python -m ground.kind wipe

.PHONY: e2e
e2e: .setup/python ## The whole path on the kind cluster, or on the one that DSSYNC_E2E_CONTEXT names
	rm -rf build/e2e.json build/e2e-logs
	$(BIN)/pytest -m cluster tests/cluster

.PHONY: bench-operator
bench-operator: .setup/python ## The operator's speed and cost, beside a bare client's ceiling
	PYTHONPATH=tests $(BIN)/python -m benchmarks.operator
