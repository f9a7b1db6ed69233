//! Outputs that cannot be written, where setting that up depends on the rights of whoever runs this.
//!
//! A locked folder stops everybody but root; a small disk needs the right to mount one. What cannot be
//! set up here is ignored, and the summary says why.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods, clippy::unwrap_used)]

#[cfg(target_os = "linux")]
mod common;

use std::process::ExitCode;
use stunet_testing::harness::Tests;

fn main() -> ExitCode {
    let mut tests = Tests::from_arguments();
    #[cfg(target_os = "linux")]
    {
        tests.add("a_locked_folder", Ok(()), linux::a_locked_folder);
        tests.add("a_disk_that_fills_up", Ok(()), linux::a_disk_that_fills_up);
        tests.add("a_disk_that_is_full", Ok(()), linux::a_disk_that_is_full);
    }
    tests.run()
}

#[cfg(target_os = "linux")]
mod linux {
    use crate::common::{STUNET, Scene, assert_one_line, model_folder, predict_arguments, stunet};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;
    use std::process::{Command, Output};
    use stunet_testing::harness::Absent;
    use stunet_testing::nifti_bytes::NiftiBytes;

    fn is_root() -> bool {
        std::fs::metadata("/proc/self").unwrap().uid() == 0
    }

    pub fn a_locked_folder() -> Result<(), Absent> {
        if is_root() {
            return Err(Absent::new("rights on folders do not stop root: needs another user"));
        }
        let scene = Scene::new();
        let input = scene.volume("ct.nii");
        let folder = scene.path("locked");
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o555)).unwrap();
        let before = scene.contents();
        let output = folder.join("labels.nii.gz");
        let result = stunet(predict_arguments(&input, &output, &model_folder(1)));
        assert_one_line(&result, &["cannot write", "labels.nii.gz"]);
        assert_eq!(scene.contents(), before, "something was written");
        Ok(())
    }

    /// A shell in a mount namespace of its own, with a file system of 160 KiB mounted on `disk`: it
    /// goes away with the shell.
    fn with_small_disk(disk: &Path, script: &str, arguments: &[String]) -> Output {
        let script = format!("mount -t tmpfs -o size=160k tmpfs \"$0\" || exit 99; {script}");
        let own_user = if is_root() { "--mount" } else { "--map-root-user" };
        let mut command = Command::new("unshare");
        command.args([own_user, "--mount", "sh", "-c"]).arg(script).arg(disk).arg(STUNET);
        command.args(arguments).output().unwrap()
    }

    /// Predicts onto the small disk, after `before`; gives the result and the files left there.
    fn predict_onto(before: &str) -> Result<(Output, String), Absent> {
        let scene = Scene::new();
        // 64³ voxels are 256 KiB of labels.
        let input = scene.file("ct.nii", &NiftiBytes::ramp([64, 64, 64]).bytes());
        let disk = scene.path("disk");
        std::fs::create_dir(&disk).unwrap();
        let may_mount = Command::new("unshare").arg("--version").output().is_ok()
            && with_small_disk(&disk, "true", &[]).status.success();
        if !may_mount {
            return Err(Absent::new("needs the right to mount a small disk (unshare, mount)"));
        }
        let script = format!("{before}; \"$@\"; code=$?; ls -A \"$0\" >\"$0.left\"; exit $code");
        let arguments = predict_arguments(&input, &disk.join("out.nii"), &model_folder(1));
        let output = with_small_disk(&disk, &script, &arguments);
        Ok((output, std::fs::read_to_string(scene.path("disk.left")).unwrap()))
    }

    pub fn a_disk_that_fills_up() -> Result<(), Absent> {
        let (output, left) = predict_onto("true")?;
        assert_one_line(&output, &["space", "out.nii"]);
        assert_eq!(left, "", "something was left on the full disk");
        Ok(())
    }

    pub fn a_disk_that_is_full() -> Result<(), Absent> {
        let (output, left) = predict_onto("head -c 153600 /dev/zero >\"$0/filler\"")?;
        assert_one_line(&output, &["cannot write", "space", "out.nii"]);
        assert_eq!(left, "filler\n", "something was left on the full disk");
        Ok(())
    }
}
