//! Cases whose labels are there: what else is wanted is made from those labels, without the network.

use anyhow::Context;
use stunet::data::labels::CompactLabelMap;

use super::Session;
use super::already::PendingCase;
use super::objects::source_of;
use super::pipeline::Stages;
use crate::products::Product;
use crate::report::{Report, Status, count_labels};

impl Session<'_> {
    /// Tells of a case whose labels are there, and makes what is missing of it.
    pub(super) fn keep(&self, work: PendingCase, report: &mut Report) {
        let job = &work.job;
        let stands = match work.lacks.is_empty() {
            true => "skipped, exists",
            false => "what is missing is made from the labels that exist",
        };
        self.say(&format!("{}: {stands}: {}", job.case.name, job.output.display()));
        match self.complete(&work) {
            Ok(()) => report.cases.push(self.report_of(work.job, Status::Skipped)),
            Err(error) => {
                self.failed(job, &error);
                report.fail(self.report_of(work.job, Status::Failed), &error);
            }
        }
    }

    /// Makes what is missing of a case from its labels, and what the page says of it.
    fn complete(&self, work: &PendingCase) -> anyhow::Result<()> {
        let wanted = Product::wanted(self.args);
        let is_done = work.lacks.is_empty() && self.args.pictures.report.is_none();
        if !wanted.contains(&Product::Labelmap) || is_done {
            return Ok(());
        }
        self.check_classes(work)?;
        let job = &work.job;
        let (_, record) = &self.ways[work.way.unwrap_or(0)];
        let record = job.record(record, self.opener).with_input(&job.case.files)?;
        let mut labelmap = CompactLabelMap::from(self.opener.read_labelmap(&job.output)?);
        let lacks =
            |product: &Product| product.is_dicom() || matches!(product, Product::Statistics(_));
        let scan = match work.lacks.iter().any(lacks) {
            true => Some(job.origin.read(&job.case.files, self.opener)?.0),
            false => None,
        };
        if let Some(scan) = &scan {
            let same = scan.geometry.check_same_grid(&labelmap.geometry);
            same.with_context(|| job.output.display().to_string())?;
            // A header keeps fewer digits than the scan has.
            labelmap.geometry = scan.geometry.clone();
        }
        let measured = self.measure(work, &labelmap, scan.as_ref(), None)?;
        drop(scan);
        let labels = count_labels(&labelmap, self.model.labels(), &measured, None);
        let warnings = self.check_anatomy(&measured);
        let source = source_of(job, &labelmap.geometry)?;
        let mut made = self.write_objects(work, &labelmap, (source.as_ref(), &record))?;
        made.extend(self.write_classes(work, &labelmap, &record)?);
        made.extend(self.write_statistics(work, measured, &record)?);
        made.extend(self.draw(work, &labelmap, (&labels, &warnings, &record))?.1);
        if !work.lacks.is_empty() {
            self.tell_files(&made);
            self.warn(job, &warnings);
        }
        Ok(())
    }
}
