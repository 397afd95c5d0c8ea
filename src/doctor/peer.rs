//! Two machines in, whether TCP connections between them work and what they carry out. Both ends are this program.
//!
//! ```text
//!  asks   --- HELLO ------------------>  serves
//!         <-- HELLO -------------------
//!         --- 32 bytes, again and again -->  the same back: round trips
//!         --- bytes for a while, END ----->
//!         <-- how many, and how long ------  there
//!         <-- bytes for a while, END ------  back
//! ```
//!
//! A block is a length (4 bytes, little endian) and so many bytes; a length of 0 ends. Nothing takes longer than it may.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::Serialize;

/// What both ends say first: a name and a version.
const HELLO: [u8; 8] = *b"solondr\x01";
/// Round trips that are measured.
const ECHOES: usize = 32;
const ECHO_BYTES: usize = 32;
const BLOCK_BYTES: usize = 1 << 18;
/// How long bytes go each way.
const STREAM: Duration = Duration::from_secs(1);
/// How long the other end may be silent.
const SILENCE: Duration = Duration::from_secs(5);
/// The longest that a whole examination may take at the end that serves it.
const WHOLE: Duration = Duration::from_secs(20);

/// What a connection between two machines is like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Path {
    /// This end.
    pub here: SocketAddr,
    /// The other one.
    pub peer: SocketAddr,
    /// Seconds for the connection to be made.
    pub connect_seconds: f64,
    /// Median seconds of a round trip of 32 bytes.
    pub round_trip_seconds: f64,
    /// Bytes per second from here to there, by the other end's count and clock.
    pub there: f64,
    /// Bytes per second from there to here.
    pub back: f64,
}

/// Why two machines do not reach each other.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The name has no address.
    #[error("{address}: {error}; expected HOST:PORT, as the other machine's `solon doctor --listen` prints it")]
    Name {
        /// What was asked for.
        address: String,
        /// What the resolver says.
        error: io::Error,
    },
    /// Somebody is there, and nobody listens.
    #[error("nobody listens at {0}: run `solon doctor --listen` there, and take the port that it prints")]
    Refused(SocketAddr),
    /// Nothing comes back.
    #[error(
        "no answer from {0} in {1:?}: packets are dropped on the way (a firewall on either machine or between them), or nobody \
         has this address"
    )]
    Silent(SocketAddr, Duration),
    /// The system knows no way.
    #[error("{address} cannot be connected to: {error}")]
    Unreachable {
        /// The other end.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// Something else listens.
    #[error(
        "what listens at {address} is not this version of `solon doctor --listen`: found {found:?}, expected {HELLO:?}"
    )]
    Stranger {
        /// The other end.
        address: SocketAddr,
        /// What it said first.
        found: Vec<u8>,
    },
    /// The connection was made, and ended or stalled later.
    #[error(
        "the connection with {address} was made, but then {doing} failed: {error}; if it stalls only with much data, a smaller \
         MTU on the way is a likely cause (compare `ping -M do -s 1472 HOST`)"
    )]
    Broken {
        /// The other end.
        address: SocketAddr,
        /// What was going on.
        doing: &'static str,
        /// What the system says.
        error: io::Error,
    },
}

/// Examines the way to whoever serves at `address`.
///
/// # Errors
/// If it cannot be reached, is not what it should be, or stops in between.
pub fn examine(address: &str) -> Result<Path, PeerError> {
    examine_for(address, STREAM)
}

fn examine_for(name: &str, each: Duration) -> Result<Path, PeerError> {
    let named = |error| PeerError::Name { address: name.into(), error };
    let mut addresses = name.to_socket_addrs().map_err(named)?;
    let mut address =
        addresses.next().ok_or_else(|| named(io::Error::new(ErrorKind::NotFound, "the name has no address")))?;
    let mut started = Instant::now();
    let mut connected = TcpStream::connect_timeout(&address, SILENCE);
    // A name may have addresses of both kinds.
    while connected.is_err()
        && let Some(next) = addresses.next()
    {
        (address, started) = (next, Instant::now());
        connected = TcpStream::connect_timeout(&address, SILENCE);
    }
    let mut stream = connected.map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused => PeerError::Refused(address),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => PeerError::Silent(address, SILENCE),
        _ => PeerError::Unreachable { address, error },
    })?;
    let connect_seconds = started.elapsed().as_secs_f64();
    let broken = |doing| move |error| PeerError::Broken { address, doing, error };
    prepare(&stream).map_err(broken("its preparation"))?;
    stream.write_all(&HELLO).map_err(broken("the greeting"))?;
    let mut hello = [0; HELLO.len()];
    let read = read_as_much(&mut stream, &mut hello).map_err(broken("the greeting"))?;
    if hello != HELLO {
        return Err(PeerError::Stranger { address, found: hello[..read].to_vec() });
    }
    let mut trips = [0.0; ECHOES];
    for trip in &mut trips {
        let started = Instant::now();
        let mut bytes = [7; ECHO_BYTES];
        stream.write_all(&bytes).and_then(|()| stream.read_exact(&mut bytes)).map_err(broken("a round trip"))?;
        *trip = started.elapsed().as_secs_f64();
    }
    trips.sort_unstable_by(f64::total_cmp);
    send(&mut stream, each).map_err(broken("sending"))?;
    let mut counted = [0; 16];
    stream.read_exact(&mut counted).map_err(broken("hearing what arrived"))?;
    let [bytes, nanoseconds] = [0, 8].map(|at| u64::from_le_bytes(*counted[at..].first_chunk().expect("8 bytes")));
    let there = rate(bytes, Duration::from_nanos(nanoseconds));
    let (bytes, took) = receive(&mut stream, Instant::now() + WHOLE).map_err(broken("receiving"))?;
    let here = stream.local_addr().map_err(broken("a look at this end"))?;
    let (round_trip_seconds, back) = (trips[ECHOES / 2], rate(bytes, took));
    Ok(Path { here, peer: address, connect_seconds, round_trip_seconds, there, back })
}

