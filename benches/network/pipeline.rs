//! What lies around the network, and a whole case: for `scripts/scaling`.

use super::step::{Task, quick_parameters};
use burn::tensor::Device;
use ndarray::Array4;
use std::ops::{ControlFlow, Range};
use stunet::data::geometry::Geometry;
use stunet::data::image::{RawImage, Voxels};
use stunet::data::labels::LabelSet;
use stunet::data::plans::Plans;
use stunet::data::preprocess::preprocess_scan;
use stunet::infer::{
    InferError, Model, Network, Outputs, PredictOptions, WindowCost, predict_prepared, prepare_scan,
};
use stunet::model::cost::cost;
use stunet::model::{StuNet, StuNetConfig, StuNetSize};

/// Voxels of a CT to preprocess, and their size in mm: a torso.
const CT: ([usize; 3], [f64; 3]) = ([150, 512, 512], [2.0, 0.8, 0.8]);
/// The same for a case of eight windows at 1.5 mm, restored to its own grid.
const CASE: ([usize; 3], [f64; 3]) = ([144, 240, 240], [2.0, 1.2, 1.2]);

/// Work that is done with a scan.
pub struct Pipeline {
    scan: RawImage,
    work: Work,
    /// Floating-point operations of the convolutions.
    pub flop: f64,
}

enum Work {
    Preprocess(Box<Plans>),
    Predict(Box<Model>),
}

impl Pipeline {
    /// The work of a task; none where the task is the network alone.
    pub fn new(task: Task, size: StuNetSize, device: &Device) -> Option<Self> {
        let (plans, labels) = (Plans::totalsegmentator(), LabelSet::totalsegmentator());
        let config = StuNetConfig::new(size, 1, labels.num_outputs());
        let (scan, work, flop) = match task {
            Task::Preprocess => (scan(CT), Work::Preprocess(Box::new(plans)), 0.0),
            Task::Export => {
                let network = Ready::new(labels.num_outputs(), plans.patch_size);
                (scan(CASE), predict_with(vec![network], plans, labels), 0.0)
            }
            Task::Case => {
                let flop = 8.0 * 2.0 * cost(&config, plans.patch_size).conv_macs_predict as f64;
                let network = StuNet::from_source(&config, &mut quick_parameters(), device);
                let network = network.expect("parameters of the shapes asked for");
                (scan(CASE), predict_with(vec![network], plans, labels), flop)
            }
            _ => return None,
        };
        Some(Self { scan, work, flop })
    }

    /// Runs once; gives a value of what came out.
    pub fn run(&self) -> f32 {
        match &self.work {
            Work::Preprocess(plans) => preprocess_scan(&self.scan, plans).unwrap().image[[0; 4]],
            Work::Predict(model) => {
                let prepared = prepare_scan(model, &self.scan).unwrap();
                let options = PredictOptions {
                    mirror: false,
                    pass_secs: Some(1.0),
                    ..PredictOptions::default()
                };
                let go_on = &mut |_| ControlFlow::Continue(());
                let found = predict_prepared(model, prepared, &options, go_on).unwrap();
                assert_eq!(found.report.num_windows, 8, "the case that the table describes");
                f32::from(found.labelmap.voxels.iter().next().unwrap())
            }
        }
    }
}

fn predict_with<N: Network>(networks: Vec<N>, plans: Plans, labels: LabelSet) -> Work {
    Work::Predict(Box::new(Model::from_parts(networks, plans, labels).unwrap()))
}

/// Something like a body in air.
fn scan((shape, spacing): ([usize; 3], [f64; 3])) -> RawImage {
    let [z, y, x] = shape;
    let data = Array4::from_shape_fn((1, z, y, x), |(_, z, y, x)| {
        let radius = (y as f64 / shape[1] as f64 - 0.5).hypot(x as f64 / shape[2] as f64 - 0.5);
        let body = if radius < 0.4 { 1040 } else { 0 };
        (body + (x * 7 + y * 13 + z * 29) as i32 % 101 - 1040) as i16
    });
    let geometry = Geometry::axis_aligned(shape, spacing).unwrap();
    RawImage { voxels: Voxels::I16(data), geometry }
}

/// A network whose logits are ready: what is left of a case is all that is not the network.
struct Ready {
    num_classes: usize,
    window: [usize; 3],
    /// `[C, PLANES, y, x]`.
    logits: Vec<f32>,
}

impl Ready {
    const PLANES: usize = 4;

    fn new(num_classes: usize, window: [usize; 3]) -> Self {
        let [_, height, width] = window;
        let shape = (num_classes, Self::PLANES, height, width);
        let logits = Array4::from_shape_fn(shape, |(c, z, y, x)| {
            ((c * 37 + y) as f32 * 0.1).sin() + ((c * 101 + x + z) as f32 * 0.07).cos()
        });
        Self { num_classes, window, logits: logits.into_raw_vec_and_offset().0 }
    }
}

impl Network for Ready {
    fn in_channels(&self) -> usize {
        1
    }

    fn num_classes(&self) -> usize {
        self.num_classes
    }

    fn outputs(&self) -> Outputs {
        Outputs::Logits
    }

    fn cost(&self, window: [usize; 3]) -> Result<WindowCost, InferError> {
        assert_eq!(window, self.window);
        let bytes = self.logits.len() as u64 * 4;
        Ok(WindowCost { peak_bytes: bytes, output_bytes: bytes, work: 1.0 })
    }

    fn predict_window(&self, _: Array4<f32>, take: &mut dyn FnMut(Range<usize>, &[f32])) {
        for from in (0..self.window[0]).step_by(Self::PLANES) {
            take(from..from + Self::PLANES, &self.logits);
        }
    }
}
