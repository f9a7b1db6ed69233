//! The factor that keeps half-precision gradients in range.

/// A factor for the loss that halves when a gradient overflows and doubles after a long stretch
/// without.
///
/// # Source
/// `torch.amp.GradScaler` with its defaults, as nnU-Net uses it.
///
/// ```
/// use stunet_train::optimiser::LossScaler;
/// let mut scaler = LossScaler::default();
/// assert_eq!(scaler.factor(), 65536.0);
/// scaler.update(false);
/// assert_eq!(scaler.factor(), 32768.0);
/// (0..2000).for_each(|_| scaler.update(true));
/// assert_eq!(scaler.factor(), 65536.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScaler {
    factor: f64,
    num_good_steps: u32,
}

impl Default for LossScaler {
    fn default() -> Self {
        Self { factor: 65536.0, num_good_steps: 0 }
    }
}

impl LossScaler {
    const GROWTH_INTERVAL: u32 = 2000;

    /// A scaler that goes on where one with this factor and number of good steps left off.
    pub fn restore(factor: f64, num_good_steps: u32) -> Self {
        Self { factor, num_good_steps }
    }

    /// What the loss is multiplied by.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Steps since the factor last changed.
    pub fn num_good_steps(&self) -> u32 {
        self.num_good_steps
    }

    /// Takes note whether the gradients of a step were finite.
    pub fn update(&mut self, finite: bool) {
        if !finite {
            *self = Self::restore(self.factor * 0.5, 0);
        } else if self.num_good_steps + 1 == Self::GROWTH_INTERVAL {
            *self = Self::restore(self.factor * 2.0, 0);
        } else {
            self.num_good_steps += 1;
        }
    }
}
