//! The address book: where peers may be reached, a few addresses each, the best kept.

use std::collections::BTreeMap;

use libp2p::Multiaddr;
use swarmkv_protocol::id::DeviceId;

use super::event::Source;
use super::limits;

/// Where an address came from, the most trusted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The user named it.
    Configured,
    /// It worked in an earlier run.
    Known,
    /// The peer itself says so.
    Identify,
    /// A member says so.
    Kad,
    /// Somebody on the local network says so.
    Mdns,
}

impl Origin {
    /// As told to the driver.
    pub(super) fn source(self) -> Source {
        match self {
            Self::Configured | Self::Known | Self::Identify => Source::Direct,
            Self::Kad => Source::Kad,
            Self::Mdns => Source::Mdns,
        }
    }
}

#[derive(Debug)]
struct Entry {
    addr: Multiaddr,
    /// The most trusted one that named it.
    origin: Origin,
    /// The first one that named it, or the user.
    found: Origin,
    works: bool,
}

/// Addresses by peer.
#[derive(Debug, Default)]
pub(super) struct Book {
    peers: BTreeMap<DeviceId, Vec<Entry>>,
}

impl Book {
    /// Notes an address; whether it is new. When the peer's list is full, the least trusted
    /// address that never worked makes room for a more trusted one.
    pub(super) fn add(&mut self, peer: DeviceId, addr: Multiaddr, origin: Origin) -> bool {
        let entries = self.peers.entry(peer).or_default();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.addr == addr) {
            entry.origin = entry.origin.min(origin);
            if origin == Origin::Configured {
                entry.found = origin;
            }
            return false;
        }
        if entries.len() >= limits::ADDRESSES_PER_PEER {
            let worst = (0..entries.len())
                .filter(|at| !entries[*at].works)
                .max_by_key(|at| entries[*at].origin);
            match worst {
                Some(at) if entries[at].origin >= origin => entries.remove(at),
                _ => return false,
            };
        }
        entries.push(Entry { addr, origin, found: origin, works: false });
        true
    }

    /// Notes that an address led to its peer.
    pub(super) fn works(&mut self, peer: DeviceId, addr: &Multiaddr) {
        let entries = self.peers.get_mut(&peer);
        if let Some(entry) = entries.and_then(|all| all.iter_mut().find(|one| one.addr == *addr)) {
            entry.works = true;
        }
    }

    /// A peer's addresses, the most trusted first.
    pub(super) fn addresses(&self, peer: &DeviceId) -> Vec<Multiaddr> {
        let mut entries: Vec<&Entry> = self.peers.get(peer).into_iter().flatten().collect();
        entries.sort_by_key(|entry| (!entry.works, entry.origin));
        entries.into_iter().map(|entry| entry.addr.clone()).collect()
    }

    /// How this address of a peer was found, whoever confirmed it since.
    pub(super) fn source(&self, peer: &DeviceId, addr: &Multiaddr) -> Option<Source> {
        let entry = self.peers.get(peer)?.iter().find(|entry| entry.addr == *addr)?;
        Some(entry.found.source())
    }

    /// The most trusted origin of this address.
    pub(super) fn origin(&self, peer: &DeviceId, addr: &Multiaddr) -> Option<Origin> {
        self.peers.get(peer)?.iter().find(|entry| entry.addr == *addr).map(|entry| entry.origin)
    }

    /// The most trusted origin among a peer's addresses.
    pub(super) fn best_origin(&self, peer: &DeviceId) -> Option<Origin> {
        self.peers.get(peer)?.iter().map(|entry| entry.origin).min()
    }

    /// Forgets one address.
    pub(super) fn remove(&mut self, peer: &DeviceId, addr: &Multiaddr) {
        if let Some(entries) = self.peers.get_mut(peer) {
            entries.retain(|entry| entry.addr != *addr);
            if entries.is_empty() {
                self.peers.remove(peer);
            }
        }
    }

    /// Forgets an address that mDNS no longer sees, unless it worked.
    pub(super) fn expire(&mut self, peer: &DeviceId, addr: &Multiaddr) {
        let stale = self.peers.get(peer).is_some_and(|entries| {
            entries.iter().any(|one| one.addr == *addr && one.origin == Origin::Mdns && !one.works)
        });
        if stale {
            self.remove(peer, addr);
        }
    }

    /// Forgets a peer.
    pub(super) fn forget(&mut self, peer: &DeviceId) {
        self.peers.remove(peer);
    }

    /// Whether any address of this peer is known.
    pub(super) fn knows(&self, peer: &DeviceId) -> bool {
        self.peers.contains_key(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn a_flood_of_claims_does_not_push_out_what_works_or_was_configured() {
        let mut book = Book::default();
        let peer = DeviceId::new([1; 32]);
        book.add(peer, addr(1), Origin::Configured);
        book.add(peer, addr(2), Origin::Mdns);
        book.works(peer, &addr(2));
        for port in 100..200 {
            book.add(peer, addr(port), Origin::Mdns);
        }
        let kept = book.addresses(&peer);
        assert_eq!(kept.len(), limits::ADDRESSES_PER_PEER);
        assert!(kept[..2].contains(&addr(1)) && kept[..2].contains(&addr(2)));
        assert!(kept.contains(&addr(199)));
    }

    #[test]
    fn a_worse_claim_does_not_replace_a_better_one() {
        let mut book = Book::default();
        let peer = DeviceId::new([1; 32]);
        for port in 1..=8 {
            assert!(book.add(peer, addr(port), Origin::Identify));
        }
        assert!(!book.add(peer, addr(9), Origin::Mdns));
        assert!(book.add(peer, addr(9), Origin::Known));
        assert_eq!(book.origin(&peer, &addr(9)), Some(Origin::Known));
    }

    #[test]
    fn a_confirmation_adds_trust_but_does_not_change_how_it_was_found() {
        let mut book = Book::default();
        let peer = DeviceId::new([1; 32]);
        book.add(peer, addr(1), Origin::Mdns);
        book.add(peer, addr(1), Origin::Identify);
        assert_eq!(book.origin(&peer, &addr(1)), Some(Origin::Identify));
        assert_eq!(book.source(&peer, &addr(1)), Some(Source::Mdns));
        book.add(peer, addr(1), Origin::Configured);
        assert_eq!(book.source(&peer, &addr(1)), Some(Source::Direct));
    }

    #[test]
    fn expiry_spares_what_another_source_vouches_for() {
        let mut book = Book::default();
        let peer = DeviceId::new([1; 32]);
        book.add(peer, addr(1), Origin::Mdns);
        book.add(peer, addr(2), Origin::Mdns);
        book.add(peer, addr(2), Origin::Known);
        book.expire(&peer, &addr(1));
        book.expire(&peer, &addr(2));
        assert_eq!(book.addresses(&peer), [addr(2)]);
    }
}
