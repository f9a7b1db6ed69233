//! A test program that says what it did: passed, failed, or ignored and why.
//!
//! The standard harness decides before a test starts whether it is ignored. Tests that need something
//! which may be absent, recorded data or a device, find that out when they run; a target with
//! `harness = false` and [`Tests`] reports them as ignored, with the reason on the test's line and
//! again, counted, below the summary. Everything else is as usual: filters by name, `--skip`,
//! `--exact`, `--list`, `--test-threads`, `--nocapture`.
//!
//! `--ignored` runs the tests known to lack something, and then they fail; so does
//! `--include-ignored`.

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

/// What a test needs and did not find: the reason why it is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent(String);

impl Absent {
    /// An absent thing; `reason` is what the summary prints.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        &self.0
    }
}

/// What a check returns: nothing, or whether it found what it needs.
pub trait Ran {
    /// Whether the check ran.
    fn ran(self) -> Result<(), Absent>;
}

impl Ran for () {
    fn ran(self) -> Result<(), Absent> {
        Ok(())
    }
}

impl Ran for Result<(), Absent> {
    fn ran(self) -> Result<(), Absent> {
        self
    }
}

/// How often each reason was given.
type Reasons = Arc<Mutex<BTreeMap<String, usize>>>;

/// The tests of one program.
pub struct Tests {
    arguments: Arguments,
    /// All filters where there are several: the crate underneath knows one.
    filters: Vec<String>,
    required: bool,
    trials: Vec<Trial>,
    reasons: Reasons,
}

impl Tests {
    /// No tests yet; the program's arguments are read.
    ///
    /// # Panics
    /// Ends the program with a usage message when an argument is unknown.
    pub fn from_arguments() -> Self {
        let (mut rest, filters) = split_filters(std::env::args());
        if let [only] = &filters[..] {
            rest.push(only.clone());
        }
        std::panic::set_hook(Box::new(|panic| {
            // In a test: kept for its failure. In a thread that a test started: printed as usual.
            if !keep(&format!("{panic}\n")) {
                let _ = writeln!(std::io::stderr(), "{panic}");
            }
        }));
        let arguments = Arguments::from_iter(rest);
        let required = arguments.ignored || arguments.include_ignored;
        Self { arguments, filters, required, trials: Vec::new(), reasons: Reasons::default() }
    }

    /// Makes everything that is absent a failure.
    pub fn require_everything(&mut self) {
        self.required = true;
    }

    /// The names of the tests so far.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.trials.iter().map(Trial::name)
    }

    /// Adds a test. `ready` says whether what it needs is there, as far as that is known by now.
    pub fn add<R: Ran>(
        &mut self,
        name: impl Into<String>,
        ready: Result<(), Absent>,
        check: impl FnOnce() -> R + Send + 'static,
    ) {
        let (required, reasons) = (self.required, Arc::clone(&self.reasons));
        let live = self.arguments.nocapture || self.arguments.show_output;
        let known = ready.is_err();
        let runner = move || match listen(live, || ready.and_then(|()| check().ran()))? {
            Ok(()) => Ok(Completion::Completed),
            Err(absent) if required => Err(Failed::from(absent.0)),
            Err(Absent(reason)) => {
                let mut reasons = reasons.lock().expect("no test panics while it counts");
                *reasons.entry(reason.clone()).or_default() += 1;
                Ok(Completion::ignored_with(reason))
            }
        };
        // Where all are asked for the flag would say "ignored" and leave the reason out.
        let flag = known && self.arguments.ignored;
        self.trials.push(Trial::ignorable_test(name, runner).with_ignored_flag(flag));
    }

    /// Adds a test that fails: what it was to be made from is not as expected.
    pub fn fail(&mut self, name: impl Into<String>, why: String) {
        self.trials.push(Trial::test(name, move || Err(Failed::from(why))));
    }

    /// Runs the tests and prints the summary, reasons included.
    pub fn run(mut self) -> ExitCode {
        if self.filters.len() > 1 {
            let Self { arguments, filters, trials, .. } = &mut self;
            trials.retain(|trial| {
                filters.iter().any(|filter| match arguments.exact {
                    true => trial.name() == filter,
                    false => trial.name().contains(filter.as_str()),
                })
            });
        }
        let conclusion = libtest_mimic::run(&self.arguments, self.trials);
        let reasons = self.reasons.lock().expect("no test panics while it counts");
        if !reasons.is_empty() && !self.arguments.list {
            let mut text = String::from("ignored:\n");
            for (reason, count) in reasons.iter() {
                let tests = if *count == 1 { "test" } else { "tests" };
                text += &format!("    {count} {tests}: {reason}\n");
            }
            let _ = writeln!(std::io::stdout(), "{text}");
        }
        conclusion.exit_code()
    }
}

