//! Who is let in, and what a member may do: tickets and hostile statements through a whole engine.

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::crypto::{DeviceKey, Domain};
use swarmkv_protocol::id::{DeviceId, Hash};
use swarmkv_protocol::io::{Input, InviteRefused, Output, Verdict};
use swarmkv_protocol::limits::VERSION;
use swarmkv_protocol::message::{self, Gossip};
use swarmkv_protocol::roster::{BadStatement, Grant, Role, Roster, Statement, StatementBody};
use swarmkv_protocol::store::Write;
use swarmkv_protocol::ticket::{Invite, JoinAnswer, JoinRequest, Redeem, Refusal, Ticket};

use crate::swarm::{Swarm, key, put};

const SECRET: [u8; 16] = [42; 16];

fn ticket(swarm: &Swarm) -> Ticket {
    Ticket {
        version: VERSION,
        swarm: swarm.nodes[0].engine.roster().swarm(),
        inviter: swarm.nodes[0].id,
        addrs: Vec::new(),
        secret: Bytes(SECRET.to_vec()),
        expires_at: 0,
    }
}

fn invite(swarm: &mut Swarm, n: usize, role: Role) -> Result<(), InviteRefused> {
    let token = swarm.token();
    let expires_at = swarm.wall + 60_000;
    let invite = Invite {
        role,
        prefix: Bytes::default(),
        max_bytes: None,
        expires_at,
        uses: 1,
        confirm: false,
    };
    swarm.input(n, Input::Invite { token, secret: SECRET, invite });
    let result = swarm.nodes[n].log.iter().find_map(|output| match output {
        Output::Invited(t, result) if *t == token => Some(result.clone()),
        _ => None,
    });
    result.expect("every invitation is answered")
}

fn redeem(swarm: &mut Swarm, device: &DeviceId, secret: &[u8]) -> JoinAnswer {
    let mut ticket = ticket(swarm);
    let id = ticket.id();
    ticket.secret = Bytes(secret.to_vec());
    let proof = ticket.proof(device);
    let request = JoinRequest::Redeem(Redeem { ticket: id, proof, label: "phone".into() });
    let token = swarm.token();
    let bytes = message::encode(&request);
    swarm.input(0, Input::Asked { token, peer: *device, bytes });
    let answer = swarm.nodes[0].log.iter().find_map(|output| match output {
        Output::Answer(t, bytes) if *t == token => Some(bytes.clone()),
        _ => None,
    });
    message::decode(&answer.expect("every request is answered")).expect("a sound answer")
}

fn stranger(n: usize) -> DeviceId {
    DeviceKey::from_seed(&key(20 + n)).id()
}

#[test]
fn a_ticket_admits_one_device_and_names_it_to_the_next() {
    let mut swarm = Swarm::new(1);
    invite(&mut swarm, 0, Role::Writer).expect("an owner invites");
    let first = redeem(&mut swarm, &stranger(1), &SECRET);
    assert!(matches!(first, JoinAnswer::Welcome(_)));
    let again = redeem(&mut swarm, &stranger(1), &SECRET);
    assert_eq!(first, again, "the same device gets the same answer");
    match redeem(&mut swarm, &stranger(2), &SECRET) {
        JoinAnswer::Refused(Refusal::Used(used)) => assert_eq!(used.device, stranger(1)),
        other => panic!("{other:?}"),
    }
    // Also after a restart.
    swarm.restart(0);
    assert!(matches!(
        redeem(&mut swarm, &stranger(3), &SECRET),
        JoinAnswer::Refused(Refusal::Used(_))
    ));
    assert_eq!(redeem(&mut swarm, &stranger(1), &SECRET), first);
    assert_eq!(swarm.nodes[0].engine.roster().members().count(), 2);
}

#[test]
fn a_ticket_is_durably_spent_before_the_grant_and_both_before_the_answer() {
    let mut swarm = Swarm::new(1);
    invite(&mut swarm, 0, Role::Writer).expect("an owner invites");
    swarm.nodes[0].log.clear();
    redeem(&mut swarm, &stranger(1), &SECRET);
    let writes = |output: &Output, wanted: fn(&Write) -> bool| match output {
        Output::Persist(writes) => writes.iter().any(wanted),
        _ => false,
    };
    let log = &swarm.nodes[0].log;
    let spent = log.iter().position(|o| writes(o, |w| matches!(w, Write::Ticket { .. })));
    let granted = log.iter().position(|o| writes(o, |w| matches!(w, Write::Statement { .. })));
    let answered = log.iter().position(|o| matches!(o, Output::Answer(..)));
    let (spent, granted, answered) = (
        spent.expect("the ticket is kept"),
        granted.expect("the grant is kept"),
        answered.expect("the joiner is answered"),
    );
    assert!(spent < granted && granted < answered);
}

