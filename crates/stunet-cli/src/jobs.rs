//! Which cases are predicted, and what each is written as.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use stunet::data::dataset::{Case, list_cases};
use stunet::data::files;

use crate::args::{Mode, PredictArgs};
use crate::parts::{self, Environment};

/// Endings that promise a file of another format, not a folder.
const OTHER_FORMATS: [&str; 10] =
    ["dcm", "gipl", "gz", "hdr", "img", "json", "mha", "mhd", "nrrd", "npz"];

/// One case on its way to a labelmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its name and channel files.
    pub case: Case,
    /// The labelmap.
    pub output: PathBuf,
}

impl Job {
    /// Where its probabilities go: beside the labelmap.
    pub fn probabilities(&self, ending: &str) -> PathBuf {
        let name = self.output.file_name().unwrap_or_default().to_string_lossy();
        let stem = name.strip_suffix(".nii.gz").or_else(|| name.strip_suffix(".nii"));
        self.output.with_file_name(format!("{}.{ending}", stem.unwrap_or(&name)))
    }

    /// Where its confidence goes: under the same name, in a folder beside the labelmap, where nobody
    /// takes it for another case.
    pub fn confidence(&self) -> PathBuf {
        let folder = self.output.parent().unwrap_or(Path::new(""));
        folder.join("confidence").join(self.output.file_name().unwrap_or_default())
    }
}

/// The jobs that the arguments mean, sorted by case, this part's only.
pub fn jobs(args: &PredictArgs, environment: &Environment) -> anyhow::Result<Vec<Job>> {
    for (option, given) in [
        ("--save-probabilities", args.save_probabilities.is_some()),
        ("--confidence", args.confidence.is_some()),
    ] {
        ensure!(
            !given || args.mode == Mode::Normal,
            "{option}: expected --mode normal; the others have none at the image's resolution"
        );
    }
    let folder = matches!(args.input.as_slice(), [folder] if folder.is_dir());
    let part = parts::part(args.num_parts, args.part_id, folder, environment)?;
    let all = match args.input.as_slice() {
        [folder] if folder.is_dir() => jobs_of_folder(folder, &args.output)?,
        files => vec![job_of_files(files, &args.output)?],
    };
    Ok(all.into_iter().skip(part.id).step_by(part.of).collect())
}

/// Removes what a killed run of the same cases left in their folder under temporary names.
///
/// Other parts may be at work there: only files of these jobs are touched.
pub fn remove_leftovers(jobs: &[Job]) {
    let outputs: Vec<_> = jobs
        .iter()
        .flat_map(|job| {
            let probabilities = ["npz", "zarr.zip"].map(|ending| job.probabilities(ending));
            [job.output.clone(), job.confidence()].into_iter().chain(probabilities)
        })
        .collect();
    files::sweep(outputs.iter().map(PathBuf::as_path));
}

fn jobs_of_folder(folder: &Path, output: &Path) -> anyhow::Result<Vec<Job>> {
    ensure!(
        !is_nifti(output) && !output.is_file(),
        "--output: expected a folder, as the input is one, found a file: {}",
        output.display()
    );
    refuse_other_formats(output)?;
    let job = |case: Case| Job { output: output.join(format!("{}.nii.gz", case.name)), case };
    Ok(list_cases(folder)?.into_iter().map(job).collect())
}

fn job_of_files(files: &[PathBuf], output: &Path) -> anyhow::Result<Job> {
    for file in files {
        match fs::metadata(file) {
            Ok(found) if found.is_dir() => bail!(
                "--input: expected the files of one case or a single folder, found a folder among {}: {}",
                files.len(),
                file.display()
            ),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("no such file or folder: {}", file.display())
            }
            Err(error) => bail!("cannot read: {error}: {}", file.display()),
        }
    }
    let case = Case::from_files(files)?;
    ensure!(
        !case.name.is_empty(),
        "--input: expected a name that ends in .nii or .nii.gz: {}",
        files[0].display()
    );
    let output = if is_nifti(output) && !output.is_dir() {
        output.to_owned()
    } else {
        refuse_other_formats(output)?;
        output.join(format!("{}.nii.gz", case.name))
    };
    let place = output.canonicalize().ok();
    if let Some(file) =
        files.iter().find(|file| place.is_some() && file.canonicalize().ok() == place)
    {
        bail!("--output: would overwrite the input: {}", file.display());
    }
    Ok(Job { case, output })
}

fn refuse_other_formats(output: &Path) -> anyhow::Result<()> {
    let ending = output.extension().unwrap_or_default().to_ascii_lowercase();
    ensure!(
        output.is_dir() || !OTHER_FORMATS.into_iter().any(|other| ending == other),
        "--output: expected .nii, .nii.gz or a folder, found .{}: {}",
        ending.display(),
        output.display()
    );
    Ok(())
}

