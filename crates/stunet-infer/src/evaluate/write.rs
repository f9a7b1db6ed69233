//! The files of a report.

use super::report::EvaluationReport;
use super::{csv, html, json};
use crate::InferError;
use std::io::Write;
use std::path::Path;
use stunet_data::{DataError, files};

impl EvaluationReport<'_> {
    /// Writes one row for each case and class: counts, volumes and scores, empty where they do not
    /// exist.
    ///
    /// # Errors
    /// When the file cannot be written; nothing is left under `path` then.
    pub fn write_cases_csv(&self, path: &Path) -> Result<(), InferError> {
        save(path, &csv::cases(self))
    }

    /// Writes one row for each class and score: mean, interval, quartiles, and the other run.
    ///
    /// # Errors
    /// As [`EvaluationReport::write_cases_csv`].
    pub fn write_means_csv(&self, path: &Path) -> Result<(), InferError> {
        save(path, &csv::means(self))
    }

    /// Writes everything as JSON; scores that do not exist are null.
    ///
    /// # Errors
    /// As [`EvaluationReport::write_cases_csv`].
    pub fn write_json(&self, path: &Path) -> Result<(), InferError> {
        Ok(files::save_json(path, &json::everything(self))?)
    }

    /// Writes one page with tables and plots that needs no other file.
    ///
    /// # Errors
    /// As [`EvaluationReport::write_cases_csv`].
    pub fn write_html(&self, path: &Path) -> Result<(), InferError> {
        save(path, &html::page(self))
    }
}

fn save(path: &Path, text: &str) -> Result<(), InferError> {
    let write = |source| DataError::Io { action: "write", source };
    files::sweep([path]);
    Ok(files::write(path, |file| file.write_all(text.as_bytes()).map_err(write))?)
}
