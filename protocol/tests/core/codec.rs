//! Every wire type comes back as it went, and nothing but its one canonical form is taken.

use proptest::prelude::*;
use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::commit::Header;
use swarmkv_protocol::digest::{DigestKey, Entry};
use swarmkv_protocol::id::{DeviceId, Hash, Hash8, LogId, SwarmId, Version};
use swarmkv_protocol::live_set::{Block, Named, Range};
use swarmkv_protocol::message::{
    self, Ask, Completeness, Digest, Gossip, Names, Plan, Planned, Repair, SlotRecord, Start,
    Statements, Sums, Then,
};
use swarmkv_protocol::model::cell::{Cell, Tag};
use swarmkv_protocol::model::counter::{Amount, Part};
use swarmkv_protocol::op::{Body, Op, Until, index_key_of};
use swarmkv_protocol::roster::{Grant, Role, Statement, StatementBody};
use swarmkv_protocol::ticket::{
    Introduce, JoinAnswer, JoinRequest, Redeem, Refusal, Ticket, UsedBy, Welcome,
};
use swarmkv_protocol::time::Hlc;

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes)
}

fn log() -> impl Strategy<Value = LogId> {
    (any::<[u8; 32]>(), any::<u64>(), any::<u16>()).prop_map(|(author, epoch, shard)| LogId {
        author: DeviceId::new(author),
        epoch,
        shard,
    })
}

fn version() -> impl Strategy<Value = Version> {
    (log(), any::<u64>(), any::<[u8; 8]>()).prop_map(|(log, seq, hash)| Version {
        log,
        seq,
        hash: Hash8::new(hash),
    })
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let amount = || any::<u128>().prop_map(|n| Amount(n >> 32));
    let part = (log(), any::<u64>(), amount(), amount())
        .prop_map(|(log, first_seq, up, down)| Part { log, first_seq, up, down });
    prop::collection::vec(part, 0..4)
}

