//! `stunet download` and `stunet models` against a server on the loopback that behaves like the hub.
#![cfg(feature = "download")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;
#[path = "common/hub.rs"]
mod hub;

use common::{STUNET, Scene, assert_one_line, said};
use hub::{COMMIT, Fault, Hub};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use stunet::burn::tensor::TensorData;
use stunet::model::weights::writer::{Contents, SgdRecord, V1Metadata, write_v1};
use stunet::model::{StuNetConfig, StuNetSize};

const FILE: &str = "base_ep4k.model";
const TOKEN: &str = "hf_VerySecret";

/// A home with nothing in it, and the binary in it.
struct Home(Scene);

impl Home {
    fn new() -> Self {
        Self(Scene::new())
    }

    fn cache(&self) -> PathBuf {
        self.0.path("hf/hub/models--ziyanhuang--STU-Net")
    }

    /// What has come of a file.
    fn partial(&self, sha256: &str) -> PathBuf {
        self.cache().join("blobs").join(format!("{sha256}.incomplete"))
    }

    fn pointer(&self, commit: &str) -> PathBuf {
        self.cache().join("snapshots").join(commit).join(FILE)
    }

    fn command(&self, endpoint: &str, words: &[&str]) -> Command {
        let mut command = Command::new(STUNET);
        command.args(words).env_clear().env("HOME", self.0.path("user"));
        command.env("HF_HOME", self.0.path("hf")).env("HF_ENDPOINT", endpoint);
        command.env("HF_HUB_DOWNLOAD_TIMEOUT", "2");
        command
    }

    fn run(&self, hub: &Hub, words: &[&str]) -> Output {
        self.command(&hub.endpoint(), words).output().unwrap()
    }

    fn download(&self, hub: &Hub) -> Output {
        self.run(hub, &["download", "base"])
    }
}

/// What it printed, of a run that went well.
fn check(output: &Output) -> String {
    let (stdout, stderr) = said(output);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr, "");
    secrets_are_kept(output);
    stdout
}

/// Neither the token nor the signature of an address is shown to anybody.
fn secrets_are_kept(output: &Output) {
    let (stdout, stderr) = said(output);
    for secret in [TOKEN, "Signature"] {
        assert!(!stdout.contains(secret) && !stderr.contains(secret), "{stdout}{stderr}");
    }
}

fn check_refused(output: &Output, words: &[&str]) {
    assert_one_line(output, words);
    assert_eq!(output.status.code(), Some(1));
    secrets_are_kept(output);
}

/// The bytes of a file, which differ from place to place.
fn bytes(count: usize) -> Vec<u8> {
    let mut state = 7u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..count).map(next).collect()
}

#[test]
fn a_file_comes_to_where_python_looks_for_it() {
    let (home, hub) = (Home::new(), Hub::new(bytes(3_000_000)));
    let out = check(&home.download(&hub));
    assert!(out.contains("base: 3.0 MB from ziyanhuang/STU-Net, Apache-2.0"), "{out}");
    assert!(out.contains("SHA-256 as the hub states"), "{out}");
    let pointer = home.pointer(COMMIT);
    assert_eq!(std::fs::read(&pointer).unwrap(), bytes(3_000_000));
    if cfg!(unix) {
        let blob = Path::new("../../blobs").join(hub.sha256());
        assert_eq!(std::fs::read_link(&pointer).unwrap(), blob);
    }
    assert_eq!(std::fs::read_to_string(home.cache().join("refs/main")).unwrap(), COMMIT);
    assert!(!home.partial(&hub.sha256()).exists());
    // What it is was asked of the hub, its bytes of the place that the hub named.
    let asked = hub.requests();
    assert_eq!(asked[0].line, format!("HEAD /ziyanhuang/STU-Net/resolve/main/{FILE}"));
    assert!(asked[1].line.starts_with("GET /blob?") && asked.len() == 2, "{asked:?}");
    // Again: nothing but the question.
    assert!(check(&home.download(&hub)).contains("base: is here already, 3.0 MB: "));
    assert_eq!(hub.requests().len(), 3);
    // A newer one comes beside it, and is meant from then on.
    hub.publish(bytes(2_000_000), "0123456789abcdef");
    check(&home.download(&hub));
    assert_eq!(std::fs::read(home.pointer("0123456789abcdef")).unwrap(), bytes(2_000_000));
    let models = check(&home.run(&hub, &["models", "--json"]));
    let models: serde_json::Value = serde_json::from_str(&models).unwrap();
    assert_eq!(models[1]["bytes"], 2_000_000);
    assert_eq!(models[1]["path"], home.pointer("0123456789abcdef").to_str().unwrap());
}