#[test]
fn a_wrong_proof_and_an_unknown_ticket_look_alike() {
    let mut swarm = Swarm::new(1);
    let unknown = redeem(&mut swarm, &stranger(1), &SECRET);
    invite(&mut swarm, 0, Role::Writer).expect("an owner invites");
    let wrong = redeem(&mut swarm, &stranger(1), &[43; 16]);
    assert_eq!(unknown, JoinAnswer::Refused(Refusal::UnknownTicket));
    assert_eq!(wrong, unknown);
}

#[test]
fn an_expired_ticket_admits_nobody_but_tells_whom_it_admitted_the_same_again() {
    let mut swarm = Swarm::new(1);
    invite(&mut swarm, 0, Role::Writer).expect("an owner invites");
    swarm.pass(60_000);
    let answer = redeem(&mut swarm, &stranger(1), &SECRET);
    assert_eq!(answer, JoinAnswer::Refused(Refusal::Expired));
}

#[test]
fn only_a_higher_rank_invites() {
    let mut swarm = Swarm::new(2);
    assert_eq!(invite(&mut swarm, 1, Role::Reader), Err(InviteRefused::NotAllowed));
    assert_eq!(invite(&mut swarm, 0, Role::Owner), Err(InviteRefused::NotAllowed));
}

/// Signs any statement with any key.
fn state(swarm: &Swarm, issuer: usize, number: u64, prev: Hash, grant: Grant) -> Bytes {
    let key = DeviceKey::from_seed(&key(issuer));
    let statement = Statement {
        version: VERSION,
        swarm: swarm.nodes[0].engine.roster().swarm(),
        issuer: key.id(),
        number,
        prev,
        body: StatementBody::Grant(grant),
    };
    let body = codec::encode(&statement);
    let sig = key.sign(Domain::Statement, &body);
    Bytes(codec::encode(&(Bytes(body), sig)))
}

fn grant(device: DeviceId, role: Role) -> Grant {
    Grant { device, label: "x".into(), role, prefix: Bytes::default(), max_bytes: None }
}

#[test]
fn hostile_statements_admit_nobody() {
    let swarm = Swarm::new(2);
    let mut roster = Roster::open(&swarm.genesis).expect("valid");
    roster.insert(&swarm.nodes[0].engine.roster().beyond(&[]));
    let before = roster.hash();
    let me = swarm.nodes[1].id;
    let weak = DeviceId::new([0; 32]);
    let other_encoding = DeviceId::new([0xff; 32]);
    let last = swarm.nodes[0].engine.roster().member(&me).expect("granted").grant;
    let cases = [
        (
            "a writer promotes itself",
            state(&swarm, 1, 1, Hash::default(), grant(me, Role::Admin)),
            BadStatement::Rank,
        ),
        (
            "a writer admits a friend",
            state(&swarm, 1, 1, Hash::default(), grant(stranger(1), Role::Reader)),
            BadStatement::Rank,
        ),
        (
            "a gap in the chain",
            state(&swarm, 0, 9, Hash::new([1; 32]), grant(stranger(1), Role::Reader)),
            BadStatement::Unknown,
        ),
        (
            "a wrong number",
            state(&swarm, 0, 9, last, grant(stranger(1), Role::Reader)),
            BadStatement::Form("chain"),
        ),
        (
            "number zero",
            state(&swarm, 0, 0, Hash::default(), grant(stranger(1), Role::Reader)),
            BadStatement::Form("number"),
        ),
        (
            "a second owner",
            state(&swarm, 0, 2, last, grant(stranger(1), Role::Owner)),
            BadStatement::Rank,
        ),
        (
            "a weak key",
            state(&swarm, 0, 2, last, grant(weak, Role::Reader)),
            BadStatement::Form("device key"),
        ),
        (
            "a key in another encoding",
            state(&swarm, 0, 2, last, grant(other_encoding, Role::Reader)),
            BadStatement::Form("device key"),
        ),
    ];
    for (name, statement, expected) in cases {
        assert_eq!(roster.insert(&[statement]).1, [expected], "{name}");
        assert_eq!(roster.hash(), before, "{name}");
    }
}

#[test]
fn a_long_chain_in_any_order_is_taken_in_quickly() {
    let owner = DeviceKey::from_seed(&key(0));
    let mut full = Roster::found(&owner, "n", "o", [0; 16]).expect("valid");
    let mut chain = Vec::new();
    for n in 0..200u8 {
        let device = DeviceKey::from_seed(&[n.wrapping_add(50); 32]).id();
        let statement = full.grant(&owner, grant(device, Role::Reader)).expect("may grant");
        full.insert(std::slice::from_ref(&statement));
        chain.push(statement);
    }
    chain.reverse();
    let mut roster = Roster::open(full.genesis_bytes()).expect("valid");
    assert_eq!(roster.insert(&chain).0.len(), 200);
    assert_eq!(roster.hash(), full.hash());
}

