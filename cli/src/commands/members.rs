//! `swarmkv members`: everybody who is in, and who no longer is.

use swarmkv_node::api::wire::MemberInfo;

use crate::client::{Peer, now};
use crate::error::Failure;
use crate::output::{Output, Table};
use crate::settings::Settings;
use crate::text;

/// Prints them.
pub async fn run(settings: &Settings, out: Output) -> Result<(), Failure> {
    let members = Peer::connect(settings).await?.members().await?;
    if out.is_json() {
        return members.iter().try_for_each(|member| out.json(member));
    }
    let mut table = Table::new(&[
        ("DEVICE", 12),
        ("ID", 10),
        ("ROLE", 6),
        ("STANDING", 17),
        ("MAY WRITE", 9),
        ("DATA", 7),
        ("WROTE", 7),
    ]);
    for member in &members {
        table.row(row(member));
    }
    for (i, line) in table.lines().iter().enumerate() {
        let line = match (i.checked_sub(1).map(|i| &members[i]), line) {
            (None, heading) => out.heading(heading),
            (Some(member), line) if member.standing != "member" => out.faint(line),
            (_, line) => line.clone(),
        };
        out.line(&line)?;
    }
    Ok(())
}

fn row(member: &MemberInfo) -> Vec<String> {
    let standing = match (member.standing.as_str(), &member.revoked_by) {
        ("member", _) if member.this => "this device".into(),
        ("member", _) if member.connected => "connected".into(),
        ("member", _) => "not connected".into(),
        ("revoked", Some(by)) => format!("revoked by {}", text::escaped(by.as_bytes())),
        (other, _) => other.to_owned(),
    };
    vec![
        text::escaped(member.device.as_bytes()),
        member.device_id.chars().take(10).collect(),
        member.role.clone(),
        standing,
        may_write(member),
        text::size(member.bytes),
        member.last_write.map_or_else(|| "never".into(), ago),
    ]
}

/// How long ago, by this machine's clock, that device's clock said it was.
fn ago(stamp: u64) -> String {
    format!("{} ago", text::short_time(now().saturating_sub(stamp) / 1000))
}

fn may_write(member: &MemberInfo) -> String {
    match (member.standing.as_str(), member.role.as_str(), member.prefix.0.is_empty()) {
        ("member", "reader", _) | ("revoked" | "left", ..) => "nothing".into(),
        (_, _, true) => "all keys".into(),
        (_, _, false) => format!("{}*", text::escaped(&member.prefix.0)),
    }
}
