//! Memory, and the limits on it.

use crate::daemon::machine::Machine;
use crate::memory::{HugePages, available_in};
use crate::transport::Transport;

use super::facts::bytes;
use super::{Facts, Outcome, Status};

const HUGE_PAGE: u64 = 2 << 20;
/// CAP_IPC_LOCK: whoever has it may lock as much as there is.
const IPC_LOCK: u32 = 14;
/// Queues of a session that are pinned beside the slots, roughly.
const QUEUES: u64 = 256 << 10;

/// What the machine has, and lets this process have. Limits are `None` where there is none.
#[derive(Clone, Debug)]
pub struct Memory {
    available: Option<(usize, &'static str)>,
    locked: Option<Option<u64>>,
    files: Option<Option<u64>>,
    may_lock: bool,
    user: Option<u32>,
    reserved: u64,
    transparent: Option<String>,
}

impl Memory {
    pub(super) fn look(machine: &Machine) -> Memory {
        let limits = machine.read("proc/self/limits").unwrap_or_default();
        // Name, soft limit, hard limit, unit; names have blanks.
        let limit = |name: &str, at: usize| {
            let words = limits.lines().find_map(|line| line.strip_prefix(name))?;
            match words.split_whitespace().nth(at)? {
                "unlimited" => Some(None),
                number => number.parse().ok().map(Some),
            }
        };
        let status = machine.read("proc/self/status").unwrap_or_default();
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let capabilities = line("CapEff:").and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
        let huge = "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
        let enabled = machine.read("sys/kernel/mm/transparent_hugepage/enabled");
        Memory {
            available: available_in(&machine.path("")),
            locked: limit("Max locked memory", 0),
            // The daemon raises its own limit as far as it may.
            files: limit("Max open files", 1),
            may_lock: capabilities >> IPC_LOCK & 1 == 1,
            user: line("Uid:").and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok()),
            reserved: HUGE_PAGE * machine.number(huge).unwrap_or(0) as u64,
            transparent: enabled.and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())),
        }
    }
}

/// Enough for all slots?
pub(super) fn available(facts: &Facts) -> Outcome {
    let needs = match &facts.needs {
        Ok(needs) => needs,
        Err(error) => return Outcome::skip(format!("the job cannot be made: {error}")),
    };
    let Some((available, who)) = facts.memory.available else {
        return Outcome::skip("nobody says how much memory is available");
    };
    let found = format!("{} ({who}); slots take {}", bytes(available as u64), bytes(needs.slots() as u64));
    if needs.slots() > available {
        let hint = "lower memory.credits, memory.updates or chunks.width, or give the machine or control group more";
        return Outcome::of(Status::Fail, found, format!("at least {}", bytes(needs.slots() as u64)), hint);
    }
    Outcome::pass(found)
}

/// May a NIC have as much as it needs?
pub(super) fn locked(facts: &Facts) -> Outcome {
    let memory = &facts.memory;
    if facts.no_rdma_wanted() {
        return Outcome::skip("listen.transport is \"tcp\": nothing is locked");
    }
    let (Some(limit), Ok(needs)) = (memory.locked, &facts.needs) else {
        return Outcome::skip("the limit or the need is not known");
    };
    let needed = needs.pinned() as u64 + needs.workers as u64 * QUEUES;
    let need = format!("about {}, and {} at each worker", bytes(needed), bytes(needs.at_a_worker as u64));
    let who = match memory.user {
        Some(0) => "root".to_owned(),
        Some(user) => format!("user {user}"),
        None => "this user".to_owned(),
    };
    match limit {
        _ if memory.may_lock => Outcome::pass(format!("{who} has CAP_IPC_LOCK: no limit (RDMA locks {need})")),
        None => Outcome::pass(format!("RLIMIT_MEMLOCK is unlimited (RDMA locks {need})")),
        Some(limit) if limit >= needed => {
            Outcome::pass(format!("RLIMIT_MEMLOCK is {} (RDMA locks {need})", bytes(limit)))
        }
        Some(limit) => Outcome::of(
            match facts.config.listen.transport {
                Transport::Rdma => Status::Fail,
                _ if facts.rdma.has_devices() => Status::Warn,
                _ => Status::Note,
            },
            format!("RLIMIT_MEMLOCK is {}, and {who} has no CAP_IPC_LOCK", bytes(limit)),
            format!("{need}, for RDMA"),
            "ulimit -l unlimited, LimitMEMLOCK=infinity (systemd), --ulimit memlock=-1 (containers), or /etc/security/limits.d; the limit \
             counts that the daemon is started with",
        ),
    }
}

/// As many pages of 2 MiB as are wanted?
pub(super) fn huge_pages(facts: &Facts) -> Outcome {
    let (memory, wanted) = (&facts.memory, facts.config.memory.huge_pages);
    let Ok(needs) = &facts.needs else { return Outcome::skip("the job cannot be made") };
    if wanted == HugePages::Off {
        return Outcome::skip("memory.huge_pages is \"off\"");
    }
    let rounded = |bytes: usize| (bytes as u64).next_multiple_of(HUGE_PAGE);
    let needed = rounded(needs.shards) + rounded(needs.updates) + rounded(needs.wide);
    let transparent = memory.transparent.as_deref().unwrap_or("unknown to this kernel");
    let found = format!("{} reserved and free, transparent ones: {transparent}", bytes(memory.reserved));
    let hint = format!(
        "sysctl vm.nr_hugepages={}, or echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        needed / HUGE_PAGE
    );
    match wanted {
        _ if memory.reserved >= needed => Outcome::pass(found),
        _ if matches!(transparent, "always" | "madvise") => Outcome::pass(found),
        HugePages::Require => {
            Outcome::of(Status::Fail, found, format!("{}, as memory.huge_pages is \"require\"", bytes(needed)), hint)
        }
        _ => Outcome::of(
            Status::Note,
            found,
            format!("{} for all slots; without, starts take longer", bytes(needed)),
            hint,
        ),
    }
}

/// Enough descriptors?
pub(super) fn open_files(facts: &Facts) -> Outcome {
    let (Some(limit), Ok(needs)) = (facts.memory.files, &facts.needs) else {
        return Outcome::skip("the limit or the need is not known");
    };
    match limit {
        Some(limit) if limit < needs.descriptors => Outcome::of(
            Status::Warn,
            format!("RLIMIT_NOFILE can be raised to {limit}"),
            format!("{} for {} workers", needs.descriptors, needs.workers),
            "raise the hard limit: ulimit -Hn, LimitNOFILE= (systemd), --ulimit nofile= (containers)",
        ),
        limit => {
            let limit = limit.map_or("unlimited".into(), |limit| limit.to_string());
            Outcome::pass(format!("up to {limit}; this job needs {}", needs.descriptors))
        }
    }
}
