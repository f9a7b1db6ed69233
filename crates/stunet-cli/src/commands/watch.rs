//! `stunet watch`: a training of another process, from its log.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use stunet::data::dataset::DatasetInfo;
use stunet::train::log::{LOG_FILE, LogLine, read_lines};

use super::train::{epoch_line, title_of};
use crate::args::WatchArgs;
use crate::board::{Board, Doing, Memory};
use crate::failure::Interrupted;
use crate::{folders, interrupt, machine, output};

/// Time between two looks at the log.
const PAUSE: Duration = Duration::from_millis(500);

/// Shows the run until somebody leaves, or prints it until it ends.
pub fn run(args: &WatchArgs) -> anyhow::Result<()> {
    let mut run = Followed::open(&args.run)?;
    interrupt::watch(true, "look")?;
    if !args.once && show(&mut run)? {
        return Ok(());
    }
    output::line(&run.board.title)?;
    print(&mut run, args.once)
}

/// A run whose log is read.
struct Followed {
    log: PathBuf,
    at: u64,
    board: Board,
}

impl Followed {
    fn open(given: &Path) -> anyhow::Result<Self> {
        let log = log_of(given)?;
        let fold = log.parent().unwrap_or(given).to_owned();
        let fold = fold.canonicalize().unwrap_or(fold);
        let classes = classes_of(&fold);
        let mut board = Board::new(title_of(&fold), classes, Vec::new());
        "q leaves; the training is not touched".clone_into(&mut board.keys);
        board.doing = Doing::Elsewhere;
        Ok(Self { log, at: 0, board })
    }

    /// Reads what is new; returns its lines.
    fn look(&mut self) -> anyhow::Result<Vec<LogLine>> {
        let (lines, at) = read_lines(&self.log, self.at)?;
        self.at = at;
        lines.iter().for_each(|line| self.board.on_line(line.clone()));
        let ended = matches!(self.board.doing, Doing::Finished | Doing::Stopped);
        let holder = machine::holder_of(&self.log);
        self.board.memory = Memory { host: holder.and_then(machine::memory_of), device: None };
        if !ended {
            self.board.since_secs = age_secs(&self.log);
            // Only where the system tells who holds locks is nobody's lock a sign.
            let silent = holder.is_none() && Path::new("/proc/locks").is_file();
            self.board.doing = if silent { Doing::Silent } else { Doing::Elsewhere };
        }
        Ok(lines)
    }
}

fn age_secs(file: &Path) -> Option<f64> {
    let changed = std::fs::metadata(file).ok()?.modified().ok()?;
    Some(SystemTime::now().duration_since(changed).unwrap_or_default().as_secs_f64())
}

/// The log of a fold; of several folds the one that was written last.
fn log_of(given: &Path) -> anyhow::Result<PathBuf> {
    let own = given.join(LOG_FILE);
    if own.is_file() {
        return Ok(own);
    }
    let logs = folders::folds_of(given).into_iter().map(|fold| fold.join(LOG_FILE));
    let newest = logs
        .filter_map(|log| Some((std::fs::metadata(&log).ok()?.modified().ok()?, log)))
        .max_by_key(|(changed, _)| *changed);
    newest.map(|(_, log)| log).with_context(|| {
        format!(
            "expected the folder of a fold with {LOG_FILE} in it, or one with such folds, found none: {}",
            given.display()
        )
    })
}

/// Names of the classes, by the `dataset.json` that all folds share; none where there is none.
fn classes_of(fold: &Path) -> Vec<String> {
    let beside = fold.parent().map(|home| home.join("dataset.json"));
    let Some(Ok(dataset)) = beside.map(|file| DatasetInfo::load(&file)) else { return Vec::new() };
    dataset.labels.labels().iter().skip(1).map(|label| label.name.clone()).collect()
}

/// Shows a screen until somebody leaves; false where there is no terminal.
#[cfg(all(unix, feature = "watch"))]
fn show(run: &mut Followed) -> anyhow::Result<bool> {
    let Some(mut screen) = crate::screen::Screen::open()? else {
        output::complain("standard output is no terminal; one line for each epoch follows");
        return Ok(false);
    };
    while !screen.is_left() {
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        run.look()?;
        screen.draw(|frame| crate::board::draw::draw(frame, &run.board))?;
        std::thread::sleep(PAUSE);
    }
    Ok(true)
}

#[cfg(not(all(unix, feature = "watch")))]
fn show(_: &mut Followed) -> anyhow::Result<bool> {
    output::complain("this program was built without the screen; one line for each epoch follows");
    Ok(false)
}

/// Prints a line for each epoch: those that are there, and, unless it is for once, those to come.
fn print(run: &mut Followed, once: bool) -> anyhow::Result<()> {
    let first = run.look()?;
    ensure!(!first.is_empty(), "expected lines of a training, found none: {}", run.log.display());
    first.iter().try_for_each(|line| tell(run, line))?;
    let going = |run: &Followed| run.board.doing == Doing::Elsewhere;
    while !once && going(run) {
        std::thread::sleep(PAUSE);
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        run.look()?.iter().try_for_each(|line| tell(run, line))?;
    }
    let board = &run.board;
    let left = board.left_secs().map(|secs| format!(", {} left", output::duration(secs)));
    let (done, of) = (board.done(), board.num_epochs);
    let left = left.unwrap_or_default();
    output::line(&format!("{done} of {of} epochs, {}{left}", board.doing_text()))
}

fn tell(run: &Followed, line: &LogLine) -> anyhow::Result<()> {
    match line {
        LogLine::Epoch(record) => output::line(&epoch_line(record, run.board.num_epochs)),
        _ => Ok(()),
    }
}
