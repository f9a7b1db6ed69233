//! The log of a run: JSON lines, one per epoch or event.

use crate::error::{Result, TrainError};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
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
}
