//! Programs that change: what was stored by another is upcast, parked or refused, never guessed.

use serde::{Deserialize, Serialize};

use super::world::*;
use crate::{Actor, Context, Failure, Handler, Message, Reason, SpawnError, Stored, System, Undecodable};

/// Declares a message as some program knows it.
macro_rules! message {
    ($Type:ident { $($field:ident: $of:ty),* } $name:literal version $version:literal $($upcast:item)?) => {
        #[derive(Debug, Serialize, Deserialize)]
        struct $Type { $($field: $of),* }
        impl Message for $Type {
            type Reply = ();
            const NAME: &'static str = $name;
            const VERSION: u32 = $version;
            $($upcast)?
        }
    };
}

/// Declares the actor as some program knows it: it writes each message down.
macro_rules! actor {
    ($Type:ident takes $($Message:ty),+) => {
        struct $Type(Log);
        impl Actor for $Type {
            const NAME: &'static str = "test.clerk";
            type Messages = ($($Message,)+);
        }
        $(impl Handler<$Message> for $Type {
            async fn handle(&mut self, message: $Message, _: &mut Context<Self>) -> Result<(), Failure> {
                self.0.say(format!("{message:?}"));
                Ok(())
            }
        })+
    };
}

message!(Order { sku: String } "order" version 1);
message!(Refund { sku: String } "refund" version 1);
message!(ChangedOrder { sku: String, quantity: u32 } "order" version 1);
message!(NewOrder { sku: String, quantity: u32 } "order" version 2
    fn upcast(stored: Stored<'_>) -> Result<Self, Undecodable> {
        match stored.version() {
            1 => match stored.decode::<String>()?.as_str() {
                "panic" => panic!("in an upcast"),
                "odd" => Err(stored.malformed("too odd")),
                sku => Ok(NewOrder { sku: sku.to_owned(), quantity: 1 }),
            },
            _ => Err(stored.unknown_version()),
        }
    }
);
message!(NewestOrder { sku: String } "order" version 3);

actor!(Clerk takes Order, Refund);
actor!(ForgetfulClerk takes Order);
actor!(ChangedClerk takes ChangedOrder, Refund);
actor!(NewClerk takes NewOrder, Refund);
actor!(NewestClerk takes NewestOrder, Refund);
actor!(DoubleClerk takes Order, NewOrder);

/// A store in which the first program left an order, a refund and another order.
async fn old_mail(skus: &[&str]) -> (World, System) {
    let world = World::new();
    let system = world.open().await;
    let to = system.bind(&crate::Address::<Clerk>::new("a").unwrap()).await.unwrap();
    for sku in skus {
        to.tell(Order { sku: (*sku).into() }).await.unwrap();
    }
    to.tell(Refund { sku: "r".into() }).await.unwrap();
    // the shapes are kept at the first start
    system.spawn("elsewhere", || Clerk(Log::new())).await.unwrap();
    let system = world.restart(system).await;
    (world, system)
}

#[tokio::test]
async fn a_message_of_an_older_version_is_upcast() {
    let (_world, system) = old_mail(&["one", "two"]).await;
    let log = Log::new();
    let said = log.clone();
    system.spawn("a", move || NewClerk(said.clone())).await.unwrap();
    assert_eq!(
        log.lines(3).await,
        [
            r#"NewOrder { sku: "one", quantity: 1 }"#,
            r#"NewOrder { sku: "two", quantity: 1 }"#,
            r#"Refund { sku: "r" }"#
        ]
    );
}

