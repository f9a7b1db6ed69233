//! Labelmaps, and what their values mean.

use crate::error::{DataError, Result, invalid};
use crate::geometry::Geometry;
use ndarray::Array3;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::path::Path;

mod appearance;
mod choice;
mod colour_tables;
mod compact;
pub(crate) mod dataset_json;
mod groups;
mod palette;

pub use appearance::{Appearance, Code, PRIVATE, Region, Side, Structure};
pub use choice::LabelChoice;
pub use colour_tables::{itk_snap_labels, slicer_colour_table};
pub use compact::{CompactLabelMap, LabelVoxels};
pub use groups::{GROUPS, LabelGroup};
pub use palette::generated_colour;

/// A volume of label values on a grid.
///
/// # Shapes
/// `data` is `[Z, Y, X]`, the geometry's shape.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelMap {
    /// Label values; 0 is background.
    pub data: Array3<u16>,
    /// The grid.
    pub geometry: Geometry,
}

impl LabelMap {
    /// A labelmap whose array fits its grid.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn new(data: Array3<u16>, geometry: Geometry) -> Result<Self> {
        let (z, y, x) = data.dim();
        if [z, y, x] != geometry.shape() {
            return Err(DataError::Mismatch {
                what: "shape of the labels",
                expected: format!("{:?}", geometry.shape()),
                found: format!("{:?}", [z, y, x]),
            });
        }
        Ok(Self { data, geometry })
    }
}

/// One name, with the label values it covers: one for a label, several for a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Name, such as `liver`.
    pub name: String,
    /// Values in the training labelmaps, as listed.
    pub values: Vec<u16>,
}

/// The meaning of a model's outputs: labels or overlapping regions, and the ignore label.
///
/// Background (value 0) is always first and never a region of its own.
///
/// ```
/// use stunet_data::labels::LabelSet;
/// let labels = LabelSet::totalsegmentator();
/// assert_eq!(labels.num_outputs(), 105);
/// assert_eq!(labels.name_of(40), Some("liver"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawLabelSet", into = "RawLabelSet")]
pub struct LabelSet {
    labels: Vec<Label>,
    ignore: Option<u16>,
    region_order: Option<Vec<u16>>,
}

impl LabelSet {
    /// Background and the 104 structures of the published models, in their (alphabetical) order.
    ///
    /// # Source
    /// STU-Net's table of label values for the released TotalSegmentator weights. These are *not*
    /// TotalSegmentator's own numbers.
    pub fn totalsegmentator() -> Self {
        let names = include_str!("labels/totalsegmentator.txt").lines();
        Self::from_names(names).expect("the embedded table is valid")
    }

