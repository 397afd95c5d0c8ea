//! The link that a run's daemon has: made, held to its rate, and measured once before it is used.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Subcommand;

use super::network::{DAEMON, End, Network, NotPermitted};
use super::pace::Forwarder;
use super::record::Shaping;
use crate::demo::worker::end_with_parent;

/// How long the link is loaded in each direction to measure its rate.
const PROBE: Duration = Duration::from_millis(250);

/// The longest that a probe may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The links of a lab: at most one at a time is in use.
pub struct Links {
    wanted: Option<Shaping>,
    network: Option<Result<Network, NotPermitted>>,
    /// By rate in bytes per second: what was measured.
    probed: BTreeMap<u64, [f64; 2]>,
}

/// What a run's processes have to know of their link.
pub enum Link<'a> {
    /// Loopback as it is.
    None,
    /// Everybody in its namespace.
    Namespaces(&'a Network),
    /// A forwarder at this rate, once the daemon's address is known.
    Pacing(f64),
}

/// Why a link cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Namespaces were asked for.
    #[error(transparent)]
    NotPermitted(#[from] NotPermitted),
    /// The link carries nothing.
    #[error("the link cannot be measured: {0}")]
    Probe(#[from] io::Error),
}

impl Links {
    /// Links shaped as wanted; without a wish by namespaces where they are permitted, else by pacing.
    pub fn new(wanted: Option<Shaping>) -> Links {
        Links { wanted, network: None, probed: BTreeMap::new() }
    }

    /// How links with a rate are shaped here; and if not by namespaces, why. Makes the namespaces if it can.
    pub fn shaping(&mut self) -> (Shaping, Option<String>) {
        if let Some(wanted @ (Shaping::Pacing | Shaping::None)) = self.wanted {
            return (wanted, None);
        }
        match self.network.get_or_insert_with(Network::make) {
            Ok(_) => (Shaping::Namespaces, None),
            Err(why) => (Shaping::Pacing, Some(why.to_string())),
        }
    }

    /// How a link of this rate would be shaped. Makes the namespaces if it can and must.
    pub fn expected(&mut self, rate: Option<f64>) -> Shaping {
        match (rate, self.wanted) {
            (None, _) => Shaping::None,
            (_, Some(wanted)) => wanted,
            (_, None) => self.shaping().0,
        }
    }

    /// A link of this rate in bytes per second, how it is shaped, and what a probe measured of it.
    ///
    /// # Errors
    /// If namespaces were asked for and cannot be made, or the link carries nothing.
    pub fn get(
        &mut self,
        program: &Path,
        rate: Option<f64>,
    ) -> Result<(Link<'_>, Shaping, Option<[f64; 2]>), LinkError> {
        let Some(rate) = rate else { return Ok((Link::None, Shaping::None, None)) };
        let (shaping, _) = self.shaping();
        if self.wanted == Some(Shaping::Namespaces) && shaping != Shaping::Namespaces {
            // Made again for its error.
            Network::make()?;
        }
        if let (Shaping::Namespaces, Some(Ok(network))) = (shaping, &self.network) {
            network.shape(rate)?;
        }
        let network = self.network.as_ref().and_then(|network| network.as_ref().ok());
        let link = match shaping {
            Shaping::None => return Ok((Link::None, Shaping::None, None)),
            Shaping::Pacing => Link::Pacing(rate),
            Shaping::Namespaces => Link::Namespaces(network.expect("made above")),
        };
        let measured = match self.probed.get(&(rate as u64)) {
            Some(measured) => *measured,
            None => link.probe(program, rate)?,
        };
        self.probed.insert(rate as u64, measured);
        Ok((link, shaping, Some(measured)))
    }
}

impl Link<'_> {
    /// Where the daemon listens.
    pub fn daemon(&self) -> IpAddr {
        let address = if let Link::Namespaces(_) = self { DAEMON } else { "127.0.0.1" };
        address.parse().expect("written as addresses are")
    }

    /// Program and arguments that run a command at an end.
    pub fn at(&self, end: End, program: &Path, arguments: Vec<String>) -> (PathBuf, Vec<String>) {
        match self {
            Link::Namespaces(network) => network.at(end, program, arguments),
            Link::None | Link::Pacing(_) => (program.into(), arguments),
        }
    }

    /// The way to a daemon that listens there: what workers connect to, and what is to be kept as long as they do.
    ///
    /// # Errors
    /// If there is no port left.
    pub fn to(&self, daemon: &str) -> io::Result<(String, Option<Forwarder>)> {
        let Link::Pacing(rate) = self else { return Ok((daemon.to_owned(), None)) };
        let address: SocketAddr = daemon.parse().map_err(|_| io::Error::other(format!("{daemon} is no address")))?;
        let forwarder = Forwarder::start(address, *rate)?;
        Ok((forwarder.address().to_string(), Some(forwarder)))
    }

    /// Bytes per second that go over the link, up and down.
    fn probe(&self, program: &Path, rate: f64) -> io::Result<[f64; 2]> {
        let start = |end, arguments: &[String]| {
            let all = std::iter::once("lab-probe".to_owned()).chain(arguments.iter().cloned()).collect();
            let (program, arguments) = self.at(end, program, all);
            Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map(Killed)
        };
        let mut far = start(End::Daemon, &["serve".into(), self.daemon().to_string()])?;
        let address = far.line()?;
        let (address, _forwarder) = self.to(address.trim())?;
        let bytes = (rate * PROBE.as_secs_f64()).max(65536.0) as u64;
        let said = start(End::Workers, &["ask".into(), address, bytes.to_string()])?.line()?;
        match said.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>().as_deref() {
            Ok([up, down]) => Ok([*up, *down]),
            _ => Err(io::Error::other(format!("a probe says {said:?}, expected two rates"))),
        }
    }
}

