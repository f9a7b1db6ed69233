//! Settings that keep to a time: the most careful ones of several that are fast enough.

use crate::error::InferError;
use crate::mirror;
use crate::model::Model;
use crate::predict::{PredictOptions, Prepared, part_of, pass_secs, window_settings};

/// Steps between windows, as shares of them, from the most careful.
const STEPS: [f64; 3] = [0.5, 0.75, 1.0];

/// Ways to predict, from the most careful and slowest: mirrored windows first, where the options have
/// them, then none; in either case with growing steps. The first are the options themselves.
///
/// ```
/// use stunet_infer::{PredictOptions, budget};
/// let ways = budget::ways(&PredictOptions::default());
/// let told: Vec<_> = ways.iter().map(|way| (way.mirror, way.step_size)).collect();
/// let expected =
///     [(true, 0.5), (true, 0.75), (true, 1.0), (false, 0.5), (false, 0.75), (false, 1.0)];
/// assert_eq!(told, expected);
/// ```
pub fn ways(options: &PredictOptions) -> Vec<PredictOptions> {
    let mut steps = vec![options.step_size];
    steps.extend(STEPS.into_iter().filter(|step| *step > options.step_size));
    let mirrors = if options.mirror { vec![true, false] } else { vec![false] };
    let of = |mirror: bool| {
        let options = options.clone();
        steps.iter().map(move |step| PredictOptions { step_size: *step, mirror, ..options.clone() })
    };
    mirrors.into_iter().flat_map(of).collect()
}

/// Forward passes that a prediction takes: windows, times mirrored ones, times folds.
///
/// # Errors
/// As [`predict()`](crate::predict()), as far as the options go.
pub fn num_passes(
    model: &Model,
    prepared: &Prepared,
    options: &PredictOptions,
) -> Result<usize, InferError> {
    let mut settings = window_settings(model, options)?;
    let trace = &prepared.preprocessed.trace;
    settings.part_of = part_of(trace);
    let windows = settings.windows(trace.network_shape())?;
    let mirrored = mirror::passes(settings.reference, &settings.mirror_axes).len();
    Ok(windows.len() * mirrored * model.networks().len())
}

/// What fits a time, and how long it will take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Which of the ways.
    pub way: usize,
    /// Seconds that its windows will take.
    pub secs: f64,
    /// Seconds of one pass.
    pub pass_secs: f64,
}

/// The first of several ways whose windows take at most `secs`, or the fastest if none does.
///
/// The speed is the options' [`pass_secs`](PredictOptions::pass_secs), or is measured with a few passes.
/// None where there is no clock.
///
/// # Errors
/// As [`num_passes`].
pub fn choose(
    model: &Model,
    prepared: &Prepared,
    ways: &[PredictOptions],
    secs: f64,
) -> Result<Option<Fit>, InferError> {
    let Some(first) = ways.first() else { return Ok(None) };
    let pass_secs = match first.pass_secs {
        Some(secs) => Some(secs),
        None => pass_secs(model, first)?,
    };
    let Some(pass_secs) = pass_secs else { return Ok(None) };
    let mut fastest: Option<Fit> = None;
    for (way, options) in ways.iter().enumerate() {
        let fit =
            Fit { way, secs: pass_secs * num_passes(model, prepared, options)? as f64, pass_secs };
        if fit.secs <= secs {
            return Ok(Some(fit));
        }
        if fastest.is_none_or(|fastest| fit.secs < fastest.secs) {
            fastest = Some(fit);
        }
    }
    Ok(fastest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_steps_than_asked_only() {
        let options = PredictOptions { step_size: 0.6, mirror: false, ..PredictOptions::default() };
        let steps: Vec<f64> = ways(&options).iter().map(|way| way.step_size).collect();
        assert_eq!(steps, [0.6, 0.75, 1.0]);
    }
}
