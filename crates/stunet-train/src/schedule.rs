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

    /// The same position counted from an epoch, as if the run began there.
    pub fn from_epoch(&self, epoch: usize) -> Self {
        let left = |count: usize| count.saturating_sub(epoch);
        Self { epoch: left(self.epoch), num_epochs: left(self.num_epochs), ..*self }
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

/// Cosine annealing: `initial * (1 + cos(pi * epoch / num_epochs)) / 2`, set once per epoch.
///
/// # Source
/// nnU-Net 2.8.1 `nnUNetTrainerCosAnneal`: PyTorch's `CosineAnnealingLR`, asked for an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cosine;

impl Schedule for Cosine {
    fn describe(&self) -> String {
        "cosine annealing".to_owned()
    }

    fn rate(&self, initial: f64, at: &Position) -> f64 {
        let part = at.epoch.min(at.num_epochs) as f64 / at.num_epochs.max(1) as f64;
        initial * (1.0 + (std::f64::consts::PI * part).cos()) / 2.0
    }
}

/// A linear rise over the first epochs, to `initial` in the last of them; then another schedule over
/// the epochs that are left.
///
/// # Source
/// nnU-Net 2.8.1 `nnUNetTrainer_warmup`, with 50 epochs and [`Poly`]: `Lin_incr_LRScheduler`, then
/// `PolyLRScheduler_offset`.
///
/// ```
/// use stunet_train::schedule::{Poly, Position, Schedule, WarmUp};
/// let schedule = WarmUp { epochs: 50, then: Poly };
/// let at = |epoch| Position { epoch, iteration: 0, num_epochs: 1000, num_iterations: 250 };
/// assert!((schedule.rate(0.01, &at(0)) - 0.0002).abs() < 1e-12);
/// assert_eq!(schedule.rate(0.01, &at(50)), 0.01);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WarmUp<S = Poly> {
    /// Epochs of the rise.
    pub epochs: usize,
    /// What follows.
    pub then: S,
}

impl<S: Schedule> Schedule for WarmUp<S> {
    fn describe(&self) -> String {
        format!("linear warm-up of {} epochs, then {}", self.epochs, self.then.describe())
    }

    fn rate(&self, initial: f64, at: &Position) -> f64 {
        match at.epoch < self.epochs {
            true => initial / self.epochs as f64 * (1 + at.epoch) as f64,
            false => self.then.rate(initial, &at.from_epoch(self.epochs)),
        }
    }
}

/// A schedule that begins anew within a run: at an epoch, with another rate, over the epochs from
/// there to the run's end. Before that epoch it is the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Restarted<S = Poly> {
    /// The first epoch of the new schedule, from 0.
    pub epoch: usize,
    /// The rate that it begins with.
    pub initial: f64,
    /// The schedule, before and after.
    pub schedule: S,
}

impl<S: Schedule> Schedule for Restarted<S> {
    fn describe(&self) -> String {
        let Self { epoch, initial, schedule } = self;
        format!("{}, begun anew in epoch {} with {initial:?}", schedule.describe(), epoch + 1)
    }

    fn rate(&self, initial: f64, at: &Position) -> f64 {
        match at.epoch < self.epoch {
            true => self.schedule.rate(initial, at),
            false => self.schedule.rate(self.initial, &at.from_epoch(self.epoch)),
        }
    }
}

/// One that was chosen at run time.
impl Schedule for Box<dyn Schedule> {
    fn describe(&self) -> String {
        (**self).describe()
    }

    fn rate(&self, initial: f64, at: &Position) -> f64 {
        (**self).rate(initial, at)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: usize, num_epochs: usize) -> Position {
        Position { epoch, iteration: 0, num_epochs, num_iterations: 1 }
    }

    fn check(schedule: &dyn Schedule, num_epochs: usize, expected: &[(usize, f64)]) {
        for &(epoch, rate) in expected {
            let found = schedule.rate(0.01, &at(epoch, num_epochs));
            assert!(
                (found - rate).abs() <= 1e-15,
                "{schedule:?}, epoch {epoch}: {found:e} {rate:e}"
            );
        }
    }

    /// Recorded by scripts/reference/record_variants.py from nnU-Net 2.8.1's trainers, initial rate 0.01.
    #[test]
    fn as_nnunets_trainers() {
        let recorded = include_str!("../../../tests/data/variants/schedules.json");
        let recorded: serde_json::Value = serde_json::from_str(recorded).unwrap();
        let schedules: [(&str, &dyn Schedule); 3] =
            [("poly", &Poly), ("cosine", &Cosine), ("warmup", &WarmUp { epochs: 50, then: Poly })];
        for (name, schedule) in schedules {
            let recorded = &recorded[name];
            let num_epochs = recorded["num_epochs"].as_u64().unwrap() as usize;
            let rates =
                recorded["rates"].as_array().unwrap().iter().map(|rate| rate.as_f64().unwrap());
            let rates: Vec<_> = rates.enumerate().collect();
            assert!(rates.len() > 100, "{name}");
            check(schedule, num_epochs, &rates);
        }
    }

    #[test]
    fn begun_anew_it_goes_to_the_end() {
        let anew = Restarted { epoch: 8, initial: 0.002, schedule: Poly };
        let [before, after] = [poly_lr(0.01, 7, 12), poly_lr(0.002, 3, 4)];
        check(&anew, 12, &[(7, before), (8, 0.002), (11, after), (12, 0.0)]);
        assert_eq!(
            anew.describe(),
            "polynomial decay, exponent 0.9, begun anew in epoch 9 with 0.002"
        );
        let rise = WarmUp { epochs: 2, then: Cosine };
        let nested = Restarted { epoch: 8, initial: 0.002, schedule: rise };
        check(&nested, 12, &[(0, 0.005), (8, 0.001), (9, 0.002), (10, 0.002), (11, 0.001)]);
    }
}
