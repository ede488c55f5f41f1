//! The main job as the README tells it: two devices, no server, no configuration.

use swarmkv_tests::{Device, connected, equal};

#[test]
fn a_value_put_on_one_device_is_read_on_the_other() {
    let a = Device::new("a").founded();
    let ticket = a.invite(&[]);
    let mut b = Device::new("b");
    let joined = b.join(&ticket).well();
    assert!(joined.err.contains("Joined the swarm \"home\" as \"b\" (writer)."), "{joined:?}");
    b.up();
    connected(&[&a, &b]);

    let hello = a.put("greeting", "hello");
    assert_eq!(b.get_at_least("greeting", &hello), "hello");
    let back = b.put("answer", "hello yourself");
    assert_eq!(a.get_at_least("answer", &back), "hello yourself");
    equal(&[&a, &b]);
}

#[test]
fn a_ticket_on_standard_input_admits_too_and_what_was_there_before_arrives() {
    let a = Device::new("a").founded();
    a.put("early", "bird");
    let ticket = a.run(["invite", "--quiet"]).well();
    let mut b = Device::new("b");
    let joined = b.feed(["join", "--json", "--label", "b", "-"], &ticket.out).well().json();
    assert_eq!((&joined["inviter"], &joined["swarm"]), (&"a".into(), &"home".into()));
    b.up();
    assert_eq!(b.get("early").as_deref(), Some("bird"), "a read waits for the first catch-up");
    a.del(&["early"]);
    equal(&[&a, &b]);
    assert_eq!(b.get("early"), None);
}
