//! The fixed header that every frame starts with, and its checksum.

use super::HEADER_BYTES;

/// The first four bytes of every frame, `SOLN`.
pub const MAGIC: [u8; 4] = *b"SOLN";

/// Version of the protocol. Peers of different versions refuse each other.
pub const VERSION: u16 = 5;

/// What a frame is. The number is what stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Daemon to worker: the nonce that the worker must answer.
    Challenge = 1,
    /// Worker to daemon: who I am, and the proof.
    Hello = 2,
    /// Daemon to worker: the plan of the job.
    Welcome = 3,
    /// Daemon to worker: no, and why.
    Refuse = 4,
    /// Daemon to worker: from `round` on you get every chunk.
    Ready = 5,
    /// Worker to daemon: one coded chunk of a gradient.
    Shard = 6,
    /// Daemon to worker: one chunk of an update.
    Update = 7,
    /// Daemon to worker: you may have sent `argument` shards in this session.
    Credit = 8,
    /// Daemon to worker: the round is closed; the payload is a [`Report`](super::Report).
    RoundEnd = 9,
    /// Worker to daemon: I leave in peace.
    Leave = 10,
    /// Daemon to worker: the daemon stops in peace.
    Closing = 11,
    /// Daemon to worker: my end of an RDMA connection, or why there is none.
    Offer = 12,
    /// Worker to daemon: my end, or why there is none.
    Attach = 13,
    /// Daemon to worker: we are connected, or why not.
    Attached = 14,
    /// Either way: the RDMA connection has ended, all goes by TCP from here on.
    Detach = 15,
    /// Worker to daemon: the rounds before `round` are collected, their places can be written again.
    Collected = 16,
    /// Daemon to worker: updates are relayed among workers; with the key of their chunks' hashes.
    Relay = 17,
    /// Worker to daemon: other workers reach me here.
    Reach = 18,
    /// Daemon to worker: another worker, where it listens, and the key of the link with it.
    Link = 19,
    /// Worker to daemon: I have, or have not, a live link with a worker.
    Linked = 20,
    /// Daemon to worker: who carries a chunk of an update, and its hash.
    Announce = 21,
    /// Daemon to worker: the next update frame is to be passed on to these workers.
    Carry = 22,
    /// Worker to daemon: an announced chunk is here.
    Have = 23,
    /// Worker to daemon: send me an announced chunk yourself.
    Fetch = 24,
    /// Worker to daemon: the digest of the update that I collected.
    Digest = 25,
    /// Worker to worker: who I am, and the proof.
    Greeting = 26,
    /// Worker to worker: the proof of the other end.
    Greeted = 27,
    /// Worker to daemon: I cannot pass on a chunk that I was to carry.
    Decline = 28,
}

impl Kind {
    /// All kinds, by rising number.
    pub const ALL: [Kind; 28] = [
        Kind::Challenge,
        Kind::Hello,
        Kind::Welcome,
        Kind::Refuse,
        Kind::Ready,
        Kind::Shard,
        Kind::Update,
        Kind::Credit,
        Kind::RoundEnd,
        Kind::Leave,
        Kind::Closing,
        Kind::Offer,
        Kind::Attach,
        Kind::Attached,
        Kind::Detach,
        Kind::Collected,
        Kind::Relay,
        Kind::Reach,
        Kind::Link,
        Kind::Linked,
        Kind::Announce,
        Kind::Carry,
        Kind::Have,
        Kind::Fetch,
        Kind::Digest,
        Kind::Greeting,
        Kind::Greeted,
        Kind::Decline,
    ];

    fn parse(number: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// The header of a frame. All fields little-endian on the wire; see `docs/protocol.md` for the offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// Bytes that follow the header.
    pub payload_bytes: u32,
    /// CRC-32C over the header (with this field 0) and the payload.
    pub checksum: u32,
    /// Number of the job: a hash of its name.
    pub job: u64,
    /// Worker to daemon: the session's number. Daemon to worker: the daemon's epoch, another after every start.
    pub session: u64,
    /// The round.
    pub round: u64,
    /// The chunk within the round.
    pub chunk: u32,
    /// Worker to daemon: the worker's index. Daemon to worker: 0.
    pub worker: u32,
    /// One number more, by kind.
    pub argument: u64,
}

/// Why 64 bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The first bytes are not `SOLN`: this is another protocol.
    #[error("it does not start with SOLN")]
    Magic,
    /// Another version of the protocol.
    #[error("protocol version {0}, this side speaks {VERSION}")]
    Version(u16),
    /// No such kind.
    #[error("frame kind {0}")]
    Kind(u8),
    /// Bytes that must be 0 are not.
    #[error("reserved bytes are not 0")]
    Reserved,
}

impl Header {
    /// A header of this kind with every number 0.
    pub fn new(kind: Kind) -> Header {
        Header { kind, payload_bytes: 0, checksum: 0, job: 0, session: 0, round: 0, chunk: 0, worker: 0, argument: 0 }
    }

