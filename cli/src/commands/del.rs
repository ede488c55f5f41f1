//! `swarmkv del`: keys that hold a value are deleted, the others named.

use std::collections::BTreeSet;

use serde_json::json;
use swarmkv_node::api::wire::{Data, GetRequest, WriteOp, WriteRequest};
use swarmkv_node::protocol::limits::GROUP_OPS;

use crate::args::Del;
use crate::client::Peer;
use crate::error::{Failure, Kind};
use crate::output::Output;
use crate::settings::Settings;
use crate::{parse, text};

/// Deletes.
pub async fn run(args: Del, settings: &Settings, out: Output) -> Result<(), Failure> {
    if !args.if_version.is_empty() && args.key.len() > 1 {
        return Err(Failure::usage("--if-version goes with one key only.")
            .hint("Delete the keys one after another."));
    }
    let keys = args.key.iter().map(|key| parse::key(key, args.key_base64));
    let keys = keys.collect::<Result<BTreeSet<Data>, Failure>>()?;
    let mut peer = Peer::connect(settings).await?;
    let (mut held, mut missing) = (Vec::new(), Vec::new());
    for key in keys {
        let request = GetRequest { key: key.clone(), ..GetRequest::default() };
        let siblings = peer.get(request).await?.siblings;
        let holds = siblings.iter().any(|sibling| sibling.value.is_some());
        if holds || !args.if_version.is_empty() { held.push(key) } else { missing.push(key) }
    }
    let mut deleted = Vec::new();
    for keys in held.chunks(GROUP_OPS) {
        let ops = keys.iter().map(|key| delete(key, &args.if_version)).collect();
        let answer = peer.write(&WriteRequest { ops }).await?;
        deleted.extend(keys.iter().zip(answer.versions));
    }
    report(&deleted, &missing, out)
}

fn delete(key: &Data, if_version: &[String]) -> WriteOp {
    WriteOp {
        key: key.clone(),
        value: None,
        expires_at: None,
        if_absent: false,
        if_version: Some(if_version.to_vec()).filter(|versions| !versions.is_empty()),
    }
}

fn report(deleted: &[(&Data, String)], missing: &[Data], out: Output) -> Result<(), Failure> {
    let names: Vec<String> =
        missing.iter().map(|key| format!("\"{}\"", text::escaped(&key.0))).collect();
    if deleted.is_empty() {
        let names = names.join(", ");
        let message = match missing.len() {
            1 => format!("There is no key {names}."),
            _ => format!("There are no keys {names}."),
        };
        return Err(Failure::new(Kind::NotFound, message)
            .hint("See which keys there are: swarmkv ls --keys-only"));
    }
    if out.is_json() {
        let deleted: Vec<_> =
            deleted.iter().map(|(key, version)| json!({"key": key, "version": version})).collect();
        return out.json(&json!({"deleted": deleted, "missing": missing}));
    }
    for name in names {
        out.talk(format!("note: there was no key {name}"));
    }
    Ok(())
}
