//! `swarmkv get`: the bytes of a key's value, and what is known about it.

use serde_json::json;
use swarmkv_node::api::wire::{Data, GetAnswer, GetRequest, Sibling};

use crate::args::Get;
use crate::client::Peer;
use crate::error::{Failure, Kind};
use crate::output::Output;
use crate::settings::Settings;
use crate::{parse, text};

/// Reads.
pub async fn run(args: Get, settings: &Settings, out: Output) -> Result<(), Failure> {
    let key = parse::key(&args.key, args.key_base64)?;
    let request = GetRequest { key: key.clone(), at_least: args.at_least, timeout_ms: 0 };
    let answer = Peer::connect(settings).await?.get(request).await?;
    if args.siblings && answer.siblings.iter().any(|sibling| sibling.value.is_some()) {
        return print_siblings(&key, &answer, out);
    }
    let Some(value) = &answer.value else { return Err(not_found(&key, &answer)) };
    if args.meta {
        print_meta(&key, value, &answer, out)?;
    } else if out.is_json() {
        out.json(&json!({"key": key, "value": value, "siblings": answer.siblings}))?;
    } else {
        out.value(&value.0)?;
    }
    let others = values(&answer).saturating_sub(1) as u64;
    if others > 0 {
        let noun = text::plural(others, "other concurrent value");
        let key = text::escaped(&key.0);
        out.talk(format!("note: {noun}: swarmkv get --siblings {key}"));
    }
    Ok(())
}

/// Values that can be shown.
fn values(answer: &GetAnswer) -> usize {
    answer.siblings.iter().filter(|sibling| sibling.is_live()).count()
}

fn not_found(key: &Data, answer: &GetAnswer) -> Failure {
    let name = text::escaped(&key.0);
    let failure = Failure::new(Kind::NotFound, format!("There is no key \"{name}\"."));
    let expired = answer.siblings.first().is_some_and(Sibling::expired);
    if expired {
        failure.hint("Its value has expired.")
    } else {
        failure.hint("See which keys there are: swarmkv ls --keys-only")
    }
}

fn print_siblings(key: &Data, answer: &GetAnswer, out: Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&json!({
            "key": key, "value": answer.value, "siblings": answer.siblings,
        }));
    }
    let mut lines = Vec::new();
    for (i, sibling) in answer.siblings.iter().enumerate() {
        let state = match &sibling.value {
            None => "deleted",
            Some(_) if sibling.expired() => "expired",
            Some(_) if i == 0 && answer.value.is_some() => "shown",
            Some(_) => "other",
        };
        let written = text::utc(sibling.written_at);
        let head = format!("{state}\t{}\t{written}\t", text::escaped(sibling.author.as_bytes()));
        lines.extend_from_slice(head.as_bytes());
        if let Some(value) = &sibling.value {
            lines.extend_from_slice(&out.in_line(&value.0));
        }
        lines.push(b'\n');
    }
    out.data(&lines)
}

fn print_meta(key: &Data, value: &Data, answer: &GetAnswer, out: Output) -> Result<(), Failure> {
    let Some(shown) = answer.siblings.first() else {
        return Err(Failure::failed("the running peer's answer names no write"));
    };
    let Sibling { version, author, author_id, written_at, expires_at, .. } = shown;
    let (size, siblings) = (value.0.len(), values(answer));
    if out.is_json() {
        return out.json(&json!({
            "key": key, "size": size, "siblings": siblings, "version": version, "author": author,
            "author_id": author_id, "written_at": written_at, "expires_at": expires_at,
        }));
    }
    out.line(&format!("size      {size}"))?;
    out.line(&format!("siblings  {siblings}"))?;
    out.line(&format!("author    {} ({author_id})", text::escaped(author.as_bytes())))?;
    out.line(&format!("written   {}", text::utc(*written_at)))?;
    if let Some(at) = expires_at {
        out.line(&format!("expires   {}", text::utc(*at)))?;
    }
    out.line(&format!("version   {version}"))
}
