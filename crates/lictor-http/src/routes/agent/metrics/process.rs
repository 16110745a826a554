//! What the operating system says of this process, by the names that Prometheus' clients have for it.

use lictor_telemetry::{Kind, Page};

use super::super::info::kib_of;

/// The unit of times in `/proc`, a part of Linux's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// What is not known is 0.
#[derive(Debug, Default)]
pub(crate) struct Process {
    pub(crate) resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
    open_files: u64,
    open_files_max: u64,
    cpu_seconds: f64,
    started: f64,
}

impl Process {
    /// Blocks for some file system calls.
    pub(crate) fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"));
        let limits = read("/proc/self/limits");
        let files = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"));
        let (cpu_seconds, since_boot) = times(&read("/proc/self/stat"));
        let boot = read("/proc/stat");
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "));
        let boot: f64 = boot.and_then(|boot| boot.trim().parse().ok()).unwrap_or_default();
        Self {
            resident_bytes: kib_of(&status, "VmRSS") * 1024,
            virtual_bytes: kib_of(&status, "VmSize") * 1024,
            threads: threads
                .and_then(|count| count.trim().parse().ok())
                .unwrap_or_default(),
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
            open_files_max: files
                .and_then(|line| line.split_whitespace().next()?.parse().ok())
                .unwrap_or_default(),
            cpu_seconds,
            started: boot + since_boot,
        }
    }

    /// Adds all but what others tell.
    pub(crate) fn add_to(&self, page: &mut Page) {
        let help = "Processor time, of the system on behalf of the process too.";
        let cpu = page.family(Kind::Counter, "process_cpu_seconds_total", help);
        cpu.number(&[], self.cpu_seconds);
        page.gauge(
            "process_resident_memory_bytes",
            "Resident memory.",
            self.resident_bytes,
        );
        page.gauge(
            "process_virtual_memory_bytes",
            "Virtual memory.",
            self.virtual_bytes,
        );
        page.gauge("process_open_fds", "Open files and sockets.", self.open_files);
        page.gauge("process_max_fds", "How many may be open.", self.open_files_max);
        page.gauge("process_threads", "Threads.", self.threads);
        let help = "When the process began, in seconds since 1970.";
        let started = page.family(Kind::Gauge, "process_start_time_seconds", help);
        started.number(&[], self.started);
    }
}

/// Processor time, and the begin of the process after that of the system; both in seconds.
fn times(stat: &str) -> (f64, f64) {
    // The name of the program may hold anything, but it ends at the last parenthesis.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or_default()
    };
    (
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND,
        ticks(19) / TICKS_PER_SECOND,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 4 0 1234 0 0";

        assert_eq!(times(stat), (2.0, 12.34));
        assert_eq!(times(""), (0.0, 0.0));
    }

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let process = Process::read();

        assert!(process.resident_bytes > 1 << 20 && process.virtual_bytes >= process.resident_bytes);
        assert!(process.threads >= 1 && process.open_files >= 3 && process.open_files_max >= 3);
        assert!(process.started > 1e9);
    }
}
