//! Two machines in, whether connections between them work and what they carry out. Both ends are this program.
//!
//! ```text
//!  asks   --- HELLO ------------------>  serves
//!         <-- HELLO -------------------
//!         --- 32 bytes, again and again -->  the same back: round trips
//!         --- bytes for a while, END ----->
//!         <-- how many, and how long ------  there
//!         <-- bytes for a while, END ------  back
//!         <-- then the same by RDMA ------>  see [`verbs`]
//! ```
//!
//! A block is a length (4 bytes, little endian) and so many bytes; a length of 0 ends. No end is waited for longer than it may take,
//! however slowly its bytes come.

mod verbs;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::transport::rdma::Options;
use crate::transport::timed_out;

use super::{Outcome, Status};
pub use verbs::{NoWay, RdmaPath};

/// What both ends say first: a name and a version.
const HELLO: [u8; 8] = *b"solondr\x02";
/// Round trips that are measured.
const ECHOES: usize = 32;
const ECHO_BYTES: usize = 32;
const BLOCK_BYTES: usize = 1 << 18;
/// How long bytes go each way.
const STREAM: Duration = Duration::from_secs(1);
/// How long the other end may be silent.
const SILENCE: Duration = Duration::from_secs(5);
/// The longest that a whole examination may take.
const WHOLE: Duration = Duration::from_secs(30);
/// Machines that are served at the same time.
const SERVED: usize = 4;
/// The port that `--listen` takes and `--peer` asks if none is named.
pub const PORT: u16 = 7450;

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
    #[error("{address}: {error}; expected HOST or HOST:PORT, as the other machine's `solon doctor --listen` prints it")]
    Name {
        /// What was asked for.
        address: String,
        /// What the resolver says.
        error: io::Error,
    },
    /// Somebody is there, and nobody listens.
    #[error("nobody listens at {0}: run `solon doctor --listen` there, and take the port that it prints")]
    Refused(SocketAddr),
    /// It has no time, or went away at once.
    #[error("{0} ended the connection at once: it serves others now, try again; or it is another program")]
    Busy(SocketAddr),
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

/// What is between two machines.
#[derive(Debug, Serialize)]
pub struct Way {
    /// By TCP.
    pub tcp: Path,
    /// By RDMA, or why not.
    pub rdma: Result<RdmaPath, NoWay>,
}

/// A connection on which nothing is waited for after a moment, or for long.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    fn new(stream: TcpStream, until: Instant) -> io::Result<Timed> {
        stream.set_nodelay(true)?;
        Ok(Timed { stream, until })
    }

    /// So long from now, or until the end of the whole.
    fn within(&self, time: Duration) -> Instant {
        self.until.min(Instant::now() + time)
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now()).min(SILENCE);
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer).map_err(timed_out)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// How long what is tried goes on: shorter in tests.
#[derive(Clone, Copy)]
struct Times {
    /// Bytes by TCP, each way.
    stream: Duration,
    whole: Duration,
}

const TIMES: Times = Times { stream: STREAM, whole: WHOLE };

/// Examines the way to whoever serves at `address`, a host with or without a port ([`PORT`]). RDMA is tried as a worker of these
/// options would.
///
/// # Errors
/// If it cannot be reached, is not what it should be, or stops in between.
pub fn examine(address: &str, options: &Options) -> Result<Way, PeerError> {
    examine_for(address, options, TIMES)
}

