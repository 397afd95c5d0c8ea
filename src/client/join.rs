//! Connecting, the handshake and how the session travels, in the caller's thread and bounded in time.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::error::JoinError;
use super::session::{Memory, WORDS};
use super::worker::JoinOptions;
use crate::transport::rdma::ffi::Api;
use crate::transport::rdma::{self, Attachment, LinkFailure, NoRdma};
use crate::transport::{Connection, Transport, tcp, timed_out};
use crate::wire::{
    CHALLENGE_BYTES, Credential, HEADER_BYTES, HandshakeError, Header, Hello, Identity, Nonce, OFFER_BYTES, PlanError,
    Refusal, Resume, TRANSPORT_RDMA, WELCOME_BYTES, Welcome, attach_frame, hello_frame, read_attached, read_challenge,
    read_offer, read_welcome, refusal_of,
};

/// A session that has been agreed on.
pub(super) struct Agreed {
    pub(super) connection: Connection,
    pub(super) welcome: Welcome,
    pub(super) memory: Memory,
    pub(super) way: Way,
    /// The address at which other workers reach this one, as far as it is known here: that of its RDMA port, if that has one, else the
    /// one from which it reaches the daemon.
    pub(super) near: Option<IpAddr>,
    /// Others have to be told of it: it is not the one that the daemon sees.
    pub(super) elsewhere: bool,
}

/// How a session's shards and updates travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// By RDMA, rather than by TCP?
    pub rdma: bool,
    /// Why: which port and address, or why not by RDMA.
    pub reason: String,
}

/// Connects, shakes hands, and agrees on how the session travels.
pub(super) fn join(options: &JoinOptions, last: Option<Resume>, deadline: Instant) -> Result<Agreed, JoinError> {
    let mut stream = connect(options, deadline)?;
    let failed = |error| JoinError::Io { address: options.address.clone(), error: timed_out(error) };
    let left = time_left(deadline);
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_read_timeout(Some(left)).map_err(failed)?;
    stream.set_write_timeout(Some(left)).map_err(failed)?;
    let credential = Credential::from_token(&options.token);
    let bytes: [u8; CHALLENGE_BYTES] = read_whole(&mut stream).map_err(failed)??;
    let challenge = read_challenge(&bytes)?;
    let mut nonce: Nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| JoinError::Local(io::Error::other(error.to_string())))?;
    let identity = Identity::new(&options.job, options.worker);
    // Whether there is RDMA at all on this machine is known before the daemon is asked for it.
    let near = stream.local_addr().ok().map(|address| address.ip());
    let api = match options.transport {
        Transport::Tcp => Err(NoRdma { failure: LinkFailure::NotWanted, text: "the worker is set to TCP".into() }),
        Transport::Auto | Transport::Rdma => rdma::usable(&options.rdma, near),
    };
    let transports = if api.is_ok() { TRANSPORT_RDMA } else { 0 };
    let hello = Hello { identity, nonce, last, transports, marks: options.fingerprint.marks() };
    stream.write_all(&hello_frame(&hello, &credential, &challenge)).map_err(failed)?;
    let bytes: [u8; WELCOME_BYTES] = read_whole(&mut stream).map_err(failed)?.map_err(|why| refused(why, options))?;
    let welcome = read_welcome(&bytes, &credential, &challenge, &nonce)?;
    if welcome.worker != options.worker {
        return Err(HandshakeError::Plan(PlanError::Range("worker index")).into());
    }
    let plan = &welcome.plan;
    let memory = Memory::new(plan);
    let nonces = [&challenge, &nonce];
    let attached = match api {
        Err(why) => Err(why.text),
        Ok(api) => attach(&mut stream, api, options, &credential, nonces, &welcome, &memory)?,
    };
    if options.transport == Transport::Rdma
        && let Err(reason) = attached
    {
        return Err(JoinError::NoRdma { address: options.address.clone(), reason });
    }
    // The daemon may leave what belongs to a later round unread until the rounds before it have ended.
    let patience = plan.window * Duration::from_millis(u64::from(plan.deadline_ms)) + Duration::from_secs(10);
    // Every credit, the leave, what says that rounds are collected, and that RDMA has ended; and words about relayed chunks.
    let queue = plan.credits as usize + plan.window as usize + 4 + WORDS;
    let connection = tcp::connection(stream, queue, patience).map_err(JoinError::Local)?;
    let port = attached.as_ref().ok().and_then(Attachment::address);
    let elsewhere = port.is_some() && port != near;
    let near = port.or(near);
    let (connection, way) = match attached {
        Err(reason) => (connection, Way { rdma: false, reason }),
        Ok(attachment) => {
            let reason = attachment.why().to_owned();
            let fall_back = options.transport == Transport::Auto;
            (attachment.connect(connection, &welcome, identity.job, fall_back), Way { rdma: true, reason })
        }
    };
    Ok(Agreed { connection, welcome, memory, way, near, elsewhere })
}

