//! Learning rates as pure functions of progress.

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
