//! What goes wrong with verbs, in a form that an operator can act on, and in a small one for the data path.

use std::ffi::c_int;
use std::fmt;
use std::io;

use super::ffi;

/// A call of the verbs library that failed.
#[derive(Debug)]
pub struct VerbsError {
    /// The verb, as in its manual page.
    pub verb: &'static str,
    /// `device:port`, or the device.
    pub place: String,
    /// What was attempted: a change of state, a size, the addresses of both ends.
    pub attempt: String,
    /// What the operating system says.
    pub error: io::Error,
}

impl std::error::Error for VerbsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl fmt::Display for VerbsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VerbsError { verb, place, attempt, error } = self;
        write!(f, "{verb} on {place} failed: {error} ({attempt}")?;
        if self.is_memlock() {
            // Every object that the device uses is pinned memory: the queues too.
            write!(f, "; RLIMIT_MEMLOCK is {}; see docs/rdma.md#memlock", memlock())?;
        }
        f.write_str(")")
    }
}

impl VerbsError {
    /// From what a verb returned that returns an error number.
    pub(super) fn from_code(verb: &'static str, place: &str, attempt: String, code: c_int) -> VerbsError {
        let error = match code {
            -1 => io::Error::last_os_error(),
            code => io::Error::from_raw_os_error(code.abs()),
        };
        VerbsError { verb, place: place.into(), attempt, error }
    }

    /// From a verb that returns a pointer and leaves its error in `errno`.
    pub(super) fn last(verb: &'static str, place: &str, attempt: String) -> VerbsError {
        VerbsError { verb, place: place.into(), attempt, error: io::Error::last_os_error() }
    }

    /// Is it the limit on locked memory, as far as can be told?
    pub fn is_memlock(&self) -> bool {
        self.error.raw_os_error() == Some(rustix::io::Errno::NOMEM.raw_os_error())
    }

    /// Does the device itself not answer any more?
    pub fn is_gone(&self) -> bool {
        let gone = [rustix::io::Errno::IO, rustix::io::Errno::NODEV];
        gone.iter().any(|errno| self.error.raw_os_error() == Some(errno.raw_os_error()))
    }
}

/// The limit on locked memory, in words.
pub fn memlock() -> String {
    match rustix::process::getrlimit(rustix::process::Resource::Memlock).current {
        None => "unlimited".into(),
        Some(bytes) if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        Some(bytes) => format!("{} KiB", bytes >> 10),
    }
}

/// Why a link does not carry frames (any more). A number on the wire, so that the peer can say it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFailure {
    /// This side was configured not to use RDMA.
    NotWanted,
    /// There is no RDMA library, device, active port or usable address.
    NoDevice,
    /// The system refused memory, queues or regions: often the limit on locked memory.
    Resources,
    /// The two ends cannot be joined: different link layers, or the queue pair refused the other's address.
    NoPath,
    /// The peer did not answer: `IBV_WC_RETRY_EXC_ERR`.
    Unreachable,
    /// The peer had no receive posted for too long: `IBV_WC_RNR_RETRY_EXC_ERR`.
    NotReceiving,
    /// The peer refused access: a wrong key or address.
    AccessRefused,
    /// The queue pair went to its error state: its receives were flushed.
    Broken,
    /// The device was removed, or had a fatal error.
    DeviceLost,
    /// A completion with another status.
    Status(u8),
    /// The peer gave the link up, and did not say why in a way that this side knows.
    Unknown,
}

impl LinkFailure {
    /// From the status of a completion that is not success.
    pub fn of_status(status: c_int) -> LinkFailure {
        match status {
            ffi::IBV_WC_RETRY_EXC_ERR => LinkFailure::Unreachable,
            ffi::IBV_WC_RNR_RETRY_EXC_ERR => LinkFailure::NotReceiving,
            ffi::IBV_WC_REM_ACCESS_ERR => LinkFailure::AccessRefused,
            ffi::IBV_WC_WR_FLUSH_ERR => LinkFailure::Broken,
            status => LinkFailure::Status(u8::try_from(status).unwrap_or(u8::MAX)),
        }
    }

    /// Its number on the wire; above 256 a completion's status.
    pub fn number(self) -> u64 {
        match self {
            LinkFailure::NotWanted => 1,
            LinkFailure::NoDevice => 2,
            LinkFailure::Resources => 3,
            LinkFailure::NoPath => 4,
            LinkFailure::Unreachable => 5,
            LinkFailure::NotReceiving => 6,
            LinkFailure::AccessRefused => 7,
            LinkFailure::Broken => 8,
            LinkFailure::DeviceLost => 9,
            LinkFailure::Unknown => 10,
            LinkFailure::Status(status) => 256 + u64::from(status),
        }
    }

    /// From the number on the wire.
    pub fn from_number(number: u64) -> LinkFailure {
        match number {
            1 => LinkFailure::NotWanted,
            2 => LinkFailure::NoDevice,
            3 => LinkFailure::Resources,
            4 => LinkFailure::NoPath,
            5 => LinkFailure::Unreachable,
            6 => LinkFailure::NotReceiving,
            7 => LinkFailure::AccessRefused,
            8 => LinkFailure::Broken,
            9 => LinkFailure::DeviceLost,
            257..512 => LinkFailure::Status((number - 256) as u8),
            _ => LinkFailure::Unknown,
        }
    }
}

impl fmt::Display for LinkFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkFailure::NotWanted => f.write_str("it is not to use RDMA"),
            LinkFailure::NoDevice => f.write_str("it has no usable RDMA device (solon rdma devices says why)"),
            LinkFailure::Resources => f.write_str("it could not get memory or queues for RDMA (RLIMIT_MEMLOCK?)"),
            LinkFailure::NoPath => f.write_str("there is no RDMA path between the two addresses"),
            LinkFailure::Unreachable => {
                f.write_str("the peer did not answer (status 12: link, switch, or a firewall on UDP port 4791)")
            }
            LinkFailure::NotReceiving => f.write_str("the peer did not receive (status 13)"),
            LinkFailure::AccessRefused => f.write_str("the peer refused access (status 10)"),
            LinkFailure::Broken => f.write_str("the queue pair broke"),
            LinkFailure::DeviceLost => f.write_str("the RDMA device is gone"),
            LinkFailure::Status(status) => write!(f, "a completion ended with status {status}"),
            LinkFailure::Unknown => f.write_str("the peer gave it up"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_survive_the_wire_and_unknown_numbers_are_unknown() {
        for number in 0..600 {
            let failure = LinkFailure::from_number(number);
            assert!(failure == LinkFailure::Unknown || failure.number() == number, "{number}");
        }
        assert_eq!(LinkFailure::of_status(12), LinkFailure::Unreachable);
        assert_eq!(LinkFailure::from_number(LinkFailure::of_status(2).number()), LinkFailure::Status(2));
    }

    #[test]
    fn an_error_says_verb_place_attempt_and_the_limit_that_is_to_blame() {
        let error = VerbsError::from_code("ibv_reg_mr", "mlx5_0", "4.1 GiB of shards".into(), 12);
        let text = error.to_string();
        for part in ["ibv_reg_mr on mlx5_0", "Cannot allocate memory", "4.1 GiB of shards", "RLIMIT_MEMLOCK is"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!VerbsError::from_code("ibv_modify_qp", "x", String::new(), 22).to_string().contains("MEMLOCK"));
    }
}
