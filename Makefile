# make run     guard the local Docker Engine with the default policy (make run ARGS="-allow-bind $PWD" for more)
# make test    all tests, with engines of their own
# make image   the container image sockguard (make image ARGS="--platform linux/arm64" for more)
# make check   formatting and lints
# make bench   speed and memory beside the direct socket and a plain relay

SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH)
# Its job server is not for cargo, which would take it for its own.
unexport MAKEFLAGS MFLAGS

# The end-to-end tests start engines, for which they have to be root.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo -n -E env "PATH=$$PATH")

# Where the guarded socket is made: in a directory that nobody else can write to.
ifeq ($(shell id -u),0)
SOCKGUARD_FILENAME ?= /run/sockguard/sockguard.sock
else
SOCKGUARD_FILENAME ?= $(or $(XDG_RUNTIME_DIR),$(HOME))/sockguard/sockguard.sock
endif
export SOCKGUARD_FILENAME

# What is tested and checked of the workspace; plain cargo commands are for sockguard alone.
TESTED := --package sockguard --package sockguard-scaler

.PHONY: run test program rust-tests tests-prepared attack-tests e2e-tests stack-tests image check bench

run:
	@.ci/prepare rust
	@CARGO_TERM_QUIET=true .ci/build sockguard
	@engine=$$(.ci/prepare engine) || exit 3; \
	mkdir -p "$$(dirname "$$SOCKGUARD_FILENAME")"; \
	exec target/release/sockguard -upstream-socket "$$engine" \
		$${SUDO_UID:+-uid "$$SUDO_UID"} $${SUDO_GID:+-gid "$$SUDO_GID"} $(ARGS)

# Two at a time, since each leaves a core idle for half of its time; what one says is shown as a whole when it ends. Those
# that take longest come first.
test:
	@.ci/prepare rust
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target \
		program rust-tests tests-prepared attack-tests e2e-tests stack-tests

program:
	.ci/build sockguard

# As the end-to-end tests do: what fails is run a second time, and that is said.
rust-tests:
	cargo test --locked $(TESTED) || { echo "RUN TWICE: the Rust tests" >&2; cargo test --locked $(TESTED); }
	cargo build --locked $(TESTED)

tests-prepared:
	@.ci/prepare tests

ATTACKS := tests/e2e/test_adversary.py

attack-tests: program tests-prepared
	$(AS_ROOT) target/venv/bin/pytest -q --durations=5 $(ATTACKS)

e2e-tests: program tests-prepared
	$(AS_ROOT) target/venv/bin/pytest -q --durations=10 tests/e2e --ignore=$(ATTACKS)

stack-tests: rust-tests tests-prepared
	target/venv-stack/bin/pytest -q --durations=5 tests/stack || \
		{ echo "RUN TWICE: what failed of the stacks' tests" >&2; target/venv-stack/bin/pytest -q --last-failed tests/stack; }

image:
	docker build --tag sockguard \
		--build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)" \
		--build-arg REVISION="$$(git rev-parse --short=12 HEAD)" \
		--build-arg CREATED="$$(git log -1 --format=%cI)" \
		--build-arg SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)" \
		$(ARGS) .

check:
	@.ci/prepare rust
	cargo fmt --all --check
	cargo clippy --locked --all-targets $(TESTED) -- -D warnings

bench:
	@.ci/prepare rust
	.ci/build sockguard
	cargo run --locked --release --package sockguard-bench
