use super::*;
use crate::args;

/// Folders with a dataset and a model of each version, named by variables.
fn scene() -> (tempfile::TempDir, Homes) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().canonicalize().unwrap();
    let models = [
        "results/Dataset501_Liver/STUNetTrainer_base_ft__nnUNetPlans__3d_fullres",
        "old/nnUNet/3d_fullres/Task101_Total/STUNetTrainer_base__nnUNetPlansv2.1",
    ];
    for model in models {
        std::fs::create_dir_all(home.join(model)).unwrap();
    }
    let homes = Homes::of(|name| match name {
        "nnUNet_results" => Some(home.join("results")),
        "nnUNet_raw" => Some(home.join("raw")),
        "RESULTS_FOLDER" => Some(home.join("old")),
        _ => None,
    });
    (folder, homes)
}

fn words(line: &str) -> Vec<OsString> {
    line.split(' ').map(Into::into).collect()
}

/// What a line becomes, commands joined by ` && `, `@` for the scene's folder; and that this program
/// accepts it.
fn check(line: &str, expected: &str, notes: usize) {
    let (folder, homes) = scene();
    let home = folder.path().canonicalize().unwrap();
    let found = translate(&words(line), &homes).unwrap();
    let shown: Vec<_> = found.commands.iter().map(|command| command.join(" ")).collect();
    let shown = shown.join(" && ").replace(home.to_str().unwrap(), "@");
    assert_eq!(shown, expected, "{line}");
    assert_eq!(found.notes.len(), notes, "{line}: {:?}", found.notes);
    for command in found.commands {
        let words = std::iter::once("stunet".to_owned()).chain(command);
        args::parse(words.map(Into::into)).unwrap();
    }
}

#[test]
fn predictions() {
    check(
        "nnUNetv2_predict -i in -o out -d 501 -c 3d_fullres -tr STUNetTrainer_base_ft -f 0 1 --save_probabilities",
        "predict --input in --output out --folds 0 1 --save-probabilities npz --model \
         @/results/Dataset501_Liver/STUNetTrainer_base_ft__nnUNetPlans__3d_fullres --overwrite",
        0,
    );
    check(
        "nnUNetv2_predict -d Dataset501_Liver -i in -o out -f all -tr nnUNetTrainer -c 3d_fullres -p \
         nnUNetPlans --continue_prediction -npp 2 -device cpu",
        "predict --input in --output out --folds all --model \
         @/results/Dataset501_Liver/nnUNetTrainer__nnUNetPlans__3d_fullres --device cpu",
        1,
    );
    check(
        "nnUNetv2_predict_from_modelfolder -i in -o out -m model -step_size 0.7 --disable_tta --c",
        "predict --input in --output out --model model --step-size 0.7 --disable-tta",
        0,
    );
    // STU-Net's own.
    check(
        "nnUNet_predict -i INPUT_PATH -o OUTPUT_PATH -t 101 -m 3d_fullres -f 0 -tr STUNetTrainer_base -chk \
         base_ep4k --mode fast --disable_tta",
        "predict --input INPUT_PATH --output OUTPUT_PATH --folds 0 --checkpoint base_ep4k --mode fast \
         --disable-tta --model @/old/nnUNet/3d_fullres/Task101_Total/STUNetTrainer_base__nnUNetPlansv2.1",
        0,
    );
}

#[test]
fn datasets() {
    check("nnUNetv2_convert_MSD_dataset -i Task09_Spleen -np 4", "import Task09_Spleen", 1);
    check("nnUNetv2_convert_MSD_dataset -i T -overwrite_id 7", "import T --number 7", 0);
    check(
        "nnUNetv2_convert_old_nnUNet_dataset Task101_Total Dataset101_Total",
        "import Task101_Total --output @/raw/Dataset101_Total",
        0,
    );
}

