//! Sums of windows on a GPU: against the composition on the processor, in pieces and as a whole, twice the
//! same bits; and predictions of a CT, whose labels do not depend on where sums are.

use burn::tensor::{Device, Tensor, TensorData};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use stunet::data::labels::LabelSet;
use stunet::data::plans::{Accumulation, Plans, Reference};
use stunet::infer::{Model, PredictOptions, PredictReport, predict};
use stunet::kernels::{
    LabelDecision, LinePlace, MirroredPass, WindowAverage, WindowOverlap, WindowSums, WindowValues,
    kernel_calls,
};
use stunet::model::StuNet;
use stunet_testing::harness::Absent;
use stunet_testing::oracle::{Part, VOLUMES};
use stunet_testing::{prng, say};

/// Of the largest value, and at least of this.
const BOUND: f32 = 2e-5;

/// What is summed.
#[derive(Clone, Copy, Debug)]
struct Case {
    window: [usize; 3],
    /// Rows and columns of the sums.
    plane: [usize; 2],
    classes: usize,
    /// Before the head; none where the values are ready.
    features: Option<usize>,
    softmax: bool,
    weighted: bool,
}

fn tensor<const D: usize>(id: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    let values = prng::uniform(97, id, shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// All final rows of three rows of windows along z, two of which overlap by a part of the planes.
fn summed(case: &Case, device: &Device, most_at_once: u64) -> Vec<f32> {
    let Case { window: [depth, height, width], plane: [rows, columns], classes, .. } = *case;
    let importance = case.weighted.then(|| tensor(1, case.window, device) + 1.5);
    let average = WindowAverage { window: case.window, importance, softmax: case.softmax };
    let mut sums = WindowSums::in_pieces(average, classes, case.plane, (device, most_at_once));
    let mut found = Vec::new();
    let step = depth.div_ceil(2);
    let mut take = |sums: &mut WindowSums, planes: usize| {
        // All rows in two parts, as they are read back.
        for part in [0..rows / 2, rows / 2..rows] {
            for piece in sums.take(0..planes, part, 2) {
                found.extend(piece.into_data().try_to_vec::<f32>().unwrap());
            }
        }
    };
    for at_z in 0..3u64 {
        for (index, (y, x)) in [(0, 0), (rows - height, 0), (0, columns - width)].iter().enumerate()
        {
            // A window may reach beyond the sums, by a row here.
            let first = [usize::from(index == 1), 0];
            let at =
                WindowOverlap { rows: *y..y + height - first[0], columns: *x..x + width, first };
            let passes = [[false; 3], [true, false, true]];
            for (pass, flips) in passes.into_iter().enumerate() {
                let id = 100 * (at_z + 1) + 10 * index as u64 + pass as u64;
                let pass = MirroredPass { flips, index: pass, count: passes.len() };
                sums.add(values(case, id, device), pass, &at);
            }
            sums.add_weights(&at);
        }
        // Those that no window reached are 0 / 0 on both sides: left out.
        let planes = if at_z == 2 { depth } else { step };
        take(&mut sums, planes);
        sums.advance(planes);
    }
    found.iter().map(|v| if v.is_nan() { 7.0 } else { *v }).collect()
}

fn values(case: &Case, id: u64, device: &Device) -> WindowValues {
    let [z, y, x] = case.window;
    match case.features {
        None => WindowValues::Ready(tensor(id, [1, case.classes, z, y, x], device) * 4.0),
        Some(features) => WindowValues::BeforeHead {
            features: tensor(id, [1, features, z, y, x], device),
            weight: tensor(2, [case.classes, features, 1, 1, 1], device) * 4.0,
            bias: tensor(3, [case.classes], device),
        },
    }
}

pub fn sums(device: &Device) {
    let cpu = stunet::device::parse("cpu").unwrap();
    let mut cases = Vec::new();
    for (softmax, weighted) in [(false, true), (true, true), (true, false)] {
        for (classes, features) in [(3, None), (19, Some(8)), (105, Some(5)), (1, Some(1))] {
            let (window, plane) = ([5, 4, 6], [7, 9]);
            cases.push(Case { window, plane, classes, features, softmax, weighted });
        }
    }
    for case in cases {
        let expected = summed(&case, &cpu, u64::MAX);
        let (found, calls) = kernel_calls(|| summed(&case, device, u64::MAX));
        assert!(calls.iter().any(|call| call.kernel == "add_window"), "{case:?}: not our own");
        let scale = expected.iter().fold(1e-2f32, |max, v| max.max(v.abs()));
        assert_eq!(found.len(), expected.len(), "{case:?}");
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let off = (found - expected).abs();
            assert!(off <= BOUND * scale, "{case:?} [{index}]: {found}, expected {expected}");
        }
        assert_eq!(summed(&case, device, u64::MAX), found, "{case:?}: other bits the second time");
        pieces(&case, device, &found);
    }
}

/// In pieces of ever fewer classes the same bits, in another order: that of the pieces.
fn pieces(case: &Case, device: &Device, whole: &[f32]) {
    let Case { window: [depth, ..], plane: [rows, columns], classes, .. } = *case;
    // A ring of one plane more.
    let class = (4 * (depth + 1) * rows * columns) as u64;
    let sorted = |values: &[f32]| {
        let mut bits: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
        bits.sort_unstable();
        bits
    };
    // Not a hundred tensors: each is a launch, of which a software device does few.
    let each = [classes as u64 / 2, 9, 1].into_iter();
    for each in each.filter(|each| classes as u64 <= 20 * each.max(&1)) {
        let found = summed(case, device, class * each.max(1));
        assert_eq!(sorted(&found), sorted(whole), "{case:?}, {each} classes in a tensor");
    }
}

/// Where the voxels of an axis of `to` voxels lie between those of one of `from`.
fn line(from: usize, to: usize) -> Vec<LinePlace> {
    let place = |index: usize| {
        let at = (index as f64 + 0.5) * (from as f64 / to as f64) - 0.5;
        let clamp = |at: f64| at.clamp(0.0, (from - 1) as f64) as usize;
        let (lower, upper) = (clamp(at.floor()), clamp(at.floor() + 1.0));
        LinePlace { lower, upper, weight_upper: at - at.floor() }
    };
    (0..to).map(place).collect()
}

/// The label of an output voxel, in double precision from averages `[C, z, y, x]`.
fn label(
    averages: &[f32],
    [planes, rows, columns]: [usize; 3],
    [z, y, x]: [LinePlace; 3],
    decision: &LabelDecision,
) -> i64 {
    let mix = |a: f64, b: f64, at: LinePlace| a * (1.0 - at.weight_upper) + b * at.weight_upper;
    let (mut best, mut found) = (f32::NEG_INFINITY, 0);
    for class in 0..averages.len() / (planes * rows * columns) {
        let at = |z: usize, y: usize, x: usize| {
            f64::from(averages[((class * planes + z) * rows + y) * columns + x])
        };
        let along_z = |y: usize, x: usize| mix(at(z.lower, y, x), at(z.upper, y, x), z);
        let along_y = |x: usize| mix(along_z(y.lower, x), along_z(y.upper, x), y);
        let value = mix(along_y(x.lower), along_y(x.upper), x) as f32;
        match decision {
            LabelDecision::Largest { labels } if value > best => {
                (best, found) = (value, i64::from(labels[class]));
            }
            LabelDecision::Above { labels, threshold } if value > *threshold => {
                found = i64::from(labels[class]);
            }
            _ => {}
        }
    }
    found
}

/// Labels that are decided where the sums are, while windows move on, are those of the averages.
pub fn decided(device: &Device) {
    let (window, classes) = ([4, 5, 6], 19);
    let (volume, output) = ([10, 5, 6], [17, 4, 11]);
    let labels: Vec<u16> = (0..classes as u16).map(|class| class * 7 % 300).collect();
    let largest = LabelDecision::Largest { labels: labels.clone() };
    let above = LabelDecision::Above { labels, threshold: 0.1 };
    let case =
        Case { window, plane: [5, 6], classes, features: Some(4), softmax: false, weighted: true };
    let [lines_z, lines_y, lines_x] = [0, 1, 2].map(|axis| line(volume[axis], output[axis]));
    let all = WindowOverlap { rows: 0..5, columns: 0..6, first: [0, 0] };
    for (decision, most) in [(&largest, u64::MAX), (&largest, 4 * 5 * 5 * 6 * 8), (&above, 600)] {
        let average = || WindowAverage {
            window,
            importance: Some(tensor(1, window, device) + 1.5),
            softmax: false,
        };
        let make = || WindowSums::in_pieces(average(), classes, [5, 6], (device, most));
        let (mut sums, mut twin) = (make(), make());
        assert!(sums.decides());
        let mut averages = vec![0f32; classes * volume.iter().product::<usize>()];
        let mut found = Vec::new();
        let (mut next, mut kept) = (0, 0);
        for (index, start) in [0usize, 2, 4, 6].into_iter().enumerate() {
            for sums in [&mut sums, &mut twin] {
                let pass = MirroredPass { flips: [false; 3], index: 0, count: 1 };
                sums.add(values(&case, 50 + index as u64, device), pass, &all);
                sums.add_weights(&all);
            }
            let end = if start == 6 { 10 } else { start + 2 };
            let mut class = 0;
            for piece in twin.take(0..end - start, 0..5, 2) {
                let [here, planes, ..] = piece.dims();
                let piece = piece.into_data().try_to_vec::<f32>().unwrap();
                for (at, plane) in piece.chunks_exact(30).enumerate() {
                    let to = (class + at / planes) * volume[0] + start + at % planes;
                    averages[to * 30..(to + 1) * 30].copy_from_slice(plane);
                }
                class += here;
            }
            sums.average(start..end, 2);
            let last = lines_z.partition_point(|at| at.upper < end);
            let part = sums.labels([&lines_z[next..last], &lines_y, &lines_x], decision);
            assert_eq!(part.dims(), [last - next, output[1], output[2]]);
            found.extend(part.into_data().iter::<i64>());
            next = last;
            let needed = lines_z.get(last).map_or(end, |at| at.lower.min(end));
            sums.forget(kept..needed);
            kept = needed;
            if end < 10 {
                sums.advance(2);
                twin.advance(2);
            }
        }
        let mut expected = Vec::new();
        for z in &lines_z {
            for y in &lines_y {
                let row = lines_x.iter().map(|x| label(&averages, volume, [*z, *y, *x], decision));
                expected.extend(row);
            }
        }
        assert!(expected.iter().any(|label| *label != expected[0]));
        assert_eq!(found, expected, "{decision:?}");
    }
}

/// A value that is not finite is not lost in a softmax.
pub fn not_finite(device: &Device) {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let average = WindowAverage { window: [2; 3], importance: None, softmax: true };
        let mut sums = WindowSums::new(average, 3, [2; 2], device);
        let mut values = vec![0.5f32; 24];
        values[13] = bad;
        let values = Tensor::from_data(TensorData::new(values, [1, 3, 2, 2, 2]), device);
        let at = WindowOverlap { rows: 0..2, columns: 0..2, first: [0, 0] };
        let pass = MirroredPass { flips: [false; 3], index: 0, count: 1 };
        sums.add(WindowValues::Ready(values), pass, &at);
        sums.add_weights(&at);
        let found = sums.take(0..2, 0..2, 1).remove(0).into_data().try_to_vec::<f32>().unwrap();
        for (index, value) in found.iter().enumerate() {
            assert_eq!(value.is_nan(), index % 8 == 5, "{bad}: {index} is {value}");
        }
    }
}

