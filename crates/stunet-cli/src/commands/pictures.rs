//! `stunet pictures`: every training case of a dataset, drawn with its labels.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{anyhow, ensure};
use rayon::prelude::*;
use stunet::data::dataset::{RawDataset, TrainingCaseFiles};
use stunet::data::files;
use stunet::data::labels::LabelMap;
use stunet::pictures::page::{PageCase, PageLabel, PredictionPage};
use stunet::pictures::palette::colour_of;
use stunet::pictures::preview::{PreviewOptions, Scene, SceneOptions};

use crate::args::{PicturesArgs, WindowArg};
use crate::described::make_folder;
use crate::failure::{self, Interrupted, Told};
use crate::jobs::check_writable;
use crate::output;
use crate::pictures::{size_text, write};
use crate::places::{self, Output};
use crate::progress::CaseBar;
use crate::report::tell_passed_over;
use crate::{interrupt, machine};

/// Memory of a voxel: its intensity, its label, and both as they were in their files.
const BYTES_PER_VOXEL: u64 = 4 + 2 + 8;

/// Draws every case; one that cannot be drawn does not stop the others.
pub fn run(args: &PicturesArgs) -> anyhow::Result<()> {
    let leniency = args.forgive.leniency();
    let dataset = RawDataset::open(&args.dataset)?.forgiving(leniency);
    if !args.quiet {
        tell_passed_over(dataset.folder(), dataset.passed_over());
    }
    let channels = dataset.info().channel_names.len();
    ensure!(
        usize::from(args.channel) < channels,
        "--channel: expected 0 to {}, found {}: {}",
        channels - 1,
        args.channel,
        dataset.folder().display()
    );
    let picture = |case: &TrainingCaseFiles| args.output.join(format!("{}.png", case.name));
    check_places(args, &dataset, &picture)?;
    interrupt::watch(args.quiet, "case")?;
    make_folder(&args.output)?;
    let drawn = Drawing { args, dataset: &dataset, names: names_of(&dataset) }.all(&picture)?;
    let failed = drawn.iter().filter(|case| case.error.is_some()).count();
    for case in &drawn {
        if let Some(error) = &case.error {
            output::complain(&format!("{}: {error}", case.name));
        }
    }
    let pictures = drawn.len() - failed;
    if let Some(path) = &args.report {
        files::sweep([path.as_path()]);
        write(path, page(&dataset, drawn).to_html().as_bytes())?;
    }
    if !args.quiet {
        output::line(&format!("{pictures} pictures: {}", args.output.display()))?;
        if let Some(path) = &args.report {
            output::line(&format!("report: {}", path.display()))?;
        }
    }
    if failed > 0 { Err(Told.into()) } else { Ok(()) }
}

/// No picture replaces a file of the dataset, nor, unless that is wanted, one that is there.
fn check_places(
    args: &PicturesArgs,
    dataset: &RawDataset,
    picture: &impl Fn(&TrainingCaseFiles) -> PathBuf,
) -> anyhow::Result<()> {
    let pictures: Vec<PathBuf> = dataset.cases().iter().map(picture).collect();
    let page = args.report.iter().map(|path| Output::new("--report", path));
    let outputs = pictures.iter().map(|path| Output::new("--output", path)).chain(page);
    places::check(dataset.files(), outputs)?;
    for path in pictures.iter().chain(&args.report) {
        ensure!(
            args.overwrite || !path.exists(),
            "expected a picture that is not there, or --overwrite: {}",
            path.display()
        );
    }
    let first = pictures.first().into_iter().chain(&args.report);
    first.into_iter().try_for_each(|path| check_writable(path))
}

/// Names of the label values.
fn names_of(dataset: &RawDataset) -> BTreeMap<u16, String> {
    let labels = &dataset.info().labels;
    let painted = labels.painted().into_iter().map(|(value, name)| (value, name.to_owned()));
    let ignored = labels.ignore().map(|value| (value, "ignore".to_owned()));
    painted.chain(ignored).collect()
}

struct Drawing<'a> {
    args: &'a PicturesArgs,
    dataset: &'a RawDataset,
    names: BTreeMap<u16, String>,
}