#[test]
fn trainings() {
    check(
        "nnUNetv2_train 501 3d_fullres 0 -tr STUNetTrainer_base_ft -pretrained_weights base.model --npz",
        "train 501 3d_fullres 0 --trainer STUNetTrainer_base_ft --pretrained base.model --npz",
        0,
    );
    check(
        "CUDA_VISIBLE_DEVICES=0 nnUNetv2_train Dataset501_Liver 3d_fullres all --c -num_gpus 2",
        "train Dataset501_Liver 3d_fullres all --trainer nnUNetTrainer --continue --device cuda:0,cuda:1",
        2,
    );
    check(
        "nnUNet_train 3d_fullres STUNetTrainer_small Task501_Liver 4 --fp32 -val",
        "train Task501_Liver 3d_fullres 4 --trainer STUNetTrainer_small --precision f32 --val",
        0,
    );
    // STU-Net's own.
    check(
        "python nnunetv2/run/run_finetuning_stunet.py 501 3d_fullres 0 -pretrained_weights MODEL -tr \
         STUNetTrainer_base_ft",
        "train 501 3d_fullres 0 --trainer STUNetTrainer_base_ft --pretrained MODEL",
        0,
    );
    // Other orders, and the beginning of an option, as argparse has it.
    check(
        "train -tr nnUNetTrainer_100epochs 501 3d_fullres 1 --disable_checkp",
        "train 501 3d_fullres 1 --trainer nnUNetTrainer_100epochs",
        2,
    );
}

#[test]
fn plans() {
    check(
        "nnUNetv2_plan_and_preprocess -d 501 --verify_dataset_integrity",
        "plan 501 && preprocess 501 3d_fullres",
        2,
    );
    check(
        "nnUNetv2_plan_and_preprocess -d 1 2 -c 3d_fullres 3d_lowres -np 4 2 -overwrite_plans_name P",
        "plan 1 --plans-name P && preprocess 1 3d_fullres --plans P --num-workers 4 && preprocess 1 \
         3d_lowres --plans P --num-workers 2 && plan 2 --plans-name P && preprocess 2 3d_fullres --plans P \
         --num-workers 4 && preprocess 2 3d_lowres --plans P --num-workers 2",
        0,
    );
    check(
        "nnUNetv2_plan_experiment -d 5 -gpu_memory_target 24 -overwrite_target_spacing 3 1 1",
        "plan 5 --memory 24 --spacing 3 1 1",
        0,
    );
    check("nnUNetv2_preprocess -d 5 -c 3d_fullres", "preprocess 5 3d_fullres", 0);
    check("nnUNet_plan_and_preprocess -t 501 -no_pp -pl2d None", "plan 501 --rules v1", 1);
}

#[test]
fn after_training() {
    check(
        "nnUNetv2_find_best_configuration 501 -c 3d_fullres -tr STUNetTrainer_base_ft -f 0 1 2",
        "find-best 501 --configurations 3d_fullres --trainers STUNetTrainer_base_ft --folds 0 1 2",
        1,
    );
    check(
        "nnUNetv2_accumulate_crossval_results 501 -c 3d_fullres -tr STUNetTrainer_base_ft -o out",
        "accumulate @/results/Dataset501_Liver/STUNetTrainer_base_ft__nnUNetPlans__3d_fullres --output out",
        0,
    );
    check(
        "nnUNetv2_ensemble -i a b -o out -np 8 --save_npz",
        "ensemble --input a b --output out --num-threads 8 --save-npz",
        0,
    );
    check(
        "nnUNetv2_apply_postprocessing -i a -o b -pp_pkl_file p.pkl -np 8 -plans_json plans.json",
        "postprocess apply --input a --output b --steps p.pkl --num-threads 8",
        1,
    );
    check(
        "nnUNetv2_determine_postprocessing -i a -ref labelsTr --remove_postprocessed",
        "postprocess determine --input a --reference labelsTr --remove-postprocessed",
        0,
    );
    check(
        "nnUNetv2_evaluate_folder labelsTs out -djfile d.json -pfile p.json",
        "evaluate labelsTs out --dataset-json d.json --plans p.json",
        0,
    );
    check(
        "nnUNetv2_evaluate_simple a b -l 1 2 -il 3",
        "evaluate a b --labels 1 2 --ignore-label 3",
        0,
    );
    check(
        "nnUNet_evaluate_folder -ref a -pred b -l 1 2",
        "evaluate --layout v1 a b --labels 1 2",
        0,
    );
    check("nnUNet_ensemble -f a b -o out --npz", "ensemble --input a b --output out --save-npz", 0);
    check(
        "nnUNetv2_plot_overlay_pngs -d 501 -o out -np 4 -channel_idx 1 --use_raw -overlay_intensity 0.4",
        "pictures 501 --output out --num-threads 4 --channel 1 --overwrite",
        2,
    );
}

