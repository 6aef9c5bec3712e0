//! What tokio itself does: a task behind a bounded channel, and a oneshot for the reply. No names, no supervision, no dispatch.

use tokio::sync::{mpsc, oneshot};

use crate::memory::{Note, Peer, WAITING};

/// Tasks behind channels.
pub struct Channels;

/// What a task receives.
pub enum Mail {
    /// To add.
    Tell(Note),
    /// To add and answer.
    Ask(Note, oneshot::Sender<u64>),
}

impl Peer for Channels {
    type Actor = mpsc::Sender<Mail>;

    async fn spawn(&self) -> Self::Actor {
        let (sender, mut mail) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let mut sum = 0_u64;
            while let Some(mail) = mail.recv().await {
                match mail {
                    Mail::Tell(note) => sum = sum.wrapping_add(note.value()),
                    Mail::Ask(note, reply) => {
                        sum = sum.wrapping_add(note.value());
                        // who asked may have gone away
                        let _ = reply.send(sum);
                    }
                }
            }
        });
        sender
    }

    async fn tell(actor: &Self::Actor, note: Note) {
        assert!(actor.send(Mail::Tell(note)).await.is_ok(), "the task runs");
    }

    async fn ask(actor: &Self::Actor, note: Note) -> u64 {
        let (reply, answer) = oneshot::channel();
        assert!(actor.send(Mail::Ask(note, reply)).await.is_ok(), "the task runs");
        answer.await.expect("the task answers")
    }

    /// The task ends with its last sender.
    async fn stop(actor: Self::Actor) {
        drop(actor);
    }
}
