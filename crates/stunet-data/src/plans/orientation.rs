//! In which orientation a network saw its training images, and how scans are brought to it.
//!
//! A network has learnt where things lie: in a scan whose axes run otherwise it finds a liver on the
//! wrong side, or nothing. nnU-Net's usual reader takes axes as they are in the file, and its plans do
//! not say how those of the training ran.

use super::Plans;
use crate::error::{DataError, Result, invalid};
use crate::geometry::{Geometry, Leniency, Orientation};
use crate::nifti::Opener;
use serde::de::IgnoredAny;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use std::str::FromStr;

/// How the axes of the training images ran, as the reader of the plans gave them to the network.
///
/// In JSON `"RAS"` where all ran alike, else `{"majority": "RAS", "unanimous": false}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "RawTrained")]
pub struct TrainedOrientation {
    /// Of most of them.
    pub majority: Orientation,
    /// Whether all of them ran so.
    pub unanimous: bool,
}

impl TrainedOrientation {
    /// That of images which all run alike.
    pub fn all(orientation: Orientation) -> Self {
        Self { majority: orientation, unanimous: true }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawTrained {
    Alike(String),
    Mixed { majority: Orientation, unanimous: bool },
    Other(IgnoredAny),
}

impl TryFrom<RawTrained> for TrainedOrientation {
    type Error = DataError;

    fn try_from(raw: RawTrained) -> Result<Self> {
        match raw {
            RawTrained::Alike(letters) => letters.parse().map(Self::all),
            RawTrained::Mixed { majority, unanimous } => Ok(Self { majority, unanimous }),
            RawTrained::Other(_) => {
                let expected = "letters such as \"RAS\", or majority and unanimous";
                Err(invalid("orientation", "axes", expected, "something else"))
            }
        }
    }
}

impl Serialize for TrainedOrientation {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        if self.unanimous {
            return self.majority.serialize(to);
        }
        let mut entries = to.serialize_struct("TrainedOrientation", 2)?;
        entries.serialize_field("majority", &self.majority)?;
        entries.serialize_field("unanimous", &false)?;
        entries.end()
    }
}

/// Which way the axes of a scan are turned before a model sees it.
///
/// ```
/// use stunet_data::plans::OrientationChoice;
/// assert_eq!("auto".parse::<OrientationChoice>()?, OrientationChoice::Auto);
/// assert_eq!("RAS".parse::<OrientationChoice>()?, OrientationChoice::To("RAS".parse()?));
/// # Ok::<(), stunet_data::DataError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OrientationChoice {
    /// To that of most training images, where the plans say it; else as the reader gives it.
    #[default]
    Auto,
    /// As the reader of the plans gives it: what nnU-Net does.
    AsIs,
    /// To this one.
    To(Orientation),
}

impl FromStr for OrientationChoice {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "as-is" => Ok(Self::AsIs),
            letters => letters.parse().map(Self::To).map_err(|_| {
                let expected = "auto, as-is, or three letters such as RAS or LPS";
                invalid("orientation", "axes", expected, format_args!("{letters:.40}"))
            }),
        }
    }
}

/// How the axes of a scan run, and how the network sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SeenOrientation {
    /// In the file.
    pub file: Orientation,
    /// After the turn.
    pub network: Orientation,
    /// Of the training images, where the plans say it.
    pub trained: Option<TrainedOrientation>,
}

impl SeenOrientation {
    /// Whether the network sees other axes than most images of its training had.
    pub fn is_foreign(&self) -> bool {
        self.trained.is_some_and(|trained| trained.majority != self.network)
    }

    /// Whether axes were turned.
    pub fn is_turned(&self) -> bool {
        self.file != self.network
    }
}

impl Plans {
    /// How the axes of the training images ran, as the network saw them: RAS where the plans' reader
    /// turns images.
    pub fn trained_orientation(&self) -> Option<TrainedOrientation> {
        match self.reader.turns() {
            true => Some(TrainedOrientation::all(Orientation::RAS)),
            false => self.orientation,
        }
    }