    /// Reads a header. The checksum is not looked at: it needs the payload, see [`Header::verifies`].
    ///
    /// # Errors
    /// If the bytes are not a header of this version.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header, HeaderError> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if bytes[..4] != MAGIC {
            return Err(HeaderError::Magic);
        }
        if u16_at(4) != VERSION {
            return Err(HeaderError::Version(u16_at(4)));
        }
        let kind = Kind::parse(bytes[6]).ok_or(HeaderError::Kind(bytes[6]))?;
        if bytes[7] != 0 || u64_at(56) != 0 {
            return Err(HeaderError::Reserved);
        }
        Ok(Header {
            kind,
            payload_bytes: u32_at(8),
            checksum: u32_at(12),
            job: u64_at(16),
            session: u64_at(24),
            round: u64_at(32),
            chunk: u32_at(40),
            worker: u32_at(44),
            argument: u64_at(48),
        })
    }

    /// The header's bytes, as they stand on the wire.
    pub fn write(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6] = self.kind as u8;
        bytes[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.checksum.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.job.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.session.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.round.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.chunk.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.worker.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.argument.to_le_bytes());
        bytes
    }

    /// The checksum that this header has with this payload.
    pub fn checksum_over(&self, payload: &[u8]) -> u32 {
        let bare = Header { checksum: 0, ..*self };
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        digest.update(&bare.write());
        digest.update(payload);
        digest.finalize() as u32
    }

    /// Does the checksum agree with this payload?
    pub fn verifies(&self, payload: &[u8]) -> bool {
        self.checksum == self.checksum_over(payload)
    }
}

/// The bytes of `header` with length and checksum filled in for `payload`.
///
/// # Panics
/// If the payload has 4 GiB or more.
pub fn header_bytes(mut header: Header, payload: &[u8]) -> [u8; HEADER_BYTES] {
    header.payload_bytes = u32::try_from(payload.len()).expect("a payload is shorter than 4 GiB");
    header.checksum = header.checksum_over(payload);
    header.write()
}

/// [`header_bytes`] where length and CRC-32C of the payload alone are known, so that it need not be read again.
pub fn header_bytes_of(mut header: Header, payload_bytes: u32, payload_checksum: u32) -> [u8; HEADER_BYTES] {
    (header.payload_bytes, header.checksum) = (payload_bytes, 0);
    let bare = crc_fast::crc32_iscsi(&header.write());
    let both = (u64::from(bare), u64::from(payload_checksum));
    let algorithm = crc_fast::CrcAlgorithm::Crc32Iscsi;
    header.checksum = crc_fast::checksum_combine(algorithm, both.0, both.1, u64::from(payload_bytes)) as u32;
    header.write()
}

/// Writes the header of a frame whose payload already stands behind it, and returns the checksum.
///
/// # Panics
/// If `frame` is shorter than a header.
pub fn seal(header: Header, frame: &mut [u8]) -> u32 {
    let (head, payload) = frame.split_at_mut(HEADER_BYTES);
    let bytes = header_bytes(header, payload);
    head.copy_from_slice(&bytes);
    u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Header {
        Header {
            kind: Kind::Shard,
            payload_bytes: 0,
            checksum: 0,
            job: 0x1122_3344_5566_7788,
            session: 7,
            round: u64::MAX,
            chunk: 3,
            worker: 11,
            argument: 5,
        }
    }

    #[test]
    fn every_field_stands_where_the_protocol_page_draws_it() {
        let bytes = header_bytes(sample(), &[1, 2, 3]);
        assert_eq!(&bytes[..8], &[b'S', b'O', b'L', b'N', 5, 0, 6, 0]);
        assert_eq!(&bytes[8..12], &[3, 0, 0, 0]);
        assert_eq!(&bytes[16..24], &[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        assert_eq!((bytes[24], bytes[40], bytes[44], bytes[48]), (7, 3, 11, 5));
        assert_eq!(&bytes[32..40], &[255; 8]);
        assert_eq!(&bytes[56..], &[0; 8]);
    }

    #[test]
    fn one_flipped_bit_anywhere_is_seen() {
        let payload = [9u8; 33];
        let mut frame = [&[0u8; HEADER_BYTES][..], &payload].concat();
        seal(sample(), &mut frame);
        let read = |frame: &[u8]| {
            let header = Header::parse(frame[..HEADER_BYTES].try_into().unwrap()).ok()?;
            (header.payload_bytes as usize == payload.len() && header.verifies(&frame[HEADER_BYTES..])).then_some(())
        };
        assert!(read(&frame).is_some());
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&frame).is_none(), "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_header_is_the_same_whether_its_payload_is_read_or_its_checksum_known() {
        for length in [0, 1, 63, 64, 65_536, 70_001] {
            let payload: Vec<u8> = (0..length).map(|at: usize| (at * 31) as u8).collect();
            let known = header_bytes_of(sample(), length as u32, crc_fast::crc32_iscsi(&payload));
            assert_eq!(known, header_bytes(sample(), &payload), "{length}");
        }
    }

    #[test]
    fn kinds_have_the_numbers_of_the_table() {
        for (index, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index + 1);
        }
        for number in [0u8, 29, 255] {
            let mut bytes = header_bytes(sample(), &[]);
            bytes[6] = number;
            assert_eq!(Header::parse(&bytes), Err(HeaderError::Kind(number)));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused_and_what_parses_is_written_back(bytes in proptest::array::uniform32(any::<u8>()),
                                                                       more in proptest::array::uniform32(any::<u8>()),
                                                                       good in any::<bool>()) {
            let mut all = [0u8; HEADER_BYTES];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&more);
            if good {
                let kind = 1 + all[6] % Kind::ALL.len() as u8;
                all[..8].copy_from_slice(&[b'S', b'O', b'L', b'N', VERSION as u8, 0, kind, 0]);
                all[56..].fill(0);
            }
            match Header::parse(&all) {
                Ok(header) => prop_assert_eq!(header.write(), all),
                Err(_) => prop_assert!(!good),
            }
        }
    }
}
