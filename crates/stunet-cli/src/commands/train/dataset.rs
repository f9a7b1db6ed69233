//! The prepared dataset of a run: plans, folds and cases, or the command that makes what is missing.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use stunet::data::files;
use stunet::data::labels::LabelSet;
use stunet::data::plans::Plans;
use stunet::data::splits::{Fold, Split, Splits};
use stunet::data::store::{STORE_FILE, Store, suffix};

use crate::args::TrainArgs;

/// Names of plans that are looked for, and where `stunet plan` writes them.
const PLANS: [&str; 2] = ["nnUNetPlans", "nnUNetPlansv2.1_plans_3D"];

/// The folds.
const SPLITS: &str = "splits_final.json";

/// A dataset that is planned and preprocessed.
pub struct Dataset {
    /// Name of its folder.
    pub name: String,
    /// Name of its plans.
    pub plans_name: String,
    /// All its cases.
    pub store: Store,
    /// The fold's.
    pub split: Split,
    /// Whether the plans want Dice over the batch.
    pub batch_dice: bool,
    /// nnU-Net's own files, where they are there.
    pub nnunet_plans: Option<Value>,
    pub nnunet_dataset: Option<Value>,
}

impl Dataset {
    /// Opens what the arguments name.
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
        let plans_name = plans_in(folder, args)?;
        let plans_file = folder.join(format!("{plans_name}.json"));
        let plans: Value = files::read_json(&plans_file)?;
        let configuration = &args.configuration;
        let configurations = plans.get("configurations").and_then(Value::as_object);
        if let Some(known) = configurations {
            ensure!(
                known.contains_key(configuration),
                "configuration: expected one of {}, found {configuration}: {}",
                known.keys().cloned().collect::<Vec<_>>().join(", "),
                plans_file.display()
            );
        }
        let entry = |key| plans["configurations"][configuration].get(key);
        let identifier = entry("data_identifier").and_then(Value::as_str).map(str::to_owned);
        let identifier = identifier.unwrap_or_else(|| format!("{plans_name}_{configuration}"));
        // nnU-Net 1 has no such entry: it counts over the batch where there is a cascade.
        let stages = plans.get("plans_per_stage").and_then(Value::as_object);
        let cascade = stages.is_some_and(|stages| stages.len() > 1);
        let batch_dice = entry("batch_dice").and_then(Value::as_bool).unwrap_or(cascade);
        files::plain_name("plans", "data_identifier", &identifier)
            .map_err(|e| e.at(&plans_file))?;
        // Both become part of the results' names.
        files::plain_name("plans", "configuration", configuration)
            .map_err(|e| e.at(&plans_file))?;
        files::plain_name("plans", "name of the plans", &plans_name)?;
        let store = open_store(&folder.join(identifier), folder, &args.configuration)?;
        let split = split(folder, &args.fold, &store)?;
        let dataset_file = folder.join("dataset.json");
        let nnunet_dataset =
            dataset_file.is_file().then(|| files::read_json(&dataset_file)).transpose()?;
        let nnunet_plans = configurations.is_some().then(|| plans.clone());
        Ok(Self { name, plans_name, store, split, batch_dice, nnunet_plans, nnunet_dataset })
    }

    /// Every file that is read of it.
    pub fn files(&self) -> Vec<PathBuf> {
        let store = self.store.folder();
        let home = store.parent().unwrap_or(store);
        let plans = format!("{}.json", self.plans_name);
        let cases = self.store.names().iter().map(|name| store.join(format!("{name}{}", suffix())));
        let beside = ["dataset.json", SPLITS, &plans].map(|name| home.join(name));
        beside.into_iter().chain([store.join(STORE_FILE)]).chain(cases).collect()
    }

    /// The recipe the cases were prepared by.
    pub fn plans(&self) -> &Plans {
        self.store.recipe().plans()
    }

    /// What label values mean.
    pub fn labels(&self) -> &LabelSet {
        self.store.recipe().labels()
    }
}

/// The plans that were named, else those of nnU-Net 2, else those of nnU-Net 1.
fn plans_in(folder: &Path, args: &TrainArgs) -> anyhow::Result<String> {
    let there = |name: &&str| folder.join(format!("{name}.json")).is_file();
    let found = match &args.plans {
        Some(name) => Some(name.as_str()).filter(there),
        None => PLANS.into_iter().find(there),
    };
    found.map(str::to_owned).with_context(|| {
        format!(
            "expected {}.json, found none; run `stunet plan` on the raw dataset first: {}",
            args.plans.as_deref().unwrap_or(PLANS[0]),
            folder.display()
        )
    })
}

fn open_store(path: &Path, folder: &Path, configuration: &str) -> anyhow::Result<Store> {
    let command = format!("`stunet preprocess {} {configuration}`", folder.display());
    ensure!(
        path.join(STORE_FILE).is_file(),
        "expected preprocessed cases, found none; run {command} first: {}",
        path.display()
    );
    let store = Store::open(path)?;
    let unfinished = store.unfinished();
    if let Some(first) = unfinished.first() {
        bail!(
            "expected all {} cases preprocessed, found {} missing, such as {first}; run {command} \
             again: {}",
            store.recipe().cases().len(),
            unfinished.len(),
            path.display()
        );
    }
    Ok(store)
}

/// The fold's cases; folds that nobody has fixed yet are fixed now, as nnU-Net does.
fn split(folder: &Path, fold: &str, store: &Store) -> anyhow::Result<Split> {
    let fold: Fold = fold.parse()?;
    let file = folder.join(SPLITS);
    let names = store.recipe().cases();
    let splits = if file.is_file() {
        Splits::load(&file)?
    } else if fold == Fold::All {
        Splits::from_json(&Value::Array(Vec::new()))?
    } else {
        let splits = Splits::five_fold(names)?;
        splits.save(&file)?;
        splits
    };
    Ok(splits.fold(fold, names)?)
}

fn name_of(folder: &Path) -> anyhow::Result<String> {
    let folder: PathBuf = folder.canonicalize()?;
    Ok(folder.file_name().unwrap_or_default().to_string_lossy().into_owned())
}
