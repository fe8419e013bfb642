# Every verb of the kit. `make` alone prints them; only make, git and Python 3.11 or newer are needed beforehand.
#
# `##@ Title` opens a group of the list, `## text` after a target describes it. Verbs set up what they need: .venv holds
# the command line alone, and the training packages too where no Docker engine answers.

# the first Python that is new enough, whatever it is called here
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13 python3.14; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; exit; }; done; echo python3)
# (in the dev container it is the image's own environment, and the others lie beside it)
VENV ?= .venv
PHIKIT := $(VENV)/bin/phikit
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet

# make local-train RECIPE=small_cpu DATA=chats.jsonl SET="learning_rate=1e-3 seed=1" ON_BAD=drop
# (an empty value is the default's too)
override RECIPE := $(or $(strip $(RECIPE)),tiny_cpu)
override BACKEND := $(or $(strip $(BACKEND)),auto)
override SOURCE := $(or $(strip $(SOURCE)),sample)
override OUT := $(strip $(OUT))
override FORMAT := $(or $(strip $(FORMAT)),onnx)

# $(call quoted,VALUE): one word for the shell, whatever is in it; $(call option,--name,VALUE): nothing when VALUE is empty
quoted = '$(subst ','\'',$(1))'
option = $(if $(strip $(2)),$(1) $(call quoted,$(2)))

# Prompt flow reports nothing and traces nowhere: its home folder says so (docker/flow.Dockerfile does the same)
QUIET_PF := PF_HOME_DIRECTORY=$(call quoted,$(abspath $(VENV)-flow/home)) PF_TRACING_SKIP_LOCAL_SETUP=true PF_DISABLE_TRACING=true \
  APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED=true
# .env's settings for programs that read the environment alone; what is set there already wins
WITH_ENV := $(if $(wildcard .env),$(VENV)/bin/dotenv --file .env run --no-override --)
PF := $(QUIET_PF) $(WITH_ENV) $(VENV)-flow/bin/pf

# the kit's commands for Azure, the same ones rehearsed
AZURE := $(if $(REHEARSE),$(PHIKIT) rehearsal run --) $(PHIKIT) azure

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-train setup-test setup-azure local-train data runs mlflow serve export up down logs flow-test flow-serve evaluate chat setup-flow setup-chat setup-agent azure-rehearse azure-check azure-image azure-train azure-list azure-status azure-logs azure-cancel azure-register azure-deploy azure-endpoint azure-invoke azure-rollback azure-keys azure-chat azure-down image image-gpu stand-in-base doctor test bench lint format lock clean python

help:
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo

##@ Fine-tune on this machine
local-train: setup ## data to report; RECIPE= DATA= MODEL= SET="key=value ..." NAME= ON_BAD=fail|drop GPU=1 BACKEND=auto|docker|venv
	@backend=$$($(PHIKIT) backend --backend $(call quoted,$(BACKEND)) 2>/dev/null); \
	  if [ "$$backend" = venv ]; then $(MAKE) setup-train; fi
	@$(PHIKIT) train --recipe $(call quoted,$(RECIPE)) --backend $(call quoted,$(BACKEND)) \
	  $(call option,--data,$(DATA)) $(call option,--model,$(MODEL)) $(call option,--name,$(NAME)) \
	  $(call option,--on-bad,$(ON_BAD)) $(if $(GPU),--gpu) $(foreach pair,$(SET),--set $(call quoted,$(pair)))

data: setup ## prepare a dataset: SOURCE=sample|FILE|FOLDER|ultrachat|owner/name OUT=data ON_BAD=fail|drop
	@if [ "$$($(PHIKIT) backend 2>/dev/null)" = venv ]; then $(MAKE) setup-train; fi
	@$(PHIKIT) data prepare $(call quoted,$(SOURCE)) --out $(call quoted,$(or $(OUT),data)) $(call option,--on-bad,$(ON_BAD))

runs: setup ## list the runs and how they scored
	@$(PHIKIT) runs

mlflow: setup ## open MLflow's page over the tracked runs; PORT=5000
	@if [ "$$($(PHIKIT) backend 2>/dev/null)" = venv ]; then $(MAKE) setup-train; fi
	@$(PHIKIT) mlflow $(call option,--port,$(PORT))

##@ Talk to the model
serve: setup ## answer over HTTP until Ctrl-C; RUN= MODEL= HOST= PORT=5001 ENGINE=auto|transformers|onnx PRECISION= KEY= GPU=1
	@backend=$$($(PHIKIT) backend --backend $(call quoted,$(BACKEND)) 2>/dev/null); \
	  if [ "$$backend" = venv ]; then $(MAKE) setup-train; fi
	@$(PHIKIT) serve --backend $(call quoted,$(BACKEND)) $(call option,--run,$(RUN)) $(call option,--model,$(MODEL)) \
	  $(call option,--host,$(HOST)) $(call option,--port,$(PORT)) $(call option,--engine,$(ENGINE)) \
	  $(call option,--precision,$(PRECISION)) $(if $(GPU),--gpu)

