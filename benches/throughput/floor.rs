//! What the kernel allows: one thread that takes the same bytes over as many connections and drops them, and one that also
//! pushes as many bytes back as an update has, chunk by chunk as the last worker's bytes of a chunk arrive.

use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use crate::rounds::{Children, Shape, thread_cpu};

/// As the transport's.
const SOCKET_BUFFER_BYTES: usize = 1 << 20;
/// Reads, or writes, of one connection before the next has its turn.
const CALLS_PER_TURN: usize = 8;

/// Bytes both ways over one connection.
struct Flow {
    stream: TcpStream,
    received: u64,
    sent: u64,
    readable: bool,
    writable: bool,
}

impl Flow {
    fn new(stream: std::net::TcpStream, poll: &Poll, token: usize) -> Flow {
        stream.set_nonblocking(true).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        let socket = SockRef::from(&stream);
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES).expect("a socket");
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES).expect("a socket");
        let mut stream = TcpStream::from_std(stream);
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(token), both).expect("a poll");
        Flow { stream, received: 0, sent: 0, readable: true, writable: true }
    }

    /// Reads until `target` bytes were received in all; true if anything came.
    fn read(&mut self, buffer: &mut [u8], target: u64) -> bool {
        let before = self.received;
        for _ in 0..CALLS_PER_TURN {
            if !self.readable || self.received >= target {
                break;
            }
            let most = buffer.len().min((target - self.received) as usize);
            match self.stream.read(&mut buffer[..most]) {
                Ok(0) => panic!("the other side of the floor's connection is gone"),
                Ok(bytes) => self.received += bytes as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) => panic!("the floor's connection broke: {error}"),
            }
        }
        self.received > before
    }

    /// Writes until `target` bytes were sent in all; true if anything left.
    fn write(&mut self, buffer: &[u8], target: u64) -> bool {
        let before = self.sent;
        for _ in 0..CALLS_PER_TURN {
            if !self.writable || self.sent >= target {
                break;
            }
            let most = buffer.len().min((target - self.sent) as usize);
            match self.stream.write(&buffer[..most]) {
                Ok(bytes) => self.sent += bytes as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) => panic!("the floor's connection broke: {error}"),
            }
        }
        self.sent > before
    }
}

fn look(poll: &mut Poll, events: &mut Events, wait: Option<Duration>, flows: &mut [Flow]) {
    poll.poll(events, wait).expect("a poll");
    for event in events.iter() {
        let flow = &mut flows[event.token().0];
        flow.readable |= event.is_readable();
        flow.writable |= event.is_writable();
    }
}

/// The process that sends what a worker would send, and takes what it would get, `down` bytes of 0 and more per round.
pub fn send(address: &str, [up, down, frame]: [usize; 3]) -> ExitCode {
    let mut poll = Poll::new().expect("a poll");
    let mut events = Events::with_capacity(16);
    let mut flow = [Flow::new(std::net::TcpStream::connect(address).expect("the floor listens"), &poll, 0)];
    let (out, mut scrap) = (vec![1; frame], vec![0; frame]);
    println!("ready");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let rounds: u64 = line.parse().expect("a number of rounds");
        let (first_up, first_down) = (flow[0].sent, flow[0].received);
        // Without an update there is nothing to wait for between rounds.
        let (rounds, up) = if down == 0 { (1, rounds * up as u64) } else { (rounds, up as u64) };
        for round in 1..=rounds {
            let (up, down) = (first_up + round * up, first_down + round * down as u64);
            while flow[0].sent < up || flow[0].received < down {
                let moved = flow[0].write(&out, up) | flow[0].read(&mut scrap, down);
                if !moved {
                    look(&mut poll, &mut events, None, &mut flow);
                }
            }
        }
        println!("done 0");
    }
    ExitCode::SUCCESS
}

/// The receiver, and its senders.
pub struct Floor {
    poll: Poll,
    flows: Vec<Flow>,
    senders: Children,
    shape: Shape,
    pushes: bool,
}

impl Floor {
    pub fn start(shape: Shape, pushes: bool) -> Floor {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let down = if pushes { shape.down_bytes() } else { 0 };
        let numbers = [shape.up_bytes(), down, shape.up_frame()].map(|number| number.to_string());
        let arguments = |_| {
            let [up, down, frame] = numbers.clone();
            vec!["--as-sender".into(), address.clone(), up, down, frame]
        };
        let senders = Children::spawn(shape.workers(), arguments);
        let poll = Poll::new().expect("a poll");
        let accept = |at| Flow::new(listener.accept().expect("a sender").0, &poll, at);
        let flows = (0..shape.workers()).map(accept).collect();
        let mut floor = Floor { poll, flows, senders, shape, pushes };
        floor.senders.wait("ready");
        floor
    }

    /// Seconds, and seconds of the receiver's processor time, for so many rounds.
    pub fn run(&mut self, rounds: usize) -> (f64, f64) {
        let (up, down) = (self.shape.up_bytes() as u64, self.shape.down_bytes() as u64);
        let first = (self.flows[0].received, self.flows[0].sent);
        let (total_up, total_down) = (rounds as u64 * up, if self.pushes { rounds as u64 * down } else { 0 });
        let mut events = Events::with_capacity(256);
        let mut buffer = vec![0; self.shape.up_frame()];
        let frame = vec![2; self.shape.down_frame()];
        let (cpu, start) = (thread_cpu(), Instant::now());
        self.senders.tell(&rounds.to_string());
        let mut turns = 0;
        loop {
            let mut moved = false;
            for flow in &mut self.flows {
                moved |= flow.read(&mut buffer, first.0 + total_up);
            }
            let least = self.flows.iter().map(|flow| flow.received - first.0).min().expect("a worker");
            if self.pushes {
                let chunks = least % up / self.shape.up_frame() as u64;
                let target = first.1 + least / up * down + (chunks * self.shape.down_frame() as u64).min(down);
                for flow in &mut self.flows {
                    moved |= flow.write(&frame, target);
                }
            }
            if least == total_up && self.flows.iter().all(|flow| flow.sent - first.1 == total_down) {
                break;
            }
            turns += 1;
            if !moved {
                look(&mut self.poll, &mut events, None, &mut self.flows);
            } else if turns % 4 == 0 {
                look(&mut self.poll, &mut events, Some(Duration::ZERO), &mut self.flows);
            }
        }
        let cpu = thread_cpu() - cpu;
        self.senders.wait("done 0");
        (start.elapsed().as_secs_f64(), cpu)
    }
}
