//! What daemon and workers say to each other so that workers can pass the update on: short frames of fixed length, and the
//! handshake of a link between two workers. How it works together is in `docs/relay.md`.

use std::net::{IpAddr, Ipv6Addr};

use super::frame::{Header, Kind, header_bytes};
use super::handshake::{HandshakeError, Nonce, frame, read_frame};
use super::messages::{Reader, Writer};
use super::{CHALLENGE_BYTES, HEADER_BYTES, Violation};

/// The most workers that pass updates on to each other: each has a link with every other.
pub const RELAY_WORKERS_MAX: usize = 128;

/// The longest payload of a short frame.
pub const SHORT_PAYLOAD_MAX: usize = 48;
/// Bytes of the longest short frame with its header.
pub const SHORT_BYTES: usize = HEADER_BYTES + SHORT_PAYLOAD_MAX;

/// Bytes of the daemon's word that updates are relayed.
const RELAY_PAYLOAD: usize = 32;
const LINK_PAYLOAD: usize = 48;
const ANNOUNCE_PAYLOAD: usize = 32;
const CARRY_PAYLOAD: usize = 16;
/// Bytes of a greeting with its header.
pub const GREETING_BYTES: usize = HEADER_BYTES + 64;
/// Bytes of the answer to a greeting with its header.
pub const GREETED_BYTES: usize = HEADER_BYTES + 32;

/// The longest frame that one end of a link waits for during its handshake.
pub const LINK_FRAME_MAX: usize = max(CHALLENGE_BYTES, max(GREETING_BYTES, GREETED_BYTES));

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// The payload that a short frame of this kind has; `None` for all other kinds.
pub fn short_payload(kind: Kind) -> Option<usize> {
    match kind {
        Kind::Relay => Some(RELAY_PAYLOAD),
        Kind::Link => Some(LINK_PAYLOAD),
        Kind::Announce => Some(ANNOUNCE_PAYLOAD),
        Kind::Carry => Some(CARRY_PAYLOAD),
        _ => None,
    }
}

/// A header with a short payload behind it, and its length.
#[derive(Clone, Copy, Debug)]
pub struct Short {
    bytes: [u8; SHORT_BYTES],
    len: u8,
}

impl Short {
    /// The frame of this header and payload.
    ///
    /// # Panics
    /// If the payload is longer than [`SHORT_PAYLOAD_MAX`].
    pub fn new(header: Header, payload: &[u8]) -> Short {
        let mut bytes = [0; SHORT_BYTES];
        let len = HEADER_BYTES + payload.len();
        bytes[..HEADER_BYTES].copy_from_slice(&header_bytes(header, payload));
        bytes[HEADER_BYTES..len].copy_from_slice(payload);
        Short { bytes, len: len as u8 }
    }

    /// The frame's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Another worker, as the daemon names it to one end of a link. The end with the higher index dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOrder {
    /// The other worker.
    pub peer: u32,
    /// The key of this link, which only its two ends and the daemon know.
    pub key: [u8; 32],
    /// Where the other worker listens.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The other worker's session.
    pub session: u64,
}

impl LinkOrder {
    /// The link frame from the daemon of this epoch, for a job.
    pub fn frame(&self, job: u64, epoch: u64) -> Short {
        let mut bytes = [0; LINK_PAYLOAD];
        let mut out = Writer::new(&mut bytes);
        out.put(&self.key);
        out.put(&v6(self.address).octets());
        out.finish();
        let (worker, round, chunk) = (self.peer, self.session, u32::from(self.port));
        Short::new(Header { job, session: epoch, worker, round, chunk, ..Header::new(Kind::Link) }, &bytes)
    }