#[test]
fn a_forged_statement_is_rejected_and_one_that_came_early_is_not() {
    let mut swarm = Swarm::new(2);
    let forged = state(&swarm, 1, 1, Hash::default(), grant(stranger(1), Role::Reader));
    let mut bytes = forged.to_vec();
    *bytes.last_mut().expect("not empty") ^= 1;
    let early = state(&swarm, 0, 9, Hash::new([1; 32]), grant(stranger(1), Role::Reader));
    let garbage = message::encode(&Gossip::Statement(Bytes(vec![0x82; 9])));
    assert_eq!(swarm.hand_gossip(0, 1, garbage), Verdict::Reject);
    let early = message::encode(&Gossip::Statement(early));
    assert_eq!(swarm.hand_gossip(0, 1, early), Verdict::Ignore);
}

/// A swarm whose owner grants node 1 something else than usual.
fn with_grant(role: Role, prefix: &str, max_bytes: Option<u64>) -> Swarm {
    let mut swarm = Swarm::new(3);
    let writer = DeviceKey::from_seed(&key(5));
    let statement = swarm.nodes[0].engine.roster().grant(
        &DeviceKey::from_seed(&key(0)),
        Grant {
            device: writer.id(),
            label: "five".into(),
            role,
            prefix: Bytes(prefix.into()),
            max_bytes,
        },
    );
    let message = message::encode(&Gossip::Statement(statement.expect("an owner grants")));
    for n in [0, 1, 2] {
        assert_eq!(swarm.hand_gossip(n, 0, message.clone()), Verdict::Accept);
    }
    swarm
}

/// A commit of the device above, as an honest engine of another swarm member would make it, re-signed.
fn commit_of_five(swarm: &mut Swarm, key_written: &str, grant: Option<Hash>) -> Vec<u8> {
    use swarmkv_protocol::commit::{self, SignedHeader};
    use swarmkv_protocol::id::LogId;
    let five = DeviceKey::from_seed(&key(5));
    swarm.write(2, vec![put(key_written, "value")]);
    let bytes = swarm.nodes[2].published.last().expect("just written").clone();
    let Ok(Gossip::Commit(commit)) = message::decode(&bytes) else { panic!("a small commit") };
    let in_swarm = swarm.nodes[0].engine.roster().swarm();
    let (header, ops) = commit::unpack(&commit, in_swarm).expect("header and operations");
    let mut claim = SignedHeader::decode(&header).expect("sound").claim().clone();
    claim.log = LogId { author: five.id(), epoch: 1, shard: 0 };
    let member = swarm.nodes[0].engine.roster().member(&five.id()).map(|m| m.grant);
    claim.grant = grant.or(member).expect("granted");
    let body = codec::encode(&claim);
    let sig = five.sign(Domain::Commit, &body);
    let sealed = codec::encode(&(Bytes(body), sig));
    message::encode(&Gossip::Commit(Bytes(commit::pack(&sealed, ops).expect("a header"))))
}

#[test]
fn an_author_that_goes_over_its_quota_is_blamed_itself() {
    let mut swarm = with_grant(Role::Writer, "", Some(3));
    let bytes = commit_of_five(&mut swarm, "k", None);
    let (token, from) = (swarm.token(), DeviceKey::from_seed(&key(5)).id());
    swarm.input(1, Input::Gossip { token, from, bytes });
    assert!(swarm.damned());
}

#[test]
fn what_no_grant_allows_is_rejected_and_what_is_unknown_is_not() {
    let mut swarm = with_grant(Role::Reader, "", None);
    let bytes = commit_of_five(&mut swarm, "k", None);
    assert_eq!(swarm.hand_gossip(1, 2, bytes), Verdict::Reject, "a reader writes");

    let mut swarm = with_grant(Role::Writer, "mine/", None);
    let bytes = commit_of_five(&mut swarm, "yours/k", None);
    assert_eq!(swarm.hand_gossip(1, 2, bytes), Verdict::Reject, "outside its prefix");

    let mut swarm = with_grant(Role::Writer, "", Some(3));
    let bytes = commit_of_five(&mut swarm, "k", None);
    assert_eq!(swarm.hand_gossip(1, 2, bytes), Verdict::Ignore, "over its quota");
    assert!(!swarm.damned(), "whoever hands it on is not to blame for it");

    let mut swarm = with_grant(Role::Writer, "", None);
    let bytes = commit_of_five(&mut swarm, "k", Some(Hash::new([7; 32])));
    assert_eq!(swarm.hand_gossip(1, 2, bytes), Verdict::Ignore, "a grant unknown here");
    let owners = swarm.nodes[0].engine.roster().member(&swarm.nodes[0].id).expect("owner").grant;
    let bytes = commit_of_five(&mut swarm, "k", Some(owners));
    assert_eq!(swarm.hand_gossip(1, 2, bytes), Verdict::Reject, "another's grant");
}
