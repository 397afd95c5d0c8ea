//! Whole pages from the system, apart from all others: huge ones where it has them, all of them touched before the first use.
//!
//! ```text
//!  reserved 2 MiB pages (MAP_HUGETLB) --none--> transparent ones (MADV_HUGEPAGE) --none--> 4 KiB pages
//! ```
//!
//! What the system gives shows only once the pages are there, so it is counted then. A page that was touched takes no fault
//! later; a region on huge pages also takes 512 times fewer entries of the processor's address cache.

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::path::Path;
use std::ptr::NonNull;

use clap::ValueEnum;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};

/// The system's small pages: 4 KiB, or 16 or 64 on some AArch64.
pub(super) fn page() -> usize {
    rustix::param::page_size()
}

/// Its huge pages: the only size that both kinds have on x86-64 and AArch64 with 4 KiB pages.
const HUGE_PAGE: usize = 2 << 20;

/// Whether slots lie on huge pages. The line of each word is its help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HugePages {
    /// Where the system has some: reserved ones, else transparent ones
    Auto,
    /// Never
    Off,
    /// Without them there is no start
    Require,
}

/// The pages that a region came to lie on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Huge ones that were reserved for this (`vm.nr_hugepages`).
    Reserved,
    /// Transparent huge ones, for so many bytes of the region's.
    Transparent {
        /// Bytes on huge pages.
        huge: usize,
        /// All bytes.
        bytes: usize,
    },
    /// Small ones, and why.
    Small(String),
    /// Small ones that are not there before they are touched.
    Untouched,
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pages::Reserved => f.write_str("2 MiB, reserved"),
            Pages::Transparent { huge, bytes } if huge == bytes => f.write_str("2 MiB, transparent"),
            Pages::Transparent { huge, bytes } => {
                write!(f, "2 MiB, transparent, for {} of {} MiB: the rest found no free block", huge >> 20, bytes >> 20)
            }
            Pages::Small(why) => write!(f, "4 KiB: {why}"),
            Pages::Untouched => f.write_str("4 KiB, as they are touched"),
        }
    }
}

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The system does not give it.
    #[error("cannot claim {bytes} bytes: {error}")]
    System {
        /// Bytes needed.
        bytes: usize,
        /// What the system says.
        error: io::Error,
    },
    /// It would be more than there is, and touching it would end some process.
    #[error("cannot claim {bytes} bytes: only {available} bytes of memory are available ({limit})")]
    TooMuch {
        /// Bytes needed.
        bytes: usize,
        /// Bytes that there are.
        available: usize,
        /// Who says so.
        limit: &'static str,
    },
    /// Huge pages were asked for by name.
    #[error(
        "memory.huge_pages is \"require\", and {bytes} bytes cannot lie on huge pages: {why}; reserve some \
         (`sysctl vm.nr_hugepages={pages}` for this region alone), or set memory.huge_pages = \"auto\""
    )]
    NotHuge {
        /// Bytes needed.
        bytes: usize,
        /// Huge pages needed.
        pages: usize,
        /// Why there are none.
        why: String,
    },
}

/// Pages of this process, zero at first, with nothing else in them. Transparent pages and small ones lie between two that cannot be
/// touched, so that they are never one with their neighbours.
pub(super) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    /// All that was mapped.
    outer: (*mut u8, usize),
    pages: Pages,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by us, and whoever reached into it is gone. Fails only for what is not ours.
        let _ = unsafe { munmap(self.outer.0.cast(), self.outer.1) };
    }
}

impl Mapping {
    /// At least `bytes` bytes on pages that come as they are touched.
    pub(super) fn untouched(bytes: usize) -> Result<Mapping, ClaimError> {
        Mapping::fenced(bytes, page()).map_err(|error| system(bytes, error))
    }