fn cell() -> impl Strategy<Value = Cell> {
    (bytes(), 0..4u8, bytes()).prop_map(|(key, tag, field)| {
        let tag = Tag::from_number(tag).expect("one of four");
        Cell { key, tag, field: tag.has_field().then_some(field) }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let versions = || prop::collection::vec(version(), 0..4);
    let body = prop_oneof![
        bytes().prop_map(Body::Put),
        Just(Body::Delete),
        parts().prop_map(Body::Counter),
        (any::<Option<u64>>(), versions())
            .prop_map(|(at, governs)| Body::Until(Until { at, governs })),
        Just(Body::Element),
        versions().prop_map(Body::Forget),
    ];
    (cell(), body, versions(), parts(), any::<Option<u64>>())
        .prop_map(|(cell, body, ctx, took, expires_at)| Op { cell, body, ctx, took, expires_at })
}

fn header() -> impl Strategy<Value = Header> {
    let numbers = any::<([u8; 32], u64, u32, u64, u64, u64)>();
    (log(), numbers, any::<u64>()).prop_map(|(log, n, counted_from)| Header {
        version: 1,
        swarm: SwarmId::new(n.0),
        grant: Hash::new(n.0),
        log,
        last_seq: n.1,
        count: n.2,
        hlc: Hlc(n.3),
        prev: Hash::new(n.0),
        ops_hash: Hash::new(n.0),
        live_root: Hash::new(n.0),
        live_count: n.4,
        live_bytes: n.5,
        roster: Hash::new(n.0),
        counted_from,
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    (version(), any::<u64>(), any::<bool>()).prop_map(|(v, staged, refused)| Entry {
        log: v.log,
        seq: v.seq,
        head: v.hash,
        staged,
        refused: refused.then_some(v.hash),
        compare: staged % 2 == 0,
    })
}

fn named() -> impl Strategy<Value = Named> {
    any::<(u64, [u8; 8])>().prop_map(|(seq, name)| Named { seq, name: Hash8::new(name) })
}

fn repair() -> impl Strategy<Value = Repair> {
    let names = || prop::collection::vec(any::<[u8; 8]>().prop_map(Hash8::new), 0..4);
    let statements = || prop::collection::vec(bytes(), 0..4);
    let record = (any::<(u64, u64)>(), bytes()).prop_map(|((seq, hlc), op)| SlotRecord {
        seq,
        hlc: Hlc(hlc),
        op,
    });
    let planned = (log(), any::<[u8; 32]>(), any::<(u64, u64)>())
        .prop_map(|(log, head, (seq, slots))| Planned { log, seq, head: Hash::new(head), slots });
    let complete = || any::<bool>().prop_map(Completeness::from);
    let then = prop_oneof![Just(Then::More), Just(Then::Send), Just(Then::Wait)];
    prop_oneof![
        any::<[u8; 32]>().prop_map(|h| Repair::Hello(Hash::new(h))),
        complete().prop_map(Repair::Same),
        any::<[u8; 32]>().prop_map(|h| Repair::Differs(Hash::new(h))),
        names().prop_map(Repair::Roster),
        (statements(), names())
            .prop_map(|(missing, names)| Repair::Statements(Statements { missing, names })),
        (
            statements(),
            any::<([u8; 16], u64, u64)>(),
            prop::collection::vec(entry(), 0..4),
            prop::collection::vec(log(), 0..3),
            then
        )
            .prop_map(|(statements, (key, number, since), entries, only, then)| {
                let key = DigestKey(key);
                Repair::Digest(Digest { statements, key, number, since, entries, only, then })
            }),
        Just(Repair::TellAll),
        (complete(), prop::collection::vec(planned, 0..4))
            .prop_map(|(complete, logs)| Repair::Plan(Plan { complete, logs })),
        prop::collection::vec(any::<u32>(), 0..4).prop_map(Repair::Except),
        (version(), any::<bool>(), bytes()).prop_map(|(v, linked, header)| {
            let (log, base, from, compare) = (v.log, v.hash, v.seq, v.seq % 2 == 0);
            Repair::Start(Start { log, base, linked, from, compare, header })
        }),
        (prop::collection::vec(named(), 0..4), any::<bool>()).prop_map(|(named, last)| {
            let block = |n: &Named| Block { upto: n.seq, sum: n.name };
            Repair::Sums(Sums { blocks: named.iter().map(block).collect(), last })
        }),
        prop::collection::vec(any::<(u64, u64)>(), 0..4).prop_map(|pairs| {
            let wanted = pairs.iter().map(|pair| pair.0).collect();
            let ranges = pairs.into_iter().map(|(after, upto)| Range { after, upto }).collect();
            Repair::Ask(Ask { wanted, ranges })
        }),
        (prop::collection::vec(named(), 0..4), any::<u64>())
            .prop_map(|(names, upto)| Repair::Names(Names { names, upto })),
        prop::collection::vec(record, 0..4).prop_map(Repair::Slots),
        bytes().prop_map(Repair::End),
        Just(Repair::Done),
    ]
}

fn device() -> impl Strategy<Value = DeviceId> {
    any::<[u8; 32]>().prop_map(DeviceId::new)
}

fn join() -> impl Strategy<Value = (JoinRequest, JoinAnswer)> {
    (device(), bytes(), any::<u64>(), 0..7).prop_map(|(device, raw, at, pick)| {
        let label = format!("label {at}");
        let request = if at % 2 == 0 {
            let (ticket, proof) = (Hash8::new([1; 8]), Hash::new([2; 32]));
            JoinRequest::Redeem(Redeem { ticket, proof, label: label.clone() })
        } else {
            let swarm = SwarmId::new([3; 32]);
            JoinRequest::Introduce(Introduce { swarm, statements: vec![raw.clone()] })
        };
        let answer = match pick {
            0 => JoinAnswer::Welcome(Welcome { genesis: raw.clone(), statements: vec![raw] }),
            1 => JoinAnswer::Introduced(vec![raw]),
            2 => JoinAnswer::Refused(Refusal::Used(UsedBy { device, label, at })),
            3 => JoinAnswer::Refused(Refusal::Expired),
            4 => JoinAnswer::Refused(Refusal::UnknownTicket),
            5 => JoinAnswer::Refused(Refusal::Unable),
            _ => JoinAnswer::Refused(Refusal::NotAMember),
        };
        (request, answer)
    })
}

fn comes_back<T>(value: &T) -> Result<(), TestCaseError>
where
    T: serde::Serialize + for<'a> serde::Deserialize<'a> + PartialEq + std::fmt::Debug,
{
    let bytes = codec::encode(value);
    let back = codec::decode::<T>(&bytes);
    prop_assert_eq!(back.as_ref(), Ok(value));
    for cut in 0..bytes.len() {
        prop_assert!(codec::decode::<T>(&bytes[..cut]).is_err());
    }
    let mut longer = bytes;
    longer.push(0);
    prop_assert!(codec::decode::<T>(&longer).is_err());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn operations_headers_and_entries_come_back(op in op(), header in header(), entry in entry()) {
        prop_assert_eq!(Op::read(&codec::encode(&op)), Ok(op));
        comes_back(&header)?;
        comes_back(&entry)?;
    }

    #[test]
    fn repair_messages_come_back(repair in repair()) {
        comes_back(&repair)?;
    }

    #[test]
    fn gossip_comes_back(raw in bytes()) {
        comes_back(&Gossip::Commit(raw.clone()))?;
        comes_back(&Gossip::Announce(raw.clone()))?;
        comes_back(&Gossip::Statement(raw))?;
    }

    #[test]
    fn join_messages_come_back((request, answer) in join()) {
        comes_back(&request)?;
        comes_back(&answer)?;
    }

    #[test]
    fn statements_and_tickets_come_back(device in device(), raw in bytes(), at in any::<u64>()) {
        let grant = Grant {
            device,
            label: "label".into(),
            role: Role::Writer,
            prefix: raw.clone(),
            max_bytes: Some(at),
        };
        comes_back(&Statement {
            version: 1,
            swarm: SwarmId::new([1; 32]),
            issuer: device,
            number: at,
            prev: Hash::new([2; 32]),
            body: StatementBody::Grant(grant),
        })?;
        let ticket = Ticket {
            version: 1,
            swarm: SwarmId::new([1; 32]),
            inviter: device,
            addrs: vec!["/ip4/192.0.2.7/udp/4001/quic-v1".into()],
            secret: raw,
            expires_at: at,
        };
        comes_back(&ticket)?;
        prop_assert_eq!(Ticket::parse(&ticket.to_text()), Ok(ticket));
    }

    #[test]
    fn any_bytes_are_refused_or_canonical(raw in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(repair) = codec::decode::<Repair>(&raw) {
            prop_assert_eq!(codec::encode(&repair), raw.clone());
        }
        if let Ok(op) = Op::read(&raw) {
            prop_assert_eq!(codec::encode(&op), raw);
        }
    }
}

/// A delete of the value of "k" that has seen nothing: key, tag, field, body, content, context, taken parts,
/// expiry.
const OP: [u8; 10] = [0x88, 0x41, 0x6b, 0x00, 0xf6, 0x01, 0x40, 0x80, 0x80, 0xf6];

/// [`OP`] with some bytes in place of others.
fn with(at: std::ops::Range<usize>, bytes: &[u8]) -> Vec<u8> {
    [&OP[..at.start], bytes, &OP[at.end..]].concat()
}

#[test]
fn no_hostile_form_of_an_operation_is_taken() {
    assert!(Op::read(&OP).is_ok(), "the base of the vectors is canonical");
    let vectors = [
        ("empty", Vec::new()),
        ("indefinite array", [&with(0..1, &[0x9f])[..], &[0xff]].concat()),
        ("indefinite bytes", with(1..3, &[0x5f, 0x41, 0x6b, 0xff])),
        ("indefinite inner array", with(7..8, &[0x9f, 0xff])),
        ("long array length", with(0..1, &[0x98, 0x08])),
        ("long bytes length", with(1..3, &[0x58, 0x01, 0x6b])),
        ("long number", with(5..6, &[0x18, 0x01])),
        ("body by name", with(5..6, &[0x66, b'D', b'e', b'l', b'e', b't', b'e'])),
        ("array for bytes", with(1..3, &[0x81, 0x18, 0x6b])),
        ("text for bytes", with(1..3, &[0x61, 0x6b])),
        ("tag", with(0..1, &[0xc0, 0x88])),
        ("tag inside", with(1..1, &[0xc0])),
        ("trailing byte", with(10..10, &[0x00])),
        ("one field too few", [&[0x87], &OP[1..9]].concat()),
        ("one field too many", [&[0x89], &OP[1..], &[0xf6]].concat()),
        ("undefined for none", with(9..10, &[0xf7])),
        ("float for integer", with(5..6, &[0xf9, 0x3c, 0x00])),
        ("content of a delete", with(6..7, &[0x41, 0x00])),
        ("parts that are none", with(5..7, &[0x02, 0x41, 0x00])),
        ("parts not canonical", with(5..7, &[0x02, 0x42, 0x98, 0x00])),
    ];
    for (name, bytes) in vectors {
        let bad = Op::read(&bytes).expect_err(name);
        assert!(bad.by_all(), "{name}: {bad}");
    }
}

#[test]
fn what_a_later_version_may_write_is_no_fault() {
    for (name, bytes) in
        [("kind of cell", with(3..4, &[0x04])), ("kind of write", with(5..6, &[0x06]))]
    {
        let bad = Op::read(&bytes).expect_err(name);
        assert!(!bad.by_all(), "{name}: {bad}");
    }
}

#[test]
fn giant_lengths_are_refused_without_room_being_made() {
    let giant = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    for head in [0x5b, 0x7b, 0x9b, 0xbb] {
        for len in [8, 4] {
            // Lengths of 2^64 - 1, and of 2^60 and less; one that was believed would abort the process.
            let mut bytes = vec![head];
            bytes.extend(if len == 8 { giant } else { [0x0f, 0xff, 0, 0, 0, 0, 0, 0] });
            assert!(codec::decode::<Bytes>(&bytes).is_err());
            assert!(codec::decode::<Vec<Bytes>>(&bytes).is_err());
            let mut message = vec![1, 0xa1, 0x03];
            message.extend(&bytes);
            assert!(message::decode::<Repair>(&message).is_err());
        }
    }
}

#[test]
fn depth_is_bounded() {
    for open in [0x81, 0xa1, 0xc1, 0x9f, 0xbf] {
        let bytes = vec![open; 1_000];
        assert!(Op::read(&bytes).is_err());
        assert!(codec::decode::<Repair>(&bytes).is_err());
        let mut message = vec![1];
        message.extend(vec![open; 100_000]);
        assert!(message::decode::<Gossip>(&message).is_err());
    }
}

#[test]
fn another_version_is_told_apart_from_garbage() {
    let mut message = message::encode(&Repair::Done);
    message[0] = 2;
    assert_eq!(message::decode::<Repair>(&message), Err(message::BadMessage::Version(2)));
    assert_eq!(message::decode::<Repair>(&[]), Err(message::BadMessage::Empty));
}

#[test]
fn the_cell_of_an_encoded_operation_is_found_without_decoding_it() {
    for len in [0, 1, 23, 24, 255, 256, 1024] {
        for (tag, field) in [(Tag::Value, None), (Tag::Map, Some(Bytes(vec![0; len])))] {
            let cell = Cell { key: Bytes(vec![b'k'; len]), tag, field };
            let body = Body::Delete;
            let op = Op { cell, body, ctx: Vec::new(), took: Vec::new(), expires_at: None };
            let bytes = codec::encode(&op);
            assert_eq!(index_key_of(&bytes), Some(op.cell.index_key()), "{len} bytes");
            assert_eq!(index_key_of(&bytes[..=len]), None);
        }
    }
    assert_eq!(index_key_of(&[]), None);
}
