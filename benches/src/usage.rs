//! What this process uses, as the kernel counts it. Where there is no `/proc` the figures are 0.

use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time of all threads so far, in user and in kernel.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Resident memory now, in MiB.
pub fn rss_mib() -> f64 {
    status_kib("VmRSS:") / 1024.0
}

/// The most resident memory since the start, or since [`forget_peak`], in MiB.
pub fn peak_mib() -> f64 {
    status_kib("VmHWM:") / 1024.0
}

/// Has the kernel forget the peak; false where it does not.
pub fn forget_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Bytes that this process gave the kernel to write so far, also where that goes to no disk. What the kernel says it wrote to disks
/// (`write_bytes`) counts whole folios: of a file that was written at once they have 2 MiB, however little of one is changed.
pub fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    field(&io, "wchar:").unwrap_or(0)
}

/// The length of all files in a directory.
pub fn disk_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => disk_bytes(&entry.path()),
        Ok(about) => about.len(),
        // it was removed meanwhile
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn status_kib(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    field(&status, name).unwrap_or(0) as f64
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "VmPeak:\t  900 kB\nVmRSS:\t  120 kB\n";
        assert_eq!(field(text, "VmRSS:"), Some(120));
        assert_eq!(field(text, "VmHWM:"), None);
    }

    #[test]
    fn work_takes_processor_time() {
        let before = cpu_time();
        let mut sum = 0_u64;
        while cpu_time() - before < Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
    }

    #[test]
    fn what_is_written_is_counted() -> std::io::Result<()> {
        let directory = tempfile::tempdir()?;
        let before = written_bytes();
        std::fs::write(directory.path().join("file"), [7; 100_000])?;
        // other tests of this process may write meanwhile
        assert!(!Path::new("/proc/self/io").exists() || written_bytes() >= before + 100_000);
        Ok(())
    }

    #[test]
    fn a_directory_is_as_large_as_its_files() -> std::io::Result<()> {
        let directory = tempfile::tempdir()?;
        std::fs::create_dir(directory.path().join("inner"))?;
        std::fs::write(directory.path().join("one"), [0; 10])?;
        std::fs::write(directory.path().join("inner/two"), [0; 32])?;
        assert_eq!(disk_bytes(directory.path()), 42);
        Ok(())
    }
}
