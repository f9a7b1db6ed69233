//! Which cases are predicted, and what each is written as.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use stunet::data::dataset::{Case, Cases, Labelmaps, PassedOver, list_cases, list_labelmaps};
use stunet::data::nifti::Opener;
use stunet::data::{files, formats};
use stunet::infer::Record;

use crate::args::{ModeArg, PredictArgs};
use crate::parts::{self, Divided, Environment};
use crate::pictures::truth_of;
use crate::places::{self, Output};
use crate::products::{BESIDE, Product, TABLE};
use crate::scans::{self, DicomCase, Origin};

/// Endings that promise a file of another format, not a folder.
const OTHER_FORMATS: [&str; 7] = ["dcm", "gipl", "gz", "hdr", "img", "json", "npz"];

/// One case on its way to a labelmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its name and channel files.
    pub case: Case,
    /// The labelmap.
    pub output: PathBuf,
    /// What the case is read from.
    pub origin: Origin,
    /// The DICOM series that its DICOM objects refer to.
    pub source: Origin,
}

impl Job {
    /// Every file that will be written for it.
    fn outputs(&self, args: &PredictArgs) -> Vec<Output> {
        let name = &self.case.name;
        let first = self.case.files.first().map(|file| file.display().to_string());
        let first = first.unwrap_or_default();
        let outputs = Product::wanted(args).into_iter().flat_map(|product| {
            let what = format!("--output: the {} of case {name} ({first})", product.name());
            let files = product.files(&self.output).into_iter();
            files.map(move |path| Output::new(what.clone(), path))
        });
        outputs.collect()
    }

    /// The file of its labels that stands for it in messages.
    pub fn first_output(&self, args: &PredictArgs) -> PathBuf {
        Product::first(args).path(&self.output)
    }

    /// The DICOM objects that are wanted of it.
    pub fn objects(&self, args: &PredictArgs) -> Vec<PathBuf> {
        let objects = Product::wanted(args).into_iter().filter(|product| product.is_dicom());
        objects.map(|product| product.path(&self.output)).collect()
    }

    /// Fails where the files are another number of channels than the model's. A single file may hold
    /// several: that is seen when it is read.
    pub fn check_channels(&self, expected: usize) -> anyhow::Result<()> {
        let files = &self.case.files;
        let one = files.len() == 1 || self.origin != Origin::Files;
        ensure!(
            one || files.len() == expected,
            "expected {expected} channel(s), as the model has, found {} files; four digits at the \
             end of a name number the channels of one case: if these are images of different cases, \
             add _0000 to each name, as in {}_0001_0000.nii.gz: {}",
            files.len(),
            self.case.name,
            files[0].display()
        );
        Ok(())
    }

    /// The record of outputs, of this case's part of its files and of how it is turned.
    ///
    /// Headers are read only where scans are turned; one that cannot be read is told when the case is.
    pub fn record(&self, record: &Record, opener: Opener) -> Record {
        let record = match self.origin.part() {
            Some(part) => record.with_part(&part),
            None => record.clone(),
        };
        let first = self.case.files.get(..1).unwrap_or_default();
        let grids = opener.orientation.and_then(|_| self.origin.grids(first, opener).ok());
        let grid = grids.and_then(|grids| grids.into_iter().next());
        match grid.and_then(|(grid, _)| opener.turned_to(&grid)) {
            Some(orientation) => record.with_orientation(orientation),
            None => record,
        }
    }

    /// The record of one of its outputs, made of the labelmap's.
    pub fn record_of(&self, product: Product, record: &Record) -> Record {
        let record = product.record(record);
        match (&self.origin, self.source.part()) {
            // Files know nothing of the series that an object of them refers to.
            (Origin::Files, Some(part)) if product.is_dicom() => record.with_part(&part),
            _ => record,
        }
    }

    /// The DICOM series that it is read from, or that its files were converted from.
    fn source_or_origin(&self) -> &Origin {
        if self.origin == Origin::Files { &self.source } else { &self.origin }
    }

