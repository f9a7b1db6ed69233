//! The prepared dataset of a run: plans, folds and cases, or the command that makes what is missing.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use stunet::data::labels::LabelSet;
use stunet::data::plans::Plans;
use stunet::data::splits::{Fold, Split, Splits};
use stunet::data::store::Store;

use crate::args::TrainArgs;

/// A dataset that is planned and preprocessed.
pub struct Dataset {
    /// Name of its folder.
    pub name: String,
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
        let plans_file = folder.join(format!("{}.json", args.plans));
        ensure!(
            plans_file.is_file(),
            "expected {}.json, found none; run `stunet plan` on the raw dataset first: {shown}",
            args.plans
        );
        let nnunet_plans: Value = read_json(&plans_file)?;
        let configurations = nnunet_plans.get("configurations").and_then(Value::as_object);
        if let Some(known) = configurations {
            ensure!(
                known.contains_key(&args.configuration),
                "configuration: expected one of {}, found {}: {}",
                known.keys().cloned().collect::<Vec<_>>().join(", "),
                args.configuration,
                plans_file.display()
            );
        }
        let entry = |key| nnunet_plans["configurations"][&args.configuration].get(key);
        let identifier = entry("data_identifier").and_then(Value::as_str).map(str::to_owned);
        let batch_dice = entry("batch_dice").and_then(Value::as_bool).unwrap_or(false);
        let identifier =
            identifier.unwrap_or_else(|| format!("{}_{}", args.plans, args.configuration));
        let store = open_store(&folder.join(identifier), folder, &args.configuration)?;
        let split = split(folder, &args.fold, &store)?;
        let dataset_file = folder.join("dataset.json");
        let nnunet_dataset =
            dataset_file.is_file().then(|| read_json(&dataset_file)).transpose()?;
        let nnunet_plans = configurations.is_some().then_some(nnunet_plans);
        Ok(Self { name, store, split, batch_dice, nnunet_plans, nnunet_dataset })
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

fn open_store(path: &Path, folder: &Path, configuration: &str) -> anyhow::Result<Store> {
    let command = format!("`stunet preprocess {} {configuration}`", folder.display());
    ensure!(
        path.join(stunet::data::store::STORE_FILE).is_file(),
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
    let file = folder.join("splits_final.json");
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

fn read_json(path: &Path) -> anyhow::Result<Value> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot use JSON: {}", path.display()))
}
