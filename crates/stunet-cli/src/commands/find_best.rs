//! `stunet find-best`: the best of several models and their ensembles, by cross-validation.

mod instructions;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use stunet::infer::evaluate::{Missing, pairs};

use super::accumulate::{Gathered, folder_name, joined, reference_of};
use super::ensemble::{Ensembled, average, members_of};
use super::evaluate::count;
use super::postprocess::{Question, tell};
use crate::args::{FindBestArgs, Layout};
use crate::described::{Described, SUMMARY, make_folder};
use crate::interrupt;
use crate::output;

/// Configurations in nnU-Net's order; others follow.
const CONFIGURATIONS: [&str; 4] = ["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"];

/// A trained model: its results folder is `TRAINER__PLANS__CONFIG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trained {
    /// Name of the trainer.
    pub trainer: String,
    /// Name of the plans.
    pub plans: String,
    /// Name of the configuration.
    pub configuration: String,
}

/// A model or an ensemble, scored.
#[derive(Debug)]
pub struct Candidate {
    /// nnU-Net's name for it.
    pub name: String,
    /// One model, or two.
    pub models: Vec<Trained>,
    /// Its predictions of all cases.
    pub folder: PathBuf,
    /// Mean Dice of the foreground.
    pub dice: f64,
}

impl Trained {
    fn folder_name(&self) -> String {
        format!("{}__{}__{}", self.trainer, self.plans, self.configuration)
    }

    fn of(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split("__").collect();
        let [trainer, plans, configuration] = parts[..] else { return None };
        let [trainer, plans, configuration] = [trainer, plans, configuration].map(str::to_owned);
        Some(Self { trainer, plans, configuration })
    }
}

/// Scores all candidates and writes how to predict with the best.
pub fn run(args: &FindBestArgs) -> anyhow::Result<()> {
    let models = models(args)?;
    let reference = match &args.reference {
        Some(reference) => reference.clone(),
        None => reference_of(&args.dataset)?,
    };
    interrupt::watch(args.quiet, "case")?;
    let search = Search { args, reference: &reference };
    let mut candidates = Vec::new();
    for model in &models {
        candidates.push(search.model(model)?);
    }
    if !args.disable_ensembling {
        for (index, first) in models.iter().enumerate() {
            for second in &models[index + 1..] {
                candidates.push(search.ensemble([first, second])?);
            }
        }
    }
    let best = best(&candidates)?;
    if !args.quiet {
        for Candidate { name, dice, .. } in &candidates {
            output::line(&format!("{dice:.6}  {name}"))?;
        }
        output::line(&format!("best: {}", best.name))?;
    }
    let described = Described::of(&best.folder, None, None)?;
    let question = Question {
        predictions: &best.folder,
        reference: &reference,
        layout: Layout::V2,
        keep: true,
        how: (args.num_threads, args.quiet),
    };
    let determined = question.answer(&described)?;
    if !args.quiet {
        tell(&determined, &described.dataset.labels)?;
    }
    let after = determined.after.foreground_dice();
    let written = instructions::write(args, &models, &candidates, (best, after))?;
    if args.quiet { Ok(()) } else { output::line(&written.display().to_string()) }
}

/// The first of those with the highest score: an ensemble has to be better than a model.
fn best(candidates: &[Candidate]) -> anyhow::Result<&Candidate> {
    let mut best: Option<&Candidate> = None;
    for candidate in candidates.iter().filter(|candidate| !candidate.dice.is_nan()) {
        if best.is_none_or(|best| candidate.dice > best.dice) {
            best = Some(candidate);
        }
    }
    best.context(
        "expected a mean Dice of the foreground, found none for any model: a class is in no labelmap at \
         all, neither in references nor in predictions",
    )
}

/// The models that take part, in nnU-Net's order: trainers, then configurations, then plans.
fn models(args: &FindBestArgs) -> anyhow::Result<Vec<Trained>> {
    let entries = std::fs::read_dir(&args.dataset)
        .with_context(|| format!("cannot read the folder {}", args.dataset.display()))?;
    let folders = entries.flatten().filter(|entry| entry.path().is_dir());
    let mut there: Vec<Trained> =
        folders.filter_map(|entry| Trained::of(entry.file_name().to_str()?)).collect();
    let place = |names: &[String], name: &str| match names.is_empty() {
        true => Some(0),
        false => names.iter().position(|other| other == name),
    };
    let order = |model: &Trained| {
        let known = CONFIGURATIONS.iter().position(|name| *name == model.configuration);
        Some((
            place(&args.trainers, &model.trainer)?,
            if args.trainers.is_empty() { model.trainer.clone() } else { String::new() },
            place(&args.configurations, &model.configuration)?,
            if args.configurations.is_empty() { known.unwrap_or(CONFIGURATIONS.len()) } else { 0 },
            model.configuration.clone(),
            place(&args.plans, &model.plans)?,
            model.plans.clone(),
        ))
    };
    there.retain(|model| order(model).is_some());
    there.sort_by_key(|model| order(model));
    for (option, names, of) in [
        ("--trainers", &args.trainers, (|m| &m.trainer) as fn(&Trained) -> &String),
        ("--configurations", &args.configurations, |m| &m.configuration),
        ("--plans", &args.plans, |m| &m.plans),
    ] {
        if let Some(name) = names.iter().find(|name| !there.iter().any(|model| of(model) == *name))
        {
            bail!(
                "{option}: expected a trained model, found none of {name}: {}",
                args.dataset.display()
            );
        }
    }
    ensure!(
        !there.is_empty(),
        "expected results folders named TRAINER__PLANS__CONFIG, found none: {}",
        args.dataset.display()
    );
    Ok(there)
}

