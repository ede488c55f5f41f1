//! Reading JSON lines and packing them into batches that the peer takes at once.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::{Deserialize, Deserializer};
use swarmkv_node::api::wire::{Data, WriteOp};
use swarmkv_node::protocol::limits::{GROUP_BYTES, GROUP_OPS, MAX_KEY, MAX_VALUE};
use tokio::sync::mpsc::Sender;

use crate::commands::input::is_stdin;
use crate::error::{Failure, Kind};

/// Longest line: every byte of the largest entry as a six-character escape, and the frame around it.
const MAX_LINE: usize = 6 * (MAX_KEY + MAX_VALUE) + 256;
/// Bytes that an operation takes beyond its key and value, about.
const OP_FRAME: usize = 64;

/// Where lines come from.
pub type Source = Box<dyn BufRead + Send>;

/// What the reader hands on, in the order of the lines.
pub enum Item {
    /// Lines to write.
    Batch(Batch),
    /// A line that cannot be used, or the end of a stream that broke; nothing follows.
    Wrong(Failure),
}

/// Operations of neighbouring lines; each key at most once.
pub struct Batch {
    /// The operations.
    pub ops: Vec<WriteOp>,
    /// Number of the first line, from 1.
    pub first: u64,
    /// Number of the last line.
    pub last: u64,
    /// Bytes read up to the end of the last line.
    pub end: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: Data,
    #[serde(deserialize_with = "given")]
    value: Option<Data>,
    #[serde(default)]
    expires_at: Option<u64>,
}

/// A value that may be null but must be there: leaving it out must not delete a key.
fn given<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Data>, D::Error> {
    Option::deserialize(d)
}

/// Opens a file or standard input; also answers its size if it has one.
pub fn open(path: &Path) -> Result<(Source, Option<u64>), Failure> {
    if is_stdin(path) {
        return Ok((Box::new(BufReader::new(std::io::stdin())), None));
    }
    let file = File::open(path).map_err(|e| Failure::io(path.display(), &e))?;
    let size = file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
    Ok((Box::new(BufReader::with_capacity(128 * 1024, file)), size))
}

/// Reads all lines and sends them on in batches. Returns early when nobody listens any more.
pub fn read(mut source: Source, to: &Sender<Item>) {
    let mut packer = Packer {
        to,
        ops: Vec::new(),
        keys: BTreeSet::new(),
        bytes: 0,
        first: 0,
        at: Place::default(),
    };
    let outcome = read_lines(&mut source, &mut packer);
    if packer.flush().is_some()
        && let Err(failure) = outcome
    {
        let _ = to.blocking_send(Item::Wrong(failure));
    }
}

fn read_lines(source: &mut Source, packer: &mut Packer<'_>) -> Result<(), Failure> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = source.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line);
        let read = read.map_err(|e| {
            Failure::new(Kind::Interrupted, format!("The input broke off in line {number}: {e}."))
        })?;
        if read == 0 {
            break;
        }
        if read == MAX_LINE && !line.ends_with(b"\n") {
            return Err(wrong(number, "it is longer than any entry can be"));
        }
        let place = Place { line: number, end: packer.at.end + read as u64 };
        let sent = match parse(&line, number)? {
            Some(op) => packer.push(op, place),
            None => {
                packer.at.end = place.end;
                Some(())
            }
        };
        if sent.is_none() {
            break;
        }
    }
    Ok(())
}

/// Reads one line; `None` if it is blank.
fn parse(line: &[u8], number: u64) -> Result<Option<WriteOp>, Failure> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let Line { key, value, expires_at } = serde_json::from_slice(line).map_err(|e| {
        let text = e.to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        wrong(number, &format!("{text} (column {})", e.column()))
    })?;
    let (key_len, value_len) = (key.0.len(), value.as_ref().map_or(0, |value| value.0.len()));
    if key_len == 0 || key_len > MAX_KEY {
        return Err(wrong(number, &format!("its key has {key_len} bytes, not 1 to {MAX_KEY}")));
    }
    if value_len > MAX_VALUE {
        return Err(wrong(number, &format!("its value has {value_len} bytes, over {MAX_VALUE}")));
    }
    Ok(Some(WriteOp { key, value, expires_at, if_absent: false, if_version: None }))
}

