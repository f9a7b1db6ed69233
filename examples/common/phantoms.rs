//! Phantoms as the library's images and labelmaps, and how well a labelmap agrees with another.

use ndarray::Axis;
use stunet::data::{geometry::Geometry, image::Image, labels::LabelMap, labels::LabelSet};
use stunet_testing::phantom::{ScanOptions, scan};

/// A CT with its truth.
pub struct PhantomCase {
    pub name: String,
    pub image: Image,
    pub truth: LabelMap,
}

/// The phantom of a seed, labelled with the given structures.
pub fn phantom(
    seed: u64,
    scan_options: &ScanOptions,
    structures: &[&str],
) -> anyhow::Result<PhantomCase> {
    let phantom = scan(seed, scan_options).with_structures(structures);
    let (z, y, x) = phantom.image.dim();
    let geometry =
        Geometry::new([z, y, x], phantom.spacing_mm, phantom.origin_mm, phantom.direction)?;
    Ok(PhantomCase {
        name: format!("phantom_{seed}"),
        image: Image::new(phantom.image.insert_axis(Axis(0)), geometry.clone())?,
        truth: LabelMap::new(phantom.labels, geometry)?,
    })
}

/// Labels of the given structures, background first.
pub fn label_set(structures: &[&str]) -> anyhow::Result<LabelSet> {
    let names = ["background"].into_iter().chain(structures.iter().copied());
    Ok(LabelSet::from_names(names)?)
}

/// Dice of every label from 1; none where the truth lacks it, as a structure that is not there has none.
pub fn dice(truth: &LabelMap, predicted: &LabelMap, num_labels: usize) -> Vec<Option<f64>> {
    let mut counts = vec![[0u64; 3]; num_labels + 1];
    for (&a, &b) in truth.data.iter().zip(&predicted.data) {
        counts[usize::from(a)][0] += 1;
        counts[usize::from(b)][1] += 1;
        counts[usize::from(a)][2] += u64::from(a == b);
    }
    let of = |&[truth, predicted, both]: &[u64; 3]| {
        (truth > 0).then(|| 2.0 * both as f64 / (truth + predicted) as f64)
    };
    counts[1..].iter().map(of).collect()
}

/// Mean of what there is.
pub fn mean(values: impl IntoIterator<Item = Option<f64>>) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for value in values.into_iter().flatten() {
        sum += value;
        count += 1;
    }
    sum / f64::from(count.max(1))
}
