//! HTTP/1.1 on one thread, within limits: eight connections at a time, one request each, ten seconds in all.
//!
//! A ninth connection is taken too, and the oldest of the eight dropped for it. So connections that say nothing keep nobody waiting, however
//! many there are: whoever asks is answered, unless eight more come before the answer is sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::body::{Body, Incoming};
use hyper::header::HOST;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::task::JoinHandle as Task;

use super::answers::{Answers, Question, respond};

/// Connections at a time.
const CONNECTIONS: usize = 8;
/// From its begin a request must have come in so much time.
const HEAD: Duration = Duration::from_secs(2);
/// From its begin a connection is over after so much time.
const WHOLE: Duration = Duration::from_secs(10);
/// Bytes of a request: the least that hyper takes.
const HEAD_BYTES: usize = 8192;
/// Header lines of a request.
const HEADERS: usize = 64;
/// When the kernel has no descriptor for a connection, it may have one after so much time.
const AGAIN: Duration = Duration::from_millis(100);

/// Ends the server.
pub type Stop = Notify;

/// Answers on a thread of its own.
///
/// # Errors
/// If the operating system has no thread or event queue for it.
pub fn start(listener: TcpListener, answers: Arc<Answers>) -> io::Result<(Arc<Stop>, JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let listener = {
        let _guard = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let stop = Arc::new(Stop::new());
    let stopped = stop.clone();
    let run = move || {
        runtime.spawn(serve(listener, answers));
        runtime.block_on(stopped.notified());
    };
    let thread = std::thread::Builder::new().name("solon-admin".into()).spawn(run)?;
    Ok((stop, thread))
}

async fn serve(listener: tokio::net::TcpListener, answers: Arc<Answers>) {
    // The oldest first.
    let mut served: VecDeque<Task<()>> = VecDeque::with_capacity(CONNECTIONS);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // What that connection came to, or a want that passes.
            Err(_) => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        served.retain(|task| !task.is_finished());
        if served.len() == CONNECTIONS
            && let Some(oldest) = served.pop_front()
        {
            oldest.abort();
            // Its descriptor is free before the next one is taken.
            let _ = oldest.await;
        }
        let answers = answers.clone();
        served.push_back(tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&answers, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(HEAD_BYTES)
                .max_headers(HEADERS)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // What goes wrong is the asker's: it hung up, was slow, or spoke no HTTP, and was told so if it could be.
            let _ = tokio::time::timeout(WHOLE, connection).await;
        }));
    }
}

fn answer(answers: &Answers, request: &Request<Incoming>) -> Response<String> {
    if !request.body().is_end_stream() {
        let text = "a body is not read: nothing can be sent here\n".into();
        return respond(StatusCode::PAYLOAD_TOO_LARGE, "text/plain; charset=utf-8", text);
    }
    let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or("?"));
    let question = Question { method: request.method(), host, path: request.uri().path() };
    answers.answer(&question, Instant::now())
}
