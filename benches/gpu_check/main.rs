//! The programs that `scripts/gpu-check` carries to a machine with a GPU, in one file: each holds a compiler for
//! GPUs, which is most of its size. As in busybox the name that it is called by decides which of them it is.
//!
//! Called otherwise it says which names it knows. Nothing is measured or tested here.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_macros, clippy::disallowed_methods)]
#![allow(clippy::duplicate_mod, reason = "each program has its own copy of what they share")]

#[path = "../backends/main.rs"]
mod backends;
#[path = "../../tests/golden/main.rs"]
mod golden;
#[path = "../network/main.rs"]
mod network;

use std::path::PathBuf;
use std::process::ExitCode;

/// A program's name, and what it does.
type Program = (&'static str, fn() -> ExitCode);

const PROGRAMS: [Program; 3] = [
    ("backends", backends::main),
    ("golden", golden::main),
    ("network", || succeed(network::main)),
];

fn main() -> ExitCode {
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let name = called.file_stem().unwrap_or_default();
    match PROGRAMS.iter().find(|(program, _)| name == *program) {
        Some((_, run)) => run(),
        None => {
            let names = PROGRAMS.map(|(program, _)| program).join(", ");
            eprintln!(
                "expected to be called as one of {names}, by a link: scripts/gpu-check makes them"
            );
            // `cargo bench` runs every benchmark; this is none.
            ExitCode::from(if std::env::args().any(|word| word == "--bench") { 0 } else { 2 })
        }
    }
}

fn succeed(run: fn()) -> ExitCode {
    run();
    ExitCode::SUCCESS
}
