//! `stunet devices`: the backends in this binary, and the devices of this machine with their limits.

use serde_json::{Value, json};
use stunet::device::{self, Backend, BackendStatus, DeviceDescription, FoundDevice};
use stunet::kernels::DeviceFacts;

use crate::args::DevicesArgs;
use crate::output;

/// Prints what each device is, below one line that says whether it can be used.
pub fn run(args: &DevicesArgs) -> anyhow::Result<()> {
    let backends = device::list();
    let chosen = device::choose("auto").map(|chosen| chosen.name);
    if args.json {
        let auto = chosen.as_deref().ok();
        return output::json(
            &json!({ "backends": backends.iter().map(as_json).collect::<Vec<_>>(), "auto": auto }),
        );
    }
    for backend in &backends {
        for text in lines(backend) {
            output::line(&text)?;
        }
    }
    match chosen {
        Ok(name) => output::line(&format!("{:<10} {name}", "auto")),
        Err(error) => output::line(&format!("{:<10} none: {error}", "auto")),
    }
}

fn lines(status: &BackendStatus) -> Vec<String> {
    let name = status.backend.name();
    if !status.compiled_in {
        return vec![format!("{name:<10} not compiled in (build with --features {name})")];
    }
    if status.devices.is_empty() {
        return vec![format!("{name:<10} compiled in, no device found")];
    }
    status.devices.iter().flat_map(device_lines).collect()
}

fn device_lines(found: &FoundDevice) -> Vec<String> {
    let described = match &found.usable {
        Ok(described) => described,
        Err(reason) => return vec![format!("{:<10} found, not usable: {reason}", found.name)],
    };
    let software = if found.software { " (software; only when named)" } else { "" };
    let mut lines = vec![format!("{:<10} usable{software}", found.name)];
    let below = |what: &str, value: &str| format!("{:<12}{what:<10} {value}", "");
    lines.push(below("name", &described.name));
    lines.extend(described.driver.as_ref().map(|driver| below("driver", driver)));
    lines.extend(described.memory_bytes.map(|memory| below("memory", &output::bytes(memory))));
    lines.extend(described.limits.as_ref().map(|facts| below("limits", &limits(facts))));
    lines.extend(described.limits.as_ref().map(|facts| below("types", &types(facts).join(", "))));
    if let Some(processor) = &described.processor {
        lines.push(below("threads", &processor.threads.to_string()));
        let vectors = processor.vectors.as_deref();
        lines.push(below("vectors", vectors.unwrap_or("those of Burn's operators")));
    }
    lines
}

fn limits(facts: &DeviceFacts) -> String {
    let [few, many] = facts.subgroup;
    format!(
        "tensors of {}; workgroups of {} threads with {} of shared memory; {few} to {many} threads in step",
        output::bytes(facts.largest_tensor_bytes),
        facts.threads,
        output::bytes(facts.shared_memory_bytes),
    )
}

/// The types by the words that options have for them.
fn types(facts: &DeviceFacts) -> Vec<String> {
    facts.types.iter().map(|dtype| format!("{dtype:?}").to_lowercase()).collect()
}

fn as_json(status: &BackendStatus) -> Value {
    let devices: Vec<_> = status
        .devices
        .iter()
        .map(|found| {
            json!({
                "name": found.name,
                "software": found.software,
                "usable": found.usable.is_ok(),
                "reason": found.usable.as_ref().err(),
                "described": found.usable.as_ref().ok().map(described),
            })
        })
        .collect();
    json!({
        "backend": status.backend.name(),
        "gpu": Backend::is_gpu(status.backend),
        "compiled_in": status.compiled_in,
        "devices": devices,
    })
}

fn described(described: &DeviceDescription) -> Value {
    let limits = described.limits.as_ref().map(|facts| {
        json!({
            "target": facts.target,
            "largest_tensor_bytes": facts.largest_tensor_bytes,
            "shared_memory_bytes": facts.shared_memory_bytes,
            "threads": facts.threads,
            "bindings": facts.bindings,
            "subgroup": facts.subgroup,
        })
    });
    let processor = described
        .processor
        .as_ref()
        .map(|processor| json!({ "threads": processor.threads, "vectors": processor.vectors }));
    json!({
        "name": described.name,
        "driver": described.driver,
        "memory_bytes": described.memory_bytes,
        "types": described.limits.as_ref().map(types),
        "limits": limits,
        "processor": processor,
    })
}
