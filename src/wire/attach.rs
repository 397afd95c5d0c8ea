//! How the two ends of a session agree on a faster way for its bulk: offer, attach, attached; all over the session's own TCP
//! connection, after the welcome, and tagged like it.
//!
//! The numbers are those that a NIC needs; what they mean is in `transport::rdma`. A *status* of 0 is yes, anything else a
//! reason why not.

use super::frame::{Header, Kind, header_bytes};
use super::handshake::{Credential, HandshakeError, Nonce, frame, read_frame};
use super::messages::{PlanError, Reader, Writer};
use super::{HEADER_BYTES, Welcome};

/// In [`Hello::transports`](super::Hello): the worker can come by RDMA and wants to.
pub const TRANSPORT_RDMA: u64 = 1;

/// One end of a reliable connection, as the other end must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Number of the queue pair, below 2^24.
    pub number: u32,
    /// First packet sequence number that it sends, below 2^24.
    pub sequence: u32,
    /// Its port's address.
    pub gid: [u8; 16],
    /// Its port's local identifier, on InfiniBand.
    pub lid: u16,
    /// Bytes per packet, as `ibv_mtu` has it: 1 is 256, 5 is 4096.
    pub mtu: u8,
    /// Is it reached by its `gid` (RoCE) rather than its `lid` (InfiniBand)?
    pub global: bool,
}

/// Where a worker takes updates: the round `t` stands in place `t % rounds`, each `stride` bytes long, the report's frame first
/// and the update at [`UPDATE_OFFSET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Address of the first place, in the worker's process.
    pub address: u64,
    /// Bytes from one place to the next.
    pub stride: u64,
    /// The key that lets the peer write there.
    pub key: u32,
    /// Number of places: the window of the plan.
    pub rounds: u32,
}

/// Where the update begins in a place of an [`Area`]: behind the frame of a report, on a cache line of its own.
pub const UPDATE_OFFSET: usize = (HEADER_BYTES + super::REPORT_BYTES).next_multiple_of(64);

const ENDPOINT_BYTES: usize = 32;
const OFFER_PAYLOAD: usize = 8 + ENDPOINT_BYTES + 32;
/// Bytes of an offer with its header.
pub const OFFER_BYTES: usize = HEADER_BYTES + OFFER_PAYLOAD;
const ATTACH_PAYLOAD: usize = 8 + ENDPOINT_BYTES + 24 + 32;
/// Bytes of an attach with its header.
pub const ATTACH_BYTES: usize = HEADER_BYTES + ATTACH_PAYLOAD;

impl Endpoint {
    const NONE: Endpoint = Endpoint { number: 0, sequence: 0, gid: [0; 16], lid: 0, mtu: 1, global: false };

    fn write(&self, out: &mut Writer<'_>) {
        out.put(&self.number.to_le_bytes());
        out.put(&self.sequence.to_le_bytes());
        out.put(&self.gid);
        out.put(&self.lid.to_le_bytes());
        out.put(&[self.mtu, u8::from(self.global)]);
        out.put(&[0; 4]);
    }

    fn read(read: &mut Reader<'_>) -> Result<Endpoint, PlanError> {
        let (number, sequence, gid) = (read.u32(), read.u32(), read.take());
        let (lid, mtu, global) = (u16::from_le_bytes(read.take()), read.u8(), read.u8());
        read.take::<4>();
        if number >= 1 << 24 || sequence >= 1 << 24 || !(1..=5).contains(&mtu) || global > 1 {
            return Err(PlanError::Range("queue pair, sequence number or MTU"));
        }
        Ok(Endpoint { number, sequence, gid, lid, mtu, global: global == 1 })
    }
}

fn offer_tag(credential: &Credential, nonces: [&Nonce; 2], told: &[u8]) -> blake3::Hash {
    credential.tag(&[b"offer", nonces[0], nonces[1], told])
}

fn attach_tag(credential: &Credential, nonces: [&Nonce; 2], session: u64, told: &[u8]) -> blake3::Hash {
    credential.tag(&[b"attach", nonces[0], nonces[1], &session.to_le_bytes(), told])
}

