//! What an output takes over from its source: the patient and the study that it belongs to.
//!
//! The bytes of these elements go from file to file, in the character set of the source; nothing here
//! decodes them, and nothing shows them.

use super::elements::Elements;
use crate::dicom::parse::read_error;
use crate::dicom::syntax::Syntax;
use crate::error::{DataError, Result};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_parser::StatefulDecode;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use std::io::{Read, Seek, SeekFrom};

/// The elements of the modules Patient, Clinical Trial Subject, General Study, Patient Study and
/// Clinical Trial Study (PS3.3, C.7.1 and C.7.2), and of the frame of reference and of compression
/// with loss, which outputs have as well.
const COPIED: &[Tag] = &[
    tags::SPECIFIC_CHARACTER_SET,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    // Patient.
    tags::REFERENCED_PATIENT_SEQUENCE,
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID,
    tags::TYPE_OF_PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_BIRTH_TIME,
    tags::PATIENT_SEX,
    tags::QUALITY_CONTROL_SUBJECT,
    tags::OTHER_PATIENT_NAMES,
    tags::OTHER_PATIENT_I_DS_SEQUENCE,
    tags::STRAIN_DESCRIPTION,
    tags::STRAIN_NOMENCLATURE,
    tags::PATIENT_SPECIES_DESCRIPTION,
    tags::PATIENT_SPECIES_CODE_SEQUENCE,
    tags::PATIENT_BREED_DESCRIPTION,
    tags::PATIENT_BREED_CODE_SEQUENCE,
    tags::BREED_REGISTRATION_SEQUENCE,
    tags::RESPONSIBLE_PERSON,
    tags::RESPONSIBLE_PERSON_ROLE,
    tags::RESPONSIBLE_ORGANIZATION,
    tags::PATIENT_COMMENTS,
    tags::PATIENT_IDENTITY_REMOVED,
    tags::DEIDENTIFICATION_METHOD,
    tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
    // Clinical trial.
    tags::CLINICAL_TRIAL_SPONSOR_NAME,
    tags::CLINICAL_TRIAL_PROTOCOL_ID,
    tags::CLINICAL_TRIAL_PROTOCOL_NAME,
    tags::CLINICAL_TRIAL_SITE_ID,
    tags::CLINICAL_TRIAL_SITE_NAME,
    tags::CLINICAL_TRIAL_SUBJECT_ID,
    tags::CLINICAL_TRIAL_SUBJECT_READING_ID,
    tags::CLINICAL_TRIAL_PROTOCOL_ETHICS_COMMITTEE_NAME,
    tags::CLINICAL_TRIAL_PROTOCOL_ETHICS_COMMITTEE_APPROVAL_NUMBER,
    tags::CLINICAL_TRIAL_TIME_POINT_ID,
    tags::CLINICAL_TRIAL_TIME_POINT_DESCRIPTION,
    // Study.
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::ACCESSION_NUMBER,
    tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::STUDY_DESCRIPTION,
    tags::PROCEDURE_CODE_SEQUENCE,
    tags::STUDY_INSTANCE_UID,
    tags::STUDY_ID,
    // The patient at the time of the study.
    tags::ADMITTING_DIAGNOSES_DESCRIPTION,
    tags::PATIENT_AGE,
    tags::PATIENT_SIZE,
    tags::PATIENT_WEIGHT,
    tags::PATIENT_SEX_NEUTERED,
    tags::ADMISSION_ID,
    tags::ISSUER_OF_ADMISSION_ID_SEQUENCE,
    // Frame of reference, compression.
    tags::FRAME_OF_REFERENCE_UID,
    tags::POSITION_REFERENCE_INDICATOR,
    tags::LOSSY_IMAGE_COMPRESSION,
    tags::LOSSY_IMAGE_COMPRESSION_RATIO,
    tags::LOSSY_IMAGE_COMPRESSION_METHOD,
];

/// The last group of what is copied.
const LAST_GROUP: u16 = 0x0038;
/// Longest value that is copied: a comment of the patient.
const MAX_VALUE: u32 = 1 << 14;
/// Deepest item, and most elements of all: the modules have a few dozen.
const MAX_DEPTH: usize = 8;
const MAX_ELEMENTS: usize = 1 << 12;

/// An open sequence or item of what is copied.
enum Open {
    Item(Elements),
    Sequence(Tag, Vec<Elements>),
}

