//! A case from its image to the file of its labels.

use super::bench::{Bench, Found, Reason, Values};
use super::network::config;
use super::stage::Stage;
use burn::tensor::{DType, Tensor};
use ndarray::Array4;
use std::ops::ControlFlow;
use stunet_data::geometry::Geometry;
use stunet_data::image::Image;
use stunet_data::labels::{CompactLabelMap, LabelSet, LabelVoxels};
use stunet_data::nifti::{labelmap_to_bytes, read_labelmap_bytes};
use stunet_data::plans::{Accumulation, Plans, Reference};
use stunet_data::preprocess::preprocess;
use stunet_infer::network::{Network, Outputs, TensorNetwork};
use stunet_infer::sink::PlaneSink;
use stunet_infer::sliding_window::{Keep, WindowSettings, slide};
use stunet_infer::{InferError, Mode, Model, PredictOptions, predict};
use stunet_model::StuNet;

/// Rounding errors of the network.
const BOUND: f64 = 1e-3;
/// Rounding errors of the host.
const HOST: f64 = 1e-4;
/// A window, whose bottleneck has eight voxels, and a volume of several, which it does not divide.
const WINDOW: [usize; 3] = [8, 8, 16];
const VOLUME: [usize; 3] = [11, 8, 27];
/// Shape of an image that is not on the network's grid.
const SHAPE: [usize; 3] = [13, 18, 21];
/// Classes of the labels.
const CLASSES: u32 = 4;

#[derive(Default)]
struct Collect(Vec<f64>);

impl PlaneSink for Collect {
    fn plane(&mut self, _: usize, plane: &mut Vec<f32>) -> Result<(), InferError> {
        self.0.extend(plane.iter().map(|value| f64::from(*value)));
        Ok(())
    }
}

/// The network as a prediction has it; in double precision, which a prediction does not have, as a function.
fn network_of(bench: &Bench, network: StuNet) -> Box<dyn Network> {
    if bench.dtype != DType::F64 {
        return Box::new(network);
    }
    Box::new(TensorNetwork {
        device: bench.device.clone(),
        in_channels: 1,
        num_classes: config().num_classes,
        outputs: Outputs::Logits,
        bytes_per_voxel: 64,
        multiple_of: [4, 4, 8],
        identity: None,
        forward: move |x: Tensor<5>| network.forward(x.cast(DType::F64)).cast(DType::F32),
    })
}

/// Windows, mirrored along two axes, and blended.
fn windows(bench: &Bench, reference: Reference, on_device: bool) -> Result<Found, Reason> {
    let network = network_of(bench, bench.network(&config())?);
    let [z, y, x] = VOLUME;
    let values = bench.values(0, z * y * x).into_iter().map(|value| value as f32).collect();
    let image = Array4::from_shape_vec((1, z, y, x), values)?;
    let settings = WindowSettings {
        mirror_axes: vec![0, 2],
        reference,
        keep: if on_device { Keep::DeviceSums } else { Keep::Sums },
        ..WindowSettings::new(WINDOW)
    };
    let mut planes = Collect::default();
    let go_on = &mut |_, _| ControlFlow::Continue(());
    slide(&[&*network], image.view(), &settings, &mut planes, go_on)?;
    Ok(vec![("averages".to_owned(), Values::Numbers(planes.0))])
}

/// A tilted grid.
fn geometry(shape: [usize; 3]) -> Result<Geometry, Reason> {
    let (sin, cos) = 0.3f64.sin_cos();
    let direction = [[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, -1.0]];
    Ok(Geometry::new(shape, [3.0, 1.1, 0.9], [-3.0, 20.0, 7.5], direction)?)
}

/// Boxes of intensities by class, with waves over them, and nothing around.
fn image(bench: &Bench) -> Result<Image, Reason> {
    let boxes = SHAPE.map(|length| length.div_ceil(4));
    let classes = bench.labels(0, boxes.iter().product(), CLASSES);
    let [z, y, x] = SHAPE;
    let data = Array4::from_shape_fn((1, z, y, x), |(_, z, y, x)| {
        let inside = (1..12).contains(&z) && (2..17).contains(&y) && (1..19).contains(&x);
        let class = classes[(z / 4 * boxes[1] + y / 4) * boxes[2] + x / 4] as f32;
        let wave = (z as f32 * 0.7).sin() + (y as f32 * 0.4).cos() + (x as f32 * 0.3).sin();
        if inside { 100.0 * class + 8.0 * wave + 50.0 } else { 0.0 }
    });
    Ok(Image::new(data, geometry(SHAPE)?)?)
}

