//! From command-line options to the library's options.

use stunet::data::plans;
use stunet::infer::{self, ConfidenceMeasure, PredictOptions, ProbabilityFormat};

use crate::args::{AccumulationArg, ConfidenceArg, ModeArg, PredictArgs, Probabilities};

/// What was chosen about every case, as far as voxels depend on it.
pub fn settings(args: &PredictArgs) -> PredictOptions {
    PredictOptions {
        mode: match args.mode {
            ModeArg::Normal => infer::Mode::Normal,
            ModeArg::Fast => infer::Mode::Fast,
            ModeArg::Fastest => infer::Mode::Fastest,
        },
        step_size: args.step_size,
        mirror: !args.disable_tta,
        accumulation: args.accumulation.map(|precision| match precision {
            AccumulationArg::F32 => plans::Accumulation::F32,
            AccumulationArg::F16 => plans::Accumulation::F16,
        }),
        average_features: !args.head_per_window,
        probability_format: args.save_probabilities.map(format_of).unwrap_or_default(),
        confidence: args.confidence.map(measure_of),
        ..PredictOptions::default()
    }
}

/// The form of stored probabilities.
pub fn format_of(form: Probabilities) -> ProbabilityFormat {
    match form {
        Probabilities::Npz => ProbabilityFormat::Npz,
        Probabilities::Zarr => ProbabilityFormat::Zarr,
    }
}

/// The measure of confidence.
pub fn measure_of(measure: ConfidenceArg) -> ConfidenceMeasure {
    match measure {
        ConfidenceArg::Margin => ConfidenceMeasure::Margin,
        ConfidenceArg::Entropy => ConfidenceMeasure::Entropy,
    }
}
