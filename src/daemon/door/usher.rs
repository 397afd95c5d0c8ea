//! From the door to the pipeline: makes the connection that was agreed on, and admits the worker. For RDMA on a thread of its own.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::pipeline::{Counter, Handle, Job, Limits};
use crate::transport::rdma::{Fabric, LinkFailure, Offer};
use crate::transport::{Connection, Transport, tcp};
use crate::wire::{Area, Endpoint, Refusal, attached_frame, refusal_frame};

/// Says, until it is dropped, that a worker's queue pair is being connected.
pub(super) struct Busy(pub(super) Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Leads workers whose way is agreed on to the pipeline.
#[derive(Clone)]
pub(super) struct Usher {
    pub(super) job: Arc<Job>,
    pub(super) handle: Handle,
    pub(super) transport: Transport,
}

impl Usher {
    /// Connects the queue pair that was offered to the worker's, and admits the worker.
    #[allow(clippy::too_many_arguments, reason = "one call, from a thread of its own")]
    pub(super) fn connect(
        &self,
        fabric: &Fabric,
        busy: Busy,
        offer: Offer,
        endpoint: &Endpoint,
        area: Area,
        stream: TcpStream,
        worker: u32,
        session: u64,
    ) {
        let connected = stream.try_clone().and_then(|voice| Ok((voice, self.control(stream)?)));
        let (voice, control) = match connected {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(worker, %error, "a worker's connection ended during the handshake");
                return;
            }
        };
        let connected = fabric.connect(offer, endpoint, area, control);
        // Before the worker is answered: it may come again at once.
        drop(busy);
        match connected {
            Ok(connection) => {
                // It fits into the socket's buffer, or the connection is broken, which the pipeline will see.
                let _ = (&voice).write_all(&attached_frame(0, self.job.epoch));
                self.handle.board.count(Counter::RdmaSessions, 1);
                tracing::info!(worker, transport = "rdma", "worker admitted");
                self.admit(worker, session, connection);
            }
            Err((_, why)) => {
                tracing::warn!(worker, %why, "the RDMA connection could not be made");
                self.by_tcp_after_all(voice, worker, session, why.failure);
            }
        }
    }

    /// It could not be RDMA after all.
    pub(super) fn by_tcp_after_all(&self, stream: TcpStream, worker: u32, session: u64, why: LinkFailure) {
        if self.transport == Transport::Rdma {
            self.refuse(&stream, Refusal::RdmaOnly { found: u64::from(worker) });
            return;
        }
        // Fails only if the connection is broken, which the pipeline will see.
        let _ = (&stream).write_all(&attached_frame(why.number(), self.job.epoch));
        self.by_tcp(stream, worker, session, Some(why));
    }

    /// The TCP connection of a session.
    fn control(&self, stream: TcpStream) -> io::Result<Connection> {
        // Beside all frames of the pipeline: those by which a session changes from RDMA to TCP.
        let limits = Limits::of(&self.job.plan, self.job.updates);
        let queue = 2 + limits.outbound_of(&self.job);
        // The pusher's own deadline comes first, and says why.
        let patience = self.job.write_deadline + Duration::from_secs(5);
        tcp::connection(stream, queue, patience)
    }

    pub(super) fn by_tcp(&self, stream: TcpStream, worker: u32, session: u64, refused: Option<LinkFailure>) {
        if let Some(why) = refused {
            self.handle.board.count(Counter::RdmaRefused, 1);
            // What was not wanted here is no news.
            if why != LinkFailure::NotWanted {
                tracing::info!(worker, %why, "worker asked for RDMA and comes by TCP");
            }
        }
        match self.control(stream) {
            Ok(connection) => {
                self.handle.board.count(Counter::TcpSessions, 1);
                tracing::info!(worker, transport = "tcp", "worker admitted");
                self.admit(worker, session, connection);
            }
            Err(error) => tracing::debug!(worker, %error, "a worker's connection ended during the handshake"),
        }
    }

    fn admit(&self, worker: u32, session: u64, connection: Connection) {
        if !self.handle.admit(worker, session, connection) {
            self.handle.board.count(Counter::SessionsBroken, 1);
            tracing::error!(worker, "too many workers join at once: this one must try again");
        }
    }

    pub(super) fn refuse(&self, stream: &TcpStream, refusal: Refusal) {
        self.handle.board.refused(refusal);
        // Who does not take the refusal sees the connection end.
        let mut stream = stream;
        let _ = stream.write_all(&refusal_frame(refusal));
    }
}
