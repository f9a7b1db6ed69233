//! A folder of predictions, with the `dataset.json` and `plans.json` that nnU-Net puts beside them.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use stunet::data::dataset::DatasetInfo;
use stunet::data::files;
use stunet::data::geometry::Leniency;
use stunet::data::labels::LabelSet;
use stunet::data::nifti::Reader;
use stunet::infer::evaluate::EvaluationRules;

use crate::commands::evaluate::reader_of;

/// Files that travel with predictions.
pub const DATASET: &str = "dataset.json";
pub const PLANS: &str = "plans.json";
/// Scores of a folder of predictions.
pub const SUMMARY: &str = "summary.json";

/// What the labels of a folder mean.
#[derive(Debug)]
pub struct Described {
    /// Labels and file ending.
    pub dataset: DatasetInfo,
    /// Which of nnU-Net's readers opens the files.
    pub reader: Reader,
    /// Where that was read, to be copied beside results.
    pub files: Vec<(&'static str, PathBuf)>,
}

impl Described {
    /// Reads both files, from where they were named or from the folder; plans may be missing.
    pub fn of(
        folder: &Path,
        dataset: Option<&PathBuf>,
        plans: Option<&PathBuf>,
    ) -> anyhow::Result<Self> {
        let dataset_json = dataset.cloned().unwrap_or_else(|| folder.join(DATASET));
        ensure!(
            dataset.is_some() || dataset_json.is_file(),
            "expected dataset.json in the folder of predictions, or --dataset-json: {}",
            folder.display()
        );
        let mut files = vec![(DATASET, dataset_json.clone())];
        let dataset = DatasetInfo::load(&dataset_json)?;
        let beside = folder.join(PLANS);
        let plans = plans.cloned().or_else(|| beside.is_file().then_some(beside));
        let reader = match &plans {
            Some(plans) => reader_of(plans)?,
            None => Reader::default(),
        };
        files.extend(plans.map(|plans| (PLANS, plans)));
        Ok(Self { dataset, reader, files })
    }

    /// What the predictions of nnU-Net 1 have, which come without `dataset.json`: so many outputs, in
    /// NIfTI.
    pub fn numbered(outputs: usize) -> anyhow::Result<Self> {
        let dataset = DatasetInfo {
            labels: LabelSet::numbered(outputs)?,
            channel_names: vec!["image".to_owned()],
            file_ending: ".nii.gz".to_owned(),
            reader: Reader::default(),
            leniency: Leniency::default(),
        };
        Ok(Self { dataset, reader: Reader::default(), files: Vec::new() })
    }

    /// Labels or regions, scored as nnU-Net does it.
    pub fn rules(&self) -> anyhow::Result<EvaluationRules> {
        let rules = EvaluationRules::of(&self.dataset.labels);
        ensure!(!rules.classes.is_empty(), "dataset.json: expected labels beside background");
        Ok(EvaluationRules { reader: self.reader, ..rules })
    }

    /// Copies both files to a folder.
    pub fn copy_to(&self, folder: &Path) -> anyhow::Result<()> {
        for (name, file) in &self.files {
            copy(file, &folder.join(name))?;
        }
        Ok(())
    }
}

/// Copies a file, whole or not at all; nothing happens where both are one.
pub fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    use std::io::Write;
    if to.exists() && from.canonicalize()? == to.canonicalize()? {
        return Ok(());
    }
    let bytes = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    files::sweep([to]);
    Ok(files::write(to, |file| {
        let write = |source| stunet::data::DataError::Io { action: "write", source };
        file.write_all(&bytes).map_err(write)
    })?)
}

/// Makes a folder for results.
pub fn make_folder(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder: {}", folder.display()))
}
