//! Both ends on one machine.

use std::sync::mpsc;

use super::*;

const TIMES: Times = Times { stream: Duration::from_millis(20), whole: Duration::from_secs(20) };

/// Somebody who serves until the test ends, and what is told of whom it served.
fn serving(times: Times) -> (String, mpsc::Receiver<io::Result<SocketAddr>>) {
    let (listener, address) = listener();
    let (sender, told) = mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let tell: Told = Arc::new(move |done| drop(sender.lock().unwrap().send(done)));
    std::thread::spawn(move || serve_for(&listener, &Options::default(), times, tell));
    (address, told)
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn examined(address: &str) -> Result<Way, PeerError> {
    examine_for(address, &Options::default(), TIMES)
}

#[test]
fn two_ends_that_reach_each_other_know_how_fast_and_why_not_by_rdma() {
    let (address, told) = serving(TIMES);
    let way = examined(&address).unwrap();
    let path = &way.tcp;
    assert_eq!(told.recv().unwrap().unwrap(), path.here);
    assert_eq!(path.peer.to_string(), address);
    assert!(path.there > 0.0 && path.back > 0.0, "{path:?}");
    assert!(path.round_trip_seconds > 0.0 && path.connect_seconds > 0.0);
    let [tcp, rdma] = outcomes(&Ok(way));
    assert_eq!(tcp.status, Status::Pass);
    assert!(rdma.status != Status::Note || rdma.found.starts_with("not tried: here: "), "{rdma:?}");
}

#[test]
fn each_way_not_to_reach_somebody_is_named_with_what_to_do() {
    let text = |address: &str| outcomes(&examined(address))[0].found.clone();
    let (closed, address) = listener();
    drop(closed);
    assert!(text(&address).starts_with(&format!("nobody listens at {address}: run `solon doctor --listen`")));
    assert!(text("127.0.0.1:").contains("expected HOST or HOST:PORT"));

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
fn a_host_without_a_port_is_asked_at_the_usual_one() {
    let of = |name: &str| addresses(name).unwrap()[0].to_string();
    assert_eq!(of("127.0.0.1"), format!("127.0.0.1:{PORT}"));
    assert_eq!(of("::1"), format!("[::1]:{PORT}"));
    assert_eq!((of("127.0.0.1:7"), of("[::1]:7")), ("127.0.0.1:7".into(), "[::1]:7".into()));
}

#[test]
fn who_serves_sends_strangers_away_and_takes_no_block_that_is_too_long() {
    let (address, told) = serving(TIMES);
    TcpStream::connect(&address).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let stranger = told.recv().unwrap().unwrap_err().to_string();
    assert!(stranger.contains("is not `solon doctor --peer`"), "{stranger}");
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(&HELLO).unwrap();
    stream.write_all(&[0; ECHOES * ECHO_BYTES]).unwrap();
    stream.write_all(&u32::MAX.to_le_bytes()).unwrap();
    assert_eq!(told.recv().unwrap().unwrap_err().to_string(), "a block is too long");
}

/// What somebody sends until its first block is waited for.
fn greeting() -> Vec<u8> {
    let mut bytes = HELLO.to_vec();
    bytes.resize(HELLO.len() + ECHOES * ECHO_BYTES, 0);
    bytes
}

#[test]
fn whoever_is_slow_keeps_nobody_else_waiting() {
    let (address, told) = serving(TIMES);
    let mut slow = TcpStream::connect(&address).unwrap();
    slow.write_all(&greeting()).unwrap();
    let here = examined(&address).unwrap().tcp.here;
    assert_eq!(told.recv().unwrap().unwrap(), here);
}

#[test]
fn whoever_sends_a_byte_now_and_then_has_an_end_and_so_has_who_sends_none() {
    let (address, told) = serving(Times { whole: Duration::from_secs(1), ..TIMES });
    let mut begun = greeting();
    begun.extend_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
    let mut slow = TcpStream::connect(&address).unwrap();
    slow.write_all(&begun).unwrap();
    // A byte is something each time: only the end of the whole helps.
    let drips = std::thread::spawn(move || {
        while slow.write_all(&[0]).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(told.recv().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
    drips.join().unwrap();

    let _silent = TcpStream::connect(&address).unwrap();
    assert_eq!(told.recv().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn beyond_a_few_at_once_they_are_sent_away() {
    let (address, told) = serving(TIMES);
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..SERVED {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(&HELLO).unwrap();
        stream.read_exact(&mut [0; 8]).unwrap();
        held.push(stream);
    }
    let error = examined(&address).unwrap_err();
    assert!(matches!(error, PeerError::Busy(_)), "{error}");
    assert!(told.recv().unwrap().unwrap_err().to_string().contains("was sent away"));
    drop(held);
    for _ in 0..SERVED {
        told.recv().unwrap().unwrap_err();
    }
    examined(&address).unwrap();
}
