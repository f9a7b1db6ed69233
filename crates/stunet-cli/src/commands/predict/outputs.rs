//! The labelmap, the confidence and the probabilities of a case.

use std::path::PathBuf;

use ndarray::Array3;
use stunet::data::formats;
use stunet::data::geometry::Geometry;
use stunet::data::labels::CompactLabelMap;
use stunet::infer::Record;

use super::already::PendingCase;
use super::settings::measure_of;
use super::{Session, make_parent};
use crate::products::Product;

impl Session<'_> {
    /// Writes how sure the labels are, where that is wanted and not there; returns where it is.
    pub(super) fn write_confidence(
        &self,
        work: &PendingCase,
        volume: Option<&Array3<u8>>,
        geometry: &Geometry,
        record: &Record,
    ) -> anyhow::Result<Option<PathBuf>> {
        let (Some(volume), Some(measure)) = (volume, self.args.confidence) else {
            return Ok(None);
        };
        let product = Product::Confidence(measure_of(measure));
        let path = product.path(&work.job.output);
        if work.lacks(product) {
            make_parent(&path)?;
            let note = product.record(record).text();
            formats::write_bytes(&path, volume, geometry, Some(&note))?;
        }
        Ok(Some(path))
    }

    /// Writes the labels, where they are not there; returns the files.
    pub(super) fn write_labelmap(
        &self,
        work: &PendingCase,
        labelmap: &CompactLabelMap,
        record: &Record,
    ) -> anyhow::Result<Vec<PathBuf>> {
        if !work.lacks(Product::Labelmap) {
            return Ok(Vec::new());
        }
        let path = &work.job.output;
        make_parent(path)?;
        let names = self.model.labels();
        formats::write_named_labelmap(path, labelmap, names, Some(&record.text()))?;
        Ok(Product::Labelmap.files(path))
    }

    /// Files of probabilities that were written.
    pub(super) fn probabilities_of(&self, work: &PendingCase) -> Vec<PathBuf> {
        let lacking = self.probabilities().filter(|product| work.lacks(*product));
        lacking.map(|product| product.files(&work.job.output)).unwrap_or_default()
    }

    pub(super) fn lacks_confidence(&self, work: &PendingCase) -> bool {
        let measure = self.args.confidence.map(measure_of);
        measure.is_some_and(|measure| work.lacks(Product::Confidence(measure)))
    }
}
