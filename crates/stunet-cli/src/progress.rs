//! The progress bar. Without a terminal, or with `--quiet`, it draws nothing.

use std::fmt;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use stunet::infer::{PredictEvent, Stage};

use crate::output;

/// The bar of one case.
pub struct CaseBar {
    bar: ProgressBar,
    /// Whether the first window waits for kernels that are compiled.
    compiles: bool,
}

impl CaseBar {
    /// A bar with the text `title`.
    pub fn new(title: String, quiet: bool) -> Self {
        let title = output::shown(&title).into_owned();
        let bar = output::bar(ProgressBar::no_length().with_prefix(title), quiet);
        bar.set_style(style("{spinner} {prefix}  {msg}  {elapsed}"));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar.set_message("reading");
        Self { bar, compiles: false }
    }

    /// The same for the first case on a GPU, whose kernels are compiled with the first window.
    pub fn of_first_case(mut self, on_gpu: bool) -> Self {
        self.compiles = on_gpu;
        self
    }

    /// Updates the bar for an event of the prediction.
    pub fn on_event(&self, event: PredictEvent) {
        match event {
            PredictEvent::Stage(Stage::Preprocess) => self.say("preprocessing"),
            PredictEvent::Stage(Stage::Export) => self.say("restoring"),
            PredictEvent::Windows { done: 0, .. } if self.compiles => {
                self.say("compiling the kernels of the first window");
            }
            PredictEvent::Windows { done, total } => self.count(done, total, "windows"),
            _ => {}
        }
    }

    /// Starts a stage with a known number of steps.
    pub fn count(&self, done: usize, total: usize, what: &'static str) {
        if self.bar.length() != Some(total as u64) {
            self.bar.set_style(style(&format!(
                "{{spinner}} {{prefix}}  [{{bar:28}}] {{pos}}/{{len}} {what}  {{elapsed}}{{left}}"
            )));
            self.bar.set_length(total as u64);
            self.bar.reset_eta();
        }
        self.bar.set_position(done as u64);
    }

    /// Starts a stage without a known number of steps.
    pub fn say(&self, stage: &'static str) {
        self.bar.set_style(style("{spinner} {prefix}  {msg}  {elapsed}"));
        self.bar.set_message(stage);
    }
}

/// The bar of a file whose bytes are counted.
pub struct ByteBar {
    bar: ProgressBar,
}

impl ByteBar {
    /// A bar with the text `title`; the number of bytes need not be known.
    pub fn new(title: String, total: Option<u64>, quiet: bool) -> Self {
        let title = output::shown(&title).into_owned();
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        let bar = output::bar(bar.with_prefix(title), quiet);
        bar.set_style(style(match total {
            Some(_) => {
                "{spinner} {prefix}  [{bar:28}] {decimal_bytes}/{decimal_total_bytes}, \
                 {decimal_bytes_per_sec}{left}"
            }
            None => "{spinner} {prefix}  {decimal_bytes}, {decimal_bytes_per_sec}",
        }));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// So many bytes are there.
    pub fn at(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }
}

impl Drop for ByteBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for CaseBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.expect("the templates above are well formed").with_key("left", write_left)
}

/// Nothing can be said of the time left before the first window is done.
fn write_left(state: &ProgressState, to: &mut dyn fmt::Write) {
    if state.pos() > 0 {
        // A bar without its last words is still a bar.
        let _ = write!(to, ", {:#} left", HumanDuration(state.eta()));
    }
}
