# Short names for what is typed often; each line works without just, too. CONTRIBUTING.md explains them.
# just comes from the system's packages, `cargo install just` or `pip install rust-just`.

set positional-arguments

# what there is
_default:
    @just --list --unsorted

# build, and serve a SoftHSM token with a demo key
run *ARGS:
    softhsm/run "$@"

# the unit tests, or those whose name contains NAME: no token, no processes
unit NAME="":
    cargo test --locked --lib -- "$1"

# every test whose name contains NAME, unit and integration
test NAME:
    cargo test --locked --lib --bins --tests -- "$1"

# the drills whose name contains NAME, one after the other, with what they print; TEST_LONG=1 for the long form
drill NAME="":
    cargo test --profile ci --locked --test bridge -- --test-threads 1 --nocapture "drills::$1"

# format, lints, unit tests and the rooms' arrows: before each commit
check: && unit
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo test --locked --test arrows

# every test there is, as CI runs it; ARGS: --long, --bench, --fuzz SECONDS
all *ARGS:
    softhsm/test "$@"

# the figures of docs/performance.md on this machine
bench:
    softhsm/bench

# the examples, with the clients that `just all` has installed
examples TARGET=(env("CARGO_TARGET_DIR", "target")):
    examples/test "$1/ci/hsmac" "$1/python/bin/python" "$1/javascript"

# the documentation of the code, its private parts too, in target/doc
doc:
    cargo doc --workspace --no-deps --document-private-items --locked
