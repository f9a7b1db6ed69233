//! Memory kept between operators.

/// Gives the memory back that the operators keep.
///
/// The processor's own operators keep the memory of large tensors that are dropped for the ones made
/// next, as fresh memory costs the operating system as much as a third of a forward pass. Used and kept
/// memory together are never more than what was in use at one time. Nobody needs to ask for it or to give
/// it back: where no large tensor is made or dropped for a while, it goes back by itself, within three
/// seconds once none is in use, else within half a minute. This function does so at once, for a program
/// that goes on with something else that needs memory. Other devices have their own ways, and on
/// WebAssembly nothing is kept.
///
/// ```
/// // ... forward passes ...
/// stunet_kernels::release_memory();
/// assert_eq!(stunet_kernels::kept_memory(), 0);
/// ```
pub fn release_memory() {
    #[cfg(feature = "cpu")]
    crate::cpu::release_memory();
}

/// Bytes of memory that are kept and not in use; see [`release_memory`].
pub fn kept_memory() -> u64 {
    #[cfg(feature = "cpu")]
    return crate::cpu::kept_memory();
    #[cfg(not(feature = "cpu"))]
    0
}

/// Weights of convolutions are kept as the processor's operators read them, until this is dropped: see
/// [`keep_weights`].
#[derive(Debug)]
#[must_use = "weights are kept until this is dropped"]
pub struct KeptWeights {
    #[cfg(feature = "cpu")]
    _allowance: crate::cpu::Allowance,
}

/// Keeps the weights of convolutions in the order in which the processor's operators read them, from one
/// forward pass to the next, in at most `most_bytes` of memory.
///
/// Ordering and transforming them takes a twentieth of a forward pass (STU-Net S and B, windows of 128³), and
/// whoever predicts with the same weights many times need not do it every time. Values do not change. Gradients
/// are computed as ever. Weights that change meanwhile are noticed. On other devices nothing happens.
///
/// ```
/// use burn::tensor::{Device, Tensor};
///
/// let device = Device::flex();
/// let (weight, bias) = (Tensor::<5>::ones([16, 16, 3, 3, 3], &device), Tensor::zeros([16], &device));
/// let kept = stunet_kernels::keep_weights(1 << 20);
/// for window in 0..3 {
///     let x = Tensor::<5>::full([1, 16, 8, 8, 8], window as f32, &device);
///     let y = stunet_kernels::conv3d(x, weight.clone(), bias.clone(), [1; 3]);
/// }
/// assert!(stunet_kernels::kept_weight_bytes() <= 1 << 20);
/// drop(kept);
/// assert_eq!(stunet_kernels::kept_weight_bytes(), 0);
/// ```
pub fn keep_weights(most_bytes: u64) -> KeptWeights {
    #[cfg(not(feature = "cpu"))]
    let _ = most_bytes;
    KeptWeights {
        #[cfg(feature = "cpu")]
        _allowance: crate::cpu::Allowance::new(most_bytes),
    }
}

/// Bytes of weights that are kept in another order than their own; see [`keep_weights`].
pub fn kept_weight_bytes() -> u64 {
    #[cfg(feature = "cpu")]
    return crate::cpu::kept_weight_bytes();
    #[cfg(not(feature = "cpu"))]
    0
}

/// Bytes that [`keep_weights`] needs for the weights of a convolution with kernels of 3×3×3 voxels: as they are, and
/// as they are read for one sample of `size` voxels `[z, y, x]`.
///
/// ```
/// // 27 values of each pair of channels, and 144 that stand for them.
/// # #[cfg(feature = "cpu")]
/// assert_eq!(stunet_kernels::kept_weight_cost([32, 64], [64; 3], [1; 3]), 4 * 32 * 64 * (27 + 144));
/// ```
pub fn kept_weight_cost(
    [outputs, inputs]: [usize; 2],
    size: [usize; 3],
    stride: [usize; 3],
) -> u64 {
    #[cfg(feature = "cpu")]
    return crate::cpu::kept_weight_cost([outputs, inputs], size, stride);
    #[cfg(not(feature = "cpu"))]
    {
        let _ = (outputs, inputs, size, stride);
        0
    }
}
