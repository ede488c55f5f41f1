//! Keys and values are bytes: what goes in comes out, through arguments, files and pipes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::Device;

#[test]
fn values_come_back_to_the_byte() {
    let device = Device::founded();
    let large: Vec<u8> = (0..1_048_576_u32).map(|i| (i % 251) as u8).collect();
    let values: [&[u8]; 7] =
        [b"", b"\n", b"hello", b"a\0b", b"\xff\xfe not text", b"line\r\n\n", &large];
    for value in values {
        device.feed(["put", "key", "-"], value).quietly();
        assert!(device.run(["get", "key"]).quietly().out == value);
    }
    let file = device.dir().join("a file");
    std::fs::write(&file, b"\0\x01").unwrap();
    let put = [OsStr::new("put"), OsStr::new("key"), OsStr::new("--file"), file.as_os_str()];
    device.run(put).quietly();
    assert_eq!(device.run(["get", "key"]).quietly().out, b"\0\x01");

    let ran = device.feed(["put", "key", "-"], &vec![0; 1_048_577]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("1,048,576 bytes"), "{}", ran.err);
}

#[test]
fn an_empty_value_must_be_asked_for() {
    let device = Device::founded();
    assert_eq!(device.run(["put", "key"]).code, 2);
    assert_eq!(device.run(["get", "key"]).code, 3);
    device.run(["put", "key", ""]).quietly();
    assert_eq!(device.run(["get", "key"]).quietly().out, b"");
}

#[test]
fn keys_may_hold_any_bytes_and_begin_with_a_dash() {
    let device = Device::founded();
    let odd = OsStr::from_bytes(b"\xff \n key");
    for key in [OsStr::new("-dash"), OsStr::new("--json"), OsStr::new("§ key"), odd] {
        let word = OsStr::new;
        device.run([word("put"), word("--"), key, word("value")]).quietly();
        assert_eq!(device.run([word("get"), word("--"), key]).quietly().out, b"value");
        device.run([word("del"), word("--"), key]).quietly();
        assert_eq!(device.run([word("get"), word("--"), key]).code, 3);
    }
    device.run(["put", "--key-base64", "AP8=", "nul"]).quietly();
    assert_eq!(device.run(["get", "--key-base64", "AP8"]).quietly().out, b"nul");
    assert_eq!(device.run(["put", "temperature", "-5"]).quietly().out, b"");
    assert_eq!(device.run(["get", "temperature"]).quietly().out, b"-5");
    assert_eq!(device.run(["put", "", "v"]).code, 2, "an empty key");
    assert_eq!(device.run(["put", &"k".repeat(1025), "v"]).code, 2, "a long key");
}

#[test]
fn import_and_ls_are_each_others_inverse() {
    let from = Device::founded();
    from.feed(["put", "text", "-"], "grüße\t\n".as_bytes()).quietly();
    from.feed(["put", "raw", "-"], b"\xff\0").quietly();
    from.run(["put", "--key-base64", "AP8=", ""]).quietly();
    from.run(["put", "--ttl", "1h", "soon gone", "x"]).quietly();
    let listed = from.run(["ls", "--json"]).quietly();
    assert_eq!(listed.text().lines().count(), 4);

    let to = Device::founded();
    let ran = to.feed(["import", "--quiet"], &listed.out).quietly();
    assert_eq!(ran.out, b"");
    assert_eq!(to.run(["ls", "--json"]).quietly().out, listed.out);
}