    /// At least `bytes` bytes that are there.
    pub(super) fn touched(bytes: usize, wanted: HugePages) -> Result<Mapping, ClaimError> {
        let mut why = "memory.huge_pages is \"off\"".to_owned();
        if wanted == HugePages::Auto && bytes < HUGE_PAGE {
            why = "the region is smaller than a huge page".into();
        } else if wanted != HugePages::Off {
            match Mapping::reserved(bytes) {
                Ok(mapping) => return Ok(mapping),
                Err(error) => why = format!("vm.nr_hugepages has too few free ({error})"),
            }
            check_available(bytes)?;
            match Mapping::transparent(bytes, Path::new("/sys/kernel/mm/transparent_hugepage/enabled")) {
                Ok(mapping) if wanted == HugePages::Auto || mapping.is_huge() => return Ok(mapping),
                Ok(mapping) => why += &format!(", and transparent ones: {}", mapping.pages),
                Err(refused) => why += &format!(", and transparent ones {refused}"),
            }
            if wanted == HugePages::Require {
                return Err(ClaimError::NotHuge { bytes, pages: bytes.div_ceil(HUGE_PAGE), why });
            }
        }
        check_available(bytes)?;
        let mut mapping = Mapping::untouched(bytes)?;
        // Where all programs get huge pages unasked, a region that is to have none says so. Fails where there are none at all.
        let _ = mapping.advise(Advice::LinuxNoHugepage);
        mapping.touch().map_err(|error| system(bytes, error))?;
        mapping.pages = Pages::Small(why);
        Ok(mapping)
    }

    /// Huge pages that were reserved: the system gives all of them, or none.
    fn reserved(bytes: usize) -> io::Result<Mapping> {
        let bytes = rounded(bytes, HUGE_PAGE)?;
        let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB;
        // SAFETY: a new mapping, at an address of the system's choice.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags) }?;
        let base: NonNull<u8> = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        let mut mapping = Mapping { base, bytes, outer: (base.as_ptr(), bytes), pages: Pages::Reserved };
        // A control group may allow fewer than are free: from Linux 5.14 on this fails then, before it ended the process.
        mapping.touch()?;
        Ok(mapping)
    }

    /// Transparent huge pages, as many as the system has blocks for; in words why there are none.
    fn transparent(bytes: usize, enabled: &Path) -> Result<Mapping, String> {
        match std::fs::read_to_string(enabled) {
            Ok(text) if text.contains("[never]") => return Err(format!("are off ({} says never)", enabled.display())),
            Ok(_) => {}
            Err(_) => return Err(format!("are not known to this kernel ({} is missing)", enabled.display())),
        }
        let refused = |error: io::Error| format!("were refused ({error})");
        let bytes = rounded(bytes, HUGE_PAGE).map_err(refused)?;
        let mut mapping = Mapping::fenced(bytes, HUGE_PAGE).map_err(refused)?;
        mapping.advise(Advice::LinuxHugepage).map_err(refused)?;
        mapping.touch().map_err(refused)?;
        let smaps = std::fs::read_to_string("/proc/self/smaps").map_err(refused)?;
        match huge_bytes(&smaps, mapping.base.as_ptr().addr()) {
            0 => Err("found no free block of 2 MiB".into()),
            huge => {
                mapping.pages = Pages::Transparent { huge, bytes };
                Ok(mapping)
            }
        }
    }

    /// Pages between two fences, the first at a multiple of `alignment`.
    fn fenced(bytes: usize, alignment: usize) -> io::Result<Mapping> {
        let page = page();
        let bytes = rounded(bytes, page)?;
        let whole = bytes.checked_add(alignment + 2 * page).ok_or(Errno::NOMEM)?;
        // SAFETY: a new mapping, at an address of the system's choice.
        let outer = unsafe { mmap_anonymous(std::ptr::null_mut(), whole, ProtFlags::empty(), MapFlags::PRIVATE) }?;
        let outer: NonNull<u8> = NonNull::new(outer.cast()).ok_or(Errno::NOMEM)?;
        let skip = (outer.as_ptr().addr() + page).next_multiple_of(alignment) - outer.as_ptr().addr();
        // SAFETY: `skip` is at most a page and an alignment, so it, the bytes and one page more are inside the mapping.
        let base = unsafe { outer.add(skip) };
        let mapping = Mapping { base, bytes, outer: (outer.as_ptr(), whole), pages: Pages::Untouched };
        // SAFETY: whole pages of the new mapping, which nobody uses yet.
        unsafe { mprotect(base.as_ptr().cast(), bytes, MprotectFlags::READ | MprotectFlags::WRITE) }?;
        Ok(mapping)
    }

