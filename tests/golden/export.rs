//! Oracle F, end to end: seeded weights written as a real model file, the binary run on a real CT,
//! the labelmap held against the reference's, voxel by voxel.
//!
//! `STUNET_BIN` names the binary; otherwise it is built. A window of the narrow network takes about
//! five seconds of processor time, and a tag has up to 64 of them: runs go one at a time, and say how.

use super::model::reference_key;
use super::sliding_window::seeded;
use burn::tensor::Device;
use ndarray::{Array3, Array4, Axis};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Instant;
use stunet::data::geometry::Geometry;
use stunet::data::nifti;
use stunet::data::plans::{Plans, Reference};
use stunet::data::preprocess::preprocess;
use stunet::infer::sink::PlaneSink;
use stunet::infer::sliding_window::{WindowSettings, slide};
use stunet::infer::{InferError, Model, OpenOptions};
use stunet::model::weights::writer::{self, Contents, V1Metadata, V2Metadata};
use stunet::model::{StuNet, StuNetConfig};
use stunet_testing::compare::{assert_close, difference};
use stunet_testing::harness::Absent;
use stunet_testing::oracle::{self, Golden, Npz, Part};
use stunet_testing::prng::StateHash;
use stunet_testing::say;

pub(crate) fn tests(golden: &mut Golden) {
    golden.each("export::labelmap", &["F_export"], tags, run);
}

/// The recorded predictions: files that name their image.
fn tags(part: &Part) -> Vec<String> {
    let entries = std::fs::read_dir(part.path("F_export")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let tags = names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned));
    let mut tags: Vec<_> =
        tags.filter(|tag| !["v2_plans", "v2_dataset"].contains(&tag.as_str())).collect();
    tags.sort();
    tags
}

/// Runs share two cores and much memory: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn run(part: &Part, tag: &str) -> Result<(), Absent> {
    let case = Case::open(part, tag)?;
    let guard = ONE_AT_A_TIME.lock();
    let work = tempfile::tempdir().unwrap();
    let model = case.write_model(work.path());
    case.check_preprocessing(&model);
    if case.is_small() {
        case.check_samples(&model);
    }
    for mode in case.modes() {
        let output = work.path().join(format!("{mode}.nii.gz"));
        let seconds = case.predict(&model, mode, &output);
        case.compare(mode, &output, seconds);
    }
    drop(guard);
    Ok(())
}

struct Case {
    folder: PathBuf,
    tag: String,
    json: Value,
    reference: Reference,
    image: PathBuf,
}

