//! A set of row indices of one group: who is present, who agrees, who lied.

use std::fmt;

/// The most rows (workers) one group can have: a [`Rows`] is one machine word.
pub const ROWS_MAX: usize = 64;

/// A set of rows `0..64` of one group's received word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Rows(u64);

impl Rows {
    /// No row.
    pub const EMPTY: Rows = Rows(0);

    /// The rows `0..count`.
    ///
    /// # Panics
    /// If `count > 64`.
    pub fn first(count: usize) -> Rows {
        assert!(count <= ROWS_MAX, "a group has at most {ROWS_MAX} rows, not {count}");
        if count == 0 { Rows(0) } else { Rows(u64::MAX >> (ROWS_MAX - count)) }
    }

    /// The set with exactly these bits; bit `j` stands for row `j`.
    pub fn from_bits(bits: u64) -> Rows {
        Rows(bits)
    }

    /// One bit per row; bit `j` stands for row `j`.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Is `row` in the set? Rows of 64 and more never are.
    pub fn contains(self, row: usize) -> bool {
        row < ROWS_MAX && self.0 >> row & 1 == 1
    }

    /// Adds `row`.
    ///
    /// # Panics
    /// If `row >= 64`.
    pub fn insert(&mut self, row: usize) {
        assert!(row < ROWS_MAX, "row {row} is not in 0..{ROWS_MAX}");
        self.0 |= 1 << row;
    }

    /// Removes `row`, if it is there.
    pub fn remove(&mut self, row: usize) {
        if row < ROWS_MAX {
            self.0 &= !(1 << row);
        }
    }

    /// How many rows are in the set.
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Has the set no row?
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The rows of `self` that are not in `other`.
    pub fn without(self, other: Rows) -> Rows {
        Rows(self.0 & !other.0)
    }

    /// The rows in either set.
    pub fn union(self, other: Rows) -> Rows {
        Rows(self.0 | other.0)
    }

    /// The rows in both sets.
    pub fn intersection(self, other: Rows) -> Rows {
        Rows(self.0 & other.0)
    }

    /// Is every row of `self` in `other`?
    pub fn is_subset(self, other: Rows) -> bool {
        self.0 & !other.0 == 0
    }

    /// The rows in rising order.
    pub fn iter(self) -> impl Iterator<Item = usize> + Clone {
        let mut bits = self.0;
        std::iter::from_fn(move || {
            if bits == 0 {
                return None;
            }
            let row = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            Some(row)
        })
    }
}

impl FromIterator<usize> for Rows {
    fn from_iter<I: IntoIterator<Item = usize>>(rows: I) -> Rows {
        let mut set = Rows::EMPTY;
        rows.into_iter().for_each(|row| set.insert(row));
        set
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_holds_exactly_the_rows_below_count() {
        for count in 0..=ROWS_MAX {
            assert_eq!(Rows::first(count).iter().collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn rows_behave_as_a_set() {
        let mut rows: Rows = [3, 63, 0].into_iter().collect();
        assert_eq!(rows.count(), 3);
        assert!(rows.contains(63) && !rows.contains(1) && !rows.contains(64));
        rows.remove(63);
        assert_eq!(rows, [0, 3].into_iter().collect());
        assert_eq!(rows.without([0].into_iter().collect()), [3].into_iter().collect());
        assert!(Rows::EMPTY.is_subset(rows) && !rows.is_subset(Rows::EMPTY));
        assert_eq!(format!("{rows:?}"), "{0, 3}");
    }
}