#[test]
fn refusals() {
    let (_folder, homes) = scene();
    let check = |line: &str, reason: &str| {
        let message = translate(&words(line), &homes).unwrap_err().to_string();
        assert!(message.contains(reason), "{line}: {message}");
    };
    check("nnUNetv2_prdict -i a", "expected a command of nnU-Net");
    check("nnUNetv2_predict -i a -o b -c 3d_fullres", "expected the dataset: -d");
    check("nnUNetv2_predict -i a -o b -d 501", "expected the configuration: -c");
    check("nnUNetv2_predict -i a -o b -d 502 -c 3d_fullres", "expected a folder Dataset502_NAME");
    check("nnUNetv2_predict -i a -o b -x", "expected -i, -o, -d");
    check("nnUNetv2_predict -i", "-i: expected a value");
    check("nnUNetv2_predict -prev_stage_predictions x", "cascade");
    check("nnUNetv2_plan_experiment -d 1 -pl nnUNetPlannerResEncL", "plan with nnU-Net");
    check("nnUNetv2_train 1 3d_fullres 0 -tr nnUNetTrainerDA5", "own_augmentation.rs");
    check("nnUNetv2_train 1 2d 0", "networks for slices");
    check("nnUNetv2_predict -i a -o b -d 501 -c 2d", "networks for slices");
    check("nnUNetv2_train 1 3d_fullres", "expected the fold");
    check("nnUNetv2_train 1 3d_fullres 0 -device tpu", "expected cpu, cuda or mps");
    check("nnUNetv2_train 1 3d_fullres 0 extra", "expected an option");
    check("nnUNetv2_plan_and_preprocess -d 1 -c 2d", "expected 3d_fullres or 3d_lowres");
    check("nnUNetv2_export_model_to_zip -d 501 -o a.zip -c 2d 3d_fullres", "one configuration");
    check("nnUNetv2_install_pretrained_model_from_zip", "expected two folders, or a file");
    check("nnUNetv2_plot_overlay_pngs -o a", "expected the dataset: -d");
    check("A=1", "expected a command line of nnU-Net");
}

/// Every option of nnU-Net 2.8.1's and 1.7.1's commands is in a table; by the lists that
/// `scripts/nnunet-flags` prints.
#[test]
fn every_option_is_known() {
    let listed = include_str!("flags.txt");
    let mut command = None;
    for line in listed.lines().filter(|line| !line.starts_with('#')) {
        if let Some(option) = line.strip_prefix("  ") {
            let command: &tables::Command = command.expect("a command comes first");
            let known = command.flags.iter().any(|(names, ..)| names.contains(&option));
            assert!(known, "{}: {option}", command.name);
        } else {
            let name = |known: &tables::Command| match known.version {
                1 => format!("nnUNet_{}", known.name),
                _ => format!("nnUNetv2_{}", known.name),
            };
            let found = tables::COMMANDS.iter().find(|known| name(known) == line);
            command = Some(found.unwrap_or_else(|| panic!("{line}")));
        }
    }
}
