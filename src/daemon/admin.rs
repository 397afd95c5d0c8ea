//! Metrics, health and status over HTTP, on a thread of their own.
//!
//! ```text
//! main thread -- events --> History --+
//! reactors ---- Pulse, Board ---------+--> Answers --> solon-admin: one thread, eight connections
//! Metrics ----------------------------+
//! ```
//!
//! Nothing here touches the data path: counters are read, and what is remembered is behind a lock that only the main thread and this one
//! take. Every question is answered from what holds at that moment. There is nothing to change here: only GET and HEAD, no bodies.

mod answers;
pub mod client;
mod page;
mod server;
pub mod text;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use super::config::Config;
use super::serve::{Daemon, ServeError};
use crate::pipeline::Event;
use answers::Answers;

/// A port that is listened on, but not answered yet; `None` if the configuration wants none.
pub struct Port(Option<(TcpListener, SocketAddr)>);

impl Port {
    /// Takes the port, so that one that is taken is known before anything else is claimed.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub fn take(config: &Config) -> Result<Port, ServeError> {
        let Some(admin) = &config.admin else { return Ok(Port(None)) };
        let failed = |error| ServeError::Admin { address: admin.address, error };
        let listener = TcpListener::bind(admin.address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Port(Some((listener, address))))
    }

    /// Where it is, in words.
    pub fn name(&self) -> String {
        self.0.as_ref().map_or("off (admin.serve)".into(), |(_, address)| address.to_string())
    }
}

/// Answers until it is dropped.
pub struct Admin {
    answers: Arc<Answers>,
    server: Option<(Arc<server::Stop>, JoinHandle<()>)>,
}

impl Admin {
    /// Answers about this daemon at this port, from now on.
    ///
    /// # Errors
    /// If the operating system has no thread or event queue for it.
    pub fn start(port: Port, config: &Config, daemon: &Daemon) -> Result<Admin, ServeError> {
        let answers = Arc::new(Answers::new(config, daemon, Instant::now()));
        let mut server = None;
        if let Some((listener, _)) = port.0 {
            server = Some(server::start(listener, answers.clone()).map_err(ServeError::System)?);
        }
        Ok(Admin { answers, server })
    }

    /// Remembers what happened.
    pub fn observe(&self, event: &Event, now: Instant) {
        self.answers.observe(event, now);
    }

    /// The daemon is asked to stop: it is not ready any more.
    pub fn stopping(&self) {
        self.answers.stopping();
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.server.take() {
            stop.notify_one();
            // A bug of it ends with it: the daemon has served.
            let _ = thread.join();
        }
    }
}
