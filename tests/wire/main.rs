//! Golden vectors: fixed keys give exactly these bytes, for ever. A difference is a break of the wire
//! format and needs a new protocol version.
//!
//! `SWARMKV_WIRE_REGENERATE=1 cargo test -p swarmkv-tests --test wire` writes the files anew.

use std::fmt::Write as _;
use std::path::Path;

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::commit::{self, Header, SignedCommit};
use swarmkv_protocol::crypto::{self, DeviceKey, Domain};
use swarmkv_protocol::digest::{DigestKey, Entry};
use swarmkv_protocol::engine::Engine;
use swarmkv_protocol::id::{Hash, Hash8, LogId, SwarmId, Version};
use swarmkv_protocol::limits::VERSION;
use swarmkv_protocol::live_root::Totals;
use swarmkv_protocol::memory::MemoryStore;
use swarmkv_protocol::message::{self, Gossip, Repair};
use swarmkv_protocol::model::cell::{Cell, Tag};
use swarmkv_protocol::model::counter::{Amount, Part};
use swarmkv_protocol::op::{Body, Op, Slot, Until};
use swarmkv_protocol::roster::{Grant, Role, Roster};
use swarmkv_protocol::store::Recovered;
use swarmkv_protocol::ticket::Ticket;
use swarmkv_protocol::time::Hlc;

fn key(n: u8) -> DeviceKey {
    DeviceKey::from_seed(&[n; 32])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("strings take everything");
        text
    })
}

/// Compares with the file of that name, or writes it.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("wire").join(format!("{name}.txt"));
    if std::env::var_os("SWARMKV_WIRE_REGENERATE").is_some() {
        std::fs::write(&path, format!("{text}\n")).expect("the directory is ours");
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, stored.trim_end(), "{name} changed on the wire");
}

fn roster() -> (Roster, Bytes) {
    let mut roster = Roster::found(&key(1), "home", "owner", [3; 16]).expect("a valid genesis");
    let grant = Grant {
        device: key(2).id(),
        label: "laptop".into(),
        role: Role::Writer,
        prefix: b"notes/".as_slice().into(),
        max_bytes: Some(1 << 30),
    };
    let statement = roster.grant(&key(1), grant).expect("an owner grants");
    roster.insert(std::slice::from_ref(&statement));
    (roster, statement)
}

fn log() -> LogId {
    LogId { author: key(2).id(), epoch: 0x0102_0304_0506_0708, shard: 0 }
}

fn ops() -> Vec<Op> {
    let other = LogId { author: key(1).id(), epoch: 7, shard: 0 };
    let named = Version { log: other, seq: 5, hash: Hash8::new([6; 8]) };
    let part = Part { log: other, first_seq: 5, up: Amount(300), down: Amount(2) };
    let op = |tag: Tag, body, expires_at: Option<u64>| Op {
        cell: Cell {
            key: b"notes/a".as_slice().into(),
            tag,
            field: tag.has_field().then(|| b"field".as_slice().into()),
        },
        body,
        ctx: if expires_at.is_some() { vec![named] } else { Vec::new() },
        took: if expires_at.is_some() { vec![part] } else { Vec::new() },
        expires_at,
    };
    let until = Until { at: Some(1_800_000_000_000), governs: vec![named] };
    vec![
        op(Tag::Value, Body::Put(b"value".as_slice().into()), Some(1_800_000_000_000)),
        op(Tag::Value, Body::Delete, None),
        op(Tag::Value, Body::Counter(vec![part]), None),
        op(Tag::Map, Body::Put(b"value".as_slice().into()), None),
        op(Tag::Set, Body::Element, None),
        op(Tag::Ttl, Body::Until(until), None),
    ]
}

fn slots() -> Vec<Slot> {
    let slot = |(op, seq): (Op, u64)| {
        let size = codec::encode(&op).len();
        Slot { log: log(), seq, hlc: Hlc::at(1_700_000_000_000), op, size }
    };
    ops().into_iter().zip(8..).map(slot).collect()
}

