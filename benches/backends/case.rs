//! A whole case: an image to its labels, at the network's spacing.

use super::Args;
use super::step::random_network;
use ndarray::Array4;
use std::ops::ControlFlow;
use stunet::data::geometry::Geometry;
use stunet::data::image::Image;
use stunet::data::labels::LabelSet;
use stunet::data::plans::Plans;
use stunet::device::Chosen;
use stunet::infer::{Model, PredictOptions, predict};
use stunet_testing::prng;

/// A model with random weights, and an image of noise.
pub struct Case {
    model: Model,
    image: Image,
    options: PredictOptions,
}

impl Case {
    pub fn new(args: &Args, size: &str, chosen: &Chosen) -> Result<Self, String> {
        let network = random_network(size, args.classes, &chosen.device)?;
        let patch_size =
            args.patch.clone().try_into().map_err(|_| "--patch: expected three sizes")?;
        let plans = Plans { patch_size, ..Plans::totalsegmentator() };
        let names = (0..args.classes).map(|class| format!("class {class}")).collect::<Vec<_>>();
        let names = names.iter().map(String::as_str);
        let labels = LabelSet::from_names(names).map_err(|error| error.to_string())?;
        let spacing = plans.spacing_mm;
        let model =
            Model::from_parts(vec![network], plans, labels).map_err(|error| error.to_string())?;
        let shape: [usize; 3] =
            args.case.clone().try_into().map_err(|_| "--case: expected three sizes")?;
        let [z, y, x] = shape;
        let values = prng::uniform(5, 0, shape.iter().product());
        let values = values.into_iter().map(|value| value * 500.0).collect();
        let voxels = Array4::from_shape_vec((1, z, y, x), values).expect("as many as there are");
        let geometry = Geometry::axis_aligned(shape, spacing).map_err(|error| error.to_string())?;
        let image = Image::new(voxels, geometry).map_err(|error| error.to_string())?;
        let options = PredictOptions {
            mirror: false,
            device_has_own_memory: chosen.backend.is_gpu(),
            ..PredictOptions::default()
        };
        Ok(Self { model, image, options })
    }

    /// Predicts the case; how many windows it had.
    pub fn run(&self) -> Result<usize, String> {
        let done =
            predict(&self.model, &self.image, &self.options, &mut |_| ControlFlow::Continue(()));
        Ok(done.map_err(|error| error.to_string())?.report.num_windows)
    }
}
