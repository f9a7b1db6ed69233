//! A picture of a segmented volume, as a PNG.
#![allow(clippy::disallowed_methods, reason = "an example may write as it likes")]

use std::collections::BTreeMap;
use std::path::Path;
use stunet::data::image::Image;
use stunet::data::labels::{LabelMap, LabelSet};
use stunet::pictures::preview::{PreviewOptions, Scene, SceneOptions};

/// Three planes and a projection of an image with its labels, and with the truth where it is known.
pub fn write(
    path: &Path,
    image: &Image,
    (labels, set): (&LabelMap, &LabelSet),
    truth: Option<&LabelMap>,
    words: &PreviewOptions,
) -> anyhow::Result<()> {
    let names: BTreeMap<u16, String> =
        set.labels()[1..].iter().map(|label| (label.values[0], label.name.clone())).collect();
    let options = SceneOptions { truth: truth.map(Into::into), ..SceneOptions::default() };
    let scene = Scene::new(image, labels, &names, &options)?;
    std::fs::write(path, scene.preview(words).to_png()?)?;
    Ok(())
}
