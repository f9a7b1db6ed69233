//! Measurements as a table.

use super::{CaseStatistics, IntensityStatistics, LabelStatistics};

/// The measurements of some cases as CSV, one line per case and label; of several channels the
/// intensities follow each other. What is not known is empty.
///
/// Columns: `case`, `label`, `name`, `voxels`, `volume_ml`, then `mean`, `sd`, `min`, `percentile_5`,
/// `median`, `percentile_95`, `max` (of channel `N` of several as `N_mean`, ..), then
/// `centroid_x_mm`, `centroid_y_mm`, `centroid_z_mm`, `box_x_first`, `box_x_last`, .., `box_x_low_mm`,
/// `box_x_high_mm`, .., `touches` (such as `left+inferior`) and `confidence`. Numbers have six digits;
/// millimetres three behind the point.
pub fn csv(cases: &[CaseStatistics]) -> String {
    let labels = || cases.iter().flat_map(|case| &case.labels);
    let channels = labels().map(|label| label.intensities.len()).max().unwrap_or(0);
    let mut text = header(channels).join(",");
    text.push('\n');
    for case in cases {
        for label in &case.labels {
            let fields = line(&case.case, label, channels);
            text.push_str(&fields.join(","));
            text.push('\n');
        }
    }
    text
}

const OF_INTENSITIES: [&str; 7] =
    ["mean", "sd", "min", "percentile_5", "median", "percentile_95", "max"];

fn header(channels: usize) -> Vec<String> {
    let mut names: Vec<String> =
        ["case", "label", "name", "voxels", "volume_ml"].map(str::to_owned).to_vec();
    for channel in 0..channels {
        let name = |of: &str| match channels {
            1 => of.to_owned(),
            _ => format!("{channel}_{of}"),
        };
        names.extend(OF_INTENSITIES.map(name));
    }
    names.extend(["x", "y", "z"].map(|axis| format!("centroid_{axis}_mm")));
    names.extend(
        ["x", "y", "z"]
            .iter()
            .flat_map(|axis| ["first", "last"].map(|end| format!("box_{axis}_{end}"))),
    );
    names.extend(
        ["x", "y", "z"]
            .iter()
            .flat_map(|axis| ["low", "high"].map(|end| format!("box_{axis}_{end}_mm"))),
    );
    names.extend(["touches", "confidence"].map(str::to_owned));
    names
}

fn line(case: &str, label: &LabelStatistics, channels: usize) -> Vec<String> {
    let mut fields = vec![
        quoted(case),
        label.label.to_string(),
        quoted(&label.name),
        label.voxels.to_string(),
        digits(label.volume_ml),
    ];
    for channel in 0..channels {
        let of = label.intensities.get(channel).map(of_intensities);
        fields.extend(of.map_or_else(|| vec![String::new(); 7], |of| of.map(digits).to_vec()));
    }
    match &label.position {
        None => fields.extend(vec![String::new(); 16]),
        Some(position) => {
            let (centre, voxels, mm) = (position.centroid_mm, position.box_voxels, position.box_mm);
            let millimetres = |v: f64| format!("{v:.3}");
            fields.extend([centre.x, centre.y, centre.z].map(millimetres));
            let voxels = [voxels.x, voxels.y, voxels.z].into_iter().flatten();
            fields.extend(voxels.map(|index| index.to_string()));
            fields.extend([mm.x, mm.y, mm.z].into_iter().flatten().map(millimetres));
            let touched: Vec<&str> = position.touches.iter().map(|side| side.name()).collect();
            fields.push(touched.join("+"));
        }
    }
    fields.push(label.confidence.map_or_else(String::new, |sure| format!("{sure:.4}")));
    fields
}

fn of_intensities(of: &IntensityStatistics) -> [f64; 7] {
    [of.mean, of.sd, of.min, of.percentile_5, of.median, of.percentile_95, of.max]
}

/// A number with six digits, without zeros at its end.
fn digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_owned() } else { String::new() };
    }
    let before = value.abs().log10().floor() as i32 + 1;
    let decimals = usize::try_from((6 - before).clamp(0, 12)).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A field; in quotes where commas, quotes or ends of lines are in it.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_digits() {
        let check = |value: f64, text: &str| assert_eq!(digits(value), text);
        check(0.0, "0");
        check(-0.0, "0");
        check(1.0, "1");
        check(0.003375, "0.003375");
        check(1234.56789, "1234.57");
        check(-98.7654321, "-98.7654");
        check(1_234_567.8, "1234568");
        check(0.1 + 0.2, "0.3");
        check(f64::NAN, "");
    }

    #[test]
    fn fields_with_commas() {
        assert_eq!(quoted("a b"), "a b");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
