//! Memory of rows that are kept for a while, each for itself.

use rayon::prelude::*;

/// Rows of one length, found by number.
pub(crate) struct KeptRows {
    length: usize,
    /// Each a whole number of rows; with the number of its first.
    blocks: Vec<(usize, Vec<f32>)>,
    free: Vec<usize>,
    made: usize,
}

impl KeptRows {
    /// None yet, of `length` values each.
    pub fn new(length: usize) -> Self {
        Self { length, blocks: Vec::new(), free: Vec::new(), made: 0 }
    }

    /// Most bytes held so far.
    pub fn bytes(&self) -> usize {
        self.made * self.length * size_of::<f32>()
    }

    /// So many rows, whatever they hold: those that nobody uses, and new ones in one block of exactly as many as are
    /// missing. The system clears their memory where it is written first.
    pub fn take(&mut self, count: usize) -> Vec<usize> {
        let mut rows = self.free.split_off(self.free.len() - count.min(self.free.len()));
        let missing = count - rows.len();
        if missing > 0 {
            self.blocks.push((self.made, vec![0.0; missing * self.length]));
            rows.extend(self.made..self.made + missing);
            self.made += missing;
        }
        rows
    }

    /// Nobody needs the row any more.
    pub fn give_back(&mut self, row: usize) {
        self.free.push(row);
    }

    /// The values of a row.
    pub fn row(&self, row: usize) -> &[f32] {
        let block = self.blocks.partition_point(|(first, _)| *first <= row) - 1;
        let (first, values) = &self.blocks[block];
        &values[(row - first) * self.length..][..self.length]
    }

    /// The values of rows that differ from each other, to be written.
    pub fn rows_mut(&mut self, rows: &[usize]) -> Vec<&mut [f32]> {
        let length = self.length;
        let blocks = self.blocks.iter_mut().flat_map(|(_, block)| block.chunks_exact_mut(length));
        let mut all: Vec<_> = blocks.map(Some).collect();
        let taken = rows.iter().map(|row| all[*row].take().expect("rows that differ"));
        taken.collect()
    }
}

impl Drop for KeptRows {
    /// By all threads: giving gigabytes back to the system takes a while.
    fn drop(&mut self) {
        std::mem::take(&mut self.blocks).into_par_iter().for_each(drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_used_again_and_made_where_there_are_too_few() {
        let mut rows = KeptRows::new(3);
        let first = rows.take(2);
        for (value, row) in rows.rows_mut(&first).into_iter().enumerate() {
            row.fill(value as f32 + 1.0);
        }
        assert_eq!([rows.row(first[0]), rows.row(first[1])], [[1.0; 3], [2.0; 3]]);
        rows.give_back(first[0]);
        let more = rows.take(4);
        assert_eq!((more[0], more.len(), rows.bytes()), (first[0], 4, 5 * 3 * 4));
        rows.rows_mut(&more[1..]).into_iter().for_each(|row| row.fill(5.0));
        assert_eq!(rows.row(first[1]), [2.0; 3]);
        assert!(more[1..].iter().all(|row| rows.row(*row) == [5.0; 3]));
        assert!(rows.take(0).is_empty());
    }
}