/// The daemon's end for this session, or why it has none. `nonces`: that of the challenge, and the worker's.
pub fn offer_frame(
    offer: &Result<Endpoint, u64>,
    epoch: u64,
    credential: &Credential,
    nonces: [&Nonce; 2],
) -> [u8; OFFER_BYTES] {
    let mut payload = [0; OFFER_PAYLOAD];
    let (told, tag) = payload.split_at_mut(OFFER_PAYLOAD - 32);
    let mut out = Writer::new(told);
    out.put(&offer.err().unwrap_or(0).to_le_bytes());
    offer.unwrap_or(Endpoint::NONE).write(&mut out);
    out.finish();
    tag.copy_from_slice(offer_tag(credential, nonces, told).as_bytes());
    frame(Header { session: epoch, ..Header::new(Kind::Offer) }, &payload)
}

/// Reads an offer and checks its proof.
///
/// # Errors
/// If it is none, or does not come from somebody who knows the token.
pub fn read_offer(
    bytes: &[u8; OFFER_BYTES],
    credential: &Credential,
    nonces: [&Nonce; 2],
) -> Result<Result<Endpoint, u64>, HandshakeError> {
    let (_, payload) = read_frame(bytes, Kind::Offer)?;
    let (told, tag) = payload.split_at(OFFER_PAYLOAD - 32);
    let tag: [u8; 32] = tag.try_into().expect("the length was checked");
    if offer_tag(credential, nonces, told) != blake3::Hash::from_bytes(tag) {
        return Err(HandshakeError::BadProof);
    }
    let mut read = Reader::new(told);
    let (status, endpoint) = (read.u64(), Endpoint::read(&mut read)?);
    Ok(if status == 0 { Ok(endpoint) } else { Err(status) })
}

/// The worker's end and where it takes updates, or why it has none.
pub fn attach_frame(
    attach: &Result<(Endpoint, Area), u64>,
    welcome: &Welcome,
    credential: &Credential,
    nonces: [&Nonce; 2],
) -> [u8; ATTACH_BYTES] {
    let mut payload = [0; ATTACH_PAYLOAD];
    let (told, tag) = payload.split_at_mut(ATTACH_PAYLOAD - 32);
    let nothing = (Endpoint::NONE, Area { address: 0, stride: 0, key: 0, rounds: 0 });
    let (endpoint, area) = attach.unwrap_or(nothing);
    let mut out = Writer::new(told);
    out.put(&attach.err().unwrap_or(0).to_le_bytes());
    endpoint.write(&mut out);
    out.put(&area.address.to_le_bytes());
    out.put(&area.stride.to_le_bytes());
    out.put(&area.key.to_le_bytes());
    out.put(&area.rounds.to_le_bytes());
    out.finish();
    tag.copy_from_slice(attach_tag(credential, nonces, welcome.session, told).as_bytes());
    let header = Header { session: welcome.session, worker: welcome.worker, ..Header::new(Kind::Attach) };
    frame(header, &payload)
}

/// Reads an attach, checks its proof, and that its places fit `welcome`'s plan.
///
/// # Errors
/// If it is none, the proof is wrong, or updates would not fit where they are to be written.
pub fn read_attach(
    bytes: &[u8; ATTACH_BYTES],
    welcome: &Welcome,
    credential: &Credential,
    nonces: [&Nonce; 2],
) -> Result<Result<(Endpoint, Area), u64>, HandshakeError> {
    let (_, payload) = read_frame(bytes, Kind::Attach)?;
    let (told, tag) = payload.split_at(ATTACH_PAYLOAD - 32);
    let tag: [u8; 32] = tag.try_into().expect("the length was checked");
    if attach_tag(credential, nonces, welcome.session, told) != blake3::Hash::from_bytes(tag) {
        return Err(HandshakeError::BadProof);
    }
    let mut read = Reader::new(told);
    let (status, endpoint) = (read.u64(), Endpoint::read(&mut read)?);
    if status != 0 {
        return Ok(Err(status));
    }
    let (address, stride, key, rounds) = (read.u64(), read.u64(), read.u32(), read.u32());
    let needed = UPDATE_OFFSET as u64 + 4 * welcome.plan.layout.dimension() as u64;
    let end = stride.checked_mul(u64::from(rounds)).and_then(|bytes| address.checked_add(bytes));
    if rounds != welcome.plan.window || stride < needed || end.is_none() {
        return Err(PlanError::Range("area for updates").into());
    }
    Ok(Ok((endpoint, Area { address, stride, key, rounds })))
}

