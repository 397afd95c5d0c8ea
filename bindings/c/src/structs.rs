//! The structures that the caller and the library share. Each begins with its size, so that it can grow.

use std::ffi::{CStr, c_char, c_void};
use std::mem::{MaybeUninit, size_of};

use solon::client::{Given, Interrupt, JoinOptions, Joined, Worker};
use solon::wire::{Field, Report, Resume, RoundOutcome, UndecodableReason};

use crate::status::Failure;

/// How to join. Begin with `solon_options options = SOLON_OPTIONS_INIT;` and set what is not to be its default.
#[repr(C)]
pub struct SolonOptions {
    /// sizeof(solon_options); SOLON_OPTIONS_INIT sets it.
    pub size: usize,
    /// This worker's index in the job. -1: SOLON_WORKER, else the rank that torchrun (RANK, where LOCAL_RANK is set too), Slurm
    /// (SLURM_PROCID) or Open MPI (OMPI_COMM_WORLD_RANK) gave this process.
    pub worker: i64,
    /// Where solond listens, "host:port". NULL: SOLON_ENDPOINT.
    pub endpoint: *const c_char,
    /// The job's name. NULL: SOLON_JOB, else "default".
    pub job: *const c_char,
    /// This worker's token. NULL: SOLON_TOKEN, else none.
    pub token: *const c_char,
    /// How shards and updates travel: "auto" (RDMA where there is any), "tcp" or "rdma". NULL: "auto".
    pub transport: *const c_char,
    /// The RDMA devices that may be used, as in `rdma.devices` of solond. NULL: all.
    pub rdma_devices: *const c_char,
    /// Where other workers reach this one, if not at the address that it reaches solond from. NULL: there.
    pub advertise: *const c_char,
    /// The longest that solon_join and solon_rejoin take, in milliseconds. 0: 10 s.
    pub join_timeout_ms: u32,
    /// The longest that one call waits for a round, in milliseconds. 0: 10 minutes.
    pub round_timeout_ms: u32,
    /// 1: this worker has collected rounds before, up to `last_round`, as solon_last_collected said in an earlier process. 0: it begins.
    pub resume: u32,
    /// With `resume`: the last round that was collected.
    pub last_round: u64,
    /// With `resume`: its digest.
    pub last_digest: u64,
    /// If not NULL: called with `interrupt_argument` some twenty times a second while a call waits for a round, in the thread of that
    /// call. If it returns true the call returns SOLON_STATUS_INTERRUPTED. It must return soon, must not throw or longjmp, and
    /// must not use the worker that waits. It is not called by solon_join, solon_rejoin and solon_leave, which are bounded in time.
    pub interrupt: Option<unsafe extern "C" fn(*mut c_void) -> bool>,
    /// Given to `interrupt`. What it points to must live as long as the worker.
    pub interrupt_argument: *mut c_void,
    /// How this worker computes, in words of its own, for solond to compare with the others of its group (verify.mixed): what
    /// computes the gradient. NULL here and in the next four: not said. solond gets hashes of them.
    pub framework: *const c_char,
    /// The version of that.
    pub framework_version: *const c_char,
    /// How many threads it uses.
    pub threads: *const c_char,
    /// What the processor can do, or which GPU and driver.
    pub device: *const c_char,
    /// The type of the numbers, and what changes their arithmetic.
    pub dtype: *const c_char,
}

