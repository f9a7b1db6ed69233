//! Scalars of a run as event files of TensorBoard.
//!
//! `tensorboard --logdir FOLDER` shows them. One file is written per start of a run; it holds the whole
//! history, so that a run that goes on, and one that is begun again, shows one curve.
//!
//! ```
//! use stunet_train::tensorboard::EventFile;
//! let folder = tempfile::tempdir()?;
//! let names = ["liver".to_owned()];
//! let events = EventFile::begin(folder.path(), &names, &[])?;
//! assert!(events.path().starts_with(folder.path()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::error::{Result, TrainError};
use crate::history::EpochRecord;
use prost::Message;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the folder of event files in the folder of a fold.
pub const TENSORBOARD_FOLDER: &str = "tensorboard";

/// What TensorBoard calls the layout of these files.
const VERSION: &str = "brain.Event:2";

/// One event file, to which epochs are added.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
    names: Vec<String>,
}

impl EventFile {
    /// Begins a new file in a folder, which is made where it is missing, with the epochs that are done.
    ///
    /// `names` are those of the foreground classes or regions, in the order of
    /// [`EpochRecord::dice_per_class`]; a class without one is called by its number. Events of earlier
    /// files in the folder are declared outdated, so that no epoch is shown twice.
    ///
    /// # Errors
    /// When folder or file cannot be written.
    #[allow(clippy::disallowed_methods, reason = "records are appended, each in one piece")]
    pub fn begin(folder: &Path, names: &[String], done: &[EpochRecord]) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| TrainError::io("create", folder, e))?;
        let now = now_secs();
        let (path, file) = (0..)
            .find_map(|number| {
                // TensorBoard reads the files of a folder in the order of their names.
                let process = std::process::id();
                let name =
                    format!("events.out.tfevents.{:010}.{number}.{process}.stunet", now as u64);
                let path = folder.join(name);
                match OpenOptions::new().append(true).create_new(true).open(&path) {
                    Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => None,
                    opened => Some(opened.map(|file| (path.clone(), file)).map_err(|e| (path, e))),
                }
            })
            .expect("one of all numbers is free")
            .map_err(|(path, e)| TrainError::io("create", &path, e))?;
        let mut events = Self { path, file, names: names.to_vec() };
        let spent: f64 = done.iter().map(secs_of).sum();
        let version = What::FileVersion(VERSION.to_owned());
        events.write(Event { wall_time: now - spent, step: 0, what: Some(version) })?;
        let restart = What::SessionLog(SessionLog { status: SESSION_START });
        events.write(Event { wall_time: now - spent, step: 0, what: Some(restart) })?;
        let mut at = now - spent;
        for record in done {
            at += secs_of(record);
            events.add(record, at)?;
        }
        Ok(events)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the scalars of an epoch that has just ended.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn epoch(&mut self, record: &EpochRecord) -> Result<()> {
        self.add(record, now_secs())
    }

    fn add(&mut self, record: &EpochRecord, wall_time: f64) -> Result<()> {
        let values = scalars(record, &self.names).into_iter();
        let values =
            values.map(|(tag, value)| SummaryValue { tag, simple_value: Some(value as f32) });
        let summary = What::Summary(Summary { value: values.collect() });
        self.write(Event { wall_time, step: record.epoch as i64, what: Some(summary) })
    }

    fn write(&mut self, event: Event) -> Result<()> {
        let record = framed(&event.encode_to_vec());
        self.file.write_all(&record).map_err(|e| TrainError::io("write", &self.path, e))
    }
}

/// What is shown of an epoch: tags and values; what is not known is left out.
pub fn scalars(record: &EpochRecord, names: &[String]) -> Vec<(String, f64)> {
    let mean = [
        ("loss/training", Some(record.train_loss)),
        ("loss/validation", record.val_loss),
        ("pseudo_dice/mean", record.pseudo_dice),
        ("pseudo_dice/moving_average", record.ema_pseudo_dice),
        ("learning_rate", Some(record.lr)),
        ("gradient_norm", Some(record.grad_norm)),
        ("skipped_steps", Some(record.skipped_steps as f64)),
        ("seconds/epoch", Some(secs_of(record))),
        ("seconds/waiting_for_batches", Some(record.wait_secs)),
    ];
    let mean = mean.into_iter().filter_map(|(tag, value)| Some((tag.to_owned(), value?)));
    let classes = record.dice_per_class.iter().enumerate().filter_map(|(index, dice)| {
        let name = names.get(index).cloned().unwrap_or_else(|| (index + 1).to_string());
        Some((format!("pseudo_dice_of_class/{name}"), (*dice)?))
    });
    mean.chain(classes).collect()
}

