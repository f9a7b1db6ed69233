//! Errors and panics as one line on the terminal, and the exit codes.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::error::ErrorKind;
use stunet::kernels::{DeviceFailure, guarded};

use crate::interrupt::INTERRUPTED;
use crate::output;

/// The exit code of a wrong command line, as clap has it.
const USAGE: u8 = 2;

/// The first panic of any thread: later ones are its consequences.
static FIRST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Every failure has been told already; only the exit code is left to set.
#[derive(Debug)]
pub struct Told;

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("some cases failed")
    }
}

impl std::error::Error for Told {}

/// The user pressed Ctrl-C.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Notes the first panic instead of printing it: [`shielded`] tells it in one line.
///
/// Driver libraries also panic in their own threads, so the hook is set for the whole process.
pub fn quiet_panics() {
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        let place = info.location().map(|at| format!(" ({}:{})", file_name(at.file()), at.line()));
        let line = one_line(message) + place.as_deref().unwrap_or_default();
        FIRST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(line);
    }));
}

/// Runs `work`; a panic becomes an error with the first panic's message.
pub fn shielded<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    // What a device did not compute is told by an error of its own.
    let work = || guarded(work).unwrap_or_else(|failure| Err(failure.into()));
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let noted = FIRST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
        let noted = noted.unwrap_or_else(|| "no reason given".to_owned());
        match DeviceFailure::from_message(&noted) {
            Some(failure) => Err(failure.into()),
            None => Err(anyhow::anyhow!("{}: {noted}", kind_of(&noted))),
        }
    })
}

/// Whose fault a panic is. The standard library and rayon panic where the system starts no thread, and
/// operators where it has no memory, which is the system's word and no error of this program.
fn kind_of(panic: &str) -> &'static str {
    if panic.contains("no memory for a tensor") {
        return "memory: the system has less than the program was allowed; lower --max-memory, or \
                allow more (ulimit -v, the memory of the job)";
    }
    let threads = ["failed to spawn thread", "ThreadPoolBuildError", "the system starts"];
    match threads.into_iter().any(|words| panic.contains(words)) {
        true => {
            "the system starts no more threads; allow more of them (ulimit -u) or more memory \
             (ulimit -v)"
        }
        false => "internal error, please report it",
    }
}

/// As [`shielded`], for work that reports its failures itself.
pub fn survived(work: impl FnOnce()) -> anyhow::Result<()> {
    shielded(|| {
        work();
        Ok(())
    })
}

/// Prints the error, unless it has been printed, and chooses the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<Interrupted>() {
        return ExitCode::from(INTERRUPTED);
    }
    if !error.is::<Told>() {
        output::complain(&describe(error));
    }
    ExitCode::FAILURE
}

/// Reports a wrong command line in one line as well, with a hint in place of clap's where there is one;
/// help and version are printed as clap does.
pub fn report_usage(error: &clap::Error, hint: Option<String>) -> ExitCode {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // To standard error: where it cannot be written, nobody can be told.
        let _ = error.print();
        return ExitCode::from(USAGE);
    }
    if !error.use_stderr() {
        return match output::help(error) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report(&error),
        };
    }
    let text = error.to_string();
    let told = text.split("\nUsage:").next().unwrap_or(&text);
    let told = told.split("\nFor more information").next().unwrap_or(told).trim_end();
    let told = one_line(&told.trim_start_matches("error: ").replace("\n\n", "; "));
    let told = hint.unwrap_or(told);
    output::complain(&format!("{told} (see --help)"));
    ExitCode::from(USAGE)
}

/// The error and its causes as one line.
///
/// A cause that the preceding text already contains is left out.
pub fn describe(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = one_line(&cause.to_string());
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The place without the folders of the machine that built the binary.
fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn one_line_whatever_happens() {
        let inner: anyhow::Result<()> = Err(anyhow::anyhow!("first\n   second"));
        let error = inner.context("outer").unwrap_err();
        assert_eq!(describe(&error), "outer: first second");
        let error = anyhow::anyhow!("full: inner").context("full: inner, told above");
        assert_eq!(describe(&error), "full: inner, told above");
    }

    #[test]
    fn panics_become_errors() {
        quiet_panics();
        let error = shielded(|| -> anyhow::Result<()> { panic!("no\n driver") }).unwrap_err();
        let line = describe(&error);
        assert!(line.contains("no driver") && line.contains("failure.rs"), "{line}");
        assert!(line.starts_with("internal error, please report it"), "{line}");
        let failed = || -> anyhow::Result<()> {
            panic!("failed to spawn thread: {}", std::io::ErrorKind::WouldBlock)
        };
        let line = describe(&shielded(failed).unwrap_err());
        assert!(line.starts_with("the system starts no more threads; allow more"), "{line}");
        let failed = || -> anyhow::Result<()> { panic!("no memory for a tensor of 4 bytes") };
        let line = describe(&shielded(failed).unwrap_err());
        assert!(line.starts_with("memory: the system has less"), "{line}");
        let failed = || -> anyhow::Result<()> { panic!("wgpu error: Out of Memory") };
        let line = describe(&shielded(failed).unwrap_err());
        assert!(line.starts_with("device: its memory is full; close other"), "{line}");
    }
}
