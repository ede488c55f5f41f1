//! What a later version sends is held or passed over, and nobody is blamed for it: replicas of two versions go on
//! side by side, and the older one says that an upgrade would help.

use serde::Serialize;
use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::crypto::{self, DeviceKey, Domain, Sig};
use swarmkv_protocol::id::{DeviceId, Hash};
use swarmkv_protocol::io::{Input, LaterKind, Verdict};
use swarmkv_protocol::limits::VERSION;
use swarmkv_protocol::message::{self, Gossip, Repair};
use swarmkv_protocol::roster::{BadStatement, Grant, Role, Roster, Statement, StatementBody};

use crate::swarm::{Swarm, key};

/// What a statement of a later version says.
#[derive(Clone, Serialize)]
enum Says {
    Demote(DeviceId),
}

fn device(n: usize) -> DeviceKey {
    DeviceKey::from_seed(&key(n))
}

fn name(statement: &Bytes) -> Hash {
    crypto::hash(Domain::StatementName, &[statement])
}

fn named(statement: &Bytes) -> (Hash, Bytes) {
    (name(statement), statement.clone())
}

/// Signs a statement of any kind.
fn state<B: Serialize>(roster: &Roster, issuer: usize, number: u64, prev: Hash, says: B) -> Bytes {
    let key = device(issuer);
    let body = codec::encode(&(VERSION, roster.swarm(), key.id(), number, prev, says));
    let sig = key.sign(Domain::Statement, &body);
    Bytes(codec::encode(&(Bytes(body), sig)))
}

/// The next statement of an issuer after `prev`, of a kind that no build has.
fn unknown(roster: &Roster, issuer: usize, prev: Option<&Bytes>) -> Bytes {
    let number = prev.and_then(|prev| Statement::claim(prev)).map_or(1, |prev| prev.number + 1);
    state(roster, issuer, number, prev.map(name).unwrap_or_default(), Says::Demote(device(9).id()))
}

fn grant(n: usize, role: Role) -> Grant {
    Grant {
        device: device(n).id(),
        label: format!("device {n}"),
        role,
        prefix: Bytes::default(),
        max_bytes: None,
    }
}

fn issue(roster: &mut Roster, issuer: usize, n: usize, role: Role) -> Bytes {
    let bytes = roster.grant(&device(issuer), grant(n, role)).expect("may grant");
    assert_eq!(roster.insert(std::slice::from_ref(&bytes)).0.len(), 1);
    bytes
}

/// A grant by `issuer` in the place after `prev`, which this build does not understand.
fn grant_behind(roster: &Roster, issuer: usize, prev: (u64, &Bytes), n: usize) -> Bytes {
    state(roster, issuer, prev.0 + 1, name(prev.1), StatementBody::Grant(grant(n, Role::Writer)))
}

fn founded() -> Roster {
    Roster::found(&device(0), "home", "owner", [0; 16]).expect("a valid genesis")
}

fn is_member(roster: &Roster, n: usize) -> bool {
    roster.member(&device(n).id()).is_some()
}

/// An owner (0), an admin (1), a writer (2); then the owner states something unknown and admits 3.
fn ahead() -> (Roster, Vec<Bytes>) {
    let mut roster = founded();
    let mut all = vec![issue(&mut roster, 0, 1, Role::Admin)];
    all.push(issue(&mut roster, 0, 2, Role::Writer));
    all.push(unknown(&roster, 0, all.last()));
    all.push(grant_behind(&roster, 0, (3, &all[2]), 3));
    let (fresh, refused) = roster.insert(&all[2..]);
    assert_eq!((fresh.len(), refused), (2, Vec::new()));
    (roster, all)
}

#[test]
fn an_unknown_statement_and_what_is_behind_it_is_kept_and_changes_nothing() {
    let (roster, all) = ahead();
    assert!(is_member(&roster, 2) && !is_member(&roster, 3));
    assert_eq!(roster.members().count(), 3);
    assert_eq!(roster.beyond(&[]), all);
    assert_eq!(roster.names().len(), all.len(), "nobody sends it again");
    assert_eq!(roster.ahead().collect::<Vec<_>>(), [device(0).id()]);
    // What others state is judged as ever.
    let mut roster = roster;
    issue(&mut roster, 1, 4, Role::Writer);
    assert!(is_member(&roster, 4));
}

#[test]
fn what_is_behind_it_is_not_judged_by_this_versions_ranks() {
    let mut roster = founded();
    issue(&mut roster, 0, 1, Role::Admin);
    let first = unknown(&roster, 1, None);
    // An admin admits no admin, as far as this build knows.
    let second = state(&roster, 1, 2, name(&first), StatementBody::Grant(grant(5, Role::Admin)));
    let both = [second.clone(), first];
    assert_eq!(roster.insert(&both), (both.iter().rev().map(named).collect(), Vec::new()));
    assert!(!is_member(&roster, 5));
    // Without the other it is refused.
    let alone = state(&roster, 1, 1, Hash::default(), StatementBody::Grant(grant(5, Role::Admin)));
    assert_eq!(roster.insert(&[alone]).1, [BadStatement::Rank]);
}