/// A scan to predict: a CT, where it is here, else a volume that is made up.
struct Scan {
    file: PathBuf,
    spacing_mm: f64,
}

fn scan() -> Result<Scan, Absent> {
    let real =
        Part::private().and_then(|part| part.need(&format!("{VOLUMES}/example_ct_sm.nii.gz")));
    match real {
        Ok(file) => Ok(Scan { file, spacing_mm: 5.0 }),
        Err(_) => {
            let file = Part::public().need("F_export/torso_0000.nii.gz")?;
            Ok(Scan { file, spacing_mm: 3.0 })
        }
    }
}

/// The labels of a scan by a narrow network, and what was planned.
fn labels(
    scan: &Scan,
    network: StuNet,
    (reference, mirror): (Reference, bool),
    device_sums_bytes: Option<u64>,
) -> (Vec<u16>, PredictReport) {
    let plans = Plans {
        reference,
        accumulation: Accumulation::F32,
        patch_size: WINDOW,
        spacing_mm: [scan.spacing_mm; 3],
        strides: network.config().strides.to_vec(),
        mirror_axes: vec![2],
        num_outputs: None,
        ..Plans::totalsegmentator()
    };
    let names = ["background", "a", "b", "c", "d"];
    let labels = LabelSet::from_names(names).unwrap();
    let model = Model::from_parts(vec![network], plans, labels).unwrap();
    let image = model.plans().reader.read_scan(&[&scan.file]).unwrap().into_image();
    let options = PredictOptions {
        mirror,
        device_sums_bytes,
        device_has_own_memory: true,
        ..PredictOptions::default()
    };
    let go_on = &mut |_| ControlFlow::Continue(());
    let found = predict(&model, &image, &options, go_on).unwrap();
    (found.labelmap.to_labelmap().data.into_raw_vec_and_offset().0, found.report)
}

