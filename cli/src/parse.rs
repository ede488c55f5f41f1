//! Values with a form of their own: durations, keys in base64, bytes of arguments.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use data_encoding::{BASE64, BASE64_NOPAD};
use swarmkv_node::api::wire::Data;

use crate::error::Failure;

const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads `500ms`, `10s`, `15m`, `1h30m`, `7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is no duration; write 500ms, 10s, 15m, 1h30m or 7d");
    let mut rest = text;
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let part = number.checked_mul(*scale).ok_or_else(wrong)?;
        millis = millis.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(millis)) }
}

/// The bytes of a key as typed, or as base64 of them.
pub fn key(text: &OsStr, base64: bool) -> Result<Data, Failure> {
    let bytes = text.as_bytes();
    if !base64 {
        return Ok(Data(bytes.to_vec()));
    }
    let decoder = if bytes.ends_with(b"=") { BASE64 } else { BASE64_NOPAD };
    let key = decoder.decode(bytes).map_err(|_| {
        Failure::usage(format!("\"{}\" is not base64", text.to_string_lossy().escape_debug()))
            .hint("Give the key's bytes in standard base64, or leave --key-base64 out.")
    })?;
    Ok(Data(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_may_have_several() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in
            ["", "10", "s", "1x", "-1s", "1.5h", "99999999999999999999s", "9999999999999999d"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_in_base64_may_lack_padding() {
        assert_eq!(key(OsStr::new("AP8="), true).unwrap().0, [0, 255]);
        assert_eq!(key(OsStr::new("AP8"), true).unwrap().0, [0, 255]);
        assert_eq!(key(OsStr::new("AP8="), false).unwrap().0, b"AP8=");
        assert!(key(OsStr::new("§"), true).is_err());
    }
}