fn wrong(number: u64, why: &str) -> Failure {
    Failure::failed(format!("Line {number} cannot be used: {why}.")).hint(
        "A line is {\"key\": K, \"value\": V}; V is null to delete. See: swarmkv import --help",
    )
}

/// A place in the input.
#[derive(Clone, Copy, Default)]
struct Place {
    line: u64,
    end: u64,
}

struct Packer<'a> {
    to: &'a Sender<Item>,
    ops: Vec<WriteOp>,
    keys: BTreeSet<Data>,
    bytes: usize,
    /// Line of the first operation packed.
    first: u64,
    at: Place,
}

impl Packer<'_> {
    /// Adds an operation. `None`: nobody listens any more.
    fn push(&mut self, op: WriteOp, place: Place) -> Option<()> {
        let bytes = op.key.0.len() + op.value.as_ref().map_or(0, |v| v.0.len()) + OP_FRAME;
        let full = self.ops.len() >= GROUP_OPS || self.bytes + bytes > GROUP_BYTES;
        if full || self.keys.contains(&op.key) {
            self.flush()?;
        }
        if self.ops.is_empty() {
            self.first = place.line;
        }
        self.keys.insert(op.key.clone());
        self.ops.push(op);
        self.bytes += bytes;
        self.at = place;
        Some(())
    }

    /// Sends what is packed. `None`: nobody listens any more.
    fn flush(&mut self) -> Option<()> {
        if self.ops.is_empty() {
            return Some(());
        }
        let ops = std::mem::take(&mut self.ops);
        let Place { line: last, end } = self.at;
        self.keys.clear();
        self.bytes = 0;
        let first = self.first;
        self.to.blocking_send(Item::Batch(Batch { ops, first, last, end })).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::channel;

    fn batches(input: &str) -> (Vec<Batch>, Option<Failure>) {
        let (tx, mut rx) = channel(1000);
        read(Box::new(std::io::Cursor::new(input.to_owned().into_bytes())), &tx);
        drop(tx);
        let (mut batches, mut failure) = (Vec::new(), None);
        while let Ok(item) = rx.try_recv() {
            match item {
                Item::Batch(batch) => batches.push(batch),
                Item::Wrong(wrong) => failure = Some(wrong),
            }
        }
        (batches, failure)
    }

    #[test]
    fn a_batch_holds_a_key_once_so_that_the_last_line_wins() {
        let (batches, failure) = batches(
            "{\"key\":\"a\",\"value\":\"1\"}\n\n{\"key\":\"b\",\"value\":null}\r\n{\"key\":\"a\",\"value\":\"2\"}",
        );
        let shape: Vec<_> = batches.iter().map(|b| (b.ops.len(), b.first, b.last)).collect();
        assert_eq!((shape, failure), (vec![(2, 1, 3), (1, 4, 4)], None));
    }

    #[test]
    fn batches_stay_within_what_one_commit_takes() {
        let line =
            |i: usize| format!("{{\"key\":\"k{i}\",\"value\":\"{}\"}}\n", "v".repeat(i % 400));
        let (batches, _) = batches(&(0..2000).map(line).collect::<String>());
        assert_eq!(batches.iter().map(|b| b.ops.len()).sum::<usize>(), 2000);
        assert!(batches.iter().all(|b| b.ops.len() <= GROUP_OPS));
        assert!(batches.windows(2).all(|pair| pair[0].last + 1 == pair[1].first));
    }

    #[test]
    fn a_wrong_line_is_named_and_what_stands_before_it_is_kept() {
        for (wrong, why) in [
            ("{\"key\":\"b\"}", "missing field `value`"),
            ("{\"key\":\"\",\"value\":\"\"}", "0 bytes"),
            ("{\"key\":\"b\",\"value\":1}", "did not match"),
            ("{\"key\":\"b\",\"value\":\"\",\"ttl\":1}", "unknown field"),
            ("nonsense", "expected"),
        ] {
            let text = format!("{{\"key\":\"a\",\"value\":\"1\"}}\n{wrong}\n");
            let (batches, failure) = batches(&text);
            let message = failure.unwrap().message;
            assert_eq!(batches.len(), 1);
            assert!(message.contains("Line 2") && message.contains(why), "{message}");
        }
    }
}
