//! Reports of `stunet predict --json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value, json};

use super::Merged;

/// Stages of a case, and all of them.
const STAGES: [&str; 6] = ["read", "preprocess", "windows", "export", "write", "total"];

/// A case, and the report it comes from.
struct Case<'a> {
    value: &'a Value,
    from: &'a Path,
}

impl Case<'_> {
    fn status(&self) -> &str {
        self.value.get("status").and_then(Value::as_str).unwrap_or_default()
    }

    /// What was predicted counts before what was there before, and that before what failed.
    fn rank(&self) -> usize {
        ["failed", "skipped", "predicted"].iter().position(|s| *s == self.status()).unwrap_or(0)
    }
}

/// The reports as one.
pub fn merged(parts: &[(PathBuf, Value)]) -> anyhow::Result<(Value, Merged)> {
    check_version(parts)?;
    let model = one_model(parts)?;
    let (cases, mut told) = cases(parts)?;
    let divided = Divided::of(parts)?;
    let missing = divided.as_ref().map_or_else(Vec::new, Divided::missing);
    if let (Some(divided), false) = (&divided, missing.is_empty()) {
        let ids: Vec<_> = missing.iter().map(usize::to_string).collect();
        let (count, of) = (missing.len(), divided.of);
        told.push(format!("{count} of {of} parts have no report: --part-id {}", ids.join(", ")));
    }
    let count = |status: &str| cases.values().filter(|case| case.status() == status).count();
    let expected = divided.as_ref().map(|divided| divided.cases);
    let absent = expected.map_or(0, |expected| expected.saturating_sub(cases.len()));
    if absent > 0 {
        let all = cases.len() + absent;
        told.push(format!("{absent} of {all} cases are in no report"));
    }
    let [predicted, skipped, failed] = ["predicted", "skipped", "failed"].map(count);
    for (name, case) in cases.iter().filter(|(_, case)| case.status() == "failed") {
        let error = case.value.get("error").and_then(Value::as_str).unwrap_or("no reason given");
        told.push(format!("{name} failed: {error}"));
    }
    let mut devices: Vec<&Value> = Vec::new();
    for device in parts.iter().filter_map(|(_, part)| part.get("device")) {
        if !device.is_null() && !devices.contains(&device) {
            devices.push(device);
        }
    }
    let devices: Vec<_> = devices.into_iter().filter_map(Value::as_str).collect();
    let mut value = parts[0].1.clone();
    let all = value.as_object_mut().context("expected a report")?;
    all.shift_remove("part");
    all["device"] = devices.join(", ").into();
    all["model"] = model;
    all["summary"] = summary(&cases, parts);
    all["cases"] = cases.values().map(|case| case.value.clone()).collect();
    all["passed_over"] = passed_over(parts);
    all.insert(
        "merged".to_owned(),
        json!({
            "reports": parts.iter().map(|(file, part)| of_part(file, part)).collect::<Vec<_>>(),
            "missing_parts": missing,
            "missing_cases": absent,
        }),
    );
    let incomplete = !missing.is_empty() || absent > 0 || failed > 0;
    let line = format!(
        "{} cases of {} reports: {predicted} predicted, {skipped} predicted before, {failed} failed",
        cases.len(),
        parts.len()
    );
    Ok((value, Merged { told, incomplete, line }))
}

fn check_version(parts: &[(PathBuf, Value)]) -> anyhow::Result<()> {
    for (file, part) in parts {
        let version = part.get("version");
        ensure!(
            version.is_some_and(|version| *version == 2),
            "expected a report of version 2, found {}: {}",
            version.map_or("none".to_owned(), Value::to_string),
            file.display()
        );
    }
    Ok(())
}

/// The model of all reports: its digest tells it, not its path, which differs between machines.
fn one_model(parts: &[(PathBuf, Value)]) -> anyhow::Result<Value> {
    let digest =
        |part: &Value| part.pointer("/model/digest").and_then(Value::as_str).map(str::to_owned);
    let mut known = parts.iter().filter_map(|(file, part)| Some((file, part, digest(part)?)));
    let Some((first, part, expected)) = known.next() else { return Ok(Value::Null) };
    for (file, _, found) in known {
        ensure!(
            found == expected,
            "expected reports of one model, found model {expected:.8} in {} and model {found:.8}: {}",
            first.display(),
            file.display()
        );
    }
    Ok(part.get("model").cloned().unwrap_or_default())
}

