//! The words behind `cargo bench .. --`, the same for every bench.

use std::path::PathBuf;

use crate::Outcome;

/// What a bench was asked for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Args {
    /// A short form, for a look.
    pub quick: bool,
    /// Where the rows go as JSON, one object a line.
    pub json: Option<PathBuf>,
    /// Only rows whose name has this in it.
    pub only: Option<String>,
    /// Worker threads of the runtime; all processors unless said.
    pub cores: Option<usize>,
    /// The rest, in order.
    pub words: Vec<String>,
}

impl Args {
    /// Of this process.
    ///
    /// # Errors
    /// An option without its value, or one that is not known.
    pub fn of_process() -> Outcome<Self> {
        Self::parse(std::env::args().skip(1))
    }

    /// Of these words.
    ///
    /// # Errors
    /// An option without its value, or one that is not known.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Outcome<Self> {
        let (mut args, mut words) = (Args::default(), words.into_iter());
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => args.quick = true,
                "--json" => args.json = Some(value()?.into()),
                "--only" => args.only = Some(value()?),
                "--cores" => args.cores = Some(value()?.parse()?),
                // cargo's own
                "--bench" => {}
                _ if word.starts_with("--") => return Err(format!("{word} is not known").into()),
                _ => args.words.push(word),
            }
        }
        Ok(args)
    }

    /// Whether a row of this name was asked for.
    pub fn wants(&self, row: &str) -> bool {
        self.only.as_ref().is_none_or(|only| row.contains(only.as_str()))
    }

    /// The first of the other words that is a number.
    pub fn number(&self) -> Option<u64> {
        self.words.iter().find_map(|word| word.parse().ok())
    }

    /// A runtime with as many workers as were asked for.
    ///
    /// # Errors
    /// The operating system has no threads left.
    pub fn runtime(&self) -> std::io::Result<tokio::runtime::Runtime> {
        runtime(self.cores())
    }

    /// How many workers a runtime has.
    pub fn cores(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(2, usize::from);
        self.cores.unwrap_or_else(all).max(1)
    }
}

/// A runtime with so many workers.
///
/// # Errors
/// The operating system has no threads left.
pub fn runtime(workers: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Outcome<Args> {
        Args::parse(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_and_words_may_be_mixed() -> Outcome<()> {
        let args = parse("--bench 500 --quick --json out.json again --only cycle --cores 1")?;
        assert!(args.quick);
        assert_eq!(args.json, Some("out.json".into()));
        assert_eq!(args.number(), Some(500));
        assert_eq!(args.words, ["500", "again"]);
        assert_eq!(args.cores(), 1);
        assert!(args.wants("cycle 256 senders, steadfast") && !args.wants("send 1 sender, steadfast"));
        Ok(())
    }

    #[test]
    fn a_missing_value_and_an_unknown_option_are_errors() {
        assert!(parse("--json").is_err());
        assert!(parse("--jsno out.json").is_err());
        assert!(parse("--cores many").is_err());
    }
}
