//! `stunet convert`: from a PyTorch checkpoint to a model folder.

use stunet::data::plans::{OrientationChoice, TrainedOrientation};
use stunet::infer::{Model, OpenOptions};
use stunet::model::weights::folder::StoredPrecision;

use crate::args::ConvertArgs;
use crate::new_folder::NewFolder;
use crate::output;
use crate::places::{self, MODEL_FOLDER, Output};

/// Reads a model of any kind and writes a folder of our own.
pub fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    let out = &args.output;
    let outputs = Output::in_folder("OUT", out, MODEL_FOLDER);
    places::check(places::of_model(&args.model), outputs)?;
    NewFolder::check(out)?;
    crate::jobs::check_writable(&out.join("network.json"))?;

    let mut options = OpenOptions::new(&stunet::device::parse("cpu")?);
    if let Some(fold) = &args.fold {
        options.folds = fold.parse()?;
    }
    options.checkpoint = args.checkpoint.clone();
    let mut model = Model::open(&args.model, &options)?;
    if let Some(orientation) = args.orientation {
        // Fails where it contradicts the plans.
        model.plans().opener(OrientationChoice::To(orientation))?;
        model.set_trained_orientation(TrainedOrientation::all(orientation));
    }
    let precision = if args.half { StoredPrecision::F16 } else { StoredPrecision::F32 };
    let parameters = match model.architecture().stunet() {
        Some(config) => stunet::model::cost::num_parameters(config),
        None => anyhow::bail!(
            "this model is a {}; only STU-Nets become model folders: predict with {} as it is",
            model.architecture(),
            args.model.display()
        ),
    };
    let folder = NewFolder::begin(out)?;
    model.save_folder_as(out, precision)?;
    folder.finish();
    output::line(&format!(
        "{} parameters, {} labels: {}",
        output::grouped(parameters),
        model.labels().labels().len(),
        out.display()
    ))
}
