//! A worker of a job, and how one joins.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError, mpsc};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyTuple};
use solon::attacks::{Attack, Knowledge, Liar, Lie, Means, UnknownLie};
use solon::client::{self, ClientError, Forked, Given, Interrupt, JoinError, JoinOptions, Tamper};
use solon::transport::Transport;
use solon::wire::{self, Field};

use crate::buffer::Numbers;
use crate::errors::{busy, client_error, forked, join_error, left, not_configured, wrong_value};
use crate::plan::Plan;
use crate::report::Report;

/// While a worker joins it is asked this often whether a signal has come.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// Why a call that waits is to give up.
#[derive(Default)]
struct Signal {
    /// What a signal handler raised.
    raised: Mutex<Option<PyErr>>,
    /// Another thread has asked for it.
    asked: AtomicBool,
}

/// What one call at a time has.
struct Held {
    worker: client::Worker,
    liar: Option<Liar>,
}

/// A worker that has joined a job.
#[pyclass(frozen, module = "solon")]
pub(crate) struct Worker {
    held: Mutex<Option<Held>>,
    plan: Py<Plan>,
    process: u32,
    signal: Arc<Signal>,
}

fn seconds(py: Python<'_>, what: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        wrong_value(py, format!("{what} is {seconds}, expected seconds: a number from 0"), "give a time in seconds")
    })
}

/// Joins a job.
#[pyfunction]
#[pyo3(signature = (endpoint=None, *, job=None, worker=None, token=None, join_timeout=10.0, round_timeout=600.0, transport="auto",
                    advertise=None, fingerprint=None))]
#[allow(clippy::too_many_arguments)] // One keyword each.
pub(crate) fn join(
    py: Python<'_>,
    endpoint: Option<String>,
    job: Option<String>,
    worker: Option<i64>,
    token: Option<String>,
    join_timeout: f64,
    round_timeout: f64,
    transport: &str,
    advertise: Option<&str>,
    fingerprint: Option<BTreeMap<String, String>>,
) -> PyResult<Worker> {
    let worker = worker.map(u32::try_from).transpose().map_err(|_| {
        wrong_value(py, "the worker's index is not a number from 0 to 4294967295".into(), "indices count from 0")
    })?;
    let found = JoinOptions::find(Given { endpoint, job, worker, token });
    let mut options = found.map_err(|error| not_configured(py, &error))?;
    options.join_timeout = seconds(py, "join_timeout", join_timeout)?;
    options.round_timeout = seconds(py, "round_timeout", round_timeout)?;
    let way = transport.parse::<Transport>();
    options.transport =
        way.map_err(|error| wrong_value(py, format!("transport: {error}"), "\"auto\" is the default"))?;
    let address = |text: &str| {
        text.parse::<IpAddr>().map_err(|_| {
            let cause = format!("advertise is {text:?}, expected an IP address");
            wrong_value(py, cause, "it is where other workers reach this one, without a port")
        })
    };
    options.advertise = advertise.map(address).transpose()?;
    for (name, text) in fingerprint.into_iter().flatten() {
        let field = Field::ALL.into_iter().find(|field| field.name() == name).ok_or_else(|| {
            let cause = format!("fingerprint has {name:?}, expected framework, version, threads, device and dtype");
            wrong_value(py, cause, "solon.fingerprint() and solon.torch.fingerprint() make one")
        })?;
        *options.fingerprint.get_mut(field) = text;
    }
    let signal = Arc::<Signal>::default();
    options.interrupt = Some(interrupt(signal.clone()));
    let joined = join_interruptibly(py, options)?;
    let worker = joined.map_err(|error| join_error(py, &error))?;
    let plan = Py::new(py, Plan::new(*worker.plan(), worker.index()))?;
    Ok(Worker { held: Mutex::new(Some(Held { worker, liar: None })), plan, process: std::process::id(), signal })
}