#[test]
fn what_breaks_off_goes_on() {
    let (home, hub) = (Home::new(), Hub::new(bytes(3_000_000)));
    hub.fault(Fault::BreakAfter(1_000_000), 2);
    let out = check(&home.download(&hub));
    assert!(out.contains("SHA-256 as the hub states"), "{out}");
    let ranges: Vec<_> = hub.requests().into_iter().filter_map(|asked| asked.range).collect();
    assert_eq!(ranges, ["bytes=1000000-", "bytes=2000000-"]);
    assert_eq!(std::fs::read(home.pointer(COMMIT)).unwrap(), bytes(3_000_000));
}

#[test]
fn a_second_run_goes_on_where_the_first_one_gave_up() {
    let (home, hub) = (Home::new(), Hub::new(bytes(3_000_000)));
    hub.fault(Fault::BreakAfter(1_000_000), 1);
    hub.fault(Fault::Status(503), usize::MAX);
    let kept = "1.0 MB of 3.0 MB are kept, and the same command goes on from there";
    check_refused(&home.download(&hub), &["base: base_ep4k.model", kept, "busy or out of order"]);
    assert_eq!(std::fs::metadata(home.partial(&hub.sha256())).unwrap().len(), 1_000_000);
    assert!(!home.pointer(COMMIT).exists());
    let models = check(&home.run(&hub, &["models"]));
    assert!(models.contains("1 unfinished download(s) of 1.0 MB"), "{models}");
    assert!(models.contains("stunet download base"), "{models}");
    hub.heal();
    let out = check(&home.download(&hub));
    assert!(out.contains("base: going on at 1.0 MB of 3.0 MB"), "{out}");
    assert_eq!(hub.requests().last().unwrap().range.as_deref(), Some("bytes=1000000-"));
    assert_eq!(std::fs::read(home.pointer(COMMIT)).unwrap(), bytes(3_000_000));
}

#[test]
fn a_server_that_knows_no_ranges_begins_again() {
    let (home, hub) = (Home::new(), Hub::new(bytes(1_000_000)));
    let path = home.partial(&hub.sha256());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &bytes(1_000_000)[..300_000]).unwrap();
    hub.fault(Fault::NoRanges, usize::MAX);
    check(&home.download(&hub));
    assert_eq!(std::fs::read(home.pointer(COMMIT)).unwrap(), bytes(1_000_000));
}

#[test]
fn wrong_bytes_are_removed_and_nothing_else() {
    let (home, hub) = (Home::new(), Hub::new(bytes(1_000_000)));
    check(&home.download(&hub));
    let before = home.0.contents();
    let changed = "1".repeat(40);
    hub.publish(bytes(900_000), &changed);
    hub.fault(Fault::WrongBytes, 1);
    let words = ["expected SHA-256", "as the hub states, found", "was removed, and nothing else"];
    check_refused(&home.download(&hub), &words);
    let after = home.0.contents();
    assert!(before.iter().all(|(path, size)| after.get(path) == Some(size)), "{after:?}");
    assert!(!home.partial(&hub.sha256()).exists() && !home.pointer(&changed).exists());
    // A part that was there before and is wrong shows at the end as well.
    std::fs::write(home.partial(&hub.sha256()), vec![0; 500_000]).unwrap();
    check_refused(&home.download(&hub), &["expected SHA-256"]);
    check(&home.download(&hub));
    assert_eq!(std::fs::read(home.pointer(&changed)).unwrap(), bytes(900_000));
    // More bytes than were stated are wrong, too, and not all of them are fetched.
    hub.publish(bytes(800_000), &"2".repeat(40));
    hub.fault(Fault::TooMany, 1);
    check_refused(&home.download(&hub), &["expected SHA-256", "800.0 kB"]);
}

#[test]
fn refusals_say_what_to_do() {
    let check = |fault: Fault, words: &[&str]| {
        let (home, hub) = (Home::new(), Hub::new(bytes(1000)));
        hub.fault(fault, usize::MAX);
        check_refused(&home.download(&hub), words);
        assert!(!home.cache().exists(), "nothing is written");
        // Neither is a token told that was sent.
        let mut command = home.command(&hub.endpoint(), &["download", "base"]);
        let output = command.env("HF_TOKEN", TOKEN).output().unwrap();
        assert!(!output.status.success());
        secrets_are_kept(&output);
    };
    check(Fault::HubStatus(404), &["no such file, repository or revision (404)"]);
    check(Fault::HubStatus(401), &["asks who you are", "HF_TOKEN", "found none"]);
    check(Fault::HubStatus(403), &["ask for access", "HF_TOKEN"]);
    check(Fault::HubStatus(418), &["refuses (status 418)"]);
    check(
        Fault::NoCommit,
        &["expected a hub, which states commit, SHA-256 and size", "--from URL"],
    );
    check(Fault::OddCommit, &["expected a hub, which states commit"]);
    check(Fault::Loop, &["redirected too often"]);
}

