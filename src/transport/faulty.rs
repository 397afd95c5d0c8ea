//! Wraps the receiving half of any connection and breaks things on the way, from a seed: frames are lost, late, doubled,
//! overtaken, and have bits flipped.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::{Disconnect, Inbound, Landing};
use crate::wire::{Header, Kind, Violation};

/// How often each fault happens, as a chance per frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// The frame is lost.
    pub drop: f64,
    /// The frame comes up to `delay_max` later; others overtake it.
    pub delay: f64,
    /// The longest delay.
    pub delay_max: Duration,
    /// The frame comes twice.
    pub duplicate: f64,
    /// The frame comes after the next one.
    pub reorder: f64,
    /// One bit of the payload (of the checksum, where there is no payload) is flipped.
    pub corrupt: f64,
    /// Only frames that carry gradient data are touched.
    pub data_only: bool,
}

impl Faults {
    /// A connection without faults.
    pub const NONE: Faults = Faults {
        drop: 0.0,
        delay: 0.0,
        delay_max: Duration::ZERO,
        duplicate: 0.0,
        reorder: 0.0,
        corrupt: 0.0,
        data_only: false,
    };
}

/// How often each fault did happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames lost.
    pub dropped: u64,
    /// Frames delayed.
    pub delayed: u64,
    /// Frames doubled.
    pub duplicated: u64,
    /// Frames overtaken.
    pub reordered: u64,
    /// Frames with a flipped bit.
    pub corrupted: u64,
}

struct Held {
    due: Instant,
    order: u64,
    header: Header,
    payload: Vec<u8>,
}

/// A receiving half with faults.
pub struct Faulty {
    inner: Box<dyn Inbound>,
    faults: Faults,
    random: ChaCha8Rng,
    held: Vec<Held>,
    next_order: u64,
    over: Option<Disconnect>,
    payload_max: usize,
    /// The payload that is landing, as far as it has come.
    landing: Vec<u8>,
    counts: Counts,
}

struct Buffer {
    bytes: Vec<u8>,
    max: usize,
}

impl Landing for Buffer {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        let found = header.payload_bytes;
        if found as usize > self.max {
            return Err(Violation::Length { found, expected: self.max as u32 });
        }
        self.bytes.resize(found as usize, 0);
        Ok(Some(&mut self.bytes))
    }
}

impl Faulty {
    /// Wraps `inner`; payloads longer than `payload_max` bytes end the connection.
    pub fn new(inner: Box<dyn Inbound>, faults: Faults, seed: u64, payload_max: usize) -> Faulty {
        let random = ChaCha8Rng::seed_from_u64(seed);
        let (held, counts) = (Vec::new(), Counts::default());
        Faulty { inner, faults, random, held, next_order: 0, over: None, payload_max, landing: Vec::new(), counts }
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn happens(&mut self, chance: f64) -> bool {
        (self.random.next_u64() >> 11) as f64 * 2f64.powi(-53) < chance
    }

    fn hold(&mut self, due: Instant, order: u64, header: Header, payload: Vec<u8>) {
        self.held.push(Held { due, order, header, payload });
    }

    fn take_in(&mut self, header: Header, mut payload: Vec<u8>, now: Instant) {
        // Two apart, so that an overtaken frame fits behind its successor.
        self.next_order += 2;
        let (mut due, mut order) = (now, self.next_order);
        if self.faults.data_only && !matches!(header.kind, Kind::Shard | Kind::Update) {
            // What must not overtake data stays behind the frames that are held.
            due = self.held.iter().map(|held| held.due).max().unwrap_or(now).max(now);
            return self.hold(due, order + 1, header, payload);
        }
        let mut header = header;
        if self.happens(self.faults.drop) {
            self.counts.dropped += 1;
            return;
        }
        if self.happens(self.faults.corrupt) {
            self.counts.corrupted += 1;
            if payload.is_empty() {
                header.checksum ^= 1 << (self.random.next_u32() % 32);
            } else {
                let bit = self.random.next_u64() as usize % (payload.len() * 8);
                payload[bit / 8] ^= 1 << (bit % 8);
            }
        }
        if self.happens(self.faults.delay) {
            self.counts.delayed += 1;
            let share = (self.random.next_u64() >> 11) as f64 * 2f64.powi(-53);
            due += self.faults.delay_max.mul_f64(share);
        }
        if self.happens(self.faults.reorder) {
            self.counts.reordered += 1;
            order += 3;
        }
        if self.happens(self.faults.duplicate) {
            self.counts.duplicated += 1;
            self.hold(due, order, header, payload.clone());
        }
        self.hold(due, order, header, payload);
    }
}

impl Inbound for Faulty {
    fn receive(&mut self, landing: &mut dyn Landing, now: Instant) -> Result<Option<Header>, Disconnect> {
        while self.over.is_none() {
            let mut buffer = Buffer { bytes: std::mem::take(&mut self.landing), max: self.payload_max };
            match self.inner.receive(&mut buffer, now) {
                Ok(Some(header)) => {
                    buffer.bytes.truncate(header.payload_bytes as usize);
                    self.take_in(header, buffer.bytes, now);
                }
                Ok(None) => {
                    self.landing = buffer.bytes;
                    break;
                }
                Err(over) => self.over = Some(over),
            }
        }
        let next = (0..self.held.len())
            .filter(|at| self.held[*at].due <= now)
            .min_by_key(|at| (self.held[*at].due, self.held[*at].order));
        let Some(next) = next else {
            return match self.over {
                Some(over) if self.held.is_empty() => Err(over),
                _ => Ok(None),
            };
        };
        let held = &self.held[next];
        if !held.payload.is_empty() {
            let Some(payload) = landing.place(&held.header)? else { return Ok(None) };
            if payload.len() != held.payload.len() {
                let (found, expected) = (held.header.payload_bytes, payload.len() as u32);
                return Err(Violation::Length { found, expected }.into());
            }
            payload.copy_from_slice(&held.payload);
        }
        Ok(Some(self.held.swap_remove(next).header))
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.inner.descriptor()
    }

    fn close(&mut self) {
        self.inner.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one payload, one byte per call.
    struct Dripping(usize);

    const PAYLOAD: [u8; 4] = [1, 2, 3, 4];

    impl Inbound for Dripping {
        fn receive(&mut self, landing: &mut dyn Landing, _now: Instant) -> Result<Option<Header>, Disconnect> {
            let header = Header { payload_bytes: PAYLOAD.len() as u32, ..Header::new(Kind::Shard) };
            let Some(byte) = PAYLOAD.get(self.0) else { return Ok(None) };
            landing.place(&header)?.expect("there is room")[self.0] = *byte;
            self.0 += 1;
            Ok((self.0 == PAYLOAD.len()).then_some(header))
        }

        fn descriptor(&self) -> Option<RawFd> {
            None
        }

        fn close(&mut self) {}
    }

    struct Whole([u8; PAYLOAD.len()]);

    impl Landing for Whole {
        fn place(&mut self, _header: &Header) -> Result<Option<&mut [u8]>, Violation> {
            Ok(Some(&mut self.0))
        }
    }

    #[test]
    fn a_payload_that_comes_in_pieces_is_not_damaged() {
        let mut faulty = Faulty::new(Box::new(Dripping(0)), Faults::NONE, 1, 64);
        let (now, mut landing) = (Instant::now(), Whole([0; PAYLOAD.len()]));
        let frames = (0..8).filter_map(|_| faulty.receive(&mut landing, now).unwrap()).count();
        assert_eq!((frames, landing.0), (1, PAYLOAD));
    }
}