/// Joins in a thread of its own, as joining asks nobody whether to give up. If a signal handler raises meanwhile, whoever still joins
/// leaves at once.
fn join_interruptibly(py: Python<'_>, options: JoinOptions) -> PyResult<Result<client::Worker, JoinError>> {
    let (done, mut joined) = mpsc::channel();
    let join = move || {
        if let Err(mpsc::SendError(Ok(worker))) = done.send(client::Worker::join(&options)) {
            worker.leave();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("solon-join".into()).spawn(join) {
        return Ok(Err(JoinError::Local(error)));
    }
    loop {
        let joined = &mut joined;
        match py.detach(move || joined.recv_timeout(ASKED_EVERY)) {
            Err(mpsc::RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(PyRuntimeError::new_err("joining ended by a bug")),
            Ok(joined) => {
                py.check_signals()?;
                return Ok(joined);
            }
        }
    }
}

/// Gives up a wait if a signal handler raises, which is what Ctrl-C does in the main thread, or if another thread asks for it.
fn interrupt(signal: Arc<Signal>) -> Interrupt {
    Interrupt::new(move || match Python::try_attach(|py| py.check_signals()) {
        Some(Err(raised)) => {
            *signal.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(raised);
            true
        }
        Some(Ok(())) => signal.asked.load(Ordering::SeqCst),
        // The interpreter is ending.
        None => true,
    })
}

impl Worker {
    fn check_process(&self, py: Python<'_>) -> PyResult<()> {
        let (parent, child) = (self.process, std::process::id());
        // Before the lock: a thread may hold it that a child does not have.
        if parent == child { Ok(()) } else { Err(forked(py, Forked { parent, child })) }
    }

    /// Runs `work` without the interpreter's lock.
    fn with<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut Held) -> T + Send) -> PyResult<T> {
        self.check_process(py)?;
        let mut held = match self.held.try_lock() {
            Ok(held) => held,
            Err(TryLockError::WouldBlock) => return Err(busy(py)),
            // The client checks its own state against the wire at every step.
            Err(TryLockError::Poisoned(held)) => held.into_inner(),
        };
        let held = held.as_mut().ok_or_else(|| left(py))?;
        Ok(py.detach(|| work(held)))
    }

    /// Runs a call that may wait.
    fn wait_for<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Held) -> Result<T, ClientError> + Send,
    ) -> PyResult<T> {
        let result = self.with(py, work)?;
        self.signal.asked.store(false, Ordering::SeqCst);
        let raised = self.signal.raised.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (result, raised) {
            (Err(ClientError::Interrupted { .. }), Some(raised)) => Err(raised),
            (Ok(done), _) => Ok(done),
            (Err(error), _) => Err(client_error(py, &error, self.workers())),
        }
    }

    fn workers(&self) -> usize {
        self.plan.get().of().parameters.workers()
    }

    fn report(&self, (round, report): (u64, wire::Report)) -> Report {
        Report::new(round, &report, self.workers())
    }
}

impl Held {
    /// A round's report, and its number, which the worker has just collected.
    fn numbered(&self, report: wire::Report) -> (u64, wire::Report) {
        (self.worker.last().expect("a round was collected").round, report)
    }

    fn exchange(&mut self, buffer: &mut [f32]) -> Result<(u64, wire::Report), ClientError> {
        let Held { worker, liar } = self;
        let report = match liar {
            None => worker.exchange(buffer),
            Some(liar) => {
                liar.gradient(Knowledge::Own, buffer);
                let mut lie = |round, chunk, shard: &mut [f32]| liar.shard(round, chunk as usize, shard);
                let tamper: Tamper<'_> = &mut lie;
                worker.exchange_tampered(buffer, Some(tamper))
            }
        }?;
        Ok(self.numbered(report))
    }

    fn submit(&mut self, gradient: &[f32]) -> Result<u64, ClientError> {
        let Held { worker, liar } = self;
        let Some(liar) = liar else { return worker.submit(gradient) };
        let mut gradient = gradient.to_vec();
        liar.gradient(Knowledge::Own, &mut gradient);
        let mut lie = |round, chunk, shard: &mut [f32]| liar.shard(round, chunk as usize, shard);
        let tamper: Tamper<'_> = &mut lie;
        worker.submit_tampered(&gradient, Some(tamper))
    }
}

#[pymethods]
impl Worker {
    #[getter]
    fn plan(&self, py: Python<'_>) -> Py<Plan> {
        self.plan.clone_ref(py)
    }

