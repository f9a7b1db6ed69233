//! Fingerprints in the files of either nnU-Net.

use super::{Fingerprint, ForegroundIntensity};
use crate::dataset::DatasetInfo;
use crate::error::{DataError, Result, invalid};
use crate::fingerprint::statistics::median_of;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::Path;

impl Fingerprint {
    /// The content of nnU-Net 2's `dataset_fingerprint.json`.
    pub fn to_v2_json(&self) -> Value {
        json!({
            "foreground_intensity_properties_per_channel": self.foreground_json(),
            "median_relative_size_after_cropping": self.median_relative_size_after_cropping,
            "shapes_after_crop": self.shapes_after_crop,
            "spacings": self.spacings_mm,
        })
    }

    /// The statistics as version 2 writes them into fingerprint and plans.
    pub(crate) fn foreground_json(&self) -> Value {
        let channel = |i: &ForegroundIntensity| {
            json!({
                "max": i.max,
                "mean": i.mean,
                "median": i.median,
                "min": i.min,
                "percentile_00_5": i.percentile_00_5,
                "percentile_99_5": i.percentile_99_5,
                "std": i.std,
            })
        };
        by_number(self.foreground.iter().flatten().map(channel))
    }

    /// nnU-Net 1's `dataset_properties.pkl` as JSON; the dataset adds classes and modalities.
    pub fn to_v1_json(&self, info: &DatasetInfo) -> Value {
        let channel = |i: &ForegroundIntensity| {
            json!({
                "median": i.median,
                "mean": i.mean,
                "sd": i.std,
                "mn": i.min,
                "mx": i.max,
                "percentile_99_5": i.percentile_99_5,
                "percentile_00_5": i.percentile_00_5,
            })
        };
        let intensities = self.foreground.as_ref().map(|f| by_number(f.iter().map(channel)));
        let reductions: Map<String, Value> =
            self.relative_sizes.iter().map(|(name, size)| (name.clone(), json!(size))).collect();
        json!({
            "all_sizes": self.shapes_after_crop,
            "all_spacings": self.spacings_mm,
            "all_classes": info.classes(),
            "modalities": by_number(info.channel_names.iter().map(|name| json!(name))),
            "intensityproperties": intensities,
            "size_reductions": reductions,
        })
    }

    /// Reads the content of nnU-Net 2's `dataset_fingerprint.json`.
    ///
    /// # Errors
    /// When an entry is missing or malformed.
    pub fn from_v2_json(value: &Value) -> Result<Self> {
        const INTENSITIES: &str = "foreground_intensity_properties_per_channel";
        const MEDIAN: &str = "median_relative_size_after_cropping";
        Self {
            shapes_after_crop: entry(value, "shapes_after_crop", "three lengths per case")?,
            spacings_mm: entry(value, "spacings", "three lengths per case")?,
            median_relative_size_after_cropping: entry(value, MEDIAN, "a number")?,
            relative_sizes: Vec::new(),
            foreground: Some(channels(entry(value, INTENSITIES, "an entry per channel")?)?),
        }
        .checked()
    }

    /// Reads nnU-Net 1's `dataset_properties.pkl`, converted to JSON.
    ///
    /// # Errors
    /// When an entry is missing or malformed.
    pub fn from_v1_json(value: &Value) -> Result<Self> {
        let reductions: Map<String, Value> = entry(value, "size_reductions", "an entry per case")?;
        let mut sizes = Vec::new();
        for (name, size) in reductions {
            let bad = || malformed(format!("size_reductions.{name}"), "a number");
            let size = size.as_f64().ok_or_else(bad)?;
            sizes.push((name, size));
        }
        let values: Vec<f64> = sizes.iter().map(|(_, size)| *size).collect();
        if values.is_empty() {
            return Err(malformed("size_reductions", "an entry per case"));
        }
        let intensities: Option<_> = entry(value, "intensityproperties", "an entry per channel")?;
        Self {
            shapes_after_crop: entry(value, "all_sizes", "three lengths per case")?,
            spacings_mm: entry(value, "all_spacings", "three lengths per case")?,
            median_relative_size_after_cropping: median_of(&values),
            relative_sizes: sizes,
            foreground: intensities.map(channels).transpose()?,
        }
        .checked()
    }

