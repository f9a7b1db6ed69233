//! What a run writes to disk: log, curves, checkpoints.

use super::{FitConfig, OnEvent, TrainingState};
use crate::checkpoint::{self, BEST, FINAL, LATEST};
use crate::error::{Result, TrainError};
use crate::events::FitEvent;
use crate::history::EpochRecord;
use crate::log::{LOG_FILE, Log};
use crate::progress_png::{self, PROGRESS_FILE};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use stunet_model::weights::atomic;

/// The folder of one fold, and what its checkpoints say about the run beside its state.
#[derive(Clone, Debug)]
pub struct FoldFolder {
    /// The folder.
    pub path: PathBuf,
    /// Settings of whoever trains: kept in every checkpoint, returned as they are.
    pub run: Value,
}

impl FoldFolder {
    /// A folder, with no settings to keep.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), run: Value::Null }
    }

    /// True when the final checkpoint is there.
    pub fn is_final(&self) -> bool {
        self.path.join(FINAL).is_file()
    }

    /// Removes the latest checkpoint, once the final one is there.
    pub(super) fn remove_latest(&self) -> Result<()> {
        let latest = self.path.join(LATEST);
        match std::fs::remove_file(&latest) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(TrainError::io("remove", &latest, e))
            }
            _ => Ok(()),
        }
    }

    /// The checkpoint a run goes on from: the final one, else the latest, else the best.
    pub fn newest_checkpoint(&self) -> Option<PathBuf> {
        let files = [FINAL, LATEST, BEST].map(|name| self.path.join(name));
        files.into_iter().find(|file| file.is_file())
    }
}

/// Writes it all; without a folder, nothing.
pub(super) struct Recorder<'a> {
    open: Option<Open<'a>>,
    save_every: usize,
}

struct Open<'a> {
    folder: &'a FoldFolder,
    log: Log,
    last_good: Option<PathBuf>,
}

impl<'a> Recorder<'a> {
    pub(super) fn open(
        folder: Option<&'a FoldFolder>,
        state: &TrainingState,
        config: &FitConfig,
    ) -> Result<Self> {
        let open = folder.map(|folder| Open::new(folder, state, config)).transpose()?;
        Ok(Self { open, save_every: config.save_every })
    }

    /// The newest checkpoint of this run.
    pub(super) fn last_good(&self) -> Option<PathBuf> {
        self.open.as_ref()?.last_good.clone()
    }

    /// After an epoch: the log, the picture, and the checkpoints that are due.
    pub(super) fn epoch(
        &mut self,
        state: &TrainingState,
        record: &EpochRecord,
        on_event: OnEvent<'_>,
    ) -> Result<()> {
        let due = state.progress.epoch.is_multiple_of(self.save_every);
        let Some(open) = &mut self.open else { return Ok(()) };
        open.log.write("epoch", &record.to_json())?;
        progress_png::draw(&state.progress.history, &open.folder.path.join(PROGRESS_FILE))?;
        match (due, state.progress.is_best) {
            (false, false) => Ok(()),
            (false, true) => open.save(BEST, state, on_event),
            (true, false) => open.save(LATEST, state, on_event),
            (true, true) => {
                open.save(LATEST, state, on_event)?;
                // One file for both names, where that can be.
                let [latest, best] = [LATEST, BEST].map(|name| open.folder.path.join(name));
                if atomic::link(&latest, &best) { Ok(()) } else { open.save(BEST, state, on_event) }
            }
        }
    }

    /// When the run is stopped.
    pub(super) fn save_latest(
        &mut self,
        state: &TrainingState,
        on_event: OnEvent<'_>,
    ) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let Progressed { epoch, iteration } = Progressed::of(state);
        open.log.write("stopped", &json!({ "epoch": epoch, "iteration": iteration }))?;
        open.save(LATEST, state, on_event)
    }

    /// When the run is complete: the latest checkpoint has become the final one.
    pub(super) fn finish(&mut self, state: &TrainingState, on_event: OnEvent<'_>) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.save(FINAL, state, on_event)?;
        open.log.write("finished", &json!({ "epoch": state.progress.epoch }))?;
        open.folder.remove_latest()
    }
}

struct Progressed {
    epoch: usize,
    iteration: usize,
}

impl Progressed {
    fn of(state: &TrainingState) -> Self {
        Self { epoch: state.progress.epoch, iteration: state.progress.iteration }
    }
}

impl<'a> Open<'a> {
    fn new(folder: &'a FoldFolder, state: &TrainingState, config: &FitConfig) -> Result<Self> {
        let path = &folder.path;
        std::fs::create_dir_all(path).map_err(|e| TrainError::io("create", path, e))?;
        let mut log = Log::open(&path.join(LOG_FILE))?;
        atomic::sweep(path).map_err(|e| TrainError::io("clean", path, e))?;
        let Progressed { epoch, iteration } = Progressed::of(state);
        let begin = json!({
            "epoch": epoch, "iteration": iteration,
            "num_epochs": config.num_epochs, "num_iterations": config.num_iterations,
        });
        let first = epoch == 0 && iteration == 0;
        log.write(if first { "started" } else { "continued" }, &begin)?;
        let last_good = folder.newest_checkpoint().filter(|_| !first);
        Ok(Self { folder, log, last_good })
    }

    fn save(&mut self, name: &str, state: &TrainingState, on_event: OnEvent<'_>) -> Result<()> {
        let path = self.folder.path.join(name);
        state.save(&path, &self.folder.run)?;
        let _ = on_event(FitEvent::Saved { path: &path });
        self.last_good = Some(path);
        Ok(())
    }
}

impl TrainingState {
    /// Writes everything there is into one checkpoint; `run` is kept with it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path, run: &Value) -> Result<()> {
        let (state, groups) = self.to_parts(run.clone());
        checkpoint::save(path, &state, &groups)
    }
}
