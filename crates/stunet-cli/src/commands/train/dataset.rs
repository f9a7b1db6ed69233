//! The preprocessed dataset of a run: plans, folds and cases, or an error that names the command to run.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;
use stunet::data::labels::LabelSet;
use stunet::data::plans::Plans;
use stunet::data::splits::{Fold, Split, Splits};
use stunet::model::weights::pickle;

use super::cases::{PreparedCases, check_store};
use super::pretrained::orientation_note;
use crate::args::TrainArgs;
use crate::planned::{self, PlannedConfiguration};

/// The folds, in nnU-Net's file.
const SPLITS: &str = "splits_final.json";
/// The same of nnU-Net 1, read without executing anything.
const SPLITS_V1: &str = "splits_final.pkl";

/// A dataset that is planned and preprocessed.
pub struct Dataset {
    /// Name of its folder.
    pub name: String,
    /// Its plans, as they are now: patch, batch and strides may have changed since the cases were
    /// prepared, nothing else.
    pub planned: PlannedConfiguration,
    /// All its cases.
    pub cases: PreparedCases,
    /// The fold.
    pub fold: Fold,
    /// The fold's cases.
    pub split: Split,
    /// The splits, where nobody had fixed them yet.
    new_splits: Option<Splits>,
    /// Whether the plans want Dice over the batch.
    pub batch_dice: bool,
    /// nnU-Net 2's `dataset.json`, where it is there.
    pub nnunet_dataset: Option<Value>,
    /// What the user should know, one sentence each.
    pub notes: Vec<String>,
}

impl Dataset {
    /// Opens what the arguments name and checks that the files agree.
    pub fn open(args: &TrainArgs) -> anyhow::Result<Self> {
        let folder = &args.dataset;
        let shown = folder.display();
        ensure!(folder.is_dir(), "expected a preprocessed dataset, found no such folder: {shown}");
        let name = name_of(folder)?;
        ensure!(
            !folder.join("imagesTr").is_dir(),
            "expected a preprocessed dataset, found a raw one; run `stunet plan {shown}` and \
             `stunet preprocess` first: {shown}"
        );
        let wanted = args.plans.as_deref();
        let plans_name = planned::plans_in(folder, wanted).with_context(|| {
            let expected = planned::expected(wanted);
            format!("{expected}; run `stunet plan` on the raw dataset first: {shown}")
        })?;
        let needed = || planned::needed_dataset_json(folder);
        let planned = PlannedConfiguration::read(folder, &plans_name, &args.configuration, needed)?;
        let batch_dice = planned.batch_dice()?;
        let nnunet_dataset = planned::dataset_json(folder)?;
        let labels = labels_of(folder, nnunet_dataset.as_ref())?;
        let (cases, mut notes) = PreparedCases::find(&planned, labels.as_ref(), args.cases)?;
        if let PreparedCases::Own(store) = &cases {
            check_store(&planned, labels.as_ref(), store)?;
        }
        let fold: Fold = args.fold.parse()?;
        let (split, new_splits) = split(folder, fold, cases.names(), &mut notes)?;
        notes.extend(planned.plans.notes.iter().cloned());
        notes.extend(planned.network_note().into_iter().chain(name_note(&planned)));
        let weights = args.pretrained.as_deref();
        notes.extend(weights.and_then(|file| orientation_note(file, &planned.plans)));
        Ok(Self {
            name,
            planned,
            cases,
            fold,
            split,
            new_splits,
            batch_dice,
            nnunet_dataset,
            notes,
        })
    }

    /// Every file of the dataset that is read.
    pub fn files(&self) -> Vec<PathBuf> {
        let beside = ["dataset.json", SPLITS].map(|name| self.planned.folder.join(name));
        let described = beside.into_iter().chain([self.planned.file.clone()]);
        described.chain(self.cases.files()).collect()
    }

    /// The plans as they are now.
    pub fn plans(&self) -> &Plans {
        &self.planned.plans
    }

    /// What label values mean.
    pub fn labels(&self) -> &LabelSet {
        self.cases.labels()
    }