    /// Has every page come, zero: then the first who writes finds it there.
    fn touch(&mut self) -> io::Result<()> {
        match self.advise(Advice::LinuxPopulateWrite) {
            // Before Linux 5.14.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                for at in (0..self.bytes).step_by(page()) {
                    // SAFETY: inside the mapping, which is ours alone.
                    let byte = unsafe { self.base.add(at) };
                    // SAFETY: as above; pages of a new mapping are zero already.
                    unsafe { byte.write_volatile(0) };
                }
                Ok(())
            }
            done => done,
        }
    }

    fn advise(&self, advice: Advice) -> io::Result<()> {
        // SAFETY: whole pages (huge ones where they are), in which there is nothing but this mapping; none of the advice used here
        // changes what this process sees in them.
        Ok(unsafe { madvise(self.base.as_ptr().cast(), self.bytes, advice) }?)
    }

    /// Children of this process do not get it: they must not touch it, and it stays where a NIC knows it to be.
    pub(super) fn keep_from_children(&self) -> io::Result<()> {
        self.advise(Advice::LinuxDontFork)
    }

    fn is_huge(&self) -> bool {
        match &self.pages {
            Pages::Reserved => true,
            Pages::Transparent { huge, bytes } => huge == bytes,
            Pages::Small(_) | Pages::Untouched => false,
        }
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn pages(&self) -> &Pages {
        &self.pages
    }
}

fn system(bytes: usize, error: io::Error) -> ClaimError {
    ClaimError::System { bytes, error }
}

fn rounded(bytes: usize, to: usize) -> io::Result<usize> {
    Ok(bytes.checked_next_multiple_of(to).ok_or(Errno::NOMEM)?)
}

/// Refuses what cannot be touched. A machine that does not say what it has is believed to have it.
fn check_available(bytes: usize) -> Result<(), ClaimError> {
    match available() {
        Some((available, limit)) if bytes > available => Err(ClaimError::TooMuch { bytes, available, limit }),
        _ => Ok(()),
    }
}

/// Bytes that this process could use now without swapping, and who says so; `None` where nobody does.
pub fn available() -> Option<(usize, &'static str)> {
    available_in(Path::new("/"))
}

/// [`available`] of a machine whose `/sys` and `/proc` stand below `root`.
pub(crate) fn available_in(root: &Path) -> Option<(usize, &'static str)> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let machine = kibibytes(read("proc/meminfo").unwrap_or_default().lines(), "MemAvailable:");
    // Lines such as `4:memory:/some/group`, or `0::/some/group` where there is one hierarchy for all.
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let group = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (base, most, now) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max", "memory.current"),
            some if some.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
            }
            _ => return None,
        };
        // Within a container the group is the root of what is seen.
        let number = |path: &str, name: &str| read(&format!("{base}{path}/{name}"))?.trim().parse::<usize>().ok();
        let left = |path: &str| Some(number(path, most)?.saturating_sub(number(path, now)?));
        left(path.trim_end_matches('/')).or_else(|| left(""))
    };
    let machine = machine.map(|bytes| (bytes, "MemAvailable"));
    groups.lines().filter_map(group).map(|bytes| (bytes, "of its control group")).chain(machine).min()
}

/// Bytes on transparent huge pages of the mapping that begins at `base`, by the text of `/proc/self/smaps`.
fn huge_bytes(smaps: &str, base: usize) -> usize {
    let begins =
        |line: &&str| line.split_once('-').is_some_and(|(start, _)| usize::from_str_radix(start, 16) == Ok(base));
    let mut lines = smaps.lines().skip_while(|line| !begins(line));
    lines.next();
    // Up to the next mapping: names of figures begin with a capital letter, addresses do not.
    let figures = lines.take_while(|line| line.starts_with(|first: char| first.is_ascii_uppercase()));
    kibibytes(figures, "AnonHugePages:").unwrap_or(0)
}