/// What the daemon reports of a round. Set `size` to sizeof(solon_report) before each call. It is filled if the call returns
/// SOLON_STATUS_OK or SOLON_STATUS_UNDECODABLE, and left alone otherwise.
#[repr(C)]
pub struct SolonReport {
    /// sizeof(solon_report), set by the caller.
    pub size: usize,
    /// The round.
    pub round: u64,
    /// The digest of the update: the same for every worker of the job. 0 if there is none.
    pub digest: u64,
    /// 0: complete. Undecodable: 1, too few shards came in time; 2, too few agree; 3, too few are finite;
    /// 4, a number of the update is too large for the 16 bits by which updates travel (push.precision).
    pub outcome: u32,
    /// If undecodable: the group whose word failed first.
    pub group: u32,
    /// If undecodable: its chunk.
    pub chunk: u32,
    /// If undecodable: shards that came.
    pub arrived: u32,
    /// Outcome 2: the largest set that agrees. Outcome 3: those that are finite.
    pub agreeing: u32,
    /// If undecodable: how many must agree.
    pub needed: u32,
    /// The largest residual over tolerance among what was believed; at most 1.
    pub residual_ratio: f32,
    /// The same before anything was corrected; far above 1 where somebody lied.
    pub received_ratio: f32,
    /// Workers proved wrong in this round; see SOLON_CONTAINS.
    pub liars: [u64; 16],
    /// Workers proved wrong in an earlier round, by a shard that came late.
    pub late_liars: [u64; 16],
    /// Workers of whom nothing came before the round closed. That is no fault.
    pub absent: [u64; 16],
    /// Workers of whom some but not all came.
    pub late: [u64; 16],
}

/// What the job is, and this worker's place in it. Set `size` to sizeof(solon_plan) before the call.
#[repr(C)]
pub struct SolonPlan {
    /// sizeof(solon_plan), set by the caller.
    pub size: usize,
    /// Numbers in the gradient: the length of every buffer.
    pub dimension: u64,
    /// Workers in the job.
    pub workers: u32,
    /// Groups; all workers of a group compute the gradient of the same samples.
    pub groups: u32,
    /// Workers in a group.
    pub group_size: u32,
    /// This worker's index.
    pub worker: u32,
    /// This worker's group: which samples are its.
    pub group: u32,
    /// This worker's row in its group.
    pub row: u32,
    /// Liars per group that are corrected.
    pub adversaries: u32,
    /// Absentees per group that are tolerated beside them.
    pub stragglers: u32,
    /// A worker uploads one part in so many of its gradient.
    pub compression: u32,
    /// Rounds that may be submitted and not collected.
    pub window: u32,
    /// A round's time from its begin to its end, in milliseconds.
    pub deadline_ms: u32,
    /// update = scale x sum over the groups.
    pub scale: f32,
    /// Relative tolerance within which workers of a group must agree.
    pub tolerance: f64,
}

/// How a session began. Set `size` to sizeof(solon_joined) before the call.
#[repr(C)]
pub struct SolonJoined {
    /// sizeof(solon_joined), set by the caller.
    pub size: usize,
    /// The first round of this session.
    pub round: u64,
    /// Rounds whose updates this worker has missed: with any, its model must be restored from another worker's or a checkpoint.
    /// -1: the daemon counts differently (it was restarted without its journal); restore the model.
    pub missed: i64,
}

/// The last round that was collected. Set `size` to sizeof(solon_last) before the call.
#[repr(C)]
pub struct SolonLast {
    /// sizeof(solon_last), set by the caller.
    pub size: usize,
    /// 1 if any round was collected, else 0, and then so is the rest.
    pub known: u32,
    /// The round.
    pub round: u64,
    /// The digest of its update; 0 if it was undecodable.
    pub digest: u64,
}

/// A structure that callers have in another, earlier or later, version.
///
/// # Safety
/// It is `repr(C)`, begins with its size as a `usize`, and all zeros are a value of it.
pub(crate) unsafe trait Versioned: Sized {
    /// What error texts call it.
    const NAME: &'static str;
    /// Bytes of its first version.
    const FIRST: usize;
}

macro_rules! versioned {
    ($($name:ident = $text:literal, $first:literal, $now:literal;)*) => {$(
        // SAFETY: numbers, pointers and optional functions, after the size.
        unsafe impl Versioned for $name {
            const NAME: &'static str = $text;
            const FIRST: usize = $first;
        }
        // What callers were compiled with stays; who adds fields at the end changes only the last number.
        const _: () = assert!(size_of::<$name>() == $now && $now >= $first);
    )*};
}

