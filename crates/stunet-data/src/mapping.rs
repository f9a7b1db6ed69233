//! Label maps: how the labels of a prediction correspond to those of another dataset.
//!
//! A model that was trained on one dataset can be held against the references of another, once it is
//! said which labels mean the same ("direct inference"). A label map says it in a small text:
//!
//! ```text
//! title: My abdominal CTs
//! ignore: 255                      # value of the reference that is not scored
//!
//! [reference]                      # what is scored, and its labels in the reference
//! liver = 1 + 2                    # organ and tumour together
//! kidney = 3
//! bone = 5..9                      # all from 5 to 9
//!
//! [prediction: totalsegmentator]   # the same names, and their labels in the prediction
//! kidney = kidney_left + kidney_right
//! bone = none                      # not predicted; liver is found under its own name
//!
//! [groups]                         # scored in addition, as one region
//! organs = liver + kidney
//!
//! [omitted]                        # in the reference, and not scored
//! gallbladder = 4
//! ```
//!
//! Both labelmaps are renumbered: the first name of `[reference]` becomes 1, the second 2, and so on,
//! everything else 0. [`LabelMapping::published`] has the maps with which STU-Net's paper scored its
//! TotalSegmentator models on 14 other datasets.

mod parse;
mod published;

pub use published::PUBLISHED;

use crate::error::{Result, invalid};
use crate::files;
use crate::labels::{Label, LabelMap, LabelSet};
use crate::metrics::Class;
use std::path::Path;

/// Longest file that is read as a label map.
const MAX_BYTES: u64 = 1 << 20;

/// A structure that is scored, and which labels it has on either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedClass {
    /// Its name.
    pub name: String,
    /// Labels of the reference.
    pub reference: Vec<u16>,
    /// Labels of the prediction; none if it is not predicted.
    pub prediction: Vec<u16>,
}

/// How the labels of predictions and references correspond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMapping {
    title: String,
    note: Option<String>,
    ignore: Option<u16>,
    classes: Vec<MappedClass>,
    groups: Vec<(String, Vec<u16>)>,
}

impl LabelMapping {
    /// Reads a label map. Names on the prediction's side are those of the set that its section names,
    /// or of `prediction`, such as the labels of the model's `dataset.json`.
    ///
    /// ```
    /// use stunet_data::mapping::LabelMapping;
    /// let map = "[reference]\nkidney = 2\n[prediction: totalsegmentator]\nkidney = kidney_left + 39";
    /// let map = LabelMapping::parse(map, None)?;
    /// assert_eq!(map.classes()[0].prediction, [38, 39]);
    /// # Ok::<(), stunet_data::DataError>(())
    /// ```
    ///
    /// # Errors
    /// Names the line that is malformed, uses an unknown name, or gives a label to two structures.
    pub fn parse(text: &str, prediction: Option<&LabelSet>) -> Result<Self> {
        parse::mapping(text, prediction)
    }

    /// Reads a label map from a file: see [`LabelMapping::parse`].
    ///
    /// # Errors
    /// As there, and when the file cannot be read, is larger than a megabyte or is not UTF-8.
    pub fn load(path: &Path, prediction: Option<&LabelSet>) -> Result<Self> {
        let bytes = files::read_bounded(path, MAX_BYTES)?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|e| invalid("label map", "text", "UTF-8", e).at(path))?;
        Self::parse(text, prediction).map_err(|e| e.at(path))
    }

    /// One of the maps that come with the library, by its name ([`PUBLISHED`]) or by the folder name of
    /// its dataset in the paper, such as `btcv` or `Task011_BTCV`; case does not matter.
    ///
    /// ```
    /// use stunet_data::mapping::LabelMapping;
    /// let btcv = LabelMapping::published("btcv").unwrap();
    /// assert_eq!((btcv.classes().len(), btcv.classes()[5].name.as_str()), (13, "liver"));
    /// ```
    ///
    /// # Source
    /// STU-Net, `direct_inference/label_sys.py`.
    ///
    /// # Deviations
    /// Three maps (`btcv_cervix`, `word`, `segthor`) end in a `KeyError` there, because a table of names
    /// lacks theirs. Each of these is the name of a label of the model, which is what they mean here;
    /// [`LabelMapping::note`] says so.
    pub fn published(name: &str) -> Option<Self> {
        published::find(name)
    }

    /// What it is called, or nothing.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// What whoever uses it should know.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// What is scored; the first has label 1 once both sides are renumbered.
    pub fn classes(&self) -> &[MappedClass] {
        &self.classes
    }

    /// Names of what is scored, with the classes that they are after renumbering: structures first,
    /// then groups.
    pub fn scored(&self) -> Vec<(String, Class)> {
        let structures = self.classes.iter().zip(1..=u16::MAX);
        let structures = structures.map(|(class, value)| (class.name.clone(), Class::Label(value)));
        let groups = self.groups.iter();
        let groups = groups.map(|(name, values)| (name.clone(), Class::Region(values.clone())));
        structures.chain(groups).collect()
    }

    /// What renumbered labelmaps mean.
    pub fn label_set(&self) -> LabelSet {
        let background = Label { name: "background".to_owned(), values: vec![0] };
        let label = |(class, value): (&MappedClass, u16)| Label {
            name: class.name.clone(),
            values: vec![value],
        };
        let labels = self.classes.iter().zip(1..=u16::MAX).map(label);
        LabelSet::new(std::iter::once(background).chain(labels).collect(), self.ignored(), None)
            .expect("names were checked when the map was read")
    }

    /// The label that voxels without a reference have after renumbering, if the map has one.
    pub fn ignored(&self) -> Option<u16> {
        self.ignore.map(|_| self.classes.len() as u16 + 1)
    }

    /// Renumbers a reference.
    pub fn renumber_reference(&self, labels: &mut LabelMap) {
        let mut table = table(self.classes.iter().map(|class| &class.reference[..]));
        if let Some((value, becomes)) = self.ignore.zip(self.ignored()) {
            set(&mut table, value, becomes);
        }
        renumber(labels, &table);
    }

    /// Renumbers a prediction.
    pub fn renumber_prediction(&self, labels: &mut LabelMap) {
        renumber(labels, &table(self.classes.iter().map(|class| &class.prediction[..])));
    }
}

/// What each value becomes; 0 where the table ends.
fn table<'a>(classes: impl Iterator<Item = &'a [u16]>) -> Vec<u16> {
    let mut table = Vec::new();
    for (values, becomes) in classes.zip(1..=u16::MAX) {
        values.iter().for_each(|value| set(&mut table, *value, becomes));
    }
    table
}

fn set(table: &mut Vec<u16>, value: u16, becomes: u16) {
    let index = usize::from(value);
    if table.len() <= index {
        table.resize(index + 1, 0);
    }
    table[index] = becomes;
}

fn renumber(labels: &mut LabelMap, table: &[u16]) {
    let becomes = |value: &u16| table.get(usize::from(*value)).copied().unwrap_or(0);
    labels.data.par_mapv_inplace(|value| becomes(&value));
}

#[cfg(test)]
mod tests;
