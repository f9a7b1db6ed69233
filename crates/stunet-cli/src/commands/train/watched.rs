//! Who is told how a training goes: the terminal, line by line or as a screen, and TensorBoard.

use std::path::{Path, PathBuf};

use stunet::train::tensorboard::{EventFile, TENSORBOARD_FOLDER};
use stunet::train::{EpochRecord, FitEvent, FoldFolder, TrainingState};

use super::Run;
use super::progress::TrainingProgress;
use crate::args::TrainArgs;
use crate::board::Board;
use crate::output;

/// Everyone who is told.
pub struct Listeners<'a> {
    plain: Option<TrainingProgress>,
    #[cfg(all(unix, feature = "watch"))]
    live: Option<live::Live<'a>>,
    events: Option<Events>,
    #[cfg_attr(not(all(unix, feature = "watch")), allow(dead_code, reason = "no screen asks"))]
    args: &'a TrainArgs,
    /// Where a bar that begins late begins.
    #[cfg_attr(not(all(unix, feature = "watch")), allow(dead_code, reason = "no bar does"))]
    at: [usize; 4],
}

/// Events for TensorBoard.
enum Events {
    /// A file that is not begun.
    ToCome { folder: PathBuf, names: Vec<String>, done: Vec<EpochRecord> },
    /// One to which epochs are added.
    Open(EventFile),
}

impl<'a> Listeners<'a> {
    /// Whoever the options ask for. A screen needs a terminal; without one that is said.
    pub fn new(
        args: &'a TrainArgs,
        state: &TrainingState,
        (run, fold): (&Run, &FoldFolder),
        devices: &'a stunet::device::Devices,
    ) -> anyhow::Result<Self> {
        let done = &state.progress.history;
        let folder = event_folder(args, fold);
        if let Some(folder) = &folder {
            super::say(args, &format!("TensorBoard: {}", folder.display()))?;
        }
        let events = folder.map(|folder| Events::ToCome {
            folder,
            names: class_names(run),
            done: done.clone(),
        });
        let mut listeners = Self {
            plain: None,
            #[cfg(all(unix, feature = "watch"))]
            live: None,
            events,
            args,
            at: [0; 4],
        };
        if args.watching.watch {
            listeners.show(board_of(run, fold, done), devices)?;
        }
        if !listeners.is_live() {
            listeners.plain = Some(TrainingProgress::new(args.json, args.quiet));
        }
        Ok(listeners)
    }

    #[cfg(all(unix, feature = "watch"))]
    fn show(&mut self, board: Board, devices: &'a stunet::device::Devices) -> anyhow::Result<()> {
        self.live = live::Live::open(board, devices)?;
        if self.live.is_none() {
            output::complain(
                "--watch: standard output is no terminal; going on without the screen",
            );
        }
        Ok(())
    }

    #[cfg(not(all(unix, feature = "watch")))]
    fn show(&mut self, _: Board, _: &'a stunet::device::Devices) -> anyhow::Result<()> {
        output::complain("--watch: this program was built without the screen; going on without it");
        Ok(())
    }

    /// Whether a screen is shown.
    #[cfg(all(unix, feature = "watch"))]
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Whether a screen is shown.
    #[cfg(not(all(unix, feature = "watch")))]
    pub fn is_live(&self) -> bool {
        false
    }

    /// Tells everyone.
    pub fn on_event(&mut self, event: &FitEvent<'_>) -> anyhow::Result<()> {
        match event {
            FitEvent::Started { epoch, iteration, num_epochs, num_iterations } => {
                self.begin_events()?;
                self.at = [*epoch, *iteration, *num_epochs, *num_iterations];
            }
            FitEvent::Step(step) => self.at[..2].copy_from_slice(&[step.epoch, step.iteration]),
            FitEvent::Epoch(record) => self.epoch(record)?,
            _ => {}
        }
        #[cfg(all(unix, feature = "watch"))]
        if let Some(live) = &mut self.live {
            if live.on_event(event) {
                return Ok(());
            }
            self.close(event)?;
        }
        self.plain.as_mut().map_or(Ok(()), |plain| plain.on_event(event))
    }

    fn epoch(&mut self, record: &EpochRecord) -> anyhow::Result<()> {
        match &mut self.events {
            Some(Events::Open(events)) => Ok(events.epoch(record)?),
            _ => Ok(()),
        }
    }

    /// Begins the event file, which tells what is done already. Not before the training has begun: a run
    /// that another process does is refused then.
    pub fn begin_events(&mut self) -> anyhow::Result<()> {
        if let Some(Events::ToCome { folder, names, done }) = &self.events {
            self.events = Some(Events::Open(EventFile::begin(folder, names, done)?));
        }
        Ok(())
    }

