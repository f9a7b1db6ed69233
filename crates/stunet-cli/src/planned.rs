//! A planned dataset: its plans, read in the same way for preprocessing and for training.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;
use stunet::data::compare::{differences, label_differences};
use stunet::data::dataset::DatasetInfo;
use stunet::data::files;
use stunet::data::plans::{Configuration, Plans};
use stunet::data::store::Place;
use stunet::model::weights::pickle;

/// Names of plans that are looked for, and where `stunet plan` writes them.
const PLANS: [&str; 2] = ["nnUNetPlans", "nnUNetPlansv2.1_plans_3D"];
/// The description of the dataset, beside the plans and beside the raw files.
const DATASET: &str = "dataset.json";

/// One configuration of the plans in a dataset's folder.
pub struct PlannedConfiguration {
    /// The folder with the plans.
    pub folder: PathBuf,
    /// Name of the plans: that of their file without its ending.
    pub name: String,
    /// Their file.
    pub file: PathBuf,
    /// The whole content of the file.
    pub json: Value,
    /// What it says for the configuration.
    pub plans: Plans,
    /// The same as nnU-Net 2 spells it, where it is plans of nnU-Net 2.
    configuration: Option<Configuration>,
}

/// Name of the plans that a folder has: the one that was asked for, else that of nnU-Net 2's, else
/// that of nnU-Net 1's.
pub fn plans_in(folder: &Path, wanted: Option<&str>) -> Option<String> {
    let there = |name: &&str| files::is_plain_name(name) && plans_file(folder, name).is_file();
    let found = match wanted {
        Some(name) => Some(name).filter(there),
        None => PLANS.into_iter().find(there),
    };
    found.map(str::to_owned)
}

/// The error text if [`plans_in`] finds nothing.
pub fn expected(wanted: Option<&str>) -> String {
    format!("expected {}.json, found none", wanted.unwrap_or(PLANS[0]))
}

/// Their file: JSON, or nnU-Net 1's pickle.
fn plans_file(folder: &Path, name: &str) -> PathBuf {
    let files = ["json", "pkl"].map(|ending| folder.join(format!("{name}.{ending}")));
    files.iter().find(|file| file.is_file()).unwrap_or(&files[0]).clone()
}

/// The content of a file of plans; a pickle is read without executing anything.
fn read_plans(file: &Path) -> anyhow::Result<Value> {
    Ok(match file.extension().is_some_and(|ending| ending == "pkl") {
        true => pickle::read_file(file)?.to_json(),
        false => files::read_json(file)?,
    })
}

impl PlannedConfiguration {
    /// Reads plans of any kind; those of nnU-Net 2 need the content of `dataset.json` besides.
    pub fn read(
        folder: &Path,
        name: &str,
        configuration: &str,
        dataset: impl FnOnce() -> anyhow::Result<Value>,
    ) -> anyhow::Result<Self> {
        let file = plans_file(folder, name);
        let json = read_plans(&file)?;
        let at = |e: stunet::data::DataError| e.at(&file);
        let (plans, resolved) = if json.get("configurations").is_some() {
            let resolved = Configuration::of(&json, configuration).map_err(at)?;
            // It becomes a part of the names of folders.
            files::plain_name("plans", "configuration", configuration).map_err(at)?;
            let plans = Plans::from_v2_json(&json, &dataset()?, configuration).map_err(at)?;
            (plans, Some(resolved))
        } else {
            let plans = match json.get("format").is_some() {
                true => Plans::load(&file)?,
                false => Plans::from_v1_json(&json).map_err(at)?,
            };
            ensure!(
                plans.configuration == *configuration,
                "configuration: expected {}, found {configuration}: {}",
                plans.configuration,
                file.display()
            );
            (plans, None)
        };
        let (folder, name) = (folder.to_owned(), name.to_owned());
        Ok(Self { folder, name, file, json, plans, configuration: resolved })
    }

    /// True for plans of nnU-Net 2.
    pub fn is_v2(&self) -> bool {
        self.configuration.is_some()
    }

