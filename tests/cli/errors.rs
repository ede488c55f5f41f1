//! Messages, hints and exit codes that need no running peer.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::Device;

#[test]
fn mistakes_in_typing() {
    let device = Device::new();
    let mistakes: [&[&str]; 12] = [
        &["putt", "k", "v"],
        &["put"],
        &["put", "k"],
        &["put", "k", "v", "--file", "f"],
        &["put", "k", "v", "--ttl", "10"],
        &["put", "--key-base64", "§", "v"],
        &["get"],
        &["get", "-dash"],
        &["del", "a", "b", "--if-version", "x"],
        &["invite", "--role", "king"],
        &["invite", "--uses", "0"],
        &["join", "hello"],
    ];
    let mut seen = String::new();
    for mistake in mistakes {
        let ran = device.run(mistake);
        assert_eq!((ran.code, ran.text()), (2, ""), "{mistake:?}: {ran:?}");
        seen.push_str(&format!("$ swarmkv {}\n{}\n", mistake.join(" "), ran.err));
    }
    insta::assert_snapshot!(seen);
}

#[test]
fn a_mistake_is_told_as_json_when_asked() {
    let device = Device::new();
    for args in [["put", "--json"].as_slice(), &["--json", "put", "k"], &["join", "x", "--json"]] {
        let ran = device.run(args);
        let error: Value = serde_json::from_str(&ran.err).unwrap();
        assert_eq!((ran.code, &error["kind"]), (2, &"usage".into()), "{args:?}");
        assert!(error["message"].is_string() && error["hint"].is_string(), "{error}");
    }
    let ran = device.run(["put", "--", "--json"]);
    assert!(ran.err.starts_with("error: "), "a key called --json asks for nothing: {}", ran.err);
}

#[test]
fn without_a_swarm() {
    let device = Device::new();
    let mut seen = String::new();
    for command in [["get", "k"].as_slice(), &["up"], &["up", "--detach"], &["get", "k", "--json"]]
    {
        let ran = device.run(command);
        seen.push_str(&format!("$ swarmkv {}\n{}\n", command.join(" "), ran.shown(device.dir())));
    }
    insta::assert_snapshot!(seen);
    assert!(!device.dir().exists(), "a failed command leaves nothing behind");
}

#[test]
fn without_a_running_peer() {
    let device = Device::new();
    device.run(["init", "--quiet"]).quietly();
    let commands: [&[&str]; 9] = [
        &["put", "k", "v"],
        &["get", "k"],
        &["del", "k"],
        &["ls"],
        &["import"],
        &["invite"],
        &["status"],
        &["peers"],
        &["get", "k", "--siblings"],
    ];
    for command in commands {
        let ran = device.run(command);
        assert_eq!((ran.code, ran.text()), (4, ""), "{command:?}");
        assert_eq!(
            ran.err,
            "error: No peer is running for this data directory.\nhint: Start one with: swarmkv up\n"
        );
    }
}

#[test]
fn a_second_init_changes_nothing() {
    let device = Device::new();
    let first = device.run(["init", "--json", "--name", "home", "--label", "laptop"]).quietly();
    let object = first.json();
    for field in ["swarm", "swarm_id", "device", "device_id", "data_dir"] {
        assert!(object[field].is_string(), "{field} in {object}");
    }
    insta::assert_snapshot!(device.run(["init"]).shown(device.dir()));
}

#[test]
fn a_swarm_needs_a_name() {
    let device = Device::new();
    let ran = device.run(["init", "--name", ""]);
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[test]
fn a_damaged_ticket_says_so() {
    let ran = Device::new().run(["join", "swarmkv-abcd"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("damaged"), "{}", ran.err);
    let ran = Device::new().feed(["join", "-"], b"\n");
    assert!(ran.code == 2 && ran.err.contains("no ticket"), "{ran:?}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let blocked = Device::new();
    std::fs::write(blocked.dir(), "a file is in the way").unwrap();
    std::fs::set_permissions(blocked.dir(), PermissionsExt::from_mode(0o600)).unwrap();
    let ran = blocked.run(["init"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains(blocked.dir().to_str().unwrap()) && ran.err.contains("hint: "));
}
