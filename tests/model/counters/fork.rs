//! Adds in a log with two histories: what a part must be named by, so that none is lost in the
//! join.
//!
//! A device adds some times, its directory is copied, both go on adding. Amounts are 1 each,
//! nothing is deleted: what the join of both slots must show is the number of adds.

use std::collections::BTreeMap;

/// What tells parts apart, and when one is begun.
#[derive(Clone, Copy)]
struct Rule {
    /// By the hash of the write that began it, not only by its number.
    hash: bool,
    /// The first add after a start of the process begins a part; a copy put to use is a start.
    start: bool,
}

/// A part's name: the number that began it, and on which side, if a hash tells.
type Name = (u8, u8);

/// The parts of the slot at the end of a history: `shared` adds, then `own` more on a side.
fn parts(rule: Rule, side: u8, shared: u8, own: u8) -> BTreeMap<Name, u8> {
    let mut parts = BTreeMap::new();
    let mut current = (1, 0);
    for seq in 1..=shared + own {
        let here = if rule.hash && seq > shared { side } else { 0 };
        let started = rule.start && side == 2 && seq == shared + 1;
        if seq == 1 || started {
            current = (seq, here);
        }
        *parts.entry(current).or_default() += 1;
    }
    parts
}

/// The least case, by the number of adds, in which the join shows another number than there were
/// adds.
fn lost(rule: Rule) -> Option<(u8, u8, u8)> {
    let counts = (0..=4).flat_map(|a| (0..=4).flat_map(move |b| (0..=4).map(move |c| (a, b, c))));
    let wrong = |&(shared, first, second): &(u8, u8, u8)| {
        let mut join = parts(rule, 1, shared, first);
        for (name, up) in parts(rule, 2, shared, second) {
            let entry = join.entry(name).or_default();
            *entry = up.max(*entry);
        }
        join.values().sum::<u8>() != shared + first + second
    };
    counts.filter(wrong).min_by_key(|(a, b, c)| a + b + c)
}

#[test]
fn no_add_is_lost_in_a_fork() {
    assert_eq!(lost(Rule { hash: true, start: true }), None);
}

#[test]
fn each_guard_of_adds_in_a_fork_is_needed() {
    let cases = [
        ("named by a number, as designed", Rule { hash: false, start: false }),
        ("named by a hash, the copy goes on in the old part", Rule { hash: true, start: false }),
        ("a new part at each start, named by a number", Rule { hash: false, start: true }),
    ];
    for (name, rule) in cases {
        let found = lost(rule);
        println!("{name}: (shared, first, second) = {found:?}");
        assert!(found.is_some(), "nothing lost with: {name}");
    }
}
