//! One thread takes shards of 64 KiB and their headers from many processes, and drops them: by epoll and read, and by io_uring.

#![allow(unsafe_code, reason = "io_uring is told addresses")]

use std::io::{BufRead, ErrorKind, IoSliceMut, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use crate::rounds::Children;
use crate::{Effort, print};

const HEADER: usize = 64;
const PAYLOAD: usize = 64 << 10;
const MIB: usize = 1 << 20;

/// The process that sends what it is asked to: bytes on standard input.
pub fn send(address: &str) -> ExitCode {
    let mut stream = TcpStream::connect(address).expect("the receiver listens");
    stream.set_nodelay(true).expect("a socket");
    SockRef::from(&stream).set_send_buffer_size(MIB).expect("a socket");
    let frame = vec![1; HEADER + PAYLOAD];
    println!("ready");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let mut left: usize = line.parse().expect("bytes");
        while left > 0 {
            let part = left.min(frame.len());
            stream.write_all(&frame[..part]).expect("the receiver receives");
            left -= part;
        }
        println!("done");
    }
    ExitCode::SUCCESS
}

struct Receiver {
    streams: Vec<TcpStream>,
    senders: Children,
    /// Where the bytes of each connection land: as much as one read takes.
    memory: Vec<Vec<u8>>,
}

#[derive(Clone, Copy)]
enum Way {
    /// Reads of so many bytes, then of a header, in one call.
    Epoll(usize),
    /// One receive of so many bytes under way per connection.
    Ring(usize),
    /// One receive per connection that goes on, into buffers of so many bytes that are shared.
    Multishot(usize),
}

impl Receiver {
    fn start(connections: usize, buffer: usize) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let mut senders = Children::spawn(connections, |_| vec!["--as-sender".into(), address.clone()]);
        let streams: Vec<TcpStream> = (0..connections).map(|_| listener.accept().expect("a sender").0).collect();
        for stream in &streams {
            SockRef::from(stream).set_recv_buffer_size(buffer).expect("a socket");
        }
        senders.wait();
        Receiver { memory: vec![vec![0; MIB]; connections], streams, senders }
    }

    /// Seconds, and system calls, until `each` bytes have come over every connection.
    fn run(&mut self, way: Way, each: usize) -> (f64, u64) {
        let blocking = !matches!(way, Way::Epoll(_));
        self.streams.iter().for_each(|stream| stream.set_nonblocking(!blocking).expect("a socket"));
        let start = Instant::now();
        self.senders.tell(&each.to_string());
        let calls = match way {
            Way::Epoll(bytes) => self.epoll(bytes, each),
            Way::Ring(bytes) => self.ring(bytes, each),
            Way::Multishot(bytes) => self.multishot(bytes, each),
        };
        let seconds = start.elapsed().as_secs_f64();
        self.senders.wait();
        (seconds, calls)
    }

    fn epoll(&mut self, bytes: usize, each: usize) -> u64 {
        let mut poll = Poll::new().expect("a poll");
        let mut events = Events::with_capacity(256);
        let sockets: Vec<RawFd> = self.streams.iter().map(AsRawFd::as_raw_fd).collect();
        for (at, socket) in sockets.iter().enumerate() {
            poll.registry().register(&mut SourceFd(socket), Token(at), Interest::READABLE).expect("a poll");
        }
        let (mut left, mut ready) = (vec![each; sockets.len()], vec![true; sockets.len()]);
        let (mut calls, mut header) = (0, [0; HEADER]);
        while left.iter().any(|left| *left > 0) {
            let mut moved = false;
            for at in 0..sockets.len() {
                // As many as the receiver takes of one worker before the next has its turn.
                for _ in 0..8 {
                    if !ready[at] || left[at] == 0 {
                        break;
                    }
                    let memory = &mut self.memory[at][..bytes];
                    let mut parts = [IoSliceMut::new(memory), IoSliceMut::new(&mut header)];
                    calls += 1;
                    match (&self.streams[at]).read_vectored(&mut parts) {
                        Ok(0) => panic!("a sender is gone"),
                        Ok(bytes) => left[at] -= bytes,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => ready[at] = false,
                        Err(error) => panic!("a connection broke: {error}"),
                    }
                    moved = true;
                }
            }
            if !moved {
                calls += 1;
                poll.poll(&mut events, None).expect("a poll");
                events.iter().for_each(|event| ready[event.token().0] = true);
            }
        }
        calls
    }

    fn ring(&mut self, bytes: usize, each: usize) -> u64 {
        let mut ring: IoUring =
            IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(256).expect("io_uring");
        let mut left = vec![each; self.streams.len()];
        let mut wanted: Vec<usize> = (0..left.len()).collect();
        let mut calls = 0;
        while left.iter().any(|left| *left > 0) {
            for at in wanted.drain(..) {
                let (socket, memory) = (Fd(self.streams[at].as_raw_fd()), &mut self.memory[at]);
                let receive = opcode::Recv::new(socket, memory.as_mut_ptr(), bytes as u32).build().user_data(at as u64);
                // SAFETY: the memory is this connection's, lives longer than the ring, and has one receive at a time.
                unsafe { ring.submission().push(&receive) }.expect("room for every connection");
            }
            calls += 1;
            ring.submit_and_wait(1).expect("io_uring");
            for done in ring.completion() {
                let at = done.user_data() as usize;
                left[at] -= usize::try_from(done.result()).ok().filter(|bytes| *bytes > 0).expect("bytes");
                if left[at] > 0 {
                    wanted.push(at);
                }
            }
        }
        calls
    }

    fn multishot(&mut self, bytes: usize, each: usize) -> u64 {
        const COUNT: u16 = 256;
        let mut ring: IoUring =
            IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(256).expect("io_uring");
        let mut memory = vec![0u8; usize::from(COUNT) * bytes];
        // The kernel wants whole pages for the list.
        let mut list = vec![[0u64; 512]; usize::from(COUNT) * size_of::<BufRingEntry>() / 4096 + 1];
        let entries = aligned(&mut list);
        // SAFETY: the list and the memory that it names live longer than the ring, which is dropped first below.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries.addr() as u64, COUNT, 0, 0) }.expect("a list");
        let mut tail: u16 = 0;
        let mut give = |number: u16| {
            // SAFETY: the place is inside the list, and the kernel does not read it before the tail is moved.
            let entry = unsafe { &mut *entries.add(usize::from(tail % COUNT)) };
            entry.set_addr(memory[usize::from(number) * bytes..].as_mut_ptr().addr() as u64);
            entry.set_len(bytes as u32);
            entry.set_bid(number);
            tail = tail.wrapping_add(1);
            // SAFETY: the list begins at `entries`.
            let shown = unsafe { BufRingEntry::tail(entries) };
            // SAFETY: an aligned number of the list that the kernel reads atomically.
            unsafe { AtomicU16::from_ptr(shown.cast_mut()) }.store(tail, Ordering::Release);
        };
        (0..COUNT).for_each(&mut give);
        let mut left = vec![each; self.streams.len()];
        let mut wanted: Vec<usize> = (0..left.len()).collect();
        let mut calls = 0;
        while left.iter().any(|left| *left > 0) {
            for at in wanted.drain(..) {
                let socket = Fd(self.streams[at].as_raw_fd());
                let receive = opcode::RecvMulti::new(socket, 0).build().user_data(at as u64);
                // SAFETY: it names no memory.
                unsafe { ring.submission().push(&receive) }.expect("room for every connection");
            }
            calls += 1;
            ring.submit_and_wait(1).expect("io_uring");
            for done in ring.completion() {
                let at = done.user_data() as usize;
                match usize::try_from(done.result()) {
                    Ok(bytes) => {
                        left[at] -= bytes;
                        give(cqueue::buffer_select(done.flags()).expect("a buffer of the list"));
                    }
                    // All buffers were full: it is asked again.
                    Err(_) => assert_eq!(done.result(), -105, "the only error that may come"),
                }
                if !cqueue::more(done.flags()) && left[at] > 0 {
                    wanted.push(at);
                }
            }
        }
        drop(ring);
        drop(memory);
        calls
    }
}

