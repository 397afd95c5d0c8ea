//! How long a carrier may be silent before what it owes is late: as long as is set, or several times as long as carriers usually are.
//!
//! What is usual depends on the link: one chunk goes to everybody else at once, and who waits for it shares the carrier's link, and
//! the daemon's, with all others. It is taken from the carriers themselves, but as their median: fewer than half of them lie.

use std::time::Duration;

/// A carrier may be silent so many times as long as is usual.
const TIMES: u32 = 4;

/// What is known of the silences of carriers.
pub(super) struct Lateness {
    least: Duration,
    first: Duration,
    most: Duration,
    carriers: Vec<Silence>,
    sorted: Vec<Duration>,
}

#[derive(Clone, Copy)]
struct Silence {
    /// The longest while it brought a chunk, of the last few; `None` before it brought one.
    usual: Option<Duration>,
    /// The longest since its last whole chunk.
    now: Duration,
}

impl Lateness {
    /// For so many carriers; the limit is from `least` to `most`, and `first` while most have brought nothing yet.
    pub(super) fn new(carriers: usize, least: Duration, first: Duration, most: Duration) -> Lateness {
        let silence = Silence { usual: None, now: Duration::ZERO };
        Lateness { least, first, most, carriers: vec![silence; carriers], sorted: Vec::with_capacity(carriers) }
    }

    /// `carrier` has brought something after it was silent for so long.
    pub(super) fn heard(&mut self, carrier: u32, silent: Duration) {
        let now = &mut self.carriers[carrier as usize].now;
        *now = silent.max(*now);
    }

    /// `carrier` has brought a whole chunk.
    pub(super) fn brought(&mut self, carrier: u32) {
        let Silence { usual, now } = &mut self.carriers[carrier as usize];
        let faded = usual.map_or(Duration::ZERO, |usual| usual / 8 * 7);
        *usual = Some(faded.max(std::mem::take(now)));
    }

    /// How long one may be silent.
    pub(super) fn limit(&mut self, me: u32) -> Duration {
        self.sorted.clear();
        let others = self.carriers.iter().enumerate().filter(|(at, _)| *at != me as usize);
        self.sorted.extend(others.map(|(_, silence)| silence.usual.unwrap_or(self.first / TIMES)));
        let middle = self.sorted.len() / 2;
        let (_, median, _) = self.sorted.select_nth_unstable(middle);
        (TIMES * *median).clamp(self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn bring(lateness: &mut Lateness, carriers: std::ops::Range<u32>, silent: Duration) {
        for carrier in carriers {
            lateness.heard(carrier, silent);
            lateness.brought(carrier);
        }
    }

    #[test]
    fn a_carrier_may_be_silent_for_longer_where_most_are() {
        let mut lateness = Lateness::new(6, MS(100), MS(200), MS(4000));
        assert_eq!(lateness.limit(5), MS(200), "nothing is known");
        bring(&mut lateness, 0..5, MS(2));
        assert_eq!(lateness.limit(5), MS(100));
        bring(&mut lateness, 0..5, MS(300));
        assert_eq!(lateness.limit(5), MS(1200));
        bring(&mut lateness, 0..5, MS(3000));
        assert_eq!(lateness.limit(5), MS(4000));
    }

    #[test]
    fn few_carriers_that_are_silent_do_not_make_it_usual() {
        let mut lateness = Lateness::new(6, MS(100), MS(200), MS(4000));
        bring(&mut lateness, 0..5, MS(30));
        bring(&mut lateness, 0..2, MS(3000));
        assert_eq!(lateness.limit(5), MS(120));
    }

    #[test]
    fn what_was_usual_is_forgotten() {
        let mut lateness = Lateness::new(6, MS(100), MS(200), MS(4000));
        bring(&mut lateness, 0..5, MS(500));
        for _ in 0..40 {
            bring(&mut lateness, 0..5, MS(1));
        }
        assert_eq!(lateness.limit(5), MS(100));
    }
}
