//! What is explored of counters, and which rules are shown to be needed.

use super::check::Counters;
use super::{Config, Kind};
use crate::search::{self, Bound};

/// A case, its configuration, and the states after which its search ends in an ordinary run.
type Case = (&'static str, Config, usize);

/// Adds and deletes alone.
const PLAIN: &[Kind] = &[Kind::Add(1), Kind::Add(-1), Kind::Delete];
/// One add, a put, a delete.
const FEW: &[Kind] = &[Kind::Add(1), Kind::Put, Kind::Delete];

fn base() -> Config {
    Config::mended()
}

#[test]
fn the_mended_rules_keep_counters_right() {
    let three = Config { replicas: 3, ..base() };
    let cases: [Case; 7] = [
        (
            "adds and deletes as designed, 5 writes",
            Config { writes: 5, kinds: PLAIN, ..letter() },
            200_000,
        ),
        (
            "adds and deletes as designed, 3 devices",
            Config { replicas: 3, kinds: PLAIN, ..letter() },
            200_000,
        ),
        ("2 devices, 4 writes", base(), 200_000),
        ("2 devices, 6 writes", Config { writes: 6, kinds: FEW, ..base() }, 200_000),
        ("3 devices, 4 writes", Config { kinds: FEW, ..three.clone() }, 200_000),
        ("an epoch, 4 writes", Config { epochs: true, ..base() }, 200_000),
        ("an epoch, 3 devices", Config { epochs: true, kinds: FEW, ..three }, 200_000),
    ];
    for (name, config, states) in cases {
        let model = Counters(config);
        let outcome = search::breadth_first(&model, Bound::states(states));
        search::expect_none(&model, name, outcome);
    }
}

fn letter() -> Config {
    Config::letter()
}

#[test]
fn walks_find_nothing_in_the_mended_rules() {
    let wide = Config { replicas: 3, writes: 12, ..base() };
    let cases: [Case; 2] = [
        ("walk: 3 devices", wide.clone(), 250_000),
        ("walk: 3 devices, an epoch", Config { epochs: true, ..wide }, 250_000),
    ];
    for (name, config, steps) in cases {
        let model = Counters(config);
        let outcome = search::walks(&model, 48, 104_729, Bound::states(steps));
        search::expect_none(&model, name, outcome);
    }
}

/// Takings do what naming does, as long as no taking is dropped.
#[test]
fn what_a_context_names_is_taken_too() {
    let config = Config { named_out: false, epochs: true, ..base() };
    let model = Counters(config);
    let outcome = search::breadth_first(&model, Bound::states(150_000));
    search::expect_none(&model, "what a context names counts in T", outcome);
}

/// Each rule taken out, with what then goes wrong.
fn guards() -> Vec<Case> {
    let plain = Config { kinds: PLAIN, ..base() };
    let few = Config { kinds: FEW, ..base() };
    let three = Config { replicas: 3, ..few.clone() };
    let most = 3_000_000;
    vec![
        ("nothing is subtracted", Config { taken: false, ..plain.clone() }, most),
        ("subtracted below 0", Config { floor: false, replicas: 3, ..plain.clone() }, most),
        ("only undominated slots took", Config { all_took: false, ..few.clone() }, most),
        ("a delete takes T alone", Config { takes_both: false, ..plain.clone() }, most),
        ("takings not carried", Config { carry_took: false, ..plain.clone() }, most),
        (
            "takings of absent parts not carried",
            Config { carry_absent: false, ..three.clone() },
            most,
        ),
        ("one part a log for ever", Config { first: false, ..plain.clone() }, most),
        ("ups and downs in one total", Config { apart: false, ..plain.clone() }, most),
        ("adds name counter slots", Config { spare_counters: false, ..plain }, most),
        ("adopted as an own part", Config { adopt_by_name: false, ..few.clone() }, most),
        ("adds name no values", Config { name_values: false, ..few.clone() }, most),
        ("copied as own parts", Config { epochs: true, copy_by_name: false, ..few.clone() }, most),
        ("values are not taken", Config { take_values: false, ..few.clone() }, most),
        ("values not adopted are not taken", Config { take_unadopted: false, ..few }, most),
        ("a counter ends an old entry", Config { keep_beside_counter: false, ..three }, most),
    ]
}

#[test]
fn each_guard_of_counters_is_needed() {
    let mut none = Vec::new();
    for (name, config, states) in guards() {
        let model = Counters(config);
        let outcome = search::breadth_first(&model, Bound::states(states));
        if !search::expect_some(&model, name, outcome) {
            none.push(name);
        }
    }
    assert!(none.is_empty(), "no violation found with: {none:?}");
}
