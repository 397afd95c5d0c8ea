//! How wide chunks should be: as wide as all shards of a chunk, and its update, fit into half of the last-level cache of the node
//! that decodes them, and no wider than the transport gains by.

use serde::Serialize;

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
    /// Bytes of all shards of a chunk, and of its update.
    pub stripe_bytes: usize,
    /// Last-level cache of the node that decodes.
    pub cache_bytes: usize,
    /// The width that is best there; none if even the narrowest does not fit.
    pub suggested: Option<usize>,
}

fn stripe_bytes(width: usize, workers: usize, compression: usize) -> usize {
    4 * width * (workers + compression)
}

impl Chunking {
    /// For chunks of `width`, in a job of so many workers; `cache_bytes` as [`last_level_cache`] says, if it is not known.
    pub fn new(width: usize, workers: usize, compression: usize, cache_bytes: Option<usize>) -> Chunking {
        let cache_bytes = cache_bytes.unwrap_or(CACHE_BYTES);
        let best = suggested_width(workers, compression, cache_bytes);
        let suggested = Some(best).filter(|width| fits(*width, workers, compression, cache_bytes));
        Chunking { width, stripe_bytes: stripe_bytes(width, workers, compression), cache_bytes, suggested }
    }

    /// Do shards and update of a chunk fit into half of the cache?
    pub fn fits(&self) -> bool {
        self.stripe_bytes <= self.cache_bytes / 2
    }
}

fn fits(width: usize, workers: usize, compression: usize, cache_bytes: usize) -> bool {
    stripe_bytes(width, workers, compression) <= cache_bytes / 2
}

/// The widest power of two whose stripe fits into half of the cache.
pub fn suggested_width(workers: usize, compression: usize, cache_bytes: usize) -> usize {
    let mut width = WIDEST;
    while width > NARROWEST && !fits(width, workers, compression, cache_bytes) {
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
        assert_eq!(suggested_width(15, 1, 32 << 20), 16_384);
        assert_eq!(suggested_width(45, 10, 32 << 20), 16_384);
        // 512 x 64 KiB would be the whole cache.
        assert_eq!(suggested_width(500, 12, 32 << 20), 8_192);
        assert_eq!(suggested_width(45, 10, 4 << 20), 8_192);
        assert_eq!(suggested_width(10_000, 1, 1 << 20), 1_024);
        for (workers, compression, cache) in [(15, 1, 1 << 20), (64, 20, 8 << 20), (300, 4, 16 << 20)] {
            let width = suggested_width(workers, compression, cache);
            let chunking = Chunking::new(width, workers, compression, Some(cache));
            assert!(chunking.fits() && chunking.suggested == Some(width));
            assert!(width == WIDEST || !Chunking::new(2 * width, workers, compression, Some(cache)).fits());
        }
        // Nothing is suggested that would not fit either.
        assert_eq!(Chunking::new(WIDEST, 300, 4, Some(1 << 20)).suggested, None);
    }

    #[test]
    fn sizes_are_read_as_the_system_writes_them() {
        assert_eq!(cache_size("32768K"), Some(32 << 20));
        assert_eq!(cache_size("8M"), Some(8 << 20));
        assert_eq!(cache_size("a lot"), None);
    }
}
