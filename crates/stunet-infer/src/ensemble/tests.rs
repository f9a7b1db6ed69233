use super::*;
use crate::probabilities::{Frame, ProbabilityFile, ProbabilityKind};
use std::io::Write;

const SHAPE: [usize; 3] = [3, 10, 5];
const CLASSES: usize = 3;

/// Probabilities `[C, z, y, x]` of a member; whole numbers of 64ths, so that sums are exact.
fn member(seed: u64) -> Vec<f32> {
    let count = CLASSES * SHAPE.iter().product::<usize>();
    let drawn = stunet_testing::prng::integers(seed, 0, count, 65);
    drawn.into_iter().map(|v| v as f32 / 64.0).collect()
}

/// A file of the member, as `stunet predict` writes it; the identity or a turned frame.
fn store(path: &Path, format: ProbabilityFormat, values: &[f32], frame: &Frame) {
    let kind = ProbabilityKind::Kept { background: true };
    let file = ProbabilityFile::create(path, format, kind, CLASSES, SHAPE).unwrap();
    let [depth, height, width] = SHAPE;
    for (z, y) in (0..depth).flat_map(|z| (0..height).map(move |y| (z, y))) {
        let row = |c: usize| &values[((c * depth + z) * height + y) * width..][..width];
        let row: Vec<f32> = (0..CLASSES).flat_map(|c| row(c).to_vec()).collect();
        file.put_row([z, y], 0, &row, width).unwrap();
    }
    file.finish(frame, None).unwrap();
}

fn plain() -> Frame {
    Frame { transpose_backward: [0, 1, 2], flipped: [false; 3], shape: SHAPE, lower: [0; 3] }
}

/// Image axes z, y, x are the network's y, z, x; one runs backwards; two voxels before the crop.
fn turned() -> Frame {
    Frame {
        transpose_backward: [1, 0, 2],
        flipped: [false, true, false],
        shape: [13, 4, 7],
        lower: [2, 1, 1],
    }
}

fn labels() -> LabelSet {
    LabelSet::from_names(["background", "a", "b"]).unwrap()
}

fn regions() -> LabelSet {
    let json = serde_json::json!({
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "middle": 3},
        "regions_class_order": [1, 2, 3]
    });
    LabelSet::from_dataset_json(&json).unwrap()
}

struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn members(&self, format: ProbabilityFormat, frame: &Frame) -> Vec<PathBuf> {
        let one = |seed: u64| {
            let path = self.path(&format!("member{seed}.{}", format.ending()));
            store(&path, format, &member(seed), frame);
            path
        };
        (0..3).map(one).collect()
    }
}

/// The definition, in the network's frame.
fn expected(labels: &LabelSet) -> Vec<u16> {
    let members: Vec<Vec<f32>> = (0..3).map(member).collect();
    let num_voxels = SHAPE.iter().product();
    let mean = |c: usize, v: usize| {
        let values = members.iter().map(|member| member[c * num_voxels + v]);
        values.fold(0.0f32, |sum, value| sum + value) / 3.0
    };
    let decide = |v: usize| match labels.region_order() {
        Some(order) => {
            (0..CLASSES).filter(|c| mean(*c, v) > 0.5).map(|c| order[c]).next_back().unwrap_or(0)
        }
        None => {
            (0..CLASSES).rev().max_by(|a, b| mean(*a, v).total_cmp(&mean(*b, v))).unwrap() as u16
        }
    };
    (0..num_voxels).map(decide).collect()
}

#[test]
fn both_forms_decide_alike() {
    for labels in [labels(), regions()] {
        for format in [ProbabilityFormat::Npz, ProbabilityFormat::Zarr] {
            let scene = Scene::new();
            let found = ensemble(&scene.members(format, &plain()), &labels, None).unwrap();
            assert_eq!(found.as_slice().unwrap(), expected(&labels), "{format:?}");
        }
    }
}

