//! `bench`: measures, prints, and leaves nothing behind.

use swarmkv_tests::{Device, connected, until};

#[test]
fn it_measures_the_running_peer_and_a_pair_and_cleans_up() {
    let a = Device::new("a").founded();
    a.put("mine", "stays");
    let ran = a
        .run(["bench", "--seconds", "1", "--keys", "500", "--json", "--timeout", "30s"])
        .well()
        .json();
    let rows = ran["rows"].as_array().expect("rows").clone();
    let measured = |what: &str| rows.iter().find(|row| row["what"] == what).cloned();
    for what in [
        "writes, 1 client",
        "writes, 16 clients",
        "writes, 256 clients",
        "reads, 1 client",
        "catch-up, 500 keys",
    ] {
        let row = measured(what).unwrap_or_else(|| panic!("{what} is among {rows:?}"));
        assert!(row["per_second"].as_f64().expect("a rate") > 0.0, "{row}");
    }
    assert!(
        measured("write seen by the other").expect("measured")["p50_ms"].as_f64().expect("a time")
            > 0.0
    );
    assert!(ran["durability"].as_str().expect("said").contains("fdatasync"));
    assert_eq!(a.run(["ls"]).well().text(), "mine\tstays");
    let left = std::fs::read_dir(a.dir().parent().expect("a parent")).expect("listed");
    let left: Vec<_> = left.map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("bench")), "{left:?}");
}

#[test]
fn another_device_answers() {
    let a = Device::new("a").founded();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    let mut answering =
        b.command(["bench", "--answer"]).stderr(std::process::Stdio::null()).spawn().expect("runs");
    let ran = a.run(["bench", "--only", "peers", "--json", "--timeout", "30s"]).well().json();
    let rows = ran["rows"].as_array().expect("rows");
    assert!(
        rows.iter().any(|row| row["at"] == "b" && row["p50_ms"].as_f64().is_some()),
        "{rows:?}"
    );
    swarmkv_tests::signal("INT", answering.id());
    assert_eq!(answering.wait().expect("ends").code(), Some(0));
    until("nothing is left", || a.run(["ls"]).well().text().is_empty());
}

#[test]
fn without_a_peer_two_throw_away_ones_are_measured() {
    let nobody = Device::new("nobody");
    let ran = nobody.run(["bench", "--keys", "200", "--json"]).well().json();
    assert_eq!(ran["rows"].as_array().expect("rows").len(), 2, "{ran}");
    nobody.run(["bench", "--only", "local"]).fails(4, "No peer is running");
}