/// Other spacings and another order of axes than the image's.
fn plans() -> Plans {
    Plans {
        reference: Reference::NnUNetV28,
        accumulation: Accumulation::F32,
        patch_size: [8, 12, 12],
        spacing_mm: [1.6, 2.0, 1.3],
        transpose_forward: [1, 0, 2],
        strides: Vec::new(),
        num_outputs: None,
        ..Plans::totalsegmentator()
    }
}

fn preprocessed(bench: &Bench) -> Result<Found, Reason> {
    let volume = preprocess(&image(bench)?, &plans())?.image;
    let (_, z, y, x) = volume.dim();
    Ok(vec![
        ("shape".to_owned(), Values::Labels([z, y, x].map(|n| n as i64).to_vec())),
        ("volume".to_owned(), Values::Numbers(volume.iter().map(|v| f64::from(*v)).collect())),
    ])
}

/// Logits that fall with the distance from the class's intensity, after normalisation.
fn by_intensity(bench: &Bench, shift: f32) -> impl Network + use<> {
    let forward = move |x: Tensor<5>| {
        let logits = [-1.4f32, -0.5, 0.4, 1.3].map(|centre| {
            let off = x.clone() - (centre + shift);
            -(off.square() * 3.0)
        });
        Tensor::cat(logits.to_vec(), 1)
    };
    TensorNetwork {
        device: bench.device.clone(),
        in_channels: 1,
        num_classes: CLASSES as usize,
        outputs: Outputs::Logits,
        bytes_per_voxel: 64,
        multiple_of: [1; 3],
        identity: None,
        forward,
    }
}

/// A prediction: windows, restoration to the image's grid, labels. `shift` moves what is decided on.
pub(super) fn predicted(
    bench: &Bench,
    mode: Mode,
    sums_on_device: bool,
    shift: f32,
) -> Result<Found, Reason> {
    let names = ["background", "a", "b", "c"];
    let labels = LabelSet::from_names(names)?;
    let model = Model::from_parts(vec![by_intensity(bench, shift)], plans(), labels)?;
    let options = PredictOptions {
        mode,
        device_sums_bytes: Some(if sums_on_device { 64 << 20 } else { 0 }),
        ..PredictOptions::default()
    };
    let go_on = &mut |_| ControlFlow::Continue(());
    let map = predict(&model, &image(bench)?, &options, go_on)?.labelmap;
    let labels = map.voxels.iter().map(i64::from).collect();
    Ok(vec![("labels".to_owned(), Values::Labels(labels))])
}

/// A labelmap into the bytes of a file and back.
fn exported(bench: &Bench) -> Result<Found, Reason> {
    let shape = [7, 9, 11];
    let mut voxels = LabelVoxels::zeros(shape, 255);
    let labels = bench.labels(0, shape.iter().product(), 200);
    if let LabelVoxels::Bytes(voxels) = &mut voxels {
        voxels.iter_mut().zip(&labels).for_each(|(voxel, label)| *voxel = *label as u8);
    }
    let map = CompactLabelMap { voxels, geometry: geometry(shape)? };
    let mut found = Found::new();
    for (kind, compressed) in [("plain", false), ("compressed", true)] {
        let bytes = labelmap_to_bytes(&map, 255, Some("verify"), compressed)?;
        let read = read_labelmap_bytes(&bytes, None)?;
        let labels = read.data.iter().map(|label| i64::from(*label)).collect();
        let affine = read.geometry.world_from_voxel();
        found.push((format!("labels, {kind}"), Values::Labels(labels)));
        let affine = Values::Numbers(affine.into_iter().flatten().collect());
        found.push((format!("place in space, {kind}"), affine));
    }
    Ok(found)
}

/// All of them, each with inputs of its own.
pub(super) fn stages() -> Vec<Stage> {
    let of = |name: &str, reference, on_device| {
        Stage::new(name, BOUND, move |bench| windows(bench, reference, on_device))
    };
    let case = |name: &str, mode, on_device| {
        Stage::new(name, 0.0, move |bench| predicted(bench, mode, on_device, 0.0))
    };
    vec![
        of("windows of nnU-Net 1, sums on the host", Reference::NnUNetV1, false),
        of("windows of nnU-Net 2, sums on the host", Reference::NnUNetV28, false),
        of("windows of nnU-Net 1, sums on the device", Reference::NnUNetV1, true),
        of("windows of nnU-Net 2, sums on the device", Reference::NnUNetV28, true),
        Stage::new("preprocessing", HOST, preprocessed),
        case("image to labels, sums on the host", Mode::Normal, false),
        case("image to labels, sums on the device", Mode::Normal, true),
        case("image to labels, mode fast", Mode::Fast, false),
        Stage::new("labelmap to file and back", 1e-6, exported),
    ]
}
