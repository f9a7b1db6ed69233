//! From command-line options to the library's options.

use stunet::data::plans;
use stunet::infer::{self, Measure, PredictOptions, ProbabilityFormat};

use crate::args::{Accumulation, Confidence, Mode, PredictArgs, Probabilities};

/// What was chosen about every case, as far as voxels depend on it.
pub fn settings(args: &PredictArgs) -> PredictOptions {
    PredictOptions {
        mode: match args.mode {
            Mode::Normal => infer::Mode::Normal,
            Mode::Fast => infer::Mode::Fast,
            Mode::Fastest => infer::Mode::Fastest,
        },
        step_size: args.step_size,
        mirror: !args.disable_tta,
        accumulation: args.accumulation.map(|precision| match precision {
            Accumulation::F32 => plans::Accumulation::F32,
            Accumulation::F16 => plans::Accumulation::F16,
        }),
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
pub fn measure_of(measure: Confidence) -> Measure {
    match measure {
        Confidence::Margin => Measure::Margin,
        Confidence::Entropy => Measure::Entropy,
    }
}
