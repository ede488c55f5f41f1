//! What is explored of counters, and which rules are shown to be needed.
use super::check::Counters;
use super::{Config, Kind};
use crate::search::{self, Bound};

#[test]
fn cprobe() {
    let base = Config::letter();
    let which = std::env::var("P").unwrap_or_default();
    let c3 = Config { replicas: 3, ..Config::mended() };
    let config = match which.as_str() {
        "m" => Config::mended(),
        "a" => Config { kinds: &[Kind::Add(1), Kind::Add(-1), Kind::Delete], ..base },
        "e" => Config { epochs: true, ..Config::mended() },
        "v" => Config { take_values: true, ..base },
        "u" => Config { take_values: true, take_unadopted: true, replicas: 3, ..base },
        "m3" => c3,
        "m35" => Config { writes: 5, kinds: &[Kind::Add(1), Kind::Put, Kind::Delete], ..c3 },
        "m25" => Config { writes: 6, ..Config::mended() },
        _ => base,
    };
    let model = Counters(config);
    let out = search::breadth_first(
        &model,
        Bound { states: 8_000_000, time: std::time::Duration::from_secs(20) },
    );
    println!("{} states, depth {}, full {}", out.states, out.depth, out.full);
    if let Some((what, acts)) = out.found {
        println!("{what} ({} steps)\n{}", acts.len(), search::narrate(&model, &acts));
    }
}
