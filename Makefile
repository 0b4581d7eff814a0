# `make` alone lists the targets. CONTRIBUTING.md says what each check is for.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

CARGO ?= cargo
PREFIX ?= /usr/local
PLUGINDIR ?= $(shell pkg-config --variable=pluginsdir gstreamer-1.0 2>/dev/null)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

# Detections travel as GstAnalyticsRelationMeta where GStreamer has it (1.24 and newer), as ROI metas elsewhere.
# Looked up when it is used: set-up may have installed GStreamer just before.
FEATURES = $(shell pkg-config --exists 'gstreamer-analytics-1.0 >= 1.24' 2>/dev/null && echo --features analytics)

# Set-up comes before what needs it, also under -j; cargo shares the cores out by itself.
.NOTPARALLEL:

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what building and running need (Debian), or name what is missing
	@scripts/setup.sh

.PHONY: setup-dev
setup-dev: ## The same, and what the tests need
	@scripts/setup.sh --dev

.PHONY: build
build: ## Release build: libgstnvr.so and nvr-launch
	$(CARGO) build --release --locked -p gst-plugin-nvr -p nvr-launch $(FEATURES)

.PHONY: demo
demo: setup ## Built-in cameras, model and broker: events on the terminal and a picture of the wall (DEMO_ARGS=…)
	$(CARGO) run --release --locked -p nvr-launch $(FEATURES) -- demo $(DEMO_ARGS)

.PHONY: demo-picture
demo-picture: ## Make the README's picture anew
	$(MAKE) demo DEMO_ARGS='--quiet --picture docs/images/demo.png'

.PHONY: test
test: setup-dev fmt-check clippy doc deny doctest nextest ## Everything that has to pass before a change lands

.PHONY: fmt-check
fmt-check:
	$(CARGO) fmt --all --check

.PHONY: clippy
clippy: ## Lints of all targets, warnings are errors
	$(CARGO) clippy --workspace --all-targets --locked $(FEATURES) -- -D warnings

.PHONY: doc
doc: ## API documentation in target/doc, warnings are errors
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked $(FEATURES)

.PHONY: deny
deny: ## Licences, sources and duplicates of all dependencies
	$(CARGO) deny --locked check bans licenses sources

.PHONY: advisories
advisories: ## Known vulnerabilities of the dependencies; fetches the advisory database
	$(CARGO) deny --locked check advisories

.PHONY: doctest
doctest:
	$(CARGO) test --doc --workspace --locked $(FEATURES)

.PHONY: nextest
nextest: ## All tests, without the lints (ARGS=… goes to cargo nextest run)
	$(CARGO) nextest run --workspace --locked $(FEATURES) $(ARGS)

.PHONY: docs
docs: ## Write docs/ref/elements.md anew from the elements
	$(CARGO) run --locked -p nvr-tests $(FEATURES) --bin element-docs > docs/ref/elements.md.new
	mv docs/ref/elements.md.new docs/ref/elements.md

.PHONY: coverage
coverage: ## Line coverage of the core and the elements; fails below 85 %
	@FEATURES='$(FEATURES)' scripts/coverage.sh

BENCH_PYTHON := $(TARGET_DIR)/bench/venv/bin/python

.PHONY: bench-setup
bench-setup: ## Release builds and Python packages for the benchmarks
	@test -x $(BENCH_PYTHON) || python3 -m venv $(TARGET_DIR)/bench/venv || \
		{ echo 'bench-setup: Python cannot make a virtual environment; on Debian: apt-get install python3-venv' >&2; exit 1; }
	$(BENCH_PYTHON) -m pip install --quiet -r tests/bench/requirements.txt
	$(CARGO) build --release --locked -p nvr-launch -p gst-plugin-nvr $(FEATURES)
	$(CARGO) build --release --locked -p nvr-tests --bin bench-cameras $(FEATURES)

.PHONY: bench
bench: bench-setup ## Cost and latency next to other programs, see tests/bench/README.md (BENCH_ARGS=…)
	$(BENCH_PYTHON) tests/bench/twelve-cameras.py $(BENCH_ARGS)
	$(BENCH_PYTHON) tests/bench/overhead.py

.PHONY: bench-core
bench-core: ## Time of one frame to a tensor
	$(CARGO) bench --locked -p nvr-core

.PHONY: install
install: ## What was built: plugin into GStreamer's plugin folder, nvr-launch into PREFIX/bin (DESTDIR is honoured)
	@test -e $(TARGET_DIR)/release/nvr-launch -a -e $(TARGET_DIR)/release/libgstnvr.so || \
		{ echo 'install: nothing is built; run make build first, as the user whose cargo it is' >&2; exit 1; }
	@test -n '$(PLUGINDIR)' || { echo 'install: pkg-config does not find gstreamer-1.0; set PLUGINDIR' >&2; exit 1; }
	install -D -m 755 $(TARGET_DIR)/release/libgstnvr.so $(DESTDIR)$(PLUGINDIR)/libgstnvr.so
	install -D -m 755 $(TARGET_DIR)/release/nvr-launch $(DESTDIR)$(PREFIX)/bin/nvr-launch

.PHONY: uninstall
uninstall: ## Remove what install put there
	rm -f $(DESTDIR)$(PLUGINDIR)/libgstnvr.so $(DESTDIR)$(PREFIX)/bin/nvr-launch

.PHONY: clean
clean: ## Remove everything that was built
	$(CARGO) clean
