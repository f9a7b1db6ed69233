//! The voxels that nnU-Net drew of every class when it preprocessed a case: `class_locations` of its `.pkl`.

use super::wrong;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use stunet_data::error::Result;
use stunet_data::labels::LabelSet;
use stunet_data::sample::{ANNOTATED, ClassLocations};
use stunet_model::weights::pickle::{self, Value};

/// Voxels of all cases that are kept at most, 12 bytes each. What is beyond is read again.
const KEPT: usize = 1 << 24;

/// Voxels of cases that were asked for, the latest ones.
#[derive(Debug, Default)]
pub(super) struct Drawn(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    cases: HashMap<PathBuf, Arc<ClassLocations>>,
    order: VecDeque<(PathBuf, usize)>,
    count: usize,
}

impl Drawn {
    /// Those of a case whose properties are in a file.
    pub(super) fn of(
        &self,
        properties: &Path,
        labels: &LabelSet,
        grid: [usize; 3],
    ) -> Result<Arc<ClassLocations>> {
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept().cases.get(properties) {
            return Ok(found.clone());
        }
        // Read without the lock: two threads may do so for one case, and find the same.
        let found = Arc::new(read(properties, labels, grid)?);
        let count = found.present().map(|class| found.get(class).len()).sum::<usize>();
        let mut kept = kept();
        if kept.cases.insert(properties.to_owned(), found.clone()).is_none() {
            kept.order.push_back((properties.to_owned(), count));
            kept.count += count;
        }
        while kept.count > KEPT
            && let Some((first, count)) = kept.order.pop_front()
        {
            kept.cases.remove(&first);
            kept.count -= count;
        }
        Ok(found)
    }
}

/// Reads the properties of a case, without executing anything.
///
/// # Source
/// nnU-Net 2.8.1, `_sample_foreground_locations`: `[n, 4]` with the channel first, an empty list where a
/// class does not occur; keys are labels, regions as tuples, and with an ignore label the tuple of all
/// others with -1. nnU-Net 1.7.1: `[n, 3]`, keys are labels.
fn read(path: &Path, labels: &LabelSet, grid: [usize; 3]) -> Result<ClassLocations> {
    let root = pickle::read_file(path)
        .map_err(|e| wrong("properties of a case (.pkl) that can be read", e.to_string()))?;
    let entries = root.get("class_locations").and_then(Value::as_dict);
    let entries = entries.ok_or_else(|| {
        wrong("class_locations in the properties of a case", "none: preprocess it again").at(path)
    })?;
    let mut found = BTreeMap::new();
    for (key, value) in &entries.entries {
        let voxels = voxels(value, grid).map_err(|e| e.at(path))?;
        if voxels.is_empty() {
            continue;
        }
        let class = class_of(key, labels).ok_or_else(|| {
            let found = format!("class {:.80}: preprocess it again", key.to_json());
            wrong("classes that dataset.json has", found).at(path)
        })?;
        found.insert(class, voxels);
    }
    Ok(ClassLocations::new(found))
}

/// The class that a key means: a label, the position of a region, or everything that is annotated.
fn class_of(key: &Value, labels: &LabelSet) -> Option<u16> {
    let values: Vec<i64> = match key {
        Value::Int(_) => vec![key.as_i64()?],
        Value::Tuple(parts) => parts.iter().map(Value::as_i64).collect::<Option<_>>()?,
        _ => return None,
    };
    if values.contains(&-1) {
        return Some(ANNOTATED);
    }
    let mut wanted = values.into_iter().map(u16::try_from).collect::<Result<Vec<_>, _>>().ok()?;
    wanted.sort_unstable();
    let is_it = |known: &[u16]| {
        let mut known = known.to_vec();
        known.sort_unstable();
        known == wanted
    };
    let position = labels.labels().iter().position(|label| is_it(&label.values))?;
    match labels.has_regions() {
        true => u16::try_from(position).ok(),
        false => wanted.first().copied(),
    }
}

/// Voxels `[z, y, x]`, which are the last three numbers of every row.
fn voxels(value: &Value, grid: [usize; 3]) -> Result<Vec<[u32; 3]>> {
    let expected = || format!("voxels [n, 4] or [n, 3] within {grid:?}");
    let rows = match value {
        Value::List(list) | Value::Tuple(list) if list.is_empty() => return Ok(Vec::new()),
        Value::Array(array) => match (&array.shape[..], array.ints()) {
            ([0, ..], _) => return Ok(Vec::new()),
            ([_, width @ (3 | 4)], Some(ints)) => ints.chunks_exact(*width),
            (shape, _) => return Err(wrong(expected(), format!("an array {shape:?}"))),
        },
        _ => return Err(wrong(expected(), "something else")),
    };
    let voxel = |row: &[i64]| -> Option<[u32; 3]> {
        let last: &[i64; 3] = row.last_chunk()?;
        let mut voxel = [0; 3];
        for axis in 0..3 {
            let at = usize::try_from(last[axis]).ok().filter(|at| *at < grid[axis])?;
            voxel[axis] = u32::try_from(at).ok()?;
        }
        Some(voxel)
    };
    rows.map(|row| voxel(row).ok_or_else(|| wrong(expected(), format!("{row:?}")))).collect()
}
