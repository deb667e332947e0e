# Lockgate. `make` alone says what there is to make.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
STAMP := $(VENV)/.installed

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# As root no file is left in the tree that the next run as an ordinary user could not replace.
AS_ROOT := $(SUDO) env CI=$(CI) PYTHONDONTWRITEBYTECODE=1 $(RUN)
ROOT_TESTS := $(AS_ROOT) pytest -p no:cacheprovider

# Tests wait more than they work, so files of tests run side by side; then, one by one, the tests that measure.
JOBS ?= $(shell expr $$(nproc) + 1)
TOGETHER := -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not alone"
ALONE := -m alone
QUICK_BENCH = $(AS_ROOT) bench --quick --plots $(VENV)/plots

# Ordinary users of Debian do not have the folders of system programs on their path.
export PATH := $(PATH):/usr/sbin:/sbin

COMMANDS := python3 openssl ovs-vswitchd ovsdb-server ovs-vsctl ip ethtool ping tcpdump iperf3 pgrep mn nft dhclient networkctl \
	traceroute tracepath
PACKAGES := python3 python3-venv openssl openvswitch-switch iproute2 ethtool iputils-ping tcpdump iperf3 procps mininet nftables \
	isc-dhcp-client systemd traceroute iputils-tracepath
HAS_VENV := $(PYTHON) -c 'import ensurepip; import venv' 2>/dev/null

