//! Between kernels' buffers and Flex's tensors.

use super::memory::Output;
use super::pool::Mapping;
use burn::backend::{Bytes, DType, Shape, TensorMetadata};
use burn::tensor::TensorData;
use burn_flex::{FlexTensor, Layout};
use cubecl_environment::bytes::{
    AccessError, AccessPolicy, AllocationController, AllocationProperty,
};
use std::mem::MaybeUninit;

/// A tensor of its own over `values`.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    finish(Output::Heap(values), shape)
}

/// What a kernel wrote, as a tensor.
pub(super) fn finish(output: Output, shape: impl Into<Shape>) -> FlexTensor {
    let shape = shape.into();
    let layout = Layout::contiguous(shape.clone());
    with_layout(output, &shape, layout)
}

/// The same, of a kernel that wrote a voxel's channels side by side.
pub(super) fn finish_innermost(output: Output, shape: [usize; 5]) -> FlexTensor {
    let layout = Layout::new(shape.into(), innermost_strides(shape), 0);
    with_layout(output, &shape.into(), layout)
}

/// Strides of a tensor whose channels lie innermost.
fn innermost_strides([_, c, z, y, x]: [usize; 5]) -> Vec<isize> {
    [z * y * x * c, 1, y * x * c, x * c, c].map(|stride| stride as isize).to_vec()
}

/// The values of a whole `f32` tensor whose channels lie innermost, if it is one.
pub(super) fn innermost(x: &FlexTensor) -> Option<&[f32]> {
    let layout = x.layout();
    let lies_so = layout.start_offset() == 0
        && layout.strides() == innermost_strides(dims(x))
        && x.bytes().len() == size_of::<f32>() * x.shape().num_elements();
    lies_so.then(|| x.storage::<f32>())
}

/// Sums of each channel of each sample, for [`moments`].
pub(super) fn of_moments(sums: Vec<[f64; 2]>, [batch, channels]: [usize; 2]) -> FlexTensor {
    let shape = Shape::from([batch, channels, 1, 2]);
    let bytes = Bytes::from_elems(sums.into_flattened());
    FlexTensor::new(bytes, Layout::contiguous(shape), DType::F64)
}

/// The sums again.
pub(super) fn moments(tensor: &FlexTensor) -> &[[f64; 2]] {
    let sums = tensor.as_slice::<f64>().expect("moments are contiguous f64");
    sums.as_chunks().0
}

/// What a kernel wrote, in order, for whoever makes a tensor of it.
pub(super) fn data(output: Output, shape: [usize; 5]) -> TensorData {
    finish(output, shape).into_data()
}

fn with_layout(output: Output, shape: &Shape, layout: Layout) -> FlexTensor {
    assert_eq!(output.values().len(), shape.num_elements(), "a tensor is as large as its shape");
    let bytes = match output {
        Output::Heap(values) => Bytes::from_elems(values),
        Output::Mapped(mapping) => {
            let len = size_of_val(mapping.values());
            // SAFETY: the controller's memory is `len` bytes, all initialised.
            unsafe { Bytes::from_controller(Box::new(Controller(mapping)), len) }
        }
    };
    FlexTensor::new(bytes, layout, DType::F32)
}

/// The values of a contiguous `f32` tensor.
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("kernels are given contiguous f32")
}

/// The tensor as the whole of a contiguous buffer: a copy if it is a view of anything larger.
pub(super) fn own(x: FlexTensor) -> FlexTensor {
    if is_whole(&x) { x } else { tensor(values(&x.to_contiguous()).to_vec(), x.shape()) }
}

/// Whether the tensor is the whole of a contiguous buffer.
pub(super) fn is_whole(x: &FlexTensor) -> bool {
    x.is_contiguous() && x.bytes().len() == size_of::<f32>() * x.shape().num_elements()
}

pub(super) fn dims(x: &FlexTensor) -> [usize; 5] {
    x.shape().dims::<5>()
}

/// Lends a mapping to Burn, which gives it back to the pool by dropping it.
struct Controller(Mapping);

impl AllocationController for Controller {
    fn alloc_align(&self) -> usize {
        align_of::<u128>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(
        &mut self,
        _: AccessPolicy,
    ) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(self.0.values_mut());
        // SAFETY: the same bytes; whoever writes promises, by this function's contract, to write
        // initialised ones.
        Ok(unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let bytes: &[u8] = bytemuck::cast_slice(self.0.values());
        // SAFETY: the same bytes, which are initialised.
        Ok(unsafe { &*(std::ptr::from_ref(bytes) as *const [MaybeUninit<u8>]) })
    }
}
