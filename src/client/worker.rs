//! A worker's handle: the session over TCP or RDMA, driven by the caller while it is in a call, and by a sleeping thread meanwhile.
//!
//! The thread exists because a worker computes for long without calling us: whatever the daemon sends in that time must be
//! taken, or one slow worker would hold up the update slots that serve all.

mod feed;

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::Waker;

use super::driver::Driver;
use super::error::{ClientError, JoinError, Lost};
use super::join::{Agreed, Way, join};
use super::joined::Joined;
use super::landing::update_in;
use super::mesh::Mesh;
use super::owner::{Forked, Owner};
use super::patience::{Interrupt, Patience};
use super::relay::Carry;
use super::session::{Session, Source, Tamper};
use crate::code::Place;
use crate::memory::SharedSlot;
use crate::transport::rdma;
use crate::transport::{Disconnect, Transport};
use crate::wire::{Fingerprint, Identity, Plan, Report, Resume};

/// How to join.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// Where solond listens, `host:port`.
    pub address: String,
    /// The job's name.
    pub job: String,
    /// This worker's index in the job.
    pub worker: u32,
    /// This worker's token; empty where the daemon serves openly.
    pub token: String,
    /// Time to connect, for the handshake, and until the session is ready.
    pub join_timeout: Duration,
    /// The longest that one call waits for a round to end.
    pub round_timeout: Duration,
    /// How shards and updates travel.
    pub transport: Transport,
    /// Which RDMA port is used, and how.
    pub rdma: rdma::Options,
    /// Where other workers reach this one, if not at the address that it reaches the daemon from.
    pub advertise: Option<IpAddr>,
    /// How this worker computes, for the daemon to compare with the others of its group; empty: not said.
    pub fingerprint: Fingerprint,
    /// What has a call give up its wait for a round; joining and leaving are bounded in time, and do not ask.
    pub interrupt: Option<Interrupt>,
}

impl JoinOptions {
    /// Options for worker `worker` of job `job` at `address`, without a token, with 10 s to join and 10 minutes per round, by RDMA
    /// where there is any.
    pub fn new(address: impl Into<String>, job: impl Into<String>, worker: u32) -> JoinOptions {
        JoinOptions {
            address: address.into(),
            job: job.into(),
            worker,
            token: String::new(),
            join_timeout: Duration::from_secs(10),
            round_timeout: Duration::from_secs(600),
            transport: Transport::Auto,
            rdma: rdma::Options::default(),
            advertise: None,
            fingerprint: Fingerprint::default(),
            interrupt: None,
        }
    }

    /// The same, and the daemon is told how this worker computes.
    pub fn fingerprint(self, fingerprint: Fingerprint) -> JoinOptions {
        JoinOptions { fingerprint, ..self }
    }
}

struct Shared {
    owner: Owner,
    driver: Mutex<Driver>,
    /// Calls that want the driver, or have it.
    callers: AtomicUsize,
    idle: Condvar,
    waker: Waker,
    leaving: AtomicBool,
}

impl Shared {
    /// Takes the driver away from the thread.
    fn driver(&self) -> Caller<'_> {
        if let Err(forked) = self.owner.check() {
            // The lock may be held by a thread that this process does not have.
            panic!("{forked}");
        }
        self.callers.fetch_add(1, Ordering::SeqCst);
        // Fails only if the counter behind it is full, and then the thread is awake.
        let _ = self.waker.wake();
        Caller { shared: self, driver: Some(lock(&self.driver)) }
    }
}

/// The driver, in the hands of a caller.
struct Caller<'a> {
    shared: &'a Shared,
    driver: Option<MutexGuard<'a, Driver>>,
}

impl std::ops::Deref for Caller<'_> {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        self.driver.as_ref().expect("held until dropped")
    }
}

impl std::ops::DerefMut for Caller<'_> {
    fn deref_mut(&mut self) -> &mut Driver {
        self.driver.as_mut().expect("held until dropped")
    }
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.shared.callers.fetch_sub(1, Ordering::SeqCst);
        self.driver = None;
        self.shared.idle.notify_all();
    }
}

