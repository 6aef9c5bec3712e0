//! Spawn, tell, be killed, resume: run it several times, or kill it in the middle.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::{Actor, Context, Failure, Handler, Message, State, System};

#[derive(Serialize, Deserialize)]
struct Greet {
    whom: String,
}
impl Message for Greet {
    type Reply = u64;
    const NAME: &'static str = "hello.greet";
}

#[derive(Serialize, Deserialize)]
struct Greeter {
    greeted: u64,
}
impl Actor for Greeter {
    const NAME: &'static str = "greeter";
    type Messages = (Greet,);
    fn state() -> State<Self> {
        State::whole(1) // the struct is saved with each turn that changed it
    }
}
impl Handler<Greet> for Greeter {
    async fn handle(&mut self, greet: Greet, _: &mut Context<Self>) -> Result<u64, Failure> {
        self.greeted += 1;
        println!("{}. hello, {}!", self.greeted, greet.whom);
        Ok(self.greeted)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "target/hello".into());
    let system = System::open(directory).await?;
    let greeter = system.spawn("greeter-1", || Greeter { greeted: 0 }).await?;
    greeter.tell(Greet { whom: "whoever was waiting".into() }).await?; // Ok: on disk, it will be handled
    let greeted = greeter.ask(Greet { whom: "world".into() }).await?;
    println!("{greeted} greetings since this store was made");
    Ok(system.shutdown(Duration::from_secs(5)).await?)
}
