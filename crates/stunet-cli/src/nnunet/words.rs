//! What the words of a line of nnU-Net mean.

use anyhow::{bail, ensure};

use super::tables::{Becomes, Command, Flag, Role, Values};

/// A line, word by word.
#[derive(Debug, Default)]
pub struct Line {
    /// What decides about the whole line, with its values.
    roles: Vec<(Role, Vec<String>)>,
    /// Words of this program, in their order.
    pub words: Vec<String>,
    /// What is different here.
    pub notes: Vec<String>,
}

impl Line {
    /// Reads a line by the table of its command.
    pub fn read(command: &Command, words: &[String]) -> anyhow::Result<Self> {
        let mut line = Self::default();
        let mut positional = command.positional.iter();
        let mut rest = words.iter().map(String::as_str).peekable();
        while let Some(word) = rest.next() {
            if !is_option(word) {
                let Some(role) = positional.next() else {
                    bail!("{}: expected an option, found {word:?}", command.name);
                };
                line.roles.push((*role, vec![word.to_owned()]));
                continue;
            }
            let (word, attached) = match word.split_once('=') {
                Some((word, value)) if word.starts_with("--") => (word, Some(value)),
                _ => (word, None),
            };
            let flag = flag(command, word)?;
            let mut values: Vec<String> = attached.map(str::to_owned).into_iter().collect();
            let most = match flag.1 {
                Values::None => 0,
                Values::One => 1,
                Values::Many => usize::MAX,
            };
            while values.len() < most
                && let Some(value) = rest.next_if(|word| !is_option(word))
            {
                values.push(value.to_owned());
            }
            ensure!(
                flag.1 == Values::None || !values.is_empty(),
                "{}: {word}: expected a value, found none",
                command.name
            );
            line.take(word, flag.2, values)?;
        }
        Ok(line)
    }

    fn take(&mut self, word: &str, becomes: Becomes, values: Vec<String>) -> anyhow::Result<()> {
        match becomes {
            Becomes::Option(name) => {
                self.words.push(name.to_owned());
                self.words.extend(values);
            }
            Becomes::Words(words) => self.words.extend(words.iter().map(|word| (*word).to_owned())),
            Becomes::Role(role) => self.roles.push((role, values)),
            Becomes::Nothing(why) => self.notes.push(format!("{word} is left out: {why}")),
            Becomes::Only(accepted, instead) => {
                let other = values.iter().find(|value| !accepted.contains(&value.as_str()));
                if let Some(other) = other {
                    bail!("{word} {other}: {instead}");
                }
            }
            Becomes::Refused(instead) => bail!("{word}: {instead}"),
        }
        Ok(())
    }

    /// The values of a role, the last where it stands twice.
    pub fn role(&self, role: Role) -> Option<&[String]> {
        let found = self.roles.iter().rev().find(|(known, _)| *known == role);
        found.map(|(_, values)| &values[..])
    }

    /// The one value of a role.
    pub fn one(&self, role: Role) -> Option<&str> {
        self.role(role)?.first().map(String::as_str)
    }

    /// As above, where nnU-Net needs it.
    pub fn needed(&self, role: Role, what: &str) -> anyhow::Result<&str> {
        match self.one(role) {
            Some(value) => Ok(value),
            None => bail!("expected {what}, found none"),
        }
    }
}

/// A word that begins with a dash and is no number.
fn is_option(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-') && word.parse::<f64>().is_err()
}

fn flag(command: &Command, word: &str) -> anyhow::Result<Flag> {
    let exact = command.flags.iter().find(|(names, ..)| names.contains(&word));
    if let Some(flag) = exact {
        return Ok(*flag);
    }
    // Python's argparse accepts the beginning of a long option, where it is the only one.
    let begins = |(names, ..): &&Flag| names.iter().any(|name| name.starts_with(word));
    let mut found = command.flags.iter().filter(begins);
    if let (true, Some(flag), None) = (word.starts_with("--"), found.next(), found.next()) {
        return Ok(*flag);
    }
    let known: Vec<_> =
        command.flags.iter().flat_map(|(names, ..)| names.iter().copied()).collect();
    bail!("{}: expected {}, found {word}", command.name, known.join(", "))
}
