//! What comes with the labels of a case: measurements, files of single labels, checks against anatomy.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ndarray::Array3;
use serde_json::{Value, json};
use stunet::data::image::RawImage;
use stunet::data::labels::CompactLabelMap;
use stunet::data::plausibility::{self, LabelWarning};
use stunet::data::statistics::{self, CaseStatistics, StatisticsInput};
use stunet::data::{files, formats, per_class};
use stunet::infer::{Record, Standing};

use super::already::PendingCase;
use super::{Session, make_parent};
use crate::failure::Interrupted;
use crate::interrupt;
use crate::jobs::Job;
use crate::output;
use crate::places::{self, Output};
use crate::products::{Product, TABLE, folder_of_classes};

impl Session<'_> {
    /// Measures the labels; their intensities too, where those are to be written.
    pub(super) fn measure(
        &self,
        work: &PendingCase,
        labelmap: &CompactLabelMap,
        scan: Option<&RawImage>,
        confidence: Option<&Array3<u8>>,
    ) -> anyhow::Result<CaseStatistics> {
        let names = self.finish.written(self.model.labels());
        let measured = StatisticsInput { image: scan, confidence };
        Ok(CaseStatistics::of(&work.job.case.name, labelmap, &names, measured)?)
    }

    /// Hints of what may be wrong with labels.
    pub(super) fn check_anatomy(&self, found: &CaseStatistics) -> Vec<LabelWarning> {
        match self.args.finish.no_checks {
            true => Vec::new(),
            false => plausibility::warnings(&found.labels),
        }
    }

    /// Says them on standard error.
    pub(super) fn warn(&self, job: &Job, warnings: &[LabelWarning]) {
        if self.args.quiet {
            return;
        }
        let of = if self.alone { String::new() } else { format!("{}: ", job.case.name) };
        for LabelWarning { message, .. } in warnings {
            output::complain(&format!("{of}warning: {message}"));
        }
    }

    /// Writes the measurements, where they are wanted and not there; returns their files.
    pub(super) fn write_statistics(
        &self,
        work: &PendingCase,
        mut found: CaseStatistics,
        record: &Record,
    ) -> anyhow::Result<Vec<PathBuf>> {
        let lacking = Product::statistics(self.args).filter(|product| work.lacks(*product));
        let Some(product) = lacking else { return Ok(Vec::new()) };
        found.made_by = Some(product.record(record).to_json());
        let paths = product.files(&work.job.output);
        make_parent(&paths[0])?;
        // The table first: that of JSON says that both are there.
        write_text(&paths[1], &statistics::csv(std::slice::from_ref(&found)))?;
        found.save(&paths[0])?;
        Ok(paths)
    }

    /// The files of single labels of a case.
    fn class_files(&self, job: &Job) -> Vec<(u16, PathBuf)> {
        let names = self.finish.written(self.model.labels());
        let ending = formats::written_ending(&job.output).unwrap_or(".nii.gz");
        per_class::files(&folder_of_classes(&job.output), &names, ending)
    }

    /// Fails where files of single labels would replace what something else has made.
    pub(super) fn check_classes(&self, work: &PendingCase) -> anyhow::Result<()> {
        if self.args.overwrite || !work.lacks(Product::PerClass) {
            return Ok(());
        }
        // All of a case are made with the same settings: those of what is there.
        let (_, record) = &self.ways[work.way.unwrap_or(0)];
        let record = work.job.record(&Product::PerClass.record(record), self.opener);
        for (_, path) in self.class_files(&work.job) {
            let standing = record.standing(&path, Some(&work.job.case.files))?;
            if let Standing::Other { expected, found } = standing {
                bail!(
                    "{}: expected none, or {expected}, found {found}; it is not overwritten without \
                     --overwrite: {}",
                    Product::PerClass.name(),
                    path.display()
                );
            }
        }
        Ok(())
    }

    /// Fails where files of single labels would replace a scan, or the outputs of another case.
    pub(super) fn check_places(&self, jobs: &[Job]) -> anyhow::Result<()> {
        if !self.args.finish.per_class {
            return Ok(());
        }
        let inputs = jobs.iter().flat_map(|job| job.case.files.iter().cloned());
        let inputs = inputs.chain(places::of_model(&self.args.model));
        let mut outputs = Vec::new();
        for job in jobs {
            let name = &job.case.name;
            let of = |product: Product| {
                let what = format!("--output: the {} of case {name}", product.name());
                let files = product.files(&job.output).into_iter();
                files.map(move |path| Output::new(what.clone(), path)).collect::<Vec<_>>()
            };
            outputs.extend(Product::wanted(self.args).into_iter().flat_map(of));
            let classes = self.class_files(job).into_iter();
            let what = format!("--per-class: a label of case {name}");
            outputs.extend(classes.map(|(_, path)| Output::new(what.clone(), path)));
        }
        places::check(inputs, outputs)
    }

    /// Writes the files of single labels, where they are wanted and not there; returns them.
    pub(super) fn write_classes(
        &self,
        work: &PendingCase,
        labelmap: &CompactLabelMap,
        record: &Record,
    ) -> anyhow::Result<Vec<PathBuf>> {
        if !work.lacks(Product::PerClass) {
            return Ok(Vec::new());
        }
        let record = Product::PerClass.record(record);
        let classes = self.class_files(&work.job);
        let list = Product::PerClass.path(&work.job.output);
        make_parent(&list)?;
        // What a killed run has left in the folder under temporary names.
        files::sweep(classes.iter().map(|(_, path)| path.as_path()));
        let note = record.text();
        per_class::write(&classes, labelmap, Some(&note), &mut |_| !interrupt::asked())?;
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        let names = self.finish.written(self.model.labels());
        let by_name: serde_json::Map<String, Value> = (classes.iter())
            .filter_map(|(value, path)| {
                let (_, name) = names.iter().find(|(of, _)| of == value)?;
                let file = path.file_name()?.to_string_lossy();
                Some(((*name).to_owned(), json!({ "value": value, "file": file })))
            })
            .collect();
        let all = json!({
            "format": "stunet-classes", "version": 1, "labels": by_name, "made_by": record.to_json(),
        });
        files::save_json(&list, &all)?;
        Ok(std::iter::once(list).chain(classes.into_iter().map(|(_, path)| path)).collect())
    }

    /// Gathers the measurements of all cases in a folder in one table.
    pub(super) fn gather(&self) -> anyhow::Result<()> {
        if !self.args.finish.statistics || self.alone {
            return Ok(());
        }
        let folder = &self.args.output;
        let cases = measured_in(folder)?;
        if cases.is_empty() {
            return Ok(());
        }
        let path = folder.join(TABLE);
        let text = statistics::csv(&cases);
        if std::fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
            return Ok(());
        }
        write_text(&path, &text)?;
        self.say(&format!("measurements of {} case(s): {}", cases.len(), path.display()));
        Ok(())
    }
}

/// The measurements that lie in a folder, in the order of the names of their cases.
fn measured_in(folder: &Path) -> anyhow::Result<Vec<CaseStatistics>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut cases = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with("_statistics.json") || name.starts_with('.') {
            continue;
        }
        // Whatever else bears such a name is none of ours.
        cases.extend(CaseStatistics::load(&path).ok());
    }
    cases.sort_by(|a, b| a.case.cmp(&b.case));
    Ok(cases)
}

/// Writes a text, whole or not at all.
pub fn write_text(path: &Path, text: &str) -> anyhow::Result<()> {
    files::sweep([path]);
    Ok(files::write(path, |file| {
        let failed = |source| stunet::data::DataError::Io { action: "write", source };
        std::io::Write::write_all(file, text.as_bytes()).map_err(failed)
    })?)
}
