//! What a label looks like and which structure it is, by its name.

use super::palette::generated_colour;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Colour of a label, and the structure that it stands for.
///
/// ```
/// use stunet_data::labels::Appearance;
/// let liver = Appearance::of("liver", 5);
/// assert_eq!(liver.rgb, [221, 130, 101]);
/// assert_eq!(liver.structure.kind.value, "10200004");
/// ```
///
/// # Source
/// `labels/structures.csv`, which names its sources: codes of TotalSegmentator, colours of 3-D Slicer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appearance {
    /// Red, green, blue.
    pub rgb: [u8; 3],
    /// What it is.
    pub structure: Structure,
}

/// A structure in terms of a coding scheme, as DICOM's segmentations want it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Such as `Anatomical Structure`.
    pub category: Code,
    /// Such as `Kidney`.
    pub kind: Code,
    /// Of which side it is, where the kind does not say so.
    pub side: Option<Side>,
    /// Where it lies, for what may lie anywhere, such as a cyst.
    pub region: Option<Region>,
}

/// A part of the body that something lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Such as `Kidney`.
    pub part: Code,
    /// Of which side.
    pub side: Option<Side>,
}

/// A coded concept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// The code, of at most 16 characters.
    pub value: String,
    /// The coding scheme: `SCT` for SNOMED CT, or [`PRIVATE`].
    pub scheme: &'static str,
    /// The meaning in words, of at most 64 characters.
    pub meaning: String,
}

/// A side of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The patient's left.
    Left,
    /// The patient's right.
    Right,
}

/// The coding scheme of labels whose name is no structure that is known: the code is made of the name.
pub const PRIVATE: &str = "99STUNET";
const SNOMED_CT: &str = "SCT";

impl Appearance {
    /// Of a label, by its name; its value decides on the colour where the name says nothing.
    ///
    /// Case, spaces and the place of `left` and `right` do not count: `Left kidney` is
    /// `kidney_left`.
    pub fn of(name: &str, value: u16) -> Self {
        let (words, side) = parted(name);
        let known = |side: Option<Side>| structures().get(&(words.clone(), side)).cloned();
        if let Some(found) = known(side) {
            return found;
        }
        match known(None) {
            Some(mut found) => {
                let side_of = match &mut found.structure.region {
                    Some(region) => &mut region.side,
                    None => &mut found.structure.side,
                };
                *side_of = side;
                found
            }
            None => Self { rgb: generated_colour(value), structure: Structure::private(name) },
        }
    }
}

impl Structure {
    /// Whether it has a code of its own in SNOMED CT.
    pub fn is_known(&self) -> bool {
        self.kind.scheme != PRIVATE
    }

    /// A structure that nothing is known of but its name.
    fn private(name: &str) -> Self {
        const WHOLE: usize = 16;
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let mut value: String = name.chars().map(plain).collect();
        if name.len() > WHOLE || value != name {
            // The start for people, and a checksum that tells names of one start apart.
            value.truncate(WHOLE - 9);
            value = format!("{value}_{:08x}", crc32fast::hash(name.as_bytes()));
        }
        let words = |c: char| if c.is_control() || c == '\\' { ' ' } else { c };
        let meaning = name.chars().map(words).take(64).collect();
        Self {
            category: category("anatomical"),
            kind: Code { value, scheme: PRIVATE, meaning },
            side: None,
            region: None,
        }
    }
}

impl Side {
    /// Its concept in SNOMED CT.
    pub fn code(self) -> Code {
        match self {
            Self::Left => Code::snomed("7771000", "Left"),
            Self::Right => Code::snomed("24028007", "Right"),
        }
    }

    fn of(word: &str) -> Option<Self> {
        match word {
            "left" | "l" => Some(Self::Left),
            "right" | "r" => Some(Self::Right),
            _ => None,
        }
    }
}

impl Code {
    fn snomed(value: &str, meaning: &str) -> Self {
        Self { value: value.to_owned(), scheme: SNOMED_CT, meaning: meaning.to_owned() }
    }
}

/// DICOM's categories of segments, with the codes that TotalSegmentator and 3-D Slicer use.
fn category(name: &str) -> Code {
    match name {
        "abnormal" => Code::snomed("49755003", "Morphologically Abnormal Structure"),
        "tissue" => Code::snomed("85756007", "Tissue"),
        "object" => Code::snomed("260787004", "Physical object"),
        _ => Code::snomed("123037004", "Anatomical Structure"),
    }
}

/// The words of a name without its side, and the side; of several sides none is one.
fn parted(name: &str) -> (String, Option<Side>) {
    let name = name.to_lowercase();
    let words: Vec<&str> =
        name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let sides: Vec<Side> = words.iter().filter_map(|word| Side::of(word)).collect();
    match sides[..] {
        [side] => {
            let rest = words.into_iter().filter(|word| Side::of(word).is_none());
            (rest.collect::<Vec<_>>().join("_"), Some(side))
        }
        _ => (words.join("_"), None),
    }
}

