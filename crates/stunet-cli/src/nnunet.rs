//! Command lines of nnU-Net 1 and 2, translated to those of this program.
//!
//! Each of nnU-Net's commands has a table of its options ([`tables`]): what becomes of each, or what to do
//! instead. What the words of a line mean is gathered first ([`words`]), and written anew then.

mod hints;
mod rewrite;
mod tables;
mod words;

use std::ffi::OsString;

use anyhow::bail;

use crate::folders::Homes;
pub use hints::hint;
pub use rewrite::model_folder;
use rewrite::rewrite;
use words::Line;

/// What a command line of nnU-Net means here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// Command lines without the program's name, to be run one after the other.
    pub commands: Vec<Vec<String>>,
    /// What is different here.
    pub notes: Vec<String>,
}

/// Translates `nnUNetv2_predict -i ...`; the command's prefix may be left out.
///
/// # Errors
///
/// Where nnU-Net would not accept the line, and where it asks for what this program does not do.
pub fn translate(words: &[OsString], homes: &Homes) -> anyhow::Result<Translation> {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    // `CUDA_VISIBLE_DEVICES=0 nnUNetv2_train ...`, as documents have it.
    let variables = words.iter().take_while(|word| is_assignment(word)).count();
    let python = |word: &String| matches!(word.as_str(), "python" | "python3");
    let skipped = variables + words[variables..].iter().take_while(|word| python(word)).count();
    let Some((name, rest)) = words[skipped..].split_first() else {
        bail!(
            "expected a command line of nnU-Net, such as nnUNetv2_predict -i IN -o OUT -d 1 -c 3d_fullres"
        );
    };
    let command = tables::find(name)?;
    let mut line = Line::read(command, rest)?;
    for word in &words[..variables] {
        line.notes.push(format!("{word}: set it for this program, too, if it is meant"));
    }
    rewrite(command, line, homes)
}

fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests;