#[test]
fn in_whatever_order_it_arrives_there_is_one_roster() {
    let (full, all) = ahead();
    for seed in 0..24_usize {
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.rotate_left(seed % 4);
        order.swap(seed / 4 % 4, seed / 8 % 4);
        let mut roster = Roster::open(full.genesis_bytes()).expect("same genesis");
        for _ in 0..all.len() {
            order.iter().for_each(|i| drop(roster.insert(&all[*i..=*i])));
        }
        assert_eq!(roster.hash(), full.hash(), "{order:?}");
        let mut kept = Roster::open(full.genesis_bytes()).expect("same genesis");
        kept.restore(&order.iter().map(|i| all[*i].clone()).collect::<Vec<_>>());
        assert_eq!(kept.hash(), full.hash(), "{order:?}");
    }
}

#[test]
fn headers_name_only_what_their_author_understands() {
    let (roster, all) = ahead();
    let mut before = Roster::open(roster.genesis_bytes()).expect("same genesis");
    before.insert(&all[..2]);
    assert_eq!(roster.counted_hash(), before.hash());
    assert_ne!(roster.hash(), before.hash());
    assert_eq!(before.counted_hash(), before.hash());
}

#[test]
fn a_device_states_nothing_behind_what_it_does_not_understand_itself() {
    let (roster, _) = ahead();
    let refused = roster.grant(&device(0), grant(5, Role::Writer));
    assert_eq!(refused, Err(BadStatement::Later));
    assert!(roster.grant(&device(1), grant(5, Role::Writer)).is_ok());
}

#[test]
fn a_revocation_leaves_what_it_does_not_understand_to_those_who_do() {
    let mut roster = founded();
    issue(&mut roster, 0, 1, Role::Admin);
    let first = unknown(&roster, 1, None);
    roster.insert(std::slice::from_ref(&first));
    let revoke = roster.revoke(&device(0), device(1).id(), Vec::new()).expect("an owner revokes");
    roster.insert(std::slice::from_ref(&revoke));
    assert!(!is_member(&roster, 1));
    assert!(roster.beyond(&[]).contains(&first), "it was stated before");
    let second = grant_behind(&roster, 1, (1, &first), 4);
    let (fresh, refused) = roster.insert(std::slice::from_ref(&second));
    assert_eq!((fresh.len(), refused), (0, vec![BadStatement::Void]), "it was stated after");
}

#[test]
fn whoever_can_only_leave_can_state_one_unknown_thing_and_still_leave() {
    let mut roster = founded();
    issue(&mut roster, 0, 2, Role::Writer);
    let first = unknown(&roster, 2, None);
    let second = state(&roster, 2, 2, name(&first), Says::Demote(device(9).id()));
    let (fresh, refused) = roster.insert(&[first.clone(), second]);
    assert_eq!((fresh.len(), refused), (1, vec![BadStatement::Void]));
    // Its leaving counts, whichever of the two has the lesser name.
    let mut other = Roster::open(roster.genesis_bytes()).expect("same genesis");
    issue(&mut other, 0, 2, Role::Writer);
    let leave = other.revoke(&device(2), device(2).id(), Vec::new()).expect("may leave");
    roster.insert(std::slice::from_ref(&leave));
    assert!(!is_member(&roster, 2));
    assert!(!roster.beyond(&[]).contains(&first));
}

#[test]
fn what_is_unknown_is_still_to_be_genuine() {
    let mut roster = founded();
    issue(&mut roster, 0, 1, Role::Admin);
    let genuine = unknown(&roster, 1, None);
    let mut refused = |bytes: Vec<u8>| roster.insert(&[Bytes(bytes)]).1.pop();
    let mut forged = genuine.to_vec();
    *forged.last_mut().expect("not empty") ^= 1;
    assert_eq!(refused(forged), Some(BadStatement::Signature));
    let mut other = Roster::found(&device(0), "home", "owner", [1; 16]).expect("valid");
    issue(&mut other, 0, 1, Role::Admin);
    assert_eq!(refused(unknown(&other, 1, None).to_vec()), Some(BadStatement::Swarm));
    // Of a known kind, and not of its form.
    let bent = state(&other, 1, 1, Hash::default(), ("Grant", 7));
    assert!(matches!(refused(bent.to_vec()), Some(BadStatement::Codec(_))));
    assert!(roster.insert(&[genuine]).1.is_empty());
}

#[test]
fn a_statement_of_a_later_version_is_passed_over_whatever_its_form() {
    let mut roster = founded();
    let key = device(0);
    let body = codec::encode(&(VERSION + 1, "quite", "another", "form", 1, 2, 3, 4));
    let sig = key.sign(Domain::Statement, &body);
    let statement = Bytes(codec::encode(&(Bytes(body), sig)));
    assert_eq!(roster.insert(&[statement]).1, [BadStatement::Version(VERSION + 1)]);
}

