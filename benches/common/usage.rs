//! Time and memory of a piece of work.

use std::fs;
use std::time::Instant;

/// What a piece of work took. Off Linux there is no processor time (NaN) and no memory (0).
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub wall_secs: f64,
    /// Of all threads, in user and in kernel mode.
    pub cpu_secs: f64,
    /// Largest resident memory of the process while the work ran, whatever was held before included.
    pub peak_bytes: u64,
}

/// Runs `work`.
pub fn measure<R>(work: impl FnOnce() -> R) -> (R, Usage) {
    // "5" sets the high-water mark back to what is resident now.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let (start, cpu) = (Instant::now(), cpu_secs());
    let result = work();
    let (wall_secs, cpu_secs) = (start.elapsed().as_secs_f64(), cpu_secs() - cpu);
    (result, Usage { wall_secs, cpu_secs, peak_bytes: status_bytes("VmHWM:") })
}

/// Resident memory of the process; 0 where the system does not say.
pub fn resident_bytes() -> u64 {
    status_bytes("VmRSS:")
}

/// Processor time of the threads that live. Those of a pool live on, so that differences are right,
/// to the nanosecond where `/proc/self/stat` counts in hundredths of a second.
fn cpu_secs() -> f64 {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return f64::NAN };
    let nanoseconds = tasks.flatten().filter_map(|task| {
        let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
        line.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e9
}

fn status_bytes(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
