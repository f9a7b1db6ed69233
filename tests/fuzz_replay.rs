//! What the fuzzers of `fuzz/` try, on stable Rust: their corpus, and inputs made from it by a seed.
//!
//! Every parser answers every input with a value or an error. It does not panic, allocates in
//! proportion to the input, and what it accepts can be used: walked, written, read again.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "../fuzz/src/data.rs"]
mod data;
#[path = "../fuzz/src/model.rs"]
mod model;
#[path = "../fuzz/src/mutate.rs"]
mod mutate;
#[path = "../fuzz/src/pickles.rs"]
mod pickles;
#[path = "../fuzz/src/targets.rs"]
mod targets;
// A counting allocator cannot be written without.
#[allow(unsafe_code)]
#[path = "../fuzz/src/watch.rs"]
mod watch;
#[path = "../fuzz/src/zips.rs"]
mod zips;

use std::path::{Path, PathBuf};
use targets::Target;

#[global_allocator]
static ALLOCATOR: watch::Counting = watch::Counting;

/// Inputs made for every parser; a tenth where a run takes long.
const INPUTS: usize = 100_000;
/// Longest input, as in scripts/fuzz.
const LONGEST: usize = 1 << 16;

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = root().join("fuzz/corpus").join(name);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// True when the input was accepted.
fn examine(target: &Target, input: &[u8]) -> bool {
    let run = watch::run(target.run, target.per_byte, input);
    let Some(accepted) = run.accepted else {
        panic!("{} panics on {}", target.name, input.escape_ascii());
    };
    let (peak, allowed) = (run.peak, run.allowed);
    let name = target.name;
    assert!(peak <= allowed, "{name} holds {peak} of {allowed} bytes: {}", input.escape_ascii());
    accepted
}

fn check(name: &str) {
    let target = targets::find(name).unwrap();
    let corpus = corpus(name);
    let mut accepted = corpus.iter().filter(|input| examine(&target, input)).count();
    assert!(accepted > 0, "{name}: the corpus holds nothing that is valid");
    let seed = u64::from(crc32fast::hash(name.as_bytes()));
    let mut rng = mutate::Rng(seed);
    let count = if target.slow { INPUTS / 10 } else { INPUTS };
    for _ in 0..count {
        let mut input = corpus[rng.below(corpus.len())].clone();
        for _ in 0..1 + rng.below(3) {
            (target.mutate)(&mut input, &mut rng);
        }
        input.truncate(LONGEST);
        accepted += usize::from(examine(&target, &input));
    }
    // Damage that is refused at the first byte would try nothing.
    assert!(accepted > count / 1000, "{name}: {accepted} of {count} inputs were accepted");
}

macro_rules! replay {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed() {
            let names = [$(stringify!($name)),*];
            assert_eq!(targets::TARGETS.map(|target| target.name), names);
        }
    };
}

replay! {
    nifti nifti_gz nifti_pair volume dicom plans dataset labels label_map splits fingerprint trace recipe store
    array_file
    pickle pickle_plans torch_pickle torch_zip torch_legacy checkpoint folder describe
}

#[test]
fn the_corpus_is_small() {
    let bytes: usize = targets::TARGETS
        .iter()
        .flat_map(|target| corpus(target.name))
        .map(|input| input.len())
        .sum();
    assert!(bytes <= 1 << 20, "{bytes} bytes");
}
