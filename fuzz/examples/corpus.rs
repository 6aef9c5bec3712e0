//! Feeds every input that is kept in `corpus` to its target, and given files to a given one, without libFuzzer: on stable.
//! `cargo run --no-default-features --example corpus [TARGET FILE..]`, with `RUSTFLAGS="--cfg fuzzing"`. It panics where a target does.

use std::fs;
use std::path::{Path, PathBuf};

use steadfast::fuzz;

const TARGETS: [(&str, fn(&[u8])); 5] = [
    ("engine_value", fuzz::engine_value),
    ("envelope", fuzz::envelope),
    ("journal", fuzz::journal),
    ("message", fuzz::message),
    ("store", fuzz::store),
];

fn main() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut arguments = std::env::args().skip(1);
    if let Some(target) = arguments.next() {
        feed(&target, &arguments.map(PathBuf::from).collect::<Vec<_>>());
        return;
    }
    let listed = TARGETS.map(|(name, _)| name.to_owned());
    for dir in ["corpus", "fuzz_targets"] {
        let named: Vec<_> = files(&here.join(dir)).iter().map(|file| name(file)).collect();
        assert_eq!(named, listed, "each target has its name here, its file and its corpus");
    }
    for (target, _) in TARGETS {
        feed(target, &files(&here.join("corpus").join(target)));
    }
}

fn feed(target: &str, inputs: &[PathBuf]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    let (_, check) = found.unwrap_or_else(|| panic!("there is no target {target}"));
    assert!(!inputs.is_empty(), "there is nothing to feed to {target}");
    for input in inputs {
        println!("{target} < {}", input.display());
        check(&fs::read(input).expect("the input can be read"));
    }
}

/// What is in a directory, in order of name.
fn files(dir: &Path) -> Vec<PathBuf> {
    let listed = dir.read_dir().unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<_> = listed.map(|file| file.expect("an entry").path()).collect();
    files.sort();
    files
}

fn name(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
