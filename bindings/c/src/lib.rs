//! The client of Solon for C. `include/solon.h` is made from this crate; `README.md` says how to build and use it.
//!
//! Every exported function runs in `status::guard`, which lets no panic out, and looks at a worker only through `handle::with`,
//! which knows the worker's process and whether it is in use.

mod handle;
mod status;
mod structs;

pub use handle::SolonWorker;
pub use status::SolonStatus;
pub use structs::{SolonJoined, SolonLast, SolonOptions, SolonPlan, SolonReport};

use std::ffi::{CStr, c_char};

use handle::{Inner, with};
use solon::client::{ClientError, Worker};
use solon::wire::Report;
use status::{Failure, c_text, guard};

/// The version of this library.
const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version has no zeros"),
};

/// The version of this library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn solon_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The name of a status in a word or two. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn solon_status_name(status: u32) -> *const c_char {
    SolonStatus::name(status).as_ptr()
}

/// What went wrong in the last call that failed in this thread, in one line; empty if none has. Never NULL. Valid until the next
/// call of a function of this library in this thread.
#[unsafe(no_mangle)]
pub extern "C" fn solon_last_error() -> *const c_char {
    status::last()
}

/// `value` to where the caller wants it.
///
/// # Safety
/// `to` is null, or can be written.
unsafe fn put<T>(value: T, to: *mut T, name: &str) -> Result<(), Failure> {
    check_pointer(to, name)?;
    // SAFETY: as the caller promises; it is not null and aligned.
    unsafe { to.write(value) };
    Ok(())
}

fn check_pointer<T>(to: *const T, name: &str) -> Result<(), Failure> {
    match to {
        _ if to.is_null() => Err(Failure::invalid(format!("{name} is null"))),
        _ if !to.is_aligned() => Err(Failure::invalid(format!("{name} is not aligned"))),
        _ => Ok(()),
    }
}

/// Joins a job, and makes `*worker`. Takes no longer than `join_timeout_ms`. After an error `*worker` is NULL.
///
/// `options` may be NULL: everything is then looked for in the environment.
///
/// # Safety
/// Texts in `options` end with a zero; they are copied. `worker` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_join(options: *const SolonOptions, worker: *mut *mut SolonWorker) -> SolonStatus {
    guard(|| {
        // SAFETY: the caller's.
        unsafe { put(std::ptr::null_mut(), worker, "worker") }?;
        let options = if options.is_null() {
            SolonOptions::from_environment()
        } else {
            // SAFETY: the caller's, with its size.
            unsafe { structs::read(options) }?
        };
        // SAFETY: the caller's texts and function.
        let (options, last) = unsafe { options.join_options() }?;
        let handle = SolonWorker::new(Worker::join_after(&options, last)?);
        // SAFETY: as above.
        unsafe { put(handle, worker, "worker") }
    })
}

/// Leaves the job in peace, and frees the worker: what was submitted still goes, for a second at most. It is freed whatever is returned,
/// unless that is SOLON_STATUS_BUSY. NULL is allowed, and in a child made by fork() nothing is done.
///
/// # Safety
/// `worker` is from solon_join and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_leave(worker: *mut SolonWorker) -> SolonStatus {
    // SAFETY: as the caller promises.
    guard(|| unsafe { handle::end(worker, Worker::leave) })
}

/// Frees the worker without a word to the daemon, which sees the connection end: as if the process had been killed. As solon_leave
/// otherwise.
///
/// # Safety
/// As for solon_leave.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_worker_free(worker: *mut SolonWorker) -> SolonStatus {
    // SAFETY: as the caller promises.
    guard(|| unsafe { handle::end(worker, drop) })
}

/// Joins again after SOLON_STATUS_LOST, with the same options. `joined` may be NULL; what it says of missed rounds must not be
/// passed over. After an error the worker is still lost: try again, or leave.
///
/// # Safety
/// `worker` is from solon_join and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_rejoin(worker: *mut SolonWorker, joined: *mut SolonJoined) -> SolonStatus {
    guard(|| {
        if !joined.is_null() {
            structs::check_out(joined)?;
        }
        // SAFETY: as the caller promises.
        let came = unsafe { with(worker, |inner| Ok(inner.worker.rejoin()?)) }?;
        if joined.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's, with its size.
        unsafe { structs::write(&SolonJoined::new(came), joined) }
    })
}