impl Case {
    fn open(part: &Part, tag: &str) -> Result<Self, Absent> {
        let folder = part.path("F_export");
        let json = oracle::json(&folder.join(format!("{tag}.json")));
        let reference = match json["code"].as_str() {
            None => Reference::NnUNetV1,
            Some(code) if code.ends_with("2.2") => Reference::NnUNetV22,
            Some(_) => Reference::NnUNetV28,
        };
        let image = part.volume("F_export", json["image"].as_str().unwrap())?;
        Ok(Self { folder, tag: tag.to_owned(), json, reference, image })
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}{suffix}", self.tag))
    }

    fn modes(&self) -> &'static [&'static str] {
        if self.reference == Reference::NnUNetV1 { &["normal", "fast"] } else { &["normal"] }
    }

    fn config(&self, strides: [[usize; 3]; 5]) -> StuNetConfig {
        let parse = |key: &str| serde_json::from_value(self.json[key].clone());
        StuNetConfig {
            in_channels: self.json["pre_shape"][0].as_u64().unwrap() as usize,
            num_classes: self.json["num_classes"].as_u64().unwrap() as usize,
            width: parse("dims").unwrap(),
            depth: serde_json::from_value(self.json["depth"].clone()).unwrap_or([1; 6]),
            strides,
        }
    }

    /// Writes the model as the reference would have: a `.model` for v1, or a results folder for v2.
    /// Beside a `.model` lies the recorded plan; without one it is bare, and the built-in plan applies.
    fn write_model(&self, work: &Path) -> PathBuf {
        if self.reference == Reference::NnUNetV1 {
            let plan_file = self.json.get("plan_file").cloned();
            let read = plan_file.as_ref().map(|file| Plans::from_v1_json(file).unwrap());
            let strides = read.unwrap_or_else(Plans::totalsegmentator).strides;
            let network = self.network(strides.try_into().unwrap());
            let path = work.join("small_ep4k.model");
            let config = network.config();
            let contents = contents(&config, &network);
            let metadata = V1Metadata { plan_file, ..V1Metadata::default() };
            writer::write_v1(&path, contents, &metadata).unwrap();
            return path;
        }
        let plans = oracle::json(&self.folder.join("v2_plans.json"));
        let dataset = oracle::json(&self.folder.join("v2_dataset.json"));
        let configurations = plans["configurations"].as_object().unwrap();
        let configuration = configurations.keys().next().unwrap();
        let read = Plans::from_v2_json(&plans, &dataset, configuration).unwrap();
        let network = self.network(read.strides.try_into().unwrap());

        let results = work.join(format!("STUNetTrainer_small__nnUNetPlans__{configuration}"));
        std::fs::create_dir_all(results.join("fold_0")).unwrap();
        std::fs::write(results.join("plans.json"), plans.to_string()).unwrap();
        std::fs::write(results.join("dataset.json"), dataset.to_string()).unwrap();
        let metadata = V2Metadata {
            trainer: "STUNetTrainer_small".to_owned(),
            mirror_axes: vec![0, 1, 2],
            init_args: json!({"configuration": configuration}),
            logging: json!({}),
            ..V2Metadata::default()
        };
        let path = results.join("fold_0/checkpoint_final.pth");
        let config = network.config();
        writer::write_v2(&path, contents(&config, &network), &metadata).unwrap();
        results
    }

    /// The seeded network, its weights checked by their recorded hash.
    fn network(&self, strides: [[usize; 3]; 5]) -> StuNet {
        let network = seeded(&self.config(strides), &self.json, &Device::flex());
        let mut hash = StateHash::default();
        network.for_each_parameter(&mut |spec, parameter| {
            let values = parameter.to_data().try_to_vec::<f32>().unwrap();
            hash.update(&reference_key(&spec.name), &values);
        });
        assert_eq!(hash.finish(), self.json["weights_sha256"].as_str().unwrap(), "{}", self.tag);
        network
    }

    fn open_model(&self, path: &Path) -> Model {
        let mut options = OpenOptions::new(&Device::flex());
        options.reference = Some(self.reference);
        Model::open(path, &options).unwrap()
    }

    /// The volume the network sees, at the recorded voxels.
    fn check_preprocessing(&self, model: &Path) {
        let image = nifti::read_image(std::slice::from_ref(&self.image)).unwrap();
        let volume = preprocess(&image, self.open_model(model).plans()).unwrap().image;
        let shape: Vec<usize> = serde_json::from_value(self.json["pre_shape"].clone()).unwrap();
        assert_eq!(volume.shape(), shape, "{}", self.tag);
        let net = Npz::open(&self.file("_net.npz"));
        let flat = volume.as_slice().unwrap();
        let indices = net.i64("sample_idx");
        let found: Vec<f32> = indices.iter().map(|&i| flat[i as usize]).collect();
        let expected = net.f32("preproc_at_idx");
        let expected = expected.as_slice().unwrap();
        assert_close(&format!("{} preprocessed", self.tag), &found, expected, 2e-4, 1e-5);
    }

    /// Whether a few passes give the values at the network's resolution.
    fn is_small(&self) -> bool {
        let shape: Vec<usize> = serde_json::from_value(self.json["pre_shape"].clone()).unwrap();
        !self.tta() && shape.iter().product::<usize>() <= MOST_VOXELS_FOR_SAMPLES
    }

    fn tta(&self) -> bool {
        self.json["tta"].as_bool().unwrap()
    }

    /// Runs the binary; returns the seconds it took.
    fn predict(&self, model: &Path, mode: &str, output: &Path) -> f64 {
        say!("{} {mode}: predicting {}", self.tag, self.json["image"]);
        let clock = Instant::now();
        let mut command = Command::new(binary());
        command.arg("predict").arg("-i").arg(&self.image).arg("-o").arg(output);
        command.arg("-m").arg(model).args(["--mode", mode, "--device", "cpu"]);
        match self.reference {
            Reference::NnUNetV1 => {}
            Reference::NnUNetV22 => drop(command.args(["--reference", "v2.2"])),
            Reference::NnUNetV28 => drop(command.args(["--reference", "v2.8"])),
        }
        if !self.tta() {
            command.arg("--disable-tta");
        }
        let output = command.output().unwrap();
        let told = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
        say!("{}", told.concat());
        assert!(output.status.success(), "{} {mode}: {}", self.tag, output.status);
        clock.elapsed().as_secs_f64()
    }

    fn compare(&self, mode: &str, output: &Path, seconds: f64) {
        let found = nifti::read_labelmap(output).unwrap();
        let recorded = self.file(&format!("_{mode}.nii.gz"));
        let recorded = if recorded.is_file() { recorded } else { self.file(".nii.gz") };
        let expected = nifti::read_labelmap(&recorded).unwrap();
        let image = nifti::read_image(std::slice::from_ref(&self.image)).unwrap();
        same_grid(&found.geometry, &image.geometry);
        same_grid(&found.geometry, &expected.geometry);

        let (mask_name, share) = match self.reference == Reference::NnUNetV1 {
            true => ("margin_lt_1e4", 0.9999),
            false => ("logit_margin_le_1e2", 0.995),
        };
        let uncertain = mask(&self.file("_margin.npz"), mask_name);
        assert_eq!(uncertain.len(), found.data.len());
        assert_eq!(found.data.dim(), expected.data.dim());
        let pairs = found.data.iter().zip(&expected.data).zip(&uncertain);
        let differ: Vec<bool> =
            pairs.filter(|((f, e), _)| f != e).map(|(_, uncertain)| *uncertain).collect();
        let certain = differ.iter().filter(|uncertain| !**uncertain).count();
        let equal = 1.0 - differ.len() as f64 / found.data.len() as f64;
        say!(
            "{} {mode}: {} voxels, {} differ ({certain} of them outside {mask_name}), \
             {:.4} % equal, {seconds:.1} s",
            self.tag,
            found.data.len(),
            differ.len(),
            100.0 * equal,
        );
        assert!(equal >= share, "{} {mode}: {equal} of the voxels equal, {share} asked", self.tag);
        // The recorded margins are those of mode normal: they say nothing of the labelmap that mode
        // fast takes at the network's resolution, so that there only the share counts.
        if mode == "normal" {
            assert!(certain == 0, "{} {mode}: {certain} voxels differ beyond doubt", self.tag);
        }
    }

    /// Probabilities or logits at the network's resolution.
    fn check_samples(&self, path: &Path) {
        let model = self.open_model(path);
        let mut recipe = WindowSettings::of(model.plans());
        recipe.mirror_axes.clear();
        let image = nifti::read_image(std::slice::from_ref(&self.image)).unwrap();
        let volume = preprocess(&image, model.plans()).unwrap().image;
        let net = Npz::open(&self.file("_net.npz"));
        let indices: Vec<usize> = net.i64("sample_idx").iter().map(|&i| i as usize).collect();
        let mut sink = Samples::new(model.num_classes(), &volume, indices);
        slide(&[&*model.networks()[0]], volume.view(), &recipe, &mut sink, &mut |_, _| {
            ControlFlow::Continue(())
        })
        .unwrap();
        let what = format!("{} at the network's resolution", self.tag);
        let found = sink.values.as_slice().unwrap();
        if self.reference == Reference::NnUNetV1 {
            let expected = net.f32("softmax_at_idx");
            assert_close(&what, found, expected.as_slice().unwrap(), 1e-4, 1e-5);
        } else {
            let expected = net.f32("logits_at_idx");
            let d = difference(found, expected.as_slice().unwrap());
            say!("{what}: peak {:.3e}, rmse {:.3e}", d.peak, d.rmse);
            assert!(d.rmse <= 1e-2, "{what}: {d:?}");
        }
        if net.has("seg_netres") {
            let expected = net.i64("seg_netres");
            assert_eq!(sink.labels.shape(), expected.shape(), "{what}");
            let pairs = sink.labels.iter().zip(&expected);
            let differ = pairs.filter(|(f, e)| i64::from(**f) != **e).count();
            say!("{what}: {differ} of {} labels differ", expected.len());
            assert!(differ * 10_000 <= expected.len(), "{what}: {differ} labels differ");
        }
    }
}

