//! The program of an example, as a test starts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// It lies beside the directory of the tests. `cargo test` builds both; `cargo test --test NAME` does not build it, so it
/// must be newer than all that it is made of: `src`, its own directory, and these.
pub(crate) fn example(name: &str, more_sources: &[&str]) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let profile = test.ancestors().nth(2).expect("tests are in target/<profile>/deps");
    let example = profile.join("examples").join(name);
    let remedy = format!("run `cargo build --example {name}` in the same profile, or all tests");
    let built = modified(&example).unwrap_or_else(|| panic!("{} is missing: {remedy}", example.display()));
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = Path::new("examples").join(name);
    let sources = more_sources.iter().map(Path::new).chain([Path::new("src"), &own]);
    let changed = sources.filter_map(|directory| newest(&project.join(directory))).max();
    assert!(Some(built) >= changed, "{} is older than its sources: {remedy}", example.display());
    example
}

/// When the newest file in a directory was changed.
fn newest(directory: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    entries.filter_map(|path| if path.is_dir() { newest(&path) } else { modified(&path) }).max()
}

fn modified(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|metadata| metadata.modified()).ok()
}
