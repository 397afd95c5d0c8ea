//! What `/proc` says of a process: processor time, page faults, waiting, memory. Linux only; elsewhere all is 0.

use std::ops::Sub;

/// What a process has used since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor seconds of all living threads.
    pub cpu: f64,
    /// Page faults without I/O.
    pub minor_faults: f64,
    /// Page faults that waited for a disk.
    pub major_faults: f64,
    /// Times that a thread gave up its core to wait.
    pub voluntary_switches: f64,
}

impl Usage {
    /// Of the process with this number, now.
    pub fn of(process: u32) -> Usage {
        let stat = read(process, "stat");
        // The name, which is in parentheses, may hold anything.
        let fields: Vec<f64> = stat.rsplit(')').next().unwrap_or("").split_whitespace().map(number).collect();
        let field = |at: usize| fields.get(at).copied().unwrap_or(0.0);
        let mut usage = Usage { minor_faults: field(7), major_faults: field(9), ..Usage::default() };
        for task in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let text = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            usage.cpu += text("schedstat").split(' ').next().map_or(0.0, number) / 1e9;
            usage.voluntary_switches += line(&text("status"), "voluntary_ctxt_switches:");
        }
        usage
    }
}

impl Sub for Usage {
    type Output = Usage;

    fn sub(self, earlier: Usage) -> Usage {
        Usage {
            cpu: self.cpu - earlier.cpu,
            minor_faults: self.minor_faults - earlier.minor_faults,
            major_faults: self.major_faults - earlier.major_faults,
            voluntary_switches: self.voluntary_switches - earlier.voluntary_switches,
        }
    }
}

/// Resident memory of a process, in bytes.
pub fn resident(process: u32) -> u64 {
    line(&read(process, "status"), "VmRSS:") as u64 * 1024
}

/// Threads of a process whose names begin so.
pub fn threads(process: u32, name: &str) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    tasks.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|it| it.starts_with(name))).count()
}

fn read(process: u32, name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default()
}

fn number(word: &str) -> f64 {
    word.parse().unwrap_or(0.0)
}

/// The number in the line that begins with `name`.
fn line(text: &str, name: &str) -> f64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    rest.and_then(|rest| rest.split_whitespace().next()).map_or(0.0, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_something() {
        let before = Usage::of(std::process::id());
        let touched = vec![1u8; 8 << 20];
        let used = Usage::of(std::process::id()) - before;
        assert!(used.minor_faults > 0.0 && used.cpu >= 0.0, "{used:?} for {} bytes", touched.len());
        assert!(resident(std::process::id()) > 8 << 20);
    }

    #[test]
    fn lines_are_found_by_their_whole_beginning() {
        let text = "nonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t4\nVmRSS:\t  12 kB\n";
        assert_eq!((line(text, "voluntary_ctxt_switches:"), line(text, "VmRSS:"), line(text, "No:")), (4.0, 12.0, 0.0));
    }
}
