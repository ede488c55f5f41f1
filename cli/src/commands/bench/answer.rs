//! There and back between devices: one asks by a write, the others answer by one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use swarmkv_node::api::wire::{ChangedRequest, Data, GetRequest, ListRequest, WriteOp};

use super::load::PREFIX;
use super::report::Report;
use crate::client::{Peer, millis};
use crate::error::Failure;
use crate::output::Output;
use crate::settings::Settings;

/// Questions asked.
const QUESTIONS: usize = 100;
/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the first answers, and any later one, are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

fn question() -> Data {
    Data::from(format!("{PREFIX}question").into_bytes())
}

fn answers() -> Data {
    Data::from(format!("{PREFIX}answer/").into_bytes())
}

/// Asks, and notes how long each device that answers took, there and back, by half.
pub async fn measure(
    settings: &Settings,
    bar: &ProgressBar,
    report: &mut Report,
) -> Result<(), Failure> {
    bar.set_message("asking other devices");
    let mut peer = Peer::connect(settings).await?;
    let mut times: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for number in 0..QUESTIONS {
        let text = format!("{}/{number}", std::process::id());
        let value = Some(Data::from(text.clone().into_bytes()));
        let began = Instant::now();
        peer.write_one(WriteOp { key: question(), value, ..WriteOp::default() }).await?;
        let wanted = times.len().max(1);
        let answered = wait(&mut peer, &text, wanted, began, &mut times).await?;
        if number == 0 && answered == 0 {
            // Nobody answers: that is no failure.
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    for (device, times) in times {
        report.times("write seen by another device", &device, times, None);
    }
    Ok(())
}

/// Waits until so many devices have answered, or for as long as is sensible.
async fn wait(
    peer: &mut Peer,
    text: &str,
    wanted: usize,
    began: Instant,
    times: &mut BTreeMap<String, Vec<Duration>>,
) -> Result<usize, Failure> {
    let mut state = String::new();
    let mut answered: Vec<String> = Vec::new();
    while began.elapsed() < PATIENCE {
        let mut request = ListRequest {
            prefix: answers(),
            start: None,
            after: None,
            limit: 1000,
            keys_only: false,
            timeout_ms: 0,
        };
        let page = peer.list(&mut request).await?;
        for item in page.items {
            let fits = item.value.is_some_and(|value| value.0 == text.as_bytes());
            if fits && !answered.contains(&item.author) {
                times.entry(item.author.clone()).or_default().push(began.elapsed() / 2);
                answered.push(item.author);
            }
        }
        if answered.len() >= wanted {
            break;
        }
        let left = PATIENCE.saturating_sub(began.elapsed());
        state = peer.changed(&ChangedRequest { state, timeout_ms: millis(left) }).await?.state;
    }
    Ok(answered.len())
}

/// Answers until interrupted.
pub async fn answer(settings: &Settings, out: Output) -> Result<(), Failure> {
    let mut peer = Peer::connect(settings).await?;
    let me = peer.status().await?.device_id;
    let key = Data::from([&answers().0[..], me.as_bytes()].concat());
    out.talk("Answering. Run `swarmkv bench` on another device; Ctrl-C ends this.");
    let answering = async {
        let (mut state, mut last) = (String::new(), None);
        loop {
            let asked =
                peer.get(GetRequest { key: question(), ..GetRequest::default() }).await?.value;
            if asked.is_some() && asked != last {
                let op = WriteOp { key: key.clone(), value: asked.clone(), ..WriteOp::default() };
                peer.write_one(op).await?;
            }
            last = asked;
            let request = ChangedRequest { state, timeout_ms: millis(Duration::from_secs(5)) };
            state = peer.changed(&request).await?.state;
        }
    };
    let result: Result<(), Failure> = tokio::select! {
        result = answering => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    let mut peer = Peer::connect(settings).await?;
    peer.write_one(WriteOp { key, ..WriteOp::default() }).await?;
    result
}