    /// What stands for the case in messages and reports: what was named, or its files.
    pub fn inputs(&self) -> Vec<PathBuf> {
        match self.origin.given() {
            Some(given) => vec![given.to_owned()],
            None => self.case.files.clone(),
        }
    }
}

/// What there is to predict.
#[derive(Debug)]
pub struct Workload {
    /// Sorted by case, this part's only.
    pub jobs: Vec<Job>,
    /// Whether the input is a single case: scans in files or a single series of DICOM, not a folder of
    /// cases of which there is one.
    pub alone: bool,
    /// Files of the input folder that belong to no case.
    pub passed_over: Vec<PassedOver>,
    /// One line about the part, where a scheduler decided it.
    pub part: Option<String>,
    /// The part, where there are several.
    pub divided: Option<Divided>,
}

/// The jobs that the arguments mean; no output is an input or another job's output.
pub fn jobs(args: &PredictArgs, environment: &Environment) -> anyhow::Result<Workload> {
    for (option, given) in [
        ("--save-probabilities", args.save_probabilities.is_some()),
        ("--confidence", args.confidence.is_some()),
    ] {
        ensure!(
            !given || args.mode == ModeArg::Normal,
            "{option}: expected --mode normal; the others have none at the image's resolution"
        );
    }
    let many = matches!(args.input.as_slice(), [folder] if folder.is_dir())
        || args.scan.each_file_is_a_case
        || args.scan.series.as_deref() == Some("all");
    let part = parts::part(args.num_parts, args.part_id, many, environment)?;
    let each = args.scan.each_file_is_a_case;
    let dicom = scans::dicom_cases(args)?;
    let is_one = dicom.as_ref().map_or(!many, |cases| cases.len() == 1);
    let (mut all, passed_over) = match (dicom, args.input.as_slice()) {
        (Some(cases), _) => (jobs_of_dicom(cases, args)?, Vec::new()),
        (None, [folder]) if folder.is_dir() => jobs_of_folder(folder, args)?,
        (None, files) if each => (jobs_of_each(files, args)?, Vec::new()),
        (None, files) => (vec![job_of_files(files, args)?], Vec::new()),
    };
    let many = all.len() > 1;
    for job in &mut all {
        job.source = scans::source_for(&job.origin, &job.inputs()[0], args, many)?;
    }
    ensure!(
        !args.scan.uneven() || all.iter().all(|job| job.source_or_origin() != &Origin::Files),
        "--allow uneven: expected DICOM, whose slices may lie at any distance, found files of another \
         format: {}",
        args.input[0].display()
    );
    // Those of every part: another one may be at work on what this one would replace.
    check_places(args, &all)?;
    let total = all.len();
    let jobs = part.take(all);
    let divided = Divided { id: part.id, of: part.of, cases_of_all: total };
    let divided = Some(divided).filter(|divided| divided.of > 1);
    let part = part.line(jobs.len(), total);
    let alone = is_one || is_file(&args.output, args);
    Ok(Workload { jobs, alone, passed_over, part, divided })
}

/// No output may be a scan, a file of the model or another output.
fn check_places(args: &PredictArgs, jobs: &[Job]) -> anyhow::Result<()> {
    let scans = jobs.iter().flat_map(|job| job.case.files.iter().cloned());
    let models = std::iter::once(&args.model).chain(&args.region.with);
    let models = models.chain(&args.smaller_models);
    let sources = jobs.iter().flat_map(|job| job.source.files());
    let models = models.flat_map(|model| places::of_model(model));
    let inputs = scans.chain(sources).chain(models);
    let truth = jobs.iter().filter_map(|job| truth_of(&args.pictures, &job.case.name));
    let json = args.json.iter().map(|path| Output::new("--json", path));
    let page = args.pictures.report.iter().map(|path| Output::new("--report", path));
    let table = (args.finish.statistics && jobs.len() > 1)
        .then(|| Output::new("--statistics: the table of all cases", args.output.join(TABLE)));
    let beside = writes_beside(args, jobs).then_some(&*args.output);
    let beside = beside.into_iter().flat_map(|folder| {
        Output::in_folder("--output: nnU-Net's files beside labelmaps (--no-plans)", folder, BESIDE)
    });
    let outputs = jobs.iter().flat_map(|job| job.outputs(args)).chain(json).chain(page);
    places::check(inputs.chain(truth), outputs.chain(table).chain(beside))
}

