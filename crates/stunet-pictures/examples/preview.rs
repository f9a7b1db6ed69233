//! Draws a volume with its labels.
//!
//! ```console
//! cargo run --release -p stunet-pictures --features draw --example preview -- ct.nii.gz labels.nii.gz out.png
//! ```
#![allow(clippy::disallowed_methods, reason = "an example may write as it likes")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use stunet_data::labels::LabelSet;
use stunet_data::nifti;
use stunet_pictures::preview::{PreviewOptions, Scene, SceneOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [image, labels, picture] = &files[..] else {
        return Err("expected three files: an image, its labels, and the PNG to write".into());
    };
    let image = nifti::read_scan(&[image])?;
    let labels = nifti::read_labelmap(labels)?;
    // The names of the published models; others are called by their numbers.
    let names = LabelSet::totalsegmentator();
    let names: BTreeMap<u16, String> =
        names.labels().iter().map(|label| (label.values[0], label.name.clone())).collect();
    let scene = Scene::new(&image, &labels, &names, &SceneOptions::default())?;
    std::fs::write(picture, scene.preview(&PreviewOptions::default()).to_png()?)?;
    Ok(())
}
