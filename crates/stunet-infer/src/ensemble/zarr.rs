//! Members in the `.zarr.zip` of `stunet predict`: read side by side, chunk after chunk.

use super::{Vote, add, differs};
use crate::InferError;
use crate::probabilities::Frame;
use flate2::read::ZlibDecoder;
use ndarray::Array3;
use serde_json::Value;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use stunet_data::array_file::Number;
use stunet_data::files;
use stunet_data::labels::LabelSet;
use zip::ZipArchive;

/// Longest description that is read.
const MAX_HEADER: u64 = 1 << 20;

/// One member, open.
struct Member {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
    number: Number,
    layout: Layout,
}

/// Where values of a chunk are in the image.
#[derive(Clone, Debug, PartialEq)]
struct Layout {
    /// `[C, z, y, x]` of the network's frame.
    shape: [usize; 4],
    /// Rows of a chunk.
    rows: usize,
    frame: Frame,
}

pub(super) fn ensemble(members: &[PathBuf], labels: &LabelSet) -> Result<Array3<u16>, InferError> {
    let mut open = members.iter().map(|path| Member::open(path)).collect::<Result<Vec<_>, _>>()?;
    let layout = open[0].layout.clone();
    if let Some(other) = open.iter().find(|member| member.layout != layout) {
        let expected = "members with one shape, crop and order of axes (others can be stored and averaged \
                        as .npz)";
        return Err(differs(&other.path, expected, format!("{:?}", other.layout)));
    }
    let [outputs, depth, height, width] = layout.shape;
    if outputs != labels.num_outputs() {
        let expected = format!("{} outputs, as dataset.json has them", labels.num_outputs());
        return Err(differs(&members[0], expected, outputs.to_string()));
    }
    let (first, step) = layout.frame.strides();
    let mut volume = Array3::zeros(layout.frame.shape);
    let image = volume.as_slice_mut().expect("a new array has its rows one after the other");
    let chunk = outputs * layout.rows * width;
    let (mut sum, mut values) = (vec![0.0; chunk], Vec::new());
    for z in 0..depth {
        for block in 0..height.div_ceil(layout.rows) {
            for (index, member) in open.iter_mut().enumerate() {
                member.chunk(z, block, chunk, &mut values)?;
                add(&mut sum, &values, index == 0);
            }
            sum.iter_mut().for_each(|sum| *sum /= members.len() as f32);
            let mut vote = Vote::new(labels.region_order(), layout.rows * width);
            for (output, probabilities) in sum.chunks_exact(layout.rows * width).enumerate() {
                vote.take(output, 0, probabilities);
            }
            for (place, label) in vote.decided.into_iter().enumerate() {
                let voxel = [z, block * layout.rows + place / width, place % width];
                if voxel[1] < height {
                    let along = |axis: usize| voxel[axis] as isize * step[axis];
                    image[first.wrapping_add_signed(along(0) + along(1) + along(2))] = label;
                }
            }
        }
    }
    Ok(volume)
}

impl Member {
    fn open(path: &Path) -> Result<Self, InferError> {
        let archive = ZipArchive::new(BufReader::new(files::open(path)?));
        let mut archive = archive.map_err(|e| differs(path, "a zip archive", e.to_string()))?;
        let mut json = |name: &str| -> Result<Value, InferError> {
            let missing = |_| differs(path, format!("a Zarr array with {name}"), "none");
            let entry = archive.by_name(name).map_err(missing)?;
            let mut text = Vec::new();
            let read = entry.take(MAX_HEADER).read_to_end(&mut text);
            read.map_err(InferError::io("cannot read probabilities", path))?;
            Ok(files::json_of(&text, path)?)
        };
        let (array, attributes) = (json(".zarray")?, json(".zattrs")?);
        let number =
            array["dtype"].as_str().and_then(Number::of).filter(|number| number.is_float());
        let layout = Layout::of(&array, &attributes);
        match number.zip(layout) {
            Some((number, layout)) => Ok(Self { path: path.to_owned(), archive, number, layout }),
            None => Err(differs(path, "probabilities of stunet predict", array.to_string())),
        }
    }

    /// The values of a chunk.
    fn chunk(
        &mut self,
        z: usize,
        block: usize,
        count: usize,
        into: &mut Vec<f64>,
    ) -> Result<(), InferError> {
        let name = format!("0.{z}.{block}.0");
        let path = &self.path;
        let missing = |_| differs(path, format!("the chunk {name}"), "none");
        let entry = self.archive.by_name(&name).map_err(missing)?;
        let mut bytes = vec![0; count * self.number.bytes()];
        let read = ZlibDecoder::new(entry).read_exact(&mut bytes);
        read.map_err(InferError::io("cannot read probabilities", path))?;
        into.resize(count, 0.0);
        let decoded = self.number.decode(&bytes, into);
        decoded.expect("every number is one in double precision");
        Ok(())
    }
}

impl Layout {
    /// What `.zarray` and `.zattrs` say; none if that is not what `stunet predict` writes.
    fn of(array: &Value, attributes: &Value) -> Option<Self> {
        fn list<T: serde::de::DeserializeOwned, const N: usize>(value: &Value) -> Option<[T; N]> {
            let values: Vec<T> = serde_json::from_value(value.clone()).ok()?;
            values.try_into().ok()
        }
        let shape: [usize; 4] = list(&array["shape"])?;
        let chunks: [usize; 4] = list(&array["chunks"])?;
        let frame = Frame {
            transpose_backward: list(&attributes["transpose_backward"])?,
            flipped: list(&attributes["flipped"])?,
            shape: list(&attributes["image_shape"])?,
            lower: list(&attributes["first_voxel"])?,
        };
        let whole = chunks[0] == shape[0] && chunks[1] == 1 && chunks[3] == shape[3];
        let zlib = array["compressor"]["id"] == "zlib" && array["order"] == "C";
        let mut axes = frame.transpose_backward;
        axes.sort_unstable();
        let most = |shape: &[usize]| shape.iter().try_fold(8usize, |all, n| all.checked_mul(*n));
        let sane = axes == [0, 1, 2] && chunks[2] > 0 && !shape.contains(&0);
        let small = [most(&shape)?, most(&frame.shape)?, most(&chunks)?];
        let fits = (0..3).all(|axis| {
            let length = shape[1 + frame.transpose_backward[axis]];
            frame.lower[axis].checked_add(length).is_some_and(|end| end <= frame.shape[axis])
        });
        let bounded = small.iter().all(|bytes| *bytes < isize::MAX as usize);
        (whole && zlib && sane && bounded && fits).then_some(Self { shape, rows: chunks[2], frame })
    }
}
