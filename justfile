# `just check` is what CI runs.

# Everything CI runs, step by step with its seconds.
check:
    bash .ci/run

# The quick part: formatting, lints, tests without golden data.
quick:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings
    cargo test --release

# Golden tests; `just golden preprocess` for one module.
golden *filter:
    STUNET_ORACLE_REQUIRED=1 cargo test --release --test golden {{filter}}

# The documentation, warnings as errors.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

# The book, its links, and every command of README and book.
book:
    scripts/check-docs

# Licences, advisories and sources of what we build from (needs cargo-deny).
deny:
    cargo deny check

# The whole job on embedded defaults.
example *arguments:
    cargo run --release --example predict_totalseg -- {{arguments}}
