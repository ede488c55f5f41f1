//! What becomes of a revoked device's writes: everywhere its logs end where the revoker had them.

use std::collections::BTreeSet;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::crypto::DeviceKey;
use swarmkv_protocol::io::{Input, Output, RevokeRefused, Verdict, WriteRefused};
use swarmkv_protocol::message::{self, Gossip};
use swarmkv_protocol::roster::{Extent, Grant, Role};
use swarmkv_protocol::ticket::{Introduce, JoinAnswer, JoinRequest, Refusal};

use crate::swarm;
use crate::swarm::{Swarm, key, put};

fn revoke(swarm: &mut Swarm, by: usize, target: usize) -> Result<(), RevokeRefused> {
    let (token, device) = (swarm.token(), swarm.nodes[target].id);
    swarm.input(by, Input::Revoke { token, device });
    let answer = swarm.nodes[by].log.iter().find_map(|output| match output {
        Output::Revoked(t, result) if *t == token => Some(*result),
        _ => None,
    });
    answer.expect("every revocation is answered")
}

fn refused(swarm: &mut Swarm, n: usize, change: swarmkv_protocol::io::Change) -> WriteRefused {
    let token = swarm.token();
    swarm.input(n, Input::Write(token, vec![change]));
    swarm.input(n, Input::Commit);
    let refused = swarm.nodes[n].log.iter().find_map(|output| match output {
        Output::WriteRefused(t, refused) if *t == token => Some(refused.clone()),
        _ => None,
    });
    refused.expect("the write is refused")
}

fn same(swarm: &Swarm, nodes: &[usize]) -> bool {
    let hash = |n: &usize| swarm.nodes[*n].engine.state_hash();
    nodes.iter().all(|n| hash(n) == hash(&nodes[0]))
}

/// Owner 0, others 1.., everybody connected with the owner and with each other.
fn meshed(count: usize) -> Swarm {
    let mut swarm = Swarm::new(count);
    for a in 0..count {
        for b in a + 1..count {
            swarm.connect(a, b);
        }
    }
    swarm
}

#[test]
fn what_the_revoker_had_stays_and_what_came_later_goes_everywhere() {
    let mut swarm = meshed(4);
    swarm.put(3, "a", "early");
    swarm.put(3, "b", "early");
    swarm.pass(20_000);
    assert!(swarm.equal());
    // The owner is away while the writer goes on: two others follow it.
    swarm.disconnect_all(0);
    swarm.put(3, "a", "late");
    swarm.put(3, "c", "late");
    swarm.pass(20_000);
    assert_eq!(swarm.get(1, "a").as_deref(), Some("late"));
    assert_eq!(revoke(&mut swarm, 0, 3), Ok(()));
    swarm.disconnect_all(3);
    swarm.connect(0, 1);
    swarm.pass(20_000);
    swarm.connect(0, 2);
    swarm.pass(20_000);
    assert!(same(&swarm, &[0, 1, 2]));
    for n in 0..3 {
        assert_eq!(swarm.get(n, "a").as_deref(), Some("early"), "{n}");
        assert_eq!(swarm.get(n, "b").as_deref(), Some("early"), "{n}");
        assert_eq!(swarm.get(n, "c"), None, "{n}");
    }
    assert!(!swarm.damned());
    // A newcomer's replica, and one that starts again, have the same.
    swarm.restart(1);
    assert_eq!(swarm.get(1, "a").as_deref(), Some("early"));
    swarm.connect(0, 1);
    swarm.pass(5_000);
    assert!(same(&swarm, &[0, 1, 2]));
}

#[test]
fn until_the_state_at_the_cut_is_here_what_lies_below_it_is_shown() {
    let mut swarm = Swarm::new(4);
    swarm.connect(0, 3);
    swarm.put(3, "a", "early");
    swarm.put(3, "b", "early");
    swarm.pass(10_000);
    swarm.disconnect_all(3);
    assert_eq!(revoke(&mut swarm, 0, 3), Ok(()));
    swarm.put(3, "a", "late");
    swarm.connect(3, 1);
    swarm.pass(10_000);
    assert_eq!(swarm.get(1, "a").as_deref(), Some("late"));
    // The statement arrives without the one who has the state.
    let statements = swarm.nodes[0].engine.roster().beyond(&[]);
    for bytes in statements {
        let _ = swarm.hand_gossip(1, 2, message::encode(&Gossip::Statement(bytes)));
    }
    assert_eq!(swarm.get(1, "b").as_deref(), Some("early"));
    assert_eq!(swarm.get(1, "a"), None, "nothing beyond the cut is shown");
    assert!(swarm.nodes[1].engine.lacks_cut(&swarm.nodes[3].id));
    swarm.disconnect_all(3);
    swarm.connect(0, 1);
    swarm.pass(10_000);
    assert_eq!(swarm.get(1, "a").as_deref(), Some("early"));
    assert!(!swarm.nodes[1].engine.lacks_cut(&swarm.nodes[3].id));
    assert!(same(&swarm, &[0, 1]));
}

