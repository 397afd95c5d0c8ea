//! What a function returns, and the boundary that no panic passes.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use solon::client::{ClientError, Forked, JoinError, NotFound};
use solon::wire::{HandshakeError, Refusal};

/// How a call ended. Later versions may have more; the numbers of these stay.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SolonStatus {
    /// It did what it should.
    Ok = 0,
    /// An argument cannot be: a null or misaligned pointer, a structure whose size was not set, a text that is not UTF-8.
    InvalidArgument = 1,
    /// A buffer is not as long as the job's gradient. Nothing was sent.
    WrongLength = 2,
    /// Endpoint or index were neither given nor found in the environment, or something found there cannot be read.
    NotConfigured = 3,
    /// Nobody answers at the endpoint, or the handshake broke off. Trying again later can succeed.
    NoDaemon = 4,
    /// The daemon refuses for now: it stops, or this index joined less than a second ago. Try again.
    TryAgain = 5,
    /// The daemon refuses: another job's name, a wrong token, a way to travel that it does not take, or a worker that computes
    /// differently than its group.
    Refused = 6,
    /// The job has no worker of this index.
    NoSuchWorker = 7,
    /// The peer is not solond, or is another version of it.
    VersionMismatch = 8,
    /// This worker is set to RDMA only, and it is not to be had.
    NoRdma = 9,
    /// The round did not end in the time of `round_timeout_ms`. It goes on: call solon_wait, also after solon_exchange.
    TimedOut = 10,
    /// `interrupt` had the wait given up. The round goes on: call solon_wait, also after solon_exchange, or leave.
    Interrupted = 11,
    /// The round has no update, for no worker: too few shards came in time, or too many lie. The buffer holds nothing of use. The
    /// next round can go on.
    Undecodable = 12,
    /// Too many rounds are submitted and not collected: solon_wait first.
    WindowFull = 13,
    /// The session is over: the daemon or the network is gone. solon_rejoin, or solon_leave.
    Lost = 14,
    /// This process was forked from the one that joined.
    Forked = 15,
    /// The worker is in use by another call.
    Busy = 16,
    /// The operating system gives no thread, event queue or random bytes.
    System = 17,
    /// A bug in the library; the text says where. The worker can only be left or freed.
    Panicked = 18,
}

impl SolonStatus {
    const NAMES: [(SolonStatus, &std::ffi::CStr); 19] = [
        (SolonStatus::Ok, c"ok"),
        (SolonStatus::InvalidArgument, c"invalid argument"),
        (SolonStatus::WrongLength, c"wrong length"),
        (SolonStatus::NotConfigured, c"not configured"),
        (SolonStatus::NoDaemon, c"no daemon"),
        (SolonStatus::TryAgain, c"try again"),
        (SolonStatus::Refused, c"refused"),
        (SolonStatus::NoSuchWorker, c"no such worker"),
        (SolonStatus::VersionMismatch, c"version mismatch"),
        (SolonStatus::NoRdma, c"no RDMA"),
        (SolonStatus::TimedOut, c"timed out"),
        (SolonStatus::Interrupted, c"interrupted"),
        (SolonStatus::Undecodable, c"undecodable"),
        (SolonStatus::WindowFull, c"window full"),
        (SolonStatus::Lost, c"lost"),
        (SolonStatus::Forked, c"forked"),
        (SolonStatus::Busy, c"busy"),
        (SolonStatus::System, c"system"),
        (SolonStatus::Panicked, c"panicked"),
    ];

    /// The name of the status that has this number.
    pub(crate) fn name(number: u32) -> &'static std::ffi::CStr {
        let known = SolonStatus::NAMES.iter().find(|(status, _)| *status as u32 == number);
        known.map_or(c"unknown status", |(_, name)| name)
    }
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: SolonStatus,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn invalid(text: impl Into<String>) -> Failure {
        Failure { status: SolonStatus::InvalidArgument, text: text.into() }
    }
}

impl From<NotFound> for Failure {
    fn from(error: NotFound) -> Failure {
        Failure { status: SolonStatus::NotConfigured, text: error.to_string() }
    }
}

