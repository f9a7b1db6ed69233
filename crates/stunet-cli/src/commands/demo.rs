//! `stunet demo`: a synthetic CT, segmented with a model that is part of the program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use stunet::data::{formats, nifti};
use stunet::device;
use stunet::infer::{self, Model, OpenOptions, PredictOptions, Prediction};
use stunet::pictures::preview::{FoundLabel, PreviewOptions, Scene, SceneOptions};
use stunet_phantom::{PhantomCase, ScanOptions, demo};

use crate::args::DemoArgs;
use crate::demo_model::banner_of;
use crate::failure::Interrupted;
use crate::interrupt;
use crate::jobs::check_writable;
use crate::output;
use crate::pictures::{size_text, write};
use crate::progress::CaseBar;

/// What is written to the folder.
const FILES: [&str; 4] = ["ct.nii.gz", "labels.nii.gz", "truth.nii.gz", "preview.png"];

/// Makes a CT, segments it, and tells how well.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    interrupt::watch(args.quiet, "window")?;
    let files = FILES.map(|name| args.folder.join(name));
    for file in &files {
        ensure!(
            args.overwrite || !file.exists(),
            "expected a folder without {}, another folder, or --overwrite: {}",
            file.file_name().unwrap_or_default().to_string_lossy(),
            file.display()
        );
        check_writable(file)?;
    }
    let chosen = device::choose(&args.device)?;
    let say = |text: &str| if args.quiet { Ok(()) } else { output::line(text) };
    let case = phantom(args)?;
    say(&format!("a synthetic CT, {}", size_text(&case.image.geometry)))?;
    let options = OpenOptions::new(&chosen.device);
    let model =
        Model::from_files(demo::files().map(|(name, bytes)| (name, bytes.to_vec())), &options)?;
    let clock = Instant::now();
    let found = predicted(&model, &case, args.quiet)?;
    let secs = clock.elapsed().as_secs_f64();
    say(&format!("segmented in {secs:.1} s on {} with a model for demonstration", chosen.name))?;
    let table = save(&args.folder, &files, (&model, &case, &found))?;
    if !args.quiet {
        tell(&table, &files)?;
    }
    Ok(())
}

fn phantom(args: &DemoArgs) -> anyhow::Result<PhantomCase> {
    let seed = match args.seed {
        Some(seed) => seed,
        // Far beyond the seeds that the model was trained on.
        None => (1 << 32) + SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64,
    };
    Ok(PhantomCase::of(seed, &ScanOptions::default(), &demo::STRUCTURES))
}

fn predicted(model: &Model, case: &PhantomCase, quiet: bool) -> anyhow::Result<Prediction> {
    let progress = CaseBar::new(case.name.clone(), quiet);
    let options = PredictOptions::default();
    let found = infer::predict(model, &case.image, &options, &mut |event| {
        progress.on_event(event);
        interrupt::flow()
    });
    found.map_err(|error| match error {
        infer::InferError::Interrupted => Interrupted.into(),
        error => error.into(),
    })
}

/// Writes everything, and returns what was found.
fn save(
    folder: &Path,
    files: &[PathBuf; 4],
    (model, case, found): (&Model, &PhantomCase, &Prediction),
) -> anyhow::Result<Vec<FoundLabel>> {
    let make = || format!("cannot make the folder {}", folder.display());
    std::fs::create_dir_all(folder).with_context(make)?;
    let names: BTreeMap<u16, String> = (model.labels().painted().into_iter())
        .map(|(value, name)| (value, name.to_owned()))
        .collect();
    let options = SceneOptions { truth: Some((&case.truth).into()), ..SceneOptions::default() };
    let scene = Scene::new(&case.image, &found.labelmap, &names, &options)?;
    let words = PreviewOptions { title: None, banner: banner_of(model) };
    let png = scene.preview(&words).to_png()?;
    let [ct, labels, truth, picture] = files;
    let highest = model.labels().max_value();
    nifti::write_image(ct, &case.image)?;
    formats::write_compact_labelmap(labels, &found.labelmap, highest, None)?;
    nifti::write_labelmap(truth, &case.truth, highest)?;
    write(picture, &png)?;
    Ok(scene.found().to_vec())
}

fn tell(found: &[FoundLabel], [ct, labels, truth, picture]: &[PathBuf; 4]) -> anyhow::Result<()> {
    let wide = found.iter().map(|label| label.name.chars().count()).max().unwrap_or(0);
    for label in found {
        let dice = label.dice.map_or("-".to_owned(), |dice| format!("{dice:.3}"));
        let FoundLabel { name, volume_ml, .. } = label;
        output::line(&format!("  {name:wide$} {volume_ml:8.1} ml   Dice {dice}"))?;
    }
    for (what, file) in
        [("CT", ct), ("labels", labels), ("true labels", truth), ("picture", picture)]
    {
        output::line(&format!("{what}: {}", file.display()))?;
    }
    output::line("For CTs of patients, use the published weights: see `stunet predict --help`")
}
