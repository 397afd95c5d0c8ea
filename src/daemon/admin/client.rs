//! Asks a daemon how it is: one GET, bounded in time and size.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::super::status::{Status, VERSION};
use crate::transport::timed_out;

/// For the whole question.
const PATIENCE: Duration = Duration::from_secs(15);
/// An answer about the largest job is some hundred KiB.
const BYTES_MAX: usize = 8 << 20;
/// Characters of what a stranger said that are told.
const FOUND: usize = 300;
/// Header lines of an answer.
const HEADERS: usize = 64;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The address is none.
    #[error("{address:?} is no address: {error}; expected HOST:PORT, such as 127.0.0.1:7448")]
    Address {
        /// What was given.
        address: String,
        /// What the resolver says.
        error: io::Error,
    },
    /// Nobody is there, or nobody answers.
    #[error(
        "no daemon answers at {address}: {error}; is solond running there, with admin.serve = true? Its log names the address after \
         \"admin\" in the line \"ready\"; give it as --address HOST:PORT"
    )]
    Silent {
        /// Where.
        address: String,
        /// What happened.
        error: io::Error,
    },
    /// Whoever is there is no daemon of this version.
    #[error(
        "what answers at {address} is no solond that this program understands: {found}; expected /status of version {VERSION}"
    )]
    Stranger {
        /// Where.
        address: String,
        /// What it said.
        found: String,
    },
}

/// The status of the daemon whose `admin.address` this is.
///
/// # Errors
/// If there is none within 15 seconds.
pub fn ask(address: &str) -> Result<Status, AskError> {
    let silent = |error| AskError::Silent { address: address.into(), error };
    let stranger = |found: String| AskError::Stranger { address: address.into(), found: printable(&found) };
    let found = address.to_socket_addrs();
    let found = found.map_err(|error| AskError::Address { address: address.into(), error })?;
    let until = Instant::now() + PATIENCE;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for at in found {
        match get(at, until) {
            Ok(bytes) => return read(&bytes).map_err(stranger),
            Err(error) => last = error,
        }
    }
    Err(silent(last))
}

/// What a stranger wrote as a terminal may have it: short, without control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(FOUND).collect()
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// All bytes of the answer to a GET of `/status`.
fn get(address: SocketAddr, until: Instant) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, left(until)?)?;
    stream.set_write_timeout(Some(left(until)?))?;
    // At once: whoever answers the first piece and goes would break the pipe for the next.
    let request =
        format!("GET /status HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(timed_out)?;
    let (mut bytes, mut part) = (Vec::new(), [0; 16384]);
    loop {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut part) {
            Ok(0) => return Ok(bytes),
            Ok(_) if bytes.len() > BYTES_MAX => {
                return Err(io::Error::other(format!("it says more than {BYTES_MAX} bytes")));
            }
            Ok(more) => bytes.extend_from_slice(&part[..more]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(timed_out(error)),
        }
    }
}

/// The status in a whole answer; in words why there is none.
fn read(bytes: &[u8]) -> Result<Status, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Err(format!("{} bytes that are no whole HTTP answer", bytes.len())),
        Err(error) => return Err(format!("no HTTP ({error})")),
    };
    if response.code != Some(200) {
        return Err(format!("HTTP status {}", response.code.unwrap_or(0)));
    }
    let body = &bytes[head..];
    let version = serde_json::from_slice::<serde_json::Value>(body).map_err(|error| format!("no JSON ({error})"))?;
    match version["version"].as_u64() {
        Some(version) if version == u64::from(VERSION) => {}
        Some(version) => return Err(format!("version {version}")),
        None => return Err("JSON without a version".into()),
    }
    serde_json::from_slice(body).map_err(|error| format!("another document ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::TcpListener;

    #[test]
    fn what_is_no_status_is_told_in_words() {
        let said = |bytes: &[u8]| read(bytes).unwrap_err();
        assert!(said(b"").contains("0 bytes"));
        assert!(said(b"SOLN\x06\0\0\0\r\n\r\n").contains("no HTTP"));
        assert!(said(b"HTTP/1.1 404 Not Found\r\n\r\n").contains("404"));
        assert!(said(b"HTTP/1.1 200 OK\r\n\r\nhello").contains("no JSON"));
        assert!(said(b"HTTP/1.1 200 OK\r\n\r\n{}").contains("without a version"));
        assert!(said(b"HTTP/1.1 200 OK\r\n\r\n{\"version\": 7}").contains("version 7"));
        assert!(said(b"HTTP/1.1 200 OK\r\n\r\n{\"version\": 1}").contains("another document"));
    }

    #[test]
    fn what_a_stranger_wrote_moves_no_cursor_and_is_short() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stranger = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            let state = r"\u001b[2J\r".to_owned() + &"x".repeat(5000);
            let groups = format!(r#"[{{"workers": [{{"state": "{state}"}}]}}]"#);
            write!(stream, "HTTP/1.1 200 OK\r\n\r\n{{\"version\": {VERSION}, \"groups\": {groups}}}").unwrap();
        });
        let said = ask(&address).unwrap_err().to_string();
        stranger.join().unwrap();
        assert!(said.contains("another document") && said.contains("[2J"), "{said}");
        assert!(!said.chars().any(char::is_control) && said.len() < 600, "{said}");
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_stranger_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(read(&bytes).is_err());
            let answer = [b"HTTP/1.1 200 OK\r\n\r\n{\"version\":1", &bytes[..]].concat();
            prop_assert!(read(&answer).is_err());
        }
    }

    #[test]
    fn nobody_there_is_an_error_with_what_to_do() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = ask(&address).unwrap_err();
        assert!(matches!(error, AskError::Silent { .. }), "{error}");
        assert!(
            error.to_string().contains("is solond running there") && error.to_string().contains(&address),
            "{error}"
        );
        assert!(matches!(ask("7448").unwrap_err(), AskError::Address { .. }));
    }
}