/// Whether nnU-Net's files are written beside the labelmaps: where a folder of cases becomes a folder of
/// labelmaps.
pub fn writes_beside(args: &PredictArgs, jobs: &[Job]) -> bool {
    !args.no_plans
        && args.input.len() == 1
        && args.input[0].is_dir()
        && jobs.iter().all(|job| job.origin == Origin::Files)
        && Product::wanted(args).contains(&Product::Labelmap)
}

/// Removes what a killed run of the same cases left in their folder under temporary names.
///
/// Other parts may be at work there: only files of these jobs are touched.
pub fn remove_leftovers(jobs: &[Job]) {
    let files = |job: &Job| {
        let of = |product: Product| product.files(&job.output);
        Product::ALL.into_iter().flat_map(of).collect::<Vec<_>>()
    };
    let outputs: Vec<_> = jobs.iter().flat_map(files).collect();
    files::sweep(outputs.iter().map(PathBuf::as_path));
}

fn jobs_of_folder(
    folder: &Path,
    args: &PredictArgs,
) -> anyhow::Result<(Vec<Job>, Vec<PassedOver>)> {
    let output = &args.output;
    check_folder(output, "the input is one")?;
    if args.scan.each_file_is_a_case {
        let Labelmaps { files, passed_over } = list_labelmaps(folder)?;
        let files: Vec<PathBuf> = files.into_iter().map(|(_, file)| file).collect();
        ensure!(!files.is_empty(), "expected files of volumes, found none: {}", folder.display());
        return Ok((jobs_of_each(&files, args)?, passed_over));
    }
    match list_cases(folder) {
        Ok(Cases { cases, passed_over }) => {
            Ok((cases.into_iter().map(|case| job_in(case, output)).collect(), passed_over))
        }
        // Files of any name are told how they could be taken.
        Err(error) if list_labelmaps(folder).is_ok_and(|found| !found.files.is_empty()) => {
            bail!("{error} (--each-file-is-a-case takes every file for a case)")
        }
        Err(error) => Err(error.into()),
    }
}

/// A case whose labels go into a folder, in the format of its scan.
fn job_in(case: Case, output: &Path) -> Job {
    let ending = case.files.first().map_or(".nii.gz", |file| formats::ending_of_labels(file));
    let output = output.join(format!("{}{ending}", case.name));
    Job { case, output, origin: Origin::Files, source: Origin::Files }
}

/// Every file a case of its own.
fn jobs_of_each(files: &[PathBuf], args: &PredictArgs) -> anyhow::Result<Vec<Job>> {
    check_folder(&args.output, "every file is a case")?;
    let mut jobs = Vec::new();
    for file in files {
        jobs.push(job_of_files(std::slice::from_ref(file), args)?);
    }
    Ok(jobs)
}

/// Every series a case of its own.
fn jobs_of_dicom(cases: Vec<DicomCase>, args: &PredictArgs) -> anyhow::Result<Vec<Job>> {
    let output = &args.output;
    let is_file = is_file(output, args);
    if cases.len() > 1 {
        check_folder(output, "there are several series")?;
    }
    if !is_file {
        refuse_other_formats(output)?;
    }
    let job = |DicomCase { name, files, origin }: DicomCase| {
        let output = match is_file {
            true => output.clone(),
            false => output.join(format!("{name}.nii.gz")),
        };
        Job { case: Case { name, files }, output, origin, source: Origin::Files }
    };
    Ok(cases.into_iter().map(job).collect())
}

fn check_folder(output: &Path, reason: &str) -> anyhow::Result<()> {
    ensure!(
        output.is_dir() || !is_volume(output) && !output.is_file(),
        "--output: expected a folder, as {reason}, found a file: {}",
        output.display()
    );
    refuse_other_formats(output)
}

