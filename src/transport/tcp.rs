//! Frames over TCP: payloads are read straight into their slots, several frames leave in one vectored write.
//!
//! ```text
//!  one read:   rest of a payload | header | payload | header | payload | header | ...
//!              known               next     guessed   checked afterwards
//! ```
//!
//! Where the receiver can guess what comes next, one read takes several frames. A header that says otherwise has the bytes behind it
//! taken out of where they landed; that is a copy, and rare: the last chunk of a round is skipped, or a worker takes its leave.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use socket2::{SockRef, TcpKeepalive};

use super::{Connection, Disconnect, Flushed, Inbound, Landing, Outbound, Outgoing};
use crate::wire::{HEADER_BYTES, Header, Violation};

/// Bytes of kernel buffer per direction. Measured for 45 connections over loopback: 128 KiB cost three times the round time
/// of 1 MiB, 4 MiB up to five times (the receiver's cache is lost).
pub(crate) const SOCKET_BUFFER_BYTES: usize = 1 << 20;

/// Frames handed to one vectored write.
const FRAMES_PER_WRITE: usize = 16;

/// Frames that one read can bring.
const FRAMES_PER_READ: usize = 8;

/// Bytes that one read takes, where frames are shorter. Measured: 256 KiB take 0.82 to 0.95 of the time of 64 KiB, 1 MiB no less.
const READ_BYTES: usize = 4 * (HEADER_BYTES + (64 << 10));

/// Keep-alive probes: a peer whose machine is gone is noticed after about three of these, where nothing is being sent.
const PROBE: Duration = Duration::from_secs(1);

/// The two halves of a connected socket. `queue` bounds the frames waiting to leave. A peer that acknowledges nothing, or has no
/// room, for `patience` is given up by the kernel: longer than an honest peer may have to wait before it reads.
///
/// # Errors
/// If the socket's options cannot be set or it cannot be split.
pub fn connection(stream: TcpStream, queue: usize, patience: Duration) -> io::Result<Connection> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE).with_interval(PROBE).with_retries(2))?;
    socket.set_tcp_user_timeout(Some(patience))?;
    // Two descriptors, so that each half can be registered with a poll of its own.
    let outbound = TcpOutbound {
        stream: stream.try_clone()?,
        queue: VecDeque::with_capacity(queue),
        limit: queue,
        sent: 0,
        calls: 0,
    };
    let inbound = TcpInbound::new(stream);
    Ok(Connection { inbound: Box::new(inbound), outbound: Box::new(outbound) })
}

struct TcpInbound {
    stream: TcpStream,
    /// The headers that one read can bring.
    headers: [[u8; HEADER_BYTES]; FRAMES_PER_READ],
    /// Which of them is the next one, and how much of it has come.
    next: usize,
    staged: usize,
    /// Bytes that have come behind it, all of them where they belong: frames that were guessed.
    behind: usize,
    /// The frame whose payload is being read, and how much of it has landed.
    current: Option<Header>,
    landed: usize,
    /// Bytes that came where another frame was guessed, and how many of them were taken since.
    astray: Vec<u8>,
    taken: usize,
    /// System calls that nobody has asked for yet.
    calls: u64,
}

/// Reads once; `None` where it would block.
fn read_some(result: io::Result<usize>) -> Result<Option<usize>, Disconnect> {
    match result {
        Ok(0) => Err(Disconnect::Closed),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Some(0)),
        Err(error) => Err(error.into()),
    }
}

impl TcpInbound {
    fn new(stream: TcpStream) -> TcpInbound {
        // Touched now, so that no round takes a page fault for it.
        let mut astray = vec![1; READ_BYTES];
        astray.clear();
        TcpInbound {
            stream,
            headers: [[0; HEADER_BYTES]; FRAMES_PER_READ],
            next: 0,
            staged: 0,
            behind: 0,
            current: None,
            landed: 0,
            astray,
            taken: 0,
            calls: 0,
        }
    }

    /// The next header is known: its payload has landed as far as it came behind it.
    fn begin(&mut self, header: Header) {
        let length = header.payload_bytes as usize;
        self.landed = self.behind.min(length);
        self.behind -= self.landed;
        (self.next, self.staged) =
            if self.landed == length { (self.next + 1, self.behind.min(HEADER_BYTES)) } else { (0, 0) };
        self.behind -= self.staged;
        self.current = Some(header);
    }

    /// Reads the rest of a header that came in parts.
    fn read_header(&mut self) -> Result<Option<usize>, Disconnect> {
        let missing = &mut self.headers[self.next][self.staged..];
        if let Some(bytes) = take(&self.astray, &mut self.taken, missing) {
            return Ok(Some(bytes));
        }
        self.calls += 1;
        read_some(self.stream.read(missing))
    }

