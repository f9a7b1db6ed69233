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
