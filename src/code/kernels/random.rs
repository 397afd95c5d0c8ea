//! Random words for the secret vectors: AES in counter mode, reduced to four rounds with round keys of their own.
//!
//! What is asked of it is that nobody who does not know the key can say how two words differ, not that the words could be
//! published: nobody ever sees them, only whether a shard passed. Four rounds give that with a margin (no difference of two
//! counters leads to a given difference of blocks more often than about once in 2^110), at several times the speed of ten.

/// Rounds.
const ROUNDS: usize = 4;

/// The key of one draw: as many independent blocks as rounds, and one before the first.
#[derive(Clone, Copy)]
pub(in crate::code) struct Key([[u8; 16]; ROUNDS + 1]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// The key that a seed stands for.
    pub fn new(seed: &[u8; 32]) -> Key {
        let mut bytes = [0; 16 * (ROUNDS + 1)];
        let mut reader = blake3::Hasher::new_keyed(seed).finalize_xof();
        reader.fill(&mut bytes);
        let mut blocks = [[0; 16]; ROUNDS + 1];
        blocks.iter_mut().zip(bytes.as_chunks::<16>().0).for_each(|(block, bytes)| *block = *bytes);
        Key(blocks)
    }
}

impl Key {
    /// 64 secret numbers in ±[1, 2), of a stream that no vector has.
    pub fn numbers(&self, stream: u32) -> [f64; 64] {
        let mut words = [0; 64];
        portable(self, !stream, 0, &mut words);
        // Sign and 23 bits of mantissa.
        words.map(|word| f64::from(f32::from_bits(word & 0x807f_ffff | 0x3f80_0000)))
    }
}

/// The counter of a block of four words: its number in the stream of a pair of vectors.
fn counter(pair: u32, block: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&block.to_le_bytes());
    bytes[8..12].copy_from_slice(&pair.to_le_bytes());
    bytes
}

/// How this processor makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// By a library, which uses what it finds.
    Portable,
    /// Four blocks in one register.
    #[cfg(target_arch = "x86_64")]
    Vaes,
    /// One block in each of several registers.
    #[cfg(target_arch = "x86_64")]
    AesNi,
}

impl Source {
    /// Every source that this processor has, the fastest last.
    pub fn all() -> Vec<Source> {
        #[allow(unused_mut)]
        let mut all = vec![Source::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("aes") {
                all.push(Source::AesNi);
            }
            if std::arch::is_x86_feature_detected!("vaes") && std::arch::is_x86_feature_detected!("avx512f") {
                all.push(Source::Vaes);
            }
        }
        all
    }

    /// Fills `words` with the words `4 * first ..` of the stream of `pair`. Words are numbers: their bytes are in the machine's
    /// order.
    ///
    /// # Panics
    /// If the length is not a multiple of 16.
    pub fn fill(self, key: &Key, pair: u32, first: u64, words: &mut [u32]) {
        assert!(words.len().is_multiple_of(16), "{} words are no whole vectors", words.len());
        match self {
            Source::Portable => portable(key, pair, first, words),
            // SAFETY: `all` found the instructions, and there is no other way to this variant.
            #[cfg(target_arch = "x86_64")]
            Source::Vaes => unsafe { x86::vaes(key, pair, first, words) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Source::AesNi => unsafe { x86::aes_ni(key, pair, first, words) },
        }
    }
}

fn portable(key: &Key, pair: u32, first: u64, words: &mut [u32]) {
    for (at, four) in words.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let mut block = counter(pair, first + at as u64);
        block.iter_mut().zip(&key.0[0]).for_each(|(byte, key)| *byte ^= key);
        let mut block = aes::Block::from(block);
        for round in &key.0[1..] {
            aes::hazmat::cipher_round(&mut block, &aes::Block::from(*round));
        }
        let block: [u8; 16] = block.into();
        four.iter_mut().zip(block.as_chunks::<4>().0).for_each(|(word, bytes)| *word = u32::from_le_bytes(*bytes));
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Key, ROUNDS, counter};

    /// Registers of blocks that are encrypted side by side, so that the rounds of one do not wait for each other.
    const SIDE_BY_SIDE: usize = 4;

