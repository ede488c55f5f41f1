//! With a running peer: JSON shapes, conditions, exit codes, start and stop.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Device, signal};

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn json_has_the_shapes_that_scripts_rely_on() {
    let device = Device::founded();
    let put = device.run(["put", "greeting", "hello", "--json"]).quietly().json();
    assert_eq!(keys(&put), ["key", "version"]);

    let get = device.run(["get", "greeting", "--json"]).quietly().json();
    assert_eq!(keys(&get), ["key", "siblings", "value"]);
    assert_eq!((&get["key"], &get["value"]), (&"greeting".into(), &"hello".into()));
    let sibling = &get["siblings"][0];
    assert_eq!(keys(sibling), ["author", "author_id", "value", "version", "written_at"]);
    assert_eq!((&sibling["version"], &sibling["author"]), (&put["version"], &"laptop".into()));

    let meta = device.run(["get", "greeting", "--meta", "--json"]).quietly().json();
    assert_eq!((&meta["size"], &meta["siblings"]), (&5.into(), &1.into()));
    assert_eq!(meta["version"], put["version"]);

    let long = device.run(["ls", "--long", "--json"]).quietly().json();
    assert_eq!(
        keys(&long),
        ["author", "key", "siblings", "size", "value", "version", "written_at"]
    );
    assert_eq!(
        device.run(["ls", "--json"]).quietly().text(),
        "{\"key\":\"greeting\",\"value\":\"hello\"}\n"
    );
    assert_eq!(
        device.run(["ls", "--keys-only", "--json"]).quietly().text(),
        "{\"key\":\"greeting\"}\n"
    );

    let invite = device.run(["invite", "--role", "reader", "--json"]).quietly().json();
    assert_eq!(keys(&invite), ["addrs", "expires_at", "role", "ticket"]);

    let status = device.run(["status", "--json"]).quietly().json();
    assert_eq!((&status["swarm"], &status["device"]), (&"home".into(), &"laptop".into()));
    assert_eq!((&status["pid"], &status["role"]), (&device.pid().into(), &"owner".into()));
    assert_eq!(device.run(["peers", "--json"]).quietly().text(), "", "no other member, no line");

    let del = device.run(["del", "greeting", "nope", "--json"]).quietly().json();
    assert_eq!(
        (&del["deleted"][0]["key"], &del["missing"][0]),
        (&"greeting".into(), &"nope".into())
    );
}

#[test]
fn pipes_hold_data_and_nothing_else() {
    let device = Device::founded();
    assert_eq!(device.run(["put", "a", "1"]).quietly().out, b"");
    assert_eq!(device.run(["get", "a"]).quietly().out, b"1");
    assert_eq!(device.run(["ls"]).quietly().out, b"a\t1\n");
    assert_eq!(device.run(["del", "a"]).quietly().out, b"");
    let ticket = device.run(["invite"]).well();
    assert!(ticket.text().starts_with("swarmkv-") && ticket.text().lines().count() == 1);
    assert!(ticket.err.contains("15 min"), "{}", ticket.err);
    let version = device.run(["put", "a", "2", "--print-version"]).quietly();
    let again = ["get", "a", "--at-least", version.text().trim()];
    assert_eq!(device.run(again).quietly().out, b"2");
    for command in [["status"].as_slice(), &["peers", "--quiet"], &["ls", "--long"]] {
        let ran = device.run(command).quietly();
        assert!(!ran.text().contains('\x1b'), "no colour in a pipe");
        let wide = ran.text().lines().find(|line| line.chars().count() > 80);
        assert!(wide.is_none_or(|line| line.starts_with("place")), "{wide:?}");
    }
}

#[test]
fn a_missing_key_is_exit_code_3() {
    let device = Device::founded();
    let get = device.run(["get", "nope"]);
    insta::assert_snapshot!(get.shown(device.dir()));
    let json: Value = serde_json::from_str(&device.run(["get", "nope", "--json"]).err).unwrap();
    assert_eq!(json["kind"], "not_found");
    assert_eq!(device.run(["get", "nope", "--siblings"]).code, 3);
    assert_eq!(device.run(["get", "nope", "--meta"]).code, 3);
    assert_eq!(device.run(["del", "nope", "neither"]).code, 3);
    device.run(["put", "there", "x"]).quietly();
    let del = device.run(["del", "nope", "there"]).well();
    assert_eq!(del.err, "note: there was no key \"nope\"\n");
    assert_eq!(device.run(["del", "there"]).code, 3, "a deleted key is gone");
    let siblings = device.run(["get", "there", "--siblings"]);
    assert_eq!(siblings.code, 3, "a delete alone is no value: {siblings:?}");
}

#[test]
fn a_condition_that_does_not_hold_is_exit_code_6() {
    let device = Device::founded();
    device.run(["put", "--if-absent", "lock", "me"]).quietly();
    let version = device.run(["put", "--print-version", "lock", "me again"]).quietly();
    let version = version.text().trim();
    assert_eq!(device.run(["put", "--if-absent", "lock", "you"]).code, 6);
    device.run(["put", "--if-version", version, "lock", "mine"]).quietly();
    assert_eq!(device.run(["put", "--if-version", version, "lock", "late"]).code, 6);
    assert_eq!(device.run(["del", "--if-version", version, "lock"]).code, 6);
    assert_eq!(device.run(["put", "--if-version", "nonsense", "lock", "x"]).code, 2);
    assert_eq!(device.run(["get", "lock"]).quietly().out, b"mine");
}