type Structures = BTreeMap<(String, Option<Side>), Appearance>;

/// The table, by the words of its names and their sides.
fn structures() -> &'static Structures {
    static TABLE: OnceLock<Structures> = OnceLock::new();
    TABLE.get_or_init(|| {
        let lines = include_str!("structures.csv").lines();
        let lines = lines.filter(|line| !line.starts_with('#'));
        lines.flat_map(|line| row(line).expect("the embedded table is valid")).collect()
    })
}

/// A name in lower case with a side, and what it looks like.
type Entry = ((String, Option<Side>), Appearance);

/// A line of the table: its names, each with what they stand for.
fn row(line: &str) -> Option<Vec<Entry>> {
    let fields: Vec<&str> = line.split(',').collect();
    let [name, others, r, g, b, group, code, meaning, side, region, part, region_side] =
        fields.try_into().ok()?;
    let region = (!region.is_empty())
        .then(|| Region { part: Code::snomed(region, part), side: Side::of(region_side) });
    let structure = Structure {
        category: category(group),
        kind: Code::snomed(code, meaning),
        side: Side::of(side),
        region,
    };
    let rgb = [r.parse().ok()?, g.parse().ok()?, b.parse().ok()?];
    let appearance = Appearance { rgb, structure };
    let names = [name].into_iter().chain(others.split_whitespace());
    Some(names.map(|name| (parted(name), appearance.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::LabelSet;
    use std::collections::BTreeSet;

    #[test]
    fn every_published_structure_has_a_code_and_a_colour() {
        let set = LabelSet::totalsegmentator();
        let mut seen = BTreeSet::new();
        for label in &set.labels()[1..] {
            let found = Appearance::of(&label.name, label.values[0]).structure;
            assert!(found.is_known(), "{}", label.name);
            assert_eq!(found.kind.scheme, "SCT");
            let lateral = found.side.is_some()
                || ["atrium", "ventricle", "middle"].iter().any(|w| label.name.contains(w));
            let sided = label.name.contains("left") || label.name.contains("right");
            assert_eq!(lateral, sided, "{}", label.name);
            // Code and side are those of no other structure.
            assert!(seen.insert((found.kind.value, found.side)), "{}", label.name);
        }
        assert_eq!(seen.len(), 104);
    }

    #[test]
    fn codes_are_numbers_with_a_valid_check_digit() {
        /// Verhoeff's scheme, which SNOMED CT's identifiers end with.
        fn is_valid(digits: &str) -> bool {
            let times = |a: usize, b: usize| match (a < 5, b < 5) {
                (true, true) => (a + b) % 5,
                (true, false) => 5 + (a + b - 5) % 5,
                (false, true) => 5 + (a - 5 + 5 - b) % 5,
                (false, false) => (a + 5 - b) % 5,
            };
            let permute = |position: usize, digit: usize| {
                let one = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
                (0..position % 8).fold(digit, |digit, _| one[digit])
            };
            let digits = digits.bytes().rev().map(|b| usize::from(b - b'0'));
            digits.enumerate().fold(0, |sum, (i, digit)| times(sum, permute(i, digit))) == 0
        }
        assert!(is_valid("10200004") && !is_valid("10200005"));
        for found in structures().values() {
            let Structure { category, kind, region, .. } = &found.structure;
            for code in [category, kind].into_iter().chain(region.as_ref().map(|r| &r.part)) {
                assert!(is_valid(&code.value), "{code:?}");
            }
        }
        assert!(is_valid(&Side::Left.code().value) && is_valid(&Side::Right.code().value));
    }

    #[test]
    fn names_are_matched_by_their_words() {
        let of = |name: &str| Appearance::of(name, 1);
        assert_eq!(of("Left kidney"), of("kidney_left"));
        assert_eq!(of("L Kidney"), of("kidney_left"));
        assert_eq!(of("left atrium"), of("heart_atrium_left"));
        assert_eq!(of("Oesophagus"), of("esophagus"));
        assert_ne!(of("vertebrae_L1"), of("vertebrae_T1"));
        let tibia = of("tibia_left").structure;
        assert_eq!((tibia.kind.value.as_str(), tibia.side), ("12611008", Some(Side::Left)));
        let cyst = of("kidney_cyst_right").structure;
        assert_eq!(cyst.side, None);
        assert_eq!(cyst.region.unwrap().side, Some(Side::Right));
    }

    #[test]
    fn other_names_get_codes_of_their_own() {
        let code = |name: &str| Appearance::of(name, 1).structure.kind;
        assert_eq!(code("label_1").value, "label_1");
        let [a, b] = ["a very long name of something", "a very long name of something else"];
        assert_ne!(code(a).value, code(b).value);
        assert_eq!((code(a).value.len(), code(a).scheme), (16, PRIVATE));
        assert_eq!(code("größer\\kleiner").meaning, "größer kleiner");
        let long = "x".repeat(100);
        assert_eq!((code(&long).meaning.len(), code(&long).value.len()), (64, 16));
    }
}
