//! Which of the three kinds of model a path holds.

use super::choose::{check_fold, check_named, not_a_model};
use super::description::{ModelKind, OpenOptions};
use super::files::Files;
use super::located::Located;
use super::{own, v1, v2};
use crate::error::InferError;
use std::path::Path;

const EXPECTED: &str = "a .model file, an nnU-Net results folder (v1 or v2), or a model folder";

/// Tells the three kinds apart by what lies at the path, and opens it.
pub(super) fn find(
    files: &Files,
    path: &Path,
    options: &OpenOptions,
) -> Result<Located, InferError> {
    let mut located = if files.is_file(path) {
        check_named(path, options.checkpoint.as_deref())?;
        match v2::results_folder_of(files, path) {
            Some((folder, fold)) => {
                check_fold(&fold, &options.folds, path)?;
                v2::open_file(files, path, &folder)?
            }
            None => v1::open_file(files, path)?,
        }
    } else if !files.exists(path) {
        let found = match files {
            Files::Disk => "no such file or folder".to_owned(),
            Files::Memory(_) => files.told(path),
        };
        return Err(not_a_model(path, EXPECTED, &found));
    } else if own::looks_like(files, path, &options.folds) {
        own::open(files, path, options)?
    } else if files.is_file(&path.join("plans.json")) {
        v2::open(files, path, options)?
    } else if let Some((folder, fold)) = v2::results_folder_of_fold(files, path) {
        check_fold(&fold, &options.folds, path)?;
        v2::open(files, &folder, &OpenOptions { folds: fold.parse()?, ..options.clone() })?
    } else if v1::looks_like(files, path) {
        v1::open(files, path, options)?
    } else {
        return Err(not_a_model(path, EXPECTED, &files.told(path)));
    };
    if let Some(reference) = options.reference {
        located.plans.reference = reference;
        if located.kind != ModelKind::Stunet {
            located.plans.accumulation = reference.conventions().prediction.accumulation;
        }
    }
    Ok(located)
}