#[cfg(target_pointer_width = "64")]
versioned! {
    SolonOptions = "solon_options", 112, 152;
    SolonReport = "solon_report", 568, 568;
    SolonPlan = "solon_plan", 72, 72;
    SolonJoined = "solon_joined", 24, 24;
    SolonLast = "solon_last", 32, 32;
}

fn sized<T: Versioned>(at: *const T) -> Result<usize, Failure> {
    let name = T::NAME;
    if at.is_null() {
        return Err(Failure::invalid(format!("the pointer to {name} is null")));
    }
    if !at.is_aligned() {
        return Err(Failure::invalid(format!("the pointer to {name} is not aligned")));
    }
    // SAFETY: the caller's structure, which begins with its size.
    let size = unsafe { at.cast::<usize>().read() };
    if size < T::FIRST || size > 1 << 16 {
        return Err(Failure::invalid(format!(
            "size in {name} is {size}, expected sizeof({name}), {} in this version: set it before the call",
            size_of::<T>()
        )));
    }
    Ok(size)
}

/// Copies the caller's structure; what its version does not have yet is zero.
///
/// # Safety
/// `from` is null, or points to as many bytes as the size at its beginning says.
pub(crate) unsafe fn read<T: Versioned>(from: *const T) -> Result<T, Failure> {
    let size = sized(from)?;
    let common = size.min(size_of::<T>());
    // SAFETY: `size` bytes are the caller's, and `common` is at most that.
    let beyond = unsafe { std::slice::from_raw_parts(from.cast::<u8>().add(common), size - common) };
    if beyond.iter().any(|byte| *byte != 0) {
        return Err(Failure::invalid(format!(
            "{} asks for something that this library does not know yet: it is older than the program's solon.h",
            T::NAME
        )));
    }
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: `common` bytes are in both; they do not overlap, as the copy is new.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), common) };
    // SAFETY: all zeros are a value, and so is what a caller has set of one.
    Ok(unsafe { copy.assume_init() })
}

/// Can [`write`] be done? Asked before a call does anything.
pub(crate) fn check_out<T: Versioned>(to: *const T) -> Result<(), Failure> {
    sized(to).map(|_| ())
}

/// Fills the caller's structure, as far as its version goes; what only its version has becomes zero. Its size stays.
///
/// # Safety
/// As [`read`], for writing.
pub(crate) unsafe fn write<T: Versioned>(value: &T, to: *mut T) -> Result<(), Failure> {
    let size = sized(to)?;
    let (begin, common) = (size_of::<usize>(), size.min(size_of::<T>()));
    // SAFETY: `size` bytes are the caller's.
    let bytes = unsafe { std::slice::from_raw_parts_mut(to.cast::<MaybeUninit<u8>>(), size) };
    // SAFETY: the bytes of a value, with those between its fields, which may not be set: they are copied as such.
    let from = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<MaybeUninit<u8>>(), common) };
    bytes[begin..common].copy_from_slice(&from[begin..]);
    bytes[common..].fill(MaybeUninit::new(0));
    Ok(())
}

/// # Safety
/// `text` is null or a text that ends with a zero.
unsafe fn text(text: *const c_char, name: &str) -> Result<Option<String>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller of this promises.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text.to_str().map_err(|_| Failure::invalid(format!("options.{name} is not UTF-8")))?;
    Ok(Some(text.to_owned()))
}

/// An argument of the caller's that its own function gets back.
struct Argument(*mut c_void);

// SAFETY: this library only hands it on; solon.h says that the caller's function is called in whichever thread waits.
unsafe impl Send for Argument {}
// SAFETY: as above; a worker is in one call at a time, so it is not called twice at once.
unsafe impl Sync for Argument {}

impl Argument {
    fn get(&self) -> *mut c_void {
        self.0
    }
}

