//! The daemon's life on its main thread: what the pipeline tells is written and counted, signals are heard, until one of them ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::admin::{Admin, Port};
use super::config::Config;
use super::notify::Manager;
use super::reload::Reloader;
use super::report::{Reporter, list};
use super::serve::{Daemon, ServeError, push_words};
use crate::code::locates_surely;
use crate::pipeline::{self, Handle};

/// How often the log says whom the first round waits for.
const SAY_AWAITED: Duration = Duration::from_secs(10);

/// How often the main thread looks for signals and events.
const LOOK: Duration = Duration::from_millis(20);

/// System calls since the start, by kind: reads, writes, polls and wake-ups.
fn system_calls(handle: &Handle) -> [u64; 4] {
    use pipeline::Counter::{PollCalls, ReadCalls, WriteCalls};
    let [reads, writes, polls] = [ReadCalls, WriteCalls, PollCalls].map(|counter| handle.board.counted(counter));
    [reads, writes, polls, handle.bells().iter().map(|bell| bell.wakes()).sum()]
}

/// What the kernel was asked for over the life of the daemon: where a round is slow, whether it is because of that.
fn report_calls(handle: &Handle) {
    let calls = system_calls(handle);
    let [reads, writes, polls, wakes] = calls;
    let [received, sent] = handle.board.bytes();
    let mib = (received + sent) as f64 / f64::from(1 << 20);
    let per_mib = if mib > 0.0 { calls.iter().sum::<u64>() as f64 / mib } else { 0.0 };
    tracing::info!(reads, writes, polls, wakes, received, sent, per_mib, "system calls");
}

/// How updates came to the workers since the start.
fn say_pushed(handle: &Handle) {
    use pipeline::Counter::{
        AnnounceBytes, BadCarriers, DigestMismatches, RepairsLate, RepairsUnasked, RepairsWrong, UpdateBytesCarried,
        UpdateBytesSent,
    };
    let counted = |counter| handle.board.counted(counter);
    tracing::info!(
        sent = counted(UpdateBytesSent),
        carried = counted(UpdateBytesCarried),
        announced = counted(AnnounceBytes),
        late = counted(RepairsLate),
        wrong = counted(RepairsWrong),
        unasked = counted(RepairsUnasked),
        bad_carriers = counted(BadCarriers),
        other_digests = counted(DigestMismatches),
        "updates pushed"
    );
}

/// The answer to SIGUSR1: what was done since the start, and for how long each stage was busy.
fn say_counters(handle: &Handle) {
    let board = &handle.board;
    let [bytes_received, bytes_sent] = board.bytes();
    let [receive, assemble, decode, push] = board.busy_times().map(|time| time.as_micros() as u64);
    tracing::info!(
        rounds = board.counted(pipeline::Counter::RoundsComplete),
        bytes_received,
        bytes_sent,
        system_calls = system_calls(handle).iter().sum::<u64>(),
        receive_us = receive,
        assemble_us = assemble,
        decode_us = decode,
        push_us = push,
        "counters"
    );
}

/// Serves until SIGTERM or SIGINT: then lets the round that has begun come to its end, says good-bye to all workers and
/// returns. A second signal ends the process at once. SIGUSR1 has it write its counters to the log, SIGHUP reload its
/// configuration. A service manager that started the process is told how it goes.
///
/// # Errors
/// If the daemon cannot start, or one of its threads ends.
pub fn serve(config: &Config, reloader: Reloader<'_>) -> Result<(), ServeError> {
    live(config, Some(reloader), |_| false).map(|_| ())
}

/// [`serve`] without a reload, also until `enough` says so of the daemon, which is asked a few times per second. What is left of it can still be read.
///
/// # Errors
/// As there.
pub fn serve_until(config: &Config, enough: impl FnMut(&Daemon) -> bool) -> Result<Handle, ServeError> {
    live(config, None, enough)
}

