//! The process that is killed: publishes what is not published yet, runs the stages, says how far they are, and ends when all is done.

use std::error::Error;
use std::time::Duration;

use steadfast::testkit::run_until_idle;
use steadfast::{System, Timestamp};

use super::orders::{self, DAY, Order};
use super::{Options, stages};

const AT_ONCE: usize = 500;
const SAY: Duration = Duration::from_millis(20);

pub(crate) async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let data = options.data.as_deref().ok_or("--shop needs --data")?;
    let (all, _) = orders::read(options.input.as_deref())?;
    let system = System::open(data).await?;
    let topic = system.topic::<Order>("orders").await?;
    let running = stages::run(&system, &topic).await?;

    let says = tokio::spawn(say(system.clone()));
    // what was published together is there together, so the topic says where to go on
    let published = usize::try_from(topic.info().await?.next)?;
    for orders in all.get(published..).unwrap_or_default().chunks(AT_ONCE) {
        topic.publish_all(orders.to_vec()).await?;
    }
    // a watermark overtakes events that wait
    while handled(&system).await.map_err(|why| -> Box<dyn Error> { why })?
        < all.len() as u64 * stages::STAGES.len() as u64
    {
        tokio::time::sleep(SAY).await;
    }
    let end = all.last().map_or(0, |order| order.at) + 366 * DAY;
    for stage in &running {
        stage.advance_to(Timestamp::from_millis(end)).await?;
    }
    run_until_idle(&system).await?;
    says.abort();
    let late = running[0].late().await? + running[1].late().await? + running[2].late().await?;
    if late > 0 {
        return Err(format!("{late} orders were too late").into());
    }
    system.shutdown(Duration::from_secs(60)).await?;
    Ok(())
}

/// How many events the stages have handled.
async fn handled(system: &System) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let mut handled = 0;
    for stage in stages::STAGES {
        handled += system.subscription(stage).await?.info().await?.position;
    }
    Ok(handled)
}

/// Tells the killer, who decides when to kill.
async fn say(system: System) {
    while let Ok(handled) = handled(&system).await {
        println!("handled {handled} {}", peak_rss_kib());
        tokio::time::sleep(SAY).await;
    }
}

/// 0 where the system does not tell.
fn peak_rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