/// Agrees with the daemon on an RDMA connection; the inner error says why there is none.
fn attach(
    stream: &mut TcpStream,
    api: &'static Api,
    options: &JoinOptions,
    credential: &Credential,
    nonces: [&Nonce; 2],
    welcome: &Welcome,
    memory: &Memory,
) -> Result<Result<Attachment, String>, JoinError> {
    let failed = |error| JoinError::Io { address: options.address.clone(), error: timed_out(error) };
    let bytes: [u8; OFFER_BYTES] = read_whole(stream).map_err(failed)??;
    let there = match read_offer(&bytes, credential, nonces)? {
        Ok(there) => there,
        Err(status) => return Ok(Err(format!("the daemon offers no RDMA: {}", LinkFailure::from_number(status)))),
    };
    let near = stream.local_addr().ok().map(|address| address.ip());
    let registered = rdma::Memory { shards: &memory.shards, places: &memory.places };
    let attachment = Attachment::new(api, &options.rdma, near, registered, &welcome.plan, &there);
    let told = match &attachment {
        Ok(attachment) => Ok((attachment.endpoint(), attachment.area())),
        Err(why) => Err(why.failure.number()),
    };
    stream.write_all(&attach_frame(&told, welcome, credential, nonces)).map_err(failed)?;
    let bytes: [u8; HEADER_BYTES] = read_whole(stream).map_err(failed)??;
    let status = read_attached(&bytes)?;
    Ok(match attachment {
        Ok(attachment) if status == 0 => Ok(attachment),
        Ok(_) => Err(format!("the daemon could not connect: {}", LinkFailure::from_number(status))),
        Err(why) => Err(why.text),
    })
}

/// What a refusal says to a person: numbers came, and the words are here.
fn refused(why: HandshakeError, options: &JoinOptions) -> JoinError {
    match why {
        HandshakeError::Refused(refusal @ Refusal::Mixed { fields, .. }) => {
            JoinError::Mixed { refusal, own: options.fingerprint.describe(fields) }
        }
        why => why.into(),
    }
}

fn time_left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

fn connect(options: &JoinOptions, deadline: Instant) -> Result<TcpStream, JoinError> {
    let failed = |error| JoinError::Connect { address: options.address.clone(), error };
    let addresses: Vec<SocketAddr> = options.address.to_socket_addrs().map_err(failed)?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, time_left(deadline)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

/// Reads a frame of known length, or the refusal that came instead.
fn read_whole<const N: usize>(stream: &mut TcpStream) -> io::Result<Result<[u8; N], HandshakeError>> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes[..HEADER_BYTES])?;
    let header = match Header::parse(bytes[..HEADER_BYTES].try_into().expect("a header's length")) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error.into())),
    };
    if let Some(refusal) = refusal_of(&header) {
        return Ok(Err(HandshakeError::Refused(refusal)));
    }
    stream.read_exact(&mut bytes[HEADER_BYTES..])?;
    Ok(Ok(bytes))
}
