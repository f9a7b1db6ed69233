//! What the machine has to give.

use std::fs;

/// Bytes of memory that are free, as far as the system says so: what is available, or less where a
/// container has less.
pub fn free_memory() -> Option<u64> {
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    let group = || {
        let read = |name: &str| {
            let text = fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok()?;
            text.trim().parse::<u64>().ok()
        };
        Some(read("max")?.saturating_sub(read("current")?))
    };
    match (available, group()) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

/// Bytes this process holds now, and at most so far, by the system's own accounting.
pub fn own_memory() -> Option<(u64, u64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some((entry(&status, "VmRSS:")?, entry(&status, "VmHWM:")?))
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
    }
}
