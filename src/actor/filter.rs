//! What an actor wants of the topics it reads: the rest is passed over, and never comes to its handler.
//!
//! # Invariants
//! - Mail that was sent to the actor itself is never filtered.
//! - What is passed over is settled like what was handled: it is not looked at again, whatever the filter says later.
//! - A filter that panics is a failed attempt of that event, and nothing else.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use super::failure::Failure;
use super::turn::panic_text;
use crate::envelope::Headers;

/// See the module's head.
#[derive(Clone)]
pub(crate) enum Filter {
    Header(String, String),
    /// Says of a message of one type whether it is wanted; of any other, that it is.
    Event(Arc<dyn Fn(&dyn Any) -> bool + Send + Sync>),
}

impl Filter {
    pub(crate) fn event<E: Any>(wants: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self {
        Filter::Event(Arc::new(move |event| event.downcast_ref::<E>().is_none_or(&wants)))
    }
}

/// Whether all filters want an event with these headers, as far as headers say.
pub(super) fn want_headers(filters: &[Filter], headers: &Headers) -> bool {
    filters.iter().all(|filter| match filter {
        Filter::Header(key, value) => headers.get(key) == Some(value),
        Filter::Event(_) => true,
    })
}

/// Whether all filters want an event.
pub(super) fn want(filters: &[Filter], event: &dyn Any) -> Result<bool, Failure> {
    let all = || {
        filters.iter().all(|filter| match filter {
            Filter::Header(..) => true,
            Filter::Event(wants) => wants(event),
        })
    };
    std::panic::catch_unwind(AssertUnwindSafe(all)).map_err(|panic| Failure::panicked(panic_text(&*panic)))
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Filter::Header(key, value) => write!(f, "Header({key}: {value})"),
            Filter::Event(_) => f.write_str("Event"),
        }
    }
}
