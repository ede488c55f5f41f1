//! Stored bytes that changed are found, set aside, fetched afresh, and never passed on.

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::id::BranchId;
use swarmkv_protocol::io::{Input, Output, WriteRefused};
use swarmkv_protocol::limits::SCRUB_REST_MS;
use swarmkv_protocol::message::{self, Repair};
use swarmkv_protocol::op::{Body, Op};
use swarmkv_protocol::store::{Store as _, Write};

use crate::swarm;
use crate::swarm::{Swarm, put};

/// Changes a stored value as a disk might: still an operation, or (`None`) one the store knows is bad.
fn damage(swarm: &mut Swarm, n: usize, key: &str, value: Option<&str>) -> BranchId {
    let disk = swarm.nodes[n].disk.clone();
    let mut slot = disk.slots(&swarm::cell(key)).expect("memory does not fail").remove(0);
    slot.op = match value {
        None => Bytes::default(),
        Some(value) => {
            let mut op = Op::read(&slot.op).expect("a sound slot");
            op.body = Body::Put(Bytes(value.into()));
            Bytes(codec::encode(&op))
        }
    };
    let branch = slot.branch;
    disk.0.borrow_mut().apply(vec![Write::Slot { key: swarm::cell(key), slot }]);
    branch
}

fn forget_key(swarm: &mut Swarm, n: usize, key: &str) {
    let disk = swarm.nodes[n].disk.clone();
    let slot = disk.slots(&swarm::cell(key)).expect("memory does not fail").remove(0);
    let (key, branch, seq) = (Bytes(key.into()), slot.branch, slot.seq);
    disk.0.borrow_mut().apply(vec![Write::RemoveSlot { key, branch, seq }]);
}

fn filled(nodes: usize) -> Swarm {
    let mut swarm = Swarm::new(nodes);
    for i in 0..20 {
        swarm.put(0, &format!("a {i}"), "1");
        swarm.put(1, &format!("b {i}"), "1");
    }
    for n in 1..nodes {
        swarm.connect(0, n);
    }
    swarm.pass(20_000);
    assert!(swarm.equal());
    swarm
}

fn values(swarm: &Swarm, n: usize) -> usize {
    let names = (0..20).flat_map(|i| [format!("a {i}"), format!("b {i}")]);
    names.filter(|key| swarm.get(n, key).as_deref() == Some("1")).count()
}

#[test]
fn a_changed_lost_or_unreadable_slot_is_found_and_fetched_afresh() {
    for case in 0..3 {
        let mut swarm = filled(3);
        match case {
            0 => drop(damage(&mut swarm, 1, "a 7", Some("false"))),
            1 => drop(damage(&mut swarm, 1, "a 7", None)),
            _ => forget_key(&mut swarm, 1, "a 7"),
        }
        swarm.input(1, Input::Scrub);
        swarm.pass(30_000);
        assert_eq!(swarm.nodes[1].engine.counters().set_aside, 1, "case {case}");
        assert_eq!(values(&swarm, 1), 40, "case {case}");
        assert!(swarm.equal() && swarm.nodes[1].engine.caught_up(), "case {case}");
        assert!(!swarm.damned(), "case {case}");
        assert!(swarm.nodes[1].engine.logs().iter().all(|log| !log.aside && !log.forked));
    }
}

#[test]
fn what_peers_stage_of_a_log_keeps_nobody_from_reading_it_again() {
    let mut swarm = filled(2);
    // The last frame never comes: slots lie staged above the head.
    swarm.hook = Box::new(|_, to, bytes| {
        let end = matches!(message::decode(&bytes), Ok(Repair::End(_)));
        (to != 1 || !end).then_some(bytes)
    });
    swarm.put(0, "new", "1");
    swarm.pass(20_000);
    assert!(swarm.nodes[1].engine.logs().iter().any(|log| log.staged > 0));
    damage(&mut swarm, 1, "a 7", Some("false"));
    swarm.input(1, Input::Scrub);
    swarm.pass(5_000);
    assert_eq!(swarm.nodes[1].engine.counters().set_aside, 1);
}

