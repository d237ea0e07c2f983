# SPDX-License-Identifier: GPL-3.0-or-later
# `make` lists the targets. All of them work from a fresh clone, as root or as a user who may call sudo: only what makes
# namespaces runs as root.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help

# Any Python from 3.11 that runs, as a version manager's shims do not all do; by its path, outside of any environment.
BASE_PYTHON := $(shell for each in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 /usr/bin/python3); do \
	$$each -c 'import sys; sys.version_info >= (3, 11) or sys.exit(1); print(sys._base_executable)' 2>/dev/null \
	&& break; done)

BIN := .venv/bin
RUNS := .venv/.runs
STAMP := .venv/.made

# Programs that find each other, administrators' ones too, and the locale that Ansible insists on.
export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL := C.UTF-8
# Named, because Ansible ignores the file in a checkout that everybody may write to.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# sudo drops the environment; and root leaves no caches in a user's checkout.
AS_ROOT = $(SUDO) env PATH="$(PATH)" LC_ALL=C.UTF-8 ANSIBLE_CONFIG="$(ANSIBLE_CONFIG)" PYTHONDONTWRITEBYTECODE=1 \
	ALPINE_ROOTFS="$${ALPINE_ROOTFS-}"

# Hosts that boot systemd share one tree of cgroups, and come after one another.
ALONE = flock .venv/.systemd
SCENARIOS := default three systemd
TESTS := tests/unit tests/kernel
# A test that waits for what never comes fails with where it waits.
PYTEST = $(BIN)/python -m pytest --timeout=600
comma := ,
header = @printf '\n=== %s ===\n' '$(1)'

.PHONY: help venv tools demo demo-down test test-all lint sanity molecule pytest unit kernel properties units integration matrix coverage package bench isolation distributions docs clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

venv: $(STAMP) ## make .venv with all Python tools, once for each change of the requirements

