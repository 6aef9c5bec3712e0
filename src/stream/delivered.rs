//! Operators over items that are acknowledged, where the acknowledgement has to go with them. All others are those of `futures-util`.
//!
//! # Invariants
//! - An item that is filtered out is acknowledged; a batch acknowledges what it holds; what was split is acknowledged with its last.

use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt};

use super::delivery::Delivery;

/// A batch of no items, which would never come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a batch of no items would never come; give it a size of at least 1")]
pub struct EmptyBatch;

/// Operators over streams of [`Delivery`]; in scope with `use steadfast::DeliveryStream`.
///
/// ```
#[doc = include_str!("../example-prelude.txt")]
/// use futures_util::StreamExt;
/// use std::pin::pin;
///
/// # let system = System::builder().open_in_memory().await?;
/// let additions = system.topic::<Add>("additions").await?;
/// additions.publish_all([1, 2, 3, 4].map(|amount| Add { amount })).await?;
/// let even = system.consume(&additions, "even").in_flight(8).await?.filter_delivered(|add| add.amount % 2 == 0);
/// let mut batches = pin!(even.batch_delivered(2, Duration::from_secs(1))?);
/// let batch = batches.next().await.ok_or("the source has ended")?;
/// assert_eq!(batch.item().len(), 2);
/// batch.ack().await?; // both, durably; 1 and 3 were when they were passed over
/// # Ok(()) }
/// ```
pub trait DeliveryStream<T>: Stream<Item = Delivery<T>> + Sized {
    /// Makes one item of each.
    fn map_delivered<U>(self, mut map: impl FnMut(T) -> U) -> impl Stream<Item = Delivery<U>> {
        self.map(move |one| one.map(&mut map))
    }

    /// Lets through those for which this is true, and acknowledges the others.
    fn filter_delivered(self, mut wants: impl FnMut(&T) -> bool) -> impl Stream<Item = Delivery<T>> {
        self.filter_map(move |one| {
            let wanted = wants(one.item());
            let passed = match wanted {
                true => Some(one),
                false if cfg!(steadfast_bug = "drop_what_is_filtered_out") => None,
                false => {
                    drop(one.ack());
                    None
                }
            };
            std::future::ready(passed)
        })
    }

    /// Makes several items of each; it is acknowledged with the last of them.
    fn flat_map_delivered<U, I: IntoIterator<Item = U>>(
        self,
        mut map: impl FnMut(T) -> I,
    ) -> impl Stream<Item = Delivery<U>> {
        self.flat_map(move |one| {
            let (item, rest) = one.into_parts();
            stream::iter(rest.split(map(item)))
        })
    }

    /// Makes one of up to `size` items: from the first one it is waited at most `linger` for more. The source must have as many [in
    /// flight](super::Consume::in_flight), or a batch has those only that may be.
    ///
    /// # Errors
    /// A `size` of 0.
    fn batch_delivered(
        self,
        size: usize,
        linger: Duration,
    ) -> Result<impl Stream<Item = Delivery<Vec<T>>>, EmptyBatch> {
        if size == 0 {
            return Err(EmptyBatch);
        }
        let source = Box::pin(self.fuse());
        Ok(stream::unfold(source, move |mut source| async move {
            let mut all = vec![source.next().await?];
            let over = tokio::time::sleep(linger);
            tokio::pin!(over);
            while all.len() < size {
                tokio::select! {
                    biased;
                    more = source.next() => match more {
                        Some(more) => all.push(more),
                        None => break,
                    },
                    () = &mut over => break,
                }
            }
            Delivery::join(all).map(|batch| (batch, source))
        }))
    }

    /// The items of both, as they come.
    fn merge_delivered(self, other: impl Stream<Item = Delivery<T>>) -> impl Stream<Item = Delivery<T>> {
        stream::select(self, other)
    }
}

impl<T, S: Stream<Item = Delivery<T>>> DeliveryStream<T> for S {}