fn job_of_files(files: &[PathBuf], args: &PredictArgs) -> anyhow::Result<Job> {
    let output = &args.output;
    for file in files {
        match fs::metadata(file) {
            Ok(found) if found.is_dir() => bail!(
                "--input: expected the files of one case or a single folder, found a folder among {}: {}",
                files.len(),
                file.display()
            ),
            Ok(_) => {}
            // It says why not.
            Err(_) => drop(files::open(file)?),
        }
    }
    let case = Case::from_files(files)?;
    ensure!(
        !case.name.is_empty(),
        "--input: expected a name that ends in .nii.gz, .nii, .hdr, .img, .mha, .mhd, .nrrd or .nhdr, \
         or DICOM: {}",
        files[0].display()
    );
    if is_file(output, args) {
        let output = output.to_owned();
        return Ok(Job { case, output, origin: Origin::Files, source: Origin::Files });
    }
    refuse_other_formats(output)?;
    Ok(job_in(case, output))
}

fn refuse_other_formats(output: &Path) -> anyhow::Result<()> {
    let ending = output.extension().unwrap_or_default().to_ascii_lowercase();
    ensure!(
        output.is_dir() || !OTHER_FORMATS.into_iter().any(|other| ending == other),
        "--output: expected .nii.gz, .nii, .mha, .mhd, .nrrd, .nhdr or a folder (.dcm with a single \
         --format of DICOM), found .{}: {}",
        ending.display(),
        output.display()
    );
    Ok(())
}

/// Whether the output is the file of the labels, in place of a folder for it.
fn is_file(output: &Path, args: &PredictArgs) -> bool {
    (is_volume(output) || args.formats.names_object(output)) && !output.is_dir()
}