/// A swarm of four, whose owner states something unknown that only node 1 has heard of.
fn mixed() -> (Swarm, Bytes) {
    let mut swarm = Swarm::new(4);
    let roster = swarm.nodes[0].engine.roster().clone();
    let chain = roster.beyond(&[]);
    let statement = unknown(&roster, 0, chain.last());
    let message = message::encode(&Gossip::Statement(statement.clone()));
    assert_eq!(swarm.hand_gossip(1, 0, message), Verdict::Accept, "it is genuine: passed on");
    (swarm, statement)
}

#[test]
fn replicas_hand_on_what_they_do_not_understand_and_come_to_rest() {
    let (mut swarm, statement) = mixed();
    swarm.connect(1, 2);
    swarm.connect(2, 3);
    swarm.put(2, "k", "v");
    swarm.pass(60_000);
    for n in 1..4 {
        assert!(swarm.nodes[n].engine.roster().beyond(&[]).contains(&statement), "node {n}");
        let later = swarm.nodes[n].engine.later().expect("an upgrade would help");
        assert_eq!((later.what, later.from), (LaterKind::Statement, swarm.nodes[0].id));
        assert_eq!(swarm.get(n, "k").as_deref(), Some("v"), "node {n}");
    }
    assert_eq!(swarm.hash(1), swarm.hash(3));
    assert!(!swarm.damned());
    // Equal replicas compare by one hash and less and less often.
    let before = swarm.frames;
    swarm.pass(120_000);
    assert!(swarm.frames - before < 40, "{} frames", swarm.frames - before);
    swarm.restart(3);
    assert!(swarm.nodes[3].engine.later().is_some(), "also after a restart");
}

#[test]
fn whoever_is_revoked_is_no_reason_to_upgrade() {
    let mut swarm = Swarm::new(3);
    let roster = swarm.nodes[0].engine.roster().clone();
    let statement = unknown(&roster, 2, None);
    swarm.hand_gossip(0, 2, message::encode(&Gossip::Statement(statement)));
    let later = |swarm: &Swarm| swarm.nodes[0].engine.later().map(|later| later.from);
    assert_eq!(later(&swarm), Some(swarm.nodes[2].id));
    let (token, device) = (swarm.token(), swarm.nodes[2].id);
    swarm.input(0, Input::Revoke { token, device });
    assert_eq!(later(&swarm), None);
}

#[test]
fn a_frame_of_an_unknown_kind_ends_its_session_and_nobody_is_blamed() {
    #[derive(Serialize)]
    enum Frame {
        Confirms(u8),
    }
    let frame = || message::encode(&Frame::Confirms(7));
    // The server's answer, and the asking side's first frame.
    for from_server in [true, false] {
        let mut swarm = Swarm::new(2);
        swarm.put(0, "k", "v");
        let mut left = 2;
        swarm.hook = Box::new(move |_, _, bytes| {
            let first = match message::decode(&bytes) {
                Ok(Repair::Differs(_)) => from_server,
                Ok(Repair::Hello(_)) => !from_server,
                _ => false,
            };
            if first && left > 0 {
                left -= 1;
                return Some(frame());
            }
            Some(bytes)
        });
        swarm.connect(0, 1);
        swarm.pass(120_000);
        assert!(!swarm.damned(), "{from_server}");
        assert_eq!(
            swarm.get(1, "k").as_deref(),
            Some("v"),
            "{from_server}: later sessions do well"
        );
        let met = |n: usize| swarm.nodes[n].engine.later().map(|later| later.what);
        assert!((0..2).any(|n| met(n) == Some(LaterKind::Message)), "{from_server}");
    }
}

#[test]
fn a_log_with_a_header_of_a_later_version_is_passed_over_in_repair() {
    let mut swarm = Swarm::new(3);
    swarm.put(0, "k", "v");
    swarm.put(1, "other", "w");
    let author = swarm.nodes[0].id;
    // Node 1 is of a later version: what it sends of node 0's log has a header of that version.
    swarm.connect(0, 1);
    swarm.pass(20_000);
    swarm.disconnect_all(0);
    swarm.hook = Box::new(move |from, _, bytes| {
        let later = |header: &Bytes| {
            let (body, sig): (Bytes, Sig) = codec::decode(header).expect("sealed");
            let mut body = body.to_vec();
            // A field more, and a higher number.
            (body[0], body[1]) = (body[0] + 1, VERSION + 1);
            body.push(0);
            Bytes(codec::encode(&(Bytes(body), sig)))
        };
        match (from, message::decode(&bytes)) {
            (1, Ok(Repair::Start(mut start))) if start.log.author == author => {
                start.header = later(&start.header);
                Some(message::encode(&Repair::Start(start)))
            }
            _ => Some(bytes),
        }
    });
    swarm.connect(1, 2);
    swarm.pass(60_000);
    assert!(!swarm.damned());
    assert_eq!(swarm.get(2, "other").as_deref(), Some("w"), "the others are not held up");
    assert_eq!(swarm.get(2, "k"), None);
    let later = swarm.nodes[2].engine.later().expect("an upgrade would help");
    assert_eq!((later.what, later.from), (LaterKind::Write, swarm.nodes[1].id));
}
