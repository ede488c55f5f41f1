//! `swarmkv put`: one key, one value, on this device's disk when it returns.

use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use serde_json::json;
use swarmkv_node::api::wire::{Data, WriteOp};
use swarmkv_node::protocol::limits::MAX_VALUE;

use super::input::read_up_to;
use crate::args::Put;
use crate::client::{Peer, millis, now};
use crate::error::Failure;
use crate::output::Output;
use crate::settings::Settings;
use crate::{parse, text};

/// Writes.
pub async fn run(args: Put, settings: &Settings, out: Output) -> Result<(), Failure> {
    let key = parse::key(&args.key, args.key_base64)?;
    let print_version = args.print_version;
    let op = WriteOp {
        key: key.clone(),
        expires_at: args.ttl.map(|ttl| now().saturating_add(millis(ttl))),
        if_absent: args.if_absent,
        if_version: Some(args.if_version.clone()).filter(|versions| !versions.is_empty()),
        value: Some(Data(value(args)?)),
    };
    let version = Peer::connect(settings).await?.write_one(op).await?;
    if out.is_json() {
        return out.json(&json!({"key": key, "version": version}));
    }
    if print_version { out.line(&version) } else { Ok(()) }
}

/// The value's bytes, from where the arguments say. Nothing is guessed.
fn value(args: Put) -> Result<Vec<u8>, Failure> {
    let value = match (args.value, args.file) {
        (_, Some(path)) => read_up_to(&path, MAX_VALUE)?,
        (Some(value), None) if value == "-" => read_up_to(Path::new("-"), MAX_VALUE)?,
        (Some(value), None) => value.into_vec(),
        (None, None) => {
            return Err(Failure::usage("No value was given.")
                .hint("Give VALUE, --file PATH, or - for standard input. An empty value is: ''"));
        }
    };
    if value.len() > MAX_VALUE {
        let most = text::count(MAX_VALUE as u64);
        return Err(Failure::usage(format!("The value is too large: at most {most} bytes fit."))
            .hint("Split it over several keys."));
    }
    Ok(value)
}
