//! New arrays that several threads write.

use ndarray::{Array, Dimension, ShapeBuilder};

/// Default values, which are zeros that the system clears when they are first touched: by the thread that writes
/// them, where `Array::default` has one thread write all of them first.
pub(crate) fn zeroed<T: Clone + Default, D: Dimension>(
    shape: impl ShapeBuilder<Dim = D>,
) -> Array<T, D> {
    Array::from_elem(shape, T::default())
}
