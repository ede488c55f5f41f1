//! Whatever an author signs within its rights: nobody honest is blamed for it, all replicas end the same, and
//! it costs no more than what it changes.

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::crypto::{self, DeviceKey, Domain};
use swarmkv_protocol::id::{Hash, Hash8, Version};
use swarmkv_protocol::io::{Blame, Fault, Output, Verdict};
use swarmkv_protocol::limits::{MAX_BRANCHES, MAX_LOGS_PER_AUTHOR};
use swarmkv_protocol::message::{self, Gossip, Repair};
use swarmkv_protocol::op::{Body, Op};
use swarmkv_protocol::roster::{Grant, Role};
use swarmkv_protocol::store::Write;

use crate::swarm::author::{Author, op};
use crate::swarm::{Swarm, key};

const ROGUE: usize = 1;

fn blamed(swarm: &Swarm) -> Vec<&Fault> {
    let faults = swarm.nodes.iter().flat_map(|node| &node.faults);
    faults.filter(|f| matches!(f, Fault::Peer { blame: Blame::Sender, .. })).collect()
}

fn meet(swarm: &mut Swarm, nodes: &[usize]) {
    for (i, a) in nodes.iter().enumerate() {
        for b in &nodes[i + 1..] {
            swarm.connect(*a, *b);
        }
    }
    swarm.pass(120_000);
}

fn ends_the_same(swarm: &Swarm, nodes: &[usize]) {
    let first = swarm.hash(nodes[0]);
    for n in nodes {
        assert_eq!(swarm.hash(*n), first, "node {n}");
        assert!(swarm.nodes[*n].engine.caught_up(), "node {n} is complete");
    }
    assert!(blamed(swarm).is_empty(), "{:?}", blamed(swarm));
}

#[test]
fn a_log_under_two_grants_blames_nobody_and_ends_the_same_everywhere() {
    let mut swarm = Swarm::granted(4, |n, grant| {
        if n == ROGUE {
            grant.prefix = Bytes(b"a/".to_vec());
        }
    });
    let owner = DeviceKey::from_seed(&key(0));
    let grant = Grant {
        device: swarm.nodes[ROGUE].id,
        label: "again".into(),
        role: Role::Writer,
        prefix: Bytes(b"b/".to_vec()),
        max_bytes: None,
    };
    let statement = swarm.nodes[0].engine.roster().grant(&owner, grant).expect("an owner grants");
    let second = crypto::hash(Domain::StatementName, &[&statement]);
    for n in 0..4 {
        swarm.hand_gossip(n, 0, message::encode(&Gossip::Statement(statement.clone())));
    }
    let mut author = Author::new(&swarm, ROGUE, 7);
    author.grant = grant_of_first(&swarm, second);
    let first = author.puts(&["a/1"], "v");
    author.grant = second;
    let next = author.puts(&["b/1"], "v");
    swarm.hand_gossip(0, ROGUE, first.clone());
    swarm.hand_gossip(0, ROGUE, next.clone());
    assert_eq!(swarm.get(0, "b/1"), None, "the log stops where its grant changed");
    swarm.hand_gossip(2, ROGUE, next);
    swarm.hand_gossip(2, ROGUE, first);
    meet(&mut swarm, &[0, 2, 3]);
    ends_the_same(&swarm, &[0, 2, 3]);
}

/// The grant of the rogue that is not this one.
fn grant_of_first(swarm: &Swarm, second: Hash) -> Hash {
    let roster = swarm.nodes[0].engine.roster();
    let names = roster.beyond(&[]);
    let named = |bytes: &Bytes| crypto::hash(Domain::StatementName, &[bytes]);
    let rogue = swarm.nodes[ROGUE].id;
    let of_rogue = |name: &Hash| roster.right(name).is_some_and(|right| right.device == rogue);
    names.iter().map(named).find(|name| *name != second && of_rogue(name)).expect("granted first")
}