fn rate(bytes: u64, took: Duration) -> f64 {
    if took.is_zero() { 0.0 } else { bytes as f64 / took.as_secs_f64() }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))
}

/// Reads until the buffer is full or nothing comes any more.
fn read_as_much(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match stream.read(&mut buffer[read..]) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Sends blocks for so long.
fn send(stream: &mut TcpStream, each: Duration) -> io::Result<()> {
    let mut block = vec![0; 4 + BLOCK_BYTES];
    block[..4].copy_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
    let started = Instant::now();
    while started.elapsed() < each {
        stream.write_all(&block)?;
    }
    stream.write_all(&[0; 4])
}

/// Receives blocks until the end: how many bytes, and how long from the first one.
fn receive(stream: &mut TcpStream, until: Instant) -> io::Result<(u64, Duration)> {
    let mut block = vec![0; BLOCK_BYTES];
    let (mut bytes, mut started) = (0, None);
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let now = Instant::now();
        let length = u32::from_le_bytes(length) as usize;
        let since = *started.get_or_insert(now);
        if length == 0 {
            return Ok((bytes, now - since));
        }
        let block = block.get_mut(..length).ok_or(io::Error::new(ErrorKind::InvalidData, "a block is too long"))?;
        if now >= until {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.read_exact(block)?;
        bytes += length as u64;
    }
}

/// Serves one machine that examines the way to this one; who that was. Whoever says something else is sent away.
///
/// # Errors
/// If nothing can be accepted, or the connection breaks.
pub fn serve(listener: &TcpListener) -> io::Result<SocketAddr> {
    serve_for(listener, STREAM)
}

fn serve_for(listener: &TcpListener, each: Duration) -> io::Result<SocketAddr> {
    let (mut stream, peer) = listener.accept()?;
    let until = Instant::now() + WHOLE;
    prepare(&stream)?;
    let mut hello = [0; HELLO.len()];
    read_as_much(&mut stream, &mut hello)?;
    if hello != HELLO {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("{peer} is not `solon doctor --peer` of this version"),
        ));
    }
    stream.write_all(&HELLO)?;
    let mut echo = [0; ECHO_BYTES];
    for _ in 0..ECHOES {
        stream.read_exact(&mut echo)?;
        stream.write_all(&echo)?;
    }
    let (bytes, took) = receive(&mut stream, until)?;
    let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    stream.write_all([bytes, took].map(u64::to_le_bytes).as_flattened())?;
    send(&mut stream, each)?;
    Ok(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    #[test]
    fn two_ends_that_reach_each_other_know_how_fast() {
        let (listener, address) = listener();
        let serves = std::thread::spawn(move || serve_for(&listener, SHORT));
        let path = examine_for(&address, SHORT).unwrap();
        assert_eq!(serves.join().unwrap().unwrap(), path.here);
        assert_eq!(path.peer.to_string(), address);
        assert!(path.there > 0.0 && path.back > 0.0, "{path:?}");
        assert!(path.round_trip_seconds > 0.0 && path.connect_seconds > 0.0);
    }

    #[test]
    fn each_way_not_to_reach_somebody_is_named_with_what_to_do() {
        let text = |address: &str| examine_for(address, SHORT).unwrap_err().to_string();
        let (closed, address) = listener();
        drop(closed);
        assert!(text(&address).starts_with(&format!("nobody listens at {address}: run `solon doctor --listen`")));
        assert!(text("127.0.0.1").contains("expected HOST:PORT"));

        let (other, address) = listener();
        let answers = std::thread::spawn(move || {
            let (mut stream, _) = other.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request").unwrap();
            let _ = stream.read(&mut [0; 8]);
        });
        assert!(text(&address).contains("is not this version of `solon doctor --listen`"));
        answers.join().unwrap();

        let (ends, address) = listener();
        let answers = std::thread::spawn(move || {
            let (mut stream, _) = ends.accept().unwrap();
            stream.read_exact(&mut [0; 8]).unwrap();
            stream.write_all(&HELLO).unwrap();
        });
        assert!(text(&address).contains("a round trip failed"));
        answers.join().unwrap();
    }

    #[test]
    fn who_serves_sends_strangers_away_and_takes_no_block_that_is_too_long() {
        let (listener, address) = listener();
        let serves = std::thread::spawn(move || [serve_for(&listener, SHORT), serve_for(&listener, SHORT)]);
        TcpStream::connect(&address).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(&HELLO).unwrap();
        stream.write_all(&[0; ECHOES * ECHO_BYTES]).unwrap();
        stream.write_all(&u32::MAX.to_le_bytes()).unwrap();
        let [stranger, long] = serves.join().unwrap().map(|served| served.unwrap_err().to_string());
        assert!(stranger.contains("is not `solon doctor --peer`"), "{stranger}");
        assert_eq!(long, "a block is too long");
    }
}
