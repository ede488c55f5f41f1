//! `swarmkv ls`: keys and values in order, page by page, whatever their number.

use swarmkv_node::api::wire::{Data, ListItem, ListRequest};

use serde_json::json;

use crate::args::Ls;
use crate::client::Peer;
use crate::error::{Failure, Kind};
use crate::output::{Output, aligned, push_json};
use crate::settings::Settings;
use crate::{parse, text};

/// Keys asked for at once.
const PAGE: usize = 500;
/// Widths of the columns of `--long` before the key: time, size, concurrent values, author.
const LONG: [usize; 4] = [20, 8, 8, 12];

/// Lists.
pub async fn run(args: Ls, settings: &Settings, out: Output) -> Result<(), Failure> {
    let mut request = ListRequest {
        prefix: parse::key(&args.prefix.clone().unwrap_or_default(), args.key_base64)?,
        keys_only: args.keys_only || (args.long && !out.is_json()),
        ..ListRequest::default()
    };
    if let Some(start) = &args.start {
        request.start = Some(parse::key(start, args.key_base64)?);
    }
    let mut left = args.limit.unwrap_or(usize::MAX);
    let mut peer = Peer::connect(settings).await?;
    if args.long && !out.is_json() {
        let heading = ["WRITTEN", "SIZE", "VALUES", "AUTHOR", "KEY"].map(str::to_owned);
        out.line(&out.heading(&aligned(&heading, &LONG)))?;
    }
    let mut begun = false;
    while left > 0 {
        request.limit = left.min(PAGE);
        let page = peer.list(&mut request).await.map_err(|e| broken_off(e, begun))?;
        begun = true;
        left -= page.items.len().min(left);
        out.data(&lines(&page.items, &args, out)?)?;
        let Some(next) = page.next else { break };
        request.after = Some(next);
    }
    Ok(())
}

/// A listing that stops after its begin is an interrupted stream: what was printed is not all.
fn broken_off(failure: Failure, begun: bool) -> Failure {
    if !begun {
        return failure;
    }
    Failure { kind: Kind::Interrupted, ..failure }
        .hint("What was printed is not all. List again, from the last key on with: --start KEY")
}

fn lines(items: &[ListItem], args: &Ls, out: Output) -> Result<Vec<u8>, Failure> {
    let mut lines = Vec::new();
    for item in items {
        if out.is_json() {
            push_item(&mut lines, item, args)?;
        } else if args.long {
            lines.extend_from_slice(long(item).as_bytes());
            lines.extend_from_slice(&out.in_line(&item.key.0));
            lines.push(b'\n');
        } else {
            lines.extend_from_slice(&out.in_line(&item.key.0));
            if let Some(Data(value)) = &item.value {
                lines.push(b'\t');
                lines.extend_from_slice(&out.in_line(value));
            }
            lines.push(b'\n');
        }
    }
    Ok(lines)
}

fn push_item(lines: &mut Vec<u8>, item: &ListItem, args: &Ls) -> Result<(), Failure> {
    let ListItem { key, value, expires_at, .. } = item;
    match (args.long, args.keys_only, expires_at) {
        (true, _, _) => push_json(lines, item),
        (_, true, _) => push_json(lines, &json!({"key": key})),
        (_, _, None) => push_json(lines, &json!({"key": key, "value": value})),
        (_, _, Some(at)) => {
            push_json(lines, &json!({"key": key, "value": value, "expires_at": at}))
        }
    }
}

/// A row of `--long` up to its last column.
fn long(item: &ListItem) -> String {
    let cells = [
        text::utc(item.written_at),
        text::size(item.size as u64),
        item.siblings.to_string(),
        text::escaped(item.author.as_bytes()),
        "|".to_owned(),
    ];
    let mut row = aligned(&cells, &LONG);
    row.pop();
    row
}