    /// Reads `dataset_fingerprint.json`.
    ///
    /// # Errors
    /// When the file is missing or malformed.
    pub fn load(path: &Path) -> Result<Self> {
        let value: Value = crate::files::read_json(path)?;
        Self::from_v2_json(&value).map_err(|e| e.at(path))
    }

    /// Writes `dataset_fingerprint.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        crate::files::save_json(path, &self.to_v2_json())
    }

    fn checked(self) -> Result<Self> {
        let cases = self.spacings_mm.len();
        if cases == 0 || self.shapes_after_crop.len() != cases {
            return Err(malformed("spacings", "one entry per case, as many as shapes"));
        }
        if self.spacings_mm.iter().flatten().any(|s| !(s.is_finite() && *s > 0.0)) {
            return Err(malformed("spacings", "lengths above 0"));
        }
        if self.shapes_after_crop.iter().flatten().any(|n| *n == 0) {
            return Err(malformed("shapes_after_crop", "lengths above 0"));
        }
        let voxels = |shape: &[usize; 3]| shape.iter().map(|n| *n as f64).product::<f64>();
        if self.shapes_after_crop.iter().any(|shape| voxels(shape) > MAX_VOXELS) {
            return Err(malformed("shapes_after_crop", "volumes that fit into memory"));
        }
        Ok(self)
    }
}

/// Most voxels of a volume: 64 GiB in single precision.
const MAX_VOXELS: f64 = (1u64 << 34) as f64;

/// An object with the keys `"0"`, `"1"`, ...
pub(crate) fn by_number(values: impl Iterator<Item = Value>) -> Value {
    Value::Object(values.enumerate().map(|(i, value)| (i.to_string(), value)).collect())
}

/// An entry of either file; what is missing counts as null.
fn entry<T: for<'a> Deserialize<'a>>(value: &Value, key: &str, expected: &str) -> Result<T> {
    let found = value.get(key).unwrap_or(&Value::Null);
    T::deserialize(found).map_err(|_| {
        let found = match found {
            // What Python writes as NaN is null here.
            Value::Null if value.get(key).is_some() => "null or NaN",
            Value::Null => "nothing",
            _ => "something else",
        };
        invalid("fingerprint", key, expected, found)
    })
}

fn malformed(key: impl Into<String>, expected: &str) -> DataError {
    invalid("fingerprint", key, expected, "something else")
}

/// Statistics by channel, with the names of either version.
fn channels(map: Map<String, Value>) -> Result<Vec<ForegroundIntensity>> {
    (0..map.len())
        .map(|c| {
            let entry = map.get(&c.to_string());
            let number = |keys: [&str; 2]| {
                let found = entry.and_then(|e| keys.iter().find_map(|key| e.get(key)));
                // NaN is null by now. Statistics of channels without Hounsfield units are of no use,
                // and NaN harms nobody there; the planner looks at those it needs.
                let number =
                    found.and_then(|v| if v.is_null() { Some(f64::NAN) } else { v.as_f64() });
                let expected = "a number for every statistic";
                number.ok_or_else(|| malformed(format!("channel {c}, {}", keys[0]), expected))
            };
            Ok(ForegroundIntensity {
                mean: number(["mean", "mean"])?,
                std: number(["std", "sd"])?,
                median: number(["median", "median"])?,
                min: number(["min", "mn"])?,
                max: number(["max", "mx"])?,
                percentile_00_5: number(["percentile_00_5", "percentile_00_5"])?,
                percentile_99_5: number(["percentile_99_5", "percentile_99_5"])?,
            })
        })
        .collect()
}