# the key goes through the environment: every user of a machine sees the command lines of all
ifneq ($(strip $(KEY)),)
serve: export PHIKIT_SERVE_KEY := $(strip $(KEY))
endif

export: setup ## a model for CPUs, judged against the original; RUN= MODEL= FORMAT=onnx PRECISION="int4 float32" HELD_OUT= FORCE=1
	@backend=$$($(PHIKIT) backend --backend $(call quoted,$(BACKEND)) 2>/dev/null); \
	  if [ "$$backend" = venv ]; then $(MAKE) setup-train; fi
	@$(PHIKIT) export --format $(call quoted,$(FORMAT)) --backend $(call quoted,$(BACKEND)) \
	  $(call option,--run,$(RUN)) $(call option,--model,$(MODEL)) $(call option,--held-out,$(HELD_OUT)) \
	  $(foreach precision,$(PRECISION),--precision $(call quoted,$(precision))) $(if $(FORCE),--force)

##@ Chat with it
up: setup ## MLflow's page, scoring server, flow and chat page, in containers; http://127.0.0.1:7860; COMPARE=1
	@$(PHIKIT) up $(if $(COMPARE),--compare)

down: setup ## stop them; conversations stay
	@$(PHIKIT) down

logs: setup ## what they say; SERVICE=scoring FOLLOW=1
	@$(PHIKIT) logs $(if $(strip $(SERVICE)),$(call quoted,$(SERVICE))) $(if $(FOLLOW),--follow)

flow-test: setup setup-flow ## one question through the flow, to the server that `make serve` started; QUESTION=
	@$(PF) flow test --flow flows/chat $(if $(strip $(QUESTION)),--inputs input_data=$(call quoted,$(QUESTION)))

flow-serve: setup setup-flow ## the flow over HTTP, until Ctrl-C; PORT=8080
	@$(PF) flow serve --source flows/chat --host 127.0.0.1 --port $(call quoted,$(or $(strip $(PORT)),8080)) --engine fastapi \
	  --skip-open-browser

evaluate: setup setup-flow ## ask the held-out questions through the flow, compare with the base model; DATA=data/test_data.jsonl OUT=runs/evaluation
	@$(QUIET_PF) $(WITH_ENV) $(VENV)-flow/bin/python -m flows.evaluate $(call option,--data,$(DATA)) \
	  $(call option,--out,$(OUT))

chat: setup setup-chat ## the chat page in front of `make flow-serve`, until Ctrl-C; http://127.0.0.1:7860
	@$(WITH_ENV) $(VENV)-chat/bin/python -m flows.page

##@ On Azure (REHEARSE=1: the same, without an account, against an emulator on this machine)
azure-rehearse: setup-azure ## the whole way, rehearsed: train, deploy, ask, update under load, roll back, take down
	@$(VENV)/bin/python -m devtools.rehearsal.tour

azure-check: setup-azure ## who you are, which workspace, what is missing, what it costs an hour
	@$(AZURE) check

azure-image: setup-azure ## have the runtime image in the workspace; GPU=1
	@$(AZURE) image $(if $(GPU),--gpu)

azure-train: setup-azure ## data to report, on a cluster; RECIPE= DATA= MODEL= SET="key=value ..." NAME= ON_BAD=fail|drop GPU=1 YES=1
	@$(AZURE) train --recipe $(call quoted,$(RECIPE)) $(call option,--data,$(DATA)) $(call option,--model,$(MODEL)) \
	  $(call option,--name,$(NAME)) $(call option,--on-bad,$(ON_BAD)) $(if $(GPU),--gpu) $(if $(YES),--yes) \
	  $(foreach pair,$(SET),--set $(call quoted,$(pair)))

azure-list: setup-azure ## the kit's jobs
	@$(AZURE) list

azure-status: setup-azure ## how a job stands; JOB=
	@$(AZURE) status $(if $(strip $(JOB)),$(call quoted,$(JOB)))

azure-logs: setup-azure ## what a job says; JOB= FOLLOW=1
	@$(AZURE) logs $(if $(strip $(JOB)),$(call quoted,$(JOB))) $(if $(FOLLOW),--follow)

azure-cancel: setup-azure ## end a job; JOB= YES=1
	@$(AZURE) cancel $(call quoted,$(JOB)) $(if $(YES),--yes)

azure-register: setup-azure ## register a run's model; RUN=
	@$(AZURE) register $(call option,--run,$(RUN))

azure-deploy: setup-azure ## a model behind the managed endpoint, without an outage; RUN= MODEL=name:version KEEP=1 YES=1
	@$(AZURE) deploy $(call option,--run,$(RUN)) $(call option,--model,$(MODEL)) $(if $(KEEP),--keep) $(if $(YES),--yes)