#[test]
fn the_token_is_sent_to_the_hub_alone() {
    let (home, hub) = (Home::new(), Hub::new(bytes(1000)));
    let mut command = home.command(&hub.endpoint(), &["download", "base"]);
    check(&command.env("HF_TOKEN", TOKEN).output().unwrap());
    let asked = hub.requests();
    assert_eq!(asked[0].authorization.as_deref(), Some("Bearer hf_VerySecret"));
    assert_eq!(asked[1].authorization, None, "the place of the bytes");
    // One that is not accepted.
    let (home, hub) = (Home::new(), Hub::new(bytes(1000)));
    hub.fault(Fault::HubStatus(401), usize::MAX);
    home.0.file("hf/token", TOKEN.as_bytes());
    check_refused(&home.download(&hub), &["does not accept the token", "HF_TOKEN"]);
    assert!(hub.requests()[0].authorization.is_some(), "from the file of `hf auth login`");
}

#[test]
fn without_a_network() {
    let (home, hub) = (Home::new(), Hub::new(bytes(1000)));
    let offline = || {
        let mut command = home.command(&hub.endpoint(), &["download", "base"]);
        command.env("HF_HUB_OFFLINE", "1").output().unwrap()
    };
    check_refused(&offline(), &["HF_HUB_OFFLINE is set", "--from FILE"]);
    assert!(hub.requests().is_empty(), "nothing was asked");
    check(&home.download(&hub));
    assert!(check(&offline()).contains("is here already"));
    // A hub that is gone: what is here stays good.
    let gone = home.command("http://127.0.0.1:9", &["download", "base"]).output().unwrap();
    let out = check(&gone);
    assert!(out.contains("was not asked for a newer one") && out.contains("is here already"));
    let gone = home.command("http://127.0.0.1:9", &["download", "small"]).output().unwrap();
    check_refused(&gone, &["small: small_ep4k.model", "127.0.0.1:9"]);
}

#[test]
fn a_slow_server_is_waited_for_and_a_silent_one_is_not() {
    let (home, hub) = (Home::new(), Hub::new(bytes(600_000)));
    hub.fault(Fault::Slow, usize::MAX);
    check(&home.download(&hub));
    let (home, hub) = (Home::new(), Hub::new(bytes(600_000)));
    hub.fault(Fault::Silent, usize::MAX);
    let mut command = home.command(&hub.endpoint(), &["download", "base"]);
    let begin = Instant::now();
    let output = command.env("HF_HUB_DOWNLOAD_TIMEOUT", "1").output().unwrap();
    check_refused(&output, &["is silent", "HF_HUB_DOWNLOAD_TIMEOUT"]);
    assert!(begin.elapsed() < Duration::from_secs(120), "it gives up");
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_what_has_come() {
    let (home, hub) = (Home::new(), Hub::new(bytes(3_000_000)));
    hub.fault(Fault::StallAfter(1_000_000), 1);
    let mut command = home.command(&hub.endpoint(), &["download", "base"]);
    command.env("HF_HUB_DOWNLOAD_TIMEOUT", "5").stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let partial = home.partial(&hub.sha256());
    let until = Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(&partial).map_or(0, |of| of.len()) < 1_000_000 {
        assert!(Instant::now() < until, "nothing came");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = said(&output);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stdout.contains("1.0 MB of 3.0 MB are kept, and the same command goes on"), "{stdout}");
    assert_eq!(std::fs::metadata(&partial).unwrap().len(), 1_000_000);
    check(&home.download(&hub));
    assert_eq!(std::fs::read(home.pointer(COMMIT)).unwrap(), bytes(3_000_000));
}

/// Weights of the published shape, all of one value.
fn weights(path: &Path, size: StuNetSize) {
    let mut parameters = |spec: &stunet::model::ParameterSpec| {
        let count = spec.shape.iter().product();
        Ok(TensorData::new(vec![0.01f32; count], spec.shape.clone()))
    };
    let config = StuNetConfig::new(size, 1, 105);
    let contents = Contents {
        config: &config,
        parameters: &mut parameters,
        momentum: None,
        optimiser: SgdRecord::default(),
    };
    write_v1(path, contents, &V1Metadata::default()).unwrap();
}

#[test]
fn files_that_were_brought_along() {
    let (home, hub) = (Home::new(), Hub::new(bytes(1000)));
    let file = home.0.path("usb.model");
    weights(&file, StuNetSize::Small);
    let from = |words: &[&str]| {
        let file = file.to_str().unwrap();
        home.run(&hub, &[&["download", "small", "--from", file], words].concat())
    };
    let labels = || home.run(&hub, &["labels", "small"]);
    check_refused(&labels(), &["expected the weights of small", "`stunet download small`"]);
    // Another size than its name says, and another file than was meant.
    let file_of = file.to_str().unwrap();
    let other = home.run(&hub, &["download", "base", "--from", file_of]);
    check_refused(&other, &["expected weights of STU-Net base, found small", "was removed"]);
    check_refused(&from(&["--sha256", &"0".repeat(64)]), &["as --sha256 states, found"]);
    assert!(file.is_file(), "what was brought along stays");
    let out = check(&from(&[]));
    assert!(out.contains("which nobody stated") && out.contains("-m small means it"), "{out}");
    let sha256 = out.split("SHA-256 ").nth(1).unwrap()[..64].to_owned();
    check(&from(&["--sha256", &sha256]));
    assert!(hub.requests().is_empty(), "nothing was asked");
    // From here on the name is enough, and Python's cache is what it is found in.
    assert_eq!(check(&labels()).lines().count(), 105);
    let info = check(&home.run(&hub, &["info", "small"]));
    assert!(info.contains("axes of training images     RAS"), "{info}");
    let models = check(&home.run(&hub, &["models"]));
    assert!(models.contains("small") && models.contains("SHA-256 ok"), "{models}");
    assert!(models.contains("stunet download huge"), "{models}");
    // A file or folder of that name comes first.
    let mut command = home.command(&hub.endpoint(), &["labels", "small"]);
    home.0.file("here/small", b"no weights");
    let output = command.current_dir(home.0.path("here")).output().unwrap();
    check_refused(&output, &["small"]);
    // Bytes that change later are noticed.
    let blob = home.cache().join("blobs").join(&sha256);
    let mut damaged = std::fs::read(&blob).unwrap();
    damaged[1_000_000] ^= 1;
    std::fs::write(&blob, damaged).unwrap();
    let output = home.run(&hub, &["models"]);
    let (stdout, stderr) = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout.contains("SHA-256 wrong") && stderr.contains("download it again"), "{stderr}");
    assert!(check(&home.run(&hub, &["models", "--quick"])).contains("not checked"));
}

