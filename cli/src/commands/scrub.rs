//! `swarmkv scrub`: has the peer check everything it stores, and waits for the outcome.

use std::time::{Duration, Instant};

use serde::Serialize;
use swarmkv_node::api::wire::Status;

use crate::client::Peer;
use crate::error::Failure;
use crate::output::Output;
use crate::settings::Settings;
use crate::text;

/// How often the peer is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Report {
    checked: u64,
    damaged: u64,
    mended: bool,
}

/// Does it.
pub async fn run(settings: &Settings, out: Output) -> Result<(), Failure> {
    let mut peer = Peer::connect(settings).await?;
    let before = peer.status().await?;
    peer.scrub().await?;
    let bar = out.progress(Some(before.slots), "checking {bar:30} {pos} of {len} slots");
    let began = Instant::now();
    let report = loop {
        tokio::time::sleep(ASK_EVERY).await;
        let status = peer.status().await?;
        let report = Report {
            checked: status.counters.scrubbed - before.counters.scrubbed,
            damaged: status.counters.set_aside - before.counters.set_aside,
            mended: sound(&status),
        };
        let busy = status.scrub_left > 0;
        // How long reading takes depends on how much there is: only mending is waited for in vain. A complete
        // replica waits for nobody: what it could not mend, no member has.
        if !busy && (report.mended || status.caught_up || began.elapsed() > settings.timeout) {
            break report;
        }
        if busy {
            bar.set_position(report.checked);
        }
    };
    bar.finish_and_clear();
    if out.is_json() {
        out.json(&report)?;
    } else {
        out.line(&account(&report))?;
    }
    if report.mended {
        return Ok(());
    }
    let failure = Failure::failed("what is damaged here could not be fetched afresh");
    Err(failure
        .hint("it goes on by itself once a member that has it is connected; see: swarmkv status"))
}

fn sound(status: &Status) -> bool {
    status.caught_up && status.logs.iter().all(|log| log.trouble.as_deref() != Some("damaged"))
}

fn account(report: &Report) -> String {
    let checked = text::plural(report.checked, "slot");
    match (report.damaged, report.mended) {
        (0, true) => format!("{checked} checked: all is as it was signed"),
        (0, false) => {
            format!("{checked} checked: what was found damaged before is still not mended")
        }
        (damaged, true) => {
            format!("{checked} checked: {} damaged and mended", text::plural(damaged, "log"))
        }
        (damaged, false) => format!("{checked} checked: {} damaged", text::plural(damaged, "log")),
    }
}