#[tokio::test]
async fn what_an_upcast_cannot_read_is_parked_with_the_reason_and_blocks_nothing() {
    let (_world, system) = old_mail(&["odd", "panic"]).await;
    let log = Log::new();
    let said = log.clone();
    system.spawn("a", move || NewClerk(said.clone())).await.unwrap();
    assert_eq!(log.lines(1).await, [r#"Refund { sku: "r" }"#]);
    let reasons: Vec<_> = dead(&system).await.into_iter().map(|letter| letter.reason).collect();
    assert_eq!(reasons.len(), 2);
    let says = |text: &str| {
        reasons.iter().any(|reason| matches!(reason, Reason::Undecodable(why) if why.contains(text)))
    };
    assert!(says("too odd") && says("in an upcast"), "{reasons:?}");
}

#[tokio::test]
async fn a_message_nobody_knows_is_parked_and_handled_after_an_upgrade() {
    let (world, system) = old_mail(&["one"]).await;
    let log = Log::new();
    let said = log.clone();
    system.spawn("a", move || ForgetfulClerk(said.clone())).await.unwrap();
    log.lines(1).await;
    let letter = first_dead(&system).await;
    assert_eq!((letter.message.as_str(), letter.attempts.count), ("refund", 0));
    assert!(
        matches!(&letter.reason, Reason::Undecodable(why) if why.contains("no message is named `refund`"))
    );
    assert!(letter.body.ends_with(b"r"));
    let system = world.restart(system).await;
    system.dead_letters().redrive(letter.id).await.unwrap();
    let said = log.clone();
    system.spawn("a", move || Clerk(said.clone())).await.unwrap();
    assert_eq!(log.lines(2).await[1], r#"Refund { sku: "r" }"#);
}

#[tokio::test]
async fn a_message_of_a_newer_program_or_without_an_upcast_is_parked() {
    let (world, system) = old_mail(&["one"]).await;
    let log = Log::new();
    let said = log.clone();
    let to = system.spawn("a", move || NewestClerk(said.clone())).await.unwrap();
    assert_eq!(log.lines(1).await, [r#"Refund { sku: "r" }"#]);
    let reason = first_dead(&system).await.reason;
    assert!(matches!(&reason, Reason::Undecodable(why) if why.contains("from which there is no upcast")));
    to.stop().await;
    to.tell(NewestOrder { sku: "new".into() }).await.unwrap();
    to.tell(Refund { sku: "last".into() }).await.unwrap();
    let system = world.restart(system).await;
    let said = log.clone();
    system.spawn("a", move || Clerk(said.clone())).await.unwrap();
    assert_eq!(log.lines(2).await[1], r#"Refund { sku: "last" }"#);
    until("the newer one to be parked", || true).await;
    let reasons: Vec<_> = dead(&system).await.into_iter().map(|letter| letter.reason).collect();
    let newer = |reason: &Reason| matches!(reason, Reason::Undecodable(why) if why.contains("version 3, this program knows up to 1"));
    assert!(reasons.iter().any(newer), "{reasons:?}");
}

#[tokio::test]
async fn a_changed_message_under_the_same_version_does_not_start_and_its_mail_waits() {
    let (_world, system) = old_mail(&["one"]).await;
    let log = Log::new();
    let said = log.clone();
    let refused = system.spawn("a", move || ChangedClerk(said.clone())).await;
    match refused {
        Err(SpawnError::SchemaChanged { name, version }) => {
            assert_eq!((name.as_str(), version), ("order", 1))
        }
        other => panic!("{other:?}"),
    }
    let infos = system.mailboxes().page(None, 9).await.unwrap();
    assert!(infos.iter().any(|info| info.name == "a" && info.waiting == 2 && !info.running));
}

#[tokio::test]
async fn changed_mail_is_parked_on_request_and_redriven_after_an_upgrade() {
    let (world, system) = old_mail(&["one"]).await;
    let log = Log::new();
    let said = log.clone();
    system.spawn("a", move || ChangedClerk(said.clone())).park_changed_mail().await.unwrap();
    assert_eq!(log.lines(1).await, [r#"Refund { sku: "r" }"#]);
    let letter = first_dead(&system).await;
    assert!(matches!(&letter.reason, Reason::Undecodable(why) if why.contains("have changed")), "{letter:?}");
    let system = world.restart(system).await;
    system.dead_letters().redrive(letter.id).await.unwrap();
    let said = log.clone();
    system.spawn("a", move || NewClerk(said.clone())).await.unwrap();
    assert_eq!(log.lines(2).await[1], r#"NewOrder { sku: "one", quantity: 1 }"#);
}

#[tokio::test]
async fn two_messages_of_one_name_do_not_start() {
    let world = World::new();
    let system = world.open().await;
    let refused = system.spawn("a", || DoubleClerk(Log::new())).await;
    assert!(matches!(refused, Err(SpawnError::DuplicateMessage { name: "order", .. })), "{refused:?}");
}

#[derive(Debug, Serialize, Deserialize)]
struct OneWay {
    #[serde(skip_serializing_if = "Option::is_none")]
    maybe: Option<u32>,
    rest: u32,
}
impl Message for OneWay {
    type Reply = ();
    const NAME: &'static str = "one-way";
}
actor!(OneWayClerk takes OneWay);

#[tokio::test]
async fn a_message_that_could_not_be_read_back_is_refused_before_any_is_accepted() {
    let world = World::new();
    let system = world.open().await;
    let to = system.bind(&crate::Address::<OneWayClerk>::new("a").unwrap()).await.unwrap();
    let refused = to.tell(OneWay { maybe: None, rest: 1 }).await.unwrap_err();
    assert!(refused.refused().is_some(), "{refused}");
    assert_eq!(to.waiting(), 0);
}
