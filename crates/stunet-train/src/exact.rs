//! Floating-point numbers in JSON that come back bit for bit, NaN and infinities included: for
//! `#[serde(with = "exact")]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Writes the shortest text that reads back to the same bits.
///
/// # Errors
/// The serialiser's.
pub fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    value.to_string().serialize(to)
}

/// Reads it.
///
/// # Errors
/// When it is no number.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

/// The same for an `Option<f64>`.
pub mod option {
    use super::*;

    /// Writes it.
    ///
    /// # Errors
    /// The serialiser's.
    pub fn serialize<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        value.map(|v| v.to_string()).serialize(to)
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is no number.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

/// The same for a list of them.
pub mod options {
    use super::*;

    /// Writes it.
    ///
    /// # Errors
    /// The serialiser's.
    pub fn serialize<S: Serializer>(values: &[Option<f64>], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(|value| value.map(|v| v.to_string())))
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is no number.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Option<f64>>, D::Error> {
        let texts = Vec::<Option<String>>::deserialize(from)?.into_iter();
        let parse = |text: String| text.parse().map_err(D::Error::custom);
        texts.map(|text| text.map(parse).transpose()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Both {
        #[serde(with = "super")]
        a: f64,
        #[serde(with = "super::option")]
        b: Option<f64>,
        #[serde(with = "super::options")]
        c: Vec<Option<f64>>,
    }

    #[test]
    fn every_bit_returns() {
        for a in [0.1 + 0.2, f64::MIN_POSITIVE, 1e300 / 3.0, -0.0, f64::INFINITY, f64::NAN] {
            for b in [None, Some(a)] {
                let text = serde_json::to_string(&Both { a, b, c: vec![None, b] }).unwrap();
                let back: Both = serde_json::from_str(&text).unwrap();
                assert_eq!(back.a.to_bits(), a.to_bits(), "{text}");
                assert_eq!(back.b.map(f64::to_bits), b.map(f64::to_bits), "{text}");
                assert_eq!(back.c[1].map(f64::to_bits), b.map(f64::to_bits), "{text}");
            }
        }
    }
}
