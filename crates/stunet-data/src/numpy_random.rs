//! NumPy's legacy `RandomState`, bit for bit: nnU-Net's folds and samples depend on it.
//!
//! Only what the reference draws is here. Everything of our own that is random has a ChaCha stream
//! instead.

/// Words of the Mersenne twister's state.
const WORDS: usize = 624;
/// Distance of the word that is mixed in.
const MIDDLE: usize = 397;

/// The Mersenne twister MT19937 with NumPy's legacy distributions.
///
/// The same seed gives the same numbers as `numpy.random.RandomState(seed)` of any version, on a
/// system whose default integer has 64 bits.
///
/// # Source
/// Matsumoto and Nishimura, ACM TOMACS 8 (1998) for the generator; NumPy's `mtrand.pyx` and
/// `distributions.c` for what is made of its words.
///
/// ```
/// use stunet_data::numpy_random::RandomState;
/// // np.random.RandomState(12345).permutation(6)
/// assert_eq!(RandomState::new(12345).permutation(6), [5, 3, 4, 0, 1, 2]);
/// ```
#[derive(Clone)]
pub struct RandomState {
    words: Box<[u32; WORDS]>,
    used: usize,
}

impl std::fmt::Debug for RandomState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RandomState").field("used", &self.used).finish_non_exhaustive()
    }
}

impl RandomState {
    /// A generator with NumPy's seeding by one integer.
    pub fn new(seed: u32) -> Self {
        let mut words = Box::new([0; WORDS]);
        let mut word = seed;
        for (i, slot) in words.iter_mut().enumerate() {
            *slot = word;
            word = 1_812_433_253u32.wrapping_mul(word ^ (word >> 30)).wrapping_add(i as u32 + 1);
        }
        Self { words, used: WORDS }
    }

    /// The numbers 0 to `n - 1` in random order: `RandomState.permutation(n)`.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }

    /// Shuffles in place: `RandomState.shuffle(items)`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.up_to(last as u64) as usize);
        }
    }

    /// Draws `size` of the numbers 0 to `n - 1`: `RandomState.choice(n, size, replace)`.
    ///
    /// # Panics
    /// When `n` is 0 and something is to be drawn, or more is to be drawn than there is without
    /// replacement.
    pub fn choice(&mut self, n: usize, size: usize, replace: bool) -> Vec<usize> {
        if replace {
            assert!(n > 0 || size == 0, "nothing to draw from");
            return (0..size).map(|_| self.below(n)).collect();
        }
        assert!(size <= n, "cannot draw {size} of {n} without replacement");
        let mut order = self.permutation(n);
        order.truncate(size);
        order
    }

    /// One number from 0 to `n - 1`: `RandomState.randint(n)`, and one draw of
    /// [`RandomState::choice`] with replacement.
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "nothing to draw from");
        self.up_to(n as u64 - 1) as usize
    }

    /// Fills `out` with numbers from 0 to `n - 1`: the same stream as [`RandomState::below`], faster.
    ///
    /// # Panics
    /// When `n` is 0 or above 2^32 and something is to be drawn.
    pub fn fill_below(&mut self, n: usize, out: &mut [u32]) {
        if out.is_empty() {
            return;
        }
        assert!(n > 0, "nothing to draw from");
        let max = u32::try_from(n - 1).expect("at most 2^32 numbers to draw from");
        if max == 0 {
            out.fill(0);
            return;
        }
        let mask = u32::MAX >> max.leading_zeros();
        let mut filled = 0;
        while filled < out.len() {
            // Kept or overwritten by the next one: a branch here would be foreseen half the time.
            let value = self.next_u32() & mask;
            out[filled] = value;
            filled += usize::from(value <= max);
        }
    }

    /// A number from 0 to `max`: words are masked to the next power of two and rejected above
    /// `max`; a range of one number takes no word.
    #[inline]
    fn up_to(&mut self, max: u64) -> u64 {
        if max == 0 {
            return 0;
        }
        let mask = u64::MAX >> max.leading_zeros();
        loop {
            let value = match max <= u64::from(u32::MAX) {
                true => u64::from(self.next_u32()),
                false => u64::from(self.next_u32()) << 32 | u64::from(self.next_u32()),
            };
            if value & mask <= max {
                return value & mask;
            }
        }
    }

    #[inline]
    fn next_u32(&mut self) -> u32 {
        if self.used == WORDS {
            self.twist();
        }
        let mut word = self.words[self.used];
        self.used += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn twist(&mut self) {
        let words = &mut self.words;
        // In three stretches, so that no index wraps around: most of the time goes here.
        for i in 0..WORDS - MIDDLE {
            words[i] = words[i + MIDDLE] ^ twisted(words[i], words[i + 1]);
        }
        for i in WORDS - MIDDLE..WORDS - 1 {
            words[i] = words[i + MIDDLE - WORDS] ^ twisted(words[i], words[i + 1]);
        }
        words[WORDS - 1] = words[MIDDLE - 1] ^ twisted(words[WORDS - 1], words[0]);
        self.used = 0;
    }
}

