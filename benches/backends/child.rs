//! Rows of one device, measured in a process of their own: a line of JSON in asks for each, one comes back.

use super::ceilings::Ceilings;
use super::common::program;
use super::common::usage::resident_bytes;
use super::row::{Row, Work};
use super::step::{Operators, Precision, Step, Task};
use super::{Args, NOT_OFFERED, case::Case};
use clap::ValueEnum;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use stunet::device::Chosen;

/// A process that measures rows of one device.
pub struct Child {
    process: std::process::Child,
    input: ChildStdin,
    answers: Receiver<String>,
}

impl Child {
    fn start(args: &Args, device: &str) -> Result<Self, String> {
        let words =
            |list: &[usize]| list.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let tasks = args.task.iter().map(|task| task.name()).collect::<Vec<_>>().join(",");
        let mut process = Command::new(program())
            .args(["--child", "--device", device, "--task", &tasks])
            .args(["--patch", &words(&args.patch), "--case", &words(&args.case)])
            .args(["--classes", &args.classes.to_string(), "--batch", &args.batch.to_string()])
            .args(["--repeats", &args.repeats.to_string(), "--budget", &args.budget.to_string()])
            .args(args.recompute.then_some("--recompute"))
            .args(args.cache.iter().flat_map(|cache| [OsStr::new("--cache"), cache.as_os_str()]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let input = process.stdin.take().expect("piped");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { process, input, answers })
    }

    /// The rows that come back for one that is wanted.
    fn ask(&mut self, wanted: &Row, limit: f64) -> Result<Vec<Row>, String> {
        let line = serde_json::to_string(wanted).expect("a row is JSON");
        writeln!(self.input, "{line}").map_err(|error| error.to_string())?;
        let end = Instant::now() + Duration::from_secs_f64(limit);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                // What a driver prints is no answer.
                Ok(line) => {
                    if let Ok(rows) = serde_json::from_str(&line) {
                        return Ok(rows);
                    }
                }
                Err(_) if Instant::now() >= end => {
                    return Err(format!("given up after {limit:.0} s"));
                }
                Err(_) => {
                    let status = self.process.wait().map_err(|error| error.to_string())?;
                    return Err(format!("the process ended: {status}"));
                }
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Measures a row in the device's process, which is begun where there is none; one that failed is ended.
pub fn measure(args: &Args, child: &mut Option<Child>, wanted: Row, limit: f64) -> Vec<Row> {
    if child.is_none() {
        match Child::start(args, &wanted.device) {
            Ok(started) => *child = Some(started),
            Err(reason) => return vec![wanted.failed(reason)],
        }
    }
    let running = child.as_mut().expect("just begun");
    running.ask(&wanted, limit).unwrap_or_else(|reason| {
        *child = None;
        vec![wanted.failed(reason)]
    })
}

/// Answers lines until there are no more.
pub fn serve(args: &Args) {
    if let Some(cache) = &args.cache {
        stunet::kernels::keep_compiled_kernels(cache);
    }
    let chosen = stunet::device::choose(&args.device[0]);
    let mut ceilings = None;
    for line in std::io::stdin().lock().lines() {
        let wanted: Row = serde_json::from_str(&line.unwrap()).unwrap();
        let rows = match &chosen {
            Ok(chosen) => answer(args, chosen, &wanted, &mut ceilings),
            Err(error) => Err(error.to_string()),
        };
        let rows = rows.unwrap_or_else(|reason| vec![wanted.failed(reason)]);
        println!("{}", serde_json::to_string(&rows).unwrap());
    }
}

fn answer(
    args: &Args,
    chosen: &Chosen,
    wanted: &Row,
    ceilings: &mut Option<Ceilings>,
) -> Result<Vec<Row>, String> {
    let work = Work::from_str(&wanted.task, true)?;
    if work == Work::Reports {
        return Ok(reports(chosen, wanted));
    }
    if work == Work::Ceilings {
        let found = *ceilings.insert(Ceilings::measure(chosen)?);
        let Ceilings { copy_bytes_per_sec, fmas_per_sec } = found;
        return Ok(vec![Row {
            copy_bytes_per_sec: Some(copy_bytes_per_sec),
            fmas_per_sec: Some(fmas_per_sec),
            ..wanted.clone()
        }]);
    }
    let mut row = if work == Work::Case {
        case(args, chosen, wanted)?
    } else {
        step(args, chosen, wanted, work)?
    };
    // A new process behind one that was given up has none yet.
    if ceilings.is_none() && args.task.contains(&Work::Ceilings) {
        *ceilings = Ceilings::measure(chosen).ok();
    }
    if let (Some(ceilings), Some(secs)) = (ceilings, row.median_secs) {
        row.copy_share = row.bytes.map(|bytes| bytes / secs / ceilings.copy_bytes_per_sec);
        row.fma_share = row.products.map(|products| products / secs / ceilings.fmas_per_sec);
    }
    Ok(vec![row])
}

/// A forward pass or a training step.
fn step(args: &Args, chosen: &Chosen, wanted: &Row, work: Work) -> Result<Row, String> {
    let task = if work == Work::Train { Task::Train } else { Task::Forward };
    let precision = Precision::from_str(&wanted.precision, true)?;
    if !chosen.device.supports_dtype(precision.dtype()) {
        return Err(format!("{} {NOT_OFFERED}", precision.name()));
    }
    let operators = Operators::from_str(&wanted.operators, true)?;
    let of_row = Args { operators, ..args.clone() };
    let mut step = Step::new(&of_row, &wanted.size, task, precision, false, &chosen.device)?;
    let start = Instant::now();
    let counted = counted(|| step.run());
    let first = start.elapsed().as_secs_f64();
    let flop = step.flop;
    let mut row = timed(args, chosen, wanted, Some(first), &mut || {
        let value = step.run();
        if value.is_finite() { Ok(()) } else { Err(format!("the result is {value}")) }
    })?;
    row.products = Some(counted.map_or(flop / 2.0, |counted| counted.products));
    row.bytes = counted.map(|counted| counted.bytes);
    row.launches = counted.map(|counted| counted.launches);
    Ok(row)
}

fn case(args: &Args, chosen: &Chosen, wanted: &Row) -> Result<Row, String> {
    let case = Case::new(args, &wanted.size, chosen)?;
    let mut windows = 0;
    let mut row = timed(args, chosen, wanted, None, &mut || {
        windows = case.run()?;
        Ok(())
    })?;
    row.windows = Some(windows);
    Ok(row)
}

/// What the kernels of a piece of work state.
#[derive(Clone, Copy)]
struct Counted {
    bytes: f64,
    products: f64,
    launches: usize,
}

/// Runs something once, counting where there is something to count.
fn counted<R>(work: impl FnOnce() -> R) -> Option<Counted> {
    #[cfg(feature = "gpu")]
    {
        let (_, calls) = stunet::kernels::kernel_calls(work);
        let sum =
            |of: &dyn Fn(&stunet::kernels::KernelCall) -> f64| calls.iter().map(of).sum::<f64>();
        let found = Counted {
            bytes: sum(&|call| (call.read + call.written) as f64),
            products: sum(&|call| call.products as f64),
            launches: calls.iter().map(|call| call.launches).sum(),
        };
        (!calls.is_empty()).then_some(found)
    }
    #[cfg(not(feature = "gpu"))]
    {
        work();
        None
    }
}

/// Runs something until the repeats or the seconds are used up, after a first call, if there was none yet, and
/// one more where that was short.
fn timed(
    args: &Args,
    chosen: &Chosen,
    wanted: &Row,
    first: Option<f64>,
    work: &mut dyn FnMut() -> Result<(), String>,
) -> Result<Row, String> {
    let mut memory = 0;
    let mut call = || {
        let start = Instant::now();
        work()?;
        chosen.device.sync().map_err(|error| error.to_string())?;
        let secs = start.elapsed().as_secs_f64();
        memory = memory.max(chosen.reserved_bytes().unwrap_or_else(resident_bytes));
        Ok::<f64, String>(secs)
    };
    let first = match first {
        Some(first) => first,
        None => call()?,
    };
    if first < args.budget {
        call()?;
    }
    let begin = Instant::now();
    let mut all = Vec::new();
    while all.is_empty() || all.len() < args.repeats && begin.elapsed().as_secs_f64() < args.budget
    {
        all.push(call()?);
    }
    all.sort_by(f64::total_cmp);
    // What the work held is not counted to the next row's.
    chosen.device.memory_cleanup();
    Ok(Row {
        first_secs: Some(first),
        median_secs: Some(all[all.len() / 2]),
        best_secs: Some(all[0]),
        repeats: all.len(),
        memory_bytes: Some(memory),
        ..wanted.clone()
    })
}

/// A row for each report.
#[cfg(feature = "gpu")]
fn reports(chosen: &Chosen, wanted: &Row) -> Vec<Row> {
    let cpu = stunet::device::parse("cpu").unwrap();
    let of = |report: super::upstream::Report| Row {
        report: Some(report.issue.into()),
        verdict: Some(report.verdict.name().into()),
        why: Some(format!("{}: {}", report.what, report.why)),
        ..wanted.clone()
    };
    super::upstream::reports(&chosen.device, &cpu).into_iter().map(of).collect()
}

#[cfg(not(feature = "gpu"))]
fn reports(chosen: &Chosen, wanted: &Row) -> Vec<Row> {
    vec![wanted.clone().failed(format!("{}: built without a GPU's backend", chosen.name))]
}