/// The first whole page of a list of them.
fn aligned(list: &mut [[u64; 512]]) -> *mut BufRingEntry {
    let start = list.as_mut_ptr().cast::<u8>();
    // SAFETY: less than one page further, and the list has one page more than is needed.
    unsafe { start.add(start.addr().next_multiple_of(4096) - start.addr()) }.cast()
}

pub fn experiment(effort: Effort) {
    let variants = [
        ("epoll, read 64 KiB + header", Way::Epoll(PAYLOAD)),
        ("epoll, read 256 KiB + header", Way::Epoll(4 * PAYLOAD)),
        ("epoll, read 1 MiB + header", Way::Epoll(MIB)),
        ("io_uring, receive 64 KiB", Way::Ring(PAYLOAD)),
        ("io_uring, receive 256 KiB", Way::Ring(4 * PAYLOAD)),
        ("io_uring, multishot, 64 KiB", Way::Multishot(PAYLOAD)),
    ];
    // Containers often forbid it.
    let has_ring = IoUring::new(2).map_err(|error| println!("without io_uring: {error}")).is_ok();
    let variants = if has_ring { &variants[..] } else { &variants[..3] };
    for connections in [15, 45] {
        let mut receiver = Receiver::start(connections, MIB);
        let each = 512 * MIB / connections / effort.divisor;
        let mut samples = vec![vec![Vec::new(); 2]; variants.len()];
        receiver.run(Way::Epoll(PAYLOAD), each);
        for _ in 0..effort.repetitions {
            for ((_, way), samples) in variants.iter().zip(&mut samples) {
                let (seconds, calls) = receiver.run(*way, each);
                let mib = (each * connections) as f64 / MIB as f64;
                samples[0].push(seconds * 1e3 / mib);
                samples[1].push(calls as f64 / mib);
            }
        }
        let rows = variants.iter().map(|(name, _)| (*name).to_owned()).zip(samples).collect();
        print(&format!("{connections} connections, buffers of 1 MiB"), &["ms per MiB", "calls per MiB"], rows);
    }
    let buffers = [MIB, 128 << 10, 256 << 10, 512 << 10, 2 * MIB, 4 * MIB];
    let mut receivers: Vec<Receiver> = buffers.iter().map(|bytes| Receiver::start(45, *bytes)).collect();
    let mut samples = vec![vec![Vec::new(); 2]; buffers.len()];
    for _ in 0..effort.repetitions {
        for (receiver, samples) in receivers.iter_mut().zip(&mut samples) {
            let each = 512 * MIB / 45 / effort.divisor;
            let (seconds, calls) = receiver.run(Way::Epoll(PAYLOAD), each);
            let mib = (each * 45) as f64 / MIB as f64;
            samples[0].push(seconds * 1e3 / mib);
            samples[1].push(calls as f64 / mib);
        }
    }
    let rows = buffers.iter().map(|bytes| format!("receive buffer of {} KiB", bytes >> 10)).zip(samples).collect();
    print("45 connections, epoll, read 64 KiB + header", &["ms per MiB", "calls per MiB"], rows);
}
