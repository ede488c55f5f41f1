//! Whom to dial, where and when: a state machine that touches no socket.
//!
//! Members are dialled until connected, with growing pauses; of two that find each other at the
//! same moment the smaller device id dials. Unknown peers get one dial, then peace for ten minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libp2p::Multiaddr;
use swarmkv_protocol::id::DeviceId;
use tokio::time::Instant;

use super::book::{Book, Origin};
use super::event::{Source, Transport};
use super::limits;
use super::peer;
use super::rate::{Bucket, jitter};

/// Dials under way at once: below the limit of half-open connections, which Kademlia shares.
const UNDER_WAY: usize = limits::PENDING_CONNECTIONS - 16;
/// When TCP has not answered after this, the other addresses are tried too.
const WIDEN: Duration = Duration::from_secs(1);

/// One dial to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// Whom; `None` for an address that names nobody (then there is exactly one).
    pub(super) peer: Option<DeviceId>,
    /// Where, tried at once.
    pub(super) addrs: Vec<Multiaddr>,
}

/// A peer with addresses or a connection.
#[derive(Debug)]
struct State {
    attempts: u32,
    next: Instant,
    /// Dials under way: 0, 1, or 2 once widened.
    dialing: u8,
    started: Instant,
    rest: Vec<Multiaddr>,
    connected: Option<Instant>,
    learned: Instant,
}

/// A configured address that names no peer.
#[derive(Debug)]
struct Nameless {
    addr: Multiaddr,
    attempts: u32,
    next: Instant,
    dialing: bool,
    /// Who answered there; while set it is that peer's address in the book.
    found: Option<DeviceId>,
}

/// Decides on dials. Time never runs backwards between calls; each [`Order`] handed out is
/// answered by exactly one of [`Dialer::connected`] (with `ours`) and [`Dialer::failed`], or the
/// nameless ones.
#[derive(Debug)]
pub(super) struct Dialer {
    me: DeviceId,
    members: BTreeSet<DeviceId>,
    book: Book,
    states: BTreeMap<DeviceId, State>,
    nameless: Vec<Nameless>,
    mdns_rate: Bucket,
}

impl Dialer {
    pub(super) fn new(me: DeviceId, members: BTreeSet<DeviceId>, now: Instant) -> Self {
        let rate = limits::MDNS_DIALS_PER_SECOND;
        Self {
            me,
            members,
            book: Book::default(),
            states: BTreeMap::new(),
            nameless: Vec::new(),
            mdns_rate: Bucket::new(rate, rate, now),
        }
    }

    /// An address of a peer was heard of.
    pub(super) fn learn(&mut self, peer: DeviceId, addr: Multiaddr, origin: Origin, now: Instant) {
        let member = self.members.contains(&peer);
        if peer == self.me || (!member && !self.book.knows(&peer) && !self.make_room()) {
            return;
        }
        let new = self.book.add(peer, addr, origin);
        if !self.book.knows(&peer) {
            return;
        }
        let fresh = !self.states.contains_key(&peer);
        let first = match origin {
            Origin::Configured | Origin::Known => now,
            _ if self.me < peer => now,
            _ => now + limits::YIELD_DIAL,
        };
        let state = self.states.entry(peer).or_insert_with(|| State::new(first, now));
        if origin == Origin::Configured {
            state.next = now;
        } else if new && member && !fresh {
            // Heard of while waiting: worth a try, but a flood of claims must not make a flood
            // of dials.
            let soon = if state.attempts == 0 { first } else { now + jitter(limits::RETRY_FIRST) };
            state.next = state.next.min(soon);
        }
    }

    /// A configured address that names nobody.
    pub(super) fn learn_nameless(&mut self, addr: Multiaddr, now: Instant) {
        if let Some(known) = self.nameless.iter_mut().find(|one| one.addr == addr) {
            known.next = now;
            if known.found.is_some_and(|peer| self.states.get(&peer).is_none_or(State::is_idle)) {
                known.found = None;
            }
        } else if self.nameless.len() < limits::NAMELESS_ADDRESSES {
            let found = None;
            self.nameless.push(Nameless { addr, attempts: 0, next: now, dialing: false, found });
        }
    }

