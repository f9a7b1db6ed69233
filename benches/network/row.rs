//! One line of the table.

use super::Args;
use super::step::{Precision, Task};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What was measured and what came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub program: String,
    pub version: String,
    pub device: String,
    /// Kernel fusion and autotuning, as compiled in.
    pub fusion: bool,
    pub autotune: bool,
    pub size: String,
    pub task: String,
    pub precision: String,
    /// Whose operators: `own` or `stock`.
    pub operators: String,
    pub patch: Vec<usize>,
    pub batch: usize,
    pub classes: usize,
    /// The first call: compiling and tuning of kernels included.
    pub first_secs: Option<f64>,
    pub median_secs: Option<f64>,
    pub best_secs: Option<f64>,
    pub repeats: usize,
    /// Median processor time.
    pub cpu_secs: Option<f64>,
    /// Operations of the convolutions over the median.
    pub gflops: Option<f64>,
    /// Share of the FMA peak, by the clock and by processor time.
    pub peak_share: Option<f64>,
    pub peak_share_cpu: Option<f64>,
    /// Largest resident memory of the process.
    pub peak_bytes: Option<u64>,
    /// Largest amount that the device's allocator reserved.
    pub reserved_bytes: Option<u64>,
    pub error: Option<String>,
}

impl Row {
    pub const HEADER: &str = "device      size  task     precision  patch        batch  \
                              median        best          first         CPU time      GFLOP/s  \
                              of peak  (CPU)  memory";

    pub fn new(args: &Args, size: &str, task: Task, precision: Precision) -> Self {
        Self {
            program: "stunet".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            device: args.device.clone(),
            fusion: cfg!(feature = "fusion"),
            autotune: cfg!(feature = "autotune"),
            size: size.into(),
            task: task.name().into(),
            precision: precision.name().into(),
            operators: args.operators.name().into(),
            patch: args.patch.clone(),
            batch: if task == Task::Train { args.batch } else { 1 },
            classes: args.classes,
            first_secs: None,
            median_secs: None,
            best_secs: None,
            repeats: 0,
            cpu_secs: None,
            gflops: None,
            peak_share: None,
            peak_share_cpu: None,
            peak_bytes: None,
            reserved_bytes: None,
            error: None,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patch: Vec<String> = self.patch.iter().map(usize::to_string).collect();
        write!(
            f,
            "{:<11} {:<5} {:<8} {:<10} {:<12} {:<6} ",
            self.device,
            self.size,
            self.task,
            self.precision,
            patch.join("x"),
            self.batch
        )?;
        if let Some(error) = &self.error {
            return write!(f, "{error}");
        }
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        for secs in [self.median_secs, self.best_secs, self.first_secs, self.cpu_secs] {
            write!(f, "{:<13} ", or_dash(secs.map(|secs| format!("{secs:.4} s"))))?;
        }
        write!(f, "{:<8} ", or_dash(self.gflops.map(|gflops| format!("{gflops:.1}"))))?;
        for share in [self.peak_share, self.peak_share_cpu] {
            write!(f, "{:<7} ", or_dash(share.map(|share| format!("{:.1} %", share * 100.0))))?;
        }
        let bytes = self.peak_bytes.or(self.reserved_bytes);
        write!(f, "{}", or_dash(bytes.map(|bytes| format!("{:.2} GB", bytes as f64 / 1e9))))
    }
}
