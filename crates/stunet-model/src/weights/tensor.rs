//! Tensors of a torch file: what the pickle says about them, and how strides are walked.

/// Element type of a torch storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

/// Each dtype: torch's name for it, its storage class, bytes per element.
const TABLE: [(Dtype, &str, &str, usize); 10] = [
    (Dtype::F64, "float64", "Double", 8),
    (Dtype::F32, "float32", "Float", 4),
    (Dtype::F16, "float16", "Half", 2),
    (Dtype::BF16, "bfloat16", "BFloat16", 2),
    (Dtype::I64, "int64", "Long", 8),
    (Dtype::I32, "int32", "Int", 4),
    (Dtype::I16, "int16", "Short", 2),
    (Dtype::I8, "int8", "Char", 1),
    (Dtype::U8, "uint8", "Byte", 1),
    (Dtype::Bool, "bool", "Bool", 1),
];

impl Dtype {
    fn row(self) -> &'static (Dtype, &'static str, &'static str, usize) {
        TABLE.iter().find(|row| row.0 == self).expect("the table has every dtype")
    }

    /// Torch's name, such as `float32`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bytes per element.
    pub fn size(self) -> usize {
        self.row().3
    }

    /// The name of torch's storage class without its `Storage`.
    pub(super) fn storage(self) -> &'static str {
        self.row().2
    }

    pub(super) fn from_torch(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    pub(super) fn from_storage(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    /// Elements in little endian as `f32`: exact for `float32` and everything narrower.
    pub(super) fn to_f32(self, bytes: &[u8], out: &mut Vec<f32>) {
        fn each<const N: usize>(bytes: &[u8], out: &mut Vec<f32>, f: impl Fn([u8; N]) -> f32) {
            out.extend(bytes.as_chunks::<N>().0.iter().map(|&b| f(b)));
        }
        match self {
            Self::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
            Self::F32 => each(bytes, out, f32::from_le_bytes),
            Self::F16 => each(bytes, out, |b| half::f16::from_le_bytes(b).to_f32()),
            Self::BF16 => each(bytes, out, |b| half::bf16::from_le_bytes(b).to_f32()),
            Self::I64 => each(bytes, out, |b| i64::from_le_bytes(b) as f32),
            Self::I32 => each(bytes, out, |b| i32::from_le_bytes(b) as f32),
            Self::I16 => each(bytes, out, |b| i16::from_le_bytes(b).into()),
            Self::I8 => each(bytes, out, |b| i8::from_le_bytes(b).into()),
            Self::U8 | Self::Bool => each(bytes, out, |[b]| b.into()),
        }
    }

    /// Elements in little endian as `f64`: exact for all but integers beyond 53 bits.
    pub(super) fn to_f64(self, bytes: &[u8]) -> Vec<f64> {
        fn each<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            bytes.as_chunks::<N>().0.iter().map(|&b| f(b)).collect()
        }
        match self {
            Self::F64 => each(bytes, f64::from_le_bytes),
            Self::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
            Self::I32 => each(bytes, |b| i32::from_le_bytes(b).into()),
            _ => {
                let mut narrow = Vec::new();
                self.to_f32(bytes, &mut narrow);
                narrow.into_iter().map(f64::from).collect()
            }
        }
    }
}

/// A storage of a torch file, by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageRef {
    /// The storage's key: in a zip the name of its record.
    pub key: String,
    /// Type of its elements; an untyped storage counts bytes.
    pub dtype: Dtype,
    /// Elements.
    pub numel: usize,
    /// First element, where a legacy file declares the storage as a view of another.
    pub start: usize,
}

/// A tensor of a torch file: a strided view of a storage, not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorRef {
    /// The storage that holds the elements; several tensors may share it.
    pub storage: std::sync::Arc<StorageRef>,
    /// First element within the storage.
    pub offset: usize,
    /// Length along every axis.
    pub shape: Vec<usize>,
    /// Step along every axis, in elements.
    pub stride: Vec<usize>,
}

impl TensorRef {
    /// Number of elements; none if that overflows.
    pub fn numel(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, &l| n.checked_mul(l))
    }

    /// True when the elements lie row-major without gaps.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = Some(1usize);
        self.shape.iter().zip(&self.stride).rev().all(|(&length, &stride)| {
            let fits = length == 1 || Some(stride) == expected;
            expected = expected.and_then(|e| e.checked_mul(length));
            fits
        })
    }

    /// One past the last element within the storage; none if that overflows.
    pub(super) fn end(&self) -> Option<usize> {
        if self.shape.contains(&0) {
            return Some(self.offset);
        }
        let axes = self.shape.iter().zip(&self.stride);
        let last = axes
            .map(|(&length, &stride)| (length - 1).checked_mul(stride))
            .try_fold(self.offset, |at, step| at.checked_add(step?));
        last?.checked_add(1)
    }

    /// Calls `visit` with every element's position relative to the offset, row-major.
    pub(super) fn walk(&self, mut visit: impl FnMut(usize)) {
        let count = self.numel().unwrap_or(0);
        let mut index = vec![0usize; self.shape.len()];
        let mut at = 0;
        for _ in 0..count {
            visit(at);
            for axis in (0..index.len()).rev() {
                // A stride is never taken beyond the last index: there it may be any number.
                if index[axis] + 1 < self.shape[axis] {
                    index[axis] += 1;
                    at += self.stride[axis];
                    break;
                }
                at -= index[axis] * self.stride[axis];
                index[axis] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing ever steps along such an axis; a step beyond its end would overflow.
    #[test]
    fn the_stride_of_an_axis_of_length_1_may_be_any_number() {
        let storage = StorageRef { key: "0".to_owned(), dtype: Dtype::F32, numel: 6, start: 0 };
        let tensor = TensorRef {
            storage: std::sync::Arc::new(storage),
            offset: 0,
            shape: vec![2, 1, 3],
            stride: vec![1, usize::MAX, 2],
        };
        let mut seen = Vec::new();
        tensor.walk(|at| seen.push(at));
        assert_eq!(seen, [0, 2, 4, 1, 3, 5]);
        assert_eq!(tensor.end(), Some(6));
    }
}
