//! Keeps the "Architecture invariant" lines of `docs/ARCHITECTURE.md` true.
//!
//! Reads the manifests through `cargo metadata`, the lock file, and the sources; builds nothing and
//! needs no network.
#![allow(clippy::unwrap_used, clippy::disallowed_macros)]

#[path = "architecture/circles.rs"]
mod circles;
#[path = "architecture/functions.rs"]
mod functions;
#[path = "architecture/names.rs"]
mod names;
#[path = "architecture/said.rs"]
mod said;
#[path = "architecture/source.rs"]
mod source;
#[path = "architecture/versions.rs"]
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The arrows of the house: a crate, and the crates of this workspace it may be built from.
const ARROWS: [(&str, &[&str]); 10] = [
    ("stunet-kernels", &[]),
    ("stunet-data", &[]),
    ("stunet-testing", &[]),
    ("stunet-phantom", &["stunet-data"]),
    ("stunet-pictures", &["stunet-data"]),
    ("stunet-model", &["stunet-kernels"]),
    ("stunet-train", &["stunet-data", "stunet-model", "stunet-pictures"]),
    ("stunet-infer", &["stunet-data", "stunet-model", "stunet-pictures"]),
    (
        "stunet",
        &[
            "stunet-data",
            "stunet-infer",
            "stunet-kernels",
            "stunet-model",
            "stunet-pictures",
            "stunet-train",
        ],
    ),
    (
        "stunet-cli",
        &[
            "stunet",
            "stunet-data",
            "stunet-infer",
            "stunet-kernels",
            "stunet-model",
            "stunet-phantom",
            "stunet-pictures",
            "stunet-train",
        ],
    ),
];

/// Files outside `stunet-kernels` that may hold `unsafe`: the memory map, loops compiled for other
/// instruction sets, and the binary's allocator.
const UNSAFE: [&str; 4] = [
    "crates/stunet-cli/src/allocator.rs",
    "crates/stunet-data/src/simd.rs",
    "crates/stunet-data/src/simd/halves.rs",
    "crates/stunet-data/src/store.rs",
];

/// Burn's features that choose a backend: for the packages at the top only.
const BACKENDS: [&str; 12] = [
    "cpu", "cuda", "flex", "fusion", "autotune", "metal", "ndarray", "rocm", "tch", "vulkan",
    "webgpu", "wgpu",
];

/// Crates that would open a connection.
const NETWORK: [&str; 8] =
    ["curl", "hyper", "iroh", "isahc", "reqwest", "tokio-tungstenite", "tungstenite", "ureq"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn packages() -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// (crate, dependency, declaration) for every dependency of the given kind in the workspace.
fn dependencies(kind: Option<&str>) -> Vec<(String, String, serde_json::Value)> {
    let mut found = Vec::new();
    for package in packages() {
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["kind"].as_str() == kind {
                let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
                found.push((name(&package), name(dependency), dependency.clone()));
            }
        }
    }
    found
}

/// The lock file as a graph: names of packages to names of what they are built from.
fn locked() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for block in text.split("[[package]]").skip(1) {
        let name = block.lines().find_map(|line| line.strip_prefix("name = ")).unwrap();
        let edges = graph.entry(name.trim_matches('"').to_owned()).or_default();
        for line in block.lines().filter(|line| line.starts_with(" \"")) {
            // `"name"`, or `"name version"` where several versions are locked
            let entry = line.trim().trim_matches(|c| c == '"' || c == ',');
            edges.insert(entry.split([' ', '"']).next().unwrap().to_owned());
        }
    }
    graph
}

