//! The link between the daemon and its workers, held to a rate by the kernel: two network namespaces, joined by a pair of interfaces.
//!
//! ```text
//!   solon-lab-PID-d            solon-lab-PID-w
//!   solond                     all workers
//!   10.215.0.1 eth0 ========== eth0 10.215.0.2
//!              token bucket    token bucket
//!              (downloads)     (uploads)
//! ```
//!
//! So it is the daemon's link that is shaped, where everything meets; workers are as fast as that lets them be. A direction is shaped
//! where it begins, so that what waits there holds its sender up and nothing is dropped. The bucket holds what comes in a millisecond, and at
//! least 64 KiB, so that what the kernel sends at once need not be cut; the queue before it has room for what all workers may have in flight.
//!
//! Needs `ip` and `tc`, and the right to make namespaces. They are removed when this is dropped; those that a lab left which was killed are
//! removed by the next one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What names of namespaces, and of files that are shared, begin with; then the number of the lab's process.
pub const PREFIX: &str = "solon-lab-";

/// The daemon's address.
pub const DAEMON: &str = "10.215.0.1";

/// Two namespaces and the link between them.
#[derive(Debug)]
pub struct Network {
    name: String,
}

/// Who runs where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The daemon.
    Daemon,
    /// The workers.
    Workers,
}

/// Why there are no namespaces.
#[derive(Debug, thiserror::Error)]
#[error("network namespaces cannot be made: {0}")]
pub struct NotPermitted(String);

impl Network {
    /// Makes the namespaces, with a link as fast as it goes.
    ///
    /// # Errors
    /// If `ip` is missing or not permitted to; nothing is left behind then.
    pub fn make() -> Result<Network, NotPermitted> {
        remove_left_behind();
        let network = Network { name: format!("{PREFIX}{}", std::process::id()) };
        let [daemon, workers] = [End::Daemon, End::Workers].map(|end| network.namespace(end));
        // What was made is removed on the way out: `network` is dropped.
        for namespace in [&daemon, &workers] {
            ip(&["netns", "add", namespace])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        ip(&["-n", &daemon, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &workers])?;
        for (namespace, address) in [(&daemon, "10.215.0.1/24"), (&workers, "10.215.0.2/24")] {
            ip(&["-n", namespace, "addr", "add", address, "dev", "eth0"])?;
            ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
        }
        Ok(network)
    }

    fn namespace(&self, end: End) -> String {
        let end = match end {
            End::Daemon => "d",
            End::Workers => "w",
        };
        format!("{}-{end}", self.name)
    }

    /// Holds the link to `rate` bytes per second in each direction.
    ///
    /// # Errors
    /// If `tc` is missing or not permitted to.
    pub fn shape(&self, rate: f64) -> Result<(), NotPermitted> {
        // What comes in a millisecond: more would be a present to every step, as the bucket fills while workers compute.
        let (rate_bits, burst) = ((rate * 8.0).ceil(), (rate / 1000.0).max(65536.0));
        // Four times the socket buffers of 45 workers: what does not fit would be dropped, and sent again after a long while.
        let limit = burst + 180e6;
        for end in [End::Daemon, End::Workers] {
            let (rate, burst, limit) = (format!("{rate_bits}bit"), format!("{burst:.0}b"), format!("{limit:.0}b"));
            let bucket = ["root", "tbf", "rate", &rate, "burst", &burst, "limit", &limit];
            let namespace = self.namespace(end);
            run(Command::new("tc").args(["-n", &namespace, "qdisc", "replace", "dev", "eth0"]).args(bucket))?;
        }
        Ok(())
    }

    /// Program and arguments that run a command at an end.
    pub fn at(&self, end: End, program: &Path, arguments: Vec<String>) -> (PathBuf, Vec<String>) {
        let program = program.to_string_lossy().into_owned();
        let first = ["netns".into(), "exec".into(), self.namespace(end), program];
        ("ip".into(), first.into_iter().chain(arguments).collect())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for end in [End::Daemon, End::Workers] {
            // It may never have been made.
            let _ = ip(&["netns", "del", &self.namespace(end)]);
        }
    }
}

/// Is this the name of something that a lab made which is no more?
pub fn is_left_behind(name: &str) -> bool {
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    owner.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists())
}

/// Removes the namespaces of labs that are no more.
fn remove_left_behind() {
    let Ok(listed) = Command::new("ip").args(["netns", "list"]).output() else { return };
    for name in String::from_utf8_lossy(&listed.stdout).lines().filter_map(|line| line.split_whitespace().next()) {
        if is_left_behind(name) {
            // Another lab may have been faster.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), NotPermitted> {
    run(Command::new("ip").args(arguments))
}

fn run(command: &mut Command) -> Result<(), NotPermitted> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| NotPermitted(format!("{program}: {error} (Debian: apt-get install iproute2)")))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(NotPermitted(format!("{program}: {}", String::from_utf8_lossy(&done.stderr).trim()))),
    }
}