    /// mDNS no longer sees a peer there.
    pub(super) fn expire(&mut self, peer: DeviceId, addr: &Multiaddr, now: Instant) {
        self.book.expire(&peer, addr);
        let waiting = self.states.get(&peer).is_some_and(|state| {
            // While it is left alone its state is the memory of that.
            state.is_idle() && (state.attempts == 0 || state.next <= now)
        });
        if waiting && !self.members.contains(&peer) && !self.book.knows(&peer) {
            self.states.remove(&peer);
        }
    }

    /// Replaces the member set: new members are due at once, former ones are forgotten or, if
    /// connected, become strangers.
    pub(super) fn set_members(&mut self, members: BTreeSet<DeviceId>, now: Instant) {
        for peer in members.difference(&self.members) {
            if let Some(state) = self.states.get_mut(peer) {
                state.attempts = 0;
                state.next = now;
            }
        }
        for peer in self.members.difference(&members) {
            if self.states.get(peer).is_some_and(State::is_idle) {
                self.states.remove(peer);
                self.book.forget(peer);
            }
        }
        self.members = members;
    }

    /// The dials that are due now; marks them as under way.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Order> {
        let mut room = UNDER_WAY.saturating_sub(self.under_way());
        let mut orders = Vec::new();
        for one in &mut self.nameless {
            if room > 0 && one.found.is_none() && !one.dialing && one.next <= now {
                one.dialing = true;
                room -= 1;
                orders.push(Order { peer: None, addrs: vec![one.addr.clone()] });
            }
        }
        for (peer, state) in &mut self.states {
            if room == 0 {
                break;
            }
            let addrs = if state.is_due(now) {
                let guess = self.book.best_origin(peer) == Some(Origin::Mdns);
                if guess && !self.mdns_rate.take(now) {
                    continue;
                }
                state.start(self.book.addresses(peer), now)
            } else if state.is_to_widen(now) {
                state.widen()
            } else {
                continue;
            };
            if addrs.is_empty() {
                state.dialing = 0;
                state.next = now + limits::LEAVE_ALONE;
                continue;
            }
            room -= 1;
            orders.push(Order { peer: Some(*peer), addrs });
        }
        orders
    }

    /// A connection to a peer exists; `ours` if it answers an [`Order`]. Returns how the peer was
    /// found.
    pub(super) fn connected(
        &mut self,
        peer: DeviceId,
        addr: Option<&Multiaddr>,
        ours: bool,
        now: Instant,
    ) -> Source {
        let mut source = Source::Direct;
        if let Some(addr) = addr {
            if self.members.contains(&peer) {
                // Dialled by Kademlia itself, or already in the book.
                self.book.add(peer, addr.clone(), Origin::Kad);
            }
            source = self.book.origin(&peer, addr).map_or(Source::Direct, Origin::source);
            self.book.works(peer, addr);
        }
        if self.members.contains(&peer) {
            self.states.entry(peer).or_insert_with(|| State::new(now, now));
        }
        if let Some(state) = self.states.get_mut(&peer) {
            state.connected.get_or_insert(now);
            if ours {
                state.dialing = state.dialing.saturating_sub(1);
            }
        }
        source
    }

    /// A nameless address led to this peer.
    pub(super) fn named(&mut self, addr: &Multiaddr, peer: DeviceId, now: Instant) {
        if let Some(one) = self.nameless.iter_mut().find(|one| one.addr == *addr) {
            one.dialing = false;
            one.attempts = 0;
            one.found = Some(peer);
        }
        self.learn(peer, addr.clone(), Origin::Configured, now);
    }

    /// A dial to a peer failed.
    pub(super) fn failed(&mut self, peer: DeviceId, now: Instant) {
        // Nobody answered, so nobody proved foreign: what the user named is tried on.
        let wanted = self.members.contains(&peer)
            || self.book.best_origin(&peer) == Some(Origin::Configured);
        let Some(state) = self.states.get_mut(&peer) else { return };
        state.dialing = state.dialing.saturating_sub(1);
        if state.dialing == 0 {
            state.retry(wanted, now);
        }
    }

    /// A dial to a nameless address failed; for good if it is our own.
    pub(super) fn failed_nameless(&mut self, addr: &Multiaddr, ourselves: bool, now: Instant) {
        if ourselves {
            self.nameless.retain(|one| one.addr != *addr);
        } else if let Some(one) = self.nameless.iter_mut().find(|one| one.addr == *addr) {
            one.dialing = false;
            one.next = now + pause(one.attempts);
            one.attempts = one.attempts.saturating_add(1);
        }
    }

    /// Somebody else (or we ourselves) answered at an address of this peer.
    pub(super) fn wrong_peer(&mut self, peer: DeviceId, addr: &Multiaddr, now: Instant) {
        let mut named = false;
        for one in self.nameless.iter_mut().filter(|one| one.addr == *addr) {
            named |= one.found.take().is_some();
            one.next = now + pause(one.attempts);
            one.attempts = one.attempts.saturating_add(1);
        }
        if named || self.book.origin(&peer, addr) != Some(Origin::Configured) {
            self.book.remove(&peer, addr);
        }
    }

    /// The last connection to a peer is gone.
    pub(super) fn disconnected(&mut self, peer: DeviceId, now: Instant) {
        let member = self.members.contains(&peer);
        let Some(state) = self.states.get_mut(&peer) else { return };
        if let Some(since) = state.connected.take()
            && now.saturating_duration_since(since) >= limits::STEADY
        {
            state.attempts = 0;
        }
        state.retry(member, now);
        if !self.book.knows(&peer) && state.is_idle() {
            self.states.remove(&peer);
        }
    }

    fn under_way(&self) -> usize {
        let named: usize = self.states.values().map(|state| usize::from(state.dialing)).sum();
        named + self.nameless.iter().filter(|one| one.dialing).count()
    }

    /// Makes room for one more stranger; the one known longest goes.
    fn make_room(&mut self) -> bool {
        let strangers = || self.states.iter().filter(|(peer, _)| !self.members.contains(peer));
        if strangers().count() < limits::STRANGERS_IN_BOOK {
            return true;
        }
        let oldest = strangers()
            .filter(|(peer, state)| {
                state.is_idle() && self.book.best_origin(peer) != Some(Origin::Configured)
            })
            .min_by_key(|(_, state)| state.learned)
            .map(|(peer, _)| *peer);
        if let Some(peer) = oldest {
            self.states.remove(&peer);
            self.book.forget(&peer);
        }
        oldest.is_some()
    }
}

