//! The log of a run: JSON lines, one per epoch or event.

use crate::error::{Result, TrainError};
use crate::history::EpochRecord;
use serde::Serialize;
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Name of the log in a fold's folder.
pub const LOG_FILE: &str = "training_log.jsonl";

/// A log that is open for appending.
///
/// Every line is one JSON object with `event` first. A line that a killed run left unfinished is
/// cut off on opening.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens a log, or begins one. It is locked as long as it is open, however the program ends.
    ///
    /// # Errors
    /// When the file cannot be opened or read, or another program writes it right now.
    #[allow(clippy::disallowed_methods, reason = "lines are appended, each in one piece")]
    pub fn open(path: &Path) -> Result<Self> {
        let io = |e| TrainError::io("open", path, e);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let mut file = options.open(path).map_err(io)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(TrainError::InUse(path.to_owned()));
        }
        let whole = end_of_last_line(&mut file).map_err(io)?;
        file.set_len(whole).map_err(io)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends one line: `event`, then the fields of `value`, which must be an object.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, event: &str, value: &impl Serialize) -> Result<()> {
        let io = |e| TrainError::io("write", &self.path, e);
        let mut line = Map::new();
        line.insert("event".into(), event.into());
        match serde_json::to_value(value).map_err(|e| io(e.into()))? {
            Value::Object(fields) => line.extend(fields),
            other => {
                line.insert("value".into(), other);
            }
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(io)
    }
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LogLine {
    /// A run begins, or goes on: with which epoch and iteration, out of how many.
    Begun {
        /// Epochs that are done.
        epoch: usize,
        /// Iterations of the next one that are done.
        iteration: usize,
        /// Epochs of the whole run.
        num_epochs: usize,
        /// Iterations of one epoch.
        num_iterations: usize,
    },
    /// An epoch is complete.
    Epoch(EpochRecord),
    /// The run was stopped, and can go on.
    Stopped,
    /// The run is complete.
    Finished,
}

impl LogLine {
    fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let count = |name: &str| usize::try_from(value.get(name)?.as_u64()?).ok();
        match value.get("event")?.as_str()? {
            "started" | "continued" => Some(Self::Begun {
                epoch: count("epoch")?,
                iteration: count("iteration")?,
                num_epochs: count("num_epochs")?,
                num_iterations: count("num_iterations")?,
            }),
            "epoch" => EpochRecord::from_json(&value).map(Self::Epoch),
            "stopped" => Some(Self::Stopped),
            "finished" => Some(Self::Finished),
            _ => None,
        }
    }
}

/// Reads the complete lines of a log from the byte `from` on, also while a run writes it. Returns them
/// with the byte after the last; lines that say nothing known are passed over.
///
/// # Errors
/// When the file cannot be read.
pub fn read_lines(path: &Path, from: u64) -> Result<(Vec<LogLine>, u64)> {
    let io = |e| TrainError::io("read", path, e);
    let mut file = File::open(path).map_err(io)?;
    // A log that became shorter is another one.
    let from = if file.metadata().map_err(io)?.len() < from { 0 } else { from };
    file.seek(SeekFrom::Start(from)).map_err(io)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(io)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let text = String::from_utf8_lossy(&bytes[..whole]);
    Ok((text.lines().filter_map(LogLine::parse).collect(), from + whole as u64))
}

/// Where the last complete line ends.
fn end_of_last_line(file: &mut File) -> std::io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(&mut *file);
    let (mut end, mut line) = (0, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        end += line.len() as u64;
        line.clear();
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_do_not_share_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let first = Log::open(&path).unwrap();
        let message = Log::open(&path).unwrap_err().to_string();
        assert!(message.contains("another program") && message.ends_with(LOG_FILE), "{message}");
        drop(first);
        Log::open(&path).unwrap();
    }

    #[test]
    fn an_unfinished_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let record = |epoch: usize| serde_json::json!({ "epoch": epoch, "lr": 0.01 });
        Log::open(&path).unwrap().write("epoch", &record(0)).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"event":"epo"#).unwrap();
        Log::open(&path).unwrap().write("epoch", &record(1)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let line =
            |epoch: usize| serde_json::json!({ "event": "epoch", "epoch": epoch, "lr": 0.01 });
        assert_eq!(lines, [line(0), line(1)]);
    }
    #[test]
    fn lines_are_read_while_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let mut log = Log::open(&path).unwrap();
        let begin = serde_json::json!({
            "epoch": 0, "iteration": 0, "num_epochs": 9, "num_iterations": 5,
        });
        log.write("started", &begin).unwrap();
        let (lines, at) = read_lines(&path, 0).unwrap();
        let begun = LogLine::Begun { epoch: 0, iteration: 0, num_epochs: 9, num_iterations: 5 };
        assert_eq!(lines, [begun]);
        log.write("something new", &begin).unwrap();
        log.write("finished", &serde_json::json!({ "epoch": 9 })).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"event":"stop"#).unwrap();
        let (lines, end) = read_lines(&path, at).unwrap();
        assert_eq!(lines, [LogLine::Finished]);
        assert_eq!(read_lines(&path, end).unwrap(), (Vec::new(), end));
        assert_eq!(read_lines(&path, 1 << 20).unwrap().0.len(), 2);
    }
}
