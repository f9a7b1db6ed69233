//! The prepared cases of a run: those of `stunet preprocess`, or nnU-Net's own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use stunet::data::labels::LabelSet;
use stunet::data::sample::TrainingCases;
use stunet::data::store::{STORE_FILE, Store, digest, suffix};
use stunet::train::nnunet_cases::{CaseFormat, NnUNetCases};

use crate::args::CasesArg;
use crate::failure::Interrupted;
use crate::interrupt;
use crate::planned::PlannedConfiguration;

/// All cases of a dataset that is preprocessed.
pub enum PreparedCases {
    /// In our store.
    Own(Store),
    /// In nnU-Net's folder, with what stands for a recipe.
    NnUNet { cases: NnUNetCases, digest: String },
}

impl PreparedCases {
    /// Finds them: in our store, else in nnU-Net's folder, or where it was asked for; and what to say of
    /// where they are.
    pub fn find(
        planned: &PlannedConfiguration,
        labels: Option<&LabelSet>,
        wanted: Option<CasesArg>,
    ) -> anyhow::Result<(Self, Vec<String>)> {
        let (place, command) = (planned.place()?, planned.preprocess_command());
        let nnunet = planned.nnunet_cases()?;
        let own = place.find().filter(|_| wanted != Some(CasesArg::Nnunet));
        if let Some(folder) = own {
            let (store, notes) = open_store(planned, folder)?;
            return Ok((Self::Own(store), notes));
        }
        if wanted != Some(CasesArg::Stunet) && NnUNetCases::are_in(&nnunet) {
            return Self::nnunet(planned, labels, &nnunet);
        }
        let shown = match wanted {
            Some(CasesArg::Nnunet) => bail!(
                "expected cases that nnU-Net preprocessed, found none; run nnUNetv2_preprocess, or leave \
                 out --cases: {}",
                nnunet.display()
            ),
            _ => place.own.display(),
        };
        bail!(
            "expected preprocessed cases (of stunet, or of nnU-Net in {}), found none; run {command} \
             first: {shown}",
            nnunet.display()
        )
    }

    fn nnunet(
        planned: &PlannedConfiguration,
        labels: Option<&LabelSet>,
        folder: &Path,
    ) -> anyhow::Result<(Self, Vec<String>)> {
        let labels = labels.with_context(|| {
            let shown = planned.folder.display();
            format!("expected dataset.json beside the plans, for the labels, found none: {shown}")
        })?;
        let plans = &planned.plans;
        let cases = NnUNetCases::open(folder, labels.clone(), plans.num_channels())?;
        let kind = match cases.format() {
            CaseFormat::Blosc2 => "Blosc2",
            CaseFormat::Archive => "npz, unpacked beside them as nnU-Net does",
            CaseFormat::ArchiveV1 => "npz of nnU-Net 1, unpacked beside them as nnU-Net does",
        };
        let note = format!(
            "the {} cases are those that nnU-Net preprocessed ({kind}): {}",
            cases.names().len(),
            folder.display()
        );
        let digest = format!("nnunet-{}", digest(plans, labels));
        Ok((Self::NnUNet { cases, digest }, vec![note]))
    }

    /// Makes them ready for training, which may take a while: unpacks nnU-Net's archives, and opens
    /// every file of nnU-Net's once.
    pub fn make_ready(
        &self,
        mut say: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Self::NnUNet { cases, .. } = self else { return Ok(()) };
        let mut told = Ok(());
        let unpacked = cases.unpack(|case| {
            if told.is_ok() {
                told = say(&format!("unpacking {case}"));
            }
            match told.is_err() || interrupt::asked() {
                true => Err(stunet::data::DataError::Stopped),
                false => Ok(()),
            }
        });
        told?;
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        unpacked?;
        Ok(cases.check()?)
    }

    /// Names of all cases, sorted.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Own(store) => store.recipe().cases(),
            Self::NnUNet { cases, .. } => cases.names(),
        }
    }

    /// What label values mean.
    pub fn labels(&self) -> &LabelSet {
        match self {
            Self::Own(store) => store.recipe().labels(),
            Self::NnUNet { cases, .. } => cases.labels(),
        }
    }

    /// Tells apart how they were prepared.
    pub fn digest(&self) -> &str {
        match self {
            Self::Own(store) => store.recipe().digest(),
            Self::NnUNet { digest, .. } => digest,
        }
    }

    /// Cases of these names, in this order.
    pub fn subset(&self, names: &[String]) -> anyhow::Result<Arc<dyn TrainingCases>> {
        Ok(match self {
            Self::Own(store) => Arc::new(store.subset(names)?),
            Self::NnUNet { cases, .. } => Arc::new(cases.subset(names)?),
        })
    }

    /// Every file of them.
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Own(store) => {
                let file = |name: &String| store.folder().join(format!("{name}{}", suffix()));
                let cases = store.names().iter().map(file);
                cases.chain([store.folder().join(STORE_FILE)]).collect()
            }
            Self::NnUNet { cases, .. } => cases.files(),
        }
    }
}

/// Our store, all of it, and what to say of where it is.
fn open_store(
    planned: &PlannedConfiguration,
    folder: &Path,
) -> anyhow::Result<(Store, Vec<String>)> {
    let (place, command) = (planned.place()?, planned.preprocess_command());
    let notes = match folder == place.nnunet {
        false => Vec::new(),
        true => vec![format!(
            "the cases lie in nnU-Net's own folder, which keeps nnU-Net from using it; {command} moves \
             them out: {}",
            folder.display()
        )],
    };
    let store = Store::open(folder)?;
    let unfinished = store.unfinished();
    ensure!(
        unfinished.is_empty(),
        "expected all {} cases preprocessed, found {} missing, such as {}; run {command} again: {}",
        store.recipe().cases().len(),
        unfinished.len(),
        unfinished.first().map_or("", String::as_str),
        folder.display()
    );
    Ok((store, notes))
}

/// Where plans and `dataset.json` meet the cases of our store: what the cases depend on has to be what it
/// was when they were prepared.
pub fn check_store(
    planned: &PlannedConfiguration,
    labels: Option<&LabelSet>,
    store: &Store,
) -> anyhow::Result<()> {
    let (recipe, command) = (store.recipe(), planned.preprocess_command());
    let description = store.folder().join(STORE_FILE);
    let plans = recipe.differences(&planned.plans, recipe.labels())?;
    let labels = recipe.differences(recipe.plans(), labels.unwrap_or(recipe.labels()))?;
    for (found, file) in [(plans, planned.file_name()), (labels, "dataset.json".to_owned())] {
        ensure!(
            found.is_empty(),
            "{file} has changed since the cases were prepared: {}; run {command} to prepare them anew, \
             or undo the change: {}",
            found.told(&file, STORE_FILE),
            description.display()
        );
    }
    let outdated = store.outdated();
    if let Some((case, error)) = outdated.first() {
        bail!(
            "expected all cases prepared by the same plans, found {} that are not or are damaged, such \
             as {case}; run {command} again: {error}",
            outdated.len()
        );
    }
    Ok(())
}
