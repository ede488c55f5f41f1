//! Live sets are compared before a log is fetched beside what is here: what the two have alike is taken from
//! here, whatever it is that sets them apart.

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::io::Input;
use swarmkv_protocol::message::{self, Repair};
use swarmkv_protocol::store::{Store as _, Write};

use crate::swarm;
use crate::swarm::{Swarm, put};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
/// Slots of the log that is common to all; many blocks.
const KEYS: usize = 3_000;

fn name(i: usize) -> String {
    format!("key {i:04}")
}

/// `author` writes these keys, in a few commits.
fn write(swarm: &mut Swarm, author: usize, keys: impl Iterator<Item = usize>, value: &str) {
    let keys: Vec<usize> = keys.collect();
    for part in keys.chunks(300) {
        swarm.write(author, part.iter().map(|i| put(&name(*i), value)).collect());
    }
}

fn received(swarm: &Swarm, n: usize) -> u64 {
    swarm.nodes[n].engine.counters().slots_received
}

/// Three replicas that have the log of `author` alike.
fn alike(author: usize, value: &str) -> Swarm {
    let mut swarm = Swarm::new(3);
    write(&mut swarm, author, 0..KEYS, value);
    for n in [A, B, C].into_iter().filter(|n| *n != author) {
        swarm.connect(author, n);
    }
    swarm.pass(20_000);
    assert!(swarm.equal());
    for n in [A, B, C] {
        swarm.disconnect_all(n);
    }
    swarm
}

/// Slots on these keys cannot be read any more.
fn damage(swarm: &mut Swarm, n: usize, keys: impl Iterator<Item = usize>) {
    let disk = swarm.nodes[n].disk.clone();
    for i in keys {
        let key = swarm::cell(&name(i));
        let mut slot = disk.slots(&key).expect("memory does not fail").remove(0);
        slot.op = Bytes::default();
        disk.0.borrow_mut().apply(vec![Write::Slot { key, slot }]);
    }
}

fn all_read(swarm: &Swarm, n: usize) -> bool {
    (0..KEYS).all(|i| swarm.get(n, &name(i)).is_some())
}

#[test]
fn of_a_forked_log_only_what_differs_is_fetched() {
    let mut swarm = alike(A, "1");
    let before = swarm.copy(A);
    write(&mut swarm, A, 0..3, "x");
    swarm.connect(A, B);
    swarm.pass(10_000);
    swarm.put_back(A, &before, false);
    swarm.pass(1_000);
    write(&mut swarm, A, 2..9, "y");
    swarm.connect(A, C);
    swarm.pass(10_000);
    swarm.disconnect_all(A);
    let before = [received(&swarm, B), received(&swarm, C)];
    swarm.connect(B, C);
    swarm.pass(120_000);
    assert_eq!(swarm.hash(B), swarm.hash(C));
    for (n, before) in [B, C].into_iter().zip(before) {
        let forked = swarm.nodes[n].engine.logs().iter().filter(|log| log.forked).count();
        assert_eq!(forked, 2, "node {n} has both histories");
        let fetched = received(&swarm, n) - before;
        assert!(fetched < 30, "node {n} fetched {fetched} slots");
    }
    assert!(!swarm.damned());
}

#[test]
fn of_a_damaged_log_only_what_cannot_be_read_or_has_changed_is_fetched() {
    let mut swarm = alike(A, "1");
    damage(&mut swarm, B, (0..KEYS).step_by(100));
    write(&mut swarm, A, (0..KEYS).step_by(150), "2");
    swarm.input(B, Input::Scrub);
    let before = received(&swarm, B);
    swarm.connect(A, B);
    swarm.pass(120_000);
    assert!(swarm.nodes[B].engine.counters().set_aside > 0);
    assert!(all_read(&swarm, B));
    assert_eq!(swarm.hash(A), swarm.hash(B));
    let fetched = received(&swarm, B) - before;
    assert!((30..=90).contains(&fetched), "{fetched} slots fetched");
    assert!(!swarm.damned());
}

#[test]
#[cfg(feature = "plant")]
fn it_would_never_come_right_if_sums_were_taken_on_trust() {
    use swarmkv_protocol::plant::{Plant, plant};
    plant(Some(Plant::TrustSums));
    let mut swarm = alike(A, "1");
    damage(&mut swarm, B, 7..8);
    swarm.input(B, Input::Scrub);
    swarm.connect(A, B);
    swarm.pass(600_000);
    assert!(!swarm.equal());
    assert!(!swarm.nodes[B].engine.caught_up(), "and it says so");
    plant(None);
}

#[test]
fn what_a_cut_uncovers_is_fetched_and_no_more() {
    let mut swarm = alike(C, "1");
    swarm.connect(B, C);
    swarm.pass(1_000);
    write(&mut swarm, C, (0..KEYS).step_by(60), "after the cut");
    swarm.pass(20_000);
    swarm.disconnect_all(C);
    let token = swarm.token();
    let device = swarm.nodes[C].id;
    swarm.input(A, Input::Revoke { token, device });
    let before = received(&swarm, B);
    swarm.connect(A, B);
    swarm.pass(120_000);
    assert_eq!(swarm.hash(A), swarm.hash(B));
    assert!((0..KEYS).all(|i| swarm.get(B, &name(i)).as_deref() == Some("1")));
    let fetched = received(&swarm, B) - before;
    assert!((50..=60).contains(&fetched), "{fetched} slots fetched");
    assert!(!swarm.damned());
}

#[test]
fn what_was_fetched_before_the_line_broke_is_not_fetched_again() {
    let mut swarm = alike(A, &"v".repeat(200));
    damage(&mut swarm, B, 0..KEYS / 2);
    swarm.input(B, Input::Scrub);
    let before = received(&swarm, B);
    // The line carries one frame of slots, and is cut.
    let mut carried = 0;
    swarm.hook = Box::new(move |from, _, bytes| {
        let slots = matches!(message::decode(&bytes), Ok(Repair::Slots(_)));
        carried += usize::from(from == A && slots);
        (carried < 2).then_some(bytes)
    });
    swarm.connect(A, B);
    swarm.pass(20_000);
    swarm.disconnect_all(B);
    let first = received(&swarm, B) - before;
    assert!((1..KEYS as u64 / 2).contains(&first), "{first} slots came first");
    swarm.hook = Box::new(|_, _, bytes| Some(bytes));
    swarm.connect(A, B);
    swarm.pass(120_000);
    assert!(all_read(&swarm, B));
    assert_eq!(swarm.hash(A), swarm.hash(B));
    let fetched = received(&swarm, B) - before;
    assert!(fetched <= KEYS as u64 / 2 + 64, "{fetched} slots fetched in all");
    assert!(!swarm.damned());
}