/// The daemon's last word on an attach: `status` 0, or why the session goes by TCP after all.
pub fn attached_frame(status: u64, epoch: u64) -> [u8; HEADER_BYTES] {
    header_bytes(Header { session: epoch, argument: status, ..Header::new(Kind::Attached) }, &[])
}

/// Reads the daemon's last word.
///
/// # Errors
/// If it is none.
pub fn read_attached(bytes: &[u8; HEADER_BYTES]) -> Result<u64, HandshakeError> {
    let (header, _) = read_frame(bytes, Kind::Attached)?;
    Ok(header.argument)
}

#[cfg(test)]
mod tests {
    use super::super::messages::sample_plan;
    use super::*;

    const NONCES: [&Nonce; 2] = [&[1; 32], &[2; 32]];

    fn endpoint() -> Endpoint {
        Endpoint { number: 0x12_3456, sequence: 0x65_4321, gid: [7; 16], lid: 9, mtu: 5, global: true }
    }

    fn welcome() -> Welcome {
        Welcome { plan: sample_plan(), worker: 9, session: 5, epoch: 6, last: None }
    }

    #[test]
    fn offers_and_attaches_are_read_back_and_false_ones_are_noticed() {
        let key = Credential::from_token("t");
        for offer in [Ok(endpoint()), Err(3)] {
            let bytes = offer_frame(&offer, 6, &key, NONCES);
            assert_eq!(read_offer(&bytes, &key, NONCES), Ok(offer));
            assert!(read_offer(&bytes, &Credential::from_token("u"), NONCES).is_err());
            for at in 0..OFFER_BYTES {
                let mut changed = bytes;
                changed[at] ^= 0x40;
                assert!(read_offer(&changed, &key, NONCES).is_err(), "byte {at}");
            }
        }
        let area = Area { address: 4096, stride: 1 << 20, key: 77, rounds: 2 };
        for attach in [Ok((endpoint(), area)), Err(4)] {
            let bytes = attach_frame(&attach, &welcome(), &key, NONCES);
            assert_eq!(read_attach(&bytes, &welcome(), &key, NONCES), Ok(attach));
            let other = Welcome { session: 4, ..welcome() };
            assert_eq!(read_attach(&bytes, &other, &key, NONCES), Err(HandshakeError::BadProof));
        }
        assert_eq!(read_attached(&attached_frame(8, 1)), Ok(8));
    }

    #[test]
    fn an_area_in_which_updates_do_not_fit_is_refused() {
        let key = Credential::from_token("t");
        let good = Area { address: 4096, stride: 1 << 20, key: 77, rounds: 2 };
        let needed = UPDATE_OFFSET as u64 + 4 * 1001;
        let read = |area| {
            read_attach(&attach_frame(&Ok((endpoint(), area)), &welcome(), &key, NONCES), &welcome(), &key, NONCES)
        };
        assert!(read(Area { stride: needed, ..good }).is_ok());
        for bad in [
            Area { stride: needed - 1, ..good },
            Area { rounds: 3, ..good },
            Area { address: u64::MAX - 100, ..good },
            Area { stride: u64::MAX, ..good },
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        for bad in [
            Endpoint { number: 1 << 24, ..endpoint() },
            Endpoint { mtu: 0, ..endpoint() },
            Endpoint { mtu: 6, ..endpoint() },
        ] {
            let bytes = attach_frame(&Ok((bad, good)), &welcome(), &key, NONCES);
            assert!(read_attach(&bytes, &welcome(), &key, NONCES).is_err(), "{bad:?}");
        }
    }
}
