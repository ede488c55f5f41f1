//! What everything received deserves: rejected is only what every honest node would reject whatever it
//! knows; all else is ignored or held, and nobody is blamed. One row a case, each through a whole engine.

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::commit::{self, Header, SignedHeader};
use swarmkv_protocol::crypto::{DeviceKey, Domain, Sig};
use swarmkv_protocol::id::{Hash, SwarmId};
use swarmkv_protocol::io::{Blame, Fault, Verdict};
use swarmkv_protocol::limits::{MAX_GOSSIP, VERSION};
use swarmkv_protocol::message::{self, Gossip};
use swarmkv_protocol::model::cell::Cell;
use swarmkv_protocol::op::{Body, Op};

use crate::swarm::{Swarm, key};

/// The author whose genuine commit is bent, who hands it on, and who judges.
const AUTHOR: usize = 1;
const SENDER: usize = 2;
const JUDGE: usize = 3;

/// A genuine commit of the author's, which nobody else has seen.
fn genuine(swarm: &mut Swarm) -> Vec<u8> {
    swarm.put(AUTHOR, "k", "value");
    swarm.nodes[AUTHOR].published.last().expect("just written").clone()
}

fn parts(swarm: &Swarm, message: &[u8]) -> (Bytes, Vec<Bytes>) {
    let Ok(Gossip::Commit(commit)) = message::decode(message) else { panic!("a small commit") };
    let swarm = swarm.nodes[JUDGE].engine.roster().swarm();
    commit::unpack(&commit, swarm).expect("header and operations")
}

fn commit(header: &[u8], ops: Vec<Bytes>) -> Vec<u8> {
    let commit = commit::pack(header, ops).expect("a header");
    message::encode(&Gossip::Commit(Bytes(commit)))
}

/// The author signs its commit again, otherwise.
fn signed_again(swarm: &Swarm, message: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let (header, ops) = parts(swarm, message);
    let mut claim = SignedHeader::decode(&header).expect("sound").claim().clone();
    change(&mut claim);
    let body = codec::encode(&claim);
    let sig = DeviceKey::from_seed(&key(AUTHOR)).sign(Domain::Commit, &body);
    commit(&codec::encode(&(Bytes(body), sig)), ops)
}

type Bend = fn(&mut Swarm, Vec<u8>) -> Vec<u8>;

