//! A cable pulled between two machines: both sides go on writing, and agree when it is back.

use std::time::Duration;

use swarmkv_tests::{connected, equal, until_within};

use crate::lan::lan;

/// Two pings at intervals of 20 s must fail before a silent connection is given up.
const NOTICED: Duration = Duration::from_secs(120);
const B: &str = "10.79.0.2/24";

#[test]
fn both_sides_of_a_cut_cable_go_on_writing_and_agree_when_it_is_mended() {
    let Some(lan) = lan() else { return };
    let switch = lan.switch("switch");
    let [a, b] = [("a", "10.79.0.1/24"), ("b", B)].map(|(name, address)| {
        let host = lan.host(name);
        host.plug("eth0", &switch, address);
        host.device(name)
    });
    let a = a.founded();
    let mut b = b.admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    let common = a.put("contended", "common");
    assert_eq!(b.get_at_least("contended", &common), "common");

    // First a short cut, which the connection survives; then one that both sides notice.
    for noticed in [false, true] {
        switch.cable(B, false);
        let (here, there) = (format!("a, {noticed}"), format!("b, {noticed}"));
        a.put("contended", &here);
        b.put("contended", &there);
        a.put(&format!("only a, {noticed}"), "x");
        b.put(&format!("only b, {noticed}"), "y");
        if noticed {
            let both = || a.linked().is_empty() && b.linked().is_empty();
            let took = until_within(NOTICED, "both have noticed", both);
            eprintln!("both sides noticed the cut after {took:?}");
        }
        assert_eq!(b.get(&format!("only a, {noticed}")), None, "nothing crosses a cut");
        switch.cable(B, true);
        let took = equal(&[&a, &b]);
        eprintln!("equal {took:?} after the cable was mended (cut noticed: {noticed})");
        assert_eq!(a.siblings("contended"), b.siblings("contended"));
        let mut values: Vec<_> =
            a.siblings("contended").into_iter().filter_map(|s| s.value).collect();
        values.sort_unstable();
        assert_eq!(values, [here, there]);
        assert_eq!(a.get("contended"), b.get("contended"));
        assert_eq!(a.get(&format!("only b, {noticed}")).as_deref(), Some("y"));
        assert_eq!(b.get(&format!("only a, {noticed}")).as_deref(), Some("x"));
    }
}