    /// Reads a link frame.
    pub fn read(header: &Header, payload: &[u8; LINK_PAYLOAD]) -> LinkOrder {
        let mut read = Reader::new(payload);
        let (key, address): ([u8; 32], [u8; 16]) = (read.take(), read.take());
        let (address, port) = (Ipv6Addr::from(address).to_canonical(), header.chunk as u16);
        LinkOrder { peer: header.worker, key, address, port, session: header.round }
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Why a worker has an announced chunk sent by the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Why {
    /// Its carrier was silent for too long.
    Late = 1,
    /// It came, and was not the one that was announced.
    Wrong = 2,
    /// There is no link with its carrier any more: nobody's fault, as far as can be known.
    Gone = 3,
}

/// What a worker says about links and relayed chunks. All in the header, so that the daemon reads no payload for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Other workers reach me here; without an address: where my connection comes from.
    Reach {
        /// The address, if it is another one than that of the connection.
        address: Option<IpAddr>,
        /// The port.
        port: u16,
    },
    /// I have, or have not, a live link with this worker.
    Linked {
        /// The other worker.
        peer: u32,
        /// Its session.
        session: u64,
        /// Is there one?
        up: bool,
    },
    /// This chunk is here, or not needed any more.
    Have {
        /// The round.
        round: u64,
        /// The chunk.
        chunk: u32,
    },
    /// Send me this chunk yourself.
    Fetch {
        /// The round.
        round: u64,
        /// The chunk.
        chunk: u32,
        /// Why.
        why: Why,
    },
    /// I have no room to pass on this chunk, which I was to carry.
    Decline {
        /// The round.
        round: u64,
        /// The chunk.
        chunk: u32,
    },
    /// The digest of the update that I have collected.
    Digest {
        /// The round.
        round: u64,
        /// The digest.
        digest: u64,
    },
}

impl Said {
    /// The header that says it, with job, session and worker still 0.
    pub fn header(self) -> Header {
        match self {
            Said::Reach { address, port } => {
                let bits = address.map_or(0, |address| u128::from(v6(address)));
                let (round, argument) = ((bits >> 64) as u64, bits as u64);
                Header { round, argument, chunk: u32::from(port), ..Header::new(Kind::Reach) }
            }
            Said::Linked { peer, session, up } => {
                Header { round: session, chunk: peer, argument: u64::from(up), ..Header::new(Kind::Linked) }
            }
            Said::Decline { round, chunk } => Header { round, chunk, ..Header::new(Kind::Decline) },
            Said::Have { round, chunk } => Header { round, chunk, ..Header::new(Kind::Have) },
            Said::Fetch { round, chunk, why } => {
                Header { round, chunk, argument: why as u64, ..Header::new(Kind::Fetch) }
            }
            Said::Digest { round, digest } => Header { round, argument: digest, ..Header::new(Kind::Digest) },
        }
    }

    /// What a header says; `None` if nothing of this, or nothing that can be.
    pub fn of(header: &Header) -> Option<Said> {
        let Header { round, chunk, argument, .. } = *header;
        Some(match header.kind {
            Kind::Reach => {
                let bits = u128::from(round) << 64 | u128::from(argument);
                let address = (bits != 0).then(|| Ipv6Addr::from(bits).to_canonical());
                Said::Reach { address, port: u16::try_from(chunk).ok().filter(|port| *port > 0)? }
            }
            Kind::Linked if argument < 2 => Said::Linked { peer: chunk, session: round, up: argument == 1 },
            Kind::Decline => Said::Decline { round, chunk },
            Kind::Have => Said::Have { round, chunk },
            Kind::Fetch => {
                let why = [Why::Late, Why::Wrong, Why::Gone].into_iter().find(|why| *why as u64 == argument)?;
                Said::Fetch { round, chunk, why }
            }
            Kind::Digest => Said::Digest { round, digest: argument },
            _ => return None,
        })
    }
}

/// Both ends of a link, and the key that they share.
#[derive(Clone, Copy, Debug)]
pub struct LinkEnds {
    /// Number of the job.
    pub job: u64,
    /// The daemon's epoch.
    pub epoch: u64,
    /// Who dials.
    pub dials: u32,
    /// Who listens.
    pub listens: u32,
    /// The key from the daemon.
    pub key: [u8; 32],
}

impl LinkEnds {
    fn tag(&self, word: &[u8], challenge: &Nonce, nonce: &Nonce) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [word, challenge, nonce, &self.dials.to_le_bytes(), &self.listens.to_le_bytes()] {
            hasher.update(part);
        }
        hasher.finalize()
    }

    /// The first frame of the end that dials, in answer to the other's challenge.
    pub fn greeting(&self, challenge: &Nonce, nonce: &Nonce) -> [u8; GREETING_BYTES] {
        let mut payload = [0; 64];
        payload[..32].copy_from_slice(nonce);
        payload[32..].copy_from_slice(self.tag(b"link hello", challenge, nonce).as_bytes());
        let header = Header { job: self.job, session: self.epoch, worker: self.dials, ..Header::new(Kind::Greeting) };
        frame(header, &payload)
    }

    /// Checks a greeting; the answer to send, if the peer knows the key.
    ///
    /// # Errors
    /// If it is no greeting for this link.
    pub fn greeted(
        &self,
        greeting: &[u8; GREETING_BYTES],
        challenge: &Nonce,
    ) -> Result<[u8; GREETED_BYTES], HandshakeError> {
        let (header, payload) = read_frame(greeting, Kind::Greeting)?;
        self.check(&header, self.dials)?;
        let (nonce, tag) = payload.split_first_chunk::<32>().expect("the length was checked");
        let tag: [u8; 32] = tag.try_into().expect("the length was checked");
        if self.tag(b"link hello", challenge, nonce) != blake3::Hash::from_bytes(tag) {
            return Err(HandshakeError::BadProof);
        }
        let tag = self.tag(b"link welcome", challenge, nonce);
        let header = Header { job: self.job, session: self.epoch, worker: self.listens, ..Header::new(Kind::Greeted) };
        Ok(frame(header, tag.as_bytes()))
    }