/// A volume of four windows.
const MOST_VOXELS_FOR_SAMPLES: usize = 128 * 192 * 192;

fn contents<'a>(config: &'a StuNetConfig, network: &'a StuNet) -> Contents<'a> {
    let source = Box::leak(Box::new(network.source()));
    Contents { config, parameters: source, momentum: None, optimiser: Default::default() }
}

fn same_grid(found: &Geometry, expected: &Geometry) {
    assert_eq!(found.shape(), expected.shape());
    let pairs = found.world_from_voxel().into_iter().flatten();
    for (f, e) in pairs.zip(expected.world_from_voxel().into_iter().flatten()) {
        assert!((f - e).abs() <= 1e-5, "affine: {found:?} {expected:?}");
    }
}

/// Unpacks a mask of `numpy.packbits`.
fn mask(path: &Path, name: &str) -> Vec<bool> {
    let arrays = Npz::open(path);
    let length: i64 = arrays.i64("shape").iter().product();
    let bytes = arrays.i64(name);
    let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
    bits.take(length as usize).collect()
}

/// The binary under test.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("STUNET_BIN") {
            return PathBuf::from(path);
        }
        let status = Command::new(env!("CARGO"))
            .args(["build", "--release", "--bin", "stunet"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(status.success(), "building the binary");
        // This test lies in TARGET/PROFILE/deps.
        let test = std::env::current_exe().unwrap();
        let target = test.ancestors().nth(3).unwrap();
        target.join("release").join(format!("stunet{}", std::env::consts::EXE_SUFFIX))
    })
}