/// Windows of the narrow network.
const WINDOW: [usize; 3] = [12, 16, 24];

/// `network` is that of the other tests, with five classes.
pub fn predictions(network: &dyn Fn() -> StuNet) -> Result<(), Absent> {
    if cfg!(feature = "fusion") {
        return Err(Absent::new("with kernel fusion sums are on the host"));
    }
    let scan = scan()?;
    for how in [(Reference::NnUNetV28, false), (Reference::NnUNetV1, true)] {
        let (there, report) = labels(&scan, network(), how, None);
        assert!(report.memory.device_bytes > 0, "sums stay there by default: {report:?}");
        assert_eq!(report.memory.on_host, None);
        let (here, on_host) = labels(&scan, network(), how, Some(0));
        assert_eq!(on_host.memory.device_bytes, 0);
        let differ = there.iter().zip(&here).filter(|(a, b)| a != b).count();
        let mut counts = BTreeMap::<u16, usize>::new();
        there.iter().for_each(|label| *counts.entry(*label).or_default() += 1);
        say!(
            "{how:?}: {} windows, voxels of each label {counts:?}: {differ} differ between sums on the \
             device and on the host",
            report.num_windows
        );
        assert_eq!(there.len(), here.len());
        assert_eq!(differ, 0, "{how:?}: labels depend on where sums are");
        let many = counts.values().filter(|count| **count * 100 > there.len()).count();
        assert!(many > 1, "{counts:?}");
        // More than sums and a second window need, said by the caller: the software device does not tell.
        let (both, two) = labels(&scan, network(), how, Some(8 << 30));
        assert_eq!(two.memory.windows_at_once, 2, "{two:?}");
        assert!(both == there, "{how:?}: labels depend on how many windows are computed at once");
        // Too little for all sums, enough for tiles of them.
        let room = report.memory.device_bytes * 3 / 4;
        let (tiled, tiles) = labels(&scan, network(), how, Some(room));
        assert!(tiles.memory.tiles.len() > 1 && tiles.memory.device_bytes > 0, "{tiles:?}");
        assert!(tiled == there, "{how:?}: labels depend on tiles");
    }
    Ok(())
}
