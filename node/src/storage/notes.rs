//! What a peer notes beside its replica: which swarm this is, where it listened, whom it met.

use std::collections::BTreeMap;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::DeviceId;
use swarmkv_protocol::store::StoreError;

use super::disk::Disk;
use super::schema::Rows;

/// Addresses remembered for one member.
const ADDRESSES_PER_MEMBER: usize = 8;
/// An address that worked this recently need not be noted again, in milliseconds.
const ADDRESS_FRESH_MS: u64 = 3_600_000;

/// Name of the row of [`Disk::take_own_head`].
const OWN_HEAD: &[u8] = b"own-head";

impl Disk {
    /// The signed genesis of the swarm that this store belongs to.
    pub(crate) fn genesis(&self) -> Result<Option<Bytes>, StoreError> {
        self.row(Rows::Meta, b"genesis")
    }

    /// Ties the store to a swarm. Durable after the next sync.
    pub(crate) fn set_genesis(&self, genesis: &Bytes) {
        self.note(Rows::Meta, b"genesis", Some(genesis.clone()));
    }

    /// Whether the store was last opened under another fingerprint.
    pub(crate) fn moved(&self, fingerprint: &str) -> Result<bool, StoreError> {
        let before = self.row(Rows::Meta, b"fingerprint")?;
        Ok(before.is_some_and(|before| before[..] != *fingerprint.as_bytes()))
    }

    /// Records the present fingerprint. Durable after the next sync: together with whatever was done
    /// because it had changed.
    pub(crate) fn set_fingerprint(&self, fingerprint: &str) {
        self.note(Rows::Meta, b"fingerprint", Some(Bytes::from(fingerprint.as_bytes())));
    }

    /// The port that this peer last listened on; `transport` is `tcp-port` or `quic-port`.
    pub(crate) fn port(&self, transport: &'static str) -> Option<u16> {
        let bytes = self.row(Rows::Meta, transport.as_bytes()).ok().flatten()?;
        Some(u16::from_be_bytes(bytes[..].try_into().ok()?))
    }

    /// Notes that port; says whether there is something to sync.
    pub(crate) fn set_port(&self, transport: &'static str, port: u16) -> bool {
        let changed = self.port(transport) != Some(port);
        if changed {
            let bytes = Bytes::from(&port.to_be_bytes()[..]);
            self.note(Rows::Meta, transport.as_bytes(), Some(bytes));
        }
        changed
    }

    /// The head at which a peer in memory left its own log when it last stopped in good order. It is gone
    /// for good when this returns: after a crash, writing must not go on there.
    pub(crate) fn take_own_head(&self) -> Result<Option<Bytes>, StoreError> {
        let head = self.row(Rows::Meta, OWN_HEAD)?;
        if head.is_some() {
            self.note(Rows::Meta, OWN_HEAD, None);
            self.sync()?;
        }
        Ok(head)
    }

    /// Keeps that head, for a store in memory: on the disk that it keeps members on. Durable when this
    /// returns. Nothing may be written to the own log after it.
    pub(crate) fn keep_own_head(&self, head: Option<Bytes>) -> Result<(), StoreError> {
        let (Some(kept), Some(head)) = (self.kept(), head) else { return Ok(()) };
        kept.note(Rows::Meta, OWN_HEAD, Some(head));
        kept.sync().map(drop)
    }

    /// The block list as last kept.
    pub(crate) fn blocklist(&self) -> Result<Bytes, StoreError> {
        Ok(self.row(Rows::Meta, b"blocked")?.unwrap_or_default())
    }

    /// Keeps the block list. Durable after the next sync.
    pub(crate) fn set_blocklist(&self, list: Bytes) {
        self.note(Rows::Meta, b"blocked", Some(list));
    }
}

/// Where members were reached, and when that last worked.
#[derive(Debug, Default)]
pub(crate) struct Addresses(BTreeMap<DeviceId, BTreeMap<String, u64>>);

impl Addresses {
    /// Those that a store remembers.
    pub(crate) fn load(disk: &Disk) -> Result<Self, StoreError> {
        let mut known = Self::default();
        for (key, at) in disk.rows(Rows::Addresses)? {
            if let (Some((device, addr)), Ok(at)) = (key.split_first_chunk(), at[..].try_into()) {
                let addr = String::from_utf8_lossy(addr).into_owned();
                let theirs = known.0.entry(DeviceId::new(*device)).or_default();
                theirs.insert(addr, u64::from_be_bytes(at));
            }
        }
        Ok(known)
    }

    /// Remembers that a member was reached at `addr` at Unix millisecond `now`, for the next start;
    /// says whether there is something to sync. Of many, the ones that last worked are kept.
    pub(crate) fn remember(
        &mut self,
        disk: &Disk,
        device: &DeviceId,
        addr: &str,
        now: u64,
    ) -> bool {
        let theirs = self.0.entry(*device).or_default();
        if theirs.get(addr).is_some_and(|at| now.saturating_sub(*at) < ADDRESS_FRESH_MS) {
            return false;
        }
        theirs.insert(addr.to_owned(), now);
        disk.note(Rows::Addresses, &key(device, addr), Some(Bytes::from(&now.to_be_bytes()[..])));
        if theirs.len() > ADDRESSES_PER_MEMBER
            && let Some(oldest) = theirs.iter().min_by_key(|(_, at)| **at).map(|(a, _)| a.clone())
        {
            theirs.remove(&oldest);
            disk.note(Rows::Addresses, &key(device, &oldest), None);
        }
        true
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<(DeviceId, String)> {
        let pairs = self.0.iter().flat_map(|(d, addrs)| addrs.keys().map(|a| (*d, a.clone())));
        pairs.collect()
    }
}

fn key(device: &DeviceId, addr: &str) -> Vec<u8> {
    [&device.as_bytes()[..], addr.as_bytes()].concat()
}