# What the demo needs, Ansible and pyroute2, in the versions that the tests have; a tenth of all tools.
$(RUNS): requirements.txt
	$(call header,venv)
	@[ "$(BASE_PYTHON)" ] || { echo 'No Python from 3.11 found; name one: make PYTHON=/path/to/python3' >&2; exit 1; }
	$(BASE_PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check -r requirements.txt -c requirements-dev.txt
	@touch $@

$(STAMP): $(RUNS) requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip check
	@touch $@

tools: ## check the system's tools, and install what is missing where that is possible
	@scripts/tools "$(BASE_PYTHON)"

demo: tools $(RUNS) ## build a lab of two hosts on this machine, the overlay on them, and prove that it works
	$(call header,the lab: two hosts and their network)
	@$(AS_ROOT) $(BIN)/ansible-playbook playbooks/lab.yml
	$(call header,the overlay: bridges$(comma) containers$(comma) VXLAN)
	@$(AS_ROOT) $(BIN)/ansible-playbook -i inventory/lab site.yml
	$(call header,the proof: each container from each host)
	@$(AS_ROOT) $(BIN)/ansible-playbook -i inventory/lab playbooks/verify.yml
	@printf '\nThe lab is up. Take it away with: make demo-down\n'

demo-down: $(RUNS) ## take the lab away
	@$(AS_ROOT) $(BIN)/ansible-playbook playbooks/lab.yml -e lab_state=absent

test: tools venv lint sanity molecule pytest ## run the checks and tests of every day; the last line is pytest's

# Three at a time: what waits for the kernel, or for hosts that boot, leaves the cores to the others. They share no directory of
# build/, and what boots systemd is in one of them. Kernel tests and scenarios have the root filesystem that each machine can make, and
# the others Alpine's own, where it can be had. Half of the random cases, which are others each time.
test-all: FIRST = coverage
test-all: SECOND = lint docs sanity units integration matrix
test-all: THIRD = package distributions properties
test-all: tools venv ## those that take minutes, too
	@mkdir -p build
	@$(MAKE) --no-print-directory --keep-going $(SECOND) >build/second.log 2>&1 & second=$$!; \
	{ $(MAKE) --no-print-directory molecule SCENARIOS="$(SCENARIOS) mesh" ALPINE_ROOTFS=stand-in || third=$$?; \
		$(MAKE) --no-print-directory --keep-going $(THIRD) CASES=$(or $(CASES),100) || third=$$?; exit $${third-0}; } >build/third.log 2>&1 & third=$$!; \
	failed=0; \
	$(MAKE) --no-print-directory --keep-going $(FIRST) TESTS="$(TESTS) --ignore=tests/kernel/test_properties.py" || failed=$$?; \
	wait $$second || failed=$$?; \
	wait $$third || failed=$$?; \
	cat build/second.log build/third.log; \
	[ $$failed = 0 ] || { echo 'FAILED: look for "***" above'; exit $$failed; }

lint: tools venv ## style of Python, YAML, shell and documentation, rules of Ansible, licences
	$(call header,lint)
	ruff check --no-cache .
	mypy
	yamllint --strict .
	ansible-lint --offline
	antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=all \
		--disallow-unknown-collection-refs .
	antsibull-changelog lint
	git ls-files -z --cached --others --exclude-standard .ci scripts '*.sh' \
		| xargs -0 grep -slE '^#!.*[/ ](ba)?sh( |$$)' | xargs shellcheck
	reuse lint --quiet || reuse lint

sanity: tools venv ## ansible-test sanity on every supported Python of this machine
	$(call header,sanity)
	$(BIN)/python scripts/ansible-test sanity

molecule: tools venv ## scenarios of molecule; SCENARIOS="default three"
	$(call header,molecule)
	@for each in $(SCENARIOS); do \
		if [ $$each = systemd ]; then alone='$(ALONE)'; else alone=; fi; \
		$(AS_ROOT) MOLECULE_GLOB="molecule/$$each/molecule.yml" $$alone scripts/apart $(BIN)/molecule test --all --report || exit; \
	done

pytest: tools venv ## the unit and the kernel tests
	$(call header,unit and kernel tests)
	@$(AS_ROOT) $(MEASURED) scripts/apart $(PYTEST) $(TESTS)

coverage: tools venv ## pytest, measured: how much of plugins/ it runs, which must be 95 %
	@$(SUDO) rm -rf build/coverage
	@$(MAKE) --no-print-directory pytest TESTS="$(TESTS)" \
		MEASURED="$(BIN)/python scripts/coverage" ALPINE_ROOTFS=stand-in
	$(call header,coverage)
	@$(AS_ROOT) $(BIN)/python scripts/coverage

unit: venv ## the unit tests: no kernel, no root
	$(call header,unit tests)
	$(PYTEST) tests/unit

kernel: tools venv ## the tests on this machine's kernel, in throwaway namespaces
	$(call header,kernel tests)
	@$(AS_ROOT) scripts/apart $(PYTEST) tests/kernel

properties: tools venv ## random topologies and drift on this machine's kernel; CASES=200 of them
	$(call header,properties)
	@$(AS_ROOT) FROMSCRATCH_CASES=$(or $(CASES),200) scripts/apart $(BIN)/python -m pytest -s tests/kernel/test_properties.py

units: venv ## the unit tests by ansible-test, on every supported Python of this machine
	$(call header,units)
	$(BIN)/python scripts/ansible-test units

matrix: tools venv ## unit, kernel and lab tests on other Pythons, and releases of pyroute2 and ansible-core
	$(call header,matrix)
	$(BIN)/python scripts/matrix $(AS_ROOT)

integration: tools venv ## ansible-test integration: each module in a playbook, on this machine's kernel
	$(call header,integration)
	@$(AS_ROOT) scripts/apart $(BIN)/python scripts/ansible-test integration

package: tools venv ## build the collection, check it as Galaxy does, install it, and run the lab with nothing but that
	$(call header,package)
	@rm -rf build/package
	$(BIN)/ansible-galaxy collection build --output-path build/package
	@scripts/check-package build/package/*.tar.gz
	$(call header,the lab with the package)
	@$(AS_ROOT) scripts/apart scripts/run-package build/package/*.tar.gz

distributions: tools venv ## a mesh of Debian 11, 12 and 13 from the first run to the teardown; an upgrade
	$(call header,distributions)
	@$(AS_ROOT) scripts/userland bullseye bookworm trixie
	@$(AS_ROOT) $(ALONE) scripts/apart $(PYTEST) -rs tests/distributions

bench: tools venv ## time the role beside the article's commands and a playbook of loops, the launcher, planning, netlink, and packets; COUNT="10 100" containers
	$(call header,the launcher)
	@$(AS_ROOT) scripts/apart $(BIN)/python tests/bench/launcher.py
	$(call header,planning)
	@$(BIN)/python tests/bench/planning.py
	$(call header,neighbour tables)
	@$(AS_ROOT) scripts/apart $(BIN)/python -m tests.bench.tables
	$(call header,the way of packets)
	@$(AS_ROOT) scripts/apart $(BIN)/python -m tests.bench.dataplane
	$(call header,bench)
	@$(AS_ROOT) scripts/apart $(BIN)/python tests/bench/bench.py $(COUNT)

isolation: tools venv ## try what containers are kept from, beside podman's, and write the page of the documentation about it
	$(call header,isolation)
	@$(AS_ROOT) scripts/apart $(BIN)/python scripts/isolation

docs: venv ## the documentation site, as build/docs/index.html
	$(call header,documentation)
	@rm -rf build/docs build/docs-source
	@mkdir -p build/docs-source
	antsibull-docs collection --use-current --squash-hierarchy --fail-on-error --no-add-antsibull-docs-version \
		--dest-dir build/docs-source fromscratch.containers
	sphinx-build --quiet --fail-on-warning --keep-going -c docs/docsite -d build/docs-source/.doctrees \
		build/docs-source build/docs
	@! grep -rl --include='*.html' -e 'class="contents' -e toc-backref build/docs  # what furo takes for a mistake

clean: ## remove what the targets above have made in the checkout
	$(SUDO) rm -rf .venv .ansible .cache .pytest_cache .ruff_cache .hypothesis .coverage build tests/output
	$(SUDO) find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
