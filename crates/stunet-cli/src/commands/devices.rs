//! `stunet devices`: the backends in this binary and the devices that work on this machine.

use serde_json::{Value, json};
use stunet::device::{self, Backend, BackendStatus};

use crate::args::DevicesArgs;
use crate::output;

/// Prints one line per backend, or one per device where it has several.
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
    let note = |software| {
        if software { " (software; only when named)" } else { "" }
    };
    status
        .devices
        .iter()
        .map(|found| match &found.usable {
            Ok(()) => format!("{:<10} usable{}", found.name, note(found.software)),
            Err(reason) => format!("{:<10} found, not usable: {reason}", found.name),
        })
        .collect()
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
