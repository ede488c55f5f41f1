//! Machines with less than one expects: no IPv6, no network at all.

use swarmkv_tests::{connected, equal};

use crate::lan::lan;

#[test]
fn a_machine_with_loopback_alone_runs_with_the_defaults() {
    let Some(lan) = lan() else { return };
    let host = lan.host("alone");
    let a = host.device("a").founded();
    a.put("k", "v");
    assert_eq!(a.get("k").as_deref(), Some("v"));
    let mut b = host.device("b").admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    let version = b.put("k", "from b");
    assert_eq!(a.get_at_least("k", &version), "from b");
    equal(&[&a, &b]);
}

#[test]
fn machines_without_ipv6_join_and_replicate() {
    let Some(lan) = lan() else { return };
    let switch = lan.switch("switch");
    let [a, b] = [("a", "10.80.0.1/24"), ("b", "10.80.0.2/24")].map(|(name, address)| {
        let host = lan.host(name);
        host.without_ipv6();
        host.plug("eth0", &switch, address);
        host.device(name)
    });
    let a = a.founded();
    let mut b = b.admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    let version = a.put("k", "v");
    assert_eq!(b.get_at_least("k", &version), "v");
}