struct Search<'a> {
    args: &'a FindBestArgs,
    reference: &'a Path,
}

impl Search<'_> {
    fn how(&self) -> (Option<usize>, bool) {
        (self.args.num_threads, self.args.quiet)
    }

    fn gathered<'b>(&'b self, results: &'b Path) -> Gathered<'b> {
        let (folds, reference) = (&self.args.folds[..], self.reference);
        Gathered { results, folds, reference, how: self.how() }
    }

    /// The validation of a model's folds.
    fn model(&self, model: &Trained) -> anyhow::Result<Candidate> {
        let results = self.args.dataset.join(model.folder_name());
        let folder = results.join(folder_name(&self.args.folds));
        let scores = self.gathered(&results).gather(&folder)?;
        let name = model.folder_name();
        Ok(Candidate { name, models: vec![model.clone()], folder, dice: scores.foreground_dice() })
    }

    /// The mean of two models' validations.
    fn ensemble(&self, models: [&Trained; 2]) -> anyhow::Result<Candidate> {
        let [first, second] = models.map(Trained::folder_name);
        let name = format!("ensemble___{first}___{second}___{}", joined(&self.args.folds));
        let folder = self.args.dataset.join("ensembles").join(&name);
        let results = [&first, &second].map(|name| self.args.dataset.join(name));
        let described = Described::of(&results[0], None, None)?;
        let members = [self.members(&results[0])?, self.members(&results[1])?];
        for (found, other, path) in
            [(&members[0], &members[1], &results[0]), (&members[1], &members[0], &results[1])]
        {
            if let Some(missing) = other.keys().find(|name| !found.contains_key(*name)) {
                bail!(
                    "expected the probabilities of the same cases of both models, found none of {missing}: \
                     {}",
                    path.display()
                );
            }
        }
        make_folder(&folder)?;
        let ending = &described.dataset.file_ending;
        let case = |(name, file): (&String, &PathBuf)| Ensembled {
            name: name.clone(),
            members: vec![file.clone(), members[1][name].clone()],
            target: folder.join(format!("{name}{ending}")),
        };
        let mut cases: Vec<Ensembled> = members[0].iter().map(case).collect();
        if self.args.no_overwrite {
            cases.retain(|case| !case.target.is_file());
        }
        average(&cases, &described, false, self.how())?;
        described.copy_to(&folder)?;
        let pairs = pairs(self.reference, &folder, Missing::Skip)?;
        let scores = count(self.args.num_threads, self.args.quiet, &pairs, &described.rules()?)?;
        scores.write_v2(&folder.join(SUMMARY))?;
        let models = models.map(Trained::clone).to_vec();
        Ok(Candidate { name, models, folder, dice: scores.foreground_dice() })
    }

    /// Stored probabilities of all folds of a model, by case.
    fn members(&self, results: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
        let gathered = self.gathered(results);
        let mut all = BTreeMap::new();
        for fold in &self.args.folds {
            let hint = "for ensembles, which --disable-ensembling leaves out";
            for (case, file) in members_of(&gathered.validation(*fold)?).context(hint)? {
                if let Some(other) = all.insert(case, file.clone()) {
                    bail!(
                        "expected every case in the validation of one fold, found it in two: {} and {}",
                        other.display(),
                        file.display()
                    );
                }
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, dice: f64) -> Candidate {
        Candidate { name: name.to_owned(), models: Vec::new(), folder: PathBuf::new(), dice }
    }

    #[test]
    fn the_first_of_equal_ones_is_best() {
        let check = |dice: &[f64], expected: Option<usize>| {
            let candidates: Vec<Candidate> =
                dice.iter().enumerate().map(|(i, dice)| candidate(&i.to_string(), *dice)).collect();
            let found = best(&candidates).ok().map(|best| best.name.clone());
            assert_eq!(found, expected.map(|i| i.to_string()), "{dice:?}");
        };
        check(&[0.5, 0.7, 0.7], Some(1));
        check(&[f64::NAN, 0.1], Some(1));
        check(&[f64::NAN], None);
    }
}
