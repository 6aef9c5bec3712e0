//! The input: orders, one JSON object a line.
//!
//! # Invariants
//! - A line is an order or malformed, always the same: products and audit read with the same code.
//! - What is read at once is bounded, whatever the file holds.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A longer line is no order.
const LONGEST_LINE: u64 = 16 << 10;
/// What is kept of a line that is no order.
const KEPT_OF_MALFORMED: usize = 1 << 10;
/// A customer is the key of an entity, which has at most 256 bytes.
const LONGEST_CUSTOMER: usize = 256;

/// An order. Its numbers have 32 bits so that no sum over a file overflows 64.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) order_id: u64,
    pub(crate) customer: String,
    pub(crate) date: String,
    pub(crate) quantity: u32,
    pub(crate) total_cents: u32,
}

/// A line that is no order: the beginning of it, and why it is none, with its number.
#[derive(Debug)]
pub(crate) struct Malformed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) reason: String,
}

/// A place in the input.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Bytes before it.
    pub(crate) offset: u64,
    /// Lines before it.
    pub(crate) lines: u64,
    /// Orders before it.
    pub(crate) orders: u64,
}

/// Reads orders from a position on.
pub(crate) struct Orders {
    file: BufReader<File>,
    pub(crate) position: Position,
}

impl Orders {
    pub(crate) fn open(path: &Path, position: Position) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(position.offset))?;
        Ok(Orders { file: BufReader::new(file), position })
    }

    /// The next line without its end; none at the end of the file.
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut read = (&mut self.file).take(LONGEST_LINE).read_until(b'\n', &mut line)? as u64;
        if read == LONGEST_LINE && !line.ends_with(b"\n") {
            read += self.file.skip_until(b'\n')? as u64;
        }
        self.position.offset += read;
        self.position.lines += u64::from(read > 0);
        Ok((read > 0).then(|| line.trim_ascii().to_vec()))
    }
}

impl Iterator for Orders {
    type Item = io::Result<Result<Order, Malformed>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => return None,
                Err(why) => return Some(Err(why)),
            };
            if line.is_empty() {
                continue;
            }
            let parsed = parse(&line).map_err(|why| malformed(line, self.position.lines, &why));
            self.position.orders += u64::from(parsed.is_ok());
            return Some(Ok(parsed));
        }
    }
}

fn parse(line: &[u8]) -> Result<Order, String> {
    if line.len() as u64 == LONGEST_LINE {
        return Err(format!("longer than {LONGEST_LINE} bytes"));
    }
    let order: Order = serde_json::from_slice(line).map_err(|why| why.to_string())?;
    if order.customer.len() > LONGEST_CUSTOMER {
        return Err(format!("the customer has more than {LONGEST_CUSTOMER} bytes"));
    }
    Ok(order)
}

fn malformed(mut bytes: Vec<u8>, line: u64, why: &str) -> Malformed {
    bytes.truncate(KEPT_OF_MALFORMED);
    // serde_json counts lines too, and here it always sees one: "at line 1 column 7" would mislead
    let reason = format!("line {line} is no order: {}", why.replace("at line 1 column", "at column"));
    Malformed { bytes, reason }
}