fn lock(driver: &Mutex<Driver>) -> MutexGuard<'_, Driver> {
    // A panic in between leaves the session's own state whole: it is checked against the wire at every step.
    driver.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves what can be moved while the caller computes.
fn receive_meanwhile(shared: &Shared) {
    let mut driver = lock(&shared.driver);
    while !shared.leaving.load(Ordering::SeqCst) {
        if shared.callers.load(Ordering::SeqCst) > 0 {
            // The limit guards against a notification between the check and the wait.
            let limit = Duration::from_millis(100);
            driver = shared.idle.wait_timeout(driver, limit).unwrap_or_else(PoisonError::into_inner).0;
        } else if driver.turn(None, None).is_err() {
            // The next call says why.
            return;
        }
    }
}

/// A worker in a job.
///
/// It belongs to the process that joined. In a child that was forked from it every call fails with [`Forked`] at once (those that
/// return no error panic), and dropping it there disturbs nobody: the parent goes on.
pub struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    options: JoinOptions,
    plan: Plan,
    last: Option<Resume>,
    joined: Joined,
    way: Way,
    /// The round that was begun by [`Worker::feed`].
    fed: Option<u64>,
}

/// The update of one round, where it landed: nothing was copied. Until it is dropped its place cannot take another round's, so a
/// worker that keeps it for more rounds than its window has falls behind.
pub struct Update {
    place: Option<SharedSlot>,
    dimension: usize,
    round: u64,
    report: Report,
    shared: Arc<Shared>,
}

impl Update {
    /// The round.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// What the daemon reports of it.
    pub fn report(&self) -> &Report {
        &self.report
    }
}

impl std::ops::Deref for Update {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        update_in(self.place.as_ref().expect("held until dropped"), self.dimension)
    }
}

impl Drop for Update {
    fn drop(&mut self) {
        if self.shared.owner.check().is_err() {
            // Who else was about to use the place in the parent is not here to finish.
            std::mem::forget(self.place.take());
            return;
        }
        self.place = None;
        // Somebody may wait for the place. Fails only if the counter behind it is full, and then nobody sleeps.
        let _ = self.shared.waker.wake();
    }
}

impl std::fmt::Debug for Update {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Update").field("round", &self.round).field("report", &self.report).finish_non_exhaustive()
    }
}

impl Worker {
    /// Joins a job.
    ///
    /// # Errors
    /// If the daemon cannot be reached, or refuses; the error says what to do.
    pub fn join(options: &JoinOptions) -> Result<Worker, JoinError> {
        Worker::join_after(options, None)
    }