fn live(
    config: &Config,
    mut reloader: Option<Reloader<'_>>,
    mut enough: impl FnMut(&Daemon) -> bool,
) -> Result<Handle, ServeError> {
    let signal = Arc::new(AtomicBool::new(false));
    for number in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register_conditional_shutdown(number, 1, signal.clone()).map_err(ServeError::System)?;
        signal_hook::flag::register(number, signal.clone()).map_err(ServeError::System)?;
    }
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, asked.clone()).map_err(ServeError::System)?;
    let hung_up = Arc::new(AtomicBool::new(false));
    if reloader.is_some() {
        signal_hook::flag::register(signal_hook::consts::SIGHUP, hung_up.clone()).map_err(ServeError::System)?;
    }
    let port = Port::take(config)?;
    let mut daemon = Daemon::start(config)?;
    let admin_address = port.name();
    let admin = Admin::start(port, config, &daemon)?;
    let mut manager = Manager::of_environment(daemon.pulses(), Instant::now());
    let plan = &daemon.job().plan;
    tracing::info!(
        address = %daemon.address(),
        job = %config.job.name,
        rule = config.job.rule.name(),
        workers = plan.parameters.workers(),
        groups = plan.parameters.groups(),
        adversaries = daemon.job().shape().adversaries,
        stragglers = daemon.job().stragglers(),
        compression = plan.parameters.compression(),
        chunks = plan.layout.chunks(),
        first_round = daemon.job().first_round(),
        rdma = %daemon.rdma(),
        admin = %admin_address,
        push = %push_words(config),
        "ready"
    );
    if !locates_surely(&plan.parameters) {
        tracing::warn!(
            "the groups are so large that the search for liars is not exhaustive: a round with as many liars as the code \
             corrects may be undecodable; lower job.compression or job.adversaries"
        );
    }
    manager.ready();
    let mut reporter = Reporter::new(plan.parameters.workers());
    let mut give_up: Option<Instant> = None;
    let (mut lost_events, mut journal_errors) = (0, 0);
    // Those who are started together come within a moment.
    let mut say_awaited = Instant::now() + Duration::from_secs(1);
    loop {
        let now = Instant::now();
        while let Some(event) = daemon.handle().events.pop() {
            reporter.write(&event, now);
            admin.observe(&event, now);
            manager.observe(&event);
        }
        let board = &daemon.handle().board;
        let lost = board.counted(pipeline::Counter::EventsLost);
        if lost > std::mem::replace(&mut lost_events, lost) {
            tracing::warn!(lost, "events came faster than they could be logged");
        }
        let errors = board.counted(pipeline::Counter::JournalErrors);
        if errors > std::mem::replace(&mut journal_errors, errors) {
            tracing::error!(
                errors,
                "the journal cannot be written: after a restart rounds are counted from an older one"
            );
        }
        if now >= say_awaited {
            say_awaited = now + SAY_AWAITED;
            let awaited = board.awaited();
            if !awaited.is_empty() {
                tracing::info!(workers = %list(&awaited), "the first round waits for workers that have not joined (rounds.begin_with)");
            }
        }
        if asked.swap(false, Ordering::Relaxed) {
            say_counters(daemon.handle());
            say_pushed(daemon.handle());
        }
        if let Some(reloader) = &mut reloader
            && hung_up.swap(false, Ordering::Relaxed)
        {
            manager.reloading();
            manager.reloaded(reloader.reload(&daemon));
        }
        manager.look(now, &daemon);
        if give_up.is_none() && (signal.load(Ordering::Relaxed) || enough(&daemon)) {
            tracing::info!("stopping: the round that has begun ends first");
            admin.stopping();
            daemon.handle().request_stop();
            // Its deadline, what every worker has to take what was pushed, and to leave.
            let drain = daemon.job().deadline() + 2 * daemon.job().write_deadline + Duration::from_secs(1);
            manager.stopping(drain + Duration::from_secs(5));
            give_up = Some(now + drain);
        }
        // Looked for before `stopped`: a thread that ends because the daemon stops is no surprise.
        let died = daemon.died();
        let board = &daemon.handle().board;
        if board.stopped() {
            break;
        }
        if let Some(error) = died {
            return Err(error);
        }
        if give_up.is_some_and(|limit| now >= limit) {
            tracing::warn!("the open round did not end, or not everybody took its update, in time: given up");
            break;
        }
        std::thread::sleep(LOOK);
    }
    let handle = daemon.handle().clone();
    daemon.stop()?;
    while let Some(event) = handle.events.pop() {
        reporter.write(&event, Instant::now());
    }
    report_calls(&handle);
    say_pushed(&handle);
    tracing::info!(next_round = handle.board.closed(), "stopped");
    Ok(handle)
}
