//! From command-line options to the library's options.

use anyhow::{bail, ensure};
use stunet::data::plans;
use stunet::device::Chosen;
use stunet::infer::{
    self, ConfidenceMeasure, Model, OpenOptions, PredictOptions, ProbabilityFormat,
};
use stunet::kernels::has_eight_bit_products;
use stunet::model::eight_bit::EightBitStuNet;

use crate::args::{
    AccumulationArg, ConfidenceArg, ModeArg, NetworkPrecisionArg, PredictArgs, Probabilities,
};

/// Fails where eight bits were asked for and would not be faster, or are not there.
pub fn check_precision(args: &PredictArgs, chosen: &Chosen) -> anyhow::Result<()> {
    if args.precision == NetworkPrecisionArg::F32 {
        return Ok(());
    }
    ensure!(
        chosen.name.starts_with("cpu"),
        "--precision int8: expected the processor (--device cpu), found {}; leave the option out",
        chosen.name
    );
    ensure!(
        has_eight_bit_products(),
        "--precision int8: expected a processor with AVX-512 VNNI, found {}; eight bits would be slower than f32 here: \
         leave the option out",
        stunet::kernels::vector_instructions()
            .unwrap_or_else(|| "none of its instructions".to_owned())
    );
    Ok(())
}

/// Fails where eight bits were asked for and the model cannot have them, or would not be faster; before its weights
/// are read.
pub fn check_network(args: &PredictArgs, options: &OpenOptions) -> anyhow::Result<()> {
    if args.precision == NetworkPrecisionArg::F32 {
        return Ok(());
    }
    let network = Model::describe(&args.model, options)?.config;
    let Some(config) = network.stunet() else {
        bail!(
            "--precision int8: expected a model with an STU-Net, found one with a {network}; leave the option out: {}",
            args.model.display()
        );
    };
    ensure!(
        EightBitStuNet::pays(config),
        "--precision int8: expected a network with 16 to 32 feature maps at full resolution, such as STU-Net S, found {}; \
         in eight bits it would hardly be faster than in f32: leave the option out: {}",
        config.width[0],
        args.model.display()
    );
    Ok(())
}

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
