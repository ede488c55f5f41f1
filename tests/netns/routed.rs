//! Two segments with a router between, over which no multicast goes: one told address leads to all.

use swarmkv_tests::{connected, equal, until};

use crate::lan::lan;

#[test]
fn a_machine_beyond_a_router_is_told_one_address_and_finds_the_others() {
    let Some(lan) = lan() else { return };
    let (near, far) = (lan.switch("near"), lan.switch("far"));
    let router = lan.host("router");
    router.plug("eth0", &near, "10.78.1.254/24");
    router.plug("eth1", &far, "10.78.2.254/24");
    router.forward();
    let places = [
        ("a", &near, "10.78.1.1/24", "10.78.1.254"),
        ("b", &near, "10.78.1.2/24", "10.78.1.254"),
        ("c", &far, "10.78.2.1/24", "10.78.2.254"),
    ];
    let [a, b, c] = places.map(|(name, switch, address, gateway)| {
        let host = lan.host(name);
        host.plug("eth0", switch, address);
        host.default_route(gateway);
        host.device(name)
    });
    let mut a = a.founded();
    let mut b = b.admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    let early = b.put("early", "from b");
    assert_eq!(a.get_at_least("early", &early), "from b");

    let mut c = c.admitted_by(&a, &[]);
    c.up_with(&["--peer", &a.address("tcp")]);
    let took =
        until("c is connected to b", || c.peer("b").is_some_and(|peer| peer["connected"] == true));
    eprintln!("from `up` beyond a router to a member found through Kademlia: {took:?}");
    let sources = [c.peer("b"), b.peer("c")].map(|peer| peer.expect("a member")["source"].clone());
    assert!(sources.contains(&"kad".into()), "whoever dialled found it so: {sources:?}");
    assert!(!sources.contains(&"mdns".into()), "no multicast crosses the router: {sources:?}");
    connected(&[&a, &b, &c]);
    assert_eq!(c.get("early").as_deref(), Some("from b"));
    let version = c.put("from far", "hello");
    assert_eq!(a.get_at_least("from far", &version), "hello");
    assert_eq!(b.get_at_least("from far", &version), "hello");

    a.kill();
    let there = c.put("without a", "from c");
    assert_eq!(b.get_at_least("without a", &there), "from c");
    let back = b.put("without a", "from b");
    assert_eq!(c.get_at_least("without a", &back), "from b");
    equal(&[&b, &c]);
}
