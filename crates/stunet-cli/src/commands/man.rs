//! `stunet man`: manual pages of every command.

use std::io::Write;

use clap::Command;
use clap_mangen::Man;
use stunet::data::{DataError, files};

use crate::args::{self, ManArgs};
use crate::described::make_folder;
use crate::output;

/// Writes a page for the program, one for each command and one for each command of a command.
pub fn run(args: &ManArgs) -> anyhow::Result<()> {
    let folder = &args.folder;
    make_folder(folder)?;
    let mut command = args::command();
    command.build();
    let pages = pages(&command, "stunet")?;
    for (name, page) in &pages {
        files::write(&folder.join(name), |file| {
            file.write_all(page).map_err(|source| DataError::Io { action: "write", source })
        })?;
    }
    output::line(&format!("{} manual pages: {}", pages.len(), folder.display()))
}

fn pages(command: &Command, name: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut page = Vec::new();
    // Clap wants names that live as long as the program; these few do.
    let title: &'static str = name.to_owned().leak();
    Man::new(command.clone().name(title)).render(&mut page)?;
    let mut all = vec![(format!("{name}.1"), page)];
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        all.extend(pages(sub, &format!("{name}-{}", sub.get_name()))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let mut command = args::command();
        command.build();
        let pages = pages(&command, "stunet").unwrap();
        let page = |name: &str| {
            let found = pages.iter().find(|(file, _)| file == name).expect("a page");
            String::from_utf8(found.1.clone()).unwrap()
        };
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let page = page(&format!("stunet-{}.1", sub.get_name()));
            assert!(page.contains(".SH SYNOPSIS"), "{page}");
        }
        assert!(page("stunet-postprocess-apply.1").contains(".SH OPTIONS"));
        assert!(page("stunet.1").contains("stunet"));
    }
}
