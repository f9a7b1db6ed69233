//! Wide registers where the processor has them.

/// Runs `work` compiled for AVX2 where there is such a processor, as it is elsewhere.
///
/// What `work` calls takes part as far as it is inlined. The same operations are done in the same
/// order, and none are contracted: results are equal bit by bit.
///
/// ```
/// let mut values = vec![1.0f32; 100];
/// stunet_data::simd::wide(|| values.iter_mut().for_each(|v| *v *= 2.0));
/// assert_eq!(values, [2.0; 100]);
/// ```
#[inline(always)]
pub fn wide<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return pulp::Simd::vectorize(simd, work);
    }
    work()
}
