//! Options of nnU-Net in a line of this program's own: what to write instead.

use super::tables::{Becomes, COMMANDS, Role};

/// This program's commands, each with those of nnU-Net whose options people write there.
const COMMANDS_OF: [(&str, &[&str]); 8] = [
    ("predict", &["predict"]),
    ("train", &["train"]),
    ("plan", &["plan_and_preprocess", "plan_experiment"]),
    ("preprocess", &["preprocess", "plan_and_preprocess"]),
    ("evaluate", &["evaluate_folder", "evaluate_simple"]),
    ("ensemble", &["ensemble"]),
    ("find-best", &["find_best_configuration"]),
    ("accumulate", &["accumulate_crossval_results"]),
];

/// What to write instead of an option that a command does not know, where it is one of nnU-Net's.
pub fn hint(command: &str, option: &str) -> Option<String> {
    let (_, names) = COMMANDS_OF.into_iter().find(|(name, _)| *name == command)?;
    // Version 2 comes first.
    let tables = COMMANDS.iter().filter(|of| names.contains(&of.name));
    let flags = tables.flat_map(|of| of.flags.iter());
    let (_, _, becomes) = flags.into_iter().find(|(names, ..)| names.contains(&option))?;
    let instead = match becomes {
        Becomes::Option(name) => format!("write {name}"),
        Becomes::Words(words) => format!("write {}", words.join(" ")),
        Becomes::Role(Role::Continue) if command == "predict" => {
            "leave it out: cases that are there are kept".to_owned()
        }
        Becomes::Role(Role::Continue) => "write --continue".to_owned(),
        Becomes::Role(_) => {
            "write the whole line of nnU-Net behind `stunet nnunet`, which translates it".to_owned()
        }
        Becomes::Nothing(why) => format!("leave it out: {why}"),
        Becomes::Only(_, what) | Becomes::Refused(what) => (*what).to_owned(),
    };
    Some(format!("{option} is an option of nnU-Net's; {instead}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_write() {
        let check = |command: &str, option: &str, expected: &str| {
            let found = hint(command, option);
            let found = found.unwrap_or_default();
            assert!(found.contains(expected), "{option}: {found}");
        };
        check("predict", "-npp", "leave it out: reading, the network and writing");
        check("predict", "--continue_prediction", "leave it out: cases that are there are kept");
        check("predict", "-prev_stage_predictions", "the second stage of a cascade");
        check("predict", "--verbose", "--quiet leaves it out");
        check("train", "--c", "write --continue");
        assert_eq!(hint("predict", "--nonsense"), None);
        assert_eq!(hint("demo", "-npp"), None);
    }

    /// Every name above is a command of nnU-Net's.
    #[test]
    fn commands_are_known() {
        for name in COMMANDS_OF.into_iter().flat_map(|(_, names)| names) {
            assert!(COMMANDS.iter().any(|command| command.name == *name), "{name}");
        }
    }
}