#[test]
fn what_a_later_version_may_sign_is_held_back_and_nobody_is_blamed() {
    let mut swarm = Swarm::new(3);
    let mut author = Author::new(&swarm, ROGUE, 1);
    let mut sharded = author.clone();
    let message = sharded.commit(vec![op("k", "v")], |h| h.log.shard = 3);
    assert_eq!(swarm.hand_gossip(0, 2, message), Verdict::Ignore);
    let message = author.commit(vec![op("k", "v")], |h| h.version = 9);
    assert_eq!(swarm.hand_gossip(0, 2, message), Verdict::Ignore);
    // Laid in the format, not acted on by this build: the log stops before it, for everybody alike.
    let mut author = Author::new(&swarm, ROGUE, 2);
    let first = author.puts(&["k"], "1");
    let body = Body::Forget(vec![author.slot("k").version()]);
    let forget = author.commit(vec![Op { body, ..op("k", "") }], |_| ());
    assert_eq!(swarm.hand_gossip(0, 2, first), Verdict::Accept);
    assert_eq!(swarm.hand_gossip(0, 2, forget), Verdict::Ignore);
    assert_eq!(swarm.get(0, "k").as_deref(), Some("1"));
    meet(&mut swarm, &[0, 2]);
    ends_the_same(&swarm, &[0, 2]);
}

