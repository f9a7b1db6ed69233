//! From what a line means to command lines of this program.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail, ensure};

use super::Translation;
use super::tables::{Command, Role, Which};
use super::words::Line;
use crate::args::Trainer;
use crate::folders::{Home, Homes};

/// nnU-Net's default configuration, and the one that is planned here at least.
const FULLRES: &str = "3d_fullres";

/// Writes a line anew.
pub fn rewrite(command: &Command, line: Line, homes: &Homes) -> anyhow::Result<Translation> {
    match command.which {
        Which::As(words) => as_it_is(words, command, line),
        Which::Predict => predict(command, line, homes),
        Which::PredictFolder => {
            ensure!(line.words.iter().any(|word| word == "--model"), "expected -m, found none");
            predict_with(line, None, true)
        }
        Which::Train => train(command, line),
        Which::PlanAndPreprocess => {
            let also = line.role(Role::PlanOnly).is_none();
            plan(command, line, (true, also))
        }
        Which::Plan => plan(command, line, (true, false)),
        Which::Preprocess => plan(command, line, (false, true)),
        Which::FindBest => find_best(line),
        Which::Accumulate => accumulate(line, homes),
        Which::Export => export(line, homes),
        Which::Import => import(line, homes),
        Which::Pictures => pictures(line),
        Which::Instead(what) => bail!("{what}"),
    }
}

