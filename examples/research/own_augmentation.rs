//! A normalisation (a fixed window) and an augmentation (ghosts as motion leaves them) of one's own.
#![allow(clippy::disallowed_macros, reason = "examples print")]

use ndarray::{Array3, Array4, Axis, Slice};
use stunet::data::augment::{
    Augmentation, AugmentationStep as Step, PatchRng, PatchTransform, PatchViewMut, rand::RngExt,
};
use stunet::data::geometry::Geometry;
use stunet::data::loader::{LoaderConfig, batch};
use stunet::data::plans::{Normalization, Plans};
use stunet::data::preprocess::Preprocessor;
use stunet::data::sample::MemoryCase;
use stunet::data::{image::Image, labels::LabelMap};

/// Adds a fainter copy of the patch, moved along an axis.
#[derive(Debug)]
struct Ghosting {
    probability: f64,
    strength: f32,
}

impl PatchTransform for Ghosting {
    fn describe(&self) -> String {
        format!("ghosting with probability {}, up to {}", self.probability, self.strength)
    }

    fn apply(&self, mut patch: PatchViewMut<'_>, rng: &mut PatchRng) {
        if !rng.random_bool(self.probability) {
            return;
        }
        let (axis, share) = (rng.random_range(1..=3), rng.random_range(0.0..=self.strength));
        let by = patch.image.len_of(Axis(axis)) / 4;
        let copy = patch.image.to_owned();
        let mut moved = patch.image.slice_axis_mut(Axis(axis), Slice::from(by..));
        moved.scaled_add(share, &copy.slice_axis(Axis(axis), Slice::from(..-(by as isize))));
    }
}

/// nnU-Net 2's recipe with stronger noise, without four of its steps, gamma before blur, ghosts.
fn recipe(patch: [usize; 3]) -> anyhow::Result<Augmentation> {
    let recipe = Augmentation::v2(patch);
    let mut transforms = *recipe.transforms();
    transforms.noise.std = (0.0, 0.2);
    let ghosting = Step::own(Ghosting { probability: 0.5, strength: 0.4 });
    let steps = [Step::Spatial, Step::Noise, Step::Gamma, Step::Blur, Step::Mirror, ghosting];
    Ok(recipe.with_transforms(transforms)?.with_steps(steps)?)
}

/// Prepares a volume, cuts batches from it; how many patches differ from those without ghosts.
pub fn run(num_batches: u64) -> anyhow::Result<usize> {
    let mut plans = Plans::totalsegmentator();
    plans.channels[0].scheme = Normalization::Own;
    let window = |v: f32| ((v + 160.0) / 400.0).clamp(0.0, 1.0);
    let preprocessor = Preprocessor::new(&plans)
        .with_normalisation(0, move |mut channel, _inside| channel.mapv_inplace(window))?;
    let labels = Array3::from_shape_fn([24; 3], |(z, y, x)| u16::from(z > 9 && y > 9 && x > 9));
    let image = Array4::from_shape_fn([1, 24, 24, 24], |(_, z, y, x)| {
        400.0 * f32::from(labels[[z, y, x]]) - 300.0 + (z * 31 + y * 17 + x * 7) as f32 % 90.0
    });
    let geometry = Geometry::axis_aligned([24; 3], [1.5; 3])?;
    let (image, labels) = (Image::new(image, geometry.clone())?, LabelMap::new(labels, geometry)?);
    let (prepared, labels) = preprocessor.image_with_labels(&image, Some(&labels))?;
    let cases = vec![MemoryCase::new("box", prepared.image, labels)?];

    let own = LoaderConfig::new(recipe([16; 3])?, 2, &[[2; 3]; 5]);
    let without = &own.augmentation.steps()[..5];
    let augmentation = own.augmentation.clone().with_steps(without.iter().cloned())?;
    let other = LoaderConfig { augmentation, ..own.clone() };
    let mut differ = 0;
    for k in 0..num_batches {
        let (own, other) = (batch(&cases, &own, k)?.patches, batch(&cases, &other, k)?.patches);
        differ += own.iter().zip(&other).filter(|(a, b)| a.image != b.image).count();
    }
    Ok(differ)
}

#[allow(dead_code, reason = "the tests call `run`")]
fn main() -> anyhow::Result<()> {
    run(20).map(|count| println!("{count} of 40 patches have ghosts"))
}