struct Killed(Child);

impl Killed {
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().expect("piped")).read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An end of a probe.
#[derive(Clone, Debug, Subcommand)]
pub enum Probe {
    /// The daemon's end: says where it listens, and takes one connection
    Serve {
        /// Where to listen
        address: IpAddr,
    },
    /// The workers' end: says bytes per second towards the other end, and from there
    Ask {
        /// Where the other end listens
        address: SocketAddr,
        /// Bytes to send, and to get
        bytes: u64,
    },
}

/// Runs an end of a probe, which ends with its standard input: so nothing is left of a lab that was killed.
///
/// # Errors
/// If the connection fails, or takes too long.
pub fn probe(end: &Probe) -> io::Result<()> {
    end_with_parent();
    match end {
        Probe::Serve { address } => {
            let listener = TcpListener::bind((*address, 0))?;
            println!("{}", listener.local_addr()?);
            let (stream, _) = listener.accept()?;
            serve(bounded(stream)?)
        }
        Probe::Ask { address, bytes } => {
            let [up, down] = ask(bounded(TcpStream::connect_timeout(address, PATIENCE)?)?, *bytes)?;
            println!("{up} {down}");
            Ok(())
        }
    }
}

fn bounded(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut length = [0; 8];
    stream.read_exact(&mut length)?;
    let bytes = u64::from_le_bytes(length);
    io::copy(&mut (&stream).take(bytes), &mut io::sink())?;
    stream.write_all(&[1])?;
    io::copy(&mut io::repeat(0).take(bytes), &mut stream)?;
    Ok(())
}

fn ask(mut stream: TcpStream, bytes: u64) -> io::Result<[f64; 2]> {
    let began = Instant::now();
    stream.write_all(&bytes.to_le_bytes())?;
    io::copy(&mut io::repeat(0).take(bytes), &mut stream)?;
    stream.read_exact(&mut [0])?;
    let up = began.elapsed();
    io::copy(&mut (&stream).take(bytes), &mut io::sink())?;
    let down = began.elapsed() - up;
    Ok([up, down].map(|time| bytes as f64 / time.as_secs_f64().max(1e-9)))
}
