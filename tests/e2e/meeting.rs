//! Members that have not heard of each other, or know only one of the others, find together.

use swarmkv_tests::{Device, connected, equal, until};

/// A founds, C is a member and down; B is admitted meanwhile; A goes away.
fn unknown_to_each_other() -> (Device, Device, Device) {
    let mut a = Device::new("a").founded();
    let mut c = Device::new("c").admitted_by(&a, &[]);
    c.up();
    let seed = a.put("seed", "from a");
    assert_eq!(c.get_at_least("seed", &seed), "from a");
    c.stop();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    b.up();
    let late = a.put("late", "while c was away");
    assert_eq!(b.get_at_least("late", &late), "while c was away");
    a.kill();
    (a, b, c)
}

#[test]
fn a_newcomer_that_dials_an_older_member_introduces_itself() {
    let (_a, mut b, mut c) = unknown_to_each_other();
    c.up();
    assert_eq!(c.status()["members"], 2, "c has never heard of b");
    b.stop();
    b.up_with(&["--peer", &c.address("tcp")]);
    let took = connected(&[&b, &c]);
    eprintln!("introduced in {took:?}");
    equal(&[&b, &c]);
    assert_eq!(c.get("late").as_deref(), Some("while c was away"));
    let version = c.put("k", "from c");
    assert_eq!(b.get_at_least("k", &version), "from c");
}

#[test]
fn an_older_member_that_dials_a_newcomer_is_introduced_to_it() {
    let (_a, b, mut c) = unknown_to_each_other();
    c.up_with(&["--peer", &b.address("tcp")]);
    let took = connected(&[&b, &c]);
    eprintln!("introduced in {took:?}");
    equal(&[&b, &c]);
    let version = b.put("k", "from b");
    assert_eq!(c.get_at_least("k", &version), "from b");
    assert_eq!(c.status()["members"], 3);
}

#[test]
fn one_told_address_leads_to_all_the_others() {
    let mut a = Device::new("a").founded();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    let mut c = Device::new("c").admitted_by(&a, &[]);
    c.up_with(&["--peer", &a.address("tcp")]);
    let took =
        until("c is connected to b", || c.peer("b").is_some_and(|peer| peer["connected"] == true));
    eprintln!("found through Kademlia in {took:?}");
    let sources = [c.peer("b"), b.peer("c")].map(|peer| peer.expect("a member")["source"].clone());
    assert!(sources.contains(&"kad".into()), "whoever dialled found it so: {sources:?}");
    connected(&[&a, &b, &c]);

    a.kill();
    let version = c.put("without a", "still here");
    assert_eq!(b.get_at_least("without a", &version), "still here");
}