impl SolonOptions {
    /// What SOLON_OPTIONS_INIT is.
    pub(crate) fn from_environment() -> SolonOptions {
        let (none, nothing) = (std::ptr::null(), std::ptr::null_mut());
        SolonOptions {
            size: size_of::<SolonOptions>(),
            worker: -1,
            endpoint: none,
            job: none,
            token: none,
            transport: none,
            rdma_devices: none,
            advertise: none,
            join_timeout_ms: 0,
            round_timeout_ms: 0,
            resume: 0,
            last_round: 0,
            last_digest: 0,
            interrupt: None,
            interrupt_argument: nothing,
            framework: none,
            framework_version: none,
            threads: none,
            device: none,
            dtype: none,
        }
    }

    /// # Safety
    /// Every text is null or ends with a zero; `interrupt` can be called with its argument as long as the options are in use.
    pub(crate) unsafe fn join_options(&self) -> Result<(JoinOptions, Option<Resume>), Failure> {
        // SAFETY: as the caller of this promises.
        let text = |pointer, name| unsafe { text(pointer, name) };
        let worker = match self.worker {
            -1 => None,
            worker => Some(u32::try_from(worker).map_err(|_| {
                Failure::invalid(format!(
                    "options.worker is {worker}, expected an index from 0, or -1: from the environment"
                ))
            })?),
        };
        let given = Given {
            endpoint: text(self.endpoint, "endpoint")?,
            job: text(self.job, "job")?,
            worker,
            token: text(self.token, "token")?,
        };
        let mut options = JoinOptions::find(given)?;
        let unreadable = |name, error: &dyn std::fmt::Display| Failure::invalid(format!("options.{name}: {error}"));
        if let Some(transport) = text(self.transport, "transport")? {
            options.transport = transport.parse().map_err(|error: String| unreadable("transport", &error))?;
        }
        if let Some(devices) = text(self.rdma_devices, "rdma_devices")? {
            options.rdma.devices = devices.parse().map_err(|error| unreadable("rdma_devices", &error))?;
        }
        if let Some(advertise) = text(self.advertise, "advertise")? {
            options.advertise = Some(advertise.parse().map_err(|error| unreadable("advertise", &error))?);
        }
        let words = [
            (Field::Framework, self.framework, "framework"),
            (Field::Version, self.framework_version, "framework_version"),
            (Field::Threads, self.threads, "threads"),
            (Field::Device, self.device, "device"),
            (Field::Dtype, self.dtype, "dtype"),
        ];
        for (field, pointer, name) in words {
            *options.fingerprint.get_mut(field) = text(pointer, name)?.unwrap_or_default();
        }
        let millis = |ms| std::time::Duration::from_millis(u64::from(ms));
        if self.join_timeout_ms > 0 {
            options.join_timeout = millis(self.join_timeout_ms);
        }
        if self.round_timeout_ms > 0 {
            options.round_timeout = millis(self.round_timeout_ms);
        }
        options.interrupt = self.interrupt.map(|wanted| {
            let argument = Argument(self.interrupt_argument);
            // SAFETY: as the caller of this promises.
            Interrupt::new(move || unsafe { wanted(argument.get()) })
        });
        let last = (self.resume != 0).then_some(Resume { round: self.last_round, digest: self.last_digest });
        Ok((options, last))
    }
}

impl SolonReport {
    pub(crate) fn new(round: u64, report: &Report) -> SolonReport {
        let (outcome, group, chunk, [arrived, agreeing, needed]) = match report.outcome {
            RoundOutcome::Complete => (0, 0, 0, [0; 3]),
            RoundOutcome::Undecodable { group, chunk, reason } => {
                let (outcome, numbers) = match reason {
                    UndecodableReason::TooFew { arrived, needed } => (1, [arrived, 0, needed]),
                    UndecodableReason::Disagree { arrived, agreeing, needed } => (2, [arrived, agreeing, needed]),
                    UndecodableReason::NotFinite { arrived, finite, needed } => (3, [arrived, finite, needed]),
                    UndecodableReason::TooLarge => (4, [0; 3]),
                };
                (outcome, group, chunk, numbers)
            }
        };
        SolonReport {
            size: size_of::<SolonReport>(),
            round,
            digest: report.digest,
            outcome,
            group,
            chunk,
            arrived,
            agreeing,
            needed,
            residual_ratio: report.residual_ratio,
            received_ratio: report.received_ratio,
            liars: *report.liars.bits(),
            late_liars: *report.late_liars.bits(),
            absent: *report.absent.bits(),
            late: *report.late.bits(),
        }
    }
}

