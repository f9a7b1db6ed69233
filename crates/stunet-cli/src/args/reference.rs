//! `docs/reference/cli.md`, rendered from the command line's own description.

use std::fmt::Write;
use std::path::Path;

use clap::builder::StyledStr;
use clap::{Arg, Command};

const HEAD: &str = "\
# Command line

<!-- Generated: STUNET_WRITE_DOCS=1 cargo test --release --locked --bin stunet reference -->

`stunet COMMAND --help` prints the same text. Options follow nnU-Net's where they mean the same, and its
spellings `-chk`, `-djfile`, `-pfile`, `-il` and `-np` are accepted.

| Exit status | Meaning |
|---|---|
| 0 | done |
| 1 | an error, or at least one case failed; every error is one line on standard error |
| 2 | wrong command line |
| 130 | interrupted by Ctrl-C or SIGTERM; no incomplete file is left under a final name |
";

fn text(styled: Option<&StyledStr>) -> String {
    styled.map(ToString::to_string).unwrap_or_default()
}

/// `-i, --input <IN>...`, as in clap's help.
fn spelling(arg: &Arg) -> String {
    let shown = arg.to_string();
    match (arg.get_short(), arg.is_positional()) {
        (Some(short), false) => format!("-{short}, {shown}"),
        _ => shown,
    }
}

fn describe(page: &mut String, arg: &Arg) {
    let help = text(arg.get_help()).replace('\n', " ");
    let values = arg.get_possible_values();
    let named = values.iter().filter(|value| value.get_help().is_some()).collect::<Vec<_>>();
    let default = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    let default = default.collect::<Vec<_>>().join(" ");
    let required = if arg.is_required_set() { " (required)" } else { "" };
    let default = match default.as_str() {
        "" | "false" => String::new(),
        value => format!(" [default: `{value}`]"),
    };
    writeln!(page, "- `{}`{required}: {help}{default}", spelling(arg)).unwrap();
    for value in named {
        writeln!(page, "  - `{}`: {}", value.get_name(), text(value.get_help())).unwrap();
    }
}

/// The text below the options: prose, then examples as blocks that `scripts/check-docs` runs.
fn after(page: &mut String, help: &str) {
    let (prose, examples) = help.split_once("Examples:\n").unwrap_or((help, ""));
    let (examples, rest) = examples.split_once("\n\n").unwrap_or((examples, ""));
    for prose in [prose, rest] {
        if !prose.trim().is_empty() {
            writeln!(page, "\n{}", prose.trim()).unwrap();
        }
    }
    if !examples.is_empty() {
        let lines: Vec<_> = examples.lines().map(str::trim).collect();
        for block in lines.chunk_by(|a, b| not_run(a) == not_run(b)) {
            let mark = not_run(block[0]).map_or(String::new(), |why| format!(",not-run {why}"));
            let lines = block.iter().map(|line| format!("$ {line}\n"));
            writeln!(page, "\n```console{mark}\n{}```", lines.collect::<String>()).unwrap();
        }
    }
}

/// Why scripts/check-docs cannot run an example.
fn not_run(example: &str) -> Option<&'static str> {
    let reasons = [
        ("nnunet nnUNetv2_", "needs the folders of nnU-Net's variables"),
        ("stunet download", "needs a network"),
        (" -m base\n", "needs the published weights"),
        ("mr_0000", "needs an MR of two channels"),
        ("--truth labels.nii.gz", "needs a prediction and its truth"),
        ("stunet completions", "writes to the folders of your shell"),
        ("stunet man", "writes to the folders of your shell"),
        ("stunet import", "needs a download of the Medical Segmentation Decathlon"),
        ("stunet train", "trains for 1000 epochs"),
        ("stunet map-labels", "needs labelmaps with the labels of the map"),
        ("stunet report", "needs the reports of several parts"),
        ("dicom_folder", "needs an export from a scanner or an archive"),
        ("stunet find-best", "needs the validation of five folds"),
        ("stunet verify --device", "needs the device that it names"),
    ];
    let example = format!("{example}\n");
    reasons.into_iter().find(|(part, _)| example.contains(part)).map(|(_, reason)| reason)
}

fn section(page: &mut String, command: &mut Command, parent: &str) {
    let name = format!("{parent} {}", command.get_name());
    let usage = command.render_usage().to_string().replace("Usage: ", "");
    writeln!(page, "\n## {name}\n\n{}.\n", text(command.get_about())).unwrap();
    writeln!(page, "```text\n{}\n```\n", usage.trim()).unwrap();
    let all: Vec<_> = command.get_arguments().filter(|arg| arg.get_id() != "help").collect();
    let mut headings = vec![None];
    for heading in all.iter().map(|arg| arg.get_help_heading()) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        if let Some(heading) = heading {
            writeln!(page, "\n**{heading}**\n").unwrap();
        }
        for arg in all.iter().filter(|arg| arg.get_help_heading() == heading) {
            describe(page, arg);
        }
    }
    after(page, &text(command.get_after_help()));
    // Commands of a command, such as `postprocess apply`.
    let subs = command.get_subcommands_mut().filter(|sub| sub.get_name() != "help");
    for sub in subs {
        section(page, sub, &name);
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut command = super::command().term_width(100);
    command.build();
    for command in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        section(&mut page, command, "stunet");
    }
    page
}

/// Written anew with `STUNET_WRITE_DOCS=1`.
#[test]
fn the_page_is_the_command_line() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    if std::env::var_os("STUNET_WRITE_DOCS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/reference/cli.md is out of date; write it with \
         STUNET_WRITE_DOCS=1 cargo test --release --locked --bin stunet reference"
    );
}
