//! The DICOM objects of a case.

use std::path::PathBuf;

use anyhow::Context;
use stunet::data::dicom::{Derived, DicomProvenance, Source};
use stunet::data::geometry::Geometry;
use stunet::data::labels::{CompactLabelMap, LabelSet};
use stunet::infer::Record;

use super::already::PendingCase;
use super::{Session, make_parent};
use crate::jobs::Job;
use crate::products::Product;

/// What the objects of a job refer to, once the grids agree; none where it has no objects.
///
/// # Errors
///
/// When the series cannot be read, or its grid is not that of the scan.
pub fn source_of(job: &Job, grid: &Geometry) -> anyhow::Result<Option<Source>> {
    let Some(source) = job.source.source()? else { return Ok(None) };
    let checked = source.check_grid(grid.in_file());
    checked.with_context(|| {
        format!(
            "--dicom-source: expected the series that the scan was converted from, found another \
             one: {}",
            job.inputs()[0].display()
        )
    })?;
    Ok(Some(source))
}

impl Session<'_> {
    /// Writes the objects that a case lacks; returns their files.
    pub(super) fn write_objects(
        &self,
        work: &PendingCase,
        labels: &CompactLabelMap,
        (source, record): (Option<&Source>, &Record),
    ) -> anyhow::Result<Vec<PathBuf>> {
        let Some(source) = source else { return Ok(Vec::new()) };
        make_parent(&work.job.output)?;
        write(work, (labels, self.model.labels()), source, (record, self.model.digest()))
    }
}

fn write(
    work: &PendingCase,
    (labels, names): (&CompactLabelMap, &LabelSet),
    source: &Source,
    (record, model): (&Record, Option<&str>),
) -> anyhow::Result<Vec<PathBuf>> {
    let (job, mut written) = (&work.job, Vec::new());
    for product in work.lacks.iter().filter(|product| product.is_dicom()) {
        let path = product.path(&job.output);
        let note = Some(job.record_of(*product, record).text());
        let provenance = DicomProvenance { model: model.map(str::to_owned), note };
        let derived = Derived::new(labels, names, source, provenance)?;
        match product {
            Product::Segmentation(kind) => derived.write_segmentation(&path, *kind)?,
            _ => derived.write_structure_set(&path)?,
        }
        written.push(path);
    }
    Ok(written)
}
