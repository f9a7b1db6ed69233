//! Pictures of predicted cases, and the page of all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use anyhow::{Context, ensure};
use stunet::data::files;
use stunet::data::geometry::Geometry;
use stunet::data::labels::{CompactLabelMap, LabelMap};
use stunet::data::plausibility::LabelWarning;
use stunet::infer::Record;
use stunet::model::StuNetConfig;
use stunet::pictures::page::{PageCase, PageLabel, PredictionPage};
use stunet::pictures::palette::colour_of;
use stunet::pictures::preview::{PreviewOptions, Scene, SceneOptions};

use super::already::PendingCase;
use super::{Session, make_parent, words};
use crate::demo_model::banner_of;
use crate::jobs::Job;
use crate::pictures::{size_text, truth_of, write};
use crate::products::{Product, Shown};
use crate::report::{CaseReport, LabelCount, Report, Status};

impl Session<'_> {
    /// Fails early where the truth of a case lies on another grid than its scan, or the scan does not
    /// have the channel that is shown.
    pub(super) fn check_pictures(&self, job: &Job, scan: (&Geometry, usize)) -> anyhow::Result<()> {
        let pictures = &self.args.pictures;
        if !pictures.preview && pictures.report.is_none() {
            return Ok(());
        }
        let (geometry, channels) = scan;
        let channel = usize::from(pictures.view.channel);
        ensure!(
            channel < channels,
            "--channel: expected 0 to {}, found {channel}: {}",
            channels - 1,
            job.inputs()[0].display()
        );
        match (truth_of(&self.args.pictures, &job.case.name), &pictures.view.truth) {
            (Some(path), _) => {
                let (truth, _) = self.opener.read_geometry(&path)?;
                let differs = || format!("--truth: {}", path.display());
                let leniency = self.args.scan.leniency();
                geometry.check_same_grid_within(&truth, &leniency).with_context(differs)
            }
            (None, Some(folder)) => {
                let name = &job.case.name;
                self.say(&format!("{name}: note: no truth of this name: {}", folder.display()));
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    /// Draws a case where that is wanted; returns where its preview is.
    ///
    /// The scan is read again: so it need not be held while the network runs.
    pub(super) fn draw(
        &self,
        work: &PendingCase,
        labelmap: &CompactLabelMap,
        (labels, warnings, record): (&[LabelCount], &[LabelWarning], &Record),
    ) -> anyhow::Result<(Option<PathBuf>, Vec<PathBuf>)> {
        let pictures = &self.args.pictures;
        let product = Product::Preview(Shown::of(&pictures.view));
        let path = pictures.preview.then(|| product.path(&work.job.output));
        let lacking = path.as_ref().filter(|_| work.lacks(product));
        if lacking.is_some() || pictures.report.is_some() {
            let note = product.record(record).text();
            let preview = lacking.map(|path| (path.as_path(), &note[..]));
            self.drawn(&work.job, labelmap, (labels, warnings), preview)?;
        }
        let written = lacking.into_iter().cloned().collect();
        Ok((path, written))
    }

    /// Draws the preview of a case, and notes what the page will say of it.
    fn drawn(
        &self,
        job: &Job,
        labelmap: &CompactLabelMap,
        (labels, warnings): (&[LabelCount], &[LabelWarning]),
        preview: Option<(&Path, &str)>,
    ) -> anyhow::Result<()> {
        let (scan, _) = job.origin.read(&job.case.files, self.opener)?;
        let view = &self.args.pictures.view;
        let truth = match truth_of(&self.args.pictures, &job.case.name) {
            Some(path) => Some(LabelMap {
                // Checked before: within what is forgiven, it is the scan's.
                geometry: scan.geometry.clone(),
                ..self.opener.read_labelmap(&path)?
            }),
            None => None,
        };
        let names: BTreeMap<u16, String> = (self.finish.written(self.model.labels()).into_iter())
            .map(|(value, name)| (value, name.to_owned()))
            .collect();
        let options = SceneOptions {
            window: view.window(),
            channel: view.channel.into(),
            truth: truth.as_ref().map(Into::into),
        };
        let scene = Scene::new(&scan, labelmap, &names, &options)?;
        if let Some((path, note)) = preview {
            let title = labels_found(labels);
            let banner = banner_of(&self.model);
            let options = PreviewOptions { title: Some(title), banner };
            let png = scene.preview(&options).to_png_with(Some(note))?;
            make_parent(path)?;
            write(path, &png)?;
        }
        if self.args.pictures.report.is_some() {
            let case = PageCase {
                name: job.case.name.clone(),
                thumbnail: Some(scene.thumbnail().to_png()?),
                volumes_ml: labels[1..].iter().map(|label| label.volume_ml).collect(),
                size: size_text(&labelmap.geometry),
                dice: scene.mean_dice(),
                warnings: warnings.iter().map(|warning| warning.message.clone()).collect(),
                ..PageCase::default()
            };
            let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
            pages.insert(job.output.clone(), case);
        }
        Ok(())
    }

    /// Writes the page of all cases, where it is wanted.
    pub(super) fn write_page(&self, report: &Report) -> anyhow::Result<()> {
        let Some(path) = &self.args.pictures.report else { return Ok(()) };
        let labels = self.finish.written(self.model.labels()).into_iter().skip(1);
        let page = PredictionPage {
            title: String::new(),
            about: self.about(report),
            banner: banner_of(&self.model),
            labels: labels
                .map(|(value, name)| PageLabel {
                    colour: colour_of(name, value),
                    name: name.to_owned(),
                })
                .collect(),
            cases: report.cases.iter().map(|case| self.page_case(case)).collect(),
        };
        make_parent(path)?;
        files::sweep([path.as_path()]);
        write(path, page.to_html().as_bytes())?;
        self.say(&format!("report: {}", path.display()));
        Ok(())
    }

    fn page_case(&self, case: &CaseReport) -> PageCase {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let known = pages.remove(&case.output).unwrap_or_default();
        PageCase {
            name: case.name.clone(),
            secs: case.result.as_ref().map(|result| result.seconds.total),
            error: case.error.clone(),
            ..known
        }
    }

    /// The model, and what became of the cases.
    fn about(&self, report: &Report) -> Vec<String> {
        let description = self.model.description();
        let network = words::network(&self.model);
        let size = description.config.stunet().and_then(StuNetConfig::size);
        let of = size.map_or(String::new(), |_| " (published size)".to_owned());
        let digest =
            self.model.digest().map_or(String::new(), |digest| format!(", model {digest:.8}"));
        let model = format!(
            "{network}{of}, {} labels{digest}; stunet {} on {}",
            self.model.num_classes() - 1,
            report.stunet,
            self.device.name
        );
        let kinds = [
            (Status::Predicted, "predicted"),
            (Status::Skipped, "predicted before"),
            (Status::Failed, "failed"),
        ];
        let counts = kinds.map(|(status, what)| (report.count(status), what));
        let counts: Vec<_> = counts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        vec![model, counts.join(", ")]
    }
}

/// How many labels were found, as a heading.
fn labels_found(labels: &[LabelCount]) -> String {
    let found = labels[1..].iter().filter(|label| label.voxels > 0).count();
    format!("{found} of {} labels found", labels.len() - 1)
}
