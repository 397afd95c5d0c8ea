//! The link between the daemon and its workers, held to a rate without any rights: workers connect to a forwarder, which passes bytes on no
//! faster than a token bucket per direction lets it.
//!
//! It costs this machine a copy of every byte, which is why the kernel's own ([`network`](super::network)) is preferred where it is
//! permitted. The data path knows nothing of it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;

/// Bytes that are passed on at once. The kernel's buffers are as large: what waits there has not gone over the link yet.
const PIECE_BYTES: usize = 32 << 10;

/// Lets so many bytes through per second, and so much at once as comes in a millisecond.
#[derive(Debug)]
pub struct Bucket {
    rate: f64,
    /// Until when the link is taken by what went before.
    taken_until: Instant,
}

impl Bucket {
    /// Time that may be made up for after a pause.
    const BURST: Duration = Duration::from_millis(1);

    /// A bucket for `rate` bytes per second.
    pub fn new(rate: f64, now: Instant) -> Bucket {
        Bucket { rate, taken_until: now }
    }

    /// Takes the link for so many bytes; how long they have to wait.
    pub fn take(&mut self, bytes: usize, now: Instant) -> Duration {
        let from = self.taken_until.max(now.checked_sub(Bucket::BURST).unwrap_or(now));
        self.taken_until = from + Duration::from_secs_f64(bytes as f64 / self.rate);
        self.taken_until.saturating_duration_since(now)
    }
}

/// A forwarder; it takes no new connections when this is dropped.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Forwarder {
    /// Forwards to `daemon`, at most `rate` bytes per second in each direction over all connections together.
    ///
    /// # Errors
    /// If there is no port left.
    pub fn start(daemon: SocketAddr, rate: f64) -> io::Result<Forwarder> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let over = Arc::new(AtomicBool::new(false));
        let ended = over.clone();
        let now = Instant::now();
        let buckets = [(); 2].map(|()| Arc::new(Mutex::new(Bucket::new(rate, now))));
        std::thread::Builder::new().name("lab-forward".into()).spawn(move || {
            for worker in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                // One that cannot be passed on is closed, which its worker notices.
                let _ = forward(worker, daemon, &buckets);
            }
        })?;
        Ok(Forwarder { address, over })
    }

    /// Where workers connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Has the thread look.
        let _ = TcpStream::connect(self.address);
    }
}

fn forward(worker: TcpStream, daemon: SocketAddr, buckets: &[Arc<Mutex<Bucket>>; 2]) -> io::Result<()> {
    let daemon = TcpStream::connect(daemon)?;
    for stream in [&worker, &daemon] {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        socket.set_recv_buffer_size(PIECE_BYTES)?;
        socket.set_send_buffer_size(PIECE_BYTES)?;
    }
    let back = (daemon.try_clone()?, worker.try_clone()?);
    for ((from, to), bucket) in [(worker, daemon), back].into_iter().zip(buckets.clone()) {
        std::thread::Builder::new().name("lab-forward".into()).spawn(move || {
            // Either end may be gone: then the other one learns it.
            let _ = pass_on(&from, &to, &bucket);
            let _ = to.shutdown(Shutdown::Write);
            let _ = from.shutdown(Shutdown::Read);
        })?;
    }
    Ok(())
}

fn pass_on(mut from: &TcpStream, mut to: &TcpStream, bucket: &Mutex<Bucket>) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let bytes = from.read(&mut piece)?;
        if bytes == 0 {
            return Ok(());
        }
        let wait = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, Instant::now());
        std::thread::sleep(wait);
        to.write_all(&piece[..bytes])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_its_rate_through_and_makes_up_for_no_more_than_its_burst() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1e6, start);
        assert_eq!(bucket.take(1000, start), Duration::from_millis(1));
        assert_eq!(bucket.take(1000, start), Duration::from_millis(2));
        let later = start + Duration::from_secs(1);
        assert_eq!(bucket.take(1000, later), Duration::ZERO, "a millisecond may be made up for");
        assert_eq!(bucket.take(1000, later), Duration::from_millis(1), "a second may not");
    }

    #[test]
    fn bytes_go_both_ways_and_an_end_is_passed_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let forwarder = Forwarder::start(listener.local_addr().unwrap(), 1e9).unwrap();
        let mut near = TcpStream::connect(forwarder.address()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(b"up").unwrap();
        far.write_all(b"down").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let (mut up, mut down) = (String::new(), [0; 4]);
        far.read_to_string(&mut up).unwrap();
        near.read_exact(&mut down).unwrap();
        assert_eq!((up.as_str(), &down), ("up", b"down"));
    }
}