#[test]
fn turned_and_cropped_volumes_are_put_in_place() {
    let decide = |format| {
        let scene = Scene::new();
        ensemble(&scene.members(format, &turned()), &labels(), None).unwrap()
    };
    let (npz, zarr) = (decide(ProbabilityFormat::Npz), decide(ProbabilityFormat::Zarr));
    assert_eq!((npz.dim(), npz.sum()), ((13, 4, 7), expected(&labels()).iter().sum()));
    assert_eq!(npz, zarr);
}

#[test]
fn the_mean_is_stored() {
    let scene = Scene::new();
    let members = scene.members(ProbabilityFormat::Npz, &plain());
    let path = scene.path("mean.npz");
    let found = ensemble(&members, &labels(), Some(&path)).unwrap();
    // An ensemble of the mean alone decides the same.
    assert_eq!(ensemble(&[path], &labels(), None).unwrap(), found);
    let zarr = scene.members(ProbabilityFormat::Zarr, &plain());
    let message = ensemble(&zarr, &labels(), Some(&scene.path("m.npz"))).unwrap_err().to_string();
    assert!(message.contains("members in .npz"), "{message}");
}

#[test]
fn the_first_of_equal_classes_and_numpys_nan() {
    let set = labels();
    let check = |probabilities: [f32; 3], label: u16| {
        let mut vote = Vote::new(set.region_order(), 1);
        for (output, probability) in probabilities.into_iter().enumerate() {
            vote.take(output, 0, &[probability]);
        }
        assert_eq!(vote.decided, [label], "{probabilities:?}");
    };
    check([0.25, 0.5, 0.5], 1);
    check([0.5, 0.5, 0.5], 0);
    check([0.1, f32::NAN, 0.9], 1);
    check([f32::NAN, f32::NAN, 0.9], 0);
    check([0.0, 0.0, 0.0], 0);
}

#[test]
fn what_is_refused() {
    let scene = Scene::new();
    let npz = scene.members(ProbabilityFormat::Npz, &plain());
    let zarr = scene.members(ProbabilityFormat::Zarr, &plain());
    let refused = |members: &[PathBuf], set: &LabelSet, words: &[&str]| {
        let message = ensemble(members, set, None).unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "expected {word:?} in {message:?}");
        }
    };
    refused(
        &[npz[0].clone(), zarr[0].clone()],
        &labels(),
        &["members of one form", "member0.zarr.zip"],
    );
    refused(&[scene.path("a.nii.gz")], &labels(), &["members of one form", "a.nii.gz"]);
    refused(&[scene.path("none.npz")], &labels(), &["none.npz"]);
    let two = LabelSet::numbered(2).unwrap();
    refused(&npz, &two, &["2 outputs", "found 3", "member0.npz"]);
    refused(&zarr, &two, &["2 outputs", "found 3", "member0.zarr.zip"]);
    let turned_one = scene.path("turned.zarr.zip");
    store(&turned_one, ProbabilityFormat::Zarr, &member(5), &turned());
    refused(&[zarr[0].clone(), turned_one], &labels(), &["one shape, crop", "turned.zarr.zip"]);
    let turned_one = scene.path("turned.npz");
    store(&turned_one, ProbabilityFormat::Npz, &member(5), &turned());
    refused(&[npz[0].clone(), turned_one], &labels(), &["shape [3, 3, 10, 5]", "turned.npz"]);
    std::fs::write(scene.path("text.npz"), "no archive").unwrap();
    refused(&[scene.path("text.npz")], &labels(), &["a zip archive", "text.npz"]);
    let mut zip = zip::ZipWriter::new(File::create(scene.path("v1.npz")).unwrap());
    zip.start_file("softmax.npy", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(b"x").unwrap();
    zip.finish().unwrap();
    refused(&[scene.path("v1.npz")], &labels(), &["v1.npz"]);
    let whole = std::fs::read(&npz[0]).unwrap();
    std::fs::write(scene.path("cut.npz"), &whole[..whole.len() / 2]).unwrap();
    refused(&[scene.path("cut.npz")], &labels(), &["cut.npz"]);
}

