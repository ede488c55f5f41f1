//! Golden vectors: fixed keys give exactly these bytes, for ever. A difference is a break of the wire
//! format and needs a new protocol version.
//!
//! `SWARMKV_WIRE_REGENERATE=1 cargo test -p swarmkv-tests --test wire` writes the files anew.

use std::fmt::Write as _;
use std::path::Path;

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::commit::{self, Header, SignedCommit};
use swarmkv_protocol::crypto::{self, DeviceKey, Domain};
use swarmkv_protocol::digest::{self, Entry};
use swarmkv_protocol::id::{Hash, Hash8, LogId, SwarmId, Version};
use swarmkv_protocol::limits::VERSION;
use swarmkv_protocol::live_root::Totals;
use swarmkv_protocol::message::{self, Gossip, Repair};
use swarmkv_protocol::op::{Body, Counter, Op, Slot};
use swarmkv_protocol::roster::{Grant, Role, Roster};
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
    LogId { author: key(2).id(), epoch: 0x0102_0304, shard: 0 }
}

fn ops() -> Vec<Op> {
    let other = LogId { author: key(1).id(), epoch: 7, shard: 0 };
    let named = Version { log: other, seq: 5, hash: Hash8::new([6; 8]) };
    let op =
        |body, ctx, expires_at| Op { key: b"notes/a".as_slice().into(), body, ctx, expires_at };
    vec![
        op(Body::Put(b"value".as_slice().into()), vec![named], Some(1_800_000_000_000)),
        op(Body::Delete, Vec::new(), None),
        op(Body::Counter(Counter { up: 300, down: 2 }), Vec::new(), None),
    ]
}

fn slots() -> Vec<Slot> {
    let slot = |(op, seq): (Op, u64)| {
        let size = codec::encode(&op).len();
        Slot { log: log(), seq, hlc: Hlc::at(1_700_000_000_000), op, size }
    };
    ops().into_iter().zip(8..).map(slot).collect()
}

/// A commit with every optional field of its header set.
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
        last_seq: 10,
        count: 3,
        hlc: Hlc::at(1_700_000_000_000),
        prev: Hash::new([4; 32]),
        ops_hash: crypto::hash(Domain::Ops, &[&sized]),
        live_root: totals.root(),
        live_count: totals.count(),
        live_bytes: totals.bytes(),
        retired: vec![(1, 3), (5, 6)],
        expired_upto: Some(1_600_000_000_000),
        closes: Some(Version { log: log(), seq: 9, hash: Hash8::new([8; 8]) }),
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
fn a_live_root_and_a_version_keep_their_values() {
    let mut totals = Totals::default();
    for slot in &slots() {
        totals.add(slot);
    }
    golden("live-root", &totals.root().to_string());
    golden("version", &slots()[0].version().to_string());
}

#[test]
fn a_digest_entry_and_a_state_hash_keep_their_values() {
    let entry =
        Entry { log: log(), seq: 10, head: Hash8::new([5; 8]), staged: 70_000, refused: None };
    golden("entry", &hex(&codec::encode(&entry)));
    let hash = digest::state_hash(&Hash::new([6; 32]), [entry].iter());
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
