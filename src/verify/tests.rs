//! What was recorded is right, the processor agrees with it, and a wrong value is found where it is.

use super::*;
use bench::Values;
use recorded::Kept;
use stunet_kernels::{Algorithm, steps};

fn processor() -> Device {
    crate::device::parse("cpu").unwrap()
}

fn go_on(_: &StageReport) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// `STUNET_WRITE_VERIFY=1` writes it; else it must be what it would write, but for the order of sums.
///
/// All of it but what the host computes is in double precision and by Burn's operators.
#[test]
fn recorded_by_the_reference_in_double_precision() {
    let (text, calls) = steps(|| record(&processor()).unwrap());
    let own = calls.iter().find(|call| call.algorithm != Algorithm::Reference);
    assert!(calls.len() > 500 && own.is_none(), "{own:?} is an operator of our own");
    if std::env::var_os("STUNET_WRITE_VERIFY").is_some() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/verify/recorded.json");
        std::fs::write(file, text + "\n").unwrap();
    } else {
        assert_recorded(&text);
    }
}

fn assert_recorded(text: &str) {
    let (found, kept): (Recorded, _) = (serde_json::from_str(text).unwrap(), recorded::recorded());
    assert!(found.keys().eq(kept.keys()), "other stages: record anew");
    for (stage, values) in &kept {
        assert!(values.keys().eq(found[stage].keys()), "{stage}: other results: record anew");
        for (name, expected) in values {
            assert_same(&format!("{stage}, {name}"), &found[stage][name], expected);
        }
    }
    assert!(text.len() < 2 << 20, "{} bytes in the program", text.len());
}

fn assert_same(name: &str, found: &Kept, expected: &Kept) {
    let numbers = |kept: &Kept| match kept {
        Kept::Labels(_) => None,
        Kept::Numbers { len, largest, rms, sums, samples } => {
            let scale = [*len as f64, *largest, *rms];
            Some([&scale[..], sums, samples].concat())
        }
    };
    match (numbers(found), numbers(expected)) {
        (Some(a), Some(b)) => {
            assert_eq!(a.len(), b.len(), "{name}");
            let whole = b.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
            // Windows and preprocessing are handed on in single precision.
            let close = a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-6 * whole);
            assert!(close, "{name}: {found:?} instead of {expected:?}");
        }
        _ => assert_eq!(found, expected, "{name}"),
    }
}

#[test]
fn the_processor_agrees() {
    let mut worst = Vec::new();
    let found = verify(&processor(), Storage::F32, &mut |stage| {
        worst.push(format!("{:<50} {:.1e} of {:.0e}", stage.stage, stage.error, stage.bound));
        ControlFlow::Continue(())
    });
    assert!(found.passed(), "{:?}\n{}", found.first_failure(), worst.join("\n"));
    assert_eq!(found.stages.len(), num_stages(Storage::F32));
    for storage in [Storage::F16, Storage::Bf16] {
        let found = verify(&processor(), storage, &mut go_on);
        assert!(found.passed(), "{storage:?}: {:?}", found.first_failure());
        assert!(found.stages.len() > 20);
    }
}

/// One wrong value among the inputs of a stage makes that stage differ, and no other.
#[test]
fn a_fault_is_found_where_it_is() {
    let names: Vec<_> = all_stages().into_iter().map(|stage| stage.name).collect();
    for name in &names {
        let stage = all_stages().into_iter().find(|stage| stage.name == *name).unwrap();
        let bench = Bench::new(&processor(), DType::F32, name, true);
        let report = report(&stage, &bench, Storage::F32, &recorded::recorded());
        assert_eq!(report.outcome, StageOutcome::Differs, "{report:?}");
        assert!(report.error > 2.0 * report.bound, "{report:?}");
    }
    let wrong = names[4].as_str();
    let found = verify_with(&processor(), Storage::F32, Some(wrong), &mut go_on);
    assert_eq!(found.first_failure().map(|stage| stage.stage.as_str()), Some(wrong));
    let failed = found.stages.iter().filter(|stage| stage.outcome != StageOutcome::Agrees);
    assert_eq!(failed.count(), 1);
}

/// What comes of a stage does not hang on the last digits of what goes in: a device that rounds otherwise
/// agrees.
#[test]
fn stages_do_not_magnify_rounding() {
    let mut magnified = Vec::new();
    for stage in all_stages() {
        for which in 0..4 {
            let bench = Bench::new(&processor(), DType::F64, &stage.name, false).rounded(which);
            let far = distance(&recorded::recorded()[&stage.name], &stage.run(&bench).unwrap());
            // A few times what the inputs are off by.
            if far.error > f64::max(stage.bound / 2.0, 4e-6) {
                magnified.push(format!("{}: {far:?}", stage.name));
            }
        }
    }
    assert!(magnified.is_empty(), "{}", magnified.join("\n"));
}

/// No label hangs on the last digits of its device.
#[test]
fn labels_are_decided_with_a_margin() {
    use stunet_infer::Mode;
    let names = ["image to labels, sums on the host", "image to labels, mode fast"];
    for (name, mode) in names.into_iter().zip([Mode::Normal, Mode::Fast]) {
        let labels = |shift: f32| {
            let bench = Bench::new(&processor(), DType::F32, name, false);
            case::predicted(&bench, mode, false, shift).unwrap()
        };
        let expected = labels(0.0);
        for shift in [-1e-5, 1e-5] {
            assert_eq!(labels(shift), expected, "{name}");
        }
        let Values::Labels(found) = &expected[0].1 else { panic!("labels") };
        for class in 0..4 {
            assert!(found.iter().filter(|label| **label == class).count() > 100, "{name}: {class}");
        }
    }
}

#[test]
fn a_stage_that_fails_is_told_in_one_line() {
    let stage = Stage::new("none", 1.0, |_| -> Result<Found, bench::Reason> { panic!("a\nb") });
    let bench = Bench::new(&processor(), DType::F32, "none", false);
    let told = report(&stage, &bench, Storage::F32, &Recorded::new());
    assert_eq!(told.outcome, StageOutcome::Failed("a".to_owned()));
    let stage = Stage::new("none", 1.0, |_| Err("x\n y".into()));
    let told = report(&stage, &bench, Storage::F32, &Recorded::new());
    assert_eq!(told.outcome, StageOutcome::Failed("x y".to_owned()));
}
