//! Many keys: an import, a late peer, the same export on both, little memory.

use std::fmt::Write;
use std::time::Instant;

use swarmkv_tests::{Device, equal};

const KEYS: usize = 20_000;
/// Most memory that the late peer may ever have had, in kilobytes.
const MEMORY_KB: u64 = 150 * 1024;

#[test]
fn twenty_thousand_imported_keys_reach_a_peer_that_was_away() {
    let a = Device::new("a").founded();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    b.up();
    equal(&[&a, &b]);
    b.kill();
    let mut lines = String::new();
    for n in 0..KEYS {
        let value = format!("{n:0>200}");
        writeln!(lines, "{{\"key\":\"bulk/{n:06}\",\"value\":\"{value}\"}}").expect("text grows");
    }
    let begun = Instant::now();
    a.import(&lines);
    let imported = begun.elapsed();
    let begun = Instant::now();
    b.up();
    equal(&[&a, &b]);
    let caught_up = begun.elapsed();
    let (here, there) = (a.export(), b.export());
    assert_eq!(here.iter().filter(|byte| **byte == b'\n').count(), KEYS);
    assert!(here == there, "the exports differ");
    let peak = b.peak_memory_kb();
    eprintln!("imported {KEYS} keys in {imported:?}, caught up in {caught_up:?}, peak {peak} kB");
    assert!(peak < MEMORY_KB, "{peak} kB");
}
