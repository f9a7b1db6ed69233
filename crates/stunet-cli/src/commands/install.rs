//! `stunet install`: trained models from a zip file of nnU-Net's into the folder of results.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, ensure};
use stunet::data::{DataError, files};
use zip::ZipArchive;
use zip::read::ZipFile;

use crate::args::InstallArgs;
use crate::described::make_folder;
use crate::failure::Interrupted;
use crate::folders::Homes;
use crate::interrupt;
use crate::output;

/// What makes a folder a model, by version of nnU-Net.
const PLANS: [(u8, &str); 2] = [(2, "plans.json"), (1, "plans.pkl")];
/// Weights and pictures do not shrink; what shrinks more than this is no model.
const MOST_SHRUNK: u64 = 200;

/// Unpacks what is in the archive, descriptions last: what is cut off is no model.
pub fn run(args: &InstallArgs) -> anyhow::Result<()> {
    let shown = args.archive.display();
    let file = files::open(&args.archive)?;
    let bytes = file.metadata().with_context(|| shown.to_string())?.len();
    let mut archive = ZipArchive::new(BufReader::new(file))
        .map_err(|error| anyhow::anyhow!("expected a zip file, found {error}: {shown}"))?;
    let Contents { names, models, version } = Contents::of(&mut archive, bytes)
        .with_context(|| format!("a zip file of trained models: {shown}"))?;
    let root = match &args.output {
        Some(root) => root.clone(),
        None => Homes::read().of_results(version).with_context(|| {
            let variable = if version == 1 { "RESULTS_FOLDER" } else { "nnUNet_results" };
            format!("expected --output, or the variable {variable}, found neither")
        })?,
    };
    for model in &models {
        let path = root.join(model);
        ensure!(
            args.overwrite || !path.exists(),
            "expected no model of this name, found one; --overwrite replaces its files: {}",
            path.display()
        );
    }
    interrupt::watch(args.quiet, "file")?;
    for (index, name) in names {
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        let mut entry = archive.by_index(index)?;
        unpack(&mut entry, &root.join(&name)).with_context(|| name.display().to_string())?;
    }
    for model in models.iter().filter(|_| !args.quiet) {
        output::line(&format!("model: {}", root.join(model).display()))?;
    }
    Ok(())
}

/// What is in an archive.
struct Contents {
    /// Files and their places in the archive, those that make a model last.
    names: Vec<(usize, PathBuf)>,
    /// Folders of models.
    models: Vec<PathBuf>,
    /// The version of nnU-Net that made them.
    version: u8,
}

impl Contents {
    fn of(archive: &mut ZipArchive<BufReader<File>>, bytes: u64) -> anyhow::Result<Self> {
        let (mut names, mut models, mut version, mut whole) = (Vec::new(), Vec::new(), 2, 0u64);
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index)?;
            let shown = output::shown(&entry.name()?).into_owned();
            let name = PathBuf::from(entry.name()?.as_ref());
            // A backslash or a drive is a way out on other systems.
            let inside = name.components().all(|part| matches!(part, Component::Normal(_)));
            ensure!(
                inside && !shown.contains(['\\', ':']),
                "expected names within the folder, found {shown}"
            );
            if entry.is_dir() {
                continue;
            }
            ensure!(!entry.is_symlink(), "expected files, found a link: {shown}");
            whole = whole.saturating_add(entry.size());
            let found = PLANS.into_iter().find(|(_, plans)| name.ends_with(plans));
            if let (Some((of, _)), Some(folder)) = (found, name.parent()) {
                version = of;
                models.push(folder.to_owned());
            }
            names.push((index, name));
        }
        ensure!(
            !models.is_empty(),
            "expected DATASET/TRAINER__PLANS__CONFIGURATION/plans.json, or plans.pkl of nnU-Net 1, found \
             neither among {} files",
            names.len()
        );
        ensure!(
            whole <= bytes.saturating_mul(MOST_SHRUNK),
            "expected at most {MOST_SHRUNK} times its own {} bytes, found {whole}",
            bytes
        );
        names.sort_by_key(|(_, name)| is_description(name));
        Ok(Self { names, models, version })
    }
}

fn is_description(name: &Path) -> bool {
    PLANS.into_iter().any(|(_, plans)| name.ends_with(plans)) || name.ends_with("dataset.json")
}

fn unpack<R: Read>(entry: &mut ZipFile<'_, R>, to: &Path) -> anyhow::Result<()> {
    if let Some(folder) = to.parent() {
        make_folder(folder)?;
    }
    let size = entry.size();
    files::sweep([to]);
    Ok(files::write(to, |file| {
        // The checksum is compared at the end; nothing longer than was said is written.
        let read = |source| DataError::Io { action: "read", source };
        let mut piece = vec![0; 1 << 20];
        let mut written = 0u64;
        loop {
            let length = entry.read(&mut piece).map_err(read)?;
            if length == 0 {
                return Ok(());
            }
            written += length as u64;
            if written > size {
                return Err(read(std::io::Error::other("a file is longer than the archive says")));
            }
            let write = |source| DataError::Io { action: "write", source };
            file.write_all(&piece[..length]).map_err(write)?;
        }
    })?)
}