impl SolonPlan {
    pub(crate) fn new(worker: &Worker) -> SolonPlan {
        let (plan, place) = (worker.plan(), worker.place());
        let parameters = &plan.parameters;
        SolonPlan {
            size: size_of::<SolonPlan>(),
            dimension: plan.layout.dimension() as u64,
            workers: parameters.workers() as u32,
            groups: parameters.groups() as u32,
            group_size: parameters.redundancy() as u32,
            worker: worker.index() as u32,
            group: place.group as u32,
            row: place.row as u32,
            adversaries: parameters.adversaries() as u32,
            stragglers: parameters.stragglers() as u32,
            compression: parameters.compression() as u32,
            window: plan.window,
            deadline_ms: plan.deadline_ms,
            scale: plan.scale,
            tolerance: plan.tolerance,
        }
    }
}

impl SolonJoined {
    pub(crate) fn new(joined: Joined) -> SolonJoined {
        let missed = joined.missed.map_or(-1, |missed| i64::try_from(missed).unwrap_or(i64::MAX));
        SolonJoined { size: size_of::<SolonJoined>(), round: joined.round, missed }
    }
}

impl SolonLast {
    pub(crate) fn new(last: Option<Resume>) -> SolonLast {
        let (known, Resume { round, digest }) =
            (u32::from(last.is_some()), last.unwrap_or(Resume { round: 0, digest: 0 }));
        SolonLast { size: size_of::<SolonLast>(), known, round, digest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::SolonStatus;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Now {
        size: usize,
        old: u64,
        new: u64,
    }

    // SAFETY: numbers after the size.
    unsafe impl Versioned for Now {
        const NAME: &'static str = "now";
        const FIRST: usize = 16;
    }

    #[test]
    fn what_an_earlier_program_does_not_have_is_zero_and_is_not_written() {
        let mut earlier = [16usize, 5, 77];
        let at: *mut Now = earlier.as_mut_ptr().cast();
        // SAFETY: as many bytes as the size says.
        assert_eq!(unsafe { read(at) }.unwrap(), Now { size: 16, old: 5, new: 0 });
        // SAFETY: as above.
        unsafe { write(&Now { size: 24, old: 8, new: 9 }, at) }.unwrap();
        assert_eq!(earlier, [16, 8, 77]);
    }

    #[test]
    fn what_a_later_program_has_must_be_zero_and_becomes_zero() {
        let mut later = [32usize, 5, 6, 0];
        let at: *mut Now = later.as_mut_ptr().cast();
        // SAFETY: as many bytes as the size says.
        assert_eq!(unsafe { read(at) }.unwrap(), Now { size: 32, old: 5, new: 6 });
        later[3] = 1;
        let at: *mut Now = later.as_mut_ptr().cast();
        // SAFETY: as above.
        assert!(unsafe { read(at) }.unwrap_err().text.contains("older than the program's solon.h"));
        // SAFETY: as above.
        unsafe { write(&Now { size: 24, old: 8, new: 9 }, at) }.unwrap();
        assert_eq!(later, [32, 8, 9, 0]);
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for size in [0, 8, 15, 1 << 17, usize::MAX] {
            let structure = Now { size, old: 0, new: 0 };
            // SAFETY: only the size is read when it is refused.
            let failure = unsafe { read(&structure) }.unwrap_err();
            assert_eq!(failure.status, SolonStatus::InvalidArgument);
            assert!(failure.text.contains("expected sizeof(now), 24"), "{}", failure.text);
        }
        assert!(check_out::<Now>(std::ptr::null()).is_err());
        assert!(check_out::<Now>(std::ptr::without_provenance(12)).is_err());
    }
}