    /// Fixes the folds for all runs to come, as nnU-Net does, where nobody has.
    pub fn save_splits(&self) -> anyhow::Result<()> {
        match &self.new_splits {
            Some(splits) => Ok(splits.save(&self.planned.folder.join(SPLITS))?),
            None => Ok(()),
        }
    }

    /// nnU-Net 2's plans, where they are such, under the name that the results have.
    pub fn nnunet_plans(&self) -> Option<Value> {
        let mut plans = self.planned.is_v2().then(|| self.planned.json.clone())?;
        if let Some(name) = plans.get_mut("plans_name") {
            *name = self.planned.name.as_str().into();
        }
        Some(plans)
    }
}

/// What `dataset.json` says that label values mean.
fn labels_of(folder: &Path, dataset: Option<&Value>) -> anyhow::Result<Option<LabelSet>> {
    let read =
        |json| LabelSet::from_dataset_json(json).map_err(|e| e.at(&folder.join("dataset.json")));
    Ok(dataset.map(read).transpose()?)
}

/// The fold's cases, and the splits where nobody has fixed them yet.
fn split(
    folder: &Path,
    fold: Fold,
    names: &[String],
    notes: &mut Vec<String>,
) -> anyhow::Result<(Split, Option<Splits>)> {
    let file = splits_file(folder);
    let (splits, new) = match (file.exists(), fold) {
        (true, _) => (load_splits(&file)?, false),
        (false, Fold::All) => (Splits::from_json(&Value::Array(Vec::new()))?, false),
        (false, Fold::Number(_)) => (Splits::five_fold(names)?, true),
    };
    check_fold(fold, &splits, &file)?;
    let split = splits.fold(fold, names).map_err(|e| e.at(&file))?;
    // With fold all, every case is meant to be on both sides.
    notes.extend(split.note().filter(|_| fold != Fold::All));
    let outside = |name: &&String| !split.train.contains(*name) && !split.val.contains(*name);
    let outside: Vec<&String> = names.iter().filter(outside).collect();
    if let Some(first) = outside.first() {
        let count = outside.len();
        notes.push(format!(
            "fold {fold} of {SPLITS} leaves out {count} of {} cases, such as {first}",
            names.len()
        ));
    }
    Ok((split, new.then_some(splits)))
}

/// The folds of either version of nnU-Net.
fn splits_file(folder: &Path) -> PathBuf {
    let files = [SPLITS, SPLITS_V1].map(|name| folder.join(name));
    files.iter().find(|file| file.exists()).unwrap_or(&files[0]).clone()
}

fn load_splits(file: &Path) -> anyhow::Result<Splits> {
    if !file.ends_with(SPLITS_V1) {
        return Ok(Splits::load(file)?);
    }
    let folds = pickle::read_file(file)?.to_json();
    Ok(Splits::from_json(&folds).map_err(|e| e.at(file))?)
}

/// nnU-Net takes a random 80:20 split for a fold that the splits do not have, and says so in its
/// log. A number that was mistyped would train for days: here it is refused.
fn check_fold(fold: Fold, splits: &Splits, file: &Path) -> anyhow::Result<()> {
    let Fold::Number(number) = fold else { return Ok(()) };
    let count = splits.folds().len();
    let known = match count {
        0 => "`all`, as there are no splits".to_owned(),
        1 => "0 or `all`".to_owned(),
        count => format!("0 to {} or `all`", count - 1),
    };
    ensure!(
        number < count,
        "fold: expected {known}, found {number}; to train on other cases, add a fold: {}",
        file.display()
    );
    Ok(())
}

/// nnU-Net names results by the entry `plans_name`; here the file's name counts.
fn name_note(planned: &PlannedConfiguration) -> Option<String> {
    let inside = planned.json.get("plans_name")?.as_str()?;
    (planned.is_v2() && inside != planned.name).then(|| {
        let (name, file) = (&planned.name, planned.file_name());
        format!("plans_name is {inside:.80} in {file}: results are named by the file, {name}")
    })
}

fn name_of(folder: &Path) -> anyhow::Result<String> {
    let folder: PathBuf = folder.canonicalize()?;
    Ok(folder.file_name().unwrap_or_default().to_string_lossy().into_owned())
}