/// Picks voxels out of the planes, and the best class of each.
struct Samples {
    shape: [usize; 3],
    indices: Vec<usize>,
    values: ndarray::Array2<f32>,
    labels: Array3<u16>,
}

impl Samples {
    fn new(classes: usize, volume: &Array4<f32>, indices: Vec<usize>) -> Self {
        let (_, z, y, x) = volume.dim();
        Self {
            shape: [z, y, x],
            values: ndarray::Array2::zeros((classes, indices.len())),
            labels: Array3::zeros((z, y, x)),
            indices,
        }
    }
}

impl PlaneSink for Samples {
    fn plane(&mut self, z: usize, plane: &mut Vec<f32>) -> Result<(), InferError> {
        let [_, y, x] = self.shape;
        let voxels = y * x;
        for (column, &index) in self.indices.iter().enumerate() {
            if index / voxels == z {
                for (class, values) in plane.chunks_exact(voxels).enumerate() {
                    self.values[[class, column]] = values[index % voxels];
                }
            }
        }
        let classes = plane.len() / voxels;
        let plane = ndarray::ArrayView3::from_shape((classes, y, x), plane).unwrap();
        let mut labels = self.labels.index_axis_mut(Axis(0), z);
        for (at, label) in labels.indexed_iter_mut() {
            let mut best = 0;
            for class in 1..classes {
                if plane[[class, at.0, at.1]] > plane[[best, at.0, at.1]] {
                    best = class;
                }
            }
            *label = best as u16;
        }
        Ok(())
    }
}
