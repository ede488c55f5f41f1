//! Taking a device out, leaving, and what each side sees of it.

use swarmkv_tests::{Device, connected, equal, until};

fn three() -> [Device; 3] {
    let a = Device::new("anna").founded();
    let mut b = Device::new("bert").admitted_by(&a, &[]);
    let mut c = Device::new("cora").admitted_by(&a, &["--role", "admin"]);
    b.up();
    c.up();
    connected(&[&a, &b, &c]);
    [a, b, c]
}

fn standing(at: &Device, label: &str) -> String {
    let members = at.run(["members", "--json"]).well().json_lines();
    let one = members.iter().find(|member| member["device"] == label).expect("it is known");
    one["standing"].as_str().expect("a word").to_owned()
}

#[test]
fn a_revoked_device_is_out_at_once_and_is_told_so() {
    let [a, b, c] = three();
    let version = b.put("from-bert", "stays");
    assert_eq!(c.get_at_least("from-bert", &version), "stays");
    assert_eq!(a.get_at_least("from-bert", &version), "stays");

    // Without --yes nothing happens, where nobody can be asked.
    a.run(["revoke", "bert"]).fails(2, "nothing was done");
    assert_eq!(standing(&a, "bert"), "member");
    b.run(["revoke", "cora", "--yes"]).fails(5, "rank");
    c.run(["revoke", "anna", "--yes"]).fails(5, "owner");
    a.run(["revoke", "nobody", "--yes"]).fails(3, "nobody");

    let report = a.run(["revoke", "bert", "--yes", "--json"]).well().json();
    assert_eq!((&report["holders"], &report["connected"]), (&1.into(), &1.into()));
    assert_eq!((&report["missing"], &report["pulled"]), (&0.into(), &true.into()));
    a.run(["revoke", "bert", "--yes"]).fails(6, "no member any more");
    for member in [&a, &c] {
        until("it is no member there", || standing(member, "bert") == "revoked");
        until("and not connected", || !member.linked().contains(&b.id()));
        assert_eq!(member.get("from-bert").as_deref(), Some("stays"));
    }
    until("it knows", || b.status()["standing"] == "revoked");
    assert_eq!(b.status()["revoked_by"], "anna");
    until("it is alone", || b.linked().is_empty());
    assert_eq!(b.get("from-bert").as_deref(), Some("stays"));
    b.run(["put", "k", "v"]).fails(5, "revoked");
    assert!(b.run(["status"]).well().text().contains("\"anna\" took this device out"));
    equal(&[&a, &c]);
}

#[test]
fn a_device_that_was_away_when_it_was_revoked_is_told_when_it_comes_back() {
    let [a, mut b, mut c] = three();
    let version = b.put("k", "seen by all");
    assert_eq!(a.get_at_least("k", &version), "seen by all");
    let _ = c.stop();
    // What anna does not see: cora is away, bert writes on, anna is away as well.
    let _ = b.stop();
    let _ = a.run(["revoke", "bert", "--yes"]).well();
    b.up();
    until("it knows", || b.status()["standing"] == "revoked");
    b.run(["put", "k", "v"]).fails(5, "revoked");
    // The one who was away as well hears of it from whoever was there.
    c.up();
    connected(&[&a, &c]);
    until("cora knows", || standing(&c, "bert") == "revoked");
    let ticket = a.invite(&[]);
    let _ = b.stop();
    b.join(&ticket).fails(1, "already belongs");
    equal(&[&a, &c]);
    assert_eq!(c.get("k").as_deref(), Some("seen by all"));
    // It stays out over a restart, and its copy readable.
    b.up();
    assert_eq!(b.status()["standing"], "revoked");
    assert_eq!(b.get("k").as_deref(), Some("seen by all"));
    assert!(b.linked().is_empty());
}

#[test]
fn whoever_leaves_loses_nothing_for_the_swarm() {
    let [a, b, c] = three();
    let version = c.put("from-cora", "stays");
    assert_eq!(a.get_at_least("from-cora", &version), "stays");
    c.run(["leave"]).fails(2, "nothing was done");
    a.run(["leave", "--yes"]).fails(5, "owner");
    let _ = c.run(["leave", "--yes"]).well();
    assert_eq!(c.status()["standing"], "left");
    for member in [&a, &b] {
        until("it has left", || standing(member, "cora") == "left");
        assert_eq!(member.get("from-cora").as_deref(), Some("stays"));
    }
    c.run(["put", "k", "v"]).fails(5, "left");
    equal(&[&a, &b]);
}

#[test]
fn nobody_leaves_by_accident_with_what_only_it_has() {
    let mut a = Device::new("anna").founded();
    let mut b = Device::new("bert").admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    until("it is whole", || b.status()["caught_up"] == true);
    let _ = a.stop();
    until("it is alone", || b.linked().is_empty());
    b.put("only-here", "v");
    b.run(["leave", "--yes"]).fails(6, "everything that this device wrote");
    assert_eq!(b.status()["standing"], "member");
    let _ = b.run(["leave", "--yes", "--force", "--timeout", "1s"]).well();
    assert_eq!(b.status()["standing"], "left");
    assert_eq!(b.get("only-here").as_deref(), Some("v"));
    a.up();
}
