//! The tensors at both ends of a convolution, as kernels see them.

use super::Shape;
use crate::cpu::kept_weights::{KeptWeight, WeightOrder};
use crate::cpu::memory::{Lines, Output, Target};
use crate::cpu::norm::Normed;
use std::sync::Arc;

/// Channels to read, from one tensor or from several as if they were concatenated.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// The tensors' values, with their channels.
    parts: &'a [(&'a [f32], usize)],
    /// Voxels of a channel.
    voxels: usize,
    /// How often each voxel of the first tensor is read along each axis.
    repeats: [usize; 3],
    /// Whether a voxel's channels lie side by side: of one tensor alone.
    pub innermost: bool,
    /// What is done to values while they are read.
    pub normed: Option<&'a Normed>,
}

impl<'a> Source<'a> {
    /// `channels` channels of `voxels` voxels in each of `batch` samples.
    ///
    /// # Panics
    /// When the parts hold anything else.
    pub(super) fn new(parts: &'a [(&'a [f32], usize)], sizes: [usize; 3]) -> Self {
        Self::repeated(parts, sizes, [1; 3])
    }

    /// [`new`](Self::new), where each voxel of the first part stands for a block of `repeats`.
    ///
    /// # Panics
    /// When the parts hold anything else.
    pub(super) fn repeated(
        parts: &'a [(&'a [f32], usize)],
        [batch, channels, voxels]: [usize; 3],
        repeats: [usize; 3],
    ) -> Self {
        assert_eq!(parts.iter().map(|part| part.1).sum::<usize>(), channels, "channels read");
        for (index, (values, channels)) in parts.iter().enumerate() {
            let repeats: usize = if index == 0 { repeats.iter().product() } else { 1 };
            assert_eq!(values.len() * repeats, batch * channels * voxels, "values read");
        }
        Self { parts, voxels, repeats, innermost: false, normed: None }
    }

    /// How often each voxel of a channel is read along each axis.
    #[inline(always)]
    pub(super) fn repeats(&self, channel: usize) -> [usize; 3] {
        if channel < self.parts[0].1 { self.repeats } else { [1; 3] }
    }

    /// The voxels of one channel of one sample: those that lie in memory.
    #[inline(always)]
    pub(super) fn channel(&self, sample: usize, mut channel: usize) -> &'a [f32] {
        debug_assert!(!self.innermost, "channels are no planes");
        let mut repeats = self.repeats.iter().product::<usize>();
        for &(values, channels) in self.parts {
            if channel < channels {
                let voxels = self.voxels / repeats;
                return &values[(sample * channels + channel) * voxels..][..voxels];
            }
            channel -= channels;
            repeats = 1;
        }
        panic!("a source has fewer channels than are read");
    }

    /// Channels of all tensors.
    #[inline(always)]
    pub(super) fn channels(&self) -> usize {
        self.parts.iter().map(|part| part.1).sum()
    }

    /// Which of all samples' channels a channel is.
    #[inline(always)]
    pub(super) fn index(&self, sample: usize, channel: usize) -> usize {
        sample * self.channels() + channel
    }

    /// The voxels of one sample, and their channels, where these lie innermost.
    #[inline(always)]
    pub(super) fn sample(&self, sample: usize) -> (&'a [f32], usize) {
        let [(values, channels)] = *self.parts else {
            panic!("channels lie innermost in one tensor")
        };
        let len = channels * self.voxels;
        (&values[sample * len..][..len], channels)
    }
}

/// Channels to write, to one tensor or to several as if they were concatenated.
pub(super) struct Sink {
    /// Where the tensors begin, with their channels.
    parts: Vec<(Target, usize)>,
    /// Voxels of a channel.
    pub voxels: usize,
    /// Whether a voxel's channels lie side by side: of one tensor alone.
    pub innermost: bool,
}

impl Sink {
    /// New tensors of `parts` channels, and the sink that writes to them while they live.
    pub(super) fn create(parts: &[usize], batch: usize, voxels: usize) -> (Vec<Output>, Self) {
        let create = |channels: &usize| Output::new(batch * channels * voxels);
        let mut outputs: Vec<_> = parts.iter().map(create).collect();
        let targets = outputs.iter_mut().map(Output::target).zip(parts.iter().copied());
        let sink = Self { parts: targets.collect(), voxels, innermost: false };
        (outputs, sink)
    }

    /// The tensor that holds a channel, and where in it that channel of a sample begins.
    #[inline(always)]
    pub(super) fn channel(&self, sample: usize, mut channel: usize) -> (Target, usize) {
        for &(target, channels) in &self.parts {
            if channel < channels {
                return (target, (sample * channels + channel) * self.voxels);
            }
            channel -= channels;
        }
        panic!("a sink has fewer channels than are written");
    }
}

/// Which way a kernel is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// The convolution itself.
    Forward,
    /// The gradient of its input: the kernel mirrored, its outputs read and its inputs written.
    InputGradient,
}

/// A convolution, or the gradient of its input, without the way in which it is computed.
pub(super) struct Work<'a> {
    pub shape: &'a Shape,
    pub direction: Direction,
    pub source: Source<'a>,
    /// `[Cout, Cin, 3, 3, 3]`.
    pub weight: &'a [f32],
    /// Where those are kept in the order in which they are read.
    pub kept: Option<&'a Arc<KeptWeight>>,
    /// What sums begin with, for each channel written; zero without.
    pub bias: Option<&'a [f32]>,
    pub sink: Sink,
}

impl Work<'_> {
    /// Channels read and written.
    pub(super) fn channels(&self) -> [usize; 2] {
        match self.direction {
            Direction::Forward => [self.shape.inputs, self.shape.outputs],
            Direction::InputGradient => [self.shape.outputs, self.shape.inputs],
        }
    }

    /// The weights of a convolution as `pack` orders them.
    pub(super) fn packed(&self, order: WeightOrder, pack: impl FnOnce() -> Output) -> Arc<Output> {
        match self.kept.filter(|_| self.direction == Direction::Forward) {
            Some(kept) => kept.packed(order, pack),
            None => Arc::new(pack()),
        }
    }

    /// What sums begin with, zero for channels there are not, `len` in all.
    pub(super) fn start(&self, len: usize) -> Lines {
        let mut start = Lines::zeros(len);
        if let Some(bias) = self.bias {
            start.values_mut()[..bias.len()].copy_from_slice(bias);
        }
        start
    }
}