    /// Labels 0, 1, 2, ... with the given names.
    ///
    /// # Errors
    /// When there are no names, a name is empty or appears twice.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let labels = names
            .into_iter()
            .enumerate()
            .map(|(value, name)| Label {
                name: name.to_owned(),
                values: vec![u16::try_from(value).unwrap_or(u16::MAX)],
            })
            .collect();
        Self::new(labels, None, None)
    }

    /// Background and `label_1`, `label_2`, ... for models that come without names.
    ///
    /// # Errors
    /// When `num_outputs` is 0 or above 65536.
    pub fn numbered(num_outputs: usize) -> Result<Self> {
        let names: Vec<String> = (0..num_outputs)
            .map(|i| match i {
                0 => "background".to_owned(),
                i => format!("label_{i}"),
            })
            .collect();
        Self::from_names(names.iter().map(String::as_str))
    }

    /// A checked set. An order of regions counts only where there are regions.
    ///
    /// # Errors
    /// When background is missing, values or names collide, labels are not consecutive, the ignore
    /// label is not the one behind the highest, or regions lack an order.
    ///
    /// # Source
    /// nnU-Net 2.8.1, `LabelManager`.
    pub fn new(
        mut labels: Vec<Label>,
        ignore: Option<u16>,
        region_order: Option<Vec<u16>>,
    ) -> Result<Self> {
        let regions = labels.iter().any(|l| l.values.len() != 1);
        if !regions {
            labels.sort_by_key(|l| l.values[0]);
        }
        let background = labels
            .iter()
            .position(|l| l.values == [0])
            .ok_or_else(|| invalid("labels", "background", "a label of value 0", "none"))?;
        let first = labels.remove(background);
        labels.insert(0, first);
        let set = Self { labels, ignore, region_order: region_order.filter(|_| regions) };
        set.check(regions)?;
        Ok(set)
    }

    fn check(&self, regions: bool) -> Result<()> {
        let mut names = HashSet::new();
        for (i, label) in self.labels.iter().enumerate() {
            if label.name.is_empty() || label.values.is_empty() {
                return Err(invalid("labels", "labels", "a name and a value", "an empty one"));
            }
            if !names.insert(label.name.as_str()) {
                return Err(invalid("labels", "labels", "unique names", &label.name));
            }
            if !regions && label.values[0] as usize != i {
                let expected = format!("consecutive values, here {i}");
                return Err(invalid("labels", &label.name, expected, label.values[0]));
            }
            if i > 0 && label.values.iter().all(|value| *value == 0) {
                let expected = "a value above 0, which is the background";
                return Err(invalid("labels", &label.name, expected, 0));
            }
        }
        let highest = self.labels.iter().flat_map(|label| &label.values).max();
        let next = highest.map_or(0, |value| u32::from(*value)) + 1;
        if let Some(found) = self.ignore.filter(|found| u32::from(*found) != next) {
            let expected = format!("{next}, one more than the highest label");
            return Err(invalid("labels", "ignore", expected, found));
        }
        let num_regions = self.labels.len() - 1;
        match &self.region_order {
            None if regions => Err(invalid(
                "labels",
                "regions_class_order",
                format!("{num_regions} values, one per region"),
                "none",
            )),
            Some(order) if regions && order.len() != num_regions => Err(invalid(
                "labels",
                "regions_class_order",
                format!("{num_regions} values, one per region"),
                order.len(),
            )),
            _ => Ok(()),
        }
    }

    /// Number of outputs of the network: labels with background, or regions without it.
    pub fn num_outputs(&self) -> usize {
        self.labels.len() - usize::from(self.has_regions())
    }

    /// True when outputs are regions (each decided on its own) and not labels (one of which wins).
    pub fn has_regions(&self) -> bool {
        self.labels.iter().any(|l| l.values.len() != 1)
    }

    /// Names and values, background first.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// The value written for each region, in the order they are painted; none without regions.
    pub fn region_order(&self) -> Option<&[u16]> {
        self.region_order.as_deref()
    }

    /// Value of voxels that carry no information in training, if any.
    pub fn ignore(&self) -> Option<u16> {
        self.ignore
    }

    /// Name of a label value; regions are skipped.
    pub fn name_of(&self, value: u16) -> Option<&str> {
        let found = self.labels.iter().find(|l| l.values == [value])?;
        Some(&found.name)
    }

    /// Largest value a labelmap of this set can hold, the ignore label left out.
    pub fn max_value(&self) -> u16 {
        let values = self.labels.iter().flat_map(|l| &l.values);
        let painted = self.region_order.iter().flatten();
        values.chain(painted).copied().max().unwrap_or(0)
    }

    /// Reads `labels.json`.
    ///
    /// # Errors
    /// When the file is missing or malformed.
    pub fn load(path: &Path) -> Result<Self> {
        crate::files::read_json(path)
    }

    /// Writes `labels.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        crate::files::save_json(path, self)
    }
}

fn values_of(value: &Value) -> Option<Vec<u16>> {
    let one = |v: &Value| v.as_u64().and_then(|v| u16::try_from(v).ok());
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        value => Some(vec![one(value)?]),
    }
}

const FORMAT: &str = "stunet-labels";

#[derive(Serialize, Deserialize)]
struct RawLabelSet {
    format: String,
    version: u32,
    labels: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ignore: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region_order: Option<Vec<u16>>,
}

