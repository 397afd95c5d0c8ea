//! What went wrong, as the exceptions of `solon._errors`: each with a cause, a hint, and who must act.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use solon::client::{ClientError, Fault, Forked, JoinError, Lost, NotFound};
use solon::wire::HandshakeError;

use crate::report::Report;

/// An exception, and what it is made of.
struct Raised<'py> {
    class: &'static str,
    cause: String,
    hint: &'static str,
    details: Bound<'py, PyDict>,
}

impl<'py> Raised<'py> {
    fn new(py: Python<'py>, class: &'static str, cause: impl ToString, hint: &'static str) -> Raised<'py> {
        Raised { class, cause: cause.to_string(), hint, details: PyDict::new(py) }
    }

    fn with(self, name: &str, value: impl IntoPyObject<'py>) -> Raised<'py> {
        // A dictionary that nobody else has takes any text as a key.
        let _ = self.details.set_item(name, value);
        self
    }

    fn by(self, fault: Fault) -> Raised<'py> {
        let fault = match fault {
            Fault::Caller => "caller",
            Fault::Workers => "workers",
            Fault::Aggregator => "aggregator",
            Fault::Network => "network",
        };
        self.with("fault", fault)
    }

    fn error(self) -> PyErr {
        let py = self.details.py();
        let class = py.import("solon._errors").and_then(|module| module.getattr(self.class));
        match class.and_then(|class| class.call((self.cause, self.hint), Some(&self.details))) {
            Ok(exception) => PyErr::from_value(exception),
            Err(error) => error,
        }
    }
}

pub(crate) fn wrong_type(py: Python<'_>, cause: String, hint: &'static str) -> PyErr {
    Raised::new(py, "WrongType", cause, hint).by(Fault::Caller).error()
}

pub(crate) fn wrong_value(py: Python<'_>, cause: String, hint: &'static str) -> PyErr {
    Raised::new(py, "WrongValue", cause, hint).by(Fault::Caller).error()
}

pub(crate) fn not_configured(py: Python<'_>, error: &NotFound) -> PyErr {
    let hint = "give solon.join an endpoint and an index, or set SOLON_ENDPOINT and SOLON_WORKER";
    Raised::new(py, "NotConfigured", error, hint).by(Fault::Caller).error()
}

pub(crate) fn busy(py: Python<'_>) -> PyErr {
    let cause = "another thread is in a call of this worker";
    Raised::new(py, "Busy", cause, "use a worker from one thread at a time").by(Fault::Caller).error()
}

pub(crate) fn left(py: Python<'_>) -> PyErr {
    let cause = "this worker has left its job";
    Raised::new(py, "Left", cause, "join again with solon.join").by(Fault::Caller).error()
}

pub(crate) fn forked(py: Python<'_>, forked: Forked) -> PyErr {
    let hint = "use the worker only in the process that joined; DataLoader workers get data, not the worker";
    Raised::new(py, "Forked", forked, hint)
        .by(Fault::Caller)
        .with("parent", forked.parent)
        .with("child", forked.child)
        .error()
}

pub(crate) fn join_error(py: Python<'_>, error: &JoinError) -> PyErr {
    let (class, hint) = match error {
        JoinError::Forked(why) => return forked(py, *why),
        JoinError::Connect { .. } => (
            "NoDaemon",
            "start solond, or correct the endpoint (SOLON_ENDPOINT); the daemon logs the address it listens on",
        ),
        JoinError::Handshake(HandshakeError::Refused(_)) => {
            ("Refused", "the daemon's log says who was refused, and why")
        }
        JoinError::Mixed { .. } => (
            "Refused",
            "use the same version of torch, the same torch.set_num_threads and the same hardware in a group; or find the tolerance \
             with `solon calibrate`, and start solond with --verify-mixed warn",
        ),
        JoinError::Io { .. } | JoinError::Handshake(_) => {
            ("JoinError", "is it solond that listens there, of the same version as this package?")
        }
        JoinError::Generator { .. } => ("JoinError", "install the same version of solon here and there"),
        JoinError::NoRdma { .. } => ("JoinError", "join with transport='auto', which takes TCP where there is no RDMA"),
        JoinError::Lost(_) => ("JoinError", "try again: the daemon's log says why it ended the session"),
        JoinError::Local(_) => ("JoinError", "look at the limits of this process (ulimit -a): threads, open files"),
    };
    Raised::new(py, class, error, hint).by(error.fault()).with("transient", error.is_transient()).error()
}

pub(crate) fn client_error(py: Python<'_>, error: &ClientError, workers: usize) -> PyErr {
    let raised = |class, hint| Raised::new(py, class, error, hint).by(error.fault());
    match error {
        ClientError::Forked(why) => forked(py, *why),
        ClientError::Length { .. } => raised(
            "WrongValue",
            "start solond with --job-dimension of the model; solon.torch.dimension(module) counts it",
        )
        .error(),
        ClientError::WindowFull { .. } => {
            raised("WindowFull", "call wait once for every submit; exchange needs that nothing is in flight").error()
        }
        ClientError::Undecodable { round, group, chunk, reason, report } => {
            let hint = "apply nothing; the next round can go on. More workers of the group lie, are late or gone than the code \
                        corrects, or the gradient is not finite";
            raised("Undecodable", hint)
                .with("round", *round)
                .with("group", *group)
                .with("chunk", *chunk)
                .with("reason", reason.to_string())
                .with("report", Report::new(*round, report, workers))
                .error()
        }
        ClientError::AggregatorLost { round, why } => {
            let hint = match why {
                Lost::FellBehind => {
                    "this worker is too slow for its job: raise rounds.window, or use fewer workers per machine"
                }
                Lost::Stopped => "start solond again, then worker.rejoin()",
                _ => "call worker.rejoin(), which says how many rounds were missed; the daemon's log says more",
            };
            raised("AggregatorLost", hint).with("round", *round).error()
        }
        ClientError::Timeout { round, .. } => {
            let hint = "other workers are late or gone: the daemon's log says who; solon.join takes round_timeout";
            raised("Timeout", hint).with("round", *round).error()
        }
        ClientError::Interrupted { round } => {
            raised("Timeout", "the round goes on: wait again, or leave").with("round", *round).error()
        }
    }
}
