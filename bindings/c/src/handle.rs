//! A worker in the hands of C: who may use it, and when.

use std::ffi::CString;
use std::sync::{Mutex, PoisonError, TryLockError};

use solon::client::{ClientError, Forked, Worker};

use crate::status::{Failure, SolonStatus};

/// A worker in a job.
pub struct SolonWorker {
    /// The process that joined. Outside of the lock: in a child another thread's call may hold it for ever.
    process: u32,
    inner: Mutex<Inner>,
}

pub(crate) struct Inner {
    pub(crate) worker: Worker,
    /// What `solon_way` gave out last.
    pub(crate) way: CString,
    /// A call in it has panicked.
    broken: bool,
}

impl SolonWorker {
    pub(crate) fn new(worker: Worker) -> *mut SolonWorker {
        let inner = Mutex::new(Inner { worker, way: CString::default(), broken: false });
        Box::into_raw(Box::new(SolonWorker { process: std::process::id(), inner }))
    }

    fn check_process(&self) -> Result<(), Forked> {
        let child = std::process::id();
        if child == self.process { Ok(()) } else { Err(Forked { parent: self.process, child }) }
    }
}

/// Has `call` use the worker, if nobody else does.
///
/// # Safety
/// `worker` is null, or from [`SolonWorker::new`] and not ended, by another thread either.
pub(crate) unsafe fn with<T>(
    worker: *mut SolonWorker,
    call: impl FnOnce(&mut Inner) -> Result<T, Failure>,
) -> Result<T, Failure> {
    // SAFETY: as the caller promises.
    let handle = unsafe { worker.as_ref() }.ok_or_else(|| Failure::invalid("worker is null"))?;
    handle.check_process()?;
    let mut inner = match handle.inner.try_lock() {
        Ok(inner) => inner,
        Err(TryLockError::WouldBlock) => return Err(busy()),
        Err(TryLockError::Poisoned(inner)) => inner.into_inner(),
    };
    if inner.broken {
        let text = "an earlier call with this worker met a bug in the library: leave or free it, and join anew".into();
        return Err(Failure { status: SolonStatus::Panicked, text });
    }
    inner.broken = true;
    let result = call(&mut inner);
    inner.broken = false;
    result
}

fn busy() -> Failure {
    let text = "the worker is in use by another call: one thread at a time, and not from within interrupt".into();
    Failure { status: SolonStatus::Busy, text }
}

/// Ends the worker by `end`, if nobody uses it.
///
/// # Safety
/// As [`with`]; afterwards it is ended, unless it is busy.
pub(crate) unsafe fn end(worker: *mut SolonWorker, end: impl FnOnce(Worker)) -> Result<(), Failure> {
    // SAFETY: as the caller promises.
    let Some(handle) = (unsafe { worker.as_ref() }) else { return Ok(()) };
    // The child's copy stays where it is: another thread may have been in the middle of something.
    handle.check_process()?;
    if let Err(TryLockError::WouldBlock) = handle.inner.try_lock() {
        return Err(busy());
    }
    // SAFETY: made by `Box::into_raw`, and nobody uses it.
    let handle = unsafe { Box::from_raw(worker) };
    end(handle.inner.into_inner().unwrap_or_else(PoisonError::into_inner).worker);
    Ok(())
}

impl Inner {
    /// The length is compared before there is a slice: one that is wrong would promise memory that may not be there.
    fn check_buffer(&self, buffer: *const f32, length: usize) -> Result<(), Failure> {
        crate::check_pointer(buffer, "the buffer")?;
        match self.worker.plan().layout.dimension() {
            expected if expected == length => Ok(()),
            expected => Err(ClientError::Length { what: "the buffer", found: length, expected }.into()),
        }
    }

    /// # Safety
    /// `buffer` is null or has `length` floats, that live as long as what is returned.
    pub(crate) unsafe fn buffer<'a>(&self, buffer: *const f32, length: usize) -> Result<&'a [f32], Failure> {
        self.check_buffer(buffer, length)?;
        // SAFETY: as the caller promises; it is neither null nor misaligned.
        Ok(unsafe { std::slice::from_raw_parts(buffer, length) })
    }

    /// # Safety
    /// As [`Inner::buffer`], and nobody else uses them meanwhile.
    pub(crate) unsafe fn buffer_mut<'a>(&self, buffer: *mut f32, length: usize) -> Result<&'a mut [f32], Failure> {
        self.check_buffer(buffer, length)?;
        // SAFETY: as above.
        Ok(unsafe { std::slice::from_raw_parts_mut(buffer, length) })
    }
}
