//! The data of one replica, made from numbers: the same index always gives the same bytes,
//! so that a reader can check what it finds without remembering what was written.

/// A log's name: author (32), epoch (4), shard (2).
pub type LogId = [u8; 38];
/// A user key of the benchmark; the encoding does not rely on its length.
pub type UserKey = [u8; 24];

/// Operations of one original commit when a catch-up batch bundles many of them.
pub const OPS_PER_HEADER: usize = 64;
/// Logs that share a loaded data set.
pub const LOGS: u64 = 16;
const OP_BYTES: usize = 300;
const HEADER_BYTES: usize = 350;
const STATE_BYTES: usize = 2_560;

/// One operation to store.
pub struct Op {
    pub key: UserKey,
    pub seq: u64,
    /// The slot it replaces, when the caller knows it (a store without lookups).
    pub replaces: Option<u64>,
    pub bytes: Vec<u8>,
}

/// What becomes durable at once: operations of one log, their headers and the log's state.
pub struct Commit {
    pub log: LogId,
    pub ops: Vec<Op>,
}

impl Commit {
    /// The seqs whose headers this commit writes: the last of each original commit.
    pub fn header_seqs(&self) -> impl Iterator<Item = u64> + '_ {
        self.ops
            .chunks(OPS_PER_HEADER)
            .filter_map(|ops| Some(ops.last()?.seq))
    }
}

/// splitmix64: a number's random-looking image.
pub fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `len` bytes no compressor can shorten.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = mix(seed) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

pub fn log_id(number: u64) -> LogId {
    let mut id = [0; 38];
    id[..32].copy_from_slice(&noise(number ^ 0x10_6000, 32));
    id[35] = 1;
    id
}

pub fn user_key(index: u64) -> UserKey {
    let mut key = [0; 24];
    for (part, bytes) in key.chunks_mut(8).enumerate() {
        bytes.copy_from_slice(&mix(index * 3 + part as u64).to_be_bytes());
    }
    key
}

pub fn op(index: u64, seq: u64, replaces: Option<u64>) -> Op {
    Op {
        key: user_key(index),
        seq,
        replaces,
        bytes: op_bytes(index, seq),
    }
}

/// An encoded operation: its user key first, then what no compressor can shorten.
pub fn op_bytes(index: u64, seq: u64) -> Vec<u8> {
    let mut bytes = noise(index ^ seq.rotate_left(32), OP_BYTES);
    bytes[..24].copy_from_slice(&user_key(index));
    bytes
}

pub fn header(seq: u64) -> Vec<u8> {
    noise(seq, HEADER_BYTES)
}

pub fn state(seq: u64) -> Vec<u8> {
    noise(seq, STATE_BYTES)
}

/// A user key so that byte order is key order and no key is a prefix of another:
/// 00 becomes 00 FF, the end is 00 00.
pub fn escape(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 4);
    for &byte in key {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 0]);
    out
}

pub fn concat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}