/// Something handed over, and what it deserves.
type Row = (&'static str, Verdict, Bend);

/// What every honest node refuses, whatever it knows.
fn refused_by_all() -> Vec<Row> {
    use Verdict::Reject;
    vec![
        ("over the limit", Reject, |_, _| vec![VERSION; MAX_GOSSIP + 1]),
        ("nothing", Reject, |_, _| Vec::new()),
        ("no message", Reject, |_, _| vec![VERSION, 0x82, 0xff, 3]),
        ("of an unknown kind, and not whole", Reject, |_, _| {
            [&[VERSION], b"\xa1\x65Later\x42\x01".as_slice()].concat()
        }),
        ("of a known kind, and not of its form", Reject, |_, _| {
            [&[VERSION], b"\xa1\x66Commit\x01".as_slice()].concat()
        }),
        ("a byte after its end", Reject, |_, mut message| {
            message.push(0);
            message
        }),
        ("a number not in its shortest form", Reject, |_, message| {
            // The outermost map of one entry, its length in a byte of its own.
            [&[VERSION, 0xb8, 1], &message[2..]].concat()
        }),
        ("of another swarm", Reject, |swarm, message| {
            signed_again(swarm, &message, |header| header.swarm = SwarmId::new([1; 32]))
        }),
        ("another signature", Reject, |swarm, message| {
            let (header, ops) = parts(swarm, &message);
            let mut header = header.to_vec();
            *header.last_mut().expect("not empty") ^= 1;
            commit(&header, ops)
        }),
        ("signed by somebody else", Reject, |swarm, message| {
            let (header, ops) = parts(swarm, &message);
            let (body, _): (Bytes, Sig) = codec::decode(&header).expect("a sealed header");
            let sig = DeviceKey::from_seed(&swarm.nodes[SENDER].key).sign(Domain::Commit, &body);
            commit(&codec::encode(&(body, sig)), ops)
        }),
        ("other operations than the signed ones", Reject, |swarm, message| {
            let (header, _) = parts(swarm, &message);
            let op = Op {
                cell: Cell::value(b"k".as_slice()),
                took: Vec::new(),
                body: Body::Put(Bytes(b"false".to_vec())),
                ctx: Vec::new(),
                expires_at: None,
            };
            commit(&header, vec![Bytes(codec::encode(&op))])
        }),
        ("a number of operations that is not the signed one", Reject, |swarm, message| {
            let (header, mut ops) = parts(swarm, &message);
            ops.push(ops[0].clone());
            commit(&header, ops)
        }),
        ("under another device's grant", Reject, |swarm, message| {
            let owner = swarm.nodes[0].id;
            let grant = swarm.nodes[JUDGE].engine.roster().member(&owner).expect("the owner").grant;
            signed_again(swarm, &message, |header| header.grant = grant)
        }),
        ("sequence numbers that contradict each other", Reject, |swarm, message| {
            signed_again(swarm, &message, |header| header.count = 9)
        }),
    ]
}

/// What depends on what one knows, or is nobody's fault but its author's.
fn not_to_be_blamed() -> Vec<Row> {
    use Verdict::{Accept, Ignore};
    vec![
        ("genuine", Accept, |_, message| message),
        ("a newer message version", Ignore, |_, mut message| {
            message[0] = VERSION + 1;
            message
        }),
        ("a newer commit version", Ignore, |swarm, message| {
            signed_again(swarm, &message, |header| header.version = VERSION + 1)
        }),
        ("of an unknown kind, with content", Ignore, |_, _| {
            [&[VERSION], b"\xa1\x65Later\x41\x01".as_slice()].concat()
        }),
        ("of an unknown kind, without content", Ignore, |_, _| vec![VERSION, 7]),
        ("a newer header of another form", Ignore, |swarm, message| {
            let (header, _) = parts(swarm, &message);
            let (body, sig): (Bytes, Sig) = codec::decode(&header).expect("a sealed header");
            let mut body = body.to_vec();
            (body[0], body[1]) = (body[0] + 1, VERSION + 1);
            body.push(0);
            let header = Bytes(codec::encode(&(Bytes(body), sig)));
            message::encode(&Gossip::Announce(header))
        }),
        ("under a grant that is not known here", Ignore, |swarm, message| {
            signed_again(swarm, &message, |header| header.grant = Hash::new([7; 32]))
        }),
        ("stamped in the far future", Accept, |swarm, message| {
            signed_again(swarm, &message, |header| header.hlc.0 = u64::MAX >> 1)
        }),
        ("a live root that is wrong", Accept, |swarm, message| {
            signed_again(swarm, &message, |header| header.live_root = Hash::new([7; 32]))
        }),
        ("whose predecessor is missing", Accept, |swarm, _| {
            swarm.put(AUTHOR, "k", "next");
            swarm.nodes[AUTHOR].published.last().expect("just written").clone()
        }),
    ]
}

#[test]
fn each_row_gets_its_verdict_and_only_rejects_are_blamed() {
    for (name, due, bend) in refused_by_all().into_iter().chain(not_to_be_blamed()) {
        let mut swarm = Swarm::new(4);
        let message = genuine(&mut swarm);
        let bent = bend(&mut swarm, message);
        assert_eq!(swarm.hand_gossip(JUDGE, SENDER, bent), due, "{name}");
        let blamed = swarm.nodes[JUDGE].faults.iter().any(|fault| {
            matches!(fault, Fault::Peer { peer, blame: Blame::Sender, .. } if *peer == swarm.nodes[SENDER].id)
        });
        assert_eq!(blamed, due == Verdict::Reject, "{name}");
        // A stamp is part of what the live root covers: with another one the root is wrong.
        assert_eq!(swarm.get(JUDGE, "k").is_some(), name == "genuine", "{name}");
    }
}

#[test]
fn what_is_known_already_changes_nothing_and_blames_nobody() {
    let mut swarm = Swarm::new(4);
    let message = genuine(&mut swarm);
    assert_eq!(swarm.hand_gossip(JUDGE, SENDER, message.clone()), Verdict::Accept);
    let before = (swarm.nodes[JUDGE].engine.state_hash(), swarm.nodes[JUDGE].log.len());
    assert_eq!(swarm.hand_gossip(JUDGE, SENDER, message), Verdict::Ignore);
    let persisted = swarm.nodes[JUDGE].log.len() - before.1;
    assert_eq!(persisted, 1, "the verdict and nothing else");
    assert_eq!(swarm.nodes[JUDGE].engine.state_hash(), before.0);
    assert!(!swarm.damned());
}

#[test]
fn a_genuine_commit_is_taken_after_false_operations_came_under_its_header() {
    let mut swarm = Swarm::new(4);
    let message = genuine(&mut swarm);
    let (header, _) = parts(&swarm, &message);
    let op = Op {
        cell: Cell::value(b"k".as_slice()),
        body: Body::Delete,
        ctx: Vec::new(),
        took: Vec::new(),
        expires_at: None,
    };
    let bent = commit(&header, vec![Bytes(codec::encode(&op))]);
    assert_eq!(swarm.hand_gossip(JUDGE, SENDER, bent), Verdict::Reject);
    assert_eq!(swarm.hand_gossip(JUDGE, AUTHOR, message), Verdict::Accept);
    assert_eq!(swarm.get(JUDGE, "k").as_deref(), Some("value"));
}

#[test]
fn an_author_that_is_not_known_here_is_nobodys_fault() {
    let mut swarm = Swarm::new(4);
    let stranger = DeviceKey::from_seed(&[77; 32]).id();
    let message = genuine(&mut swarm);
    let bent = signed_again(&swarm, &message, |header| header.log.author = stranger);
    // The grant that it cites is the author's: it was given to another device.
    assert_eq!(swarm.hand_gossip(JUDGE, SENDER, bent), Verdict::Reject);
    let bent = signed_again(&swarm, &message, |header| {
        header.log.author = stranger;
        header.grant = Hash::new([3; 32]);
    });
    assert_eq!(swarm.hand_gossip(JUDGE, SENDER, bent), Verdict::Ignore);
}