#[test]
fn a_false_root_stops_its_log_and_has_nothing_read_again() {
    let mut swarm = Swarm::new(3);
    let mut author = Author::new(&swarm, ROGUE, 1);
    for c in 0..20 {
        let keys: Vec<String> = (0..100).map(|i| format!("k{}", c * 100 + i)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let message = author.puts(&keys, "v");
        swarm.hand_gossip(0, ROGUE, message);
    }
    let before = author.clone();
    for i in 0..20 {
        let mut author = before.clone();
        author.hlc += i;
        let message = author.commit(vec![op("z", "false")], |h| h.live_root = Hash::default());
        assert_eq!(swarm.hand_gossip(0, 2, message), Verdict::Accept, "genuine: it is passed on");
        assert_eq!(swarm.nodes[0].engine.to_scrub(), 0, "the log is not read again for it");
    }
    assert_eq!(swarm.get(0, "z"), None);
    // A later header that proves what is there goes on, whatever lay between.
    let mut author = before;
    let good = author.puts(&["z"], "true");
    swarm.hand_gossip(0, ROGUE, good);
    assert_eq!(swarm.get(0, "z").as_deref(), Some("true"));
    meet(&mut swarm, &[0, 2]);
    ends_the_same(&swarm, &[0, 2]);
}

#[test]
fn of_many_logs_the_same_count_everywhere_however_they_arrive() {
    let mut swarm = Swarm::new(5);
    let logs = 40;
    let commit =
        |swarm: &Swarm, e: u64| Author::new(swarm, ROGUE, e).puts(&[&format!("z{e}")], "z");
    for e in 0..logs {
        let message = commit(&swarm, e);
        swarm.hand_gossip(0, ROGUE, message);
        let message = commit(&swarm, logs - 1 - e);
        swarm.hand_gossip(2, ROGUE, message);
        if e % 2 == 0 {
            let message = commit(&swarm, e);
            swarm.hand_gossip(3, ROGUE, message);
        }
    }
    meet(&mut swarm, &[0, 2, 3, 4]);
    for n in [0, 2, 3, 4] {
        let theirs = swarm.nodes[n].engine.logs();
        let theirs = theirs.iter().filter(|l| l.branch.log.author == swarm.nodes[ROGUE].id);
        assert_eq!(theirs.count(), MAX_LOGS_PER_AUTHOR, "node {n}");
    }
    ends_the_same(&swarm, &[0, 2, 3, 4]);
    let before = swarm.nodes[4].engine.counters().slots_received;
    swarm.pass(600_000);
    assert_eq!(swarm.nodes[4].engine.counters().slots_received, before, "nothing is sent in vain");
}

/// Bytes of a forked log that replicas hold which have all met.
fn held_of_forks() -> u64 {
    let mut swarm = Swarm::granted(4 + 3 * MAX_BRANCHES, |n, grant| {
        if n == ROGUE {
            grant.max_bytes = Some(1_000);
        }
    });
    for i in 0..3 * MAX_BRANCHES {
        let mut author = Author::new(&swarm, ROGUE, 1);
        author.hlc += i as u64;
        let message = author.puts(&[&format!("f{i}")], &"x".repeat(800));
        let to = [0, 2, 3][i % 3];
        // A replica that has one history takes another from a peer only.
        swarm.hand_gossip(4 + i, ROGUE, message);
        meet(&mut swarm, &[4 + i, to]);
        swarm.disconnect_all(4 + i);
    }
    for _ in 0..6 {
        meet(&mut swarm, &[0, 2, 3]);
        for n in [0, 2, 3] {
            swarm.disconnect_all(n);
        }
    }
    meet(&mut swarm, &[0, 2, 3]);
    ends_the_same(&swarm, &[0, 2, 3]);
    swarm.nodes[0].engine.logs().iter().map(|log| log.bytes).sum()
}

#[test]
fn forks_are_kept_to_a_number_and_the_same_ones_everywhere() {
    let held = held_of_forks();
    assert!(held <= 1_000 * MAX_BRANCHES as u64, "{held} bytes");
}

#[test]
#[cfg(feature = "plant")]
fn they_would_fill_the_disk_if_all_histories_were_kept() {
    use swarmkv_protocol::plant::{Plant, plant};
    plant(Some(Plant::KeepAllBranches));
    let held = held_of_forks();
    plant(None);
    assert!(held > 1_000 * MAX_BRANCHES as u64, "{held} bytes");
}

/// One replica has as many long histories of a log as are kept, another as many short ones, and neither has
/// the headers between; whether they come to have the same. Which are kept is up to their hashes.
fn long_and_short(variant: u64) -> bool {
    let mut swarm = Swarm::new(4 + 2 * MAX_BRANCHES);
    for i in 0..2 * MAX_BRANCHES {
        let (source, to) = (4 + i, 2 + i % 2);
        let length = if to == 2 { 8 } else { 1 };
        let mut author = Author::new(&swarm, ROGUE, 1);
        author.hlc += 10 * i as u64 + 1_000 * variant;
        for n in 0..length {
            let message = author.puts(&[&format!("{i} {n}")], "v");
            swarm.hand_gossip(source, ROGUE, message);
        }
        meet(&mut swarm, &[source, to]);
        swarm.disconnect_all(source);
    }
    meet(&mut swarm, &[2, 3]);
    swarm.pass(600_000);
    swarm.hash(2) == swarm.hash(3)
}

#[test]
fn of_long_and_short_histories_the_same_are_kept_everywhere() {
    assert!((0..4).all(long_and_short));
}

#[test]
#[cfg(feature = "plant")]
fn they_would_not_be_if_who_has_all_that_is_kept_were_taken_to_lag_behind() {
    use swarmkv_protocol::plant::{Plant, plant};
    plant(Some(Plant::FullLags));
    let same = (0..4).all(long_and_short);
    plant(None);
    assert!(!same);
}

/// Sixty logs of six members lie on a key, each with a false entry for the owner's log far beyond its head;
/// what the owner's last write shows, there and at another member.
fn beside_a_ransom() -> [Option<String>; 2] {
    let mut swarm = Swarm::new(8);
    swarm.put(0, "k", "honest before");
    let victim = swarm.nodes[0].engine.own_log();
    for rogue in 2..8 {
        for e in 0..10 {
            let mut author = Author::new(&swarm, rogue, e);
            author.hlc = u64::MAX - 5;
            let far = Version { log: victim, seq: 1 << 40, hash: Hash8::new([7; 8]) };
            let ransom = Op { ctx: vec![far], ..op("k", "ransom") };
            let message = author.commit(vec![ransom], |_| ());
            assert_ne!(swarm.hand_gossip(0, rogue, message), Verdict::Reject);
        }
    }
    for i in 0..3 {
        swarm.put(0, "k", &format!("owner {i}"));
    }
    let shown = swarm.get(0, "k");
    meet(&mut swarm, &[0, 1]);
    [shown, swarm.get(1, "k")]
}

#[test]
fn no_number_of_logs_and_no_false_entry_holds_a_key_hostage() {
    assert_eq!(beside_a_ransom(), [Some("owner 2".into()), Some("owner 2".into())]);
}

#[cfg(feature = "plant")]
#[test]
fn it_would_if_an_entry_hid_all_that_came_before_it() {
    use swarmkv_protocol::plant::{Plant, plant};
    plant(Some(Plant::DominateUpTo));
    let shown = beside_a_ransom();
    plant(None);
    assert_ne!(shown[0].as_deref(), Some("owner 2"), "the fault was planted and shows");
}

#[test]
fn an_overwrite_writes_little_and_a_restart_sums_it_up() {
    let mut swarm = Swarm::new(2);
    swarm.put(0, "k", "value");
    let from = swarm.nodes[0].log.len();
    for i in 0..400 {
        swarm.put(0, "k", &format!("{i:05}"));
    }
    let written: usize = swarm.nodes[0].log[from..]
        .iter()
        .filter_map(|output| match output {
            Output::Persist(writes) => Some(writes),
            _ => None,
        })
        .flatten()
        .map(|write| match write {
            Write::Slot { key, slot } => key.len() + slot.op.len() + 16,
            Write::RemoveSlot { key, .. } => key.len() + 16,
            Write::Header { bytes, .. } => bytes.len() + 16,
            Write::Log { record, .. } => record.len(),
            _ => 0,
        })
        .sum();
    println!("{} bytes for each of 400 overwrites of 5 bytes", written / 400);
    assert!(written / 400 < 500, "{} bytes each", written / 400);
    assert!(swarm.nodes[0].disk.0.borrow().len() <= 2, "the value, and the one last recorded");
    swarm.restart(0);
    assert_eq!(swarm.get(0, "k").as_deref(), Some("00399"));
    assert!(swarm.nodes[0].engine.logs().iter().all(|log| !log.aside));
    swarm.put(0, "k", "on");
    swarm.connect(0, 1);
    swarm.pass(10_000);
    assert!(swarm.equal());
    assert_eq!(swarm.get(1, "k").as_deref(), Some("on"));
}

/// A device that opens `epochs` logs, one after the other, with a write in each, and meets another now and then.
fn many_epochs(epochs: usize) -> Swarm {
    let mut swarm = Swarm::new(3);
    swarm.nodes[1].disk.0.borrow_mut().apply(vec![Write::CaughtUp(true)]);
    for i in 0..epochs {
        let disk = swarm.copy(1);
        swarm.put_back(1, &disk, true);
        swarm.put(1, &format!("k{i}"), "v");
        if i % 3 == 0 {
            swarm.connect(0, 1);
            swarm.pass(5_000);
        } else {
            swarm.pass(500);
        }
    }
    swarm.disconnect_all(1);
    meet(&mut swarm, &[0, 1, 2]);
    swarm
}

fn there(swarm: &Swarm, n: usize, keys: usize) -> usize {
    (0..keys).filter(|i| swarm.get(n, &format!("k{i}")).is_some()).count()
}

#[test]
fn hundreds_of_new_epochs_of_an_honest_device_lose_nothing() {
    let swarm = many_epochs(300);
    for n in 0..3 {
        assert_eq!(there(&swarm, n, 300), 300, "node {n}");
    }
    ends_the_same(&swarm, &[0, 1, 2]);
    let logs = swarm.nodes[0].engine.logs().len();
    assert!(logs <= MAX_LOGS_PER_AUTHOR + 2, "{logs} logs");
}

#[cfg(feature = "plant")]
#[test]
fn they_would_if_old_logs_were_not_written_again() {
    use swarmkv_protocol::plant::{Plant, plant};
    plant(Some(Plant::NoSalvage));
    let swarm = many_epochs(20);
    let left = there(&swarm, 0, 20);
    plant(None);
    assert!(left < 20, "the fault was planted and {left} of 20 are there");
}

/// Node 1's write names what it overwrote; a relay changes that name on the way to node 3. Whether node 3
/// takes it.
fn takes_a_changed_context() -> bool {
    let mut swarm = Swarm::new(4);
    swarm.put(0, "k", "first");
    swarm.hand_all(0, 1);
    swarm.put(1, "k", "second");
    swarm.connect(1, 2);
    swarm.pass(20_000);
    swarm.disconnect_all(1);
    swarm.hook = Box::new(|from, _, bytes| {
        let Ok(Repair::Slots(mut slots)) = message::decode(&bytes) else { return Some(bytes) };
        if from == 2 {
            for slot in &mut slots {
                let mut op = Op::read(&slot.op).expect("a sound slot");
                op.ctx.iter_mut().for_each(|named| named.hash = Hash8::new([9; 8]));
                slot.op = Bytes(codec::encode(&op));
            }
        }
        Some(message::encode(&Repair::Slots(slots)))
    });
    swarm.connect(2, 3);
    swarm.pass(20_000);
    let author = swarm.nodes[1].id;
    swarm.nodes[3].engine.heads().iter().any(|(branch, _)| branch.log.author == author)
}

#[test]
fn a_context_that_a_relay_changed_does_not_add_up() {
    assert!(!takes_a_changed_context());
}

#[cfg(feature = "plant")]
#[test]
fn it_would_if_the_live_root_said_nothing_of_contexts() {
    use swarmkv_protocol::plant::{Plant, plant};
    plant(Some(Plant::RootWithoutContext));
    let taken = takes_a_changed_context();
    plant(None);
    assert!(taken, "the fault was planted and shows");
}