/// The figure `name`, in bytes, among lines such as `AnonHugePages:      2048 kB`.
fn kibibytes<'a>(mut lines: impl Iterator<Item = &'a str>, name: &str) -> Option<usize> {
    let figure = lines.find_map(|line| line.strip_prefix(name))?;
    figure.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(mapping: &Mapping) -> &[u8] {
        // SAFETY: all of the mapping, which nobody writes meanwhile.
        unsafe { std::slice::from_raw_parts(mapping.base.as_ptr(), mapping.bytes) }
    }

    #[test]
    fn every_kind_of_pages_is_whole_zero_and_says_what_it_is() {
        for wanted in [HugePages::Auto, HugePages::Off] {
            for length in [1, page(), HUGE_PAGE, HUGE_PAGE + 1, 3 * HUGE_PAGE - 5] {
                let mapping = Mapping::touched(length, wanted).unwrap();
                assert!(mapping.bytes >= length && mapping.base.as_ptr().addr().is_multiple_of(page()));
                assert!(bytes(&mapping).iter().all(|byte| *byte == 0));
                mapping.keep_from_children().unwrap();
                match &mapping.pages {
                    Pages::Reserved | Pages::Transparent { .. } => {
                        assert_ne!(wanted, HugePages::Off);
                        assert!(mapping.base.as_ptr().addr().is_multiple_of(HUGE_PAGE));
                    }
                    Pages::Small(why) => assert!(!why.is_empty()),
                    Pages::Untouched => panic!("the pages are there"),
                }
            }
        }
    }

    #[test]
    fn pages_that_were_touched_are_all_in_memory() {
        let resident = |mapping: &Mapping| {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let start = format!("{:x}-", mapping.base.as_ptr().addr());
            kibibytes(smaps.lines().skip_while(|line| !line.starts_with(&start)), "Rss:").unwrap()
        };
        let touched = Mapping::touched(5 << 20, HugePages::Off).unwrap();
        assert_eq!(resident(&touched), touched.bytes);
        assert_eq!(resident(&Mapping::untouched(5 << 20).unwrap()), 0);
    }

    #[test]
    fn a_system_without_transparent_pages_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("enabled");
        let missing = Mapping::transparent(HUGE_PAGE, &file).err().unwrap();
        assert!(missing.contains("is missing"), "{missing}");
        std::fs::write(&file, "always madvise [never]\n").unwrap();
        let never = Mapping::transparent(HUGE_PAGE, &file).err().unwrap();
        assert!(never.contains("enabled says never"), "{never}");
    }

    #[test]
    fn the_control_group_and_the_machine_say_what_is_available() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(available_in(root.path()), None);
        write("proc/meminfo", "MemFree: 1 kB\nMemAvailable:   1000 kB\n");
        assert_eq!(available_in(root.path()), Some((1_024_000, "MemAvailable")));
        // One hierarchy, seen from within a container, without a limit and with one.
        write("proc/self/cgroup", "0::/outside/only\n");
        write("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(available_in(root.path()).unwrap().1, "MemAvailable");
        write("sys/fs/cgroup/memory.max", "5000\n");
        write("sys/fs/cgroup/memory.current", "2000\n");
        assert_eq!(available_in(root.path()), Some((3000, "of its control group")));
        // One per controller.
        write("proc/self/cgroup", "4:memory:/a/b\n3:cpu:/a\n0::/\n");
        write("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "700\n");
        write("sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "900\n");
        assert_eq!(available_in(root.path()), Some((0, "of its control group")));
    }

    #[test]
    fn more_than_there_is_is_refused_before_it_is_touched() {
        let error = Mapping::touched(1 << 46, HugePages::Off).err().unwrap();
        assert!(matches!(error, ClaimError::TooMuch { bytes, .. } if bytes == 1 << 46), "{error}");
        assert!(matches!(Mapping::untouched(usize::MAX).err().unwrap(), ClaimError::System { .. }));
    }

    #[test]
    fn huge_pages_are_counted_for_the_mapping_that_was_asked_for() {
        let smaps = "7f0000000000-7f0000200000 rw-p 00000000 00:00 0 \nRss:  4 kB\nAnonHugePages:    2048 kB\n\
                     7f0000400000-7f0000a00000 rw-p 00000000 00:00 0 \nRss:  4 kB\nAnonHugePages:    4096 kB\n\
                     7f0000c00000-7f0000d00000 rw-p 00000000 00:00 0 \nRss:  4 kB\n";
        assert_eq!(huge_bytes(smaps, 0x7f00_0000_0000), 2 << 20);
        assert_eq!(huge_bytes(smaps, 0x7f00_0040_0000), 4 << 20);
        assert_eq!(huge_bytes(smaps, 0x7f00_00c0_0000), 0);
        assert_eq!(huge_bytes(smaps, 0x7f00_00e0_0000), 0);
    }
}
