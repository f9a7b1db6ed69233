//! Habits from nnU-Net that this program follows: a dataset by its number or name, options where words
//! are expected, and whole command lines.

use std::ffi::OsString;

use anyhow::anyhow;
use clap::error::{ContextKind, ContextValue};

use crate::args::{self, LowCommand, NnunetArgs, spell_out};
use crate::folders::{Home, Homes};
use crate::nnunet;
use crate::output;

/// nnU-Net's options for words: `-d 501 -c 3d_fullres -f 0` for `501 3d_fullres 0`.
const WORDS: [(&str, &[&str]); 5] = [
    ("pictures", &["-d"]),
    ("plan", &["-d"]),
    ("preprocess", &["-d", "-c"]),
    ("train", &["-d", "-c", "-f"]),
    ("find-best", &["-d"]),
];
/// nnU-Net's options that name a model of `predict`: dataset, configuration, trainer, plans.
const MODEL: [&str; 4] = ["-d", "-c", "-tr", "-p"];

/// The words of a command line, nnU-Net's options in them as this program has them.
///
/// # Errors
///
/// Where a dataset is named that is nowhere.
pub fn spelled(words: Vec<OsString>, homes: &Homes) -> anyhow::Result<Vec<OsString>> {
    let Some(command) = words.get(1).and_then(|word| word.to_str()).map(str::to_owned) else {
        return Ok(words);
    };
    if let Some((_, options)) = WORDS.iter().find(|(name, _)| *name == command) {
        return Ok(as_words(words, options));
    }
    if command == "predict" && words.iter().any(|word| word == "-d") {
        return with_model(words, homes);
    }
    Ok(words)
}

/// What to write instead of the word that clap does not know, where it is an option of nnU-Net's.
pub fn hint(error: &clap::Error, words: &[OsString]) -> Option<String> {
    let ContextValue::String(unknown) = error.get(ContextKind::InvalidArg)? else { return None };
    let command = words.get(1)?.to_str()?;
    let words = words.iter().filter_map(|word| word.to_str());
    // Of `-npp` clap names `-n` only.
    let mut found = words.filter(|word| {
        let spelled = spell_out((*word).into());
        spelled.to_str().is_some_and(|spelled| spelled.starts_with(unknown.as_str()))
    });
    found.find_map(|word| nnunet::hint(command, word.split('=').next().unwrap_or(word)))
}

/// Takes the options out; their values go where the first of them was, in the options' order.
fn as_words(words: Vec<OsString>, options: &[&str]) -> Vec<OsString> {
    let (found, mut rest, at) = taken(words, options);
    let values = options.iter().filter_map(|option| {
        found.iter().find(|(name, _)| name == option).map(|(_, value)| value.clone())
    });
    let values: Vec<_> = values.collect();
    rest.splice(at..at, values);
    rest
}

/// `-d`, `-c`, `-tr` and `-p` as the folder of the model.
fn with_model(words: Vec<OsString>, homes: &Homes) -> anyhow::Result<Vec<OsString>> {
    let (found, mut rest, _) = taken(words, &MODEL);
    let of = |option: &str| {
        let found = found.iter().find(|(name, _)| *name == option);
        found.map(|(_, value)| value.to_string_lossy().into_owned())
    };
    let dataset = of("-d").unwrap_or_default();
    let names = (
        of("-tr").unwrap_or_else(|| "nnUNetTrainer".to_owned()),
        of("-p").unwrap_or_else(|| "nnUNetPlans".to_owned()),
        of("-c").unwrap_or_else(|| "3d_fullres".to_owned()),
    );
    let model = nnunet::model_folder(homes, 2, &dataset, (&names.0, &names.1, &names.2))?;
    rest.extend(["--model".into(), model.into_os_string()]);
    Ok(rest)
}

type Found<'a> = Vec<(&'a str, OsString)>;

/// The options with their values, the other words, and where among them the first option was.
fn taken<'a>(words: Vec<OsString>, options: &[&'a str]) -> (Found<'a>, Vec<OsString>, usize) {
    let (mut found, mut rest, mut at) = (Vec::new(), Vec::new(), None);
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let option = options.iter().find(|option| word == **option);
        match (option, words.peek()) {
            (Some(option), Some(_)) => {
                at.get_or_insert(rest.len());
                found.extend(words.next().map(|value| (*option, value)));
            }
            _ => rest.push(word),
        }
    }
    let at = at.unwrap_or(rest.len());
    (found, rest, at)
}

