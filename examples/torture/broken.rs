//! Faults that can be planted in the workload, each of which the checker must notice: one that cannot fail shows nothing.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Says that a message was acknowledged, and does not send it.
    AcknowledgesEarly,
    /// A turn does not send all that it should.
    HalfTurn,
    /// A turn sends at once and not as part of itself.
    PastTheTurn,
    /// Sends two messages in the wrong order.
    Swaps,
    /// Sends what it did not say it would.
    Phantom,
    /// A subscriber acknowledges events that it does not write down.
    DropsEvents,
    /// Sends the same again without the dedup id.
    NoDedup,
    /// More money arrives than was sent.
    Mints,
    /// Says of messages that were handled that they are dead letters.
    TellsLies,
    /// Says that a message which may expire, but late, was acknowledged, and does not send it.
    ForgetsTheExpiring,
    /// Damage that takes all files away, so that nothing is left to be refused.
    Wipe,
}

impl Broken {
    pub(crate) const ALL: [(&'static str, Broken); 11] = [
        ("acknowledges-early", Broken::AcknowledgesEarly),
        ("half-turn", Broken::HalfTurn),
        ("past-the-turn", Broken::PastTheTurn),
        ("swaps", Broken::Swaps),
        ("phantom", Broken::Phantom),
        ("drops-events", Broken::DropsEvents),
        ("no-dedup", Broken::NoDedup),
        ("mints", Broken::Mints),
        ("tells-lies", Broken::TellsLies),
        ("forgets-the-expiring", Broken::ForgetsTheExpiring),
        ("wipe", Broken::Wipe),
    ];

    pub(crate) fn name(self) -> &'static str {
        Broken::ALL.iter().find(|(_, broken)| *broken == self).map_or("", |(name, _)| name)
    }
}
