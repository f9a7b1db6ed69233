//! One libFuzzer binary for all targets.
//!
//! * `FUZZ_TARGET`: which parser,
//! * `FUZZ_FINDINGS`: a folder where an input that breaks a rule is kept, the smallest of each kind;
//!   the run goes on,
//! * `FUZZ_STATS`: a file for the number of runs and of accepted inputs,
//! * `FUZZ_SEEDS`: writes valid inputs of every target into this folder and ends.
#![no_main]

mod data;
mod model;
mod mutate;
mod pickles;
mod seeds;
mod targets;
mod watch;
mod zips;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};
use targets::Target;

#[global_allocator]
static ALLOCATOR: watch::Counting = watch::Counting;

/// Longest time one input may take.
const LONGEST: Duration = Duration::from_secs(5);

static RUNS: AtomicU64 = AtomicU64::new(0);
static ACCEPTED: AtomicU64 = AtomicU64::new(0);
/// Where the last panic happened, and what it said.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn setting(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

fn target() -> Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    *TARGET.get_or_init(|| {
        std::panic::set_hook(Box::new(|info| {
            let at = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
            let text = info.payload_as_str().unwrap_or_default();
            // What an assertion compares differs from input to input: one finding, not hundreds.
            let text = text.split("\n").next().unwrap_or_default();
            *PANIC.lock().expect("no panic within") =
                format!("panic {} {text:.60}", at.unwrap_or_default());
        }));
        let name = setting("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
        let name = name.to_string_lossy();
        targets::find(&name).unwrap_or_else(|| panic!("no target {name}"))
    })
}

fn begin() {
    if let Some(folder) = setting("FUZZ_SEEDS") {
        seeds::write(&folder);
        std::process::exit(0);
    }
    target();
}

libfuzzer_sys::fuzz_target!(init: begin(), |input: &[u8]| {
    let target = target();
    let start = Instant::now();
    let run = watch::run(target.run, target.per_byte, input);
    let took = start.elapsed();
    match run.accepted {
        None => {
            // A copy, since whoever keeps the finding may panic, too.
            let what = PANIC.lock().expect("no panic within").clone();
            finding(&what, input);
        }
        Some(accepted) => _ = ACCEPTED.fetch_add(accepted.into(), Relaxed),
    }
    if run.peak > run.allowed {
        finding("memory beyond the bound", input);
    }
    if took > LONGEST {
        finding("more than five seconds", input);
    }
    count();
});

fn count() {
    static SAVED: Mutex<Option<Instant>> = Mutex::new(None);
    let runs = RUNS.fetch_add(1, Relaxed) + 1;
    let Some(path) = setting("FUZZ_STATS").filter(|_| runs.is_multiple_of(256)) else { return };
    let mut saved = SAVED.lock().expect("no panic within");
    if saved.is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
        *saved = Some(Instant::now());
        let _ = std::fs::write(path, format!("{runs} {}\n", ACCEPTED.load(Relaxed)));
    }
}

/// Keeps the smallest input of each kind of finding.
fn finding(what: &str, input: &[u8]) {
    let Some(folder) = setting("FUZZ_FINDINGS") else { panic!("{what}") };
    let name: String = what
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' })
        .take(150)
        .collect();
    let path = folder.join(format!("{}-{name}", target().name));
    if std::fs::metadata(&path).is_ok_and(|old| old.len() <= input.len() as u64) {
        return;
    }
    eprintln!("FINDING {} ({} bytes): {what}", target().name, input.len());
    let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
    kept.expect("a finding can be kept");
}

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut rng = mutate::Rng(seed.into());
    // Half of the time the fuzzer's own way, which learns from comparisons.
    if rng.one_in(2) {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    let mut input = data[..size].to_vec();
    (target().mutate)(&mut input, &mut rng);
    let size = input.len().min(max_size);
    data[..size].copy_from_slice(&input[..size]);
    size
});
