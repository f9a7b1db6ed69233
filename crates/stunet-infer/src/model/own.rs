//! Our own model folder.

use super::locate::{Fold, Located, Weights, choose_folds};
use super::{Folds, ModelKind};
use crate::error::InferError;
use std::path::Path;
use stunet_data::labels::LabelSet;
use stunet_data::plans::Plans;
use stunet_model::weights::folder;

pub(super) const PLANS_FILE: &str = "plans.json";
pub(super) const LABELS_FILE: &str = "labels.json";

/// Opens a folder that holds `network.json`, or one per fold.
pub(super) fn open(path: &Path, folds: &Folds) -> Result<Located, InferError> {
    let fold = |name: &str, at: &Path| -> Result<Fold, InferError> {
        let weights = Weights::Folder(folder::open(at)?, at.to_owned());
        Ok(Fold { name: name.to_owned(), weights })
    };
    let folds = if folder::is_model_folder(path) {
        vec![fold("", path)?]
    } else {
        let chosen = choose_folds(path, folds)?;
        chosen.iter().map(|f| fold(&f.name, &f.path)).collect::<Result<_, _>>()?
    };
    Ok(Located {
        kind: ModelKind::Stunet,
        plans: Plans::load(&path.join(PLANS_FILE))?,
        labels: LabelSet::load(&path.join(LABELS_FILE))?,
        folds,
        notes: Vec::new(),
    })
}