#[test]
fn a_plain_server_of_a_site() {
    let home = Home::new();
    let file = home.0.path("site.model");
    weights(&file, StuNetSize::Small);
    let hub = Hub::new(std::fs::read(&file).unwrap());
    let address = format!("{}/mirror/small.model", hub.endpoint());
    hub.fault(Fault::BreakAfter(20_000_000), 1);
    let out = check(&home.run(&hub, &["download", "small", "--from", &address]));
    assert!(out.contains("which nobody stated"), "{out}");
    let asked = hub.requests();
    assert!(asked.iter().any(|asked| asked.range.as_deref() == Some("bytes=20000000-")));
    assert_eq!(check(&home.run(&hub, &["labels", "small"])).lines().count(), 105);
    // One that gives files and answers no questions.
    let home = Home::new();
    hub.fault(Fault::NoQuestions, usize::MAX);
    check(&home.run(&hub, &["download", "small", "--from", &address]));
    // A page that asks for a password is no weights, whatever its status.
    let hub = Hub::new(b"<html>Please log in</html>".to_vec());
    let address = format!("{}/mirror/small.model", hub.endpoint());
    let output = home.run(&hub, &["download", "small", "--from", &address]);
    check_refused(&output, &["was removed, and nothing else"]);
    assert_eq!(check(&home.run(&hub, &["labels", "small"])).lines().count(), 105);
    let address = "ftp://x/y";
    let output = home.run(&hub, &["download", "small", "--from", address]);
    check_refused(&output, &["ftp:"]);
}

#[test]
fn wrong_command_lines() {
    let (home, hub) = (Home::new(), Hub::new(bytes(1000)));
    for (words, expected) in [
        (&["download", "small", "base", "--from", "x"][..], "--from: expected one name"),
        (&["download", "base", "--revision", "../x"], "--revision: expected a commit"),
        (&["download", "base", "--from", "absent.model"], "absent.model"),
        (&["predict", "-i", "a.nii", "-o", "b.nii", "-m", "large"], "`stunet download large`"),
        (&["convert", "huge", "out"], "`stunet download huge`"),
        (&["info", "base"], "`stunet download base`"),
    ] {
        check_refused(&home.run(&hub, words), &[expected]);
    }
    assert!(hub.requests().is_empty());
    let mut command = home.command("hub.example", &["download", "base"]);
    check_refused(&command.output().unwrap(), &["HF_ENDPOINT: expected an address"]);
    let mut command = home.command(&hub.endpoint(), &["models"]);
    let output = command.env_remove("HF_HOME").env_remove("HOME").output().unwrap();
    check_refused(&output, &["set HF_HOME"]);
}