fn secs_of(record: &EpochRecord) -> f64 {
    record.train_secs + record.val_secs
}

fn now_secs() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A record of TensorFlow: length and content, each with its checksum.
fn framed(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(content.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(content);
    record.extend(masked_crc(content).to_le_bytes());
    record
}

/// # Source
/// TensorFlow, `tensorflow/core/lib/hash/crc32c.h`.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

// The parts of TensorFlow's event.proto and summary.proto that are written here.

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// Events of this step and later ones, in files that were read before, are outdated.
const SESSION_START: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: usize) -> EpochRecord {
        EpochRecord {
            epoch,
            lr: 0.01,
            train_loss: 0.5,
            val_loss: None,
            dice_per_class: vec![Some(0.75), None, Some(0.0)],
            pseudo_dice: Some(0.375),
            ema_pseudo_dice: Some(0.25),
            grad_norm: 2.0,
            skipped_steps: 0,
            train_secs: 3.0,
            wait_secs: 1.0,
            val_secs: 0.5,
        }
    }

    /// The events of a file, whose checksums are computed anew.
    fn read(path: &Path) -> Vec<Event> {
        let bytes = std::fs::read(path).unwrap();
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let (length, after) = rest.split_at(8);
            let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
            assert_eq!(number(after), masked_crc(length));
            let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            let content = &after[4..4 + length];
            assert_eq!(number(&after[4 + length..]), masked_crc(content));
            events.push(Event::decode(content).unwrap());
            rest = &after[8 + length..];
        }
        events
    }

    #[test]
    fn the_checksum_is_tensorflows() {
        // Of the eight bytes of the length 24, as in files of TensorFlow 2.15.
        assert_eq!(masked_crc(&24_u64.to_le_bytes()), u32::from_le_bytes([0xa3, 0x7f, 0x4b, 0x22]));
    }

    #[test]
    fn every_scalar_once() {
        let names = ["liver".to_owned(), "spleen".to_owned()];
        let tags: Vec<String> =
            scalars(&record(0), &names).into_iter().map(|(tag, _)| tag).collect();
        let expected = [
            "loss/training",
            "pseudo_dice/mean",
            "pseudo_dice/moving_average",
            "learning_rate",
            "gradient_norm",
            "skipped_steps",
            "seconds/epoch",
            "seconds/waiting_for_batches",
            "pseudo_dice_of_class/liver",
            "pseudo_dice_of_class/3",
        ];
        assert_eq!(tags, expected);
    }

    #[test]
    fn each_start_tells_the_whole_history() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = EventFile::begin(folder.path(), &[], &[]).unwrap();
        first.epoch(&record(0)).unwrap();
        let mut second = EventFile::begin(folder.path(), &[], &[record(0)]).unwrap();
        second.epoch(&record(1)).unwrap();
        assert!(first.path() < second.path(), "TensorBoard reads them in this order");
        let events = read(second.path());
        assert_eq!(events[0].what, Some(What::FileVersion(VERSION.to_owned())));
        let restart = What::SessionLog(SessionLog { status: SESSION_START });
        assert_eq!((events[1].step, &events[1].what), (0, &Some(restart)));
        let steps: Vec<i64> = events[2..].iter().map(|event| event.step).collect();
        assert_eq!(steps, [0, 1]);
        let Some(What::Summary(summary)) = &events[3].what else { panic!("{:?}", events[3]) };
        assert_eq!(summary.value.len(), 10);
        let skipped = summary.value.iter().find(|value| value.tag == "skipped_steps").unwrap();
        assert_eq!(skipped.simple_value, Some(0.0), "a zero is a value");
        let times: Vec<f64> = events.iter().map(|event| event.wall_time).collect();
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");
    }
}