    /// Goes on line by line after somebody has left the screen, or the terminal is gone.
    #[cfg(all(unix, feature = "watch"))]
    fn close(&mut self, event: &FitEvent<'_>) -> anyhow::Result<()> {
        self.live = None;
        let mut plain = TrainingProgress::new(self.args.json, self.args.quiet);
        if !matches!(event, FitEvent::Started { .. }) {
            let [epoch, iteration, num_epochs, num_iterations] = self.at;
            plain.on_event(&FitEvent::Started { epoch, iteration, num_epochs, num_iterations })?;
        }
        self.plain = Some(plain);
        Ok(())
    }
}

/// Where the events of a fold go.
fn event_folder(args: &TrainArgs, fold: &FoldFolder) -> Option<PathBuf> {
    let given = args.watching.tensorboard.as_ref()?;
    let Some(folder) = given else { return Some(fold.path.join(TENSORBOARD_FOLDER)) };
    // DATASET/TRAINER__PLANS__CONFIG/fold_FOLD
    let names: Vec<_> = fold.path.iter().rev().take(3).collect();
    Some(names.into_iter().rev().fold(folder.clone(), |path, name| path.join(name)))
}

/// The foreground classes or regions of a run, in the order of their scores.
fn class_names(run: &Run) -> Vec<String> {
    let labels = run.about.labels.labels().iter().skip(1);
    labels.map(|label| label.name.clone()).collect()
}

fn board_of(run: &Run, fold: &FoldFolder, done: &[EpochRecord]) -> Board {
    Board::new(title_of(&fold.path), class_names(run), done.to_vec())
}

/// `DATASET, TRAINER__PLANS__CONFIG, fold N`, from the folder of a fold.
pub fn title_of(fold: &Path) -> String {
    let names: Vec<_> = fold.iter().rev().take(3).map(|name| name.to_string_lossy()).collect();
    let words = names.iter().rev().map(|name| match name.strip_prefix("fold_") {
        Some(fold) => format!("fold {fold}"),
        None => name.clone().into_owned(),
    });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(all(unix, feature = "watch"))]
mod live {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    use stunet::device::Devices;
    use stunet::train::FitEvent;

    use crate::board::draw::draw;
    use crate::board::{Board, Doing, Memory};
    use crate::screen::Screen;
    use crate::{interrupt, machine, output};

    /// Time between two pictures of the screen.
    const PAUSE: Duration = Duration::from_millis(200);
    /// Time between two questions for memory.
    const RARE: Duration = Duration::from_secs(2);

    /// A screen that a thread of its own draws.
    pub struct Live<'a> {
        board: Arc<Mutex<Board>>,
        ended: Arc<AtomicBool>,
        thread: Option<JoinHandle<()>>,
        devices: &'a Devices,
        measured: Option<Instant>,
    }

    impl<'a> Live<'a> {
        /// Shows a run; none where there is no terminal.
        pub fn open(mut board: Board, devices: &'a Devices) -> anyhow::Result<Option<Self>> {
            "q closes this screen, and the training goes on; Ctrl-C stops the training after a step"
                .clone_into(&mut board.keys);
            let Some(screen) = Screen::open()? else { return Ok(None) };
            let board = Arc::new(Mutex::new(board));
            let ended = Arc::new(AtomicBool::new(false));
            let thread = std::thread::Builder::new().name("screen".to_owned());
            let of_thread = (board.clone(), ended.clone());
            let thread = thread.spawn(move || show(screen, &of_thread.0, &of_thread.1))?;
            let (thread, measured) = (Some(thread), None);
            Ok(Some(Self { board, ended, thread, devices, measured }))
        }

        /// Takes up an event; false once the screen has gone.
        pub fn on_event(&mut self, event: &FitEvent<'_>) -> bool {
            let is_gone = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            let due = self.measured.is_none_or(|before| before.elapsed() > RARE);
            let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
            board.on_event(event);
            if due {
                let device = [self.devices.first()].into_iter().chain(self.devices.others());
                let device: Option<u64> = device.map(|chosen| chosen.reserved_bytes()).sum();
                board.memory = Memory { host: machine::own_memory(), device };
                self.measured = Some(Instant::now());
            }
            !is_gone
        }
    }

    impl Drop for Live<'_> {
        fn drop(&mut self) {
            self.ended.store(true, Ordering::SeqCst);
            if let Some(thread) = self.thread.take() {
                thread.thread().unpark();
                // Its screen is gone in any case.
                let _ = thread.join();
            }
        }
    }

    fn show(mut screen: Screen, board: &Mutex<Board>, ended: &AtomicBool) {
        while !ended.load(Ordering::SeqCst) && !screen.is_left() {
            let mut now = board.lock().unwrap_or_else(PoisonError::into_inner).clone();
            now.message = output::newest_held();
            if interrupt::asked() {
                now.doing = Doing::Stopping;
            }
            if screen.draw(|frame| draw(frame, &now)).is_err() {
                break;
            }
            std::thread::park_timeout(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fold_in_words() {
        let fold = Path::new("/x/nnUNet_results/Dataset501_Liver/T__P__3d_fullres/fold_all");
        assert_eq!(title_of(fold), "Dataset501_Liver, T__P__3d_fullres, fold all");
    }
}
