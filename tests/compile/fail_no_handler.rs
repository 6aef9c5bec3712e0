include!("common.rs");

struct Takes;

impl Actor for Takes {
    const NAME: &'static str = "takes";
    type Messages = (Letter<0>, Letter<1>);
}

impl Handler<Letter<0>> for Takes {
    async fn handle(&mut self, _: Letter<0>, _: &mut Context<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

fn main() {}