# What virtual machines need besides; and what Vagrant needs to make them.
LAB_COMMANDS := qemu-system-x86_64 qemu-img mmdebstrap sfdisk ssh dnsmasq vagrant
LAB_PACKAGES := qemu-system-x86 qemu-utils mmdebstrap fdisk openssh-client dnsmasq-base vagrant
VAGRANT_COMMANDS := libvirtd virsh rsync
VAGRANT_PACKAGES := vagrant-libvirt libvirt-daemon-system libvirt-clients rsync
HAS_PLUGIN := dpkg-query --show --showformat='$${db:Status-Status}\n' vagrant-libvirt 2>/dev/null | grep -qx installed
BOX := $(VENV)/box
SHARE := $(VENV)/lab
TLS := $(VENV)/tls
# By the ends of their names, as tests write __pycache__ beside them.
SOURCES := $(wildcard $(foreach folder,controller explain flows mapping provision topo,$(folder)/*.*) topo/deploy/*.*) \
	README.md LICENSE pyproject.toml requirements.txt build-constraints.txt

# The peer that Lockgate is measured beside.
OVN := $(VENV)/ovn
OVN_DOWNLOAD := apt-get download -qq -o APT::Sandbox::User=root ovn-common ovn-central ovn-host

.DEFAULT_GOAL := help
.PHONY: help setup system demo mininet test test-unit test-ovs test-net attack flood lint bench bench-quick bench-setup clean \
	vagrant-box vagrant-files vagrant-smoke vagrant-test lab-system vagrant-system fault provision-test provision-setup

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install the system packages that are missing, and .venv (every other target does it first)

demo: setup ## Two hosts and their guests in namespaces, end to end
	$(AS_ROOT) topo.demo

mininet: setup ## Every Mininet topology, by mn itself: pingall, and whether it gives what it should
	$(AS_ROOT) topo.mininet_check

test: provision-setup bench-setup $(BOX)/lockgate.box $(SHARE)/lockgate.deb ## All tests but vagrant-test and the last of vagrant-smoke, as root; some 25 minutes
	$(ROOT_TESTS) $(TOGETHER) tests/unit tests/ovs tests/net tests/attack
	$(ROOT_TESTS) $(TOGETHER) -m "not alone and not twice" tests/lab tests/provision
	$(ROOT_TESTS) $(ALONE) tests
	$(QUICK_BENCH)

test-unit: setup ## Tests that need nothing
	$(RUN) pytest tests/unit

test-ovs: setup ## Tests on a private Open vSwitch, without root
	$(RUN) pytest $(TOGETHER) tests/ovs

test-net: setup ## Tests with real traffic between namespaces, as root
	$(ROOT_TESTS) $(TOGETHER) tests/net
	$(ROOT_TESTS) $(ALONE) tests/net

fault: setup ## Three members of the database under load, and five minutes of faults at random, as root
	$(SUDO) env CI=$(CI) PYTHONDONTWRITEBYTECODE=1 LOCKGATE_FAULT_SECONDS=300 \
		$(RUN) pytest -p no:cacheprovider tests/net/test_cluster_faults.py

attack: setup ## A malicious guest and a malicious neighbour on the substrate try all that docs/security.md names, as root
	$(ROOT_TESTS) $(TOGETHER) tests/attack
	$(ROOT_TESTS) $(ALONE) tests/attack

flood: setup ## A guest floods its host at full speed for 30 s and more: what becomes of its cache, and of another guest
	$(SUDO) env FLOOD_SECONDS=30 PYTHONDONTWRITEBYTECODE=1 $(RUN) pytest -p no:cacheprovider tests/attack/test_storm.py

vagrant-box: $(BOX)/lockgate.box ## A box of Debian for the virtual machines, from its packages alone; a minute

vagrant-files: vagrant-system $(SHARE)/lockgate.deb $(TLS)/host-9.tar ## What `vagrant up` needs besides a box: programs, package, certificates

vagrant-smoke: vagrant-system $(BOX)/lockgate.box $(SHARE)/lockgate.deb ## Two virtual machines with the kernel's datapath, without KVM; some 10 minutes
	$(ROOT_TESTS) tests/lab

vagrant-test: vagrant-system $(BOX)/lockgate.box $(SHARE)/lockgate.deb ## `vagrant up` of three machines, and the demo in one of them; some 15 minutes without KVM
	$(AS_ROOT) topo.vagrant_check

provision-test: provision-setup ## A real machine's firmware and kernel, turned on by Redfish, over and over broken off, as root
	$(ROOT_TESTS) $(TOGETHER) tests/provision
	$(ROOT_TESTS) $(ALONE) tests/provision

lint: setup ## ruff and mypy
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy

bench: bench-setup ## Measure beside peers in the same run, some 12 minutes; draws the plots in docs/img anew
	$(AS_ROOT) bench --plots docs/img

bench-quick: bench-setup ## A smaller form of that, in less than a minute
	$(QUICK_BENCH)

clean: ## Remove what was made here, .venv too
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache dist
	find . -name __pycache__ -prune -exec rm -rf {} +

# $(call install_missing,COMMANDS,PACKAGES,WHAT ELSE TO LOOK FOR)
define install_missing
	@missing=; \
	for command in $(1); do command -v $$command >/dev/null || missing="$$missing $$command"; done; \
	$(3) \
	if [ -n "$$missing" ]; then \
		echo "Not found:$$missing. Installing Debian packages: $(2)"; \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends $(2) >/dev/null; \
	fi
endef

system:
	$(call install_missing,$(COMMANDS),$(PACKAGES),$(HAS_VENV) || missing="$$missing python3-venv";)

lab-system:
	$(call install_missing,$(LAB_COMMANDS),$(LAB_PACKAGES))

# The plugin brings no command by which it would be seen.
vagrant-system: lab-system
	$(call install_missing,$(VAGRANT_COMMANDS),$(VAGRANT_PACKAGES),$(HAS_PLUGIN) || missing="$$missing vagrant-libvirt";)

$(BOX)/lockgate.box: vagrant/box.sh vagrant/box-tree.sh vagrant/netboot.sh | setup lab-system
	$(SUDO) vagrant/box.sh $(BOX)
	@$(SUDO) chown -R $$(id -u):$$(id -g) $(BOX)

$(SHARE)/lockgate.deb: $(SOURCES) $(wildcard vagrant/*) | setup lab-system
	@mkdir -p $(SHARE)
	@cp vagrant/*.sh vagrant/*.service $(SHARE)
	PIP="$(RUN) pip" topo/deploy/package.sh $(SHARE)

$(TLS)/host-9.tar: | setup
	LOCKGATE=$(VENV)/bin/lockgate vagrant/certificates.sh $(TLS) 9

# libvirt's Python is Debian's, and only for Debian's Python: the emulator of a BMC has an environment of its own.
EMULATOR := $(VENV)/emulator
DEBIANS := /usr/bin/python3
EMULATED := libvirtd qemu-system-x86_64 genisoimage curl
EMULATED_PACKAGES := libvirt-daemon-system libvirt-clients qemu-system-x86 python3-libvirt genisoimage curl

provision-setup: setup
	$(call install_missing,$(EMULATED),$(EMULATED_PACKAGES),$(DEBIANS) -c 'import libvirt' 2>/dev/null || missing="$$missing python3-libvirt";)
	@test -x $(EMULATOR)/bin/sushy-emulator || { echo "Installing $(EMULATOR)" && \
		$(DEBIANS) -m venv --system-site-packages $(EMULATOR) && $(EMULATOR)/bin/python -m pip install --quiet \
			--disable-pip-version-check -c requirements.txt sushy-tools bcrypt; }

bench-setup: setup $(OVN)/.unpacked $(VENV)/.installed-bench

# Unpacked, not installed: the packages would start OVN's services, and make the machine's own Open vSwitch theirs. Only
# the library that they need, and that is no service, is installed if it is missing.
$(OVN)/.unpacked: | $(STAMP)
	@echo "Unpacking OVN in $(OVN)"
	@rm -rf $(OVN) && mkdir -p $(OVN)
	@ldconfig -p | grep -q libunbound.so.8 || { $(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends libunbound8 >/dev/null; }
	@cd $(OVN) && { $(OVN_DOWNLOAD) || { $(SUDO) apt-get update -qq && $(OVN_DOWNLOAD); }; }
	@for package in $(OVN)/*.deb; do dpkg-deb --extract $$package $(OVN) && rm $$package; done
	@touch $@

$(VENV)/.installed-bench: $(STAMP)
	@echo "Installing matplotlib in $(VENV)"
	@$(RUN) pip install --quiet --disable-pip-version-check -c requirements.txt -e '.[bench]'
	@touch $@

# To build Ryu, older and newer releases of pip read one or the other of the two constraints, and Debian's builds
# outside of an isolated environment unless told otherwise.
$(STAMP): pyproject.toml requirements.txt build-constraints.txt | system
	@echo "Installing $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@PIP_CONSTRAINT=build-constraints.txt PIP_BUILD_CONSTRAINT=build-constraints.txt PIP_USE_PEP517=1 \
		$(RUN) pip install --quiet --disable-pip-version-check -c requirements.txt -e '.[dev]'
	@touch $@