/// nnU-Net 1's: half precision, a cropped image, and the properties of which the box is one.
fn store_v1(path: &Path, values: &[f32], order: Option<&[i128]>) {
    let [z, y, x] = SHAPE;
    let header = format!(
        "{{'descr': '<f2', 'fortran_order': False, 'shape': ({CLASSES}, {z}, {y}, {x}), }}\n"
    );
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()));
    let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
    zip.start_file("softmax.npy", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&bytes).unwrap();
    zip.finish().unwrap();
    use stunet_model::weights::pickle::{Value, write};
    let ints = |values: &[i128]| Value::List(values.iter().map(|v| Value::Int(*v)).collect());
    let floats = |values: &[f64]| Value::Tuple(values.iter().map(|v| Value::Float(*v)).collect());
    let mut entries = vec![
        ("crop_bbox", Value::List(vec![ints(&[2, 99]), ints(&[0, 99]), ints(&[1, 99])])),
        ("original_size_of_raw_data", ints(&[6, 10, 7])),
        ("itk_spacing", floats(&[0.5, 1.0, 3.0])),
        ("itk_origin", floats(&[1.0, 2.0, 3.0])),
        ("itk_direction", floats(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0])),
    ];
    entries.extend(order.map(|order| ("regions_class_order", ints(order))));
    std::fs::write(path.with_extension("pkl"), write(&Value::dict(entries))).unwrap();
}

#[test]
fn members_of_nnunet_1() {
    let scene = Scene::new();
    let members: Vec<PathBuf> = (0..2).map(|seed| scene.path(&format!("{seed}.npz"))).collect();
    let values: Vec<Vec<f32>> = (0..2).map(member).collect();
    let num_voxels: usize = SHAPE.iter().product();
    for order in [None, Some(&[1, 2, 3][..])] {
        for (path, values) in members.iter().zip(&values) {
            store_v1(path, values, order);
        }
        assert_eq!(outputs_of_v1(&members[0]).unwrap(), Some(CLASSES));
        let found = ensemble(&members, &labels(), None).unwrap();
        assert_eq!(found.dim(), (6, 10, 7));
        let mean = |c: usize, v: usize| {
            let at = c * num_voxels + v;
            half::f16::from_f32((values[0][at] + values[1][at]) / 2.0)
        };
        let decide = |v: usize| match order {
            Some(_) => (0..CLASSES).rev().find(|c| mean(*c, v).to_f32() > 0.5).map_or(0, |c| c + 1),
            None => (0..CLASSES).rev().max_by(|a, b| mean(*a, v).total_cmp(&mean(*b, v))).unwrap(),
        };
        let expected: Vec<u16> = (0..num_voxels).map(|v| decide(v) as u16).collect();
        let inner = found.slice(ndarray::s![2..5, .., 1..6]).to_owned();
        assert_eq!(inner.iter().copied().collect::<Vec<_>>(), expected);
        assert_eq!(
            found.iter().map(|l| u32::from(*l)).sum::<u32>(),
            expected.iter().map(|l| u32::from(*l)).sum::<u32>()
        );
    }
    let grid = geometry_of_properties(&scene.path("0.pkl"), [6, 10, 7]).unwrap();
    assert_eq!((grid.spacing_mm(), grid.origin_mm()), ([3.0, 1.0, 0.5], [1.0, 2.0, 3.0]));
    let refused = |members: &[PathBuf], merged: Option<&Path>, words: &[&str]| {
        let message = ensemble(members, &labels(), merged).unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    refused(&members, Some(&scene.path("m.npz")), &["members of nnU-Net 2", "m.npz"]);
    let npz = scene.members(ProbabilityFormat::Npz, &plain());
    refused(&[members[0].clone(), npz[0].clone()], None, &["softmax.npy", "member0.npz"]);
    refused(&[npz[0].clone(), members[0].clone()], None, &["probabilities.npy", "0.npz"]);
    assert_eq!(outputs_of_v1(&npz[0]).unwrap(), None);
    std::fs::remove_file(scene.path("0.pkl")).unwrap();
    refused(&members, None, &["0.pkl"]);
}