/// How the session began that the worker is in.
///
/// # Safety
/// `worker` is from solon_join and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_worker_joined(worker: *mut SolonWorker, joined: *mut SolonJoined) -> SolonStatus {
    guard(|| {
        // SAFETY: as the caller promises.
        let came = unsafe { with(worker, |inner| Ok(inner.worker.joined())) }?;
        // SAFETY: the caller's, with its size.
        unsafe { structs::write(&SolonJoined::new(came), joined) }
    })
}

/// The job's plan, and this worker's place in it.
///
/// # Safety
/// `worker` is from solon_join and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_worker_plan(worker: *mut SolonWorker, plan: *mut SolonPlan) -> SolonStatus {
    guard(|| {
        // SAFETY: as the caller promises.
        let found = unsafe { with(worker, |inner| Ok(SolonPlan::new(&inner.worker))) }?;
        // SAFETY: the caller's, with its size.
        unsafe { structs::write(&found, plan) }
    })
}

/// Runs a call that waits for a round, and reports of it.
///
/// # Safety
/// `worker` is from `solon_join`, `report` null or the caller's with its size.
unsafe fn round(
    worker: *mut SolonWorker,
    report: *mut SolonReport,
    call: impl FnOnce(&mut Inner) -> Result<Result<Report, ClientError>, Failure>,
) -> Result<(), Failure> {
    if !report.is_null() {
        structs::check_out(report)?;
    }
    let ended = |inner: &mut Inner| {
        let ended = call(inner)?;
        let round = inner.worker.last().map_or(0, |last| last.round);
        let found = match &ended {
            Ok(found) => Some(SolonReport::new(round, found)),
            Err(ClientError::Undecodable { round, report, .. }) => Some(SolonReport::new(*round, report)),
            Err(_) => None,
        };
        Ok((found, ended))
    };
    // SAFETY: as the caller promises.
    let (found, ended) = unsafe { with(worker, ended) }?;
    if let Some(found) = found.filter(|_| !report.is_null()) {
        // SAFETY: as the caller promises.
        unsafe { structs::write(&found, report) }?;
    }
    ended.map(|_| ()).map_err(Failure::from)
}

/// Submits the gradient in `buffer` and replaces it by the update, which is the same for every worker of the job. `length` is the
/// plan's dimension. After an error `buffer` holds neither. `report` may be NULL.
///
/// # Safety
/// `worker` is from solon_join and was not freed; `buffer` has `length` floats, which nobody else uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_exchange(
    worker: *mut SolonWorker,
    buffer: *mut f32,
    length: usize,
    report: *mut SolonReport,
) -> SolonStatus {
    guard(|| {
        // SAFETY: as the caller promises.
        unsafe {
            round(worker, report, |inner| {
                let buffer = inner.buffer_mut(buffer, length)?;
                Ok(inner.worker.exchange(buffer))
            })
        }
    })
}

/// Submits a gradient for the next round; `*round`, unless NULL, becomes that round. Waits while credits are short, not for the
/// round. Up to the plan's window of rounds may be submitted before the first is collected by solon_wait.
///
/// # Safety
/// `worker` is from solon_join and was not freed; `gradient` has `length` floats.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_submit(
    worker: *mut SolonWorker,
    gradient: *const f32,
    length: usize,
    round: *mut u64,
) -> SolonStatus {
    guard(|| {
        if !round.is_null() {
            check_pointer(round, "round")?;
        }
        let submit = |inner: &mut Inner| {
            // SAFETY: as the caller promises.
            let gradient = unsafe { inner.buffer(gradient, length) }?;
            Ok(inner.worker.submit(gradient)?)
        };
        // SAFETY: as the caller promises.
        let submitted = unsafe { with(worker, submit) }?;
        if round.is_null() {
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { put(submitted, round, "round") }
    })
}

/// Waits for the oldest round that was not collected, and fills `update`. `report` may be NULL.
///
/// # Safety
/// `worker` is from solon_join and was not freed; `update` has `length` floats, which nobody else uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_wait(
    worker: *mut SolonWorker,
    update: *mut f32,
    length: usize,
    report: *mut SolonReport,
) -> SolonStatus {
    guard(|| {
        // SAFETY: as the caller promises.
        unsafe {
            round(worker, report, |inner| {
                let update = inner.buffer_mut(update, length)?;
                Ok(inner.worker.wait(update))
            })
        }
    })
}

