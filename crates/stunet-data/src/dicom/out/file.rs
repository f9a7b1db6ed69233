//! A DICOM file: what stands before its data set, and the identifiers that it gets.

use super::elements::{Elements, Output};
use crate::error::Result;
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::transfer_syntax::TransferSyntax;
use dicom_transfer_syntax_registry::entries;
use sha2::{Digest, Sha256};
use std::io::Write;

/// How the elements of a file are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// With their types.
    Explicit,
    /// Without; values of any type may be longer than 64 KiB.
    Implicit,
}

impl Encoding {
    fn syntax(self) -> TransferSyntax {
        match self {
            Self::Explicit => entries::EXPLICIT_VR_LITTLE_ENDIAN.erased(),
            Self::Implicit => entries::IMPLICIT_VR_LITTLE_ENDIAN.erased(),
        }
    }

    fn uid(self) -> &'static str {
        match self {
            Self::Explicit => uids::EXPLICIT_VR_LITTLE_ENDIAN,
            Self::Implicit => uids::IMPLICIT_VR_LITTLE_ENDIAN,
        }
    }
}

/// What an object is.
pub(super) struct Object<'a> {
    pub class: &'a str,
    pub instance: &'a str,
    pub encoding: Encoding,
}

/// The program as DICOM's files name it: a UUID, which never changes.
const IMPLEMENTATION: &str = "2.25.337585899737432376009374647716132297551";

/// Writes a file, its data set by `body`.
pub(super) fn write(
    to: &mut dyn Write,
    object: &Object<'_>,
    body: impl FnOnce(&mut Output<'_>) -> Result<()>,
) -> Result<()> {
    let failed = |error| crate::error::DataError::io("write", error);
    let version = format!("STUNET_{}", env!("CARGO_PKG_VERSION"));
    let mut meta = Elements::default()
        .text(tags::MEDIA_STORAGE_SOP_CLASS_UID, object.class)
        .text(tags::MEDIA_STORAGE_SOP_INSTANCE_UID, object.instance)
        .text(tags::TRANSFER_SYNTAX_UID, object.encoding.uid())
        .text(tags::IMPLEMENTATION_CLASS_UID, IMPLEMENTATION)
        .text(tags::IMPLEMENTATION_VERSION_NAME, &version[..version.len().min(16)]);
    meta.put(tags::FILE_META_INFORMATION_VERSION, VR::OB, vec![0, 1]);
    let mut group = Vec::new();
    Output::new(&mut group, &Encoding::Explicit.syntax()).elements(&meta)?;
    let length =
        Elements::default().longs(tags::FILE_META_INFORMATION_GROUP_LENGTH, &[group.len() as u32]);
    to.write_all(&[0; 128]).and_then(|()| to.write_all(b"DICM")).map_err(failed)?;
    Output::new(to, &Encoding::Explicit.syntax()).elements(&length)?;
    to.write_all(&group).map_err(failed)?;
    body(&mut Output::new(to, &object.encoding.syntax()))
}

/// A UID of its own for what these parts make up: a UUID of version 8 by their digest, under the root
/// 2.25 that the standard has for UUIDs.
pub(super) fn uid_of(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let digest = digest.finalize();
    let mut bytes: [u8; 16] = std::array::from_fn(|i| digest[i]);
    bytes[6] = 0x80 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    format!("2.25.{}", u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_uuids_of_what_they_stand_for() {
        let (a, b) = (uid_of(&[b"ab", b"c"]), uid_of(&[b"a", b"bc"]));
        assert_ne!(a, b);
        assert_eq!(a, uid_of(&[b"ab", b"c"]));
        assert!(a.len() <= 64 && a.starts_with("2.25."));
        let value: u128 = a["2.25.".len()..].parse().unwrap();
        assert_eq!((value >> 76 & 15, value >> 62 & 3), (8, 2));
        let version: u128 = IMPLEMENTATION["2.25.".len()..].parse().unwrap();
        assert_eq!((version >> 76 & 15, version >> 62 & 3), (4, 2));
    }
}
