//! How a file's data set and its pixels are encoded.

use crate::error::DataError;
use dicom_encoding::transfer_syntax::{TransferSyntax, TransferSyntaxIndex};
use dicom_transfer_syntax_registry::{TransferSyntaxRegistry, entries};

/// Encoding of the elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elements {
    ImplicitLittle,
    ExplicitLittle,
    ExplicitBig,
    /// Explicit little endian behind the file's meta group, deflated.
    Deflated,
}

/// Encoding of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// The samples as they are, little endian but for [`Elements::ExplicitBig`].
    Native,
    Rle,
    /// JPEG by DCT or without loss.
    Jpeg,
    JpegLs,
    Jpeg2000,
    /// No decoder in pure Rust, or none of single frames.
    Unknown,
}

/// A transfer syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Syntax {
    pub uid: String,
    pub elements: Elements,
    pub codec: Codec,
}

impl Syntax {
    /// The syntax of a UID. Those that are not known here have their elements in explicit little
    /// endian, as every one that came after DICOM's first years.
    pub fn of(uid: &str) -> Self {
        use Codec::{Jpeg, Jpeg2000, JpegLs, Native, Rle, Unknown};
        use Elements::{Deflated, ExplicitBig, ExplicitLittle, ImplicitLittle};
        let uid = uid.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        let (elements, codec) = match uid {
            "1.2.840.10008.1.2" => (ImplicitLittle, Native),
            "1.2.840.10008.1.2.1" | "1.2.840.10008.1.2.1.98" => (ExplicitLittle, Native),
            "1.2.840.10008.1.2.1.99" => (Deflated, Native),
            "1.2.840.10008.1.2.2" => (ExplicitBig, Native),
            "1.2.840.10008.1.2.5" => (ExplicitLittle, Rle),
            "1.2.840.10008.1.2.4.50"
            | "1.2.840.10008.1.2.4.51"
            | "1.2.840.10008.1.2.4.57"
            | "1.2.840.10008.1.2.4.70" => (ExplicitLittle, Jpeg),
            "1.2.840.10008.1.2.4.80" | "1.2.840.10008.1.2.4.81" => (ExplicitLittle, JpegLs),
            "1.2.840.10008.1.2.4.90" | "1.2.840.10008.1.2.4.91" => (ExplicitLittle, Jpeg2000),
            _ => (ExplicitLittle, Unknown),
        };
        Self { uid: uid.to_owned(), elements, codec }
    }

    /// The `dicom` crates' description of the elements.
    pub fn of_elements(&self) -> TransferSyntax {
        match self.elements {
            Elements::ImplicitLittle => entries::IMPLICIT_VR_LITTLE_ENDIAN.erased(),
            Elements::ExplicitBig => entries::EXPLICIT_VR_BIG_ENDIAN.erased(),
            Elements::ExplicitLittle | Elements::Deflated => {
                entries::EXPLICIT_VR_LITTLE_ENDIAN.erased()
            }
        }
    }

    /// What the standard calls it, with its UID.
    pub fn name(&self) -> String {
        match TransferSyntaxRegistry.get(&self.uid) {
            Some(known) => format!("{} ({})", known.name(), self.uid),
            None => format!("transfer syntax {}", shown(&self.uid)),
        }
    }

    /// The error of pixels that cannot be decoded here.
    pub fn refused(&self) -> DataError {
        DataError::UnsupportedDicom {
            what: format!(
                "expected uncompressed, deflated, RLE, JPEG (8 bits, or lossless), JPEG-LS or \
                 JPEG 2000 pixels, found {}; decompress the files first, for example with gdcmconv \
                 --raw or dcmconv",
                self.name()
            ),
        }
    }
}

/// A value of a file, for people: without what steers a terminal, and not endless.
pub(super) fn shown(text: &str) -> String {
    let clean: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(64).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}
