//! Who is there, and what holds: challenge, hello, welcome or refusal, as functions from bytes to bytes.
//!
//! The daemon sends a nonce; the worker answers with its index, a nonce of its own and a keyed hash over both; the daemon
//! answers with the plan and a keyed hash over it. The key is derived from the worker's token, which never travels. This
//! shows who a peer is when the session begins; it does not encrypt, and does not protect later frames from somebody who
//! can change packets in flight (`docs/protocol.md` says what that means).

use super::fingerprint::{MARKS_BYTES, Marks};
use super::frame::{Header, HeaderError, Kind, header_bytes};
use super::messages::{PLAN_BYTES, Plan, PlanError, Reader, Refusal, Resume, Welcome, Writer};
use super::{HEADER_BYTES, Violation};

/// Bytes nobody can predict, drawn anew for every handshake.
pub type Nonce = [u8; 32];

/// Bytes of a challenge with its header.
pub const CHALLENGE_BYTES: usize = HEADER_BYTES + 32;
/// What a hello says before its proof: nonce, last update, marks.
const HELLO_TOLD: usize = 32 + 24 + MARKS_BYTES;
const HELLO_PAYLOAD: usize = HELLO_TOLD + 32;
/// Bytes of a hello with its header.
pub const HELLO_BYTES: usize = HEADER_BYTES + HELLO_PAYLOAD;
const WELCOME_PAYLOAD: usize = PLAN_BYTES + 32 + 8 + 16 + 24 + 32;
/// Bytes of a welcome with its header.
pub const WELCOME_BYTES: usize = HEADER_BYTES + WELCOME_PAYLOAD;

/// The key that a worker and the daemon share; derived from the worker's token.
#[derive(Clone)]
pub struct Credential([u8; 32]);

impl Credential {
    /// The key of a worker with this token. An empty token is that of the open mode: it proves nothing.
    pub fn from_token(token: &str) -> Credential {
        Credential(blake3::derive_key("solon worker token, version 1", token.as_bytes()))
    }

    pub(super) fn tag(&self, parts: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(..)")
    }
}

/// Who a worker says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Number of the job: a hash of its name.
    pub job: u64,
    /// The worker's index in the job.
    pub worker: u32,
}

impl Identity {
    /// The identity of worker `worker` in the job called `job`.
    pub fn new(job: &str, worker: u32) -> Identity {
        let hash = blake3::derive_key("solon job name, version 1", job.as_bytes());
        Identity { job: u64::from_le_bytes(hash[..8].try_into().expect("eight bytes")), worker }
    }
}

/// What a worker says of itself. Where one was read, its proof was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who it is.
    pub identity: Identity,
    /// The worker's nonce.
    pub nonce: Nonce,
    /// The last update that the worker has.
    pub last: Option<Resume>,
    /// Ways beside TCP that the worker wants: [`TRANSPORT_RDMA`](super::TRANSPORT_RDMA) or 0.
    pub transports: u64,
    /// How it computes.
    pub marks: Marks,
}

impl Hello {
    /// One that says no more than who it is.
    pub fn new(identity: Identity, nonce: Nonce) -> Hello {
        Hello { identity, nonce, last: None, transports: 0, marks: Marks::default() }
    }
}