/// The commands of a command line: one, or those that a line of nnU-Net means.
///
/// # Errors
///
/// Where the line cannot be translated, or standard output not be written.
pub fn commands(command: LowCommand) -> anyhow::Result<Vec<LowCommand>> {
    match command {
        LowCommand::Nnunet(args) => translated(&args),
        other => Ok(vec![other]),
    }
}

fn translated(args: &NnunetArgs) -> anyhow::Result<Vec<LowCommand>> {
    let translation = nnunet::translate(&args.words, &Homes::read())?;
    for command in &translation.commands {
        let words: Vec<_> = command.iter().map(|word| quoted(word)).collect();
        output::line(&format!("stunet {}", words.join(" ")))?;
    }
    for note in &translation.notes {
        output::line(&format!("note: {note}"))?;
    }
    let mut commands = Vec::new();
    for command in translation.commands.into_iter().filter(|_| !args.print) {
        let words = std::iter::once("stunet".to_owned()).chain(command);
        let parsed = args::parse(words.map(Into::into));
        commands.push(parsed.map_err(|error| anyhow!("{error}"))?.command);
    }
    Ok(commands)
}

/// A word as a shell needs it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// A command with its dataset found, and its trainer's name read.
///
/// # Errors
///
/// Where there is no such dataset, or are several.
pub fn resolved(command: LowCommand) -> anyhow::Result<LowCommand> {
    let homes = Homes::read();
    Ok(match command {
        LowCommand::Plan(mut args) => {
            args.dataset = homes.dataset(&args.dataset, &[Home::Raw])?;
            LowCommand::Plan(args)
        }
        LowCommand::Pictures(mut args) => {
            args.dataset = homes.dataset(&args.dataset, &[Home::Raw])?;
            LowCommand::Pictures(args)
        }
        LowCommand::Preprocess(mut args) => {
            args.dataset = homes.dataset(&args.dataset, &[Home::Preprocessed, Home::Raw])?;
            LowCommand::Preprocess(args)
        }
        LowCommand::Train(args) => {
            let mut args = args.with_trainer();
            args.dataset = homes.dataset(&args.dataset, &[Home::Preprocessed])?;
            LowCommand::Train(Box::new(args))
        }
        LowCommand::FindBest(mut args) => {
            args.dataset = homes.dataset(&args.dataset, &[Home::Results])?;
            LowCommand::FindBest(args)
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spell(line: &str) -> String {
        let words = line.split(' ').map(Into::into).collect();
        let found = spelled(words, &Homes::default()).unwrap();
        let found: Vec<_> = found.iter().map(|word| word.to_string_lossy()).collect();
        found.join(" ")
    }

    #[test]
    fn options_for_words() {
        let check = |line: &str, expected: &str| assert_eq!(spell(line), expected);
        check("stunet plan -d 501 --rules v1", "stunet plan 501 --rules v1");
        check(
            "stunet train -f 0 -c 3d_fullres -d 501 --npz",
            "stunet train 501 3d_fullres 0 --npz",
        );
        check("stunet train 501 -c 3d_fullres -f all", "stunet train 501 3d_fullres all");
        check("stunet train D 3d_fullres 0", "stunet train D 3d_fullres 0");
        check("stunet preprocess -c 3d_lowres -d 7", "stunet preprocess 7 3d_lowres");
        check("stunet predict -i a -o b -m c -f 0", "stunet predict -i a -o b -m c -f 0");
        check("stunet evaluate a b -d", "stunet evaluate a b -d");
        check("stunet", "stunet");
    }

    #[test]
    fn names_of_a_model() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().canonicalize().unwrap();
        std::fs::create_dir(home.join("Dataset007_X")).unwrap();
        let homes = Homes::of(|name| (name == "nnUNet_results").then(|| home.clone()));
        let line = "stunet predict -i a -d 7 -tr T -o b -c 3d_lowres";
        let found = spelled(line.split(' ').map(Into::into).collect(), &homes).unwrap();
        let model = home.join("Dataset007_X/T__nnUNetPlans__3d_lowres").into_os_string();
        let expected: Vec<OsString> =
            ["stunet", "predict", "-i", "a", "-o", "b", "--model"].map(Into::into).to_vec();
        assert_eq!(found, [expected, vec![model]].concat());
    }

    #[test]
    fn words_for_a_shell() {
        assert_eq!(quoted("a/b_0.7"), "a/b_0.7");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
