//! Two machines on one network, no configuration: they find each other by multicast DNS.

use serde_json::Value;
use swarmkv_tests::{Device, connected, equal};

use crate::lan::{Lan, lan};

fn two_hosts(lan: &Lan) -> (Device, Device) {
    let switch = lan.switch("switch");
    let hosts = [("a", "10.77.0.1/24"), ("b", "10.77.0.2/24")].map(|(name, address)| {
        let host = lan.host(name);
        host.plug("eth0", &switch, address);
        host.device(name)
    });
    let [a, b] = hosts;
    (a, b)
}

fn source(device: &Device, label: &str) -> Value {
    device.peer(label).expect("a member")["source"].clone()
}

#[test]
fn two_machines_that_know_no_address_find_each_other() {
    let Some(lan) = lan() else { return };
    let (a, mut b) = two_hosts(&lan);
    let mut a = a.founded();
    let ticket = a.invite(&[]);
    let _ = b.join(&ticket).well();
    b.up();
    connected(&[&a, &b]);
    let hello = a.put("greeting", "hello");
    assert_eq!(b.get_at_least("greeting", &hello), "hello");

    // Both start again at other ports: what they remember of each other leads nowhere.
    let mut times = Vec::new();
    for round in 0..3 {
        let old = [a.address("tcp"), b.address("tcp")];
        a.kill();
        b.kill();
        let listen = format!("/ip4/0.0.0.0/tcp/{}", 4001 + round);
        a.up_with(&["--listen", &listen]);
        b.start(&["--listen", &listen]);
        let begun = std::time::Instant::now();
        b.answers();
        connected(&[&a, &b]);
        times.push(begun.elapsed());
        assert!(!old.contains(&a.address("tcp")) && !old.contains(&b.address("tcp")));
        let sources = [source(&a, "b"), source(&b, "a")];
        assert!(sources.contains(&"mdns".into()), "whoever dialled found it so: {sources:?}");
        let version = b.put("round", &round.to_string());
        assert_eq!(a.get_at_least("round", &version), round.to_string());
    }
    eprintln!("from `up` to connected by mDNS: {times:?}");
    equal(&[&a, &b]);
}
