//! Values in memory of their own.

use burn::tensor::Tensor;

/// The same values in memory that no other tensor refers to, so that
/// [`into_data`](Tensor::into_data) gives it away instead of copying it.
///
/// Where the library has operators of its own, they copy with all threads, to memory that was used
/// before; elsewhere the tensor is returned as it is, and what takes its data copies.
///
/// # Shapes
/// `[N, C, Z, Y, X]` in and out.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// let x = Tensor::<5>::ones([1, 2, 3, 4, 5], &Device::flex());
/// let mut data = stunet_kernels::copied(x.clone()).into_data();
/// data.as_mut_slice::<f32>().unwrap().fill(7.0);
/// assert_eq!(x.sum().into_scalar::<f32>(), 120.0);
/// ```
pub fn copied(x: Tensor<5>) -> Tensor<5> {
    #[cfg(feature = "_own")]
    if crate::own::takes(&x).is_some() && !x.dims().contains(&0) {
        use crate::operators::Operators;
        use burn::backend::Dispatch;
        return Tensor::from_dispatch(Dispatch::stunet_upsample(x.into_dispatch(), [1; 3]));
    }
    x
}