/// The arguments without the filters, and the filters.
fn split_filters(arguments: impl Iterator<Item = String>) -> (Vec<String>, Vec<String>) {
    const WITH_VALUE: [&str; 6] =
        ["--test-threads", "--logfile", "--skip", "--color", "--format", "-Z"];
    let (mut rest, mut filters) = (Vec::new(), Vec::new());
    let mut value_follows = true; // the program's own name
    for argument in arguments {
        if value_follows || argument.starts_with('-') {
            value_follows = WITH_VALUE.contains(&argument.as_str());
            rest.push(argument);
        } else {
            filters.push(argument);
        }
    }
    (rest, filters)
}

thread_local! {
    /// What the test on this thread has said; none outside of tests and where it is printed at once.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps a text for the test on this thread; false where none listens.
fn keep(text: &str) -> bool {
    SAID.with_borrow_mut(|said| said.as_mut().map(|said| said.push_str(text)).is_some())
}

/// Says something about the running test: printed when it fails, or with `--nocapture`.
pub fn say(text: fmt::Arguments<'_>) {
    if !keep(&format!("{text}\n")) {
        println!("{text}");
    }
}

/// Prints like `println!`; in the tests of [`Tests`] only when the test fails or with `--nocapture`.
#[macro_export]
macro_rules! say {
    ($($arguments:tt)*) => { $crate::harness::say(format_args!($($arguments)*)) };
}

/// Runs one test and gathers what it says, unless that is printed at once.
fn listen<T>(live: bool, test: impl FnOnce() -> T) -> Result<T, Failed> {
    SAID.set(if live { None } else { Some(String::new()) });
    let outcome = catch_unwind(AssertUnwindSafe(test));
    let said = SAID.take().unwrap_or_default();
    outcome.map_err(|panic| {
        // Of a panic on another thread the hook on this one knows nothing.
        let why = message(panic.as_ref());
        Failed::from(if said.contains(&why) { said } else { said + &why })
    })
}

/// The text of a panic.
pub fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests(arguments: &[&str]) -> Tests {
        let arguments = Arguments::from_iter([&["program"], arguments].concat());
        let required = arguments.ignored || arguments.include_ignored;
        let (filters, trials) = (Vec::new(), Vec::new());
        Tests { arguments, filters, required, trials, reasons: Reasons::default() }
    }

    /// Passed, failed and ignored of three tests: one passes, one lacks something from the start, one
    /// finds out when it runs.
    fn counts(arguments: &[&str]) -> [u64; 3] {
        let mut tests = tests(arguments);
        let absent = || Err(Absent::new("needs a scanner"));
        tests.add("passes", Ok(()), || ());
        tests.add("lacks", absent(), || assert_eq!("ran", "never"));
        tests.add("finds_out", Ok(()), absent);
        let conclusion = libtest_mimic::run(&tests.arguments, tests.trials);
        [conclusion.num_passed, conclusion.num_failed, conclusion.num_ignored]
    }

    #[test]
    fn what_is_absent_is_ignored_and_never_passed() {
        assert_eq!(counts(&[]), [1, 0, 2]);
        assert_eq!(counts(&["--test-threads", "1"]), [1, 0, 2]);
    }

    #[test]
    fn what_is_absent_fails_where_it_is_asked_for() {
        assert_eq!(counts(&["--ignored"]), [0, 1, 0]);
        assert_eq!(counts(&["--include-ignored"]), [1, 2, 0]);
    }

    #[test]
    fn reasons_are_counted() {
        let mut tests = tests(&[]);
        for name in ["a", "b"] {
            tests.add(name, Err(Absent::new("needs a scanner")), || ());
        }
        let reasons = Arc::clone(&tests.reasons);
        let _ = libtest_mimic::run(&tests.arguments, tests.trials);
        assert_eq!(reasons.lock().unwrap()["needs a scanner"], 2);
    }

    #[test]
    fn a_failure_tells_what_the_test_said() {
        let failed = listen(false, || {
            crate::say!("peak {}", 3);
            std::panic::resume_unwind(Box::new("beyond the bound"));
        });
        let text = format!("{:?}", failed.map(|(): ()| ()).unwrap_err());
        assert!(text.contains("peak 3"), "{text}");
        assert!(listen(false, || crate::say!("nothing wrong")).is_ok());
    }

    #[test]
    fn filters_are_told_from_values() {
        let words = ["program", "model::", "--skip", "export", "--nocapture", "loss", "--exact"];
        let (rest, filters) = split_filters(words.map(str::to_owned).into_iter());
        assert_eq!(rest, ["program", "--skip", "export", "--nocapture", "--exact"]);
        assert_eq!(filters, ["model::", "loss"]);
    }
}
