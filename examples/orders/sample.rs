//! A small input for those who have none: the same orders each time, and two lines that are none.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::dice::Dice;
use super::input::Order;

pub(crate) const ORDERS: u64 = 4_000;
const CUSTOMERS: u64 = 700;
/// Before these orders there is a line that is none.
const MALFORMED_BEFORE: [u64; 2] = [1_001, 2_718];

pub(crate) fn write(path: &Path) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut dice = Dice::seeded(1997);
    for order_id in 1..=ORDERS {
        if MALFORMED_BEFORE.contains(&order_id) {
            writeln!(file, "{{\"order_id\":{order_id},\"customer\":")?;
        }
        let quantity = 1 + dice.below(5) as u32;
        let order = Order {
            order_id,
            customer: format!("{:05}", 1 + dice.below(CUSTOMERS)),
            date: format!("1997-{:02}-{:02}", 1 + order_id * 11 / ORDERS, 1 + dice.below(28)),
            quantity,
            total_cents: quantity * (799 + 100 * dice.below(12) as u32),
        };
        writeln!(file, "{}", serde_json::to_string(&order)?)?;
    }
    file.flush()
}
