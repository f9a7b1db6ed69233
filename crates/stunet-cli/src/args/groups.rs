//! The list of commands in `stunet --help`, by purpose.

use std::fmt::Write;

use clap::Command;

/// The commands of each purpose, in the order in which a project meets them.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "Predict",
        &[
            "predict",
            "preview",
            "ensemble",
            "postprocess",
            "clean",
            "map-labels",
            "statistics",
            "report",
        ],
    ),
    ("Train", &["import", "pictures", "plan", "preprocess", "train", "watch", "export"]),
    ("Evaluate", &["evaluate", "accumulate", "find-best"]),
    (
        "Models and devices",
        &["download", "models", "info", "labels", "convert", "install", "devices", "verify"],
    ),
    #[cfg(feature = "demo")]
    ("Without data of your own", &["demo", "phantom"]),
    ("Habits and shell", &["nnunet", "completions", "man", "help"]),
];

const TEMPLATE: &str = "{about}\n\n{usage-heading} {usage}{after-help}\n\nOptions:\n{options}";

/// `command` with its subcommands listed by purpose, which clap does not do by itself.
pub(super) fn grouped(command: Command) -> Command {
    let listed = list(&command);
    command.help_template(TEMPLATE).after_help(listed)
}

fn list(command: &Command) -> String {
    let widest = GROUPS.iter().flat_map(|(_, names)| names.iter()).map(|name| name.len()).max();
    let widest = widest.unwrap_or(0);
    let mut text = String::new();
    for (purpose, names) in GROUPS.iter().copied() {
        let space = if text.is_empty() { "" } else { "\n" };
        _ = writeln!(text, "{space}{purpose}:");
        for name in names {
            let found = command.find_subcommand(name).and_then(Command::get_about);
            let about = found.map_or_else(
                || "Print this message or the help of a command".to_owned(),
                ToString::to_string,
            );
            _ = writeln!(text, "  {name:widest$}  {about}");
        }
    }
    _ = write!(text, "\n`stunet COMMAND --help` explains the options of a command.");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::LowArgs;
    use clap::CommandFactory;

    #[test]
    fn every_command_has_one_purpose() {
        let command = LowArgs::command();
        let mut found: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
        found.push("help");
        let mut listed: Vec<_> =
            GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        found.sort_unstable();
        listed.sort_unstable();
        assert_eq!(found, listed);
        let long = list(&command).lines().filter(|line| line.len() > 80).count();
        assert_eq!(long, 0, "lines of a terminal of 80 columns");
    }
}
