//! Long run of the `decode` target.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| swarmkv_fuzz::decode(data));