    /// Checks the answer to a greeting.
    ///
    /// # Errors
    /// If the peer does not know the key.
    pub fn check_greeted(
        &self,
        greeted: &[u8; GREETED_BYTES],
        challenge: &Nonce,
        nonce: &Nonce,
    ) -> Result<(), HandshakeError> {
        let (header, payload) = read_frame(greeted, Kind::Greeted)?;
        self.check(&header, self.listens)?;
        let tag: [u8; 32] = payload.try_into().expect("the length was checked");
        let right = self.tag(b"link welcome", challenge, nonce) == blake3::Hash::from_bytes(tag);
        if right { Ok(()) } else { Err(HandshakeError::BadProof) }
    }

    fn check(&self, header: &Header, worker: u32) -> Result<(), Violation> {
        if header.job != self.job {
            return Err(Violation::Job);
        }
        if header.session != self.epoch {
            return Err(Violation::Session);
        }
        if header.worker == worker { Ok(()) } else { Err(Violation::Worker(header.worker)) }
    }
}

/// Who greets: the index that a greeting claims, nothing of it checked.
pub fn greeting_from(greeting: &[u8; GREETING_BYTES]) -> Option<u32> {
    let header = Header::parse(greeting.first_chunk().expect("longer than a header")).ok()?;
    (header.kind == Kind::Greeting).then_some(header.worker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_workers_say_survives_the_wire_and_nonsense_says_nothing() {
        let address = Some("10.1.2.3".parse().unwrap());
        for said in [
            Said::Reach { address: None, port: 7 },
            Said::Reach { address, port: 65535 },
            Said::Reach { address: Some("fe80::1".parse().unwrap()), port: 1 },
            Said::Linked { peer: 3, session: 99, up: true },
            Said::Linked { peer: 3, session: 99, up: false },
            Said::Have { round: 8, chunk: 9 },
            Said::Decline { round: 8, chunk: 9 },
            Said::Fetch { round: 8, chunk: 9, why: Why::Late },
            Said::Fetch { round: 8, chunk: 9, why: Why::Wrong },
            Said::Fetch { round: 8, chunk: 9, why: Why::Gone },
            Said::Digest { round: 8, digest: u64::MAX },
        ] {
            assert_eq!(Said::of(&said.header()), Some(said));
        }
        for header in [
            Header { chunk: 0, ..Header::new(Kind::Reach) },
            Header { chunk: 65536, ..Header::new(Kind::Reach) },
            Header { argument: 2, ..Header::new(Kind::Linked) },
            Header { argument: 0, ..Header::new(Kind::Fetch) },
            Header { argument: 4, ..Header::new(Kind::Fetch) },
            Header::new(Kind::Update),
        ] {
            assert_eq!(Said::of(&header), None, "{header:?}");
        }
    }

    #[test]
    fn a_link_is_only_for_who_knows_its_key_now_and_only_for_its_two_ends() {
        let ends = LinkEnds { job: 1, epoch: 2, dials: 5, listens: 3, key: [7; 32] };
        let (challenge, nonce) = ([1; 32], [2; 32]);
        let greeting = ends.greeting(&challenge, &nonce);
        assert_eq!(greeting_from(&greeting), Some(5));
        let greeted = ends.greeted(&greeting, &challenge).unwrap();
        assert!(ends.check_greeted(&greeted, &challenge, &nonce).is_ok());
        assert_eq!(ends.greeted(&greeting, &[9; 32]), Err(HandshakeError::BadProof), "a recording");
        for other in [
            LinkEnds { key: [8; 32], ..ends },
            LinkEnds { listens: 4, ..ends },
            LinkEnds { dials: 4, ..ends },
            LinkEnds { job: 9, ..ends },
            LinkEnds { epoch: 9, ..ends },
        ] {
            assert!(other.greeted(&greeting, &challenge).is_err(), "{other:?}");
            assert!(other.check_greeted(&greeted, &challenge, &nonce).is_err(), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_a_link_frame_panic(bytes in proptest::collection::vec(any::<u8>(), GREETING_BYTES)) {
            let ends = LinkEnds { job: 1, epoch: 2, dials: 5, listens: 3, key: [7; 32] };
            let greeting: &[u8; GREETING_BYTES] = bytes[..].try_into().unwrap();
            prop_assert!(ends.greeted(greeting, &[0; 32]).is_err());
            let _ = greeting_from(greeting);
            let header = Header { worker: 1, chunk: 70_000, ..Header::new(Kind::Link) };
            let order = LinkOrder::read(&header, bytes.first_chunk().unwrap());
            let frame = order.frame(3, 4);
            let (head, payload) = frame.bytes().split_first_chunk().unwrap();
            prop_assert_eq!(order, LinkOrder::read(&Header::parse(head).unwrap(), payload.try_into().unwrap()));
        }
    }
}