    /// Reads the rest of a payload, and what may have come behind it; the bytes that belong to the payload.
    fn read_payload(
        &mut self,
        missing: &mut [u8],
        further: [&mut [u8]; FRAMES_PER_READ - 1],
    ) -> Result<Option<usize>, Disconnect> {
        if let Some(bytes) = take(&self.astray, &mut self.taken, missing) {
            return Ok(Some(bytes));
        }
        let length = missing.len();
        let mut parts = [const { None }; 2 * FRAMES_PER_READ];
        let mut all = length;
        let (first, rest) = self.headers.split_first_mut().expect("a read brings a header");
        parts[0] = Some(IoSliceMut::new(missing));
        parts[1] = Some(IoSliceMut::new(first));
        let mut count = 2;
        let mut guessed = [0; FRAMES_PER_READ - 1];
        let mut places = further;
        for ((place, header), guess) in places.iter_mut().zip(rest).zip(&mut guessed) {
            all += place.len() + HEADER_BYTES;
            if place.is_empty() || all > READ_BYTES {
                break;
            }
            *guess = place.len();
            parts[count] = Some(IoSliceMut::new(place));
            parts[count + 1] = Some(IoSliceMut::new(header));
            count += 2;
        }
        let mut parts = parts.map(|part| part.unwrap_or_else(|| IoSliceMut::new(&mut [])));
        self.calls += 1;
        let Some(bytes) = read_some(self.stream.read_vectored(&mut parts[..count]))? else { return Ok(None) };
        let Some(behind) = bytes.checked_sub(length) else { return Ok(Some(bytes)) };
        (self.next, self.staged) = (0, behind.min(HEADER_BYTES));
        self.behind = 0;
        let mut left = behind - self.staged;
        for at in 0..places.len() {
            if left == 0 {
                break;
            }
            let fits = Header::parse(&self.headers[at]).is_ok_and(|it| it.payload_bytes as usize == guessed[at]);
            if !fits {
                // Nobody sees these bytes where they are now: they are taken from here as if they came later.
                self.astray.clear();
                self.taken = 0;
                for (place, header) in places[at..].iter().zip(&self.headers[at + 1..]) {
                    for part in [&**place, &header[..]] {
                        let part = &part[..left.min(part.len())];
                        self.astray.extend_from_slice(part);
                        left -= part.len();
                    }
                }
                break;
            }
            let came = left.min(guessed[at] + HEADER_BYTES);
            self.behind += came;
            left -= came;
        }
        Ok(Some(length))
    }
}

/// Takes what is left of `from`; `None` if nothing is.
fn take(from: &[u8], taken: &mut usize, to: &mut [u8]) -> Option<usize> {
    let left = &from[*taken..];
    let bytes = left.len().min(to.len());
    to[..bytes].copy_from_slice(&left[..bytes]);
    *taken += bytes;
    (bytes > 0).then_some(bytes)
}

