//! Who is not talked to for a while: a member that hands on what nobody honest would. Kept over restarts.
//!
//! Gossip has scores of its own, and sinks such a peer within seconds; this list closes every other door
//! as well, and remembers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::id::DeviceId;

/// So many offences within [`WINDOW_MS`] and the peer is blocked.
pub(crate) const OFFENCES: usize = 10;
/// Milliseconds in which offences add up: ten minutes.
pub(crate) const WINDOW_MS: u64 = 600_000;
/// Milliseconds that a block lasts: an hour.
pub(crate) const BLOCK_MS: u64 = 3_600_000;
/// Peers watched at once: there are never more members connected.
const WATCHED: usize = 256;

/// Offences and blocks.
#[derive(Debug, Default)]
pub(crate) struct Blocklist {
    offences: BTreeMap<DeviceId, VecDeque<u64>>,
    blocked: BTreeMap<DeviceId, u64>,
}

impl Blocklist {
    /// Reads back what [`Self::to_bytes`] wrote; what cannot be read blocks nobody. A clock that went
    /// back does not make a block longer than it ever was.
    pub(crate) fn from_bytes(bytes: &[u8], now: u64) -> Self {
        let blocked: Vec<(DeviceId, u64)> = codec::decode(bytes).unwrap_or_default();
        let blocked = blocked.into_iter().map(|(peer, until)| (peer, until.min(now + BLOCK_MS)));
        let mut list = Self { offences: BTreeMap::new(), blocked: blocked.collect() };
        list.expire(now);
        list
    }

    /// The blocks, for keeping.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let blocked: Vec<(DeviceId, u64)> = self.blocked.iter().map(|(p, at)| (*p, *at)).collect();
        Bytes(codec::encode(&blocked))
    }

    /// Notes an offence at Unix millisecond `now`; says whether that is one too many.
    pub(crate) fn offend(&mut self, peer: DeviceId, now: u64) -> bool {
        if self.blocked.contains_key(&peer) {
            return false;
        }
        self.offences.retain(|_, times| {
            times.retain(|at| now.abs_diff(*at) < WINDOW_MS);
            !times.is_empty()
        });
        if self.offences.len() >= WATCHED && !self.offences.contains_key(&peer) {
            return false;
        }
        let times = self.offences.entry(peer).or_default();
        times.push_back(now);
        if times.len() < OFFENCES {
            return false;
        }
        self.offences.remove(&peer);
        self.blocked.insert(peer, now + BLOCK_MS);
        true
    }

    /// Lifts what is over; says whether anything was.
    pub(crate) fn expire(&mut self, now: u64) -> bool {
        let before = self.blocked.len();
        self.blocked.retain(|_, until| *until > now);
        self.blocked.len() != before
    }

    /// When a peer's block ends, in Unix milliseconds.
    pub(crate) fn until(&self, peer: &DeviceId) -> Option<u64> {
        self.blocked.get(peer).copied()
    }

    /// Offences of a peer that still count.
    pub(crate) fn offences(&self, peer: &DeviceId) -> usize {
        self.offences.get(peer).map_or(0, VecDeque::len)
    }

    /// Everybody who is blocked.
    pub(crate) fn peers(&self) -> BTreeSet<DeviceId> {
        self.blocked.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: DeviceId = DeviceId::new([1; 32]);

    #[test]
    fn the_tenth_offence_within_ten_minutes_blocks_for_an_hour() {
        let mut list = Blocklist::default();
        for n in 0..9 {
            assert!(!list.offend(PEER, n * 1_000), "{n}");
        }
        assert!(list.until(&PEER).is_none());
        assert!(list.offend(PEER, WINDOW_MS - 1));
        assert_eq!(list.until(&PEER), Some(WINDOW_MS - 1 + BLOCK_MS));
        assert!(!list.expire(WINDOW_MS + BLOCK_MS - 2));
        assert!(list.expire(WINDOW_MS + BLOCK_MS));
        assert!(list.peers().is_empty());
    }

    #[test]
    fn one_offence_a_minute_never_blocks() {
        let mut list = Blocklist::default();
        // The first has lapsed when the tenth would fall.
        assert!((0..500).all(|n| !list.offend(PEER, n * (WINDOW_MS / 9 + 1))));
    }

    #[test]
    fn a_block_outlives_a_restart_but_not_a_clock_that_went_back() {
        let mut list = Blocklist::default();
        (0..10).for_each(|_| {
            list.offend(PEER, 5_000_000);
        });
        let kept = list.to_bytes();
        assert_eq!(Blocklist::from_bytes(&kept, 5_000_001).until(&PEER), list.until(&PEER));
        assert_eq!(Blocklist::from_bytes(&kept, 1_000).until(&PEER), Some(1_000 + BLOCK_MS));
        assert!(Blocklist::from_bytes(&kept, 9_000_000).peers().is_empty());
        assert!(Blocklist::from_bytes(b"what is this", 0).peers().is_empty());
    }
}
