//! A worker that knows its token, joins as an honest one would, and then does what it likes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use solon::transport::rdma::ffi::IBV_ACCESS_LOCAL_WRITE;
use solon::wire::{
    Area, CHALLENGE_BYTES, Credential, Endpoint, HEADER_BYTES, Header, Hello, Identity, Kind, Nonce, OFFER_BYTES,
    Refusal, TRANSPORT_RDMA, UPDATE_OFFSET, WELCOME_BYTES, Welcome, attach_frame, hello_frame, read_attached,
    read_challenge, read_offer, read_welcome, refusal_of, seal,
};

use super::verbs::{ALL_RIGHTS, End, Memory};
use crate::guest::tools::DEVICES;

/// A handshake up to the daemon's offer.
pub struct Invited {
    pub stream: TcpStream,
    pub welcome: Welcome,
    /// The daemon's end.
    pub there: Endpoint,
    pub credential: Credential,
    pub nonces: [Nonce; 2],
}

impl Invited {
    /// Shakes hands as `worker` of the job `default`, again while it is too soon.
    pub fn new(address: &str, worker: u32, token: &str) -> Invited {
        loop {
            match Invited::try_new(address, worker, token) {
                Ok(invited) => return invited,
                Err(Refusal::TooSoon { wait_ms, .. }) => std::thread::sleep(Duration::from_millis(wait_ms)),
                Err(refusal) => panic!("refused: {refusal}"),
            }
        }
    }

    fn try_new(address: &str, worker: u32, token: &str) -> Result<Invited, Refusal> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        let challenge = read_challenge(&read::<CHALLENGE_BYTES>(&mut stream)?).unwrap();
        let (credential, nonce) = (Credential::from_token(token), [7; 32]);
        let hello = Hello { transports: TRANSPORT_RDMA, ..Hello::new(Identity::new("default", worker), nonce) };
        stream.write_all(&hello_frame(&hello, &credential, &challenge)).unwrap();
        let welcome = read::<WELCOME_BYTES>(&mut stream)?;
        let welcome = read_welcome(&welcome, &credential, &challenge, &nonce).unwrap();
        let offer = read::<OFFER_BYTES>(&mut stream)?;
        let there = read_offer(&offer, &credential, [&challenge, &nonce]).unwrap().expect("RDMA is offered");
        Ok(Invited { stream, welcome, there, credential, nonces: [challenge, nonce] })
    }

    /// The attach that says so.
    pub fn attach_bytes(&self, end: Endpoint, area: Area) -> Vec<u8> {
        let nonces = [&self.nonces[0], &self.nonces[1]];
        attach_frame(&Ok((end, area)), &self.welcome, &self.credential, nonces).to_vec()
    }

    /// Answers the offer with these bytes; says the status, or what came instead.
    pub fn answer(&mut self, attach: &[u8]) -> Result<u64, Option<Refusal>> {
        self.stream.write_all(attach).unwrap();
        let mut bytes = [0; HEADER_BYTES];
        self.stream.read_exact(&mut bytes).map_err(|_| None)?;
        read_attached(&bytes).map_err(|_| Header::parse(&bytes).ok().and_then(|header| refusal_of(&header)))
    }
}

/// Reads a frame, or the refusal that came instead.
fn read<const N: usize>(stream: &mut TcpStream) -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes[..HEADER_BYTES]).unwrap();
    let header = Header::parse(bytes[..HEADER_BYTES].try_into().unwrap()).unwrap();
    match refusal_of(&header) {
        Some(refusal) => Err(refusal),
        None => {
            stream.read_exact(&mut bytes[HEADER_BYTES..]).unwrap();
            Ok(bytes)
        }
    }
}

/// Memory for all updates of a plan's window, and where it says that it is.
pub fn area(end: &mut End, welcome: &Welcome) -> (Memory, Area) {
    let stride = (UPDATE_OFFSET + 4 * welcome.plan.layout.dimension()).next_multiple_of(64);
    let rounds = welcome.plan.window;
    let memory = end.memory(stride * rounds as usize, ALL_RIGHTS);
    let area = Area { address: memory.address(), stride: stride as u64, key: memory.remote_key, rounds };
    (memory, area)
}

/// An attacker with a session and a queue pair that is connected to the daemon's.
pub struct Attacker {
    pub end: End,
    pub stream: TcpStream,
    pub welcome: Welcome,
    /// What it sends from and reads into: a MiB and a little.
    pub memory: Memory,
    /// The first round that its session takes part in.
    pub round: u64,
}

/// Bytes of an attacker's memory.
const MEMORY: usize = (1 << 20) + 4096;

impl Attacker {
    /// Joins as an honest worker would. See [`End::connect`] for `rnr_retry`.
    pub fn join(address: &str, worker: u32, token: &str, rnr_retry: u8) -> Attacker {
        Attacker::join_at(address, worker, token, rnr_retry, |_, area| area)
    }

    /// The same, and says something else about where updates are to go than what is so.
    pub fn join_at(
        address: &str,
        worker: u32,
        token: &str,
        rnr_retry: u8,
        place: impl FnOnce(&mut End, Area) -> Area,
    ) -> Attacker {
        let mut invited = Invited::new(address, worker, token);
        let mut end = End::new(DEVICES[0].name);
        end.reset();
        let (_, area) = area(&mut end, &invited.welcome);
        let area = place(&mut end, area);
        let memory = end.memory(MEMORY, IBV_ACCESS_LOCAL_WRITE);
        // For updates and credits, as long as the attack takes.
        (0..256).for_each(|_| end.post_receive(u64::MAX, None));
        end.connect(&invited.there, rnr_retry);
        let attach = invited.attach_bytes(end.endpoint(), area);
        assert_eq!(invited.answer(&attach), Ok(0), "attached");
        let Invited { mut stream, welcome, .. } = invited;
        let mut bytes = [0; HEADER_BYTES];
        stream.read_exact(&mut bytes).unwrap();
        let ready = Header::parse(&bytes).unwrap();
        assert_eq!(ready.kind, Kind::Ready);
        Attacker { end, stream, welcome, memory, round: ready.round }
    }

    /// Writes a shard that is right in every respect but its numbers into the attacker's memory; says its length.
    pub fn write_shard(&self, round: u64) -> usize {
        let width = self.welcome.plan.layout.chunk(0).width;
        let header = Header {
            job: Identity::new("default", 0).job,
            session: self.welcome.session,
            worker: self.welcome.worker,
            round,
            ..Header::new(Kind::Shard)
        };
        let mut frame = vec![0x3f; HEADER_BYTES + 4 * width];
        seal(header, &mut frame);
        self.memory.write(0, &frame);
        frame.len()
    }

    /// Waits until the daemon has ended the session.
    pub fn wait_for_the_end(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end too.
        let ended = self.stream.read_to_end(&mut rest);
        assert!(
            !matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
            "the session was not ended: {ended:?}"
        );
    }
}