#[test]
fn the_background_finds_it_without_being_asked_even_while_the_log_moves_on() {
    let mut swarm = filled(2);
    swarm.gossip = true;
    damage(&mut swarm, 1, "a 7", Some("false"));
    swarm.pass(SCRUB_REST_MS - 30_000);
    for i in 0..400 {
        // Overwrites slots on both sides of where scrubbing is.
        swarm.put(0, &format!("a {}", [1, 3, 19][i % 3]), &i.to_string());
        swarm.pass(200);
    }
    assert_eq!(swarm.nodes[1].engine.counters().set_aside, 1);
    assert_eq!(swarm.get(1, "a 7").as_deref(), Some("1"));
    assert!(swarm.equal());
}

#[test]
fn scrubbing_a_sound_log_that_moves_on_finds_nothing() {
    let mut swarm = filled(2);
    swarm.gossip = true;
    for i in 0..600_u32 {
        swarm.put(0, &format!("a {}", (i * 7) % 20), &i.to_string());
        if i % 3 == 0 {
            swarm.write(0, vec![put("tx", "1"), put("tx", "2"), put(&format!("n {i}"), "v")]);
        }
        if i % 50 == 0 {
            swarm.input(1, Input::Scrub);
        }
        swarm.pass(37);
    }
    swarm.pass(60_000);
    assert!(swarm.nodes[1].engine.counters().scrubbed > 500);
    for node in &swarm.nodes {
        assert_eq!(node.engine.counters().set_aside, 0);
    }
    assert!(swarm.equal());
}

#[test]
fn while_a_log_is_set_aside_nothing_false_is_shown_offered_or_acknowledged() {
    let mut swarm = filled(2);
    swarm.disconnect_all(1);
    damage(&mut swarm, 1, "a 7", Some("false"));
    swarm.input(1, Input::Scrub);
    swarm.pass(1_000);
    assert!(!swarm.nodes[1].engine.caught_up(), "readers are told to wait");
    assert_eq!(swarm.get(1, "a 7"), None);
    assert_eq!(swarm.get(1, "b 7").as_deref(), Some("1"));
    assert!(swarm.nodes[1].engine.logs().iter().any(|log| log.aside && log.seq == 0));
    swarm.restart(1);
    assert!(!swarm.nodes[1].engine.caught_up(), "also after a restart");
    swarm.put(1, "new", "1");
    swarm.connect(0, 1);
    swarm.pass(20_000);
    assert_eq!(values(&swarm, 1), 40);
    assert!(swarm.equal());
}

#[test]
fn a_write_that_meets_an_unreadable_slot_is_refused_and_can_be_tried_again() {
    let mut swarm = filled(2);
    damage(&mut swarm, 1, "a 7", None);
    let token = swarm.token();
    swarm.input(1, Input::Write(token, vec![put("a 7", "2")]));
    swarm.input(1, Input::Commit);
    let refused = Output::WriteRefused(token, WriteRefused::Damaged);
    assert!(swarm.nodes[1].log.contains(&refused));
    swarm.pass(20_000);
    swarm.put(1, "a 7", "2");
    swarm.pass(10_000);
    assert_eq!(swarm.get(0, "a 7").as_deref(), Some("2"));
    assert!(swarm.equal());
}

#[test]
fn a_server_that_meets_an_unreadable_slot_sends_nothing_false_and_is_not_blamed() {
    let mut swarm = filled(3);
    swarm.disconnect_all(2);
    damage(&mut swarm, 1, "a 7", None);
    swarm.nodes[2] = {
        let disk = swarm::Disk::default();
        let recovered = swarm.nodes[0].disk.0.borrow().recover();
        let name = |bytes: &Bytes| {
            swarmkv_protocol::crypto::hash(
                swarmkv_protocol::crypto::Domain::StatementName,
                &[bytes],
            )
        };
        let statements = recovered.statements.into_iter();
        disk.0
            .borrow_mut()
            .apply(statements.map(|b| Write::Statement { name: name(&b), bytes: b }).collect());
        swarm.open(swarm::key(2), disk, true)
    };
    swarm.connect(1, 2);
    swarm.pass(20_000);
    assert!(!swarm.damned());
    assert_eq!(swarm.nodes[1].engine.counters().set_aside, 1);
    swarm.connect(0, 2);
    swarm.pass(40_000);
    assert!(swarm.equal());
    assert_eq!(values(&swarm, 2), 40);
}

