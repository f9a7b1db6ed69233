//! Free memory of the machine, and the memory of this process.

use std::fs;
use std::path::Path;

use anyhow::ensure;

use crate::output;

/// Of what is free, the rest is for buffers that no estimate knows.
const SHARE: f64 = 0.9;

/// Bytes that may still be taken: what is left of `most`, where the user set a bound, or most of what
/// is free; none where the system says nothing.
pub fn allowed(most: Option<u64>) -> Option<u64> {
    match (most, own_memory()) {
        (Some(most), Some((held, _))) => Some(most.saturating_sub(held)),
        (Some(most), None) => Some(most),
        (None, _) => free_memory().map(|free| (free as f64 * SHARE) as u64),
    }
}

/// Why something does not fit: what it needs beside what the program holds, and what is allowed.
pub fn too_little(most: Option<u64>, needed: u64, what: &str) -> String {
    match (most, own_memory()) {
        (Some(most), Some((held, _))) => format!(
            "--max-memory: expected at least {}, for {} that the program holds and {} for {what}, found {}",
            output::bytes(held.saturating_add(needed)),
            output::bytes(held),
            output::bytes(needed),
            output::bytes(most),
        ),
        _ => format!(
            "memory: {what} needs about {}, allowed are {}",
            output::bytes(needed),
            output::bytes(allowed(most).unwrap_or(u64::MAX)),
        ),
    }
}

/// Cases that may be read at a time, where reading each takes `needs` bytes; none where the system
/// does not say what is free.
///
/// Fails where the largest of them is more than there is.
pub fn cases_at_a_time<'a>(
    needs: impl Iterator<Item = (u64, &'a Path)>,
) -> anyhow::Result<Option<usize>> {
    let Some(allowed) = allowed(None) else { return Ok(None) };
    let Some((most, file)) = needs.max_by_key(|(bytes, _)| *bytes) else { return Ok(None) };
    ensure!(most <= allowed, "{}: {}", too_little(None, most, "reading this case"), file.display());
    // A thread that waits for the others' share of its case may begin another one.
    Ok(Some((allowed / (2 * most.max(1))).max(1) as usize))
}

/// A pool of at most `wanted` threads (none: as many as the machine has), and at most `most`.
pub fn pool(wanted: Option<usize>, most: Option<usize>) -> anyhow::Result<rayon::ThreadPool> {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = wanted.unwrap_or_else(cores).min(most.unwrap_or(usize::MAX)).max(1);
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?)
}

/// Bytes of memory that are free, as far as the system says so: what is available, or less where a
/// container, a batch system or `ulimit -v` leaves less.
pub fn free_memory() -> Option<u64> {
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    [available, group(), address_space()].into_iter().flatten().min()
}

/// What the control groups of this process leave, from its own up to the root.
fn group() -> Option<u64> {
    const ROOT: &str = "/sys/fs/cgroup";
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    // A container may see its own group as the root, under a path that only its host knows.
    let groups = Path::new(own.trim_start_matches('/')).ancestors();
    groups.filter_map(|group| left_of(&Path::new(ROOT).join(group))).min()
}

/// What a control group leaves. Pages of files that nobody has used for long are as good as free.
fn left_of(group: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let cached = read("memory.stat").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("inactive_file "))?;
        line.trim().parse::<u64>().ok()
    });
    let used = number("memory.current")?.saturating_sub(cached.unwrap_or(0));
    Some(number("memory.max")?.saturating_sub(used))
}

/// What `ulimit -v` leaves.
fn address_space() -> Option<u64> {
    let most = address_limit(&fs::read_to_string("/proc/self/limits").ok()?)?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(most.saturating_sub(entry(&status, "VmSize:")?))
}

/// The soft limit of the address space in `/proc/self/limits`, in bytes; none where there is none.
fn address_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes this process holds now, and at most so far, by the system's own accounting.
pub fn own_memory() -> Option<(u64, u64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some((entry(&status, "VmRSS:")?, entry(&status, "VmHWM:")?))
}

/// The same of another process.
pub fn memory_of(process: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    Some((entry(&status, "VmRSS:")?, entry(&status, "VmHWM:")?))
}

/// The process of this machine that holds the lock of a file, as far as the system says so.
#[cfg(unix)]
pub fn holder_of(file: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let inode = fs::metadata(file).ok()?.ino();
    holder(&fs::read_to_string("/proc/locks").ok()?, inode)
}

#[cfg(not(unix))]
pub fn holder_of(_: &Path) -> Option<u32> {
    None
}

/// Who holds an inode's lock, by Linux's `/proc/locks`: its devices are not those that `stat` tells of some
/// file systems.
#[cfg_attr(not(unix), allow(dead_code, reason = "other systems tell otherwise"))]
fn holder(locks: &str, inode: u64) -> Option<u32> {
    let of = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", process, place, ..] = words[..] else { return None };
        (place.rsplit(':').next()?.parse() == Ok(inode)).then(|| process.parse().ok())?
    };
    locks.lines().find_map(of)
}

/// An entry of `/proc/self/status` or `/proc/meminfo`, in bytes.
fn entry(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

/// The entry `MemAvailable` of Linux's `/proc/meminfo`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    entry(meminfo, "MemAvailable:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linuxs_own_words() {
        let text = "MemTotal:       24512 kB\nMemFree:  7 kB\nMemAvailable:   22016 kB\n";
        assert_eq!(available(text), Some(22016 * 1024));
        assert_eq!(entry("Name: x\nVmRSS:\t  3 kB\n", "VmRSS:"), Some(3072));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert_eq!(available("MemAvailable: lots\n"), None);
        let limits = "Limit      Soft Limit  Hard Limit  Units\n\
                      Max address space         268435456            unlimited            bytes\n";
        assert_eq!(address_limit(limits), Some(256 << 20));
        assert_eq!(address_limit("Max address space  unlimited  unlimited  bytes\n"), None);
    }

    #[test]
    fn who_holds_a_lock() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 fe:00:78 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 13 fe:00:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 14 fe:00:77 0 EOF\n";
        assert_eq!(holder(locks, 77), Some(14));
        assert_eq!(holder(locks, 79), None);
        assert_eq!(holder("", 77), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_holds_a_lock() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(holder_of(file.path()), None);
        file.as_file().lock().unwrap();
        assert_eq!(holder_of(file.path()), Some(std::process::id()));
        let (held, most) = memory_of(std::process::id()).unwrap();
        assert!(held > 0 && most >= held);
    }

    #[test]
    fn cases_that_fit() {
        let file = Path::new("case.nii.gz");
        assert_eq!(cases_at_a_time(std::iter::empty()).unwrap(), None);
        let error = cases_at_a_time([(1, file), (u64::MAX, file)].into_iter());
        let line = error.unwrap_err().to_string();
        assert!(line.starts_with("memory: ") && line.ends_with("case.nii.gz"), "{line}");
        assert!(cases_at_a_time([(1, file)].into_iter()).unwrap() > Some(1000));
        assert_eq!(pool(Some(3), Some(2)).unwrap().current_num_threads(), 2);
        assert_eq!(pool(Some(3), None).unwrap().current_num_threads(), 3);
    }

    #[test]
    fn a_group_leaves_what_it_has_beside_old_pages() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        put("memory.max", "max\n");
        put("memory.current", "700\n");
        assert_eq!(left_of(folder.path()), None);
        put("memory.max", "1000\n");
        assert_eq!(left_of(folder.path()), Some(300));
        put("memory.stat", "anon 5\ninactive_file 100\n");
        assert_eq!(left_of(folder.path()), Some(400));
    }
}
