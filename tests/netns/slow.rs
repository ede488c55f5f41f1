//! A line so slow that one value takes longer to cross than a silent session is borne.

use std::time::Duration;

use swarmkv_tests::{connected, equal, until_within};

use crate::lan::lan;

/// Bytes of the value; a mebibyte is the most.
const SIZE: usize = 1_000_000;
/// At this rate it takes 40 s; 30 s without progress end a session.
const RATE: &str = "200kbit";
const ARRIVED: Duration = Duration::from_secs(150);

#[test]
fn a_large_value_crosses_a_slow_line() {
    let Some(lan) = lan() else { return };
    let switch = lan.switch("switch");
    let hosts = [("a", "10.84.0.1/24"), ("b", "10.84.0.2/24")].map(|(name, address)| {
        let host = lan.host(name);
        host.plug("eth0", &switch, address);
        host
    });
    let a = hosts[0].device("a").founded();
    let mut b = hosts[1].device("b").admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    hosts[0].shape("eth0", RATE);
    let value: Vec<u8> = (0..SIZE).map(|n| b'a' + (n % 23) as u8).collect();
    let put = a.feed(["put", "large", "-"], &value);
    assert_eq!(put.code, 0, "{}", put.err);
    let began = b.counter("repairs") + b.counter("gap_repairs");
    let took = until_within(ARRIVED, "the value is there", || b.get("large").is_some());
    equal(&[&a, &b]);
    assert_eq!(b.get("large").map(String::into_bytes), Some(value));
    let sessions = b.counter("repairs") + b.counter("gap_repairs") - began;
    eprintln!("a value of {SIZE} bytes crossed {RATE} in {took:?}, in {sessions} sessions");
    assert_eq!(b.counter("slots_in_vain"), 0);
}