#[test]
fn own_writes_that_nobody_else_has_are_written_again_in_a_new_epoch() {
    let mut swarm = filled(2);
    swarm.disconnect_all(0);
    let old = swarm.nodes[0].engine.own_log();
    for i in 0..5 {
        swarm.put(0, &format!("alone {i}"), "1");
    }
    swarm.put(0, "a 3", "newer");
    damage(&mut swarm, 0, "a 7", Some("false"));
    swarm.input(0, Input::Scrub);
    swarm.pass(1_000);
    assert_ne!(swarm.nodes[0].engine.own_log(), old);
    // Written while the old log is set aside: this is newer than what lies there.
    swarm.put(0, "alone 4", "2");
    swarm.connect(0, 1);
    swarm.pass(30_000);
    assert!(swarm.equal());
    for n in [0, 1] {
        for i in 0..4 {
            assert_eq!(swarm.get(n, &format!("alone {i}")).as_deref(), Some("1"), "node {n}");
        }
        assert_eq!(swarm.get(n, "alone 4").as_deref(), Some("2"), "node {n}");
        assert_eq!(swarm.get(n, "a 3").as_deref(), Some("newer"), "node {n}");
        assert_eq!(swarm.get(n, "a 7").as_deref(), Some("1"), "node {n}");
    }
    assert!(swarm.nodes[0].engine.caught_up());
    assert!(swarm.nodes[0].engine.logs().iter().all(|log| !log.aside));
}

#[test]
fn a_lone_device_keeps_what_can_still_be_read() {
    let mut swarm = Swarm::new(1);
    for i in 0..600 {
        swarm.put(0, &format!("k {i}"), "1");
    }
    damage(&mut swarm, 0, "k 7", None);
    swarm.input(0, Input::Scrub);
    swarm.pass(5_000);
    assert!(swarm.nodes[0].engine.caught_up());
    let kept = (0..600).filter(|i| swarm.get(0, &format!("k {i}")).as_deref() == Some("1"));
    assert_eq!(kept.count(), 599);
    assert_eq!(swarm.get(0, "k 7"), None);
    swarm.restart(0);
    swarm.put(0, "k 7", "again");
    assert_eq!(swarm.get(0, "k 7").as_deref(), Some("again"));
}

#[test]
fn an_author_whose_sums_went_wrong_is_told_and_goes_on_in_a_new_epoch_without_loss() {
    let mut swarm = filled(2);
    swarm.gossip = true;
    let old = swarm.nodes[0].engine.own_log();
    // What the author replaces is not what it once signed: its sums are wrong from then on.
    damage(&mut swarm, 0, "a 7", Some("false"));
    swarm.put(0, "a 7", "2");
    assert!(swarm.nodes[1].engine.logs().iter().any(|log| log.frozen.is_some()));
    assert!(swarm.nodes[1].faults.is_empty(), "nobody is blamed");
    assert_eq!(swarm.get(1, "a 8").as_deref(), Some("1"), "the service goes on");
    swarm.put(0, "after", "1");
    swarm.pass(60_000);
    assert_ne!(swarm.nodes[0].engine.own_log(), old);
    for n in [0, 1] {
        assert_eq!(swarm.get(n, "a 7").as_deref(), Some("2"), "node {n}");
        assert_eq!(swarm.get(n, "after").as_deref(), Some("1"), "node {n}");
    }
    assert!(swarm.equal());
    assert!(!swarm.damned());
}

#[test]
fn a_copy_that_leaves_its_log_at_the_start_is_not_taken_for_damaged() {
    let mut swarm = Swarm::new(1);
    for value in ["1", "2", "3"] {
        swarm.put(0, "k", value);
        swarm.put(0, "other", value);
    }
    let disk = swarm.copy(0);
    swarm.put_back(0, &disk, true);
    swarm.pass(10_000);
    assert_eq!(swarm.get(0, "k").as_deref(), Some("3"));
    assert!(swarm.nodes[0].engine.logs().iter().all(|log| !log.aside));
    assert_eq!(swarm.nodes[0].engine.counters().set_aside, 0);
}
