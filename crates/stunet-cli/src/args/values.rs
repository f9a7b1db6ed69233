//! Values of options that several commands share.

use clap::ValueEnum;
use stunet::data::plans::Reference;
use stunet::device::SYNTAX as DEVICES;

/// The reference implementations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReferenceArg {
    /// nnU-Net 1.7.1
    V1,
    /// nnU-Net 2.2
    #[value(name = "v2.2")]
    V22,
    /// nnU-Net 2.8
    #[value(name = "v2.8")]
    V28,
}

impl From<ReferenceArg> for Reference {
    fn from(version: ReferenceArg) -> Self {
        match version {
            ReferenceArg::V1 => Self::NnUNetV1,
            ReferenceArg::V22 => Self::NnUNetV22,
            ReferenceArg::V28 => Self::NnUNetV28,
        }
    }
}

/// The published sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// 14.6 million parameters
    #[value(aliases = ["S", "s"])]
    Small,
    /// 58 million parameters
    #[value(aliases = ["B", "b"])]
    Base,
    /// 440 million parameters
    #[value(aliases = ["L", "l"])]
    Large,
    /// 1457 million parameters
    #[value(aliases = ["H", "h"])]
    Huge,
}

/// Help of an option that names a device.
pub fn device_help() -> String {
    format!("Device to compute on: {DEVICES}")
}

/// Help of an option that names several.
pub fn devices_help() -> String {
    format!("{}; a list such as cuda:0,cuda:1 divides every batch among the devices", device_help())
}

/// A number of bytes: `2G`, `512M`, `1.5G`, `3000000000`; powers of 1000, as in `--memory`. A bare
/// number below a million is a unit that was forgotten.
pub fn byte_count(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected a number of bytes such as 2G or 512M, found {text:?}");
    let (number, unit) = match text.trim().trim_end_matches(['B', 'b']) {
        text if text.ends_with(['G', 'g']) => (&text[..text.len() - 1], 1e9),
        text if text.ends_with(['M', 'm']) => (&text[..text.len() - 1], 1e6),
        text => (text, 1.0),
    };
    let forgotten = !text.trim().ends_with(char::is_alphabetic)
        && text.trim().parse::<f64>().is_ok_and(|number| number < 1e6);
    if forgotten {
        return Err(format!("expected a unit, such as {0}G or {0}M, found {text:?}", text.trim()));
    }
    let bytes = number.trim().parse::<f64>().map_err(|_| wrong())? * unit;
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// A time with its unit: `60s`, `2min`, `1.5h`; in seconds.
pub fn seconds(text: &str) -> Result<f64, String> {
    let units = [("min", 60.0), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let found = units.into_iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)));
    let secs = found.and_then(|(number, size)| Some(number.trim().parse::<f64>().ok()? * size));
    match secs.filter(|secs| *secs > 0.0 && secs.is_finite()) {
        Some(secs) => Ok(secs),
        None => Err("expected a time above 0 with its unit, such as 60s or 2min".to_owned()),
    }
}

/// A step between windows, as a fraction of their size.
pub fn step_size(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(step) if step > 0.0 && step <= 1.0 => Ok(step),
        _ => Err("expected a number above 0 and at most 1".to_owned()),
    }
}

/// A number above 0.
pub fn above_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("expected a number above 0".to_owned()),
    }
}

/// A whole number of at least 1.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a whole number of at least 1".to_owned()),
    }
}

/// A share, from 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    found.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check =
            |text: &str, expected: Option<f64>| assert_eq!(seconds(text).ok(), expected, "{text}");
        check("60s", Some(60.0));
        check("1.5 min", Some(90.0));
        check("2m", Some(120.0));
        check("2h", Some(7200.0));
        for bad in ["60", "s", "0s", "-1s", "nans", "1d", ""] {
            check(bad, None);
        }
    }
}
