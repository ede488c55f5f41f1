//! Whoever is no member gets nothing in and nothing out.

use serde_json::Value;
use swarmkv_node::protocol::id::DeviceId;
use swarmkv_node::stranger;
use swarmkv_tests::{Device, connected, until};

fn id<T: std::str::FromStr>(status: &Value, name: &str) -> T {
    let text = status[name].as_str().expect("an id");
    text.parse().ok().expect("an id can be read back")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_write_is_turned_away_on_every_path() {
    let a = Device::new("a").founded();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    let status = a.status();
    let (device, swarm): (DeviceId, _) = (id(&status, "device_id"), id(&status, "swarm_id"));
    let tried =
        stranger::try_to_write(&a.address("tcp"), device, swarm, b"forged", b"by nobody").await;
    let turned_away = tried.expect("turned away on every path");
    assert!(turned_away.join.contains("refused"), "{turned_away:?}");
    until("the refusal is counted", || a.counter("strangers_refused") == 1);

    // What a true member writes after the attempt is there, so the forged write had its time.
    let later = a.put("later", "true");
    assert_eq!(b.get_at_least("later", &later), "true");
    for peer in [&a, &b] {
        assert_eq!(peer.get("forged"), None);
        assert_eq!(peer.run(["get", "--siblings", "forged"]).code, 3);
        assert_eq!(peer.status()["logs"].as_array().map(Vec::len), Some(1));
    }
}

#[test]
fn a_device_of_another_swarm_that_knows_our_address_gets_and_gives_nothing() {
    let ours = Device::new("ours").founded();
    ours.put("secret", "ours");
    let mut theirs = Device::new("theirs").founded();
    theirs.put("foreign", "theirs");
    theirs.stop();
    let before = ours.state();
    theirs.up_with(&["--peer", &ours.address("tcp")]);
    until("it has tried", || ours.counter("strangers_refused") > 0);
    for (peer, own, others) in [(&ours, "secret", "foreign"), (&theirs, "foreign", "secret")] {
        let status = peer.status();
        assert_eq!(status["peers"], Value::Array(Vec::new()), "no connection is a member's");
        assert_eq!(status["members"], 1);
        assert_eq!(status["logs"].as_array().map(Vec::len), Some(1));
        assert_eq!(peer.get(others), None);
        assert!(peer.get(own).is_some());
    }
    assert_eq!(ours.state(), before);
}