/// The addresses of a host with or without a port.
fn addresses(name: &str) -> io::Result<Vec<SocketAddr>> {
    let has_port = name.parse::<SocketAddr>().is_ok() || name.matches(':').count() == 1;
    let addresses: Vec<SocketAddr> =
        if has_port { name.to_socket_addrs()?.collect() } else { (name, PORT).to_socket_addrs()?.collect() };
    if addresses.is_empty() {
        return Err(io::Error::new(ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

fn examine_for(name: &str, options: &Options, times: Times) -> Result<Way, PeerError> {
    let addresses = addresses(name).map_err(|error| PeerError::Name { address: name.into(), error })?;
    // A name may have addresses of both kinds.
    let mut tried = addresses.into_iter().map(|address| {
        let started = Instant::now();
        (address, started, TcpStream::connect_timeout(&address, SILENCE))
    });
    let first = tried.next().expect("a name without addresses is refused above");
    let (address, started, connected) = match first {
        (_, _, Err(_)) => tried.find(|(_, _, connected)| connected.is_ok()).unwrap_or(first),
        first => first,
    };
    let stream = connected.map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused => PeerError::Refused(address),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => PeerError::Silent(address, SILENCE),
        _ => PeerError::Unreachable { address, error },
    })?;
    let connect_seconds = started.elapsed().as_secs_f64();
    let broken = |doing| move |error| PeerError::Broken { address, doing, error };
    let mut stream = Timed::new(stream, Instant::now() + times.whole).map_err(broken("its preparation"))?;
    stream.write_all(&HELLO).map_err(broken("the greeting"))?;
    let mut hello = [0; HELLO.len()];
    let read = match read_as_much(&mut stream, &mut hello) {
        Ok(0) => return Err(PeerError::Busy(address)),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(PeerError::Busy(address)),
        read => read.map_err(broken("the greeting"))?,
    };
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
    send(&mut stream, times.stream).map_err(broken("sending"))?;
    let mut counted = [0; 16];
    stream.read_exact(&mut counted).map_err(broken("hearing what arrived"))?;
    let [bytes, nanoseconds] = [0, 8].map(|at| u64::from_le_bytes(*counted[at..].first_chunk().expect("8 bytes")));
    let there = rate(bytes, Duration::from_nanos(nanoseconds));
    let (bytes, took) = receive(&mut stream).map_err(broken("receiving"))?;
    let here = stream.stream.local_addr().map_err(broken("a look at this end"))?;
    let (round_trip_seconds, back) = (trips[ECHOES / 2], rate(bytes, took));
    let tcp = Path { here, peer: address, connect_seconds, round_trip_seconds, there, back };
    let rdma = verbs::ask(&mut stream, options, times.stream / 2);
    Ok(Way { tcp, rdma })
}

fn rate(bytes: u64, took: Duration) -> f64 {
    if took.is_zero() { 0.0 } else { bytes as f64 / took.as_secs_f64() }
}

/// Reads until the buffer is full or nothing comes any more.
fn read_as_much(stream: &mut Timed, buffer: &mut [u8]) -> io::Result<usize> {
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
fn send(stream: &mut Timed, each: Duration) -> io::Result<()> {
    let mut block = vec![0; 4 + BLOCK_BYTES];
    block[..4].copy_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
    let started = Instant::now();
    while started.elapsed() < each {
        stream.write_all(&block)?;
    }
    stream.write_all(&[0; 4])
}

/// Receives blocks until the end: how many bytes, and how long from the first one.
fn receive(stream: &mut Timed) -> io::Result<(u64, Duration)> {
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
        stream.read_exact(block)?;
        bytes += length as u64;
    }
}

/// Serves machines that examine the way to this one, a few at a time, and says of each who it was or what went wrong. Whoever says
/// something else is sent away, as is everybody beyond a few.
///
/// # Errors
/// If nothing can be accepted any more.
pub fn serve(
    listener: &TcpListener,
    options: &Options,
    told: impl Fn(io::Result<SocketAddr>) + Send + Sync + 'static,
) -> io::Result<()> {
    serve_for(listener, options, TIMES, Arc::new(told))
}

type Told = Arc<dyn Fn(io::Result<SocketAddr>) + Send + Sync>;

fn serve_for(listener: &TcpListener, options: &Options, times: Times, told: Told) -> io::Result<()> {
    // One more reference than there are machines being served.
    let served = Arc::new(());
    loop {
        let (stream, peer) = listener.accept()?;
        if Arc::strong_count(&served) > SERVED {
            told(Err(io::Error::other(format!("{peer} was sent away: {SERVED} others are being served"))));
            continue;
        }
        let (one, told, options) = (served.clone(), told.clone(), options.clone());
        let work = move || {
            let done = serve_one(stream, peer, &options, times).map(|()| peer);
            drop(one);
            told(done);
        };
        std::thread::Builder::new().name("solon-doctor".into()).spawn(work)?;
    }
}

fn serve_one(stream: TcpStream, peer: SocketAddr, options: &Options, times: Times) -> io::Result<()> {
    let mut stream = Timed::new(stream, Instant::now() + times.whole)?;
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
    let (bytes, took) = receive(&mut stream)?;
    let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    stream.write_all([bytes, took].map(u64::to_le_bytes).as_flattened())?;
    send(&mut stream, times.stream)?;
    verbs::answer(&mut stream, options, times.stream / 2)
}

fn gigabits(bytes: f64) -> String {
    format!("{:.3} Gbit/s ({:.0} MB/s)", 8e-9 * bytes, 1e-6 * bytes)
}

/// What a way, or the lack of one, comes to: by TCP and by RDMA.
pub fn outcomes(way: &Result<Way, PeerError>) -> [Outcome; 2] {
    let way = match way {
        Ok(way) => way,
        Err(error) => {
            let expected = "a connection";
            let hint = "what is said above; then the other way round: --listen here, --peer there";
            let tcp = Outcome::of(Status::Fail, error.to_string(), expected, hint);
            return [tcp, Outcome::skip("the two ends agree on RDMA over TCP")];
        }
    };
    let Path { here, peer, connect_seconds, round_trip_seconds, there, back } = &way.tcp;
    let tcp = Outcome::pass(format!(
        "{here} reaches {peer}\nconnected in {:.3} ms, round trip {:.3} ms\nthere {}, back {} (one connection: several may carry more)",
        1e3 * connect_seconds,
        1e3 * round_trip_seconds,
        gigabits(*there),
        gigabits(*back)
    ));
    let rdma = match &way.rdma {
        Ok(RdmaPath { here, peer, mtu: [own, other], round_trip_seconds, there, back }) => {
            let found = format!(
                "{here} reaches {peer}, {} bytes per packet\n64 KiB there and back, compared: {:.3} ms\nSEND there {}, WRITE back {}",
                own.min(other),
                1e3 * round_trip_seconds,
                gigabits(*there),
                gigabits(*back)
            );
            let hint =
                "MTU mismatch: the smaller one holds; raise that of the interface there if packets are to be larger";
            match own == other {
                true => Outcome::pass(found),
                false => Outcome::of(Status::Note, format!("{found}\nMTU {own} here, {other} there"), "", hint),
            }
        }
        Err(NoWay::Lacking(why)) => Outcome::of(Status::Note, format!("not tried: {why}"), "", ""),
        Err(NoWay::Failed { error, hint }) => {
            Outcome::of(Status::Fail, error.clone(), "the same as by TCP", hint.clone())
        }
    };
    [tcp, rdma]
}

#[cfg(test)]
mod tests;