#[test]
fn revoked_during_a_partition_with_both_sides_writing_the_same_keys() {
    for first in [1, 2] {
        let mut swarm = meshed(4);
        for n in 0..4 {
            swarm.put(n, "k", &format!("{n}"));
        }
        swarm.pass(20_000);
        // 0 and 1 on one side, 2 and 3 on the other.
        for n in 0..4 {
            swarm.disconnect_all(n);
        }
        swarm.connect(0, 1);
        swarm.connect(2, 3);
        assert_eq!(revoke(&mut swarm, 0, 3), Ok(()));
        for n in [0, 1, 2, 3, 2, 3] {
            swarm.put(n, "k", &format!("{n} apart"));
            swarm.put(n, "l", &format!("{n} apart"));
        }
        swarm.pass(20_000);
        assert!(swarm.get(2, "k").is_some_and(|value| value.ends_with("apart")));
        swarm.disconnect_all(3);
        swarm.connect(first, if first == 1 { 2 } else { 0 });
        swarm.pass(30_000);
        swarm.connect(0, 2);
        swarm.connect(1, 2);
        swarm.pass(30_000);
        assert!(same(&swarm, &[0, 1, 2]), "{first}");
        let shown = swarm.get(0, "k");
        assert!(shown.as_deref().is_some_and(|v| v.contains("apart") && !v.contains('3')));
        assert_eq!((swarm.get(1, "k"), swarm.get(2, "k")), (shown.clone(), shown));
        assert!(!swarm.damned());
    }
}

#[test]
fn a_log_that_the_revoker_never_saw_counts_for_nothing() {
    let mut swarm = Swarm::new(3);
    swarm.put(2, "a", "unseen");
    swarm.connect(1, 2);
    swarm.pass(10_000);
    assert_eq!(swarm.get(1, "a").as_deref(), Some("unseen"));
    assert_eq!(revoke(&mut swarm, 0, 2), Ok(()));
    swarm.disconnect_all(2);
    swarm.connect(0, 1);
    swarm.pass(10_000);
    assert_eq!(swarm.get(1, "a"), None);
    assert!(same(&swarm, &[0, 1]));
    let left = swarm.nodes[1].disk.0.borrow().keys().count();
    assert_eq!(left, 0, "nothing of it is left on the disk");
}

#[test]
fn a_revoked_device_is_told_with_the_proof_and_keeps_a_readable_copy() {
    let mut swarm = meshed(3);
    swarm.put(2, "mine", "value");
    swarm.pass(10_000);
    swarm.disconnect_all(2);
    assert_eq!(revoke(&mut swarm, 0, 2), Ok(()));
    swarm.put(2, "later", "value");
    let (token, peer) = (swarm.token(), swarm.nodes[2].id);
    let introduce = Introduce {
        swarm: swarm.nodes[2].engine.roster().swarm(),
        statements: swarm.nodes[2].engine.roster().path(&peer),
    };
    let bytes = message::encode(&JoinRequest::Introduce(introduce));
    swarm.input(0, Input::Asked { token, peer, bytes });
    let answer = swarm.nodes[0].log.iter().find_map(|output| match output {
        Output::Answer(t, bytes) if *t == token => Some(bytes.clone()),
        _ => None,
    });
    let answer = answer.expect("every question is answered");
    assert!(matches!(
        message::decode(&answer),
        Ok(JoinAnswer::Refused(Refusal::Revoked(proof))) if !proof.is_empty()
    ));
    let owner = swarm.nodes[0].id;
    swarm.input(2, Input::Answered(owner, answer));
    assert!(swarm.nodes[2].engine.roster().revocation(&peer).is_some());
    assert_eq!(swarm.get(2, "mine").as_deref(), Some("value"));
    assert_eq!(swarm.get(2, "later").as_deref(), Some("value"));
    let refused = refused(&mut swarm, 2, put("more", "value"));
    assert!(matches!(refused, WriteRefused::NotAllowed(_)));
    // It does not go on introducing itself.
    let before = swarm.nodes[2].log.len();
    swarm.input(2, Input::Stranger(owner));
    assert_eq!(swarm.nodes[2].log.len(), before);
}

