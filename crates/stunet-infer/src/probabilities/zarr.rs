//! A Zarr array in a zip: chunks of `[C, 1, 8, X]`, zlib, written as they come.
//!
//! # Source
//! Zarr storage specification, version 2, with the `zlib` codec; the zip is Zarr's `ZipStore`.

use super::pieces::{Piece, ROWS};
use super::{Extent, Frame, to_bytes};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use stunet_data::files;
use stunet_model::weights::muted::Muted;
use tempfile::NamedTempFile;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

pub(super) struct ZarrZip {
    extent: Extent,
    archive: NamedTempFile,
    zip: Mutex<ZipWriter<Muted<BufWriter<File>>>>,
}

fn stored() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored)
}

impl ZarrZip {
    pub fn create(target: &Path, extent: Extent) -> Result<Self> {
        let archive = files::unfinished(target)?;
        let zip = Mutex::new(ZipWriter::new(Muted::new(BufWriter::new(archive.reopen()?))));
        Ok(Self { extent, archive, zip })
    }

    /// Compresses a piece, on the caller's thread, and appends it.
    pub fn put(&self, piece: &Piece) -> Result<()> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&to_bytes(self.extent.kind, &piece.values))?;
        let packed = encoder.finish()?;
        let mut zip = self.zip.lock().unwrap_or_else(PoisonError::into_inner);
        zip.start_file(format!("0.{}.{}.0", piece.z, piece.block), stored())?;
        zip.write_all(&packed)
    }

    pub fn finish(self, frame: &Frame, note: Option<&str>) -> Result<NamedTempFile> {
        let Extent { kind, num_classes, shape: [z, y, x] } = self.extent;
        let header = json!({
            "zarr_format": 2,
            "shape": [num_classes, z, y, x],
            "chunks": [num_classes, 1, ROWS, x],
            "dtype": format!("<f{}", kind.bytes_per_value()),
            "compressor": { "id": "zlib", "level": 1 },
            "fill_value": 0.0,
            "order": "C",
            "filters": null,
        });
        let attributes = json!({
            "_ARRAY_DIMENSIONS": ["class", "z", "y", "x"],
            "name": kind.array_name(),
            "transpose_backward": frame.transpose_backward,
            "flipped": frame.flipped,
            "image_shape": frame.shape,
            "first_voxel": frame.lower,
        });
        let mut zip = self.zip.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in [(".zarray", header), (".zattrs", attributes)] {
            zip.start_file(name, stored())?;
            serde_json::to_writer(&mut zip, &value)?;
        }
        if let Some(note) = note {
            zip.set_comment(note)?;
        }
        zip.finish()?.into_inner()?.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        Ok(self.archive)
    }
}
