//! How a gradient is cut into chunks, each a code word of its own.
//!
//! Chunk `k` covers a contiguous run of the gradient, is seen as a matrix of `compression` contiguous rows (the last one
//! zero-padded) and gives every worker a shard of `width` numbers. The paper cuts the whole gradient into `r_c` rows;
//! cutting each chunk instead is the same code on permuted coordinates, and lets receiving, decoding and pushing overlap.

use std::ops::Range;

/// The chunks of a gradient of `dimension` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    dimension: usize,
    compression: usize,
    chunk_width: usize,
}

/// One chunk: a contiguous part of the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Index of its first number in the gradient.
    pub start: usize,
    /// How many numbers of the gradient it covers, at least 1.
    pub len: usize,
    /// Numbers per shard: `ceil(len / compression)`.
    pub width: usize,
}

impl Chunk {
    /// The part of the gradient that the chunk covers.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

impl Layout {
    /// Cuts `dimension` numbers into chunks whose shards have `chunk_width` numbers (the last may have fewer).
    ///
    /// # Panics
    /// If any argument is 0, or `compression * chunk_width` overflows.
    pub fn new(dimension: usize, compression: usize, chunk_width: usize) -> Layout {
        assert!(dimension > 0 && compression > 0 && chunk_width > 0, "a layout has no empty side");
        assert!(compression.checked_mul(chunk_width).is_some(), "a chunk has too many numbers");
        Layout { dimension, compression, chunk_width: chunk_width.min(dimension.div_ceil(compression)) }
    }

    /// Numbers in the gradient, d.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Rows of each chunk's matrix, r_c.
    pub fn compression(&self) -> usize {
        self.compression
    }

    /// Numbers in the longest shard of a chunk.
    pub fn chunk_width(&self) -> usize {
        self.chunk_width
    }

    /// How many chunks the gradient has.
    pub fn chunks(&self) -> usize {
        self.dimension.div_ceil(self.compression * self.chunk_width)
    }

    /// Chunk `index`.
    ///
    /// # Panics
    /// If `index >= chunks()`.
    pub fn chunk(&self, index: usize) -> Chunk {
        assert!(index < self.chunks(), "chunk {index} is not one of {}", self.chunks());
        let full = self.compression * self.chunk_width;
        let start = index * full;
        let len = full.min(self.dimension - start);
        Chunk { start, len, width: len.div_ceil(self.compression) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_cover_the_gradient_once(d in 1usize..5000, compression in 1usize..20, width in 1usize..300) {
            let layout = Layout::new(d, compression, width);
            let mut next = 0;
            for index in 0..layout.chunks() {
                let chunk = layout.chunk(index);
                prop_assert_eq!(chunk.start, next);
                prop_assert!(chunk.len >= 1 && chunk.width <= layout.chunk_width());
                prop_assert!(chunk.width * compression >= chunk.len && (chunk.width - 1) * compression < chunk.len);
                next = chunk.range().end;
            }
            prop_assert_eq!(next, d);
        }
    }
}