#[test]
fn whoever_leaves_keeps_what_it_wrote_in_the_swarm() {
    let mut swarm = meshed(3);
    swarm.gossip = true;
    swarm.put(2, "k", "value");
    swarm.pass(30_000);
    assert_eq!(swarm.nodes[2].engine.holders(&swarm.nodes[2].id), (2, 2));
    assert_eq!(revoke(&mut swarm, 2, 2), Ok(()));
    swarm.pass(10_000);
    for n in 0..2 {
        assert_eq!(swarm.get(n, "k").as_deref(), Some("value"));
        assert!(swarm.nodes[n].engine.roster().member(&swarm.nodes[2].id).is_none());
    }
    assert!(same(&swarm, &[0, 1]));
    assert_eq!(revoke(&mut swarm, 0, 2), Err(RevokeRefused::Already));
    assert_eq!(revoke(&mut swarm, 0, 0), Err(RevokeRefused::Owner));
    assert_eq!(revoke(&mut swarm, 1, 0), Err(RevokeRefused::Owner));
}

#[test]
fn gossip_of_a_revoked_author_is_ignored_and_whoever_passes_it_on_is_not_blamed() {
    let mut swarm = meshed(3);
    swarm.put(2, "k", "1");
    swarm.pass(10_000);
    swarm.disconnect_all(2);
    assert_eq!(revoke(&mut swarm, 0, 2), Ok(()));
    swarm.put(2, "k", "2");
    let late = swarm.nodes[2].published.last().expect("just written").clone();
    assert_eq!(swarm.hand_gossip(0, 1, late), Verdict::Ignore);
    assert_eq!(swarm.get(0, "k").as_deref(), Some("1"));
    // A statement of the revoked is no offence either.
    assert!(!swarm.damned());
}

#[test]
fn when_nobody_has_the_state_at_a_cut_the_device_can_be_revoked_once_more() {
    let mut swarm = Swarm::granted(4, |n, grant| {
        if n == 1 {
            grant.role = Role::Admin;
        }
    });
    swarm.put(3, "a", "1");
    swarm.connect(0, 3);
    swarm.pass(5_000);
    swarm.disconnect_all(3);
    swarm.put(3, "a", "2");
    // The admin has more, revokes, and is gone before anybody fetched that.
    swarm.connect(1, 3);
    swarm.pass(5_000);
    swarm.disconnect_all(3);
    assert_eq!(revoke(&mut swarm, 1, 3), Ok(()));
    let statements = swarm.nodes[1].engine.roster().beyond(&[]);
    for bytes in statements {
        let _ = swarm.hand_gossip(0, 2, message::encode(&Gossip::Statement(bytes)));
    }
    let device = swarm.nodes[3].id;
    assert!(swarm.nodes[0].engine.lacks_cut(&device));
    assert_eq!(revoke(&mut swarm, 0, 3), Ok(()));
    assert!(!swarm.nodes[0].engine.lacks_cut(&device));
    // Should the admin come back after all, it follows.
    swarm.connect(0, 1);
    swarm.pass(20_000);
    assert_eq!(swarm.get(1, "a").as_deref(), Some("1"));
    assert!(same(&swarm, &[0, 1]));
}

fn granted_again(swarm: &mut Swarm, device: usize, prefix: &str) {
    let grant = Grant {
        device: swarm.nodes[device].id,
        label: "again".into(),
        role: Role::Writer,
        prefix: Bytes(prefix.into()),
        max_bytes: None,
    };
    let owner = DeviceKey::from_seed(&key(0));
    let statement = swarm.nodes[0].engine.roster().grant(&owner, grant).expect("may grant");
    let statement = message::encode(&Gossip::Statement(statement));
    for n in 0..swarm.nodes.len() {
        let _ = swarm.hand_gossip(n, 0, statement.clone());
    }
}

