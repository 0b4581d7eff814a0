#!/usr/bin/env bash
# Line coverage of nvr-core and gst-plugin-nvr by all tests of the workspace, the end-to-end ones included.
# Needs cargo-llvm-cov from crates.io and LLVM's tools of the compiler's own LLVM version.
#   COVERAGE_MIN  lowest line coverage that passes, percent (85)
#   FEATURES      passed to cargo
#   arguments     passed to cargo nextest run
set -euo pipefail
cd "$(dirname "$0")/.."

have() { command -v "$1" >/dev/null 2>&1; }

if ! cargo llvm-cov --version >/dev/null 2>&1; then
    echo "coverage: cargo-llvm-cov is missing, install it with: cargo install --locked cargo-llvm-cov" >&2
    exit 1
fi

llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
host=$(rustc -vV | sed -n 's/^host: //p')
if [ ! -x "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-cov" ]; then
    if have "llvm-cov-$llvm" && have "llvm-profdata-$llvm"; then
        LLVM_COV=$(command -v "llvm-cov-$llvm") LLVM_PROFDATA=$(command -v "llvm-profdata-$llvm")
        export LLVM_COV LLVM_PROFDATA
    else
        echo "coverage: LLVM's tools are missing, install them with: rustup component add llvm-tools" >&2
        echo "coverage: or from the distribution, version $llvm: apt-get install llvm-$llvm" >&2
        exit 1
    fi
fi

# The launcher, examples and tests run the code that is measured, they are not what is measured.
# shellcheck disable=SC2086 # FEATURES is a list of words
exec cargo llvm-cov nextest --workspace --locked ${FEATURES:-} \
    --ignore-filename-regex '(^|/)(launcher|tests|examples)/|/tests\.rs$' \
    --fail-under-lines "${COVERAGE_MIN:-85}" "$@"
