//! `swarmkv demo`: all of it in one command, quickly, and nothing stays.

use std::time::{Duration, Instant};

use swarmkv_tests::Device;

#[test]
fn the_demo_tells_of_the_outsider_and_leaves_nothing_behind() {
    let device = Device::new("demo");
    std::fs::create_dir_all(device.dir()).expect("a directory can be made");
    let begun = Instant::now();
    let output = device.command(["demo"]).env("TMPDIR", device.dir()).output();
    let took = begun.elapsed();
    let output = output.expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    assert!(took < Duration::from_secs(15), "it took {took:?}");
    let told = String::from_utf8(output.stdout).expect("text");
    for words in ["outsider", "carol is back", "kept as a sibling", "All as promised"] {
        assert!(told.contains(words), "nothing of {words:?} in:\n{told}");
    }
    assert_eq!(std::fs::read_dir(device.dir()).expect("it is there").count(), 0);
}
