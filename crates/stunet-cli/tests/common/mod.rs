//! A small model, a small case, and the binary run on them.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod boxes;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use stunet::data::labels::LabelSet;
use stunet::data::plans::Plans;
use stunet::infer::Model;
use stunet::model::{Initialisation, StuNet, StuNetConfig};
use stunet_testing::nifti_bytes::NiftiBytes;
use tempfile::TempDir;

/// The binary under test.
pub const STUNET: &str = env!("CARGO_BIN_EXE_stunet");

/// Names of the small model's labels.
pub const LABELS: [&str; 3] = ["background", "liver", "spleen"];

/// The small network: three classes, windows of 32³ at 3 mm.
pub fn config(in_channels: usize) -> StuNetConfig {
    StuNetConfig { width: [2, 2, 4, 4, 8, 8], ..StuNetConfig::small(in_channels, LABELS.len()) }
}

/// What goes with it.
pub fn plans(in_channels: usize) -> Plans {
    let published = Plans::totalsegmentator();
    Plans {
        patch_size: [32; 3],
        spacing_mm: [3.0; 3],
        channels: vec![published.channels[0].clone(); in_channels],
        num_outputs: Some(LABELS.len()),
        ..published
    }
}

/// The small network with seeded weights.
pub fn network(in_channels: usize) -> StuNet {
    let device = stunet::device::parse("cpu").unwrap();
    config(in_channels).init_seeded(Initialisation::NnUNetV1, 3, &device).unwrap()
}

/// A model folder of the small network, made once per process.
pub fn model_folder(in_channels: usize) -> PathBuf {
    static FOLDERS: OnceLock<TempDir> = OnceLock::new();
    let home = FOLDERS.get_or_init(|| {
        let home = tempfile::tempdir().unwrap();
        for channels in [1, 2] {
            let labels = LabelSet::from_names(LABELS).unwrap();
            let model = Model::from_parts(vec![network(channels)], plans(channels), labels);
            let model = model.unwrap();
            model.save_folder(&home.path().join(channels.to_string())).unwrap();
        }
        home
    });
    home.path().join(in_channels.to_string())
}

/// A folder with good and bad inputs, thrown away at the end of a test.
pub struct Scene {
    folder: TempDir,
}

impl Scene {
    /// An empty one.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A place in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file; its folder is made.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Writes a good volume of 32×28×24 voxels (x, y, z).
    pub fn volume(&self, name: &str) -> PathBuf {
        self.file(name, &NiftiBytes::ramp([32, 28, 24]).bytes())
    }

    /// Everything in it: names and sizes.
    pub fn contents(&self) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        let mut open = vec![self.folder.path().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                if metadata.is_dir() {
                    open.push(path.clone());
                }
                found.insert(path, if metadata.is_dir() { 0 } else { metadata.len() });
            }
        }
        found
    }
}

/// Runs the binary.
pub fn stunet<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(STUNET).args(arguments).output().unwrap()
}

/// Asserts that `output` is a failure told in one line with all of `words`.
pub fn assert_one_line(output: &Output, words: &[&str]) {
    let (_, stderr) = said(output);
    assert!(!output.status.success(), "succeeded: {stderr}");
    assert!(output.status.code().is_some(), "killed: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
}

/// The arguments of a prediction without mirroring on the processor, without nnU-Net's files beside the
/// labelmaps; random networks have no anatomy that could be checked.
pub fn predict_arguments(input: &Path, output: &Path, model: &Path) -> Vec<String> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let mut arguments = vec!["predict".to_owned()];
    for (flag, path) in [("-i", input), ("-o", output), ("-m", model)] {
        arguments.extend([flag.to_owned(), text(path)]);
    }
    let usual = ["--device", "cpu", "--disable-tta", "--no-checks", "--no-plans"];
    arguments.extend(usual.map(str::to_owned));
    arguments
}

/// Standard output and standard error as text.
pub fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
