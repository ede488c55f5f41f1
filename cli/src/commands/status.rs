//! `swarmkv status`: who am I, which swarm, who is connected, how far is everyone, is all well.

use std::time::Duration;

use swarmkv_node::api::wire::{LogInfo, Status, Upgrade};

use super::peers;
use crate::client::Peer;
use crate::error::Failure;
use crate::output::Output;
use crate::settings::Settings;
use crate::text;

/// Characters of an id that tell the members of a swarm apart.
const SHORT_ID: usize = 10;

/// Prints it.
pub async fn run(settings: &Settings, out: Output) -> Result<(), Failure> {
    let status = Peer::connect(settings).await?.status().await?;
    if out.is_json() {
        return out.json(&status);
    }
    for (name, text) in facts(&status) {
        out.line(&format!("{}{text}", out.heading(&format!("{name:<9}"))))?;
    }
    if status.peers.is_empty() {
        return Ok(());
    }
    out.line("")?;
    peers::print(&status.peers, out)
}

fn facts(status: &Status) -> Vec<(&'static str, String)> {
    let clean = |text: &str| text::escaped(text.as_bytes());
    let short = |id: &str| id.chars().take(SHORT_ID).collect::<String>();
    let connected = status.peers.iter().filter(|peer| peer.connected).count();
    let members = text::plural(status.members as u64, "member");
    let uptime = text::duration(Duration::from_millis(status.uptime_ms));
    let mut facts = vec![
        (
            "swarm",
            format!(
                "{} ({}), {members}, {connected} connected",
                clean(&status.swarm),
                short(&status.swarm_id)
            ),
        ),
        (
            "device",
            format!("{} ({}), {}", clean(&status.device), short(&status.device_id), status.role),
        ),
        ("peer", format!("process {}, up {uptime}, version {}", status.pid, status.version)),
        ("state", state(status)),
        (
            "data",
            format!(
                "{}, {} live, {} {}",
                text::plural(status.slots, "slot"),
                text::size(status.bytes),
                text::size(status.disk_bytes),
                if status.in_memory { "in memory only" } else { "on disk" }
            ),
        ),
        ("place", status.data_dir.clone()),
    ];
    match (status.standing.as_str(), &status.revoked_by) {
        ("revoked", by) => {
            let by = by.as_deref().unwrap_or("another member");
            facts.insert(2, ("trouble", format!(
                "\"{}\" took this device out of the swarm: its copy stays readable, nothing is sent \
                 or received",
                clean(by)
            )));
        }
        ("left", _) => facts.insert(
            2,
            ("trouble", "this device has left the swarm: its copy stays readable".to_owned()),
        ),
        _ => {}
    }
    if status.disk_full {
        let text = "the disk is full: nothing is written until there is room, reads go on";
        facts.push(("trouble", text.to_owned()));
    }
    facts.extend(status.upgrade.iter().map(|met| ("upgrade", upgrade(met))));
    facts.extend(status.listen.iter().map(|addr| ("listens", addr.clone())));
    let mut troubles: Vec<String> = status.logs.iter().filter_map(trouble).collect();
    troubles.dedup();
    facts.extend(troubles.into_iter().map(|text| ("trouble", text)));
    facts
}

fn state(status: &Status) -> String {
    let hash: String = status.state.chars().take(SHORT_ID).collect();
    let progress = status.progress.as_ref().map(|progress| {
        let (received, planned) = (text::count(progress.received), text::count(progress.planned));
        format!("{received} of about {planned} slots from {}", progress.from)
    });
    match (status.caught_up, progress) {
        (true, None) => format!("whole, hash {hash}"),
        (true, Some(progress)) => format!("whole, hash {hash}; receiving {progress}"),
        (false, None) => "catching up: waiting for a member to catch up from".into(),
        (false, Some(progress)) => format!("catching up: {progress}"),
    }
}

fn upgrade(met: &Upgrade) -> String {
    let device = text::escaped(met.device.as_bytes());
    let what = match met.what.as_str() {
        "statement" => format!(
            "\"{device}\" has stated something that this version does not understand: whom it admitted or took \
             out from then on is not heeded here"
        ),
        "write" => format!(
            "\"{device}\" sent a write that this version does not understand: its author's log stands still here"
        ),
        _ => format!(
            "\"{device}\" sent a message that this version does not understand: it was passed over"
        ),
    };
    format!("{what}. Install the newest swarmkv on this device and start its peer again")
}

fn trouble(log: &LogInfo) -> Option<String> {
    let author = text::escaped(log.author.as_bytes());
    Some(match log.trouble.as_deref()? {
        "frozen" => format!("the log of {author} is frozen: it signed a wrong root"),
        "forked" => format!(
            "the log of {author} has two histories: it was written to from two copies of one device; \
             both are kept"
        ),
        "damaged" => format!(
            "what is stored here of the log of {author} is damaged: it is fetched afresh where a member has it"
        ),
        other => format!("the log of {author}: {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(upgrade: Option<&str>) -> Status {
        let upgrade = upgrade.map(
            |what| serde_json::json!({ "what": what, "device": "lap\u{7}top", "device_id": "ab" }),
        );
        let counters = [
            "commits_signed",
            "commits_applied",
            "logs_repaired",
            "slots_received",
            "slots_in_vain",
            "repairs",
            "repairs_equal",
            "gap_repairs",
            "scrubbed",
            "set_aside",
            "rejected",
            "ignored",
            "strangers_refused",
        ];
        let counters: serde_json::Map<String, serde_json::Value> =
            counters.into_iter().map(|name| (name.to_owned(), 0.into())).collect();
        serde_json::from_value(serde_json::json!({
            "swarm": "home", "swarm_id": "00", "device": "desktop", "device_id": "01", "role": "owner",
            "data_dir": "/data", "pid": 1, "uptime_ms": 1, "version": "0.1.0", "caught_up": true,
            "progress": null, "listen": [], "standing": "member", "revoked_by": null, "members": 1,
            "peers": [], "logs": [], "slots": 0, "bytes": 0, "disk_bytes": 0, "state": "ff",
            "scrub_left": 0, "counters": counters, "upgrade": upgrade,
        }))
        .expect("a status")
    }

    fn said(upgrade: Option<&str>) -> Option<String> {
        facts(&status(upgrade))
            .into_iter()
            .find(|(name, _)| *name == "upgrade")
            .map(|(_, text)| text)
    }

    #[test]
    fn something_of_a_later_version_is_told_with_what_to_do() {
        assert_eq!(said(None), None);
        for (what, told) in [
            ("statement", "has stated something"),
            ("write", "sent a write"),
            ("message", "sent a message"),
            ("what comes later still", "sent a message"),
        ] {
            let text = said(Some(what)).expect("told");
            assert!(text.contains(told), "{text}");
            assert!(
                text.ends_with(
                    "Install the newest swarmkv on this device and start its peer again"
                )
            );
            assert!(!text.contains('\u{7}'), "labels are escaped: {text}");
        }
    }
}