/// Why a worker cannot take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer said no.
    #[error("the daemon refused: {0}")]
    Refused(Refusal),
    /// The peer is no daemon of this version.
    #[error("the peer does not speak this protocol: {0}")]
    Header(#[from] HeaderError),
    /// A frame that does not fit here.
    #[error("the peer broke the handshake: {0}")]
    Violation(#[from] Violation),
    /// Bytes were changed on the way.
    #[error("the checksum of a handshake frame is wrong")]
    Checksum,
    /// The daemon does not know this worker's token.
    #[error("the daemon could not prove that it knows this worker's token: is this the right daemon and token?")]
    BadProof,
    /// The plan cannot be followed.
    #[error("the daemon's plan cannot be followed: {0}")]
    Plan(#[from] PlanError),
    /// The plan's hash does not fit the plan.
    #[error("the plan and its hash differ")]
    PlanHash,
}

pub(super) fn frame<const N: usize>(header: Header, payload: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..HEADER_BYTES].copy_from_slice(&header_bytes(header, payload));
    bytes[HEADER_BYTES..].copy_from_slice(payload);
    bytes
}

pub(super) fn read_frame<const N: usize>(bytes: &[u8; N], kind: Kind) -> Result<(Header, &[u8]), HandshakeError> {
    let header = Header::parse(bytes[..HEADER_BYTES].try_into().expect("a header's length"))?;
    if header.kind != kind {
        return Err(Violation::Kind(header.kind).into());
    }
    let expected = (N - HEADER_BYTES) as u32;
    if header.payload_bytes != expected {
        return Err(Violation::Length { found: header.payload_bytes, expected }.into());
    }
    let payload = &bytes[HEADER_BYTES..];
    if !header.verifies(payload) {
        return Err(HandshakeError::Checksum);
    }
    Ok((header, payload))
}

fn resume_bytes(last: Option<Resume>) -> [u8; 24] {
    let mut bytes = [0; 24];
    let mut out = Writer::new(&mut bytes);
    out.put(&u64::from(last.is_some()).to_le_bytes());
    let last = last.unwrap_or(Resume { round: 0, digest: 0 });
    out.put(&last.round.to_le_bytes());
    out.put(&last.digest.to_le_bytes());
    out.finish();
    bytes
}

fn read_resume(read: &mut Reader<'_>) -> Option<Resume> {
    let (known, round, digest) = (read.u64(), read.u64(), read.u64());
    (known == 1).then_some(Resume { round, digest })
}

/// The daemon's first frame.
pub fn challenge_frame(nonce: &Nonce) -> [u8; CHALLENGE_BYTES] {
    frame(Header::new(Kind::Challenge), nonce)
}

/// Reads the daemon's first frame.
///
/// # Errors
/// If it is no challenge.
pub fn read_challenge(bytes: &[u8; CHALLENGE_BYTES]) -> Result<Nonce, HandshakeError> {
    let (_, payload) = read_frame(bytes, Kind::Challenge)?;
    Ok(payload.try_into().expect("the length was checked"))
}

fn hello_tag(credential: &Credential, identity: &Identity, challenge: &Nonce, told: &[&[u8]; 2]) -> blake3::Hash {
    let (job, worker) = (identity.job.to_le_bytes(), identity.worker.to_le_bytes());
    credential.tag(&[b"hello", challenge, &job, &worker, told[0], told[1]])
}

/// The worker's answer to a challenge.
pub fn hello_frame(hello: &Hello, credential: &Credential, challenge: &Nonce) -> [u8; HELLO_BYTES] {
    let Hello { identity, nonce, last, transports, marks } = *hello;
    let mut payload = [0; HELLO_PAYLOAD];
    let (told, proof) = payload.split_at_mut(HELLO_TOLD);
    let mut out = Writer::new(told);
    out.put(&nonce);
    out.put(&resume_bytes(last));
    out.put(&marks.to_bytes());
    out.finish();
    let tag = hello_tag(credential, &identity, challenge, &[&transports.to_le_bytes(), told]);
    proof.copy_from_slice(tag.as_bytes());
    let Identity { job, worker } = identity;
    frame(Header { job, worker, argument: transports, ..Header::new(Kind::Hello) }, &payload)
}

/// Do these bytes begin a hello of this version?
pub fn begins_hello(header: &[u8; HEADER_BYTES]) -> bool {
    let hello = |header: Header| header.kind == Kind::Hello && header.payload_bytes as usize == HELLO_PAYLOAD;
    Header::parse(header).is_ok_and(hello)
}

/// Reads a hello and checks its proof. `job` is the job served, `credentials` the key of each of its workers.
///
/// # Errors
/// The refusal to send.
pub fn accept_hello(
    bytes: &[u8; HELLO_BYTES],
    challenge: &Nonce,
    job: u64,
    credentials: &[Credential],
) -> Result<Hello, Refusal> {
    let (header, payload) = read_frame(bytes, Kind::Hello).map_err(|_| Refusal::Unreadable)?;
    let identity = Identity { job: header.job, worker: header.worker };
    if identity.job != job {
        return Err(Refusal::UnknownJob);
    }
    let found = u64::from(identity.worker);
    let Some(credential) = credentials.get(identity.worker as usize) else {
        return Err(Refusal::NoSuchWorker { found, workers: credentials.len() as u64 });
    };
    let (payload, tag) = payload.split_at(HELLO_TOLD);
    let tag: [u8; 32] = tag.try_into().expect("the length was checked");
    // blake3::Hash compares in constant time.
    let told: [&[u8]; 2] = [&header.argument.to_le_bytes(), payload];
    if hello_tag(credential, &identity, challenge, &told) != blake3::Hash::from_bytes(tag) {
        return Err(Refusal::BadProof { found });
    }
    let mut read = Reader::new(payload);
    let (nonce, last) = (read.take(), read_resume(&mut read));
    let marks = Marks::from_bytes(&read.take());
    Ok(Hello { identity, nonce, last, transports: header.argument, marks })
}

/// The daemon's yes.
pub fn welcome_frame(
    welcome: &Welcome,
    credential: &Credential,
    challenge: &Nonce,
    nonce: &Nonce,
) -> [u8; WELCOME_BYTES] {
    let mut payload = [0; WELCOME_PAYLOAD];
    let (told, tag) = payload.split_at_mut(WELCOME_PAYLOAD - 32);
    let mut out = Writer::new(told);
    out.put(&welcome.plan.to_bytes());
    out.put(&welcome.plan.hash());
    let row = welcome.plan.parameters.place(welcome.worker as usize);
    out.put(&welcome.worker.to_le_bytes());
    out.put(&(row.group as u32).to_le_bytes());
    out.put(&welcome.session.to_le_bytes());
    out.put(&welcome.epoch.to_le_bytes());
    out.put(&resume_bytes(welcome.last));
    out.finish();
    tag.copy_from_slice(credential.tag(&[b"welcome", challenge, nonce, told]).as_bytes());
    frame(Header { session: welcome.epoch, ..Header::new(Kind::Welcome) }, &payload)
}

/// Reads the daemon's yes, and checks its proof and its plan.
///
/// # Errors
/// If it is no welcome, does not come from somebody who knows the token, or its plan cannot be followed.
pub fn read_welcome(
    bytes: &[u8; WELCOME_BYTES],
    credential: &Credential,
    challenge: &Nonce,
    nonce: &Nonce,
) -> Result<Welcome, HandshakeError> {
    let (_, payload) = read_frame(bytes, Kind::Welcome)?;
    let (told, tag) = payload.split_at(WELCOME_PAYLOAD - 32);
    let tag: [u8; 32] = tag.try_into().expect("the length was checked");
    if credential.tag(&[b"welcome", challenge, nonce, told]) != blake3::Hash::from_bytes(tag) {
        return Err(HandshakeError::BadProof);
    }
    let mut read = Reader::new(told);
    let plan = Plan::from_bytes(&read.take())?;
    if plan.hash() != read.take::<32>() {
        return Err(HandshakeError::PlanHash);
    }
    let (worker, group) = (read.u32(), read.u32());
    if worker as usize >= plan.parameters.workers() || plan.parameters.place(worker as usize).group != group as usize {
        return Err(PlanError::Range("worker index").into());
    }
    let (session, epoch) = (read.u64(), read.u64());
    Ok(Welcome { plan, worker, session, epoch, last: read_resume(&mut read) })
}

/// The daemon's no.
pub fn refusal_frame(refusal: Refusal) -> [u8; HEADER_BYTES] {
    let (argument, round, session) = refusal.numbers();
    header_bytes(Header { argument, round, session, ..Header::new(Kind::Refuse) }, &[])
}

/// The refusal in a header, if it is one.
pub fn refusal_of(header: &Header) -> Option<Refusal> {
    if header.kind != Kind::Refuse || header.payload_bytes != 0 || !header.verifies(&[]) {
        return None;
    }
    Refusal::from_numbers(header.argument, header.round, header.session)
}

#[cfg(test)]
mod tests {
    use super::super::fingerprint::Fingerprint;
    use super::super::messages::sample_plan;
    use super::*;

    const CHALLENGE: Nonce = [1; 32];
    const NONCE: Nonce = [2; 32];

    fn credentials() -> Vec<Credential> {
        (0..14).map(|worker| Credential::from_token(&format!("token {worker}"))).collect()
    }

    fn hello(worker: u32, token: &str) -> [u8; HELLO_BYTES] {
        hello_frame(&told(worker), &Credential::from_token(token), &CHALLENGE)
    }

    fn told(worker: u32) -> Hello {
        let last = Some(Resume { round: 41, digest: 9 });
        let marks = Fingerprint { threads: "2".into(), ..Fingerprint::default() }.marks();
        Hello { last, transports: 1, marks, ..Hello::new(Identity::new("job", worker), NONCE) }
    }

    #[test]
    fn a_hello_with_the_right_token_is_accepted() {
        let job = Identity::new("job", 0).job;
        let accepted = accept_hello(&hello(3, "token 3"), &CHALLENGE, job, &credentials()).unwrap();
        assert_eq!(accepted, told(3));
    }

    #[test]
    fn every_wrong_hello_is_refused_for_its_own_reason() {
        let job = Identity::new("job", 0).job;
        let refused = |bytes: &[u8; HELLO_BYTES], challenge: &Nonce, job: u64| {
            accept_hello(bytes, challenge, job, &credentials()).unwrap_err()
        };
        assert_eq!(refused(&hello(3, "token 4"), &CHALLENGE, job), Refusal::BadProof { found: 3 });
        assert_eq!(refused(&hello(3, "token 3"), &[9; 32], job), Refusal::BadProof { found: 3 });
        assert_eq!(refused(&hello(14, ""), &CHALLENGE, job), Refusal::NoSuchWorker { found: 14, workers: 14 });
        assert_eq!(refused(&hello(3, "token 3"), &CHALLENGE, job + 1), Refusal::UnknownJob);
        for at in 0..HELLO_BYTES {
            let mut bytes = hello(3, "token 3");
            bytes[at] ^= 1;
            assert_eq!(refused(&bytes, &CHALLENGE, job), Refusal::Unreadable, "byte {at}");
            // Whoever can change packets can also make the checksum fit: what the proof covers is still seen.
            let header = Header::parse(&hello(3, "token 3")[..HEADER_BYTES].try_into().unwrap()).unwrap();
            if at >= HEADER_BYTES {
                let forged: [u8; HELLO_BYTES] = frame(header, &bytes[HEADER_BYTES..]);
                assert_eq!(refused(&forged, &CHALLENGE, job), Refusal::BadProof { found: 3 }, "byte {at}");
            }
        }
    }

    #[test]
    fn a_welcome_is_read_back_and_a_false_daemon_is_noticed() {
        let credential = Credential::from_token("t");
        let welcome = Welcome { plan: sample_plan(), worker: 9, session: 5, epoch: 6, last: None };
        let bytes = welcome_frame(&welcome, &credential, &CHALLENGE, &NONCE);
        assert_eq!(read_welcome(&bytes, &credential, &CHALLENGE, &NONCE), Ok(welcome));
        let other = Credential::from_token("u");
        assert_eq!(read_welcome(&bytes, &other, &CHALLENGE, &NONCE), Err(HandshakeError::BadProof));
        assert_eq!(read_welcome(&bytes, &credential, &CHALLENGE, &[0; 32]), Err(HandshakeError::BadProof));
        for at in 0..WELCOME_BYTES {
            let mut changed = bytes;
            changed[at] ^= 0x80;
            assert!(read_welcome(&changed, &credential, &CHALLENGE, &NONCE).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_refusal_is_read_back() {
        let bytes = refusal_frame(Refusal::TooSoon { found: 1, wait_ms: 2 });
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(refusal_of(&header), Some(Refusal::TooSoon { found: 1, wait_ms: 2 }));
        assert_eq!(refusal_of(&Header { round: 7, ..header }), None);
    }
}
