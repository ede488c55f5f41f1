//! What is explored of views, and which rules are shown to be needed.

use super::Config;
use super::check::Views;
use crate::search::{self, Bound};

/// A case, its configuration, and the states after which its search ends in an ordinary run.
type Case = (&'static str, Config, usize);

fn explore((name, config, states): Case) {
    let model = Views(config);
    let outcome = search::breadth_first(&model, Bound::states(states));
    search::expect_none(&model, name, outcome);
}

fn walk((name, config, steps): Case) {
    let model = Views(config);
    let outcome = search::walks(&model, 40, 7919, Bound::states(steps));
    search::expect_none(&model, name, outcome);
}

fn base() -> Config {
    Config::mended()
}

#[test]
fn the_mended_rules_keep_views_right() {
    let cases: [Case; 8] = [
        ("no copy, 4 writes", Config { copy: false, writes: 4, ..base() }, 200_000),
        ("a copy, 3 writes", base(), 500_000),
        ("a copy, 4 puts", Config { writes: 4, deletes: false, ..base() }, 200_000),
        (
            "a copy, 4 puts, 2 elsewhere",
            Config { writes: 4, elsewhere: 2, deletes: false, ..base() },
            100_000,
        ),
        ("a copy, 4 devices", Config { replicas: 4, ..base() }, 100_000),
        ("a history set aside", Config { losses: 1, ..base() }, 150_000),
        ("device 2 lies", Config { liar: Some(2), lies: 1, ..base() }, 150_000),
        ("the forked author lies", Config { liar: Some(0), lies: 1, ..base() }, 150_000),
    ];
    cases.into_iter().for_each(explore);
}

#[test]
fn walks_find_nothing_in_the_mended_rules() {
    let wide = Config { replicas: 4, writes: 8, elsewhere: 4, ..base() };
    let cases: [Case; 3] = [
        ("walk: a copy", wide.clone(), 200_000),
        ("walk: a history set aside", Config { losses: 2, ..wide.clone() }, 200_000),
        ("walk: device 2 lies", Config { liar: Some(2), lies: 3, ..wide }, 200_000),
    ];
    cases.into_iter().for_each(walk);
}

/// Each rule taken out, with what then goes wrong.
fn guards() -> Vec<Case> {
    let puts = Config { deletes: false, ..base() };
    let four = Config { writes: 4, elsewhere: 0, deletes: false, ..base() };
    let plain = Config { copy: false, ..four.clone() };
    let lost = Config { losses: 1, ..puts.clone() };
    let lies = Config { liar: Some(2), lies: 1, ..base() };
    let most = 2_000_000;
    vec![
        ("(i) taken out", Config { exact: false, ..base() }, most),
        ("(ii) taken out", Config { replicas: 4, older: false, ..plain.clone() }, most),
        (
            "(ii) also where the named write is here",
            Config { until_here: false, ..puts.clone() },
            most,
        ),
        ("(ii) also for what has seen the dominator", Config { unseen: false, ..lies }, most),
        ("only one history of a fork named", Config { name_both: false, ..puts.clone() }, most),
        ("nothing carried on", Config { carry: false, ..lost }, most),
        (
            "carried on by number in a fork",
            Config { losses: 1, carry_forked: false, ..four.clone() },
            most,
        ),
        (
            "more than the greatest entry kept",
            Config { losses: 1, greatest_only: false, ..plain },
            most,
        ),
        ("what both share, superseded by one", Config { shared_superseded: false, ..base() }, most),
        (
            "(ii) whatever the other history has",
            Config { elsewhere_here: false, ..puts.clone() },
            most,
        ),
        (
            "(ii) unless the very slot is here",
            Config { later_too: false, elsewhere: 1, ..four.clone() },
            most,
        ),
        ("(ii) by the head of the one history", Config { one_history: false, ..puts }, most),
        ("deletes hide by stamp", Config { values_win: false, ..base() }, most),
        ("no new epoch after a fork", Config { new_epoch: false, ..base() }, most),
        ("ties by what came first", Config { whole_hash: false, ..base() }, most),
    ]
}

#[test]
fn each_guard_of_views_is_needed() {
    let mut none = Vec::new();
    for (name, config, states) in guards() {
        let model = Views(config);
        let outcome = search::breadth_first(&model, Bound::states(states));
        if !search::expect_some(&model, name, outcome) {
            none.push(name);
        }
    }
    assert!(none.is_empty(), "no violation found with: {none:?}");
}

/// A known limit, and the reason why `returned` waits for a history that is known to be behind: a
/// slot of one history may return until the rest of that history is here.
#[test]
fn a_history_behind_the_other_may_show_what_was_overwritten() {
    let config = Config { writes: 4, elsewhere: 2, deletes: false, strict: true, ..base() };
    let model = Views(config);
    let acts = known_limit();
    let fault = search::replay(&model, &acts);
    assert_eq!(fault, Some("what was seen overwritten or deleted is live again"));
}

fn known_limit() -> Vec<super::act::Act> {
    use super::Kind::{Elsewhere, Put};
    use super::act::Act::{Copy, Take, Write};
    let write = |device, kind| Write { device, kind };
    let take = |device, history| Take { device, history };
    vec![
        Copy,
        write(0, Put),
        write(0, Put),
        write(1, Elsewhere),
        take(0, 1),
        write(0, Put),
        write(1, Elsewhere),
        write(1, Put),
        take(2, 0),
        take(2, 1),
        take(2, 1),
        take(2, 2),
        take(2, 1),
    ]
}