    #[getter]
    fn next_round(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |held| held.worker.next_round())
    }

    #[getter]
    fn is_behind(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |held| held.worker.is_behind())
    }

    #[getter]
    fn way(&self, py: Python<'_>) -> PyResult<(&'static str, String)> {
        self.with(py, |held| {
            let way = held.worker.way();
            (if way.rdma { "rdma" } else { "tcp" }, way.reason.clone())
        })
    }

    #[getter]
    fn traffic(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        self.with(py, |held| held.worker.traffic())
    }

    #[getter]
    fn copied(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |held| held.worker.copied())
    }

    fn exchange(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<Report> {
        let mut numbers = Numbers::to_write(buffer)?;
        let slice = numbers.slice_mut();
        self.wait_for(py, |held| held.exchange(slice)).map(|ended| self.report(ended))
    }

    fn submit(&self, py: Python<'_>, gradient: &Bound<'_, PyAny>) -> PyResult<u64> {
        let numbers = Numbers::to_read(gradient)?;
        let slice = numbers.slice();
        self.wait_for(py, |held| held.submit(slice))
    }

    fn feed(&self, py: Python<'_>, gradient: &Bound<'_, PyAny>, ready: usize) -> PyResult<()> {
        let numbers = Numbers::to_read(gradient)?;
        let slice = numbers.slice();
        // A liar lies about the whole of it, in exchange.
        self.wait_for(py, |held| if held.liar.is_some() { Ok(()) } else { held.worker.feed(slice, ready) })
    }

    fn wait(&self, py: Python<'_>, update: &Bound<'_, PyAny>) -> PyResult<Report> {
        let mut numbers = Numbers::to_write(update)?;
        let slice = numbers.slice_mut();
        let ended = self.wait_for(py, |held| held.worker.wait(slice).map(|report| held.numbered(report)));
        ended.map(|ended| self.report(ended))
    }

    fn follow(&self, py: Python<'_>, update: &Bound<'_, PyAny>) -> PyResult<Report> {
        let mut numbers = Numbers::to_write(update)?;
        let slice = numbers.slice_mut();
        let ended = self.wait_for(py, |held| held.worker.follow(slice).map(|report| held.numbered(report)));
        ended.map(|ended| self.report(ended))
    }

    fn rejoin(&self, py: Python<'_>) -> PyResult<(u64, Option<u64>)> {
        let joined = self.with(py, |held| held.worker.rejoin())?;
        py.check_signals()?;
        joined.map(|joined| (joined.round, joined.missed)).map_err(|error| join_error(py, &error))
    }

    #[pyo3(signature = (attack, seed=0))]
    fn lie(&self, py: Python<'_>, attack: &str, seed: u64) -> PyResult<()> {
        let lie: Lie = attack
            .parse()
            .map_err(|error: UnknownLie| wrong_value(py, error.to_string(), "lies are for tests and demonstrations"))?;
        if lie.attack == Attack::Delayed {
            let what = "delayed is a matter of time and not of what is sent".to_owned();
            return Err(wrong_value(py, what, "sleep before the exchange"));
        }
        let plan = self.plan.get();
        self.with(py, |held| {
            let plan = plan.of();
            let means = Means {
                seed,
                worker: held.worker.index(),
                workers: plan.parameters.workers(),
                // It knows of no other.
                liars: 1,
                redundancy: plan.parameters.redundancy(),
                tolerance: plan.tolerance,
                strength: lie.strength,
            };
            let liar = Liar::new(lie.attack, &plan.layout, means);
            held.worker.set_row(liar.row(held.worker.place().row));
            held.liar = Some(liar);
        })
    }

    fn interrupt(&self) {
        self.signal.asked.store(true, Ordering::SeqCst);
    }

    fn leave(&self, py: Python<'_>) -> PyResult<()> {
        self.check_process(py)?;
        let held = match self.held.try_lock() {
            Ok(mut held) => held.take(),
            Err(TryLockError::WouldBlock) => return Err(busy(py)),
            Err(TryLockError::Poisoned(held)) => held.into_inner().take(),
        };
        if let Some(held) = held {
            py.detach(|| held.worker.leave());
        }
        Ok(())
    }

    fn __enter__(this: Py<Worker>) -> Py<Worker> {
        this
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, py: Python<'_>, _raised: &Bound<'_, PyTuple>) -> PyResult<()> {
        // A child that leaves the block has nothing to give back.
        if self.process == std::process::id() { self.leave(py) } else { Ok(()) }
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<solon.Worker {}>", self.plan.bind(py).get().__repr__())
    }
}
