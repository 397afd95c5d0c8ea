//! The way between two machines by RDMA: with the verbs of a session, agreed on over the connection that TCP was tried on.
//!
//! ```text
//!  asks   --- its end, or why it has none -->  serves
//!         <-- its end, or why it has none ---
//!         <-- connected ---------------------
//!         === SEND ==========================>
//!         <== WRITE WITH IMMEDIATE ===========  compared: the echo
//!         === SEND, for a while =============>
//!         <-- how many, and how long ---------  there
//!         <== WRITE, for a while =============  back
//! ```
//!
//! What is said over TCP is JSON behind its length (2 bytes).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::doctor::rdma::advice;
use crate::transport::rdma::Options;
use crate::transport::rdma::ffi::Api;
use crate::transport::rdma::trial::{End, Joined, Side, TrialError};
use crate::wire::{Area, Endpoint};

use super::{Timed, rate};

/// The longest word.
const WORD_BYTES_MAX: u16 = 4096;
/// How long an echo, and the end of a stream, may take. Longer than a device needs to give up a path that is cut.
const PATIENCE: Duration = Duration::from_secs(5);

/// What RDMA between two machines is like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RdmaPath {
    /// This end's port and address.
    pub here: String,
    /// The other one's.
    pub peer: String,
    /// Bytes per packet that this end would take, and the other one: the smaller one holds.
    pub mtu: [u32; 2],
    /// Seconds for 64 KiB to go and come back.
    pub round_trip_seconds: f64,
    /// Bytes per second from here to there, by the other end's count and clock.
    pub there: f64,
    /// Bytes per second from there to here.
    pub back: f64,
}

/// Why there is no RDMA between two machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NoWay {
    /// One of them has none.
    Lacking(String),
    /// Both have, and it does not work.
    Failed {
        /// How it failed.
        error: String,
        /// What to do.
        hint: String,
    },
}

/// One end, as the other one must know it.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Told {
    number: u32,
    sequence: u32,
    gid: [u8; 16],
    lid: u16,
    mtu: u8,
    global: bool,
    address: u64,
    stride: u64,
    key: u32,
    places: u32,
}

impl Told {
    fn of(end: &End) -> Told {
        let Endpoint { number, sequence, gid, lid, mtu, global } = end.endpoint();
        let Area { address, stride, key, rounds: places } = end.area();
        Told { number, sequence, gid, lid, mtu, global, address, stride, key, places }
    }

    fn endpoint(&self) -> Endpoint {
        let Told { number, sequence, gid, lid, mtu, global, .. } = *self;
        Endpoint { number: number & 0xff_ffff, sequence: sequence & 0xff_ffff, gid, lid, mtu: mtu.clamp(1, 5), global }
    }

    fn area(&self) -> Area {
        Area { address: self.address, stride: self.stride, key: self.key, rounds: self.places }
    }
}

type Word<T> = Result<T, String>;

fn say<T: Serialize>(stream: &mut Timed, word: &Word<T>) -> io::Result<()> {
    let mut text = serde_json::to_vec(word)?;
    if text.len() > usize::from(WORD_BYTES_MAX) {
        text = serde_json::to_vec(&Word::<T>::Err("for a reason that is too long to be told".into()))?;
    }
    let length = u16::try_from(text.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_le_bytes()[..], &text].concat())
}

fn hear<T: for<'a> Deserialize<'a>>(stream: &mut Timed) -> io::Result<Word<T>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let length = u16::from_le_bytes(length);
    if length > WORD_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "a word is too long"));
    }
    let mut text = vec![0; usize::from(length)];
    stream.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn open(stream: &Timed, options: &Options, side: Side) -> Word<End> {
    let near: Option<IpAddr> = stream.stream.local_addr().ok().map(|address| address.ip());
    let api = Api::load().map_err(|error| error.to_string())?;
    End::open(api, options, near.filter(|ip| !ip.is_loopback()), side).map_err(|error| error.to_string())
}