impl Drawing<'_> {
    /// Draws all cases, several at a time; in their order.
    fn all(
        &self,
        picture: &(impl Fn(&TrainingCaseFiles) -> PathBuf + Sync),
    ) -> anyhow::Result<Vec<PageCase>> {
        let cases = self.dataset.cases();
        let opener = self.dataset.info().opener();
        let needs = cases.iter().filter_map(|case| {
            // A file that cannot be read is told when it is its turn.
            let (geometry, _) = opener.read_geometry(&case.labels).ok()?;
            let voxels: u64 = geometry.shape().iter().map(|n| *n as u64).product();
            let channels = case.images.len() as u64;
            Some((voxels * channels.max(1) * BYTES_PER_VOXEL, case.labels.as_path()))
        });
        let pool = machine::pool(self.args.num_threads, machine::cases_at_a_time(needs)?)?;
        let progress = CaseBar::new("pictures".to_owned(), self.args.quiet);
        progress.count(0, cases.len(), "cases");
        let done = AtomicUsize::new(0);
        let one = |case: &TrainingCaseFiles| -> anyhow::Result<PageCase> {
            if interrupt::asked() {
                return Err(Interrupted.into());
            }
            let drawn = self.one(case, &picture(case));
            progress.count(done.fetch_add(1, Ordering::SeqCst) + 1, cases.len(), "cases");
            Ok(drawn.unwrap_or_else(|error| PageCase {
                name: case.name.clone(),
                error: Some(failure::describe(&error)),
                ..PageCase::default()
            }))
        };
        pool.install(|| cases.par_iter().map(one).collect())
    }

    fn one(&self, case: &TrainingCaseFiles, path: &Path) -> anyhow::Result<PageCase> {
        let read = case.read_scan(self.dataset.info());
        let (scan, labels) = read.map_err(|problems| {
            let words: Vec<_> = problems.iter().map(|problem| problem.error.to_string()).collect();
            anyhow!("{}", words.join("; "))
        })?;
        // Checked when they were read: within what is forgiven, their grid is the scan's.
        let labels = LabelMap { geometry: scan.geometry.clone(), ..labels };
        let options = SceneOptions {
            window: WindowArg::shown(self.args.window),
            channel: self.args.channel.into(),
            truth: None,
        };
        let scene = Scene::new(&scan, &labels, &self.names, &options)?;
        // Names of files may be those of patients: a picture has none in it.
        let present =
            scene.found().iter().filter(|label| label.voxels > 0 && label.value > 0).count();
        let title = format!("{present} of {} labels", foreground(&self.names).count());
        let words = PreviewOptions { title: Some(title), banner: None };
        files::sweep([path]);
        write(path, &scene.preview(&words).to_png()?)?;
        let volume = |value: &u16| {
            let found = scene.found().iter().find(|label| label.value == *value);
            found.map_or(0.0, |label| label.volume_ml)
        };
        Ok(PageCase {
            name: case.name.clone(),
            thumbnail: match self.args.report {
                Some(_) => Some(scene.thumbnail().to_png()?),
                None => None,
            },
            volumes_ml: foreground(&self.names).map(|(value, _)| volume(value)).collect(),
            size: size_text(&scan.geometry),
            ..PageCase::default()
        })
    }
}

fn foreground(names: &BTreeMap<u16, String>) -> impl Iterator<Item = (&u16, &String)> {
    names.iter().filter(|(value, _)| **value > 0)
}

/// The page of all cases.
fn page(dataset: &RawDataset, cases: Vec<PageCase>) -> PredictionPage {
    let names = names_of(dataset);
    let label = |(value, name): (&u16, &String)| PageLabel {
        colour: colour_of(name, *value),
        name: name.clone(),
    };
    let info = dataset.info();
    let failed = cases.iter().filter(|case| case.error.is_some()).count();
    let mut about = vec![format!(
        "{} training cases, channels {}; stunet {}",
        cases.len(),
        info.channel_names.join(", "),
        env!("CARGO_PKG_VERSION")
    )];
    about.extend((failed > 0).then(|| format!("{failed} cases could not be drawn")));
    PredictionPage {
        title: format!("Training cases of {}", dataset.name()),
        about,
        banner: None,
        labels: foreground(&names).map(label).collect(),
        cases,
    }
}