azure-endpoint: setup-azure ## what is behind it: models, traffic, cost a day
	@$(AZURE) endpoint

azure-invoke: setup-azure ## ask it; QUESTION=
	@$(AZURE) invoke $(if $(strip $(QUESTION)),$(call quoted,$(QUESTION)))

azure-rollback: setup-azure ## back to what was live before; YES=1
	@$(AZURE) rollback $(if $(YES),--yes)

azure-keys: setup-azure ## its keys; SHOW=1 ROTATE=1|primary|secondary
	@$(AZURE) keys $(if $(SHOW),--show) $(if $(filter 1,$(ROTATE)),--rotate,$(call option,--rotate,$(ROTATE)))

azure-chat: setup-azure ## the chat page in front of it, in containers; http://127.0.0.1:7861
	@$(PHIKIT) chat --target azure

azure-down: setup-azure ## delete what the kit made there, say what stays; ALL=1 YES=1
	@$(AZURE) down $(if $(ALL),--all) $(if $(YES),--yes)

##@ Images
image: setup ## build the runtime image (local-train does so by itself)
	@$(PHIKIT) image build

image-gpu: setup ## build its variant for NVIDIA GPUs
	@$(PHIKIT) image build --gpu

stand-in-base: ## make a base image from Debian packages, where the usual one cannot be pulled
	@docker/stand_in_base.sh

##@ This machine
doctor: setup ## what is missing here, and how to mend it
	@$(PHIKIT) doctor

setup: $(VENV)/.setup ## the command line, in .venv
setup-train: $(VENV)/.setup-train ## the runtime's packages too, to train and serve without Docker
setup-azure: $(VENV)/.setup-azure ## Azure's packages, and the rehearsal's
setup-test: $(VENV)/.setup-test ## what the tests need besides
setup-flow: $(VENV)-flow/.setup ## Prompt flow, in an environment of its own
setup-chat: $(VENV)-chat/.setup ## the chat page's
setup-agent: $(VENV)-agent/.setup ## Agent Framework's

clean: ## remove .venv and caches; data/ and runs/ stay
	rm -rf .venv .venv-* .pytest_cache .ruff_cache *.egg-info build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Work on the kit
# tests that wait for the processes they start more than they compute: several files of them at once
WAITING := tests/azure_backend tests/rehearsal

test: setup setup-train setup-test setup-flow setup-chat setup-agent ## every test that this machine can run (those that need Docker are skipped, loudly, without it)
	@status=0; for part in "-n auto --maxprocesses 4 --dist loadfile $(WAITING)" "$(WAITING:%=--ignore %)"; do \
	  $(VENV)/bin/python -m pytest -m "not gpu and not azure" --ignore tests/benchmarks $$part || status=$$?; done; \
	  exit $$status

bench: setup setup-train setup-test ## speed and memory, as ratios
	@set -e; for file in tests/benchmarks/bench_*.py; do \
	  $(VENV)/bin/python -m tests.benchmarks.$$(basename $$file .py); done

lint: setup ## what CI checks
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

format: setup ## put the code into shape
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

lock: ## resolve docker/*.lock anew from pyproject.toml
	@docker/lock.sh

# Stamps: what is installed is installed again only when its lock or pyproject.toml changed.
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: Python 3.11 or newer is needed, $$($(PYTHON) --version 2>&1 || true) is what $(PYTHON) is;" \
	    "name another one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }

$(VENV)/bin/python: | python
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.setup: docker/dev.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing the command line"
	@$(PIP) --require-hashes --requirement docker/dev.lock
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.setup-train: docker/torch-cpu.lock docker/runtime.lock | $(VENV)/.setup
	@echo "installing the training packages (about 1.5 GB, once)"
	@$(PIP) --no-deps --require-hashes --requirement docker/torch-cpu.lock
	@$(PIP) --require-hashes --requirement docker/runtime.lock
	@touch $@

$(VENV)/.setup-azure: docker/azure.lock | $(VENV)/.setup
	@echo "installing Azure's packages"
	@$(PIP) --require-hashes --requirement docker/azure.lock
	@touch $@

$(VENV)/.setup-test: docker/test.lock | $(VENV)/.setup-train $(VENV)/.setup-azure
	@echo "installing what the tests need"
	@$(PIP) --require-hashes --requirement docker/test.lock
	@touch $@

$(VENV)-flow/.setup $(VENV)-chat/.setup $(VENV)-agent/.setup: $(VENV)-%/.setup: docker/%.lock | $(VENV)/bin/python
	@echo "installing what flows/ needs of docker/$*.lock"
	@$(VENV)/bin/python -m venv $(VENV)-$*
	@$(VENV)-$*/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --requirement docker/$*.lock
	@if [ $* = flow ]; then mkdir -p $(VENV)-flow/home && \
	  printf 'telemetry:\n  enabled: false\ntrace:\n  destination: none\n' >$(VENV)-flow/home/pf.yaml; fi
	@touch $@
