//! Which of the three kinds of model a path holds.

use super::choose::{check_fold, check_named, not_a_model};
use super::description::{ModelKind, OpenOptions};
use super::located::Located;
use super::{own, v1, v2};
use crate::error::InferError;
use std::path::Path;

const EXPECTED: &str = "a .model file, an nnU-Net results folder (v1 or v2), or a model folder";

/// Tells the three kinds apart by what lies at the path, and opens it.
pub(super) fn find(path: &Path, options: &OpenOptions) -> Result<Located, InferError> {
    let mut located = if path.is_file() {
        check_named(path, options.checkpoint.as_deref())?;
        match v2::results_folder_of(path) {
            Some((folder, fold)) => {
                check_fold(&fold, &options.folds, path)?;
                v2::open_file(path, &folder)?
            }
            None => v1::open_file(path)?,
        }
    } else if !path.exists() {
        return Err(not_a_model(path, EXPECTED, "no such file or folder"));
    } else if own::looks_like(path, &options.folds) {
        own::open(path, options)?
    } else if path.join("plans.json").is_file() {
        v2::open(path, options)?
    } else if let Some((folder, fold)) = v2::results_folder_of_fold(path) {
        check_fold(&fold, &options.folds, path)?;
        v2::open(&folder, &OpenOptions { folds: fold.parse()?, ..options.clone() })?
    } else if v1::looks_like(path) {
        v1::open(path, options)?
    } else {
        let found = match path.is_dir() {
            true => "a folder with nothing of the kind",
            false => "a pipe or a device",
        };
        return Err(not_a_model(path, EXPECTED, found));
    };
    if let Some(reference) = options.reference {
        located.plans.reference = reference;
        if located.kind != ModelKind::Stunet {
            located.plans.accumulation = reference.conventions().prediction.accumulation;
        }
    }
    Ok(located)
}