/// Everything `from` is built from, itself included; `without` is not followed.
fn reachable(from: &str, without: &[&str]) -> BTreeSet<String> {
    let mut graph = locked();
    graph.retain(|name, _| !without.contains(&name.as_str()));
    let mut seen = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(name) = open.pop() {
        if seen.insert(name.clone()) {
            open.extend(graph.get(&name).into_iter().flatten().cloned());
        }
    }
    seen
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    // A crate without tests or examples has no such folder.
    let entries = fs::read_dir(folder).into_iter().flatten();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// (file, line number, line) of the libraries' code: without comments, without tests at the foot.
fn library_code() -> Vec<(String, usize, String)> {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    for (name, _) in ARROWS {
        if !matches!(name, "stunet" | "stunet-cli" | "stunet-testing") {
            rust_files(&root().join("crates").join(name).join("src"), &mut files);
        }
    }
    files.sort();
    let mut lines = Vec::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        if name.ends_with("/tests.rs") || name.contains("/tests/") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        for (index, line) in code.lines().enumerate() {
            if !line.trim_start().starts_with("//") {
                lines.push((name.clone(), index + 1, line.to_owned()));
            }
        }
    }
    assert!(lines.len() > 50, "the sources were not found");
    lines
}

/// Fails for every line of library code that `offends`.
fn check_code(rule: &str, offends: impl Fn(&str, &str) -> bool) {
    let found: Vec<_> = library_code()
        .into_iter()
        .filter(|(file, _, line)| offends(file, line))
        .map(|(file, number, line)| format!("{file}:{number}: {}", line.trim()))
        .collect();
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

/// Whether `line` uses the word by itself, not as a part of another.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

#[test]
fn arrows_point_down_only() {
    let allowed: BTreeMap<_, _> = ARROWS.into_iter().collect();
    let names: BTreeSet<_> =
        packages().iter().map(|package| package["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect());
    for (from, to, _) in dependencies(None) {
        assert!(
            !names.contains(&to) || allowed[from.as_str()].contains(&to.as_str()),
            "{from} must not depend on {to}"
        );
    }
}

#[test]
fn data_has_no_burn() {
    let burn: Vec<_> = reachable("stunet-data", &[])
        .into_iter()
        .filter(|name| name.starts_with("burn") || name.starts_with("cubecl"))
        .collect();
    assert!(burn.is_empty(), "stunet-data reaches {burn:?}");
}

#[test]
fn training_and_inference_do_not_know_each_other() {
    assert!(!reachable("stunet-train", &[]).contains("stunet-infer"));
    assert!(!reachable("stunet-infer", &[]).contains("stunet-train"));
}

#[test]
fn testing_is_a_dev_dependency_only() {
    for kind in [None, Some("build")] {
        for (from, to, _) in dependencies(kind) {
            assert_ne!(to, "stunet-testing", "{from} builds from stunet-testing");
        }
    }
    for package in packages() {
        if package["name"] == "stunet-testing" {
            assert_eq!(
                package["publish"],
                serde_json::json!([]),
                "stunet-testing is not published"
            );
        }
    }
}

#[test]
fn libraries_choose_no_backend() {
    for (from, to, declaration) in dependencies(None) {
        if to != "burn" {
            continue;
        }
        assert_eq!(declaration["req"], "=0.22.1", "{from}: Burn is pinned");
        assert_eq!(declaration["uses_default_features"], false, "{from}: Burn's default features");
        for feature in declaration["features"].as_array().unwrap() {
            let feature = feature.as_str().unwrap();
            assert!(!BACKENDS.contains(&feature), "{from} chooses Burn's {feature}");
        }
    }
}

/// A library may have operators written for a backend, as a feature of its own: none but these, and
/// the backend's crate only as an option. Other libraries forward that feature under the same name.
/// It is on by default for whoever adds a crate alone, and off between the crates, so that a binary
/// for GPUs can leave it out.
#[test]
fn operators_for_a_backend_are_an_option() {
    const OPTIONS: [(&str, &str); 2] = [("stunet-kernels", "cpu"), ("stunet-kernels", "gpu")];
    let tops = ["stunet", "stunet-cli"];
    let forwards = |feature: &str, enables: &str| {
        let (name, option) = enables.split_once('/').unwrap_or_default();
        name.starts_with("stunet-") && option == feature
    };
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let features = package["features"].as_object().unwrap();
        for (feature, enables) in features.iter().filter(|_| !tops.contains(&name)) {
            let enables: Vec<_> =
                enables.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
            assert!(feature != "default" || enables == ["cpu"], "{name}'s default features");
            let chooses = enables.iter().any(|enabled| {
                if feature == "default" || forwards(feature, enabled) {
                    return false;
                }
                let (_, option) = enabled.rsplit_once(['/', ':']).unwrap_or(("", enabled));
                BACKENDS.contains(&option.trim_start_matches("burn-"))
            });
            assert!(
                !chooses || OPTIONS.contains(&(name, feature.as_str())),
                "{name}'s feature {feature} chooses a backend"
            );
        }
    }
    let computing = ["stunet-kernels", "stunet-model", "stunet-train", "stunet-infer"];
    for package in packages().iter().filter(|p| computing.contains(&p["name"].as_str().unwrap())) {
        assert_eq!(package["features"]["default"], serde_json::json!(["cpu"]), "{package}");
    }
    for (from, to, declaration) in dependencies(None) {
        let defaults = declaration["uses_default_features"].as_bool().unwrap();
        let forced = defaults && (computing.contains(&to.as_str()) || to == "stunet");
        assert!(!forced, "{from} turns on the default features of {to}");
        let is_backend = |name: &&str| *name == "cubecl" || BACKENDS.contains(name);
        if let Some(backend) = to.strip_prefix("burn-").filter(is_backend) {
            assert!(OPTIONS.iter().any(|(name, _)| *name == from), "{from} is built for {backend}");
            assert_eq!(declaration["optional"], true, "{from}: {to} must be an option");
            assert_eq!(declaration["req"], "=0.22.1", "{from}: {to} is pinned");
        }
        for (name, option) in OPTIONS {
            let features = declaration["features"].as_array().unwrap();
            assert!(
                to != name || !features.contains(&option.into()),
                "{from} turns on {name}'s {option}, not by a feature of its own"
            );
        }
    }
}

#[test]
fn anyhow_lives_in_the_binary() {
    for (from, to, _) in dependencies(None) {
        assert!(to != "anyhow" || from == "stunet-cli", "{from} depends on anyhow");
    }
}

/// The build script of the `cuda` feature fetches LLVM through the first; the second is locked by an
/// option of Burn that no feature of ours turns on. No program of ours holds either.
const BUILD_ONLY: [&str; 2] = ["tracel-llvm-bundler", "torch-sys"];

#[test]
fn no_library_opens_a_connection() {
    let reached = reachable("stunet", &BUILD_ONLY);
    let found: Vec<_> = NETWORK.into_iter().filter(|name| reached.contains(*name)).collect();
    assert!(found.is_empty(), "the libraries could open a connection through {found:?}");
}

/// `stunet download` alone, through one crate, which a feature turns off.
#[test]
fn one_command_opens_connections() {
    let [first, second] = BUILD_ONLY;
    let reached = reachable("stunet-cli", &[first, second, "ureq"]);
    let found: Vec<_> = NETWORK.into_iter().filter(|name| reached.contains(*name)).collect();
    assert_eq!(found, ["ureq"], "what the binary could open a connection through");
    let through: Vec<_> = dependencies(None)
        .into_iter()
        .filter(|(_, to, _)| NETWORK.contains(&to.as_str()))
        .collect();
    assert_eq!(through.len(), 1, "{through:?}");
    let (from, to, declaration) = &through[0];
    assert_eq!((from.as_str(), to.as_str()), ("stunet-cli", "ureq"));
    assert_eq!(declaration["optional"], true, "{declaration}");
    // OpenSSL is the system's, and differs from machine to machine.
    let reached = reachable("stunet-cli", &BUILD_ONLY);
    assert!(!reached.contains("openssl-sys") && !reached.contains("native-tls"));
}

/// Nothing else in the sources knows a socket, nor the crate that does.
#[test]
fn one_file_opens_connections() {
    const ROOM: &str = "crates/stunet-cli/src/hub/web.rs";
    let mut files = Vec::new();
    for (name, _) in ARROWS {
        let folder = if name == "stunet" { "src".into() } else { format!("crates/{name}/src") };
        rust_files(&root().join(folder), &mut files);
    }
    let mut users = Vec::new();
    for file in files {
        let name = file.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(&file).unwrap();
        let opens = |line: &str| {
            !line.trim_start().starts_with("//")
                && ["ureq", "TcpStream", "TcpListener", "UdpSocket", "UnixStream", "ToSocketAddrs"]
                    .into_iter()
                    .any(|word| has_word(line, word))
        };
        if text.lines().any(opens) {
            users.push(name);
        }
    }
    assert_eq!(users, [ROOM], "files that could open a connection");
    // Only `stunet download` asks it.
    let asks = fs::read_to_string(root().join("crates/stunet-cli/src/hub.rs")).unwrap();
    assert!(asks.contains("#[cfg(feature = \"download\")]\nmod web;"));
    let mut commands = Vec::new();
    rust_files(&root().join("crates/stunet-cli/src/commands"), &mut commands);
    let users = commands
        .into_iter()
        .filter(|file| fs::read_to_string(file).unwrap().lines().any(|line| has_word(line, "Web")));
    let users: Vec<_> = users.map(|file| file.file_name().unwrap().to_owned()).collect();
    assert_eq!(users, ["download.rs"]);
}

#[test]
fn every_crate_inherits_the_lints() {
    for package in packages() {
        let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
        let text = fs::read_to_string(&manifest).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{}", manifest.display());
    }
}

#[test]
fn unsafe_stays_in_its_rooms() {
    check_code(
        "`unsafe` outside stunet-kernels, the memory map and the allocator",
        |file, line| {
            !file.starts_with("crates/stunet-kernels/")
                && !UNSAFE.contains(&file)
                && (has_word(line, "unsafe") || line.contains("allow(unsafe_code"))
        },
    );
}

/// WebAssembly has neither: a prediction there runs on one thread, without a clock.
#[test]
fn prediction_has_one_room_for_clocks_and_threads() {
    /// The second runs beside a GPU whose sums stay with it, which `platform::THREADS` decides; the
    /// third is compiled for Linux only; without threads, the fourth keeps no memory.
    const ROOMS: [&str; 4] = [
        "crates/stunet-infer/src/platform.rs",
        "crates/stunet-infer/src/band.rs",
        "crates/stunet-kernels/src/cpu/pool/linux.rs",
        "crates/stunet-kernels/src/cpu/pool/idle.rs",
    ];
    const PREDICTION: [&str; 5] = [
        "crates/stunet-infer/",
        "crates/stunet-kernels/",
        "crates/stunet-model/",
        "crates/stunet-data/src/nifti",
        "crates/stunet-data/src/preprocess",
    ];
    check_code("a clock or a thread outside their room", |file, line| {
        PREDICTION.iter().any(|path| file.starts_with(path))
            && !ROOMS.contains(&file)
            && ["Instant::now", "SystemTime::now", "thread::scope", "thread::spawn", "map_anon"]
                .iter()
                .any(|name| line.contains(name))
    });
}

#[test]
fn libraries_print_nothing() {
    check_code("a library prints", |_, line| {
        ["println!", "eprintln!", "print!", "eprint!", "dbg!"]
            .into_iter()
            .any(|name| has_word(line, name))
            || line.contains("io::stdout")
            // A handle that is kept to be put back is not written to.
            || line.contains("io::stderr") && !line.contains("rustix::io::dup(")
    });
}

/// A line elsewhere would panic where nobody reads, or send what steers a terminal. The allocator says its
/// last line by itself: nothing may be allocated by then.
#[test]
fn one_room_of_the_binary_writes_to_the_terminal() {
    let mut files = Vec::new();
    rust_files(&root().join("crates/stunet-cli/src"), &mut files);
    assert!(files.len() > 20, "the sources were not found");
    let rooms = ["output.rs", "allocator.rs"];
    for file in files.iter().filter(|file| !rooms.iter().any(|room| file.ends_with(room))) {
        for (index, line) in fs::read_to_string(file).unwrap().lines().enumerate() {
            let prints = ["println!", "eprintln!", "print!", "eprint!", "dbg!"]
                .into_iter()
                .any(|name| has_word(line, name))
                || ["io::stdout", "io::stderr"].iter().any(|handle| line.contains(handle));
            assert!(!prints, "{}:{}: {line}", file.display(), index + 1);
        }
    }
}

#[test]
fn libraries_read_no_environment() {
    check_code("a library reads the environment", |_, line| {
        ["env::var", "env::args", "env::set_var", "env::home_dir", "env::current_dir"]
            .into_iter()
            .any(|name| line.contains(name))
    });
}

#[test]
fn libraries_own_no_global_generator() {
    check_code("a global random generator", |_, line| {
        ["thread_rng", "rand::rng(", "rand::random", "from_os_rng", "from_entropy"]
            .into_iter()
            .any(|name| line.contains(name))
    });
}

#[test]
fn the_references_names_live_in_one_table() {
    check_code("names of the reference outside the key map", |file, line| {
        file != "crates/stunet-model/src/weights/key_map.rs"
            && ["conv_blocks_context", "conv_blocks_localization", "seg_outputs"]
                .into_iter()
                .any(|name| line.contains(name))
    });
}

#[test]
fn backends_are_chosen_in_one_file() {
    // The kernels choose nothing: they have operators for the processor, or not, and for GPUs whose
    // kernels Burn does not fuse, or not.
    let implements = |file: &str, line: &str| {
        file.starts_with("crates/stunet-kernels/")
            && ["\"cpu\"", "\"fusion\""].into_iter().any(|name| line.contains(name))
    };
    check_code("a backend's feature outside the device module", |file, line| {
        file != "src/device.rs"
            && !implements(file, line)
            && line.contains("cfg")
            && BACKENDS.into_iter().any(|name| line.contains(&format!("feature = \"{name}\"")))
    });
}

/// Results appear whole or not at all: two rooms write files, one appends lines, one locks.
/// A kernel of a GPU with several optional arguments says which it is given: the number by which CubeCL keeps compiled
/// kernels does not (`Present`).
#[test]
fn kernels_say_which_options_they_are_given() {
    let mut files = Vec::new();
    rust_files(&root().join("crates/stunet-kernels/src/gpu"), &mut files);
    let mut several = 0;
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for kernel in text.split("#[cube(launch").skip(1) {
            let signature = kernel.split_once(") {").map_or(kernel, |(signature, _)| signature);
            if signature.matches("ComptimeOption<").count() > 1 {
                several += 1;
                let name = signature.split("fn ").nth(1).unwrap_or(signature);
                assert!(signature.contains("_present: Present"), "{}: {name}", path.display());
            }
        }
    }
    assert!(several > 1, "found {several} kernels with several optional arguments");
}

#[test]
fn files_are_written_in_their_rooms() {
    // The last opens a device in which writing leaves nothing; log and events grow record by record.
    const ROOMS: [&str; 6] = [
        "crates/stunet-data/src/files.rs",
        "crates/stunet-data/src/store/fill.rs",
        "crates/stunet-model/src/weights/atomic.rs",
        "crates/stunet-train/src/log.rs",
        "crates/stunet-train/src/tensorboard.rs",
        "src/device/quiet.rs",
    ];
    check_code("a file is written outside the writers", |file, line| {
        let creates = ["File::create", "File::create_new"];
        !ROOMS.contains(&file)
            && (creates.into_iter().any(|name| has_word(line, name))
                || [
                    "fs::write(",
                    "fs::copy(",
                    "fs::rename(",
                    "fs::hard_link(",
                    "File::options",
                    "std::fs::OpenOptions",
                    ".persist(",
                    "tempfile_in(",
                    "tempfile::Builder",
                    "NamedTempFile::new",
                ]
                .into_iter()
                .any(|name| line.contains(name)))
    });
}