impl From<Forked> for Failure {
    fn from(error: Forked) -> Failure {
        Failure { status: SolonStatus::Forked, text: error.to_string() }
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Failure {
        let status = match &error {
            JoinError::Connect { .. } | JoinError::Io { .. } => SolonStatus::NoDaemon,
            JoinError::Handshake(handshake) => match handshake {
                HandshakeError::Refused(Refusal::TooSoon { .. } | Refusal::Stopping) => SolonStatus::TryAgain,
                HandshakeError::Refused(Refusal::NoSuchWorker { .. }) => SolonStatus::NoSuchWorker,
                HandshakeError::Refused(Refusal::Unreadable) => SolonStatus::VersionMismatch,
                HandshakeError::Refused(_) | HandshakeError::BadProof => SolonStatus::Refused,
                HandshakeError::Checksum => SolonStatus::Lost,
                HandshakeError::Header(_)
                | HandshakeError::Violation(_)
                | HandshakeError::Plan(_)
                | HandshakeError::PlanHash => SolonStatus::VersionMismatch,
            },
            JoinError::Generator { .. } => SolonStatus::VersionMismatch,
            JoinError::NoRdma { .. } => SolonStatus::NoRdma,
            JoinError::Mixed { .. } => SolonStatus::Refused,
            JoinError::Lost(_) => SolonStatus::Lost,
            JoinError::Local(_) => SolonStatus::System,
            JoinError::Forked(_) => SolonStatus::Forked,
        };
        Failure { status, text: error.to_string() }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let status = match &error {
            ClientError::Length { .. } => SolonStatus::WrongLength,
            ClientError::WindowFull { .. } => SolonStatus::WindowFull,
            ClientError::Undecodable { .. } => SolonStatus::Undecodable,
            ClientError::AggregatorLost { .. } => SolonStatus::Lost,
            ClientError::Timeout { .. } => SolonStatus::TimedOut,
            ClientError::Interrupted { .. } => SolonStatus::Interrupted,
            ClientError::Forked(_) => SolonStatus::Forked,
        };
        Failure { status, text: error.to_string() }
    }
}

/// `text` for C, without what C would take for its end.
pub(crate) fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "?")).expect("no zeros are left")
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// The text of the last failure in this thread.
pub(crate) fn last() -> *const c_char {
    // A thread that is ending has none any more.
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Runs the body of an exported function: no panic leaves it, and what failed is remembered for [`last`].
pub(crate) fn guard(body: impl FnOnce() -> Result<(), Failure>) -> SolonStatus {
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return SolonStatus::Ok,
        Ok(Err(failure)) => failure,
        Err(payload) => {
            let why = payload.downcast_ref::<&str>().copied();
            let why = why.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
            let text = format!("a bug in solon {}: {why}", env!("CARGO_PKG_VERSION"));
            // What was thrown may throw again when it is dropped.
            std::mem::forget(payload);
            Failure { status: SolonStatus::Panicked, text }
        }
    };
    let _ = LAST.try_with(|last| *last.borrow_mut() = c_text(&failure.text));
    failure.status
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    /// As C calls it: a panic that left it would end the process.
    extern "C" fn breaks() -> SolonStatus {
        guard(|| panic!("number {}", 7))
    }

    fn last_text() -> String {
        // SAFETY: a text of this thread, which nothing changes meanwhile.
        unsafe { CStr::from_ptr(last()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_comes_back_as_a_status_with_its_text_and_the_next_call_works() {
        assert_eq!(breaks(), SolonStatus::Panicked);
        assert!(last_text().ends_with("number 7"), "{}", last_text());
        assert_eq!(guard(|| Ok(())), SolonStatus::Ok);
        assert!(last_text().ends_with("number 7"), "a success leaves the text alone");
    }

    #[test]
    fn a_payload_that_panics_when_dropped_does_not_pass_either() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        assert_eq!(guard(|| std::panic::panic_any(Bomb)), SolonStatus::Panicked);
    }

    #[test]
    fn texts_belong_to_their_thread() {
        assert_eq!(guard(|| Err(Failure::invalid("mine"))), SolonStatus::InvalidArgument);
        std::thread::spawn(|| {
            assert_eq!(last_text(), "");
            guard(|| Err(Failure::invalid("with\0zero")));
            assert_eq!(last_text(), "with?zero");
        })
        .join()
        .unwrap();
        assert_eq!(last_text(), "mine");
    }

    #[test]
    fn every_status_has_a_name_and_other_numbers_have_none() {
        for (at, (status, name)) in SolonStatus::NAMES.iter().enumerate() {
            assert_eq!(*status as usize, at);
            assert_eq!(SolonStatus::name(at as u32), *name);
        }
        assert_eq!(SolonStatus::name(SolonStatus::NAMES.len() as u32), c"unknown status");
        assert_eq!(SolonStatus::name(u32::MAX), c"unknown status");
    }
}
