//! One step of what the library does, with inputs of its own.

use super::bench::{Bench, Found, Reason};

type Run = dyn Fn(&Bench) -> Result<Found, Reason>;

/// A step that is computed and compared by itself.
pub(super) struct Stage {
    pub name: String,
    /// Largest error: of the largest value, and of the root of the mean square.
    pub bound: f64,
    /// Whether it can be computed in half precision as well.
    pub any_precision: bool,
    run: Box<Run>,
}

impl Stage {
    /// A stage that is computed in single precision.
    pub(super) fn new(
        name: &str,
        bound: f64,
        run: impl Fn(&Bench) -> Result<Found, Reason> + 'static,
    ) -> Self {
        Self { name: name.to_owned(), bound, any_precision: false, run: Box::new(run) }
    }

    /// A stage that is computed in whatever precision is asked for.
    pub(super) fn of_any_precision(
        name: &str,
        bound: f64,
        run: impl Fn(&Bench) -> Result<Found, Reason> + 'static,
    ) -> Self {
        Self { any_precision: true, ..Self::new(name, bound, run) }
    }

    /// What it gives.
    pub(super) fn run(&self, bench: &Bench) -> Result<Found, Reason> {
        (self.run)(bench)
    }
}