/// Whether the name is that of a file of labels.
fn is_volume(path: &Path) -> bool {
    formats::written_ending(path).is_some()
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

    fn jobs_of(folder: &Path, words: &[&str]) -> anyhow::Result<Workload> {
        let words = words.iter().map(|word| match word.strip_prefix('@') {
            Some(name) => folder.join(name).into_os_string(),
            None => (*word).into(),
        });
        let mut line: Vec<std::ffi::OsString> = vec!["stunet".into(), "predict".into()];
        line.extend(words);
        if !line.iter().any(|word| word == "-m") {
            line.extend(["-m".into(), "m".into()]);
        }
        match LowArgs::parse_from(line).command {
            LowCommand::Predict(args) => jobs(&args, &Environment::default()),
            _ => unreachable!("the line above is a prediction"),
        }
    }

    fn check(words: &[&str], expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let scans = ["lone.nii", "scan_0001.nii.gz", "scan_0002.nii.gz", "other.mha"];
        let any = ["any/x.nrrd", "any/y.nii.gz", "any/notes.txt"];
        let scans = scans.into_iter().chain(any);
        let cases = ["in/b_0000.nii.gz", "in/a_0000.nii.gz", "in/c_0000.nii.gz"];
        for name in cases.into_iter().chain(scans) {
            fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
            fs::write(path.join(name), b"").unwrap();
        }
        let found: Vec<_> = jobs_of(path, words)
            .unwrap()
            .jobs
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
        check(&["-i", "@scan_0001.nii.gz", "-o", "@out"], &["out/scan_0001.nii.gz"]);
        check(&["-i", "@scan_0002.nii.gz", "-o", "@out"], &["out/scan_0002.nii.gz"]);
        check(&["-i", "@lone.nii", "-o", "@x/y.nrrd"], &["x/y.nrrd"]);
        let each = ["--each-file-is-a-case", "-o", "@out"];
        let scans = ["-i", "@lone.nii", "@scan_0001.nii.gz", "@other.mha"];
        check(
            &[&scans[..], &each].concat(),
            &["out/lone.nii.gz", "out/scan_0001.nii.gz", "out/other.mha"],
        );
        check(&[&["-i", "@any"][..], &each].concat(), &["out/x.nrrd", "out/y.nii.gz"]);
        check(&["-i", "@in", "-o", "@in"], &["in/a.nii.gz", "in/b.nii.gz", "in/c.nii.gz"]);
    }

    fn check_refused(words: &[&str], reason: &str) {
        let folder = tempfile::tempdir().unwrap();
        let clash = ["clash/b_0000.nii.gz", "clash/b_0000_0000.nii.gz"];
        let twins = ["twins/CT_0000.nii.gz", "twins/ct_0000.nii"];
        let others = ["in/a_0000.nii.gz", "lone.nii.gz", "m/plans.json", "any/scan.mha"];
        for name in clash.into_iter().chain(twins).chain(others) {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let message = format!("{:#}", jobs_of(folder.path(), words).unwrap_err());
        assert!(message.contains(reason), "{message}");
    }

    #[test]
    fn refusals() {
        check_refused(&["-i", "@in", "-o", "@out.nii.gz"], "expected a folder");
        check_refused(&["-i", "@lone.nii.gz", "-o", "@out.gipl"], "found .gipl");
        check_refused(&["-i", "@in", "-o", "@out.mha"], "expected a folder");
        check_refused(&["-i", "@lone.nii.gz", "-o", "@out", "--series", "1"], "expected DICOM");
        check_refused(&["-i", "@lone.nii.gz", "-o", "@out", "--allow", "uneven"], "expected DICOM");
        check_refused(&["-i", "@any", "-o", "@out"], "--each-file-is-a-case");
        check_refused(&["-i", "@lone.nii.gz", "-o", "@lone.nii.gz"], "overwrite the input");
        check_refused(&["-i", "@absent.nii.gz", "-o", "@out"], "absent.nii.gz");
        let parts = ["-i", "@in", "-o", "@out", "--num-parts", "2", "--part-id", "2"];
        check_refused(&parts, "expected 0 to 1, found 2");
    }

    #[test]
    fn outputs_that_are_inputs_or_each_other() {
        let clash = ["-i", "@clash", "-o", "@clash", "--overwrite"];
        check_refused(&clash, "labelmap of case b_0000");
        // The other part's input is not this part's to replace.
        let parts = ["--num-parts", "2", "--part-id", "0"];
        check_refused(&[&clash[..], &parts].concat(), "overwrite the input");
        check_refused(&["-i", "@twins", "-o", "@out"], "case CT");
        check_refused(&["-i", "@twins", "-o", "@out"], "case ct");
        let lone = ["-i", "@lone.nii.gz", "-o", "@x.nii.gz", "--json"];
        check_refused(
            &[&lone[..], &["@lone.nii.gz"]].concat(),
            "--json: would overwrite the input",
        );
        check_refused(&[&lone[..], &["@x.nii.gz"]].concat(), "and --json would be written to one");
        check_refused(
            &[&lone[..], &["@LONE.nii.gz"]].concat(),
            "--json: would overwrite the input",
        );
        let model = ["@m/plans.json", "-m", "@m"];
        check_refused(&[&lone[..], &model].concat(), "--json: would overwrite the input");
        let hidden =
            ["-i", "@in", "-o", "@in", "--json", "@in/a.npz", "--save-probabilities", "npz"];
        check_refused(&hidden, "the probabilities of case a");
    }

    #[test]
    fn channels_of_the_model() {
        let check = |files: usize, expected: usize, good: bool| {
            let files = (0..files).map(|c| format!("scan_{c:04}.nii").into()).collect();
            let case = Case { name: "scan".into(), files };
            let checked =
                Job { case, output: "x".into(), origin: Origin::Files, source: Origin::Files }
                    .check_channels(expected);
            assert_eq!(checked.is_ok(), good, "{checked:?}");
            if let Err(error) = checked {
                assert!(
                    error.to_string().ends_with(
                        "add _0000 to each name, as in \
                    scan_0001_0000.nii.gz: scan_0000.nii"
                    ),
                    "{error}"
                );
            }
        };
        check(1, 1, true);
        check(1, 2, true);
        check(2, 2, true);
        check(3, 1, false);
        check(3, 2, false);
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