impl State {
    fn new(next: Instant, now: Instant) -> Self {
        Self {
            attempts: 0,
            next,
            dialing: 0,
            started: now,
            rest: Vec::new(),
            connected: None,
            learned: now,
        }
    }

    fn is_idle(&self) -> bool {
        self.connected.is_none() && self.dialing == 0
    }

    fn is_due(&self, now: Instant) -> bool {
        self.is_idle() && self.next <= now
    }

    fn is_to_widen(&self, now: Instant) -> bool {
        self.dialing == 1
            && self.connected.is_none()
            && !self.rest.is_empty()
            && now.saturating_duration_since(self.started) >= WIDEN
    }

    /// Begins a dial. TCP moves bulk data faster than QUIC here, so where both are known the
    /// first try is TCP alone, every second one everything.
    fn start(&mut self, addrs: Vec<Multiaddr>, now: Instant) -> Vec<Multiaddr> {
        self.dialing = 1;
        self.started = now;
        self.rest.clear();
        let tcp = |addr: &Multiaddr| peer::transport_of(addr) == Some(Transport::Tcp);
        if self.attempts.is_multiple_of(2) && addrs.iter().any(tcp) {
            let (first, rest) = addrs.into_iter().partition(tcp);
            self.rest = rest;
            return first;
        }
        addrs
    }

    fn widen(&mut self) -> Vec<Multiaddr> {
        self.dialing = 2;
        std::mem::take(&mut self.rest)
    }

    fn retry(&mut self, wanted: bool, now: Instant) {
        self.next = now + if wanted { pause(self.attempts) } else { limits::LEAVE_ALONE };
        self.attempts = self.attempts.saturating_add(1);
    }
}

/// The pause after so many failures: 200 to 600 ms at first, growing by half each time.
fn pause(attempts: u32) -> Duration {
    let grown = limits::RETRY_FIRST.mul_f64(1.5f64.powi(attempts.min(20).cast_signed()));
    jitter(grown.min(limits::RETRY_MAX)).min(limits::RETRY_MAX)
}
