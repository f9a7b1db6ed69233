//! What a device can do at most.

use super::common::bandwidth::Bandwidth;
use super::common::fma_peak::FmaPeak;
use stunet::device::Chosen;

/// Measured ceilings of a device.
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    /// Bytes read and written in a second, together, by a copy.
    pub copy_bytes_per_sec: f64,
    /// Multiply-adds in single precision in a second.
    pub fmas_per_sec: f64,
}

impl Ceilings {
    pub fn measure(chosen: &Chosen) -> Result<Self, String> {
        if !chosen.backend.is_gpu() {
            // By processor time of one core, times the cores that take part.
            let threads = rayon::current_num_threads() as f64;
            let memory = Bandwidth::measure();
            let copied = 2.0 / (1.0 / memory.read + 1.0 / memory.write) * threads;
            let fmas_per_sec = FmaPeak::measure().gflops() * 1e9 / 2.0;
            return Ok(Self { copy_bytes_per_sec: copied, fmas_per_sec });
        }
        gpu(chosen)
    }
}

/// CubeCL's own probes.
#[cfg(feature = "gpu")]
fn gpu(chosen: &Chosen) -> Result<Ceilings, String> {
    use burn::tensor::{MemoryAccess, ThroughputKey, ThroughputMode};
    let copy = ThroughputKey { mode: ThroughputMode::memory(MemoryAccess::Copy) };
    let fma = ThroughputKey { mode: ThroughputMode::ComputeDirect { dtype: copy.dtype() } };
    let [copied, computed] = [copy, fma].map(|key| {
        let found = chosen.device.performance_stats(&[key]).pop();
        found.ok_or("not a GPU of CubeCL's")?.value.map_err(|error| error.to_string())
    });
    // An operation of a probe is a multiplication or an addition.
    let fmas_per_sec = computed?.ops_per_s() / 2.0;
    Ok(Ceilings { copy_bytes_per_sec: copied?.bytes_per_s(&copy), fmas_per_sec })
}

#[cfg(not(feature = "gpu"))]
fn gpu(chosen: &Chosen) -> Result<Ceilings, String> {
    Err(format!("{}: built without a GPU's backend", chosen.name))
}