/// Reads what is copied from a data set, from where it begins.
///
/// # Errors
/// When the file cannot be read, or breaks off.
pub(in crate::dicom) fn read(
    source: &mut (impl Read + Seek + ?Sized),
    syntax: &Syntax,
    at: u64,
) -> Result<Elements> {
    let broken = |at: u64| DataError::BrokenDicom { at, found: None };
    source.seek(SeekFrom::Start(at)).map_err(read_error)?;
    let encoding = syntax.of_elements();
    let reader = LazyDataSetReader::new_with_ts(source, &encoding);
    let mut reader = reader.map_err(|_| broken(at))?;
    let mut walk = Walk { open: vec![Open::Item(Elements::default())], skipped: 0, count: 0, at };
    while let Some(token) = reader.advance() {
        let token = token.map_err(|_| broken(walk.at))?;
        if walk.step(token)? {
            break;
        }
    }
    match walk.open.drain(..).next() {
        Some(Open::Item(elements)) => Ok(elements),
        _ => Err(broken(walk.at)),
    }
}

struct Walk {
    open: Vec<Open>,
    /// How deep it is within a sequence that is not copied.
    skipped: usize,
    count: usize,
    at: u64,
}

impl Walk {
    /// Takes a token; true where nothing follows that is copied.
    fn step<S: StatefulDecode>(&mut self, token: LazyDataToken<&mut S>) -> Result<bool> {
        let root = self.open.len() == 1;
        let wanted = |tag: Tag| !root || COPIED.contains(&tag);
        match token {
            LazyDataToken::SequenceStart { tag, .. } => {
                if root && self.skipped == 0 && tag.group() > LAST_GROUP {
                    return Ok(true);
                }
                if self.skipped > 0 || !wanted(tag) || self.open.len() > MAX_DEPTH {
                    self.skipped += 1;
                } else {
                    self.open.push(Open::Sequence(tag, Vec::new()));
                }
            }
            LazyDataToken::PixelSequenceStart => return Ok(true),
            LazyDataToken::ItemStart { .. } if self.skipped > 0 => self.skipped += 1,
            LazyDataToken::ItemStart { .. } => self.open.push(Open::Item(Elements::default())),
            LazyDataToken::ItemEnd | LazyDataToken::SequenceEnd if self.skipped > 0 => {
                self.skipped -= 1;
            }
            LazyDataToken::ItemEnd | LazyDataToken::SequenceEnd => self.close()?,
            LazyDataToken::LazyValue { header, decoder } => {
                let (tag, length) = (header.tag, header.len.0);
                if root && self.skipped == 0 && tag.group() > LAST_GROUP {
                    return Ok(true);
                }
                let at = decoder.position();
                let broken = |_| DataError::BrokenDicom { at, found: None };
                let room = length <= MAX_VALUE && self.count < MAX_ELEMENTS;
                let keep = self.skipped == 0 && wanted(tag) && room && is_text(header.vr);
                match self.open.last_mut() {
                    Some(Open::Item(item)) if keep => {
                        let mut value = Vec::new();
                        decoder.read_to_vec(length, &mut value).map_err(broken)?;
                        item.put(tag, header.vr, value);
                        self.count += 1;
                    }
                    _ => decoder.skip_bytes(length).map_err(broken)?,
                }
                self.at = decoder.position();
            }
            LazyDataToken::LazyItemValue { len, decoder } => {
                let at = decoder.position();
                let broken = |_| DataError::BrokenDicom { at, found: None };
                decoder.skip_bytes(len).map_err(broken)?;
            }
            _ => {}
        }
        Ok(false)
    }

    /// Ends what was opened last.
    fn close(&mut self) -> Result<()> {
        let at = self.at;
        let unmatched = || DataError::BrokenDicom {
            at,
            found: Some("something ends that has not begun".to_owned()),
        };
        if self.open.len() < 2 {
            return Err(unmatched());
        }
        match (self.open.pop(), self.open.last_mut()) {
            (Some(Open::Item(item)), Some(Open::Sequence(_, items))) => items.push(item),
            (Some(Open::Sequence(tag, items)), Some(Open::Item(item))) => {
                item.put_items(tag, items)
            }
            _ => return Err(unmatched()),
        }
        Ok(())
    }
}

/// Whether a value is text, whose bytes are the same in every transfer syntax.
fn is_text(vr: VR) -> bool {
    use VR::{AE, AS, CS, DA, DS, DT, IS, LO, LT, PN, SH, ST, TM, UC, UI, UR, UT};
    matches!(vr, AE | AS | CS | DA | DS | DT | IS | LO | LT | PN | SH | ST | TM | UC | UI | UR | UT)
}
