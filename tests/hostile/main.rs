//! A peer written to attack, over real connections, against real peers: what it may not do it cannot, what
//! it can it pays for, and nobody honest is ever blamed.
//!
//! `cargo test -p swarmkv-tests --test hostile -- --nocapture` prints the attack table. Attacks take a few
//! seconds each; `SWARMKV_HOSTILE_SECONDS=n` makes them last longer. The attacker runs on one core, its
//! victims on another, where the machine has two.

mod reader;
mod table;
mod town;

use town::{Attack, Town};

/// Messages that every honest node refuses: the sender is out within seconds.
#[test]
fn whoever_floods_with_what_nobody_honest_sends_is_cut_off() {
    let mut town = Town::founded();
    for (name, rate) in [
        ("garbage", 1),
        ("garbage", 10),
        ("garbage", 1_000),
        ("forged", 10),
        ("not-granted", 10),
        ("cross-swarm", 10),
        ("not-canonical", 10),
        ("oversize", 10),
        ("false-ops", 20),
        ("giant-digest", 5),
        ("nonsense-frames", 20),
    ] {
        let seconds = if rate == 1 { 10 } else { 0 };
        let outcome = town.attacked(&Attack::member(name, rate).lasting(seconds));
        assert!(outcome.cut_off_ms.is_some_and(|ms| ms < 30_000), "{name}: {outcome:?}");
    }
    town.report();
}

/// Genuine messages, and those that an honest node may pass on for want of knowledge: nobody is punished.
#[test]
fn what_an_honest_peer_could_pass_on_is_never_punished() {
    let mut town = Town::founded();
    for (name, rate) in [
        ("wrong-root", 10),
        ("unknown-grant", 10),
        ("newer-version", 10),
        ("far-future", 10),
        ("equivocation", 5),
        ("replay", 50),
        ("lying-digest", 5),
        ("sessions", 50),
        ("newer-frames", 20),
    ] {
        let outcome = town.attacked(&Attack::member(name, rate));
        assert_eq!((outcome.blocked_by, outcome.offences), (0, 0), "{name}: {outcome:?}");
        assert!(outcome.least_score >= 0.0, "{name}: {outcome:?}");
        assert!(outcome.sent > 0, "{name}: {outcome:?}");
    }
    town.report();
}

/// A member that writes as fast as it can is no offence, but it does not stop the others.
#[test]
fn a_members_flood_leaves_the_others_served() {
    let mut town = Town::founded();
    // 256 operations a commit: 50,000 a second.
    let outcome = town.attacked(&Attack::member("flood", 195));
    assert_eq!(outcome.blocked_by, 0, "{outcome:?}");
    town.report();
}

/// Streams that stall, frames that never end, and dials, from a member and from strangers.
#[test]
fn streams_and_dials_cost_the_attacker_more() {
    let mut town = Town::founded();
    for attack in [
        Attack::member("slow", 50),
        Attack::member("giant-frame", 50),
        Attack::member("garbage-streams", 50),
        Attack::stranger("slow", 50),
        Attack::stranger("garbage-streams", 50),
        Attack::stranger("dials", 200),
    ] {
        town.attacked(&attack);
    }
    town.report();
}

/// A genuine commit arrives although somebody spread its header over other operations first.
#[test]
fn a_genuine_commit_cannot_be_suppressed_by_false_operations() {
    let mut town = Town::founded();
    let outcome = town.attacked(&Attack::member("false-ops", 50));
    assert!(outcome.sent > 0);
    // The town checks after every attack that all that was put is everywhere and nothing else is.
}
