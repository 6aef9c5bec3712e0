//! Real power cuts, as a file system sees them: ext4 on a loop device is shut down with an ioctl that throws away what
//! was not flushed, in the middle of the work of a child; mounted again, the store must have all that was acknowledged.
//!
//! Needs root, losetup, mkfs.ext4 and perl (the ioctl has no safe call in Rust). Where one is missing the test says
//! `skipped` and why on standard error. `STEADFAST_CYCLES` runs more than the short form, all on one store.

use std::path::PathBuf;
use std::process::Command;

use super::child::{Child, Said, config};
use super::*;

fn cycles() -> u64 {
    std::env::var("STEADFAST_CYCLES").ok().and_then(|cycles| cycles.parse().ok()).unwrap_or(4)
}

/// EXT4_IOC_SHUTDOWN, `_IOR('X', 125, __u32)`, with EXT4_GOING_FLAGS_NOLOGFLUSH.
const SHUT_DOWN: &str = r#"
    my $how = pack("L", 2);
    open(my $root, "<", $ARGV[0]) or die "open: $!";
    ioctl($root, 0x8004587D, $how) or die "ioctl: $!";
"#;

/// Runs a command and says why it did not succeed.
fn run(command: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(command).args(arguments).output().map_err(|e| format!("{command}: {e}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!("{command} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// A file system of its own, on a file. Unmounted and detached when it goes, also when a check has failed.
struct Device {
    device: String,
    mount: PathBuf,
    _dir: tempfile::TempDir,
}

impl Device {
    fn make() -> Result<Device, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let image = dir.path().join("image").display().to_string();
        let mount = dir.path().join("mount");
        std::fs::create_dir(&mount).map_err(|e| e.to_string())?;
        std::fs::File::create(&image).and_then(|file| file.set_len(256 << 20)).map_err(|e| e.to_string())?;
        run("mkfs.ext4", &["-q", "-F", &image])?;
        let device = run("losetup", &["--find", "--show", &image])?;
        let device = Device { device, mount, _dir: dir };
        device.mount()?;
        Ok(device)
    }

    fn path(&self) -> &str {
        self.mount.to_str().expect("a plain path")
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-t", "ext4", &self.device, self.path()]).map(drop)
    }

    fn unmount(&self) -> Result<(), String> {
        run("umount", &[self.path()]).map(drop)
    }

    fn cut_power(&self) -> Result<(), String> {
        run("perl", &["-e", SHUT_DOWN, self.path()]).map(drop)
    }

    /// What a power cut leaves is not read before the journal of the file system was replayed.
    fn start_again(&self) -> Result<(), String> {
        self.unmount()?;
        self.mount()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.unmount();
        let _ = run("losetup", &["--detach", &self.device]);
    }
}

/// A device on which a power cut works, or why there is none here.
fn device() -> Result<Device, String> {
    let device = Device::make()?;
    device.cut_power()?;
    device.start_again()?;
    Ok(device)
}

#[test]
fn whenever_the_power_goes_what_was_acknowledged_is_there_and_nothing_half() {
    EngineChoice::available().for_each(survives_power_cuts);
}

fn survives_power_cuts(engine: EngineChoice) {
    let device = match device() {
        Ok(device) => device,
        Err(why) => return eprintln!("skipped: no power cut can be made here: {why}"),
    };
    let store = device.mount.join("store");
    make_directory(&store, engine);
    let mut chance = 3;
    let (mut acknowledged, mut letters, mut cut) = (0, 0, 0);
    for cycle in 0..cycles() {
        let mut child = Child::start("send", &store);
        if draw(&mut chance, 6) > 0 {
            child.next_line().expect("opens");
            std::thread::sleep(Duration::from_millis(draw(&mut chance, 600)));
        } else {
            // while it starts and recovers
            std::thread::sleep(Duration::from_millis(draw(&mut chance, 150)));
        }
        device.cut_power().expect("goes down");
        let said = Said::read(&child.kill());
        device.start_again().expect("comes up again");
        let (driven, report) = open_directory(&store, &config())
            .unwrap_or_else(|error| panic!("cycle {cycle} does not open: {error}"));
        letters = said.check(driven.store());
        acknowledged += said.durable.len();
        cut += u64::from(report.cut > 0);
        drop(driven);
    }
    let cycles = cycles();
    println!(
        "{engine:?}: {cycles} power cuts, {acknowledged} acknowledged, {letters} found, {cut} torn tails cut"
    );
    assert!(acknowledged > 0 && letters >= acknowledged as u64);
}
