//! Learning rates as pure functions of progress: a run that goes on needs no state of them.

use std::fmt;

/// Where an update stands in its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Update within the epoch, from 0.
    pub iteration: usize,
    /// Epochs of the whole run.
    pub num_epochs: usize,
    /// Updates per epoch.
    pub num_iterations: usize,
}

impl Position {
    /// Number of the update since the beginning of the run.
    pub fn update(&self) -> usize {
        self.epoch * self.num_iterations + self.iteration
    }

    /// Updates of the whole run.
    pub fn num_updates(&self) -> usize {
        self.num_epochs * self.num_iterations
    }
}

/// The learning rate of every update.
pub trait Schedule: fmt::Debug + Send + Sync {
    /// Name and settings in one line. The text is kept in checkpoints, and a run is continued only
    /// with a schedule of the same description.
    fn describe(&self) -> String;

    /// The learning rate of the update at a position; `initial` is
    /// [`FitConfig::initial_lr`](crate::FitConfig::initial_lr).
    fn rate(&self, initial: f64, at: &Position) -> f64;
}

/// nnU-Net's: [`poly_lr`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Poly;

impl Schedule for Poly {
    fn describe(&self) -> String {
        "polynomial decay, exponent 0.9".to_owned()
    }

    fn rate(&self, initial: f64, at: &Position) -> f64 {
        poly_lr(initial, at.epoch, at.num_epochs)
    }
}

/// A schedule from a function of the initial rate and the position.
///
/// ```
/// use stunet_train::schedule::{Position, Schedule, from_fn};
/// let halving = from_fn("halved every 100 epochs", |initial, at| {
///     initial * 0.5f64.powi((at.epoch / 100) as i32)
/// });
/// let at = Position { epoch: 250, iteration: 3, num_epochs: 1000, num_iterations: 250 };
/// assert_eq!(halving.rate(0.01, &at), 0.0025);
/// ```
pub fn from_fn<F>(description: impl Into<String>, rate: F) -> FromFn<F>
where
    F: Fn(f64, &Position) -> f64 + Send + Sync,
{
    FromFn { description: description.into(), rate }
}

/// What [`from_fn`] makes.
#[derive(Clone)]
pub struct FromFn<F> {
    description: String,
    rate: F,
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FromFn").field(&self.description).finish()
    }
}

impl<F: Fn(f64, &Position) -> f64 + Send + Sync> Schedule for FromFn<F> {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn rate(&self, initial: f64, at: &Position) -> f64 {
        (self.rate)(initial, at)
    }
}

/// Polynomial decay: `initial * (1 - epoch / num_epochs)^0.9`, set once per epoch.
///
/// Beyond the last epoch the rate is 0.
///
/// # Source
/// nnU-Net 1.7.1 `poly_lr`, nnU-Net 2 `PolyLRScheduler`.
///
/// ```
/// use stunet_train::schedule::poly_lr;
/// assert_eq!(poly_lr(0.01, 0, 1000), 0.01);
/// assert!((poly_lr(0.01, 500, 1000) - 0.005_358_867).abs() < 1e-9);
/// assert_eq!(poly_lr(0.01, 1000, 1000), 0.0);
/// ```
pub fn poly_lr(initial: f64, epoch: usize, num_epochs: usize) -> f64 {
    const EXPONENT: f64 = 0.9;
    let left = num_epochs.saturating_sub(epoch) as f64 / num_epochs.max(1) as f64;
    initial * left.powf(EXPONENT)
}
