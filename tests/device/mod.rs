//! An ext4 file system on a loop device that can be shut down without anything being flushed. Needs root, losetup,
//! mkfs.ext4, and perl or python3 for the ioctl (`unsafe` is forbidden here).

#![allow(dead_code, reason = "each that includes this uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// A file system on a loop device; nothing of it stays behind.
pub(crate) struct Device {
    directory: PathBuf,
    /// Removed with it.
    _directory: Option<tempfile::TempDir>,
    device: Option<String>,
    mounted: bool,
}

impl Device {
    /// Makes one of this size, such as `1G`, or says what is missing.
    pub(crate) fn make(size: &str) -> Result<Device, String> {
        let directory = tempfile::tempdir().map_err(|why| why.to_string())?;
        let path = directory.path().to_owned();
        let mut made = Device::make_in(&path, size)?;
        made._directory = Some(directory);
        Ok(made)
    }

    /// As [`Device::make`], with its image in this directory: the one that is there, or a new one.
    pub(crate) fn make_in(directory: &Path, size: &str) -> Result<Device, String> {
        if run("id", &["-u"])?.trim() != "0" {
            return Err("it needs root".into());
        }
        let mut made =
            Device { directory: directory.to_owned(), _directory: None, device: None, mounted: false };
        let image = made.path("image");
        if !Path::new(&image).exists() {
            run("truncate", &["-s", size, &image])?;
            run("mkfs.ext4", &["-q", "-F", &image])?;
        }
        std::fs::create_dir_all(made.path("mounted")).map_err(|why| why.to_string())?;
        made.let_go(&image)?;
        made.device = Some(run("losetup", &["--find", "--show", &image])?.trim().to_owned());
        // whether it can be done at all is seen before anything is written
        made.mount()?;
        made.cut_power()?;
        made.unmount()?;
        Ok(made)
    }

    /// Of a process that was killed the file system is still mounted: an image must not be so twice.
    fn let_go(&self, image: &str) -> Result<(), String> {
        let users = || run("losetup", &["--associated", image]);
        for line in users()?.lines() {
            let _ = run("umount", &[&self.path("mounted")]);
            let _ = run("losetup", &["--detach", line.split(':').next().unwrap_or_default()]);
        }
        match users()?.trim() {
            "" => Ok(()),
            line => Err(format!("the image is in use: {line}")),
        }
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    pub(crate) fn mount(&mut self) -> Result<PathBuf, String> {
        let mounted = self.path("mounted");
        run("mount", &["-t", "ext4", self.device.as_deref().unwrap_or_default(), &mounted])?;
        self.mounted = true;
        Ok(mounted.into())
    }

    pub(crate) fn cut_power(&self) -> Result<(), String> {
        self.cut_power_after(|| {})
    }

    /// EXT4_IOC_SHUTDOWN with the flag that leaves even the file system's journal unflushed, at once after `last`: what starts
    /// the ioctl has been started before, so that nothing has time to become durable in between.
    pub(crate) fn cut_power_after<T>(&self, last: impl FnOnce() -> T) -> Result<T, String> {
        const PERL: &str = "open(my $f, '<', $ARGV[0]) or die $!; my $how = pack('L', 2); \
                            $| = 1; print \"ready\\n\"; <STDIN>; ioctl($f, 0x8004587D, $how) or die $!";
        const PYTHON: &str = "import fcntl, os, struct, sys; f = os.open(sys.argv[1], os.O_RDONLY); \
                              print('ready', flush=True); sys.stdin.readline(); \
                              fcntl.ioctl(f, 0x8004587D, struct.pack('I', 2))";
        let mounted = self.path("mounted");
        let waiting = waiting("perl", &["-e", PERL, &mounted]);
        let (mut cutter, mut go) =
            waiting.or_else(|_| self::waiting("python3", &["-c", PYTHON, &mounted]))?;
        let read = last();
        go.write_all(b"\n").and_then(|()| go.flush()).map_err(|why| why.to_string())?;
        drop(go);
        match cutter.wait().map_err(|why| why.to_string())?.success() {
            true => Ok(read),
            false => Err(format!("the file system of {mounted} cannot be shut down")),
        }
    }

    pub(crate) fn unmount(&mut self) -> Result<(), String> {
        run("umount", &[&self.path("mounted")])?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            let _ = run("umount", &["--lazy", &self.path("mounted")]);
        }
        if let Some(device) = &self.device {
            let _ = run("losetup", &["--detach", device]);
        }
    }
}

/// Starts what says that it is ready and then waits for a line.
fn waiting(program: &str, arguments: &[&str]) -> Result<(Child, ChildStdin), String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|why| format!("{program}: {why}"))?;
    let (Some(go), Some(out)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(format!("{program} has no input or output"));
    };
    let mut line = String::new();
    match BufReader::new(out).read_line(&mut line) {
        Ok(_) if line.trim() == "ready" => Ok((child, go)),
        _ => Err(format!("{program} does not come to be ready: {:?}", child.wait())),
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let ran = Command::new(program).args(arguments).output().map_err(|why| format!("{program}: {why}"))?;
    match ran.status.success() {
        true => Ok(String::from_utf8_lossy(&ran.stdout).into_owned()),
        false => Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr).trim())),
    }
}
