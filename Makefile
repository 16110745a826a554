# make run     build and start a server in development mode
# make test    all tests
# make lint    formatting, clippy, licences and advisories, documentation
# make bench   measure; CONSUL=/path/to/consul measures that beside it
# make doc     the crates' documentation
#
# The first build compiles RocksDB, some 30 CPU minutes. Everything that links it is built in one profile (release) into
# one folder outside the repository, so that this happens once for all clones.

SHELL := /bin/bash
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lictor
export CARGO_TARGET_DIR ?= $(CACHE)/target
export LICTOR_TOOLS := $(CACHE)/tools
BIN := $(CARGO_TARGET_DIR)/release/lictor

# Built and tested without RocksDB, in the quick profile.
PURE := -p lictor-proto -p lictor-state -p lictor-raft -p lictor-session -p lictor-node -p lictor-agent -p lictor-http -p lictor-cli
DURABLE := -p lictor-store -p lictor -p lictor-bench -p lictor-tests -p lictor-examples

.PHONY: run build test lint bench doc needs
.DEFAULT_GOAL := build

needs:
	@scripts/needs

build: needs
	cargo build --release -p lictor

run: build
	$(BIN) agent -dev $(ARGS)

test: needs
	@scripts/stages \
	    "tests without RocksDB" "cargo test $(PURE)" \
	    "server and load program" "cargo build --release -p lictor -p lictor-bench" \
	    "tests with RocksDB" "cargo test --release $(DURABLE)"

lint: needs
	@scripts/stages \
	    "formatting" "cargo fmt --all --check" \
	    "clippy" "cargo clippy --release --workspace --all-targets -- -D warnings" \
	    "dependencies" "scripts/deny" \
	    "documentation" "RUSTDOCFLAGS='-D warnings' cargo doc --release --no-deps --workspace"

bench: needs
	cargo build --release -p lictor -p lictor-bench
	$(CARGO_TARGET_DIR)/release/lictor-bench --lictor $(BIN) $(if $(CONSUL),--consul $(CONSUL)) $(ARGS)

doc: needs
	cargo doc --release --no-deps --workspace
	@echo "open $(CARGO_TARGET_DIR)/doc/lictor/index.html"
