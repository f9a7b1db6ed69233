//! Why a picture cannot be drawn.

use stunet_data::DataError;

/// Why a picture cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PictureError {
    /// The labels, or the truth, lie on another grid than the image.
    #[error("{what} and image lie on different grids: {source}")]
    OtherGrid {
        /// Which of them.
        what: &'static str,
        /// In what they differ.
        source: DataError,
    },
    /// The image does not have the channel.
    #[error("channel: expected 0 to {}, found {found}", count - 1)]
    NoSuchChannel {
        /// Channels of the image.
        count: usize,
        /// The one that was asked for.
        found: usize,
    },
    /// The PNG cannot be encoded.
    #[error("cannot encode the picture: {0}")]
    Encoding(#[from] png::EncodingError),
}
