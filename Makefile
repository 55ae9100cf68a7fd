# The two commands of the README are `make demo` and `make test`; `make help` lists the rest.
# Everything happens in a virtual environment with ROS 2 from PyPI (tools/setup.sh); a robot with an apt ROS uses colcon.

ROS ?= kilted
VENV := $(if $(filter kilted,$(ROS)),.venv,.venv-$(ROS))
BIN := $(VENV)/bin
SETUP := tools/setup.sh

# A sourced ROS would mix with the environment's own; `make accept` alone uses it.
sourced_libraries := $(LD_LIBRARY_PATH)
sourced_distro := $(ROS_DISTRO)
empty :=
space := $(empty) $(empty)
sourced := $(addsuffix /%,$(subst :, ,$(AMENT_PREFIX_PATH)))
export LD_LIBRARY_PATH := $(subst $(space),:,$(filter-out $(sourced),$(subst :, ,$(LD_LIBRARY_PATH))))
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH RMW_IMPLEMENTATION
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
export ROS_DISTRO := $(ROS)
# Nodes started from here speak to this machine only, and have room for raw images in shared memory.
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST
export $(if $(filter kilted,$(ROS)),FASTDDS,FASTRTPS)_DEFAULT_PROFILES_FILE ?= $(CURDIR)/config/fastdds.xml

# What differs between distributions: rclpy, and the messages.
ROS_TESTS := test/nodes test/client test/ros test/demo test/server/services/test_node_service.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-jazzy accept lint pytest audit node camera ask setup check-install docs clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: setup ## simulated camera, node and client as three processes; SEED=n picks the scenes
	@$(BIN)/mobilevlm_demo $(if $(SEED),--seed $(SEED))

node: setup ## the node alone, in this terminal (Ctrl-C ends it)
	@$(BIN)/mobilevlm_node

camera: setup ## the simulated camera alone; SEED=n
	@$(BIN)/camera_node $(if $(SEED),--ros-args -p seed:=$(SEED))

ask: setup ## ask the running node: make ask Q="Is there a person?"
ask: export QUESTION = $(value Q)
ask:
	@$(if $(value Q),$(BIN)/mobilevlm_client --wait-for-node 2 "$$QUESTION",echo 'ask what? make ask Q="Is there a person?"'; exit 2)

test: ## everything CI checks: ruff, mypy, import-linter, bandit, pytest; ROS=jazzy for the other distribution, ARGS="-k name"
	@$(SETUP) test $(ROS) $(VENV)
	@status=0; $(MAKE) --no-print-directory lint || status=1; $(MAKE) --no-print-directory pytest || status=1; exit $$status

# Half of a node's test is waiting, so two processes share the tests; each has a ROS domain of its own.
WORKERS ?= 2

pytest: ## the tests alone; WORKERS=0 runs them in one process
	@$(SETUP) test $(ROS) $(VENV)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

lint: ## ruff, mypy, the import rules, bandit and the linters of docker/ alone
	@$(SETUP) test $(ROS) $(VENV)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -c tools/bandit.yaml -r mobilevlm_ros tools benchmarks examples launch setup.py
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml

docs: ## the documentation's site, in build/site; a dead link fails
	@$(SETUP) test $(ROS) $(VENV)
	$(BIN)/mkdocs build --strict

PUBLISHED := typed,server,mcp,bt,bags,memory
audit: ## known vulnerabilities of what we bring (asks the advisory database), their licences, and sbom.json (CycloneDX)
	@$(SETUP) test $(ROS) $(VENV)
	$(BIN)/python tools/sbom.py --extras $(PUBLISHED) -o sbom.json --requirements $(VENV)/audit.txt
	$(BIN)/pip-audit --strict --disable-pip --no-deps -r $(VENV)/audit.txt

setup: ## make the environment, and nothing else
	@$(SETUP) run $(ROS) $(VENV)

test-jazzy: ## the tests that need ROS, with ROS 2 Jazzy
	@$(MAKE) --no-print-directory pytest ROS=jazzy ARGS="$(ROS_TESTS) $(ARGS)"

accept: export AMENT_PREFIX_PATH := $(AMENT_PREFIX_PATH)
accept: export PYTHONPATH := $(PYTHONPATH)
accept: export LD_LIBRARY_PATH := $(sourced_libraries)
accept: export ROS_DISTRO := $(sourced_distro)
accept: ## the launch files, through the real `launch`: after `source install/setup.bash` of a workspace with this package
	MOBILEVLM_ACCEPT=1 python3 -m pytest $(or $(ARGS),test/launch)

check-install: ## install by colcon (plain, again, linked, two packages) and by pip, and ask each: about 10 minutes
	@ROS=$(ROS) tools/check_install.sh

clean: ## remove all that was made here, the environments too
	rm -rf .venv .venv-* build install log dist *.egg-info demo.png sbom.json .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
