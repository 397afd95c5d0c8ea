//! How wide chunks should be: as wide as all shards of a chunk, and its update, fit into half of the last-level cache of the node
//! that decodes them, and no wider than the transport gains by.

use serde::Serialize;

use crate::code::Precision;

/// No wider: 64 KiB per shard are enough for the wire and for the kernels.
const WIDEST: usize = 16_384;
/// No narrower: headers, messages and the small solve of a chunk would cost more than its numbers.
const NARROWEST: usize = 1_024;
/// What is assumed of a node of which nothing is known.
const CACHE_BYTES: usize = 32 << 20;

/// What chunks cost and where they fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Chunking {
    /// Numbers in a shard of a whole chunk.
    pub width: usize,
    /// Bytes of all shards of a chunk, as they come and as f32, and of its update.
    pub stripe_bytes: usize,
    /// Last-level cache of the node that decodes.
    pub cache_bytes: usize,
    /// The width that is best there; none if even the narrowest does not fit.
    pub suggested: Option<usize>,
}

fn stripe_bytes(width: usize, workers: usize, compression: usize, precision: Precision) -> usize {
    // Shards of 16 bits are there twice: in their slots and widened.
    let widened = if precision == Precision::F32 { 0 } else { 4 * width };
    workers * (precision.shard_bytes(width) + widened) + 4 * width * compression
}

impl Chunking {
    /// For chunks of `width`, in a job of so many workers; `cache_bytes` as [`last_level_cache`] says, if it is not known.
    pub fn new(
        width: usize,
        workers: usize,
        compression: usize,
        precision: Precision,
        cache_bytes: Option<usize>,
    ) -> Chunking {
        let cache_bytes = cache_bytes.unwrap_or(CACHE_BYTES);
        let best = suggested_width(workers, compression, precision, cache_bytes);
        let suggested = Some(best).filter(|width| fits(*width, workers, compression, precision, cache_bytes));
        let stripe_bytes = stripe_bytes(width, workers, compression, precision);
        Chunking { width, stripe_bytes, cache_bytes, suggested }
    }

    /// Do shards and update of a chunk fit into half of the cache?
    pub fn fits(&self) -> bool {
        self.stripe_bytes <= self.cache_bytes / 2
    }
}

fn fits(width: usize, workers: usize, compression: usize, precision: Precision, cache_bytes: usize) -> bool {
    stripe_bytes(width, workers, compression, precision) <= cache_bytes / 2
}

/// The widest power of two whose stripe fits into half of the cache.
pub fn suggested_width(workers: usize, compression: usize, precision: Precision, cache_bytes: usize) -> usize {
    let mut width = WIDEST;
    while width > NARROWEST && !fits(width, workers, compression, precision, cache_bytes) {
        width /= 2;
    }
    width
}

/// The last-level cache of this machine's first core, where the system tells.
pub fn last_level_cache() -> Option<usize> {
    let size = |index: usize| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        cache_size(std::fs::read_to_string(path).ok()?.trim())
    };
    (0..8).filter_map(size).max()
}

fn cache_size(text: &str) -> Option<usize> {
    let (digits, unit) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => (text.strip_suffix('M')?, 1 << 20),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_as_wide_as_half_of_the_cache_allows_within_bounds() {
        let precision = Precision::F32;
        assert_eq!(suggested_width(15, 1, precision, 32 << 20), 16_384);
        assert_eq!(suggested_width(45, 10, precision, 32 << 20), 16_384);
        // 512 x 64 KiB would be the whole cache.
        assert_eq!(suggested_width(500, 12, precision, 32 << 20), 8_192);
        assert_eq!(suggested_width(45, 10, precision, 4 << 20), 8_192);
        assert_eq!(suggested_width(10_000, 1, precision, 1 << 20), 1_024);
        for (workers, compression, cache) in [(15, 1, 1 << 20), (64, 20, 8 << 20), (300, 4, 16 << 20)] {
            let width = suggested_width(workers, compression, precision, cache);
            let chunking = Chunking::new(width, workers, compression, precision, Some(cache));
            assert!(chunking.fits() && chunking.suggested == Some(width));
            assert!(width == WIDEST || !Chunking::new(2 * width, workers, compression, precision, Some(cache)).fits());
        }
        // Six bytes per number: as they come, and as f32.
        assert_eq!(suggested_width(300, 4, Precision::F32, 32 << 20), 8_192);
        assert_eq!(suggested_width(300, 4, Precision::Bf16, 32 << 20), 8_192);
        assert_eq!(suggested_width(400, 4, Precision::Bf16, 32 << 20), 4_096);
        // Nothing is suggested that would not fit either.
        assert_eq!(Chunking::new(WIDEST, 300, 4, precision, Some(1 << 20)).suggested, None);
    }

    #[test]
    fn sizes_are_read_as_the_system_writes_them() {
        assert_eq!(cache_size("32768K"), Some(32 << 20));
        assert_eq!(cache_size("8M"), Some(8 << 20));
        assert_eq!(cache_size("a lot"), None);
    }
}
