//! Messages on standard output while cases are predicted.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use stunet::data::plans::SeenOrientation;
use stunet::infer::sliding_window::Keep;
use stunet::infer::{Model, NetworkPrecision, PredictEvent};

use super::Session;
use crate::finish::listed;
use crate::jobs::Job;
use crate::orientation;
use crate::output;
use crate::report::{CaseResult, LabelCount, Report};

/// The kind of network and its size.
pub(super) fn network(model: &Model) -> String {
    let architecture = model.architecture();
    let name = match architecture.stunet() {
        Some(config) => {
            format!("{architecture} {}", config.size().map_or("custom", |size| size.name()))
        }
        None => architecture.to_string(),
    };
    match model.precision() {
        NetworkPrecision::F32 => name,
        NetworkPrecision::Int8 => format!("{name} in eight bits"),
    }
}

impl Session<'_> {
    /// Says something, unless that has failed before: cases go on where nobody can be told of them.
    pub(super) fn say(&self, line: &str) {
        let mut unsaid = self.unsaid.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.args.quiet && unsaid.is_none() {
            *unsaid = output::line(line).err();
        }
    }

    /// What to say of the axes of a scan. Where the model does not say its own, once for every
    /// orientation of scans, not for each of thousands.
    pub(super) fn axes(&self, seen: SeenOrientation) -> Option<String> {
        let line = orientation::of_scan(seen, self.args.axes.orientation)?;
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.trained.is_some() || seen.is_turned();
        (known || unknown.insert(seen.file)).then_some(line)
    }

    /// Whether all could be said.
    pub(super) fn said(&self) -> anyhow::Result<()> {
        match self.unsaid.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// One line about the memory and time that a case will need.
    pub(super) fn tell_plan(&self, job: &Job, event: PredictEvent) {
        let PredictEvent::Plan {
            num_tiles,
            num_windows,
            num_repeated,
            keep,
            sums_bytes,
            total_bytes,
            device_bytes,
            windows_at_once,
            on_host,
            secs,
        } = event
        else {
            return;
        };
        let tiles = match num_tiles {
            1 => String::new(),
            tiles => format!(" in {tiles} tiles ({num_repeated} windows repeated)"),
        };
        let place = match (device_bytes, on_host) {
            (0, None) => String::new(),
            (0, Some(why)) => format!(", accumulators on the host ({why})"),
            (bytes, _) => format!(", {} of device memory for accumulators", output::bytes(bytes)),
        };
        let at_once = match windows_at_once {
            1 => String::new(),
            windows => format!(", {windows} at a time"),
        };
        let kept = match keep {
            Keep::Features => "feature maps of windows",
            Keep::FeatureSums => "averages of feature maps",
            _ => "accumulators",
        };
        let time = secs.map(|secs| format!(", about {}", output::duration(secs)));
        let line = format!(
            "{}: {num_windows} windows{tiles}{at_once}, {} of memory, {} of it for {kept}{place}{}",
            job.case.name,
            output::bytes(total_bytes),
            output::bytes(sums_bytes),
            time.unwrap_or_default(),
        );
        self.say(&line);
    }

    /// One line about all cases.
    pub(super) fn sum_up(&self, report: &Report) {
        let Some(summary) = report.summary.as_ref().filter(|_| !self.alone) else { return };
        let peak =
            summary.peak_memory_bytes.map(|peak| format!(", {} of memory", output::bytes(peak)));
        let line = format!(
            "{} predicted, {} skipped, {} failed in {:.1} s, {:.1} million voxels per second{}",
            summary.predicted,
            summary.skipped,
            summary.failed,
            summary.wall_secs,
            summary.voxels_per_sec / 1e6,
            peak.unwrap_or_default(),
        );
        self.say(&line);
    }

    /// One line about a finished case; of a single one also its volumes and files.
    pub(super) fn tell(&self, job: &Job, result: &CaseResult) {
        if let Some(region) = &result.region {
            let line = format!(
                "predicted around {} only, with {} mm of margin: {:.0} % of the volume left out",
                listed(&region.labels),
                region.margin_mm,
                region.left_out * 100.0
            );
            self.say(&format!("{}: {line}", job.case.name));
        }
        for line in result.finished.lines() {
            self.say(&format!("{}: {line}", job.case.name));
        }
        let foreground = &result.labels[1..];
        let found = foreground.iter().filter(|label| label.voxels > 0).count();
        let line = format!(
            "{}: {found} of {} labels, {} windows in {:.1} s on {}: {}",
            job.case.name,
            foreground.len(),
            result.prediction.num_windows,
            result.seconds.total,
            self.device.name,
            job.first_output(self.args).display(),
        );
        self.say(&line);
        if self.alone {
            self.tell_volumes(result);
        }
    }

    /// The largest labels with their volumes, and every file but the labelmap.
    fn tell_volumes(&self, result: &CaseResult) {
        let mut found: Vec<&LabelCount> =
            result.labels[1..].iter().filter(|label| label.voxels > 0).collect();
        found.sort_by_key(|label| std::cmp::Reverse(label.voxels));
        let shown = &found[..found.len().min(ROWS)];
        let width = shown.iter().map(|label| label.name.chars().count()).max().unwrap_or(0);
        for label in shown {
            self.say(&format!("  {:width$}  {:>9} ml", label.name, millilitres(label.volume_ml)));
        }
        if let more @ 1.. = found.len() - shown.len() {
            let table = result.files.iter().find(|file| ends_with(file, "_statistics.csv"));
            let place = match (table.or(self.args.json.as_ref()), self.args.finish.statistics) {
                (Some(file), _) => format!("in {}", file.display()),
                _ => "which --statistics writes to a file".to_owned(),
            };
            self.say(&format!("  and {more} more, {place}"));
        }
        self.tell_files(result.files.get(1..).unwrap_or_default());
    }

    /// Files that were written; those of single labels by their folder.
    pub(super) fn tell_files(&self, files: &[PathBuf]) {
        let list = files.iter().find(|file| ends_with(file, "classes.json"));
        let classes = list.and_then(|list| list.parent());
        let apart = |file: &&PathBuf| classes.is_none_or(|folder| !file.starts_with(folder));
        for file in files.iter().filter(apart) {
            self.say(&format!("  {}", file.display()));
        }
        if let Some(folder) = classes {
            let count = files.iter().filter(|file| file.starts_with(folder)).count() - 1;
            self.say(&format!("  {count} files of single labels: {}", folder.display()));
        }
    }
}

/// Most labels that are listed with their volumes.
const ROWS: usize = 20;

fn ends_with(file: &Path, ending: &str) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ending))
}

/// A volume for people: three digits.
fn millilitres(ml: f64) -> String {
    match ml {
        ml if ml < 0.1 => format!("{ml:.3}"),
        ml if ml < 10.0 => format!("{ml:.2}"),
        ml if ml < 100.0 => format!("{ml:.1}"),
        ml => format!("{ml:.0}"),
    }
}