fn is_nifti(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".nii") || name.ends_with(".nii.gz")
}

/// Fails now where a file could not be written later: no rights, no space, no folder.
///
/// Tries in the nearest folder that exists and leaves nothing behind.
pub fn check_writable(file: &Path) -> anyhow::Result<()> {
    /// Enough to notice a full disk, little enough to be free.
    const TRIAL_BYTES: usize = 64 << 10;
    let mut folder = file.parent().unwrap_or(Path::new(""));
    while !folder.as_os_str().is_empty() && fs::symlink_metadata(folder).is_err() {
        folder = folder.parent().unwrap_or(Path::new(""));
    }
    if folder.as_os_str().is_empty() {
        folder = Path::new(".");
    }
    let trial = || -> std::io::Result<()> {
        if !folder.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        // It has no name, so that even a killed run leaves nothing.
        let mut trial = tempfile::tempfile_in(folder)?;
        trial.write_all(&vec![0; TRIAL_BYTES])?;
        trial.sync_all()
    };
    trial().map_err(|error| {
        // tempfile appends the path of the trial, which means nothing to the user.
        let error = error.to_string();
        let reason = error.split(" at path ").next().unwrap_or(&error);
        anyhow::anyhow!("cannot write: {reason}: {}", file.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{LowArgs, LowCommand};
    use clap::Parser;

    fn jobs_of(folder: &Path, words: &[&str]) -> anyhow::Result<Vec<Job>> {
        let words = words.iter().map(|word| match word.strip_prefix('@') {
            Some(name) => folder.join(name).into_os_string(),
            None => (*word).into(),
        });
        let line = ["stunet".into(), "predict".into(), "-m".into(), "m".into()];
        match LowArgs::parse_from(line.into_iter().chain(words)).command {
            LowCommand::Predict(args) => jobs(&args, &Environment::default()),
            _ => unreachable!("the line above is a prediction"),
        }
    }

    fn check(words: &[&str], expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for name in ["in/b_0000.nii.gz", "in/a_0000.nii.gz", "in/c_0000.nii.gz", "lone.nii"] {
            fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
            fs::write(path.join(name), b"").unwrap();
        }
        let found: Vec<_> = jobs_of(path, words)
            .unwrap()
            .into_iter()
            .map(|job| job.output.strip_prefix(path).unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(found, expected, "{words:?}");
    }

    #[test]
    fn outputs() {
        check(&["-i", "@in", "-o", "@out"], &["out/a.nii.gz", "out/b.nii.gz", "out/c.nii.gz"]);
        check(
            &["-i", "@in", "-o", "@out", "--num-parts", "2", "--part-id", "0"],
            &["out/a.nii.gz", "out/c.nii.gz"],
        );
        check(
            &["-i", "@in", "-o", "@out", "--num-parts", "2", "--part-id", "1"],
            &["out/b.nii.gz"],
        );
        check(&["-i", "@in/b_0000.nii.gz", "-o", "@out"], &["out/b.nii.gz"]);
        check(&["-i", "@lone.nii", "-o", "@x/y.nii"], &["x/y.nii"]);
    }

    fn check_refused(words: &[&str], reason: &str) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        for name in ["in/a_0000.nii.gz", "lone.nii.gz"] {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        let message = format!("{:#}", jobs_of(folder.path(), words).unwrap_err());
        assert!(message.contains(reason), "{message}");
    }

    #[test]
    fn refusals() {
        check_refused(&["-i", "@in", "-o", "@out.nii.gz"], "expected a folder");
        check_refused(&["-i", "@lone.nii.gz", "-o", "@out.nrrd"], "found .nrrd");
        check_refused(&["-i", "@lone.nii.gz", "-o", "@lone.nii.gz"], "overwrite the input");
        check_refused(&["-i", "@absent.nii.gz", "-o", "@out"], "absent.nii.gz");
        let parts = ["-i", "@in", "-o", "@out", "--num-parts", "2", "--part-id", "2"];
        check_refused(&parts, "expected 0 to 1, found 2");
    }

    #[test]
    fn probabilities_lie_beside_the_labelmap() {
        let case = Case { name: "a".into(), files: Vec::new() };
        let job = |output: &str| Job { case: case.clone(), output: output.into() };
        assert_eq!(job("x/a.nii.gz").probabilities("npz"), Path::new("x/a.npz"));
        assert_eq!(job("a.b.nii").probabilities("npz"), Path::new("a.b.npz"));
    }

    #[test]
    fn a_trial_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        check_writable(&folder.path().join("new/deep/out.nii.gz")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::write(folder.path().join("file"), b"").unwrap();
        let error = check_writable(&folder.path().join("file/out.nii.gz")).unwrap_err();
        assert!(error.to_string().ends_with("out.nii.gz"), "{error}");
    }
}