/// A commit of one operation of each kind.
fn commit(roster: &Roster) -> Vec<u8> {
    let ops: Vec<Bytes> = ops().iter().map(|op| Bytes(codec::encode(op))).collect();
    let sized: Vec<u8> = ops
        .iter()
        .flat_map(|op| (op.len() as u64).to_be_bytes().into_iter().chain(op.iter().copied()))
        .collect();
    let mut totals = Totals::default();
    for slot in &slots() {
        totals.add(slot);
    }
    let header = Header {
        version: VERSION,
        swarm: roster.swarm(),
        grant: roster.member(&key(2).id()).expect("granted").grant,
        log: log(),
        last_seq: 13,
        count: 6,
        hlc: Hlc::at(1_700_000_000_000),
        prev: Hash::new([4; 32]),
        ops_hash: crypto::hash(Domain::Ops, &[&sized]),
        live_root: totals.root(),
        live_count: totals.count(),
        live_bytes: totals.bytes(),
        roster: roster.hash(),
        counted_from: 8,
    };
    let body = codec::encode(&header);
    let sig = key(2).sign(Domain::Commit, &body);
    let sealed = codec::encode(&(Bytes(body), sig));
    commit::pack(&sealed, ops).expect("a header")
}

#[test]
fn a_genesis_and_a_grant_keep_their_bytes() {
    let (roster, grant) = roster();
    golden("genesis", &hex(roster.genesis_bytes()));
    golden("swarm-id", &roster.swarm().to_string());
    golden("grant", &hex(&grant));
    golden("roster-hash", &roster.hash().to_string());
}

#[test]
fn a_commit_keeps_its_bytes_and_verifies() {
    let (roster, _) = roster();
    let bytes = commit(&roster);
    golden("commit", &hex(&bytes));
    golden("gossip-commit", &hex(&message::encode(&Gossip::Commit(Bytes(bytes.clone())))));
    let signed = SignedCommit::decode(&bytes, roster.swarm()).expect("in form");
    let verified = signed.verify(&roster).expect("genuine");
    golden("header-hash", &verified.header().hash().to_string());
}

#[test]
fn an_operation_laid_for_later_keeps_its_bytes_and_is_held() {
    let own = Version { log: log(), seq: 4, hash: Hash8::new([9; 8]) };
    let body = Body::Forget(vec![own]);
    let cell = Cell::value(b"notes/a".as_slice());
    let op = Op { cell, body, ctx: Vec::new(), took: Vec::new(), expires_at: None };
    let bytes = codec::encode(&op);
    golden("forget", &hex(&bytes));
    assert!(Op::decode(&log(), &bytes).is_err_and(|bad| !bad.by_all()));
}

#[test]
fn a_live_root_and_a_version_keep_their_values() {
    let mut totals = Totals::default();
    for slot in &slots() {
        totals.add(slot);
    }
    golden("live-root", &totals.root().to_string());
    golden("version", &slots()[0].version().to_string());
}

#[test]
fn a_digest_entry_a_shortened_head_and_a_state_hash_keep_their_values() {
    let entry = Entry {
        log: log(),
        seq: 10,
        head: Hash8::new([5; 8]),
        staged: 70_000,
        refused: None,
        compare: false,
    };
    golden("entry", &hex(&codec::encode(&entry)));
    let short = DigestKey([7; 16]).short(&Hash::new([6; 32]));
    golden("digest-head", &hex(short.as_bytes()));
    let (recovered, store) = (Recovered::default(), MemoryStore::default());
    let engine = Engine::open(key(2), roster().0, recovered, store, 0, false);
    let hash = engine.expect("memory is sound").state_hash();
    golden("state-hash", &hash.to_string());
    golden("repair-hello", &hex(&message::encode(&Repair::Hello(hash))));
    golden("repair-done", &hex(&message::encode(&Repair::Done)));
}

#[test]
fn a_ticket_keeps_its_text_and_its_words() {
    let ticket = Ticket {
        version: VERSION,
        swarm: SwarmId::new([1; 32]),
        inviter: key(1).id(),
        addrs: vec!["/ip4/192.0.2.1/tcp/4001".into()],
        secret: Bytes(vec![2; 16]),
        expires_at: 1_700_000_000_000,
    };
    golden("ticket", &ticket.to_text());
    golden("check-words", &ticket.check_words(&key(3).id()));
    golden("proof", &ticket.proof(&key(3).id()).to_string());
}