/// Tries it, from the end that asks.
pub(super) fn ask(stream: &mut Timed, options: &Options, each: Duration) -> Result<RdmaPath, NoWay> {
    let failed = |error: &TrialError| NoWay::Failed { error: error.to_string(), hint: advice(error).into() };
    let told = |error: io::Error| NoWay::Failed {
        error: format!("the other end did not say how it went: {error}"),
        hint: "look at what it prints".into(),
    };
    let there = |error: String| NoWay::Failed {
        error: format!("at the other end: {error}"),
        hint: "do there what it says".into(),
    };
    let own = open(stream, options, Side::Asks);
    say(stream, &own.as_ref().map(Told::of).map_err(Clone::clone)).map_err(told)?;
    let other = hear::<Told>(stream).map_err(told)?;
    let (end, other) = match (own, other) {
        (Ok(end), Ok(other)) => (end, other),
        (Err(error), _) => return Err(NoWay::Lacking(format!("here: {error}"))),
        (_, Err(error)) => return Err(NoWay::Lacking(format!("at the other end: {error}"))),
    };
    let choice = end.choice().clone();
    let gid = |raw: [u8; 16]| Ipv6Addr::from(raw).to_canonical();
    let here = format!("{}:{} {}", choice.device, choice.port, gid(choice.gid));
    let mtu = [choice.mtu, 128 << other.endpoint().mtu];
    let joined = end.connect(&other.endpoint());
    say(stream, &joined.as_ref().map(|_| ()).map_err(ToString::to_string)).map_err(told)?;
    let mut joined = joined.map_err(|error| failed(&error))?;
    hear::<()>(stream).map_err(told)?.map_err(there)?;
    // Cold caches, and the first look for an address.
    joined.echo(1, stream.within(PATIENCE)).map_err(|error| failed(&error))?;
    let started = Instant::now();
    joined.echo(2, stream.within(PATIENCE)).map_err(|error| failed(&error))?;
    let round_trip_seconds = started.elapsed().as_secs_f64();
    joined.stream(each, None, stream.within(each + PATIENCE)).map_err(|error| failed(&error))?;
    let (bytes, nanoseconds) = hear::<(u64, u64)>(stream).map_err(told)?.map_err(there)?;
    let (back, took) = joined.take(stream.within(each + PATIENCE)).map_err(|error| failed(&error))?;
    Ok(RdmaPath {
        here,
        peer: format!("GID {}", gid(other.gid)),
        mtu,
        round_trip_seconds,
        there: rate(bytes, Duration::from_nanos(nanoseconds)),
        back: rate(back, took),
    })
}

/// Tries it, from the end that serves. That there is no RDMA is no error.
pub(super) fn answer(stream: &mut Timed, options: &Options, each: Duration) -> io::Result<()> {
    let own = open(stream, options, Side::Serves);
    let other = hear::<Told>(stream)?;
    say(stream, &own.as_ref().map(Told::of).map_err(Clone::clone))?;
    let (Ok(end), Ok(other)) = (own, other) else { return Ok(()) };
    let joined = end.connect(&other.endpoint());
    let theirs = hear::<()>(stream)?;
    say(stream, &joined.as_ref().map(|_| ()).map_err(ToString::to_string))?;
    let (Ok(mut joined), Ok(())) = (joined, theirs) else { return Ok(()) };
    let counted = count(&mut joined, &other.area(), stream, each);
    say(stream, &counted.as_ref().copied().map_err(ToString::to_string))?;
    let until = stream.within(each + PATIENCE);
    counted.and_then(|_| joined.stream(each, Some(&other.area()), until)).map_err(io::Error::other)
}

/// Two echoes, then bytes and nanoseconds of what came for a while.
fn count(joined: &mut Joined, area: &Area, stream: &Timed, each: Duration) -> Result<(u64, u64), TrialError> {
    joined.answer(area, stream.within(PATIENCE))?;
    joined.answer(area, stream.within(PATIENCE))?;
    let (bytes, took) = joined.take(stream.within(each + 2 * PATIENCE))?;
    Ok((bytes, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)))
}