fn done(commands: Vec<Vec<String>>, line: Line) -> Translation {
    Translation { commands, notes: line.notes }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn as_it_is(words: &[&str], command: &Command, line: Line) -> anyhow::Result<Translation> {
    let mut all = owned(words);
    // References and predictions, as words in version 2 and as options in version 1.
    for (role, what) in [(Role::First, "two folders, or a file"), (Role::Second, "two folders")] {
        let takes = command.positional.contains(&role) || words[0] == "evaluate";
        if takes {
            all.push(line.needed(role, what)?.to_owned());
        }
    }
    all.extend(line.words.iter().cloned());
    Ok(done(vec![all], line))
}

/// The folder of a trained model, by nnU-Net's names for it.
pub fn model_folder(
    homes: &Homes,
    version: u8,
    dataset: &str,
    (trainer, plans, configuration): (&str, &str, &str),
) -> anyhow::Result<PathBuf> {
    if version == 1 {
        let folders: Vec<PathBuf> =
            homes.each(Home::Results).map(|home| home.join(configuration)).collect();
        let found = Homes::dataset_in(Path::new(dataset), Home::Results, &folders)?;
        return Ok(found.join(format!("{trainer}__{plans}")));
    }
    let found = homes.dataset(Path::new(dataset), &[Home::Results])?;
    Ok(found.join(format!("{trainer}__{plans}__{configuration}")))
}

fn predict(command: &Command, line: Line, homes: &Homes) -> anyhow::Result<Translation> {
    let dataset = line.needed(Role::Dataset, "the dataset: -d, in nnU-Net 1 -t")?;
    let (trainer, plans) = match command.version {
        1 => ("nnUNetTrainerV2", "nnUNetPlansv2.1"),
        _ => ("nnUNetTrainer", "nnUNetPlans"),
    };
    let configuration = match (command.version, line.one(Role::Configuration)) {
        (_, Some(given)) => given,
        (1, None) => FULLRES,
        (_, None) => bail!("expected the configuration: -c, found none"),
    };
    check_configuration(configuration)?;
    let names = (
        line.one(Role::Trainer).unwrap_or(trainer),
        line.one(Role::Plans).unwrap_or(plans),
        configuration,
    );
    let model = model_folder(homes, command.version, dataset, names)?;
    predict_with(line, Some(model), command.version == 2)
}

fn predict_with(
    line: Line,
    model: Option<PathBuf>,
    overwrites: bool,
) -> anyhow::Result<Translation> {
    let mut all = owned(&["predict"]);
    all.extend(line.words.iter().cloned());
    if let Some(model) = model {
        all.extend(["--model".to_owned(), model.display().to_string()]);
    }
    if overwrites && line.role(Role::Continue).is_none() {
        // nnU-Net 2 predicts again what is there, unless it is told to go on.
        all.push("--overwrite".to_owned());
    }
    all.extend(device(&line)?);
    Ok(done(vec![all], line))
}

/// `--device`, by nnU-Net's name for one or a number of GPUs.
fn device(line: &Line) -> anyhow::Result<Vec<String>> {
    let count = line.one(Role::Gpus).map_or(Ok(1), str::parse::<usize>);
    let Ok(count @ 1..) = count else { bail!("-num_gpus: expected a number of at least 1") };
    let device = match line.one(Role::Device) {
        None if count == 1 => return Ok(Vec::new()),
        None | Some("cuda") if count > 1 => {
            let all: Vec<_> = (0..count).map(|index| format!("cuda:{index}")).collect();
            all.join(",")
        }
        Some("mps") => "metal".to_owned(),
        Some(device @ ("cpu" | "cuda")) => device.to_owned(),
        Some(other) => bail!("-device: expected cpu, cuda or mps, found {other:?}"),
        None => return Ok(Vec::new()),
    };
    Ok(vec!["--device".to_owned(), device])
}

/// Fails for what this program has no networks for.
fn check_configuration(name: &str) -> anyhow::Result<()> {
    match name {
        "2d" => {
            bail!("2d: networks for slices are not computed here; take 3d_fullres or 3d_lowres")
        }
        "3d_cascade_fullres" => {
            bail!("{name}: the second stage of a cascade is not computed here; take 3d_fullres")
        }
        _ => Ok(()),
    }
}

fn train(command: &Command, mut line: Line) -> anyhow::Result<Translation> {
    let dataset = match command.version {
        1 => line.needed(Role::Task, "the task")?,
        _ => line.needed(Role::Dataset, "the dataset")?,
    };
    let configuration = line.needed(Role::Configuration, "the configuration")?;
    check_configuration(configuration)?;
    let fold = line.needed(Role::Fold, "the fold: 0 to 4, or all")?;
    let mut all = owned(&["train", dataset, configuration, fold]);
    let trainer = line.one(Role::Trainer).unwrap_or("nnUNetTrainer").to_owned();
    all.extend(["--trainer".to_owned(), trainer.clone()]);
    all.extend(line.words.iter().cloned());
    all.extend(device(&line)?);
    let parsed: Trainer = trainer.parse().map_err(|reason| anyhow!("-tr: {reason}"))?;
    if parsed.size.is_none() {
        line.notes.push(format!(
            "{trainer}: the network is STU-Net small, or of the size of the pre-trained weights, not \
             nnU-Net's own; -tr STUNetTrainer_base, _large or _huge trains another size"
        ));
    }
    Ok(done(vec![all], line))
}

fn plan(
    command: &Command,
    mut line: Line,
    (plans, prepares): (bool, bool),
) -> anyhow::Result<Translation> {
    line.needed(Role::Dataset, "the datasets: -d, in nnU-Net 1 -t")?;
    let datasets = line.role(Role::Dataset).unwrap_or_default().to_vec();
    let name = value_after(&line.words, if plans { "--plans-name" } else { "--plans" });
    let mut configurations = match line.role(Role::Configuration) {
        Some(given) => given.to_vec(),
        None => owned(&["2d", FULLRES]),
    };
    let before = configurations.len();
    configurations.retain(|name| name != "2d" && name != "3d_cascade_fullres");
    if prepares && before > configurations.len() {
        let note = "2d and 3d_cascade_fullres are left out: networks for slices and second stages of \
                    cascades are not trained here";
        line.notes.push(note.to_owned());
    }
    ensure!(
        !prepares || !configurations.is_empty(),
        "-c: expected 3d_fullres or 3d_lowres, found others only"
    );
    // One number, or one for each configuration.
    let workers = line.role(Role::Threads).unwrap_or_default().to_vec();
    if !prepares && !workers.is_empty() {
        line.notes.push("-np is left out: all processors measure".to_owned());
    }
    let mut commands = Vec::new();
    for dataset in &datasets {
        if plans {
            let mut all = owned(&["plan", dataset]);
            if command.version == 1 {
                all.extend(owned(&["--rules", "v1"]));
            }
            all.extend(line.words.iter().cloned());
            commands.push(all);
        }
        for (index, configuration) in configurations.iter().enumerate().filter(|_| prepares) {
            let mut all = owned(&["preprocess", dataset, configuration]);
            let named = name.iter().flat_map(|name| ["--plans", name]);
            let workers = workers.get(index).or(workers.first());
            let workers = workers.into_iter().flat_map(|count| ["--num-workers", count]);
            all.extend(named.chain(workers).map(str::to_owned));
            commands.push(all);
        }
    }
    Ok(done(commands, line))
}

fn value_after(words: &[String], option: &str) -> Option<String> {
    let at = words.iter().position(|word| word == option)?;
    words.get(at + 1).cloned()
}

fn find_best(mut line: Line) -> anyhow::Result<Translation> {
    let dataset = line.needed(Role::Dataset, "the dataset")?;
    let mut all = owned(&["find-best", dataset]);
    all.extend(line.words.iter().cloned());
    for (option, default) in [("--trainers", "-tr"), ("--plans", "-p"), ("--configurations", "-c")]
    {
        if !line.words.iter().any(|word| word == option) {
            let note =
                format!("without {default}, every model in the dataset's results takes part");
            line.notes.push(note);
        }
    }
    Ok(done(vec![all], line))
}

fn pictures(line: Line) -> anyhow::Result<Translation> {
    let mut all = owned(&["pictures", line.needed(Role::Dataset, "the dataset: -d")?]);
    all.extend(line.words.iter().cloned());
    // nnU-Net draws again what is there.
    all.push("--overwrite".to_owned());
    Ok(done(vec![all], line))
}

fn import(line: Line, homes: &Homes) -> anyhow::Result<Translation> {
    let mut all = owned(&["import", line.needed(Role::First, "the folder of the dataset")?]);
    all.extend(line.words.iter().cloned());
    // A name that is to lie with the others.
    if let Some(name) = line.one(Role::Second) {
        let Some(home) = homes.each(Home::Raw).next() else {
            bail!(
                "expected the variable nnUNet_raw set to the folder of the datasets, found it unset"
            );
        };
        all.extend(["--output".to_owned(), home.join(name).display().to_string()]);
    }
    Ok(done(vec![all], line))
}

/// One configuration; nnU-Net's default is every one of four.
fn export(mut line: Line, homes: &Homes) -> anyhow::Result<Translation> {
    let dataset = line.needed(Role::Dataset, "the dataset: -d")?;
    let out = line.needed(Role::Second, "the zip file: -o")?.to_owned();
    let configuration = match line.role(Role::Configuration) {
        Some([one]) => one.as_str(),
        None => FULLRES,
        Some(_) => bail!("-c: expected one configuration, as one goes into a zip file here"),
    };
    let names = (
        line.one(Role::Trainer).unwrap_or("nnUNetTrainer"),
        line.one(Role::Plans).unwrap_or("nnUNetPlans"),
        configuration,
    );
    let results = model_folder(homes, 2, dataset, names)?;
    let mut all = owned(&["export"]);
    all.extend([results.display().to_string(), out]);
    all.extend(line.words.iter().cloned());
    if line.role(Role::Configuration).is_none() {
        line.notes.push("without -c, 3d_fullres is exported".to_owned());
    }
    Ok(done(vec![all], line))
}

fn accumulate(line: Line, homes: &Homes) -> anyhow::Result<Translation> {
    let dataset = line.needed(Role::Dataset, "the dataset")?;
    let names = (
        line.one(Role::Trainer).unwrap_or("nnUNetTrainer"),
        line.one(Role::Plans).unwrap_or("nnUNetPlans"),
        line.one(Role::Configuration).unwrap_or(FULLRES),
    );
    let results = model_folder(homes, 2, dataset, names)?;
    let mut all = owned(&["accumulate"]);
    all.push(results.display().to_string());
    all.extend(line.words.iter().cloned());
    Ok(done(vec![all], line))
}
