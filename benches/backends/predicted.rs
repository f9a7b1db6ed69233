//! What passes should take on GPUs that are not here, by what the kernels state.
//!
//! Every kernel takes as long as its bytes at a share of the memory's speed, or its products at a share of
//! the arithmetic's, whichever is longer, and every launch a little more. The shares are assumptions until a
//! GPU has been measured; the first visit measures them (`scripts/gpu-check`).

use super::Args;
use super::counted::{Pass, forward, step};
use burn::tensor::Device;
use stunet::model::{StuNet, StuNetConfig, StuNetSize};

/// Share of the memory's speed that a kernel reaches.
const OF_MEMORY: f64 = 0.8;
/// Share of the multiply-adds in single precision that a register tile reaches.
const OF_PRODUCTS: f64 = 0.35;
/// Seconds of a launch.
const LAUNCH: f64 = 5e-6;

/// A GPU as its maker states it: multiply-adds in single precision and bytes of memory, in a second.
struct Gpu {
    name: &'static str,
    fmas: f64,
    bytes: f64,
}

const GPUS: [Gpu; 6] = [
    Gpu { name: "H200", fmas: 33.5e12, bytes: 4.8e12 },
    Gpu { name: "A100 80 GB", fmas: 9.75e12, bytes: 2.04e12 },
    Gpu { name: "RTX 4090", fmas: 41.3e12, bytes: 1.01e12 },
    Gpu { name: "RTX 3060", fmas: 6.4e12, bytes: 0.36e12 },
    Gpu { name: "Apple M2, 10 cores", fmas: 1.8e12, bytes: 0.1e12 },
    Gpu { name: "Arc A770", fmas: 9.8e12, bytes: 0.56e12 },
];

impl Gpu {
    fn secs(&self, pass: &Pass) -> f64 {
        let own = pass.kernels.iter().map(|kernel| {
            let memory = kernel.bytes / (OF_MEMORY * self.bytes);
            memory.max(kernel.products / (OF_PRODUCTS * self.fmas))
        });
        own.sum::<f64>() + pass.launches() * LAUNCH
    }
}

/// Prints the table, a training step by sample.
pub fn print(args: &Args, device: &Device) {
    let names = GPUS.iter().map(|gpu| gpu.name).collect::<Vec<_>>().join(" | ");
    println!("| size | pass, one sample | GB | multiply-adds (T) | launches | {names} |");
    println!("|---|---|---:|---:|---:|{}", "---:|".repeat(GPUS.len()));
    for size in StuNetSize::ALL {
        if !args.sizes.iter().any(|name| name.eq_ignore_ascii_case(&size.name()[..1])) {
            continue;
        }
        let config = StuNetConfig::new(size, 1, args.classes);
        let passes = [
            ("forward", forward(&config, device, |network, x| network.forward(x))),
            ("training step", step(&config, device, StuNet::forward_deep)),
        ];
        for (what, pass) in passes {
            let secs = GPUS.iter().map(|gpu| format!("{:.0} ms", gpu.secs(&pass) * 1e3));
            let products: f64 = pass.kernels.iter().map(|kernel| kernel.products).sum();
            println!(
                "| {} | {what} | {:.1} | {:.2} | {:.0} | {} |",
                &size.name()[..1],
                pass.gigabytes(),
                products / 1e12,
                pass.launches(),
                secs.collect::<Vec<_>>().join(" | ")
            );
        }
    }
}
