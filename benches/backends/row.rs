//! One line of the table.

use super::Args;
use super::step::Operators;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// What a row measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// What the device can do at most
    Ceilings,
    /// Reports of others that could hold here
    Reports,
    /// Full-resolution logits of one patch
    Forward,
    /// Five heads, loss, backward, clipping, SGD
    Train,
    /// An image to its labels: resampling, windows, decision
    Case,
}

impl Work {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ceilings => "ceilings",
            Self::Reports => "reports",
            Self::Forward => "forward",
            Self::Train => "train",
            Self::Case => "case",
        }
    }
}

/// What was measured and what came out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    pub program: String,
    pub version: String,
    /// As it was asked for.
    pub device: String,
    pub task: String,
    #[serde(default)]
    pub size: String,
    #[serde(default)]
    pub precision: String,
    #[serde(default)]
    pub operators: String,
    #[serde(default)]
    pub patch: Vec<usize>,
    #[serde(default)]
    pub batch: usize,
    #[serde(default)]
    pub classes: usize,
    /// The first call: compiling of kernels included.
    pub first_secs: Option<f64>,
    pub median_secs: Option<f64>,
    pub best_secs: Option<f64>,
    #[serde(default)]
    pub repeats: usize,
    /// Windows of a whole case.
    pub windows: Option<usize>,
    /// What the kernels state, or else, on the processor, what the convolutions need.
    pub bytes: Option<f64>,
    pub products: Option<f64>,
    pub launches: Option<usize>,
    /// Of the device's ceilings, by the median.
    pub copy_share: Option<f64>,
    pub fma_share: Option<f64>,
    /// Largest amount that the device's allocator reserved, or largest resident memory on a processor.
    pub memory_bytes: Option<u64>,
    /// Of a row of ceilings: bytes read and written in a second, multiply-adds in a second.
    pub copy_bytes_per_sec: Option<f64>,
    pub fmas_per_sec: Option<f64>,
    /// Of a row of a report: ok, differs, not applicable.
    pub report: Option<String>,
    pub verdict: Option<String>,
    pub why: Option<String>,
    pub error: Option<String>,
}

impl Row {
    /// Everything that is asked for of a device, in the order of its worth.
    pub fn wanted(args: &Args, device: &str) -> Vec<Self> {
        let row = |task: Work| Self {
            program: "backends".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            device: device.into(),
            task: task.name().into(),
            ..Self::default()
        };
        let large = |size: &String| args.large_task_sizes.contains(size);
        let mut rows = Vec::new();
        for &task in &args.task {
            if matches!(task, Work::Ceilings | Work::Reports) {
                rows.push(row(task));
                continue;
            }
            for size in args.sizes.iter().filter(|size| task == Work::Forward || large(size)) {
                for &precision in &args.precision {
                    let whose = args.whose.iter().filter(|whose| {
                        // A case is predicted by the library, with its own.
                        task != Work::Case || **whose == Operators::Own
                    });
                    let made = whose.map(|whose| Self {
                        precision: precision.name().into(),
                        operators: whose.name().into(),
                        ..row(task).of(args, task, size)
                    });
                    rows.extend(made);
                }
            }
        }
        rows
    }

    fn of(self, args: &Args, task: Work, size: &str) -> Self {
        Self {
            size: size.into(),
            patch: args.patch.clone(),
            batch: if task == Work::Train { args.batch } else { 1 },
            classes: args.classes,
            ..self
        }
    }

    /// Whether this row is what another one asks for, and holds what it asks for.
    pub fn is_done(&self, wanted: &Self) -> bool {
        let key = |row: &Self| {
            let Self { device, task, size, precision, operators, patch, batch, .. } = row.clone();
            (device, task, size, precision, operators, patch, batch)
        };
        key(self) == key(wanted) && self.error.is_none()
    }

    pub fn failed(self, reason: impl Into<String>) -> Self {
        Self { error: Some(reason.into()), ..self }
    }
}

/// A number, or a dash.
fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".into())
}

impl Row {
    fn cells(&self) -> [String; 10] {
        let secs = |secs: Option<f64>| or_dash(secs.map(|secs| format!("{secs:.4}")));
        let share =
            |share: Option<f64>| or_dash(share.map(|share| format!("{:.1} %", share * 1e2)));
        let memory = self.memory_bytes.map(|bytes| format!("{:.2}", bytes as f64 / 1e9));
        let task = match self.windows {
            Some(windows) => format!("{}, {windows} windows", self.task),
            None => self.task.clone(),
        };
        [
            self.device.clone(),
            task,
            self.size.clone(),
            self.precision.clone(),
            self.operators.clone(),
            secs(self.median_secs),
            secs(self.first_secs),
            share(self.copy_share),
            share(self.fma_share),
            or_dash(memory),
        ]
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = &self.error {
            let Self { device, task, size, precision, operators, .. } = self;
            return write!(f, "{device} {task} {size} {precision} {operators}: {error}");
        }
        if let (Some(report), Some(verdict), Some(why)) = (&self.report, &self.verdict, &self.why) {
            return write!(f, "{} {report}: {verdict} ({why})", self.device);
        }
        if let Some(copied) = self.copy_bytes_per_sec {
            let fmas = or_dash(self.fmas_per_sec.map(|fmas| format!("{:.1}", fmas / 1e9)));
            return write!(
                f,
                "{}: copies {:.1} GB/s, {fmas} thousand million multiply-adds a second",
                self.device,
                copied / 1e9
            );
        }
        write!(f, "{}", self.cells().join("  "))
    }
}

/// All rows as Markdown: the timings, then ceilings, reports and what was not measured.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| device | task | size | precision | operators | seconds | first call | of copies | \
         of multiply-adds | memory (GB) |\n|---|---|---|---|---|---:|---:|---:|---:|---:|\n",
    );
    for row in rows.iter().filter(|row| row.error.is_none() && row.median_secs.is_some()) {
        writeln!(text, "| {} |", row.cells().join(" | ")).unwrap();
    }
    text.push('\n');
    let rest = rows.iter().filter(|row| row.error.is_none() && row.median_secs.is_none());
    for row in rest.chain(rows.iter().filter(|row| row.error.is_some())) {
        writeln!(text, "- {row}").unwrap();
    }
    text
}
