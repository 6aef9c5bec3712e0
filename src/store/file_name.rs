//! The names a medium takes: `file` or `dir/file`.
//!
//! # Invariants
//! - No accepted name leads out of the store, on any platform: no `..`, no absolute path, no drive.

use std::io;

/// The directory (`""` is the store itself) and the file of `name`, or `InvalidInput`.
pub(super) fn split(name: &str) -> io::Result<(&str, &str)> {
    let (dir, file) = name.split_once('/').unwrap_or(("", name));
    // a leading `/` also gives an empty directory, and is not the store itself
    if is_plain(file) && (is_plain(dir) || file == name) { Ok((dir, file)) } else { Err(refused(name)) }
}

/// `InvalidInput` unless `dir` is `""` or a directory right inside the store.
pub(super) fn check_dir(dir: &str) -> io::Result<()> {
    if dir.is_empty() || is_plain(dir) { Ok(()) } else { Err(refused(dir)) }
}

fn is_plain(part: &str) -> bool {
    // `\` and `:` separate on Windows, and a NUL ends a name early
    !matches!(part, "" | "." | "..") && !part.contains(['/', '\\', ':', '\0'])
}

fn refused(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a name inside the store"))
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_at_most_one_directory() -> io::Result<()> {
        assert_eq!(split("manifest")?, ("", "manifest"));
        assert_eq!(split("journal/7.seg")?, ("journal", "7.seg"));
        assert!(split("a/b/c").is_err());
        check_dir("")?;
        check_dir("journal")?;
        assert!(check_dir("a/b").is_err());
        Ok(())
    }

    #[test]
    fn no_name_leads_out_of_the_store() {
        for name in ["", ".", "..", "/", "/a", "../a", "a/..", "a/", "./a", "..\\a", "C:a", "a\0b", "//a"] {
            assert!(split(name).is_err(), "{name:?} was taken");
        }
        for dir in [".", "..", "/", "/a", "a/", "C:"] {
            assert!(check_dir(dir).is_err(), "{dir:?} was taken");
        }
    }
}
