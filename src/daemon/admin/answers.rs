//! What is answered to whom: from a method, a host and a path to a response, without a socket.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::header::{REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use hyper::http::uri::Authority;
use hyper::{Method, Response, StatusCode};

use super::super::config::Config;
use super::super::history::History;
use super::super::liveness::Liveness;
use super::super::metrics::Metrics;
use super::super::serve::Daemon;
use super::super::status::{Fixed, Health, Status};
use super::page;
use crate::pipeline::{Event, Handle};

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that can be asked for, and what it is.
const PATHS: &[(&str, &str)] = &[
    ("/", "a page for people"),
    ("/status", "the same as JSON"),
    ("/metrics", "for Prometheus"),
    ("/livez", "200 while every reactor turns"),
    ("/readyz", "200 while workers can connect"),
];

/// What is known of a daemon.
pub struct Answers {
    fixed: Fixed,
    handle: Handle,
    metrics: Metrics,
    history: Mutex<History>,
    liveness: Mutex<Liveness>,
    stopping: AtomicBool,
    /// Names are not believed: the address is loopback, where a name in a request is another site's that means us.
    only_addresses: bool,
}

/// What was asked.
pub struct Question<'a> {
    /// How.
    pub method: &'a Method,
    /// Of whom: the header `Host`.
    pub host: Option<&'a str>,
    /// What; without a query.
    pub path: &'a str,
}

/// Locked, also after a panic of the other holder: what is remembered is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Answers {
    /// About this daemon.
    pub fn new(config: &Config, daemon: &Daemon, now: Instant) -> Answers {
        Answers {
            fixed: Fixed::new(config, daemon, now),
            handle: daemon.handle().clone(),
            metrics: Metrics::new(config, daemon),
            history: Mutex::new(History::new(daemon.job().plan.parameters.workers())),
            liveness: Mutex::new(Liveness::new(daemon.pulses(), now)),
            stopping: AtomicBool::new(false),
            only_addresses: config.admin.as_ref().is_some_and(|admin| admin.address.ip().to_canonical().is_loopback()),
        }
    }

    /// Remembers what happened.
    pub fn observe(&self, event: &Event, now: Instant) {
        lock(&self.history).observe(event, now);
    }

    /// The daemon is asked to stop.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn health(&self, now: Instant) -> Health {
        let stuck = lock(&self.liveness).check(now).err().map(|stuck| stuck.to_string());
        Health { stuck, stopping: self.stopping.load(Ordering::Relaxed) }
    }

    fn status(&self, now: Instant) -> Status {
        let health = self.health(now);
        self.fixed.status(&self.handle.board, &lock(&self.history), &health, now)
    }

    /// The answer.
    pub fn answer(&self, question: &Question<'_>, now: Instant) -> Response<String> {
        if question.method != Method::GET && question.method != Method::HEAD {
            let mut response = respond(
                StatusCode::METHOD_NOT_ALLOWED,
                TEXT,
                format!("{} is not answered: only GET and HEAD are, as nothing can be changed here\n", question.method),
            );
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        if self.only_addresses && !question.host.is_none_or(is_address) {
            return respond(
                StatusCode::MISDIRECTED_REQUEST,
                TEXT,
                "only asked for by an address or as localhost: the page of another site could be behind a name\n"
                    .into(),
            );
        }
        match question.path {
            "/" => self.page(now),
            "/status" => {
                let status = serde_json::to_string(&self.status(now)).expect("texts and finite numbers");
                respond(StatusCode::OK, "application/json", status + "\n")
            }
            "/metrics" => respond(StatusCode::OK, METRICS, self.metrics.text()),
            "/livez" => match self.health(now).stuck {
                None => respond(StatusCode::OK, TEXT, "alive\n".into()),
                Some(stuck) => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("hangs: {stuck}\n")),
            },
            "/readyz" => {
                let why_not = self.health(now).why_not();
                let notes = self.fixed.notes(&self.handle.board);
                let notes: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
                match why_not.is_empty() {
                    true => respond(StatusCode::OK, TEXT, format!("ready\n{notes}")),
                    false => {
                        let why: String = why_not.iter().map(|why| format!("not ready: {why}\n")).collect();
                        respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, why + &notes)
                    }
                }
            }
            _ => {
                let paths: String = PATHS.iter().map(|(path, what)| format!("{path:10} {what}\n")).collect();
                respond(StatusCode::NOT_FOUND, TEXT, format!("nothing here; there is\n{paths}"))
            }
        }
    }

    fn page(&self, now: Instant) -> Response<String> {
        // A new one for each page: what somebody managed to put into a text could not name it.
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            return respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the system gives no random numbers\n".into());
        }
        let nonce = format!("{:032x}", u128::from_le_bytes(bytes));
        let policy = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'"
        );
        let html = page::html(&self.status(now), &nonce);
        let mut response = respond(StatusCode::OK, "text/html; charset=utf-8", html);
        let policy = HeaderValue::from_str(&policy).expect("printable characters");
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
        response
    }
}

/// `127.0.0.1:7448`, `[::1]`, `localhost`: what no other site is called.
fn is_address(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// A response that nobody keeps, frames or takes for something else.
pub fn respond(code: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let fixed: [(HeaderName, &str); 4] = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> (Daemon, Answers) {
        use super::super::super::config::{Request, load};
        let words = ["solond", "--job-dimension", "10", "--listen-address", "127.0.0.1:0", "--listen-transport", "tcp"];
        let words = words.iter().chain(&["--cores-pin", "false"]).map(std::ffi::OsString::from);
        let Ok(Request::Serve(loaded)) = load(words, [], &|_| unreachable!("no file is named")) else {
            panic!("a configuration to serve")
        };
        let daemon = Daemon::start(&loaded.config).unwrap();
        let answers = Answers::new(&loaded.config, &daemon, Instant::now());
        (daemon, answers)
    }

    #[test]
    fn a_reactor_that_hangs_is_named_by_both_probes_and_the_status() {
        let (_daemon, mut answers) = answers();
        let start = Instant::now();
        // One reactor that never turns, in place of the daemon's.
        answers.liveness = Mutex::new(Liveness::new(&[std::sync::Arc::default()], start));
        let get = |path, after| {
            let question = Question { method: &Method::GET, host: None, path };
            answers.answer(&question, start + std::time::Duration::from_secs(after))
        };
        assert_eq!(get("/livez", 4).status(), StatusCode::OK);
        let hangs = get("/livez", 7);
        assert_eq!(hangs.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(hangs.body(), "hangs: reactor 0 has not turned for 7.0 s\n");
        let ready = get("/readyz", 8);
        assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(ready.body().starts_with("not ready: reactor 0"), "{}", ready.body());
        let status: Status = serde_json::from_str(get("/status", 9).body()).unwrap();
        assert!(!status.alive && !status.ready && status.word() == "hangs", "{status:?}");
        assert!(get("/", 9).body().contains("reactor 0 has not turned"));
    }

    #[test]
    fn only_addresses_and_localhost_are_no_names() {
        for host in ["127.0.0.1", "127.0.0.1:7448", "[::1]:80", "[::1]", "localhost", "LocalHost:1"] {
            assert!(is_address(host), "{host}");
        }
        for host in ["evil.example", "evil.example:7448", "127.0.0.1.evil.example", "", "local host", "localhost.evil"]
        {
            assert!(!is_address(host), "{host}");
        }
    }
}