impl TryFrom<RawLabelSet> for LabelSet {
    type Error = DataError;

    fn try_from(raw: RawLabelSet) -> Result<Self> {
        crate::files::check_format("labels", (&raw.format, raw.version), FORMAT)?;
        let labels = raw
            .labels
            .into_iter()
            .map(|(name, value)| {
                let values = values_of(&value)
                    .ok_or_else(|| invalid("labels", &name, "values 0..65535", &value))?;
                Ok(Label { name, values })
            })
            .collect::<Result<_>>()?;
        Self::new(labels, raw.ignore, raw.region_order)
    }
}

impl From<LabelSet> for RawLabelSet {
    fn from(set: LabelSet) -> Self {
        let value = |values: Vec<u16>| match values[..] {
            [one] => Value::from(one),
            _ => Value::from(values),
        };
        Self {
            format: FORMAT.to_owned(),
            version: 1,
            labels: set.labels.into_iter().map(|l| (l.name, value(l.values))).collect(),
            ignore: set.ignore,
            region_order: set.region_order,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_published_order_is_alphabetical() {
        let labels = LabelSet::totalsegmentator();
        assert_eq!(labels.num_outputs(), 105);
        assert_eq!(labels.max_value(), 104);
        let names: Vec<&str> = labels.labels()[1..].iter().map(|l| l.name.as_str()).collect();
        assert!(names.is_sorted_by_key(|name| {
            // Digits sort as text (rib_left_1, rib_left_10), vertebrae by region.
            name.strip_prefix("vertebrae_").map_or(*name, |_| "vertebrae")
        }));
        assert_eq!(labels.name_of(0), Some("background"));
        assert_eq!(labels.name_of(50), Some("rib_left_10"));
    }

    #[test]
    fn dataset_json_of_both_versions() {
        let v2 = json!({"labels": {"background": 0, "tumour": 2, "liver": 1, "ignore": 3}});
        let v2 = LabelSet::from_dataset_json(&v2).unwrap();
        assert_eq!((v2.num_outputs(), v2.ignore(), v2.name_of(2)), (3, Some(3), Some("tumour")));
        let v1 = json!({"labels": {"0": "background", "1": "liver", "2": "tumour"}});
        let v1 = LabelSet::from_dataset_json(&v1).unwrap();
        assert_eq!(v1.labels(), v2.labels());
        assert!(!v1.has_regions());
    }

    #[test]
    fn regions_are_outputs_without_background() {
        let json = json!({
            "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
            "regions_class_order": [1, 2, 3]
        });
        let set = LabelSet::from_dataset_json(&json).unwrap();
        assert!(set.has_regions());
        assert_eq!((set.num_outputs(), set.region_order()), (3, Some(&[1, 2, 3][..])));
        let text = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<LabelSet>(&text).unwrap(), set);
    }

    #[test]
    fn bad_tables_are_refused() {
        assert!(LabelSet::from_names(["background", "a", "a"]).is_err());
        assert!(LabelSet::numbered(0).is_err());
        assert_eq!(LabelSet::numbered(3).unwrap().name_of(2), Some("label_2"));
        let label = |name: &str, value| Label { name: name.to_owned(), values: vec![value] };
        let labels = vec![label("background", 0), label("a", 1)];
        let message = LabelSet::new(labels, Some(1), None).unwrap_err().to_string();
        assert!(message.contains("ignore: expected 2"), "{message}");
    }

    #[test]
    fn saved_and_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.json");
        LabelSet::totalsegmentator().save(&path).unwrap();
        assert_eq!(LabelSet::load(&path).unwrap(), LabelSet::totalsegmentator());
        std::fs::write(&path, "{\"format\": \"other\", \"version\": 1, \"labels\": {}}").unwrap();
        let message = LabelSet::load(&path).unwrap_err().to_string();
        assert!(message.contains("stunet-labels version 1"), "{message}");
    }
}