    #[target_feature(enable = "avx512f,vaes")]
    pub unsafe fn vaes(key: &Key, pair: u32, first: u64, words: &mut [u32]) {
        // SAFETY: key blocks are 16 bytes, a chunk has 16 words for each register.
        unsafe {
            let keys: [__m512i; ROUNDS + 1] =
                std::array::from_fn(|at| _mm512_broadcast_i32x4(_mm_loadu_si128(key.0[at].as_ptr().cast())));
            let start = _mm512_broadcast_i32x4(_mm_loadu_si128(counter(pair, first).as_ptr().cast()));
            // No carry into the upper half: a stream has far fewer than 2^64 blocks.
            let mut counters = _mm512_add_epi64(start, _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0));
            let step = _mm512_set_epi64(0, 4, 0, 4, 0, 4, 0, 4);
            let mut parts = words.chunks_exact_mut(16 * SIDE_BY_SIDE);
            for part in &mut parts {
                let mut blocks = [counters; SIDE_BY_SIDE];
                for block in &mut blocks {
                    *block = _mm512_xor_si512(counters, keys[0]);
                    counters = _mm512_add_epi64(counters, step);
                }
                for key in &keys[1..] {
                    for block in &mut blocks {
                        *block = _mm512_aesenc_epi128(*block, *key);
                    }
                }
                for (at, block) in blocks.into_iter().enumerate() {
                    _mm512_storeu_si512(part.as_mut_ptr().add(16 * at).cast(), block);
                }
            }
            for part in parts.into_remainder().chunks_exact_mut(16) {
                let mut block = _mm512_xor_si512(counters, keys[0]);
                counters = _mm512_add_epi64(counters, step);
                for key in &keys[1..] {
                    block = _mm512_aesenc_epi128(block, *key);
                }
                _mm512_storeu_si512(part.as_mut_ptr().cast(), block);
            }
        }
    }

    #[target_feature(enable = "aes,sse2")]
    pub unsafe fn aes_ni(key: &Key, pair: u32, first: u64, words: &mut [u32]) {
        // SAFETY: key blocks are 16 bytes, a chunk has 4 words for each register.
        unsafe {
            let keys: [__m128i; ROUNDS + 1] = std::array::from_fn(|at| _mm_loadu_si128(key.0[at].as_ptr().cast()));
            let mut counters = _mm_loadu_si128(counter(pair, first).as_ptr().cast());
            let step = _mm_set_epi64x(0, 1);
            for part in words.chunks_exact_mut(4 * SIDE_BY_SIDE) {
                let mut blocks = [counters; SIDE_BY_SIDE];
                for block in &mut blocks {
                    *block = _mm_xor_si128(counters, keys[0]);
                    counters = _mm_add_epi64(counters, step);
                }
                for key in &keys[1..] {
                    for block in &mut blocks {
                        *block = _mm_aesenc_si128(*block, *key);
                    }
                }
                for (at, block) in blocks.into_iter().enumerate() {
                    _mm_storeu_si128(part.as_mut_ptr().add(4 * at).cast(), block);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_makes_the_same_words() {
        let key = Key::new(&[5; 32]);
        for (pair, first, count) in [(0, 0, 512), (3, 7, 16), (1, u64::from(u32::MAX) - 1, 80), (0, 128, 0)] {
            let words = |source: Source| {
                let mut words = vec![0; count];
                source.fill(&key, pair, first, &mut words);
                words
            };
            Source::all()
                .into_iter()
                .for_each(|source| assert_eq!(words(source), words(Source::Portable), "{source:?}"));
        }
    }

    #[test]
    fn streams_go_on_where_they_stopped_and_differ_by_key_and_pair() {
        let words = |seed: u8, pair: u32, first: u64, count: usize| {
            let mut words = vec![0; count];
            Source::Portable.fill(&Key::new(&[seed; 32]), pair, first, &mut words);
            words
        };
        assert_eq!(words(1, 0, 0, 64)[16..], words(1, 0, 4, 48));
        let all = [words(1, 0, 0, 16), words(2, 0, 0, 16), words(1, 1, 0, 16), words(1, 0, 4, 16)].concat();
        let distinct: std::collections::BTreeSet<u32> = all.iter().copied().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
