//! One line of the table.

use crate::Args;
use crate::step::{Precision, Task};
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
    pub patch: Vec<usize>,
    pub batch: usize,
    pub classes: usize,
    /// The first call: compiling and tuning of kernels included.
    pub first_secs: Option<f64>,
    pub median_secs: Option<f64>,
    pub best_secs: Option<f64>,
    pub repeats: usize,
    /// Largest amount that the device's allocator reserved.
    pub reserved_bytes: Option<u64>,
    pub error: Option<String>,
}

impl Row {
    pub const HEADER: &str = "device      size  task     precision  patch        batch  \
                              median        best          first         reserved";

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
            patch: args.patch.clone(),
            batch: if task == Task::Train { args.batch } else { 1 },
            classes: args.classes,
            first_secs: None,
            median_secs: None,
            best_secs: None,
            repeats: 0,
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
        for secs in [self.median_secs, self.best_secs, self.first_secs] {
            write!(f, "{:<13} ", format!("{:.4} s", secs.unwrap_or(f64::NAN)))?;
        }
        match self.reserved_bytes {
            Some(bytes) => write!(f, "{:.2} GB", bytes as f64 / 1e9),
            None => Ok(()),
        }
    }
}
