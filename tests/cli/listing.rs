//! `ls` and `import` at length: order, pages, limits, wrong lines, interruption.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::support::{Device, signal};

fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|i| format!("{{\"key\":\"k{i:05}\",\"value\":\"v{i}\"}}\n")).collect()
}

#[test]
fn all_pages_are_listed_in_order() {
    let device = Device::founded();
    let ran = device.feed(["import", "--json"], lines(0..3000).as_bytes()).quietly();
    let object = ran.json();
    assert_eq!(
        (&object["lines"], &object["puts"], &object["deletes"]),
        (&3000.into(), &3000.into(), &0.into())
    );

    let listed = device.run(["ls", "--keys-only"]).quietly();
    let wanted: String = (0..3000).map(|i| format!("k{i:05}\n")).collect();
    assert!(listed.text() == wanted);
    assert_eq!(device.run(["ls", "--json"]).quietly().text(), lines(0..3000));

    assert_eq!(device.run(["ls", "k0299", "--keys-only"]).quietly().text().lines().count(), 10);
    let few = device.run(["ls", "--start", "k01000", "--limit", "2"]).quietly();
    assert_eq!(few.text(), "k01000\tv1000\nk01001\tv1001\n");
    assert_eq!(device.run(["ls", "nothing/"]).quietly().text(), "");
    assert_eq!(device.run(["ls", "--limit", "0"]).quietly().text(), "");
    let most = device.run(["ls", "--limit", "1234", "--keys-only"]).quietly();
    assert_eq!(most.text().lines().count(), 1234);
}

#[test]
fn a_reader_that_leaves_ends_a_listing_quietly() {
    let device = Device::founded();
    device.feed(["import", "--quiet"], lines(0..3000).as_bytes()).quietly();
    let mut child = device.command(["ls"]).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "k00000\tv0\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn later_lines_of_a_key_win_and_null_deletes() {
    let device = Device::founded();
    let mut input = String::new();
    for i in 0..2000 {
        input.push_str(&format!("{{\"key\":\"k{}\",\"value\":\"{i}\"}}\n", i % 7));
    }
    input.push_str("\n{\"key\":\"k6\",\"value\":null}\r\n");
    let ran = device.feed(["import"], input.as_bytes()).well();
    assert!(ran.err.starts_with("Imported 2,001 lines: 2,000 written, 1 deleted"), "{}", ran.err);
    let wanted = "k0\t1995\nk1\t1996\nk2\t1997\nk3\t1998\nk4\t1999\nk5\t1993\n";
    assert_eq!(device.run(["ls"]).quietly().text(), wanted);
}

#[test]
fn a_wrong_line_is_named_and_nothing_after_it_is_written() {
    let device = Device::founded();
    let input = format!("{}{{\"key\":\"x\"}}\n{}", lines(0..300), lines(300..600));
    let ran = device.feed(["import"], input.as_bytes());
    insta::assert_snapshot!(ran.shown(device.dir()));
    let listed = device.run(["ls", "--keys-only"]).quietly();
    assert_eq!(listed.text().lines().count(), 300);
    assert_eq!(device.run(["import", "no such file"]).code, 1);
}

#[test]
fn an_interrupted_import_says_what_is_on_disk() {
    let device = Device::founded();
    let mut child = device.command(["import"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines(0..1000).as_bytes()).unwrap();
    stdin.flush().unwrap();
    while device.run(["get", "k00500"]).code != 0 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    signal("INT", child.id());
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(8), "{err}");
    let count = device.run(["ls", "--keys-only"]).quietly().text().lines().count();
    assert!(err.contains(&format!("On disk: {count} writes, all of lines 1 to {count}")), "{err}");
}
