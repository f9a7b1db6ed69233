//! `stunet postprocess`: nnU-Net's rule for removing all but the largest part of a class.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::ensure;
use rayon::prelude::*;
use stunet::data::dataset::list_labelmaps;
use stunet::data::labels::LabelSet;
use stunet::data::nifti;
use stunet::infer::InferError;
use stunet::infer::evaluate::{Class, Evaluation, Missing, Pair, pairs};
use stunet::infer::postprocess::{
    Determined, Postprocessing, PostprocessingRule, PostprocessingTrial, determine,
};

use super::evaluate::header;
use crate::args::{ApplyArgs, DetermineArgs, Layout, PostprocessCommand};
use crate::described::{Described, SUMMARY, make_folder};
use crate::failure::Interrupted;
use crate::interrupt;
use crate::machine;
use crate::output;
use crate::places::{self, Output};
use crate::progress::CaseBar;

/// Files that are written beside the predictions.
pub const PICKLE: &str = "postprocessing.pkl";
pub const JSON: &str = "postprocessing.json";
/// Folder of the postprocessed labelmaps in that of the predictions.
pub const POSTPROCESSED: &str = "postprocessed";

/// Runs either command.
pub fn run(command: &PostprocessCommand) -> anyhow::Result<()> {
    match command {
        PostprocessCommand::Determine(args) => run_determine(args),
        PostprocessCommand::Apply(args) => run_apply(args),
    }
}

/// What is decided on, and how.
pub struct Question<'a> {
    /// Predictions of cross-validation.
    pub predictions: &'a Path,
    /// References of all of them.
    pub reference: &'a Path,
    /// Whose rule.
    pub layout: Layout,
    /// Whether the postprocessed labelmaps are written.
    pub keep: bool,
    /// Threads, and whether nothing is printed.
    pub how: (Option<usize>, bool),
}

fn run_determine(args: &DetermineArgs) -> anyhow::Result<()> {
    let described = Described::of(&args.input, args.dataset_json.as_ref(), args.plans.as_ref())?;
    interrupt::watch(args.quiet, "pass")?;
    let question = Question {
        predictions: &args.input,
        reference: &args.reference,
        layout: args.layout,
        keep: !args.remove_postprocessed,
        how: (args.num_threads, args.quiet),
    };
    let found = question.answer(&described)?;
    if args.quiet {
        return Ok(());
    }
    tell(&found, &described.dataset.labels)?;
    let file = match args.layout {
        Layout::V2 => PICKLE,
        Layout::V1 => JSON,
    };
    output::line(&args.input.join(file).display().to_string())
}

impl Question<'_> {
    /// Decides, and writes the decision and what comes of it.
    pub fn answer(&self, described: &Described) -> anyhow::Result<Determined> {
        let pairs = pairs(self.reference, self.predictions, Missing::Skip)?;
        let labels = &described.dataset.labels;
        let (num_threads, quiet) = self.how;
        let progress = CaseBar::new("postprocessing".to_owned(), quiet);
        let on_pass = |pass: usize, total: usize| {
            progress.count(pass, total, "passes");
            if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let rule = match self.layout {
            Layout::V2 => PostprocessingRule::V2,
            Layout::V1 => PostprocessingRule::V1,
        };
        let (rules, foreground) = (described.rules()?, foreground(labels));
        let pool = machine::pool(num_threads, None)?;
        let found = pool.install(|| determine(&pairs, &rules, &foreground, rule, &on_pass));
        let found = match found {
            Err(InferError::Interrupted) => return Err(Interrupted.into()),
            found => found?,
        };
        self.write(&found, labels, &pairs, &pool)?;
        Ok(found)
    }

    fn write(
        &self,
        found: &Determined,
        labels: &LabelSet,
        pairs: &[Pair],
        pool: &rayon::ThreadPool,
    ) -> anyhow::Result<()> {
        let folder = self.predictions;
        let summary = |scores: &Evaluation, path: &Path| match self.layout {
            Layout::V2 => scores.write_v2(path),
            Layout::V1 => scores.write_v1(path, &header()),
        };
        summary(&found.before, &folder.join(SUMMARY))?;
        if self.keep {
            let target = folder.join(POSTPROCESSED);
            make_folder(&target)?;
            let files = pairs.iter().map(|pair| pair.prediction.clone()).collect::<Vec<_>>();
            pool.install(|| {
                apply(&found.postprocessing, &files, &target, labels.max_value(), &|_| ())
            })?;
            let mut after = found.after.clone();
            for case in &mut after.cases {
                let name = case.pair.prediction.file_name().unwrap_or_default().to_owned();
                case.pair.prediction = target.join(name);
            }
            summary(&after, &target.join(SUMMARY))?;
        }
        let json = folder.join(JSON);
        match self.layout {
            Layout::V2 => {
                found.postprocessing.save_json_v2(&json, found)?;
                Ok(found.postprocessing.save_pickle(&folder.join(PICKLE))?)
            }
            Layout::V1 => Ok(found.postprocessing.save_json_v1(&json, found)?),
        }
    }
}