/// One step of the recurrence: the upper bit of one word, the rest of the next.
#[inline]
fn twisted(word: u32, next: u32) -> u32 {
    let joined = (word & 0x8000_0000) | (next & 0x7fff_ffff);
    (joined >> 1) ^ ((joined & 1) * 0x9908_b0df)
}

#[cfg(test)]
mod tests {
    //! Expected values: NumPy 2.4.6.
    use super::*;

    #[test]
    fn words_of_the_generator() {
        let mut random = RandomState::new(0);
        let found: Vec<u32> = (0..3).map(|_| random.next_u32()).collect();
        assert_eq!(found, [2_357_136_044, 2_546_248_239, 3_071_714_933]);
    }

    #[test]
    fn permutations() {
        let check = |seed, n, expected: &[usize]| {
            assert_eq!(RandomState::new(seed).permutation(n), expected);
        };
        check(12345, 6, &[5, 3, 4, 0, 1, 2]);
        check(1234, 13, &[10, 0, 12, 9, 2, 11, 7, 1, 8, 4, 5, 6, 3]);
        check(1234, 1, &[0]);
        check(1234, 0, &[]);
    }

    #[test]
    fn one_stream_for_everything() {
        let mut random = RandomState::new(12350);
        assert_eq!(random.choice(13, 10, false), [11, 4, 10, 3, 0, 7, 5, 8, 9, 12]);
        assert_eq!(random.choice(13, 5, true), [8, 10, 0, 7, 0]);
        assert_eq!(random.choice(1, 3, true), [0, 0, 0]);
        assert_eq!(random.below(1000), 880);
    }

    #[test]
    fn many_draws() {
        let mut random = RandomState::new(1234);
        let drawn = random.choice(100_000, 1_000_000, true);
        assert_eq!(drawn[..6], [92975, 58067, 34086, 60620, 89460, 82584]);
        assert_eq!(drawn[999_997..], [46787, 12490, 98457]);
        assert_eq!(drawn.iter().sum::<usize>(), 50_008_498_944);
        assert_eq!(random.permutation(5), [1, 3, 0, 2, 4]);
    }

    #[test]
    fn filled_as_drawn_one_by_one() {
        for n in [1, 2, 7, 1000, 1 << 32] {
            let (mut a, mut b) = (RandomState::new(3), RandomState::new(3));
            let mut filled = vec![0; 2000];
            a.fill_below(n, &mut filled);
            assert!(filled.iter().all(|v| *v as usize == b.below(n)), "{n}");
            assert_eq!(a.next_u32(), b.next_u32());
        }
    }

    #[test]
    fn ranges_beyond_32_bits() {
        let mut random = RandomState::new(7);
        let n = 1 << 32;
        let drawn = random.choice(2 * n + 5, 4, true);
        assert_eq!(drawn, [5_664_942_582, 1_322_904_761, 372_560_217, 3_731_473_840]);
        assert_eq!(random.choice(n, 3, true), [3_452_032_895, 1_420_943_751, 1_636_129_708]);
        assert_eq!(random.choice(n + 1, 2, true), [283_194_443, 3_906_674_451]);
    }

    #[test]
    fn shuffled_in_place() {
        let mut random = RandomState::new(u32::MAX);
        let mut letters: Vec<char> = ('a'..='h').collect();
        random.shuffle(&mut letters);
        assert_eq!(letters, ['b', 'h', 'g', 'a', 'f', 'e', 'c', 'd']);
        let order = random.permutation(100_000);
        assert_eq!(order[..4], [59098, 19600, 4648, 91129]);
        let product: usize = order.iter().enumerate().map(|(i, v)| i * v).sum();
        assert_eq!(product, 250_239_151_737_796);
    }

    #[test]
    #[should_panic(expected = "without replacement")]
    fn too_many_without_replacement() {
        RandomState::new(0).choice(3, 4, false);
    }
}