/// The cases by name, and what is told of those that several reports have.
fn cases(parts: &[(PathBuf, Value)]) -> anyhow::Result<(BTreeMap<&str, Case<'_>>, Vec<String>)> {
    let (mut cases, mut told) = (BTreeMap::<&str, Case<'_>>::new(), Vec::new());
    for (file, part) in parts {
        let list = part.get("cases").and_then(Value::as_array);
        let list = list.with_context(|| format!("cases: expected a list: {}", file.display()))?;
        for value in list {
            let name = value.get("name").and_then(Value::as_str);
            let name =
                name.with_context(|| format!("cases: expected names: {}", file.display()))?;
            let case = Case { value, from: file };
            let Some(known) = cases.get(name) else {
                cases.insert(name, case);
                continue;
            };
            let (kept, left) =
                if case.rank() > known.rank() { (&case, known) } else { (known, &case) };
            told.push(format!(
                "{name} is in two reports: {} in {}, which counts, and {} in {}",
                kept.status(),
                kept.from.display(),
                left.status(),
                left.from.display()
            ));
            if case.rank() > known.rank() {
                cases.insert(name, case);
            }
        }
    }
    Ok((cases, told))
}

/// How the cases were divided.
struct Divided {
    of: usize,
    cases: usize,
    found: BTreeSet<usize>,
}

impl Divided {
    /// None where no report says it.
    fn of(parts: &[(PathBuf, Value)]) -> anyhow::Result<Option<Self>> {
        let mut all: Option<Self> = None;
        for (file, part) in parts {
            let Some(part) = part.get("part") else { continue };
            let number = |name: &str| {
                let value = part.get(name).and_then(Value::as_u64);
                value.and_then(|value| usize::try_from(value).ok())
            };
            let (Some(id), Some(of), Some(cases)) =
                (number("id"), number("of"), number("cases_of_all"))
            else {
                bail!("part: expected id, of and cases_of_all, found {part}: {}", file.display());
            };
            let known = all.get_or_insert(Self { of, cases, found: BTreeSet::new() });
            ensure!(
                (known.of, known.cases) == (of, cases),
                "expected reports of one division, found {} parts of {} cases and {of} parts of {cases} \
                 cases: {}",
                known.of,
                known.cases,
                file.display()
            );
            known.found.insert(id);
        }
        Ok(all)
    }

    fn missing(&self) -> Vec<usize> {
        (0..self.of).filter(|id| !self.found.contains(id)).collect()
    }
}

/// As each report has it: seconds are added up, but those on the clock are the most of any part, as parts
/// run beside each other.
fn summary(cases: &BTreeMap<&str, Case<'_>>, parts: &[(PathBuf, Value)]) -> Value {
    let predicted = || cases.values().filter(|case| case.status() == "predicted");
    let seconds = STAGES.map(|stage| {
        let of_case = |case: &Case<'_>| case.value.pointer(&format!("/seconds/{stage}"))?.as_f64();
        (stage.to_owned(), json!(predicted().filter_map(of_case).sum::<f64>()))
    });
    let voxels: u64 =
        predicted().filter_map(|case| case.value.get("voxels").and_then(Value::as_u64)).sum();
    let of_parts = |key: &str| -> Vec<Value> {
        let at = format!("/summary/{key}");
        parts.iter().filter_map(|(_, part)| part.pointer(&at).cloned()).collect()
    };
    let wall_secs =
        of_parts("wall_secs").iter().filter_map(|secs| secs.as_f64()).fold(0.0, f64::max);
    let peak = of_parts("peak_memory_bytes").iter().filter_map(|bytes| bytes.as_u64()).max();
    let count = |status: &str| cases.values().filter(|case| case.status() == status).count();
    json!({
        "predicted": count("predicted"),
        "skipped": count("skipped"),
        "failed": count("failed"),
        "seconds": Map::from_iter(seconds),
        "wall_secs": wall_secs,
        "voxels": voxels,
        "voxels_per_sec": voxels as f64 / wall_secs.max(1e-9),
        "peak_memory_bytes": peak,
    })
}

/// Every part sees the whole folder.
fn passed_over(parts: &[(PathBuf, Value)]) -> Value {
    let mut all: Vec<Value> = Vec::new();
    let lists = parts.iter().filter_map(|(_, part)| part.get("passed_over")?.as_array());
    for over in lists.flatten() {
        if !all.contains(over) {
            all.push(over.clone());
        }
    }
    Value::Array(all)
}

fn of_part(file: &Path, part: &Value) -> Value {
    let cases = part.get("cases").and_then(Value::as_array).map_or(0, Vec::len);
    json!({
        "file": file.to_string_lossy(),
        "part": part.pointer("/part/id"),
        "device": part.get("device"),
        "cases": cases,
        "wall_secs": part.pointer("/summary/wall_secs"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report of a part with cases and what became of them.
    fn part(id: usize, of: usize, total: usize, cases: &[(&str, &str)]) -> (PathBuf, Value) {
        let case = |(name, status): &(&str, &str)| match *status {
            "predicted" => json!({
                "name": name, "status": status, "voxels": 10, "from": id,
                "seconds": { "read": 0.5, "total": 2.0 },
            }),
            "failed" => json!({ "name": name, "status": status, "error": "broken" }),
            _ => json!({ "name": name, "status": status }),
        };
        let value = json!({
            "format": "stunet-predict-report", "version": 2, "stunet": "0.1.0", "device": "cpu",
            "model": { "path": "m", "digest": "0123456789" },
            "part": { "id": id, "of": of, "cases_of_all": total },
            "summary": { "wall_secs": 3.0 + id as f64, "peak_memory_bytes": 100 + id },
            "cases": cases.iter().map(case).collect::<Vec<_>>(),
            "passed_over": [{ "file": "notes.txt", "reason": "another ending" }],
        });
        (format!("part_{id}.json").into(), value)
    }

    #[test]
    fn whole() {
        let parts = [
            part(1, 2, 3, &[("b", "predicted")]),
            part(0, 2, 3, &[("a", "skipped"), ("c", "predicted")]),
        ];
        let (value, merged) = merged(&parts).unwrap();
        assert!(!merged.incomplete && merged.told.is_empty(), "{:?}", merged.told);
        let names: Vec<_> = value["cases"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let summary = &value["summary"];
        assert_eq!((&summary["predicted"], &summary["skipped"]), (&json!(2), &json!(1)));
        assert_eq!(
            (&summary["wall_secs"], &summary["seconds"]["total"]),
            (&json!(4.0), &json!(4.0))
        );
        assert_eq!((&summary["voxels"], &summary["peak_memory_bytes"]), (&json!(20), &json!(101)));
        assert_eq!(value["passed_over"].as_array().unwrap().len(), 1);
        assert!(value.get("part").is_none());
        assert_eq!(value["merged"]["missing_parts"], json!([]));
    }

    #[test]
    fn missing_parts_and_failures_are_told() {
        let parts = [part(2, 4, 9, &[("b", "predicted"), ("d", "failed")])];
        let (value, merged) = merged(&parts).unwrap();
        assert!(merged.incomplete);
        let told = [
            "3 of 4 parts have no report: --part-id 0, 1, 3",
            "7 of 9 cases are in no report",
            "d failed: broken",
        ];
        assert_eq!(merged.told, told);
        assert_eq!(value["merged"]["missing_parts"], json!([0, 1, 3]));
    }

    #[test]
    fn of_duplicates_the_predicted_one_counts() {
        let parts = [part(0, 1, 1, &[("a", "failed")]), part(0, 1, 1, &[("a", "predicted")])];
        let (value, done) = merged(&parts).unwrap();
        assert!(!done.incomplete, "{:?}", done.told);
        assert_eq!(value["cases"][0]["status"], "predicted");
        assert!(done.told[0].starts_with("a is in two reports: predicted in"), "{:?}", done.told);
        let parts = [part(0, 1, 1, &[("a", "predicted")]), part(1, 1, 1, &[("a", "predicted")])];
        let (value, _) = merged(&parts).unwrap();
        assert_eq!(value["cases"][0]["from"], 0, "the first of equals");
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let check = |change: &dyn Fn(&mut Value), words: &str| {
            let mut parts = [part(0, 2, 2, &[("a", "predicted")]), part(1, 2, 2, &[])];
            change(&mut parts[1].1);
            let Err(error) = merged(&parts) else { panic!("accepted: {words}") };
            let text = error.to_string();
            assert!(text.contains(words) && text.ends_with("part_1.json"), "{text}");
        };
        check(&|part| part["model"]["digest"] = "9876543210".into(), "one model");
        check(&|part| part["version"] = 3.into(), "version 2");
        check(&|part| part["part"]["of"] = 3.into(), "one division");
        check(&|part| part["cases"] = Value::Null, "a list");
    }
}
