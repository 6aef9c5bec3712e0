//! Topics, actors and mailboxes as sinks: what is sent into one is stored, several items in one commit.
//!
//! # Invariants
//! - At most `capacity` items wait, and as many are under way: a sink that is not ready takes nothing.
//! - Items are stored in the order in which they were sent into the sink.
//! - A flush that succeeded means that all before it are on disk, synced.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::sink::Sink;

use crate::actor::{Actor, ActorRef, Contains, Message};
use crate::error::SendError;
use crate::topic::Topic;

/// Something items are sent into; from [`Topic::sink`] and [`ActorRef::sink`]. Dropped without a flush, it loses what waits in it.
#[must_use = "a sink takes nothing until something is sent into it"]
pub struct DurableSink<T> {
    waiting: VecDeque<T>,
    capacity: usize,
    send: Box<dyn Fn(Vec<T>) -> Sending<T> + Send>,
    sending: Option<Sending<T>>,
}

type Sending<T> = BoxFuture<'static, Result<(), SendError<Vec<T>>>>;

impl<E: Message> Topic<E> {
    /// A sink that publishes; up to `capacity` events, at least 1, wait in it and are then one commit.
    pub fn sink(&self, capacity: usize) -> DurableSink<E> {
        let topic = self.clone();
        DurableSink::new(capacity, move |events| {
            let topic = topic.clone();
            Box::pin(async move { topic.publish_all(events).await.map(drop) })
        })
    }
}

impl<A: Actor> ActorRef<A> {
    /// A sink that sends to the actor's mailbox, whether or not it runs; up to `capacity` messages, at least 1, wait in it and are then
    /// one commit. A full mailbox slows it.
    pub fn sink<M, I: 'static>(&self, capacity: usize) -> DurableSink<M>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        let actor = self.clone();
        DurableSink::new(capacity, move |messages| {
            let actor = actor.clone();
            Box::pin(async move { actor.tell_all::<M, I>(messages).await.map(drop) })
        })
    }
}

impl<T> DurableSink<T> {
    fn new(capacity: usize, send: impl Fn(Vec<T>) -> Sending<T> + Send + 'static) -> Self {
        let capacity = capacity.max(1);
        DurableSink { waiting: VecDeque::new(), capacity, send: Box::new(send), sending: None }
    }

    /// Waits for what is under way.
    fn poll_sending(&mut self, cx: &mut Task<'_>) -> Poll<Result<(), SendError<Vec<T>>>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let sent = ready!(sending.poll_unpin(cx));
        self.sending = None;
        Poll::Ready(sent)
    }

    fn begin(&mut self) {
        self.sending = Some((self.send)(self.waiting.drain(..).collect()));
    }
}

impl<T: Unpin> Sink<T> for DurableSink<T> {
    type Error = SendError<Vec<T>>;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Result<(), Self::Error>> {
        if self.waiting.len() < self.capacity {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_sending(cx))?;
        self.begin();
        // polled once, or nothing would happen of it before the next call
        match self.poll_sending(cx) {
            Poll::Ready(Err(why)) => Poll::Ready(Err(why)),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn start_send(mut self: Pin<&mut Self>, item: T) -> Result<(), Self::Error> {
        self.waiting.push_back(item);
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Result<(), Self::Error>> {
        ready!(self.poll_sending(cx))?;
        while !self.waiting.is_empty() {
            self.begin();
            ready!(self.poll_sending(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_flush(cx)
    }
}

impl<T> fmt::Debug for DurableSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableSink").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}
