//! What commands read: missing files are told of before anything else, and in one way.

use std::path::PathBuf;

use anyhow::ensure;
use stunet::data::DataError;

use super::LowCommand;
use super::report::ReportCommand;
use super::workflow::PostprocessCommand;

/// What a command reads: the option that names it, none for what every run names.
type Input<'a> = (Option<&'static str>, &'a PathBuf);

impl LowCommand {
    /// Files and folders that must be there, but for models, whose place a name may stand for.
    ///
    /// Every command is named, so that a new one says what it reads.
    fn inputs(&self) -> Vec<Input<'_>> {
        let some = |option, path| Option::map(path, |path| (Some(option), path));
        let plain = |path| (None, path);
        match self {
            Self::Predict(args) => {
                let truth = some("--truth", args.pictures.view.truth.as_ref());
                let source = some("--dicom-source", args.formats.dicom_source.as_ref());
                args.input.iter().map(plain).chain(truth).chain(source).collect()
            }
            Self::Preview(args) => args.input.iter().chain([&args.labels]).map(plain).collect(),
            Self::Statistics(args) => {
                let images = args.input.iter().map(|image| (Some("--input"), image));
                [plain(&args.labelmaps)].into_iter().chain(images).collect()
            }
            Self::Clean(args) => vec![plain(&args.labelmaps)],
            Self::MapLabels(args) => vec![plain(&args.labelmaps)],
            Self::Pictures(args) => vec![plain(&args.dataset)],
            Self::Watch(args) => vec![plain(&args.run)],
            Self::Report(ReportCommand::Merge(args)) => args.reports.iter().map(plain).collect(),
            Self::Install(args) => vec![plain(&args.archive)],
            Self::Import(args) => vec![plain(&args.dataset)],
            Self::Plan(args) => vec![plain(&args.dataset)],
            Self::Preprocess(args) => vec![plain(&args.dataset)],
            Self::Train(args) => vec![plain(&args.dataset)],
            Self::Export(args) => vec![plain(&args.run)],
            Self::Evaluate(args) => {
                let other = some("--compare", args.compare.as_ref());
                [&args.reference, &args.prediction].map(plain).into_iter().chain(other).collect()
            }
            Self::Ensemble(args) => args.input.iter().map(plain).collect(),
            Self::Postprocess(PostprocessCommand::Determine(args)) => {
                vec![plain(&args.input), (Some("--reference"), &args.reference)]
            }
            Self::Postprocess(PostprocessCommand::Apply(args)) => {
                vec![plain(&args.input), plain(&args.steps)]
            }
            Self::Accumulate(args) => {
                let reference = some("--reference", args.reference.as_ref());
                [plain(&args.results)].into_iter().chain(reference).collect()
            }
            Self::FindBest(args) => {
                let reference = some("--reference", args.reference.as_ref());
                [plain(&args.dataset)].into_iter().chain(reference).collect()
            }
            Self::Info(_) | Self::Convert(_) | Self::Labels(_) => Vec::new(),
            Self::Devices(_)
            | Self::Verify(_)
            | Self::Download(_)
            | Self::Models(_)
            | Self::Nnunet(_) => Vec::new(),
            Self::Completions(_) | Self::Man(_) => Vec::new(),
            #[cfg(feature = "demo")]
            Self::Demo(_) | Self::Phantom(_) => Vec::new(),
        }
    }

    /// Fails where something that the command reads is not there.
    pub fn check_inputs(&self) -> anyhow::Result<()> {
        for (option, path) in self.inputs() {
            let of = option.map_or(String::new(), |option| format!("{option}: "));
            let missing = match path.is_symlink() {
                true => DataError::DanglingLink,
                false => DataError::NotFound,
            };
            // Whatever else keeps it from being read is told where it is read.
            ensure!(path.try_exists().unwrap_or(true), "{of}{missing}: {}", path.display());
        }
        Ok(())
    }
}
