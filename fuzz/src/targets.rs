//! Every parser: what is run on an input, how inputs are made, and what may be allocated.

use crate::mutate::{self, Rng};
use crate::{data, model, pickles, watch, zips};

/// One parser and what is done with what it accepts.
#[derive(Clone, Copy)]
pub struct Target {
    /// Name of its corpus.
    pub name: &'static str,
    /// Runs it; true when the input was accepted. Anything that must not happen is a panic.
    pub run: fn(&[u8]) -> bool,
    /// Changes an input so that much of it stays right.
    pub mutate: fn(&mut Vec<u8>, &mut Rng),
    /// Bytes it may hold for every byte of input.
    pub per_byte: usize,
    /// True where a run takes so long that `cargo test` does a tenth; the fuzzer does not ask.
    #[allow(dead_code, reason = "read by the replay only")]
    pub slow: bool,
}

const fn target(
    name: &'static str,
    run: fn(&[u8]) -> bool,
    mutate: fn(&mut Vec<u8>, &mut Rng),
) -> Target {
    Target { name, run, mutate, per_byte: watch::PER_BYTE, slow: false }
}

/// All of them.
pub const TARGETS: [Target; 23] = [
    target("nifti", data::nifti, mutate::nifti),
    // Deflate packs up to 1032 bytes into one, and a voxel of one byte takes up to six while it is
    // widened.
    Target { per_byte: 8 * 1032, ..target("nifti_gz", data::nifti, mutate::gzip) },
    target("nifti_pair", data::nifti_pair, mutate::nifti),
    Target { per_byte: 8 * 1032, ..target("volume", data::volume, mutate::bytes) },
    // Packed frames are believed to hold up to 4096 samples per byte, of up to four bytes each.
    Target { per_byte: 8 * 4096, slow: true, ..target("dicom", data::dicom, mutate::dicom) },
    target("plans", data::plans, mutate::json_texts),
    target("dataset", data::dataset, mutate::json_texts),
    target("labels", data::labels, mutate::json_texts),
    target("label_map", data::label_map, mutate::bytes),
    target("splits", data::splits, mutate::json_texts),
    target("fingerprint", data::fingerprint, mutate::json_texts),
    target("trace", data::trace, mutate::json_texts),
    target("recipe", data::recipe, mutate::json_texts),
    Target { slow: true, ..target("store", data::store, mutate::safetensors) },
    Target { slow: true, ..target("array_file", data::array_file, mutate::bytes) },
    target("pickle", model::pickle, |data, rng| pickles::mutate(data, rng, false)),
    target("pickle_plans", model::pickle_plans, model::mutate_pickle_plans),
    target("torch_pickle", model::torch_pickle, |data, rng| pickles::mutate(data, rng, true)),
    target("torch_zip", model::torch, zips::mutate),
    target("torch_legacy", model::torch, |data, rng| match rng.one_in(4) {
        true => *data = zips::legacy(rng),
        false => mutate::bytes(data, rng),
    }),
    target("checkpoint", model::checkpoint, zips::mutate),
    Target { slow: true, ..target("folder", model::folder, model::mutate_folder) },
    Target { slow: true, ..target("describe", model::describe, mutate::json_texts) },
];

/// The target of a name.
pub fn find(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