    /// How scans are opened for a model with these plans.
    ///
    /// Labels, probabilities and confidence come back on the file's own grid, voxel by voxel.
    ///
    /// # Errors
    /// When another orientation is asked for than that to which the plans' reader turns.
    ///
    /// # Deviations
    /// nnU-Net never turns beyond its reader, which is [`OrientationChoice::AsIs`].
    pub fn opener(&self, choice: OrientationChoice) -> Result<Opener> {
        let orientation = match choice {
            OrientationChoice::AsIs => None,
            OrientationChoice::To(other) if self.reader.turns() && other != Orientation::RAS => {
                let expected = format!("RAS, to which {} turns every scan", self.reader.name());
                return Err(invalid("orientation", "axes", expected, other));
            }
            _ if self.reader.turns() => None,
            OrientationChoice::Auto => self.orientation.map(|trained| trained.majority),
            OrientationChoice::To(orientation) => Some(orientation),
        };
        Ok(Opener { reader: self.reader, leniency: Leniency::default(), orientation })
    }

    /// How a scan that was opened on `grid` runs, and whether the network knows it so.
    pub fn seen(&self, grid: &Geometry) -> SeenOrientation {
        SeenOrientation {
            file: Orientation::of(grid.in_file()),
            network: Orientation::of(grid),
            trained: self.trained_orientation(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nifti::Reader;
    use serde_json::json;

    fn word(letters: &str) -> Orientation {
        letters.parse().unwrap()
    }

    #[test]
    fn in_json_and_back() {
        let alike = TrainedOrientation::all(word("LPS"));
        let mixed = TrainedOrientation { unanimous: false, ..alike };
        let check = |of: TrainedOrientation, expected: serde_json::Value| {
            assert_eq!(serde_json::to_value(of).unwrap(), expected);
            assert_eq!(serde_json::from_value::<TrainedOrientation>(expected).unwrap(), of);
        };
        check(alike, json!("LPS"));
        check(mixed, json!({"majority": "LPS", "unanimous": false}));
        for bad in [json!("XYZ"), json!(3), json!({"majority": "LPS"}), json!(["LPS"])] {
            assert!(serde_json::from_value::<TrainedOrientation>(bad).is_err());
        }
    }

    #[test]
    fn which_way_scans_are_turned() {
        use OrientationChoice::{AsIs, Auto, To};
        let check = |reader, known: Option<&str>, choice, expected: Option<&str>| {
            let orientation = known.map(|known| TrainedOrientation::all(word(known)));
            let plans = Plans { reader, orientation, ..Plans::totalsegmentator() };
            let opener = plans.opener(choice).unwrap();
            assert_eq!(opener.orientation, expected.map(word), "{reader:?}, {known:?}, {choice:?}");
            assert_eq!((opener.reader, opener.leniency), (reader, Leniency::default()));
        };
        for reader in [Reader::SimpleItk, Reader::Nibabel] {
            check(reader, Some("LPS"), Auto, Some("LPS"));
            check(reader, Some("LPS"), AsIs, None);
            check(reader, Some("LPS"), To(Orientation::RAS), Some("RAS"));
            check(reader, None, Auto, None);
            check(reader, None, To(word("SLA")), Some("SLA"));
        }
        for reader in [Reader::SimpleItkReorient, Reader::NibabelReorient] {
            for choice in [Auto, AsIs, To(Orientation::RAS)] {
                check(reader, Some("LPS"), choice, None);
            }
            let plans = Plans { reader, ..Plans::totalsegmentator() };
            let message = plans.opener(To(Orientation::LPS)).unwrap_err().to_string();
            assert!(message.contains("WithReorient turns every scan, found LPS"), "{message}");
        }
    }

    #[test]
    fn what_the_network_sees() {
        let file = Geometry::axis_aligned([2, 3, 4], [1.0; 3]).unwrap();
        let published = Plans::totalsegmentator();
        let as_is = published.seen(&file);
        assert_eq!((as_is.file, as_is.network), (Orientation::LPS, Orientation::LPS));
        assert!(as_is.is_foreign() && !as_is.is_turned());
        let turned = published.seen(&file.oriented(Orientation::RAS).unwrap());
        assert_eq!((turned.file, turned.network), (Orientation::LPS, Orientation::RAS));
        assert!(!turned.is_foreign() && turned.is_turned());
        let unknown = Plans { orientation: None, ..published };
        assert!(!unknown.seen(&file).is_foreign());
        let turning = Plans { reader: Reader::SimpleItkReorient, ..unknown };
        assert_eq!(turning.trained_orientation().unwrap().majority, Orientation::RAS);
    }
}
