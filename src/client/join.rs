//! Connecting and the handshake, in the caller's thread and bounded in time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::error::JoinError;
use super::worker::JoinOptions;
use crate::wire::{
    CHALLENGE_BYTES, Credential, HEADER_BYTES, HandshakeError, Header, Identity, Nonce, PlanError, Resume,
    WELCOME_BYTES, Welcome, hello_frame, read_challenge, read_welcome, refusal_of,
};

/// Connects and shakes hands.
pub(super) fn handshake(
    options: &JoinOptions,
    last: Option<Resume>,
    deadline: Instant,
) -> Result<(TcpStream, Welcome), JoinError> {
    let mut stream = connect(options, deadline)?;
    let failed = |error| JoinError::Io { address: options.address.clone(), error };
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
    stream.write_all(&hello_frame(identity, &credential, &challenge, &nonce, last, 0)).map_err(failed)?;
    let bytes: [u8; WELCOME_BYTES] = read_whole(&mut stream).map_err(failed)??;
    let welcome = read_welcome(&bytes, &credential, &challenge, &nonce)?;
    if welcome.worker != options.worker {
        return Err(HandshakeError::Plan(PlanError::Range("worker index")).into());
    }
    Ok((stream, welcome))
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