#[test]
fn one_log_is_written_under_one_grant() {
    let mut swarm = meshed(2);
    swarm.put(1, "a", "1");
    let first = swarm.nodes[1].engine.own_log();
    // Which of two grants of one role a device cites is fixed by their names: both are tried.
    for n in 0..6 {
        granted_again(&mut swarm, 1, "");
        swarm.put(1, "b", &format!("{n}"));
    }
    swarm.pass(20_000);
    assert_ne!(swarm.nodes[1].engine.own_log(), first, "a new grant, a new log");
    assert_eq!(swarm.get(0, "a").as_deref(), Some("1"));
    assert_eq!(swarm.get(0, "b").as_deref(), Some("5"));
    assert!(swarm.equal() && !swarm.damned());
}

#[test]
fn each_log_has_the_quota_whatever_arrived_first() {
    let mut swarm = Swarm::granted(4, |_, grant| grant.max_bytes = Some(400));
    swarm.put(1, "a", &"x".repeat(200));
    let over = refused(&mut swarm, 1, put("b", &"x".repeat(200)));
    assert!(matches!(over, WriteRefused::NotAllowed(_)), "refused before anything is signed");
    let first = swarm.nodes[1].published.clone();
    // Its store is lost: the next log begins at nothing. Two replicas meet the two in different orders.
    let statements = swarm.nodes[0].engine.roster().beyond(&[]);
    swarm.nodes[1] = swarm.open(key(1), swarm::Disk::default(), true);
    for bytes in statements {
        let _ = swarm.hand_gossip(1, 0, message::encode(&Gossip::Statement(bytes)));
    }
    swarm.put(1, "c", &"x".repeat(300));
    let second = swarm.nodes[1].published.clone();
    for (to, commits) in [(0, [&first, &second]), (2, [&second, &first])] {
        for commit in commits.into_iter().flatten() {
            swarm.hand_gossip(to, 3, commit.clone());
        }
    }
    for n in [0, 2] {
        assert!(swarm.get(n, "a").is_some() && swarm.get(n, "c").is_some(), "node {n}");
    }
    assert!(same(&swarm, &[0, 2]) && !swarm.damned());
}

#[test]
fn an_author_that_opens_too_many_logs_loses_the_oldest_and_everybody_the_same() {
    use swarmkv_protocol::limits::MAX_LOGS_PER_AUTHOR;
    let mut swarm = Swarm::new(3);
    let mut commits = Vec::new();
    for n in 0..MAX_LOGS_PER_AUTHOR + 20 {
        swarm.mono += 1;
        swarm.nodes[2] = swarm.open(key(2), swarm::Disk::default(), true);
        let statements = swarm.nodes[0].engine.roster().beyond(&[]);
        for bytes in statements {
            let _ = swarm.hand_gossip(2, 0, message::encode(&Gossip::Statement(bytes)));
        }
        swarm.put(2, &format!("k{n}"), "v");
        commits.push(swarm.nodes[2].published.last().expect("just written").clone());
    }
    for commit in &commits {
        swarm.hand_gossip(0, 2, commit.clone());
    }
    for commit in commits.iter().rev() {
        swarm.hand_gossip(1, 2, commit.clone());
    }
    swarm.pass(60_000);
    let logs = |n: usize| {
        let heads = swarm.nodes[n].engine.heads();
        heads.iter().map(|(branch, _)| branch.log).collect::<BTreeSet<_>>()
    };
    assert_eq!(logs(0).len(), MAX_LOGS_PER_AUTHOR);
    assert_eq!(logs(0), logs(1));
    assert!(same(&swarm, &[0, 1]) && !swarm.damned());
}

#[test]
fn the_roster_says_how_far_a_log_counts() {
    let mut swarm = Swarm::new(3);
    swarm.connect(0, 1);
    swarm.put(1, "k", "v");
    swarm.pass(5_000);
    let log = swarm.nodes[1].engine.own_log();
    let extent = |swarm: &Swarm| swarm.nodes[0].engine.roster().extent(&log);
    assert_eq!(extent(&swarm), Extent::Open);
    assert_eq!(revoke(&mut swarm, 0, 1), Ok(()));
    assert!(matches!(extent(&swarm), Extent::Upto(cut) if cut.seq == 1));
    let other = swarmkv_protocol::id::LogId { epoch: log.epoch ^ 1, ..log };
    assert_eq!(swarm.nodes[0].engine.roster().extent(&other), Extent::Nothing);
}