/// Labels that are not background, ascending.
fn foreground(labels: &LabelSet) -> Vec<u16> {
    let mut values: Vec<u16> =
        labels.labels().iter().flat_map(|label| label.values.clone()).filter(|v| *v > 0).collect();
    values.sort_unstable();
    values.dedup();
    values
}

fn run_apply(args: &ApplyArgs) -> anyhow::Result<()> {
    let steps = Postprocessing::load(&args.steps)?;
    let files: Vec<PathBuf> =
        list_labelmaps(&args.input)?.files.into_iter().map(|(_, path)| path).collect();
    ensure!(
        !files.is_empty(),
        "expected labelmaps (.nii.gz, .nii), found none: {}",
        args.input.display()
    );
    let target = |file: &PathBuf| args.output.join(file.file_name().unwrap_or_default());
    let outputs = files.iter().map(|file| Output::new("--output", target(file)));
    places::check(files.iter().chain([&args.steps]).cloned(), outputs)?;
    make_folder(&args.output)?;
    interrupt::watch(args.quiet, "case")?;
    let progress = CaseBar::new("postprocessing".to_owned(), args.quiet);
    progress.count(0, files.len(), "cases");
    let pool = machine::pool(args.num_threads, None)?;
    let told = |done: usize| progress.count(done, files.len(), "cases");
    pool.install(|| apply(&steps, &files, &args.output, 0, &told))?;
    match args.quiet {
        true => Ok(()),
        false => output::line(&format!("{} cases: {}", files.len(), args.output.display())),
    }
}

fn apply(
    steps: &Postprocessing,
    files: &[PathBuf],
    target: &Path,
    max_label: u16,
    told: &(dyn Fn(usize) + Sync),
) -> anyhow::Result<()> {
    let done = AtomicUsize::new(0);
    files.par_iter().try_for_each(|file| {
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        let mut labels = nifti::read_labelmap(file)?;
        steps.apply(&mut labels);
        nifti::write_labelmap(
            &target.join(file.file_name().unwrap_or_default()),
            &labels,
            max_label,
        )?;
        told(done.fetch_add(1, Ordering::Relaxed) + 1);
        Ok(())
    })
}

/// Prints what was tried.
pub fn tell(found: &Determined, labels: &LabelSet) -> anyhow::Result<()> {
    output::line(&format!(
        "{:<24}  {:>6}  {:>6}  {}",
        "largest part only", "before", "after", "taken"
    ))?;
    for (index, PostprocessingTrial { step, before, after, taken }) in
        found.decisions.iter().enumerate()
    {
        let name = match (index, &step.classes[..]) {
            (0, _) => "the foreground as one".to_owned(),
            (_, [class]) => name_of(class, labels),
            (_, classes) => format!("{classes:?}"),
        };
        let taken = if *taken { "yes" } else { "no" };
        output::line(&format!("{name:<24}  {}  {}  {taken}", score(*before), score(*after)))?;
    }
    Ok(())
}

/// Prints the mean Dice of every class.
pub fn tell_scores(result: &Evaluation, labels: &LabelSet) -> anyhow::Result<()> {
    for (index, class) in result.rules.classes.iter().enumerate() {
        output::line(&format!("{}  {}", score(result.mean_dice(index)), name_of(class, labels)))?;
    }
    let (dice, without) = result.dice_of_classes_there();
    let without = match without {
        0 => String::new(),
        count => format!(", without {count} class(es) that no case has"),
    };
    output::line(&format!("{}  mean of the foreground{without}", score(dice)))
}

fn name_of(class: &Class, labels: &LabelSet) -> String {
    let of = |label: &&stunet::data::labels::Label| match class {
        Class::Label(value) => label.values == [*value],
        Class::Region(values) => label.values == *values,
    };
    labels.labels().iter().find(of).map_or_else(|| class.to_string(), |label| label.name.clone())
}

fn score(dice: f64) -> String {
    if dice.is_nan() { format!("{:>6}", "-") } else { format!("{dice:.4}") }
}
