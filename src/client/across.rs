//! What comes over a link from another worker: it lands where the daemon has announced it, or nowhere.

use std::time::Instant;

use super::landing::Place;
use crate::pipeline::{Bug, planted};
use crate::transport::Landing;
use crate::wire::{Header, Kind, Violation};

/// What is known of a chunk that somebody else may bring.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Note {
    /// Nothing was announced, or it is here.
    None,
    /// Its carrier brings it.
    Awaited { carrier: u32, hash: [u8; 32], since: Instant },
    /// The daemon brings it.
    Fetched,
}

/// What is done with a frame from a link.
pub(super) enum Verdict {
    /// Its announcement, or room for its round, is still to come.
    Wait,
    /// It is here already.
    Surplus,
    /// It is awaited from this very peer.
    Awaited { since: Instant },
}

/// Has what comes over a link land.
pub(super) struct Across<'a, 'b> {
    pub(super) place: Place<'b>,
    pub(super) notes: &'a [Note],
    pub(super) scrap: &'a mut [u8],
    pub(super) from: u32,
    pub(super) surplus: u32,
    /// Something came that has to wait.
    pub(super) waits: bool,
    /// Since when is waited for what comes.
    pub(super) since: Option<Instant>,
    /// A place was asked for, and again, with more of the payload there.
    pub(super) asked: bool,
    pub(super) moved: bool,
}

impl Landing for Across<'_, '_> {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        self.moved |= std::mem::replace(&mut self.asked, true);
        match judge(&mut self.place, self.notes, header, self.from, self.surplus)? {
            Verdict::Wait => {
                self.waits = true;
                Ok(None)
            }
            Verdict::Surplus => Ok(Some(&mut self.scrap[..header.payload_bytes as usize])),
            Verdict::Awaited { since } => {
                self.since = Some(since);
                self.place.place(header)
            }
        }
    }
}

/// What is to be done with a frame that `from` sends over its link.
pub(super) fn judge(
    place: &mut Place<'_>,
    notes: &[Note],
    header: &Header,
    from: u32,
    surplus: u32,
) -> Result<Verdict, Violation> {
    if header.kind != Kind::Update {
        return Err(Violation::Kind(header.kind));
    }
    if header.worker != 0 || header.argument != 0 {
        return Err(Violation::Worker(header.worker));
    }
    let known = place.known(header)?;
    let spare =
        || if surplus > 0 || planted(Bug::EndlessSurplus) { Ok(Verdict::Surplus) } else { Err(Violation::Credit) };
    let Some((slot, complete)) = known else {
        return if place.is_past(header.round) { spare() } else { Ok(Verdict::Wait) };
    };
    match notes[slot * place.chunks() + header.chunk as usize] {
        Note::Awaited { carrier, .. } if carrier != from && !planted(Bug::AnyCarrier) => {
            Err(Violation::Worker(carrier))
        }
        Note::Awaited { since, .. } => Ok(Verdict::Awaited { since }),
        Note::Fetched => spare(),
        Note::None if complete => spare(),
        Note::None => Ok(Verdict::Wait),
    }
}