/// As solon_wait, for a round that this worker has not submitted to and never will: for one that is behind.
///
/// # Safety
/// As for solon_wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_follow(
    worker: *mut SolonWorker,
    update: *mut f32,
    length: usize,
    report: *mut SolonReport,
) -> SolonStatus {
    guard(|| {
        // SAFETY: as the caller promises.
        unsafe {
            round(worker, report, |inner| {
                let update = inner.buffer_mut(update, length)?;
                Ok(inner.worker.follow(update))
            })
        }
    })
}

/// Has the job closed a round that this worker has not submitted? Then computing for it is of no use: solon_follow takes its update.
///
/// # Safety
/// `worker` is from solon_join and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_is_behind(worker: *mut SolonWorker, behind: *mut bool) -> SolonStatus {
    guard(|| {
        // SAFETY: as the caller promises.
        let found = unsafe { with(worker, |inner| Ok(inner.worker.is_behind())) }?;
        // SAFETY: the caller's.
        unsafe { put(found, behind, "behind") }
    })
}

/// The round that the next submission is for.
///
/// # Safety
/// `worker` is from solon_join and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_next_round(worker: *mut SolonWorker, round: *mut u64) -> SolonStatus {
    guard(|| {
        // SAFETY: as the caller promises.
        let found = unsafe { with(worker, |inner| Ok(inner.worker.next_round())) }?;
        // SAFETY: the caller's.
        unsafe { put(found, round, "round") }
    })
}

/// The last round that was collected: what a checkpoint keeps, and `resume` in solon_options takes.
///
/// # Safety
/// `worker` is from solon_join and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_last_collected(worker: *mut SolonWorker, last: *mut SolonLast) -> SolonStatus {
    guard(|| {
        // SAFETY: as the caller promises.
        let found = unsafe { with(worker, |inner| Ok(inner.worker.last())) }?;
        // SAFETY: the caller's, with its size.
        unsafe { structs::write(&SolonLast::new(found), last) }
    })
}

/// How shards and updates travel: `*rdma`, unless NULL, says whether by RDMA, and `*reason`, unless NULL, why, in a line that is valid until
/// the next call with this worker.
///
/// # Safety
/// `worker` is from solon_join and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_way(
    worker: *mut SolonWorker,
    rdma: *mut bool,
    reason: *mut *const c_char,
) -> SolonStatus {
    guard(|| {
        let way = |inner: &mut Inner| {
            let way = inner.worker.way();
            let (rdma, text) = (way.rdma, c_text(&way.reason));
            inner.way = text;
            Ok((rdma, inner.way.as_ptr()))
        };
        // SAFETY: as the caller promises.
        let (by_rdma, why) = unsafe { with(worker, way) }?;
        if !rdma.is_null() {
            // SAFETY: the caller's.
            unsafe { put(by_rdma, rdma, "rdma") }?;
        }
        if !reason.is_null() {
            // SAFETY: the caller's.
            unsafe { put(why, reason, "reason") }?;
        }
        Ok(())
    })
}

/// Bytes of frames sent and received in this session. Both may be NULL.
///
/// # Safety
/// `worker` is from solon_join and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn solon_traffic(worker: *mut SolonWorker, sent: *mut u64, received: *mut u64) -> SolonStatus {
    guard(|| {
        // SAFETY: as the caller promises.
        let traffic = unsafe { with(worker, |inner| Ok(inner.worker.traffic())) }?;
        for (to, bytes, name) in [(sent, traffic.0, "sent"), (received, traffic.1, "received")] {
            if !to.is_null() {
                // SAFETY: the caller's.
                unsafe { put(bytes, to, name) }?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_exported_function_that_can_fail_is_guarded() {
        let source = include_str!("lib.rs").split("#[cfg(test)]").next().unwrap();
        let functions = source.split("#[unsafe(no_mangle)]").skip(1);
        let (mut guarded, mut plain) = (0, Vec::new());
        for function in functions {
            let (head, body) = function.split_once("{\n").unwrap();
            let begins = body.trim_start();
            if begins.starts_with("guard(") || begins.starts_with("// SAFETY: as the caller promises.\n    guard(") {
                guarded += 1;
            } else {
                plain.push(head.split_once("fn ").unwrap().1.split('(').next().unwrap());
            }
        }
        assert_eq!(plain, ["solon_version", "solon_status_name", "solon_last_error"], "these cannot fail");
        assert!(guarded > 10, "{guarded}");
    }
}
