//! Names and colours of labels as files that viewers read.

use super::{Appearance, LabelSet};
use std::fmt::Write;

/// A colour table for 3-D Slicer (`.ctbl`): value, name, red, green, blue, opacity.
///
/// Names have no spaces in such a table: underscores take their place.
///
/// ```
/// use stunet_data::labels::{LabelSet, slicer_colour_table};
/// let table = slicer_colour_table(&LabelSet::totalsegmentator());
/// assert!(table.contains("\n40 liver 221 130 101 255\n"));
/// ```
pub fn slicer_colour_table(labels: &LabelSet) -> String {
    let rows = rows(labels);
    let mut text = format!("# Color table file of stunet\n# {} values\n", rows.len());
    for (value, name, [red, green, blue], opacity) in rows {
        let name = name.split_whitespace().collect::<Vec<_>>().join("_");
        let opacity = opacity * 255;
        let _ = writeln!(text, "{value} {name} {red} {green} {blue} {opacity}");
    }
    text
}

/// Label descriptions for ITK-SNAP: value, red, green, blue, opacity, visibility, mesh, name.
pub fn itk_snap_labels(labels: &LabelSet) -> String {
    let mut text = concat!(
        "################################################\n",
        "# ITK-SnAP Label Description File\n",
        "# File format:\n",
        "# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL\n",
        "################################################\n"
    )
    .to_owned();
    for (value, name, [red, green, blue], shown) in rows(labels) {
        // A name ends at the next quotation mark.
        let name = if value == 0 { "Clear Label".to_owned() } else { name.replace('"', "'") };
        let _ = writeln!(
            text,
            "{value:5} {red:5} {green:4} {blue:4} {shown:8} {shown:2} {shown:2}    \"{name}\""
        );
    }
    text
}

/// Value, name, colour, and whether it is seen.
fn rows(labels: &LabelSet) -> Vec<(u16, String, [u8; 3], u8)> {
    let row = |(value, name): (u16, &str)| match value {
        0 => (value, name.to_owned(), [0; 3], 0),
        _ => {
            let rgb = Appearance::of(name, value).rgb;
            (value, name.to_owned(), rgb, 1)
        }
    };
    labels.painted().into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let labels = LabelSet::from_names(["background", "liver", "a \"new\" one"]).unwrap();
        let table = slicer_colour_table(&labels);
        let expected =
            "# 3 values\n0 background 0 0 0 0\n1 liver 221 130 101 255\n2 a_\"new\"_one ";
        assert!(table.contains(expected), "{table}");
        let table = itk_snap_labels(&labels);
        let lines: Vec<&str> = table.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines[0], "    0     0    0    0        0  0  0    \"Clear Label\"");
        assert_eq!(lines[1], "    1   221  130  101        1  1  1    \"liver\"");
        assert!(lines[2].ends_with("\"a 'new' one\""), "{table}");
    }
}