#[test]
fn a_version_that_does_not_arrive_is_exit_code_7() {
    let (here, elsewhere) = (Device::founded(), Device::founded());
    let version = elsewhere.run(["put", "k", "v", "--print-version"]).quietly();
    let ran = here.run(["get", "k", "--at-least", version.text().trim(), "--timeout", "200ms"]);
    assert_eq!((ran.code, ran.text()), (7, ""), "{ran:?}");
}

#[test]
fn a_value_with_a_time_to_live_goes_away() {
    let device = Device::founded();
    device.run(["put", "--ttl", "1s", "brief", "x"]).quietly();
    let meta = device.run(["get", "brief", "--meta", "--json"]).quietly().json();
    assert!(meta["expires_at"].is_u64());
    let end = Instant::now() + Duration::from_secs(5);
    while device.run(["get", "brief"]).code != 3 {
        assert!(Instant::now() < end, "it is still there");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn one_peer_a_directory_and_a_clean_stop() {
    let mut device = Device::founded();
    for args in [["up"].as_slice(), &["up", "--detach"]] {
        let second = device.run(args);
        assert_eq!((second.code, second.text()), (9, ""), "{second:?}");
        assert!(second.err.contains(&format!("process {}", device.pid())), "{}", second.err);
    }
    device.run(["put", "kept", "value"]).quietly();
    assert_eq!(device.down(), Some(0), "a clean stop is a success");
    assert_eq!(device.run(["get", "kept"]).code, 4);
    device.up();
    assert_eq!(device.run(["get", "kept"]).quietly().out, b"value");
}

#[test]
fn a_detached_peer_answers_when_the_command_returns() {
    let device = Device::new();
    device.run(["init", "--quiet"]).quietly();
    let args = ["up", "--detach", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let ran = device.run(args).well();
    let pid: u32 = ran.text().trim().parse().unwrap();
    let got = device.run(["status", "--json"]);
    signal("TERM", pid);
    assert_eq!(got.quietly().json()["pid"], pid);
    let end = Instant::now() + Duration::from_secs(10);
    while device.run(["status"]).code != 4 {
        assert!(Instant::now() < end, "the peer does not stop");
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = std::fs::read_to_string(device.dir().join("up.log")).unwrap();
    assert!(log.starts_with("This is ") && log.contains("Stopping."), "{log}");

    let wrong = device.run(["up", "--detach", "--listen", "nonsense"]);
    assert_eq!((wrong.code, wrong.text()), (1, ""), "{wrong:?}");
    assert!(wrong.err.starts_with("error: Network: "), "the child's own words: {}", wrong.err);
}

#[test]
fn a_data_directory_may_lie_200_characters_deep() {
    let mut device = Device::below(["a deep directory"; 12].join("/"));
    assert!(device.dir().as_os_str().len() > 200);
    device.run(["init", "--quiet"]).quietly();
    device.up();
    device.run(["put", "deep", "down"]).quietly();
    assert_eq!(device.run(["get", "deep"]).quietly().out, b"down");
    assert_eq!(device.down(), Some(0));
}

#[test]
fn a_second_device_joins_and_reads() {
    let (here, mut there) = (Device::founded(), Device::new());
    here.run(["put", "greeting", "hello"]).quietly();
    let ticket = here.run(["invite", "--quiet"]).quietly();
    let (first, rest) = ticket.text().trim().split_at(60);
    let joined = there.run(["join", "--json", "--label", "phone", first, rest]).quietly().json();
    assert_eq!((&joined["inviter"], &joined["role"]), (&"laptop".into(), &"writer".into()));
    assert!(joined["check_words"].as_str().is_some_and(|words| words.len() == 11));

    let again = there.run(["join", ticket.text()]);
    assert!(again.code == 1 && again.err.contains("already belongs"), "{again:?}");
    let third = Device::new().feed(["join", "-"], &ticket.out);
    assert!(third.code == 5 && third.err.contains("already used by \"phone\""), "{third:?}");

    there.up();
    assert_eq!(there.run(["get", "greeting"]).quietly().out, b"hello");
    let peer = here.run(["peers", "--json"]).quietly().json();
    assert_eq!((&peer["device"], &peer["connected"]), (&"phone".into(), &true.into()));
    assert_eq!(there.run(["invite"]).code, 5, "a writer may not invite");
}

#[test]
fn an_inviter_that_is_gone_is_exit_code_4() {
    let mut here = Device::founded();
    let ticket = here.run(["invite", "--quiet"]).quietly();
    here.down();
    let ran = Device::new().feed(["join", "-", "--timeout", "2s"], &ticket.out);
    assert_eq!(ran.code, 4, "{ran:?}");
}

#[test]
fn the_demo_keeps_its_promises_and_leaves_nothing_behind() {
    let device = Device::new();
    std::fs::create_dir_all(device.dir()).unwrap();
    let mut command = device.command(["demo", "--json"]);
    let begun = Instant::now();
    let output = command.env("TMPDIR", device.dir()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(begun.elapsed() < Duration::from_secs(15));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["ok"], true);
    assert_eq!(std::fs::read_dir(device.dir()).unwrap().count(), 0);
}
