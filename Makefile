# make run     build and start a server in development mode
# make install put lictor and raft-kv-demo into BINDIR, which is cargo's own folder of programs unless given
# make test    all tests
# make sim     simulated clusters under faults: SEEDS=1000 FROM=1 of them, or SEED=7 in detail
# make lint    formatting, clippy, licences and advisories, documentation
# make bench   measure; CONSUL=/path/to/consul measures that beside it
# make ui      build the web page anew from ui/; needs Node
# make doc     the crates' documentation
#
# The first build compiles RocksDB, some 30 CPU minutes. Everything that links it is built in one profile (release) into
# one folder outside the repository, so that this happens once for all clones.

SHELL := /bin/bash
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lictor
export CARGO_TARGET_DIR ?= $(CACHE)/target
export LICTOR_TOOLS := $(CACHE)/tools
BIN := $(CARGO_TARGET_DIR)/release/lictor
BINDIR ?= $(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# Built and tested without RocksDB, in the quick profile.
PURE := -p lictor-proto -p lictor-state -p lictor-archive -p lictor-raft -p lictor-session -p lictor-watch -p lictor-telemetry -p lictor-sim -p lictor-peer -p lictor-node -p lictor-agent -p lictor-http -p lictor-cli
DURABLE := -p lictor-store -p lictor -p lictor-bench -p lictor-tests -p lictor-examples

# Not in the folder of the release profile: it needs nothing of RocksDB.
SIM := cargo run --quiet --profile sim -p lictor-sim --

.PHONY: run build install test sim lint bench ui doc needs
.DEFAULT_GOAL := build

needs:
	@scripts/needs

build: needs
	cargo build --release -p lictor
	ln -sf lictor $(dir $(BIN))raft-kv-demo

run: build
	$(BIN) agent -dev $(ARGS)

install: build
	install -d $(BINDIR)
	install $(BIN) $(BINDIR)/lictor
	ln -sf lictor $(BINDIR)/raft-kv-demo

test: needs
	@scripts/stages \
	    "tests without RocksDB" "cargo test --no-fail-fast $(PURE)" \
	    "server and load program" "cargo build --release -p lictor -p lictor-bench && ln -sf lictor $(dir $(BIN))raft-kv-demo" \
	    "tests with RocksDB" "cargo test --release --no-fail-fast $(DURABLE)" \
	    "tests of the web page" "LICTOR_BIN=$(BIN) LICTOR_SHOTS=$(CARGO_TARGET_DIR)/page scripts/page-test"

sim: needs
	$(SIM) $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000) $(if $(FROM),--from $(FROM)))

lint: needs
	@scripts/stages \
	    "formatting" "cargo fmt --all --check" \
	    "clippy" "cargo clippy --release --workspace --all-targets -- -D warnings" \
	    "dependencies" "scripts/deny" \
	    "documentation" "RUSTDOCFLAGS='-D warnings' cargo doc --release --no-deps --workspace"

bench: needs
	cargo build --release -p lictor -p lictor-bench
	$(CARGO_TARGET_DIR)/release/lictor-bench --lictor $(BIN) $(if $(CONSUL),--consul $(CONSUL)) $(ARGS)

ui:
	cd ui && npm ci && npm run build

doc: needs
	cargo doc --release --no-deps --workspace
	@echo "open $(CARGO_TARGET_DIR)/doc/lictor/index.html"