impl Inbound for TcpInbound {
    fn receive(&mut self, landing: &mut dyn Landing, _now: Instant) -> Result<Option<Header>, Disconnect> {
        loop {
            let Some(header) = self.current else {
                if self.staged < HEADER_BYTES {
                    match self.read_header()? {
                        Some(bytes) => self.staged += bytes,
                        None => return Ok(None),
                    }
                }
                if self.staged == HEADER_BYTES {
                    let header = Header::parse(&self.headers[self.next])?;
                    if header.payload_bytes == 0 {
                        // Nothing is behind it: no empty payload is guessed.
                        (self.next, self.staged) = (0, 0);
                        return Ok(Some(header));
                    }
                    self.begin(header);
                }
                continue;
            };
            let mut further: [&mut [u8]; FRAMES_PER_READ - 1] = std::array::from_fn(|_| &mut [] as &mut [u8]);
            let Some(payload) = landing.places(&header, &mut further)? else { return Ok(None) };
            if payload.len() != header.payload_bytes as usize {
                let expected = payload.len() as u32;
                return Err(Violation::Length { found: header.payload_bytes, expected }.into());
            }
            if self.landed < payload.len() {
                match self.read_payload(&mut payload[self.landed..], further)? {
                    Some(bytes) => self.landed += bytes,
                    None => return Ok(None),
                }
            }
            if self.landed == payload.len() {
                self.current = None;
                return Ok(Some(header));
            }
        }
    }

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.stream.as_raw_fd())
    }

    fn calls(&mut self) -> u64 {
        std::mem::take(&mut self.calls)
    }

    fn close(&mut self) {
        // Fails only if the peer closed before.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

struct TcpOutbound {
    stream: TcpStream,
    queue: VecDeque<Outgoing>,
    limit: usize,
    /// Bytes of the first frame in the queue that have left.
    sent: usize,
    /// System calls that nobody has asked for yet.
    calls: u64,
}

impl TcpOutbound {
    fn advance(&mut self, mut bytes: usize) {
        while let Some(first) = self.queue.front() {
            let left = first.bytes().len() - self.sent;
            if bytes < left {
                self.sent += bytes;
                return;
            }
            bytes -= left;
            self.sent = 0;
            self.queue.pop_front();
        }
    }
}

impl Outbound for TcpOutbound {
    fn send(&mut self, frame: Outgoing) -> Result<(), Outgoing> {
        if self.queue.len() >= self.limit {
            return Err(frame);
        }
        self.queue.push_back(frame);
        Ok(())
    }

    fn flush(&mut self, _now: Instant) -> Result<Flushed, Disconnect> {
        let mut bytes = 0;
        while !self.queue.is_empty() {
            let mut parts = [IoSlice::new(&[]); FRAMES_PER_WRITE];
            let mut skip = self.sent;
            for (part, frame) in parts.iter_mut().zip(&self.queue) {
                *part = IoSlice::new(&frame.bytes()[std::mem::take(&mut skip)..]);
            }
            let count = self.queue.len().min(FRAMES_PER_WRITE);
            self.calls += 1;
            // A peer that has closed is an error of this call, never a SIGPIPE: that would end a program in another language.
            let control = &mut SendAncillaryBuffer::default();
            match sendmsg(&self.stream, &parts[..count], control, SendFlags::NOSIGNAL).map_err(io::Error::from) {
                Ok(0) => return Err(Disconnect::Closed),
                Ok(written) => {
                    bytes += written;
                    self.advance(written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Flushed { bytes, empty: self.queue.is_empty() })
    }

    fn queued(&self) -> usize {
        self.queue.len()
    }

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.stream.as_raw_fd())
    }

    fn calls(&mut self) -> u64 {
        std::mem::take(&mut self.calls)
    }

    fn far(&self) -> Option<IpAddr> {
        self.stream.peer_addr().ok().map(|address| address.ip().to_canonical())
    }

    fn close(&mut self) {
        // Fails only if the peer closed before.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Kind, header_bytes};

    /// Lands every payload in the next of its places, and guesses lengths as it is told.
    struct Guessing {
        places: VecDeque<Vec<u8>>,
        guesses: VecDeque<usize>,
    }

    impl Landing for Guessing {
        fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
            self.places(header, &mut [])
        }

        fn places<'a>(
            &'a mut self,
            header: &Header,
            further: &mut [&'a mut [u8]],
        ) -> Result<Option<&'a mut [u8]>, Violation> {
            let mut places = self.places.iter_mut();
            let first = places.next().ok_or(Violation::Credit)?;
            for ((part, place), guess) in further.iter_mut().zip(places).zip(&self.guesses) {
                *part = &mut place[..*guess];
            }
            Ok(Some(&mut first[..header.payload_bytes as usize]))
        }
    }

    const LONGEST: usize = 100_000;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn frames_are_whole_whatever_was_guessed(
            lengths in prop::collection::vec(prop::sample::select(vec![0, 1, 64, 500, 70_000, LONGEST]), 1..24),
            wrong in prop::collection::vec(prop::option::weighted(0.3, 1..LONGEST), 32),
            pieces in prop::collection::vec(1..200_000usize, 1..40),
        ) {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut inbound = TcpInbound::new(stream);
            let fill = |at: usize, length: usize| (0..length).map(move |byte| (byte * 7 + at * 13) as u8);
            let mut bytes = Vec::new();
            for (at, length) in lengths.iter().enumerate() {
                let payload: Vec<u8> = fill(at, *length).collect();
                bytes.extend(header_bytes(Header { chunk: at as u32, ..Header::new(Kind::Shard) }, &payload));
                bytes.extend(payload);
            }
            // What will come, as far as the guess is not to be wrong.
            let guess = |at: usize| wrong[at].or(lengths.get(at).copied()).unwrap_or(1);
            let mut landing = Guessing { places: vec![vec![0; LONGEST]; 32].into(), guesses: VecDeque::new() };
            let (mut received, mut left, mut sent) = (0, &bytes[..], 0);
            while received < lengths.len() {
                let piece = left.len().min(pieces[sent % pieces.len()]);
                sender.write_all(&left[..piece]).unwrap();
                (left, sent) = (&left[piece..], sent + 1);
                loop {
                    landing.guesses = (received + 1..32).map(guess).collect();
                    let Some(header) = inbound.receive(&mut landing, Instant::now()).unwrap() else { break };
                    prop_assert_eq!((header.chunk as usize, header.payload_bytes as usize), (received, lengths[received]));
                    if header.payload_bytes > 0 {
                        let payload = landing.places.pop_front().unwrap();
                        prop_assert!(payload.into_iter().take(lengths[received]).eq(fill(received, lengths[received])));
                    }
                    received += 1;
                }
            }
        }
    }
}
