//! What a device is: for those who choose one, and to know it again.

use std::fs;
use stunet_kernels::{DeviceFacts, vector_instructions};

/// A device, as far as it says what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceDescription {
    /// Its name: a product's.
    pub name: String,
    /// Its driver with the version, where that is known.
    pub driver: Option<String>,
    /// Bytes of its memory, where that is known.
    pub memory_bytes: Option<u64>,
    /// Limits and types of a GPU.
    pub limits: Option<DeviceFacts>,
    /// What a processor computes with.
    pub processor: Option<Processor>,
}

/// What the processor computes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Threads that it runs at a time.
    pub threads: usize,
    /// Its vector instructions that the operators use; none where Burn's operators compute.
    pub vectors: Option<String>,
}

impl DeviceDescription {
    /// A GPU.
    pub(super) fn of_gpu(facts: DeviceFacts, driver: Option<String>) -> Self {
        Self {
            name: facts.name.clone(),
            driver,
            memory_bytes: facts.memory_bytes,
            limits: Some(facts),
            processor: None,
        }
    }

    /// The processor.
    pub(super) fn of_processor() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = entry(&meminfo, "MemTotal").and_then(|text| text.strip_suffix(" kB"));
        Self {
            name: processor_name(),
            driver: None,
            memory_bytes: total.and_then(|kilobytes| Some(kilobytes.parse::<u64>().ok()? << 10)),
            limits: None,
            processor: Some(Processor { threads, vectors: vector_instructions() }),
        }
    }
}

/// The value of an entry of the system's lists, `NAME : VALUE`.
fn entry<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    values.into_iter().find(|(found, _)| found.trim() == name).map(|(_, value)| value.trim())
}

fn processor_name() -> String {
    #[cfg(target_arch = "x86_64")]
    if let Some(name) = raw_cpuid::CpuId::new().get_processor_brand_string() {
        let name = name.as_str().split_whitespace().collect::<Vec<_>>().join(" ");
        if !name.is_empty() {
            return name;
        }
    }
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = entry(&cpuinfo, "model name").or_else(|| entry(&cpuinfo, "Model"));
    named.unwrap_or(std::env::consts::ARCH).to_owned()
}

/// The version of NVIDIA's driver, as Linux's kernel tells it.
pub(super) fn nvidia_driver() -> Option<String> {
    version_of(&fs::read_to_string("/proc/driver/nvidia/version").ok()?)
}

fn version_of(text: &str) -> Option<String> {
    let is_version =
        |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    let version = text.lines().next()?.split_whitespace().find(is_version)?;
    Some(format!("NVIDIA {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let text = "model name\t: A  Processor\nMemTotal:       7 kB\n";
        assert_eq!(entry(text, "model name"), Some("A  Processor"));
        assert_eq!(entry(text, "MemTotal"), Some("7 kB"));
        assert_eq!(entry(text, "Model"), None);
    }

    #[test]
    fn drivers_versions() {
        let text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n";
        assert_eq!(version_of(text).as_deref(), Some("NVIDIA 550.54.15"));
        assert_eq!(version_of("nothing"), None);
    }

    #[test]
    fn this_processor() {
        let found = DeviceDescription::of_processor();
        let processor = found.processor.unwrap();
        assert!(!found.name.is_empty() && processor.threads > 0);
        assert_eq!(processor.vectors, vector_instructions());
    }
}