    /// Where the prepared cases are, or go.
    pub fn place(&self) -> anyhow::Result<Place> {
        let resolved = self.configuration.as_ref();
        let identifier = resolved.map(Configuration::data_identifier).transpose();
        let identifier = identifier.map_err(|e| e.at(&self.file))?.flatten();
        let identifier =
            identifier.unwrap_or_else(|| format!("{}_{}", self.name, self.plans.configuration));
        Ok(Place::new(&self.folder, &identifier))
    }

    /// Where nnU-Net keeps the cases that it prepared itself.
    pub fn nnunet_cases(&self) -> anyhow::Result<PathBuf> {
        let stages = self.json.get("plans_per_stage").and_then(Value::as_object);
        let identifier = self.json.get("data_identifier").and_then(Value::as_str);
        let (Some(stages), Some(identifier)) = (stages, identifier) else {
            return Ok(self.place()?.nnunet);
        };
        files::plain_name("plans", "data_identifier", identifier).map_err(|e| e.at(&self.file))?;
        // As nnU-Net 1's trainer: the first of two stages is that of low resolution.
        let stage = match self.plans.configuration.as_str() {
            "3d_lowres" => 0,
            _ => stages.len().saturating_sub(1),
        };
        Ok(self.folder.join(format!("{identifier}_stage{stage}")))
    }

    /// Whether the dice loss counts over the batch.
    pub fn batch_dice(&self) -> anyhow::Result<bool> {
        if let Some(configuration) = &self.configuration {
            return Ok(configuration.batch_dice().map_err(|e| e.at(&self.file))?);
        }
        // nnU-Net 1 has no such entry: it counts over the batch where there is a cascade.
        let stages = self.json.get("plans_per_stage").and_then(Value::as_object);
        Ok(stages.is_some_and(|stages| stages.len() > 1))
    }

    /// Entries of the plans that STU-Net cannot follow.
    pub fn network_note(&self) -> Option<String> {
        let entries = self.configuration.as_ref()?.entries();
        let nested = entries.pointer("/architecture/arch_kwargs/kernel_sizes");
        let kernels = nested.or_else(|| entries.get("conv_kernel_sizes"))?.as_array()?;
        let other = kernels.iter().find(|kernel| **kernel != serde_json::json!([3, 3, 3]))?;
        Some(format!(
            "the plans have kernels of {other:.60} voxels; STU-Net's are 3 × 3 × 3 in every stage"
        ))
    }

    /// The command that preprocesses the cases by these plans.
    pub fn preprocess_command(&self) -> String {
        let plans = match PLANS.contains(&self.name.as_str()) {
            true => String::new(),
            false => format!(" --plans {}", self.name),
        };
        let configuration = &self.plans.configuration;
        format!("`stunet preprocess {} {configuration}{plans}`", self.folder.display())
    }

    /// Name of the plans' file.
    pub fn file_name(&self) -> String {
        self.file.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The `dataset.json` beside the plans, where there is one.
pub fn dataset_json(folder: &Path) -> anyhow::Result<Option<Value>> {
    let file = folder.join(DATASET);
    Ok(file.exists().then(|| files::read_json(&file)).transpose()?)
}

/// As above, for plans that need it.
pub fn needed_dataset_json(folder: &Path) -> anyhow::Result<Value> {
    dataset_json(folder)?.with_context(|| {
        let shown = folder.display();
        format!("expected {DATASET} beside the plans, found none; run `stunet plan` first: {shown}")
    })
}

/// Compares the raw dataset's description with the one beside the plans, which nnU-Net uses.
pub fn check_descriptions(raw: &Path, info: &DatasetInfo, planned: &Path) -> anyhow::Result<()> {
    let Some(json) = dataset_json(planned)? else { return Ok(()) };
    let file = planned.join(DATASET);
    let other = DatasetInfo::from_json(&json).map_err(|e| e.at(&file))?;
    let labels = label_differences(&info.labels, &other.labels)?;
    let channels = differences(
        &serde_json::json!({"channel_names": info.channel_names}),
        &serde_json::json!({"channel_names": other.channel_names}),
    )?;
    let found = labels.and(channels);
    ensure!(
        found.is_empty(),
        "{DATASET} has changed since the dataset was planned: {}; run `stunet plan` again, or mend \
         the wrong one of {} and {}",
        found.told("the raw one", "the planned one"),
        raw.join(DATASET).display(),
        file.display()
    );
    Ok(())
}