    /// Joins a job as a worker that has collected rounds before, up to `last`.
    ///
    /// # Errors
    /// As [`Worker::join`].
    pub fn join_after(options: &JoinOptions, last: Option<Resume>) -> Result<Worker, JoinError> {
        let deadline = Instant::now() + options.join_timeout;
        let Agreed { connection, welcome, memory, way, near, elsewhere } = join(options, last, deadline)?;
        let plan = welcome.plan;
        let job = Identity::new(&options.job, options.worker).job;
        let session = Session::with_memory(connection, welcome, job, memory)?;
        let mesh = Mesh::new(plan.parameters.workers(), near, options.advertise.or(near.filter(|_| elsewhere)));
        let (mut driver, waker) = Driver::new(session, mesh).map_err(JoinError::Local)?;
        let round = loop {
            if let Some(round) = driver.session.oldest() {
                break round;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Lost::Connection(Disconnect::Io(io::ErrorKind::TimedOut)).into());
            }
            driver.turn(Some(left), None)?;
        };
        let shared = Arc::new(Shared {
            owner: Owner::this(),
            driver: Mutex::new(driver),
            callers: AtomicUsize::new(0),
            idle: Condvar::new(),
            waker,
            leaving: AtomicBool::new(false),
        });
        let thread = {
            let shared = shared.clone();
            let builder = std::thread::Builder::new().name("solon-receive".into());
            builder.spawn(move || receive_meanwhile(&shared)).map_err(JoinError::Local)?
        };
        let joined = Joined::after(last, welcome.last, round);
        Ok(Worker { shared, thread: Some(thread), options: options.clone(), plan, last, joined, way, fed: None })
    }

    /// Joins again after the session was lost, with the same options.
    ///
    /// # Errors
    /// As [`Worker::join`]; [`JoinError::is_transient`] tells whether to try again.
    pub fn rejoin(&mut self) -> Result<Joined, JoinError> {
        self.shared.owner.check()?;
        self.stop();
        *self = Worker::join_after(&self.options, self.last)?;
        Ok(self.joined)
    }

    /// Fails in a process that was forked from the one that joined.
    ///
    /// # Errors
    /// There.
    pub fn check_process(&self) -> Result<(), Forked> {
        self.shared.owner.check()
    }

    /// How this session began.
    pub fn joined(&self) -> Joined {
        self.joined
    }

    /// The job's plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// This worker's index in the job.
    pub fn index(&self) -> usize {
        self.options.worker as usize
    }

    /// This worker's group, and its row there.
    pub fn place(&self) -> Place {
        self.plan.parameters.place(self.index())
    }

    /// The last round whose end was collected; its digest is 0 if it was undecodable.
    pub fn last(&self) -> Option<Resume> {
        self.last
    }

    /// The round that the next submission is for.
    pub fn next_round(&self) -> u64 {
        self.shared.driver().session.next_round()
    }

    /// Bytes of frames sent and received in this session.
    pub fn traffic(&self) -> (u64, u64) {
        self.shared.driver().session.traffic()
    }

    /// For how long this session has encoded shards, which is while others are on their way.
    pub fn encoding(&self) -> Duration {
        self.shared.driver().session.encoding()
    }

    /// How this session's shards and updates travel now, and why. A session that began by RDMA may have gone on by TCP.
    pub fn way(&mut self) -> &Way {
        if let Some(failure) = self.shared.driver().session.fell_back() {
            self.way = Way { rdma: false, reason: format!("RDMA ended in mid-run: {failure}") };
        }
        &self.way
    }

    /// Bytes of updates that this library has copied in this session from one place in memory to another:
    /// [`Worker::wait`] and [`Worker::exchange`] do so where an update could not land in the caller's buffer, which over RDMA is
    /// always; [`Worker::update`] never does.
    pub fn copied(&self) -> u64 {
        self.shared.driver().session.copied()
    }

    /// Has the job closed a round that this worker has not submitted? Then computing for it is of no use:
    /// [`Worker::follow`] takes its update.
    pub fn is_behind(&self) -> bool {
        self.shared.driver().session.is_behind()
    }

    fn check_call(&self, what: &'static str, found: usize) -> Result<(), ClientError> {
        self.check_length(what, found, self.plan.layout.dimension())
    }

    /// Of what is submitted: a gradient, or as many as the plan's code combines.
    fn check_gradient(&self, what: &'static str, found: usize) -> Result<(), ClientError> {
        self.check_length(what, found, self.plan.layout.dimension() * self.plan.gradients as usize)
    }

    fn check_length(&self, what: &'static str, found: usize, expected: usize) -> Result<(), ClientError> {
        self.shared.owner.check()?;
        if found == expected { Ok(()) } else { Err(ClientError::Length { what, found, expected }) }
    }

    /// Submits a gradient for the next round and returns that round. Blocks while credits are short, which is while other
    /// workers are behind or the network is busy. Several rounds, up to the plan's window, may be in flight.
    ///
    /// # Errors
    /// If the length is wrong, the window is full, time is up, or the aggregator is lost.
    pub fn submit(&mut self, gradient: &[f32]) -> Result<u64, ClientError> {
        self.submit_tampered(gradient, None)
    }

    /// [`Worker::submit`] as a liar: `tamper` changes each shard after it was encoded. For tests and demonstrations.
    ///
    /// # Errors
    /// As [`Worker::submit`].
    pub fn submit_tampered(&mut self, gradient: &[f32], mut tamper: Option<Tamper<'_>>) -> Result<u64, ClientError> {
        self.check_gradient("the gradient", gradient.len())?;
        let mut driver = self.shared.driver();
        if self.fed.is_some() {
            return Err(ClientError::WindowFull { in_flight: 1, allowed: 0 });
        }
        let round = driver.session.begin()?;
        let mut patience = Patience::new(round, &self.options);
        loop {
            let queued = driver.session.pump(Source::Separate(gradient), reborrow(&mut tamper));
            let moved = if queued {
                driver.session.drive(Instant::now(), None).map(|_| ()).map_err(|why| patience.lost(why))
            } else {
                patience.turn(&mut driver, None)
            };
            if let Err(error) = moved {
                driver.session.abandon();
                return Err(error);
            }
            if queued {
                return Ok(round);
            }
        }
    }

    /// Waits for the oldest round that was not collected and fills `update` with its update: the same bytes for every worker of
    /// the job.
    ///
    /// # Errors
    /// If the round is undecodable (then `update` must not be used; the next round can go on), the length is wrong, time is up
    /// (call again), or the aggregator is lost.
    pub fn wait(&mut self, update: &mut [f32]) -> Result<Report, ClientError> {
        self.check_call("the buffer for the update", update.len())?;
        self.finish(update, |_, _| {})
    }

    /// Waits for the oldest round that was not collected, and gives its update where it landed: nothing is copied. What travelled as
    /// 16 bits is widened there.
    ///
    /// # Errors
    /// As [`Worker::wait`].
    pub fn update(&mut self) -> Result<Update, ClientError> {
        self.shared.owner.check()?;
        let mut driver = self.shared.driver();
        let mut patience = Patience::new(driver.session.oldest().unwrap_or(0), &self.options);
        let result = loop {
            if let Some(result) = driver.session.collect_place() {
                break result;
            }
            match patience.turn(&mut driver, None) {
                Ok(()) => {}
                Err(error @ (ClientError::Timeout { .. } | ClientError::Interrupted { .. })) => return Err(error),
                // What was complete when the connection ended counts.
                Err(error) => break driver.session.collect_place().unwrap_or(Err(error)),
            }
        };
        drop(driver);
        self.collected(result.as_ref().map(|(round, report, _)| (*round, report.digest)));
        let (round, report, place) = result?;
        let (shared, dimension) = (self.shared.clone(), self.plan.layout.dimension());
        Ok(Update { place: Some(place), dimension, round, report, shared })
    }

    fn collected(&mut self, ended: Result<(u64, u64), &ClientError>) {
        self.fed = None;
        match ended {
            Ok((round, digest)) => self.last = Some(Resume { round, digest }),
            // Closed without an update: nothing is missed.
            Err(ClientError::Undecodable { round, .. }) => self.last = Some(Resume { round: *round, digest: 0 }),
            Err(_) => {}
        }
    }

    /// Submits the gradient in `buffer` and replaces it by the update. After an error `buffer` holds neither. With the cyclic code `buffer`
    /// has the gradients of all this worker's [batches](crate::rules::cyclic::batches), one after another, and the update replaces the first.
    ///
    /// # Errors
    /// As [`Worker::submit`] and [`Worker::wait`]; and if another round is in flight.
    pub fn exchange(&mut self, buffer: &mut [f32]) -> Result<Report, ClientError> {
        self.exchange_tampered(buffer, None)
    }

    /// [`Worker::exchange`] as a liar: `tamper` changes each shard after it was encoded. For tests and demonstrations.
    ///
    /// # Errors
    /// As [`Worker::exchange`].
    pub fn exchange_tampered(
        &mut self,
        buffer: &mut [f32],
        mut tamper: Option<Tamper<'_>>,
    ) -> Result<Report, ClientError> {
        self.check_gradient("the buffer", buffer.len())?;
        {
            let mut driver = self.shared.driver();
            if self.fed.take().is_none() {
                begin_alone(&mut driver.session)?;
            }
        }
        self.finish(buffer, |session, buffer| {
            session.pump(Source::InPlace(buffer), reborrow(&mut tamper));
        })
    }

    /// Takes the update of the oldest round that was not collected; if this worker has not submitted to it, it never will.
    ///
    /// # Errors
    /// As [`Worker::wait`].
    pub fn follow(&mut self, update: &mut [f32]) -> Result<Report, ClientError> {
        self.check_call("the buffer for the update", update.len())?;
        self.shared.driver().session.skip();
        self.wait(update)
    }

    /// Drives the session until the oldest round ends, calling `before` ahead of every turn.
    fn finish(
        &mut self,
        buffer: &mut [f32],
        mut before: impl FnMut(&mut Session, &[f32]),
    ) -> Result<Report, ClientError> {
        let dimension = self.plan.layout.dimension();
        let mut driver = self.shared.driver();
        let mut patience = Patience::new(driver.session.oldest().unwrap_or(0), &self.options);
        let result = loop {
            before(&mut driver.session, buffer);
            let update = &mut buffer[..dimension];
            if let Some(result) = driver.session.collect(update) {
                break result;
            }
            match patience.turn(&mut driver, Some(update)) {
                Ok(()) => {}
                Err(error @ (ClientError::Timeout { .. } | ClientError::Interrupted { .. })) => {
                    self.fed = None;
                    driver.session.abandon();
                    driver.session.withdraw(update);
                    return Err(error);
                }
                // What was complete when the connection ended counts.
                Err(error) => break driver.session.collect(update).unwrap_or(Err(error)),
            }
        };
        drop(driver);
        self.collected(result.as_ref().map(|(round, report)| (*round, report.digest)));
        result.map(|(_, report)| report)
    }

    /// Makes this worker encode as row `row` of its group: for liars that send another worker's shard.
    pub fn set_row(&mut self, row: usize) {
        self.shared.driver().session.set_row(row);
    }

    /// Has every frame that this worker passes on go through `carry`: for liars in tests and demonstrations.
    pub fn set_carry(&mut self, carry: Carry) {
        self.shared.driver().session.set_carry(carry);
    }

    /// How many other workers this one has links with, to pass updates on.
    pub fn links(&self) -> usize {
        let driver = self.shared.driver();
        (0..self.plan.parameters.workers() as u32).filter(|peer| driver.session.is_linked(*peer)).count()
    }

    /// The port where other workers reach this one, once the daemon has asked for it.
    pub fn link_port(&self) -> Option<u16> {
        self.shared.driver().mesh.port()
    }

    /// Leaves the job in peace: what was submitted still goes, for a second at most.
    pub fn leave(mut self) {
        if self.shared.owner.check().is_err() {
            return;
        }
        let mut driver = self.shared.driver();
        driver.session.leave(Instant::now());
        let until = Instant::now() + Duration::from_secs(1);
        while !driver.session.is_sent() {
            let left = until.saturating_duration_since(Instant::now());
            // A session that is over has nobody to leave.
            if left.is_zero() || driver.turn(Some(left), None).is_err() {
                break;
            }
        }
        drop(driver);
        self.stop();
    }

    fn stop(&mut self) {
        self.shared.leaving.store(true, Ordering::SeqCst);
        drop(self.shared.driver());
        if let Some(thread) = self.thread.take() {
            // It ends at once; a panic in it was already printed.
            let _ = thread.join();
        }
        let mut driver = self.shared.driver();
        driver.session.hang_up();
        driver.mesh.close();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.shared.owner.check().is_err() {
            // Kept for ever: to give any of it back would be to take it from the parent.
            std::mem::forget((self.shared.clone(), self.thread.take()));
            return;
        }
        self.stop();
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("options", &self.options).field("last", &self.last).finish_non_exhaustive()
    }
}

/// Begins a round whose update lands in the buffer that its gradient stands in: that of another round would land there, too.
fn begin_alone(session: &mut Session) -> Result<u64, ClientError> {
    let in_flight = session.next_round() - session.oldest().unwrap_or(session.next_round());
    // Whoever has lost its session learns that.
    if in_flight > 0 && session.lost().is_none() {
        return Err(ClientError::WindowFull { in_flight, allowed: 0 });
    }
    session.begin()
}

fn reborrow<'a>(tamper: &'a mut Option<Tamper<'_>>) -> Option<Tamper<'a>> {
    match tamper {
        Some(tamper) => Some(&mut **tamper),
        None => None,
    }
}
