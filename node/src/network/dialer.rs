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
        let asked: Vec<&Multiaddr> =
            self.nameless.iter().filter(|one| one.dialing).map(|one| &one.addr).collect();
        for (peer, state) in &mut self.states {
            if room == 0 {
                break;
            }
            let addrs = if state.is_due(now) {
                // Who may be about to answer there is not dialled twice.
                let addrs = self.book.addresses(peer);
                if !addrs.is_empty() && addrs.iter().all(|addr| asked.contains(&addr)) {
                    continue;
                }
                let guess = self.book.best_origin(peer) == Some(Origin::Mdns);
                if guess && !self.mdns_rate.take(now) {
                    continue;
                }
                state.start(addrs, now)
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

    /// Whether something may be due before this moment.
    pub(super) fn waits_until(&self, moment: Instant) -> bool {
        self.nameless.iter().any(|one| one.found.is_none() && !one.dialing && one.next <= moment)
            || self.states.values().any(|state| {
                state.is_due(moment) || (state.connected.is_none() && !state.rest.is_empty())
            })
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
            source = self.book.source(&peer, addr).unwrap_or(Source::Direct);
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

#[cfg(test)]
mod tests {
    use super::*;

    const ME: DeviceId = DeviceId::new([5; 32]);
    const SMALL: DeviceId = DeviceId::new([1; 32]);
    const GREAT: DeviceId = DeviceId::new([9; 32]);

    fn addr(port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()
    }

    fn quic(port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/udp/{port}/quic-v1").parse().unwrap()
    }

    fn dialer(members: &[DeviceId], now: Instant) -> Dialer {
        Dialer::new(ME, members.iter().copied().collect(), now)
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn of_two_that_find_each_other_the_smaller_dials_first() {
        let now = Instant::now();
        let mut dialer = dialer(&[SMALL, GREAT], now);
        dialer.learn(SMALL, addr(1), Origin::Mdns, now);
        dialer.learn(GREAT, addr(2), Origin::Mdns, now);
        assert_eq!(dialer.due(now), [Order { peer: Some(GREAT), addrs: vec![addr(2)] }]);
        assert_eq!(dialer.due(now + ms(1400)), []);
        assert_eq!(dialer.due(now + ms(1600))[0].peer, Some(SMALL));
    }

    #[test]
    fn who_may_be_about_to_answer_by_a_nameless_address_is_not_dialled_twice() {
        let now = Instant::now();
        let mut dialer = dialer(&[SMALL, GREAT], now);
        for (peer, port) in [(SMALL, 1), (GREAT, 2)] {
            dialer.learn(peer, addr(port), Origin::Known, now);
            dialer.learn_nameless(addr(port), now);
        }
        dialer.learn(GREAT, quic(2), Origin::Known, now);
        let dialled: Vec<_> = dialer.due(now).into_iter().map(|order| order.peer).collect();
        assert_eq!(dialled, [None, None, Some(GREAT)], "the one has another address");
        assert_eq!(dialer.due(now), []);
        dialer.failed_nameless(&addr(1), false, now);
        assert_eq!(dialer.due(now), [Order { peer: Some(SMALL), addrs: vec![addr(1)] }]);
    }

    #[test]
    fn a_member_is_dialled_again_with_growing_pauses_up_to_half_a_minute() {
        let mut now = Instant::now();
        let mut dialer = dialer(&[SMALL], now);
        dialer.learn(SMALL, addr(1), Origin::Known, now);
        for round in 0..20 {
            assert_eq!(dialer.due(now).len(), 1, "round {round}");
            dialer.failed(SMALL, now);
            let pause = dialer.states[&SMALL].next - now;
            assert!(pause <= limits::RETRY_MAX);
            assert!(round != 0 || (ms(200)..=ms(600)).contains(&pause));
            assert!(round < 15 || pause >= limits::RETRY_MAX / 2);
            now += pause;
        }
    }

    #[test]
    fn a_stranger_gets_one_dial_and_then_peace() {
        let now = Instant::now();
        let mut dialer = dialer(&[], now);
        dialer.learn(GREAT, addr(1), Origin::Mdns, now);
        assert_eq!(dialer.due(now).len(), 1);
        dialer.connected(GREAT, Some(&addr(1)), true, now);
        dialer.disconnected(GREAT, now);
        dialer.learn(GREAT, addr(2), Origin::Mdns, now);
        assert_eq!(dialer.due(now + ms(599_000)), []);
        assert_eq!(dialer.due(now + ms(601_000)).len(), 1);
        // Unless it becomes a member.
        dialer.failed(GREAT, now);
        dialer.set_members([GREAT].into(), now);
        assert_eq!(dialer.due(now).len(), 1);
    }

    #[test]
    fn a_flood_on_the_local_network_is_dialled_slowly_and_remembered_little() {
        let now = Instant::now();
        let mut dialer = dialer(&[SMALL], now);
        dialer.learn(SMALL, addr(1), Origin::Known, now);
        for n in 0..1000u16 {
            let mut id = [7; 32];
            id[..2].copy_from_slice(&n.to_be_bytes());
            id[0] |= 0x80;
            dialer.learn(DeviceId::new(id), addr(n), Origin::Mdns, now);
        }
        assert!(dialer.states.len() <= limits::STRANGERS_IN_BOOK + 1);
        let first = dialer.due(now);
        assert!(first.len() <= 5 && first.iter().any(|order| order.peer == Some(SMALL)));
        assert!(dialer.due(now + ms(1000)).len() <= 4);
    }

    #[test]
    fn tcp_goes_first_and_quic_joins_in_when_it_is_slow() {
        let now = Instant::now();
        let mut dialer = dialer(&[SMALL], now);
        dialer.learn(SMALL, quic(1), Origin::Known, now);
        dialer.learn(SMALL, addr(1), Origin::Known, now);
        assert_eq!(dialer.due(now)[0].addrs, [addr(1)]);
        assert_eq!(dialer.due(now + ms(900)), []);
        assert_eq!(dialer.due(now + ms(1100))[0].addrs, [quic(1)]);
        assert_eq!(dialer.due(now + ms(2500)), []);
        dialer.failed(SMALL, now);
        assert_eq!(dialer.due(now + ms(5000)), [], "one of the two is still under way");
        dialer.failed(SMALL, now);
        assert_eq!(dialer.due(now + ms(5000))[0].addrs.len(), 2);
    }

    #[test]
    fn an_address_where_somebody_else_answers_is_dropped_or_nameless_again() {
        let now = Instant::now();
        let mut dialer = dialer(&[SMALL], now);
        dialer.learn_nameless(addr(1), now);
        assert_eq!(dialer.due(now), [Order { peer: None, addrs: vec![addr(1)] }]);
        dialer.named(&addr(1), SMALL, now);
        dialer.connected(SMALL, Some(&addr(1)), false, now);
        dialer.disconnected(SMALL, now);
        let later = now + ms(1000);
        assert_eq!(dialer.due(later)[0].peer, Some(SMALL));
        dialer.wrong_peer(SMALL, &addr(1), later);
        dialer.failed(SMALL, later);
        let orders = dialer.due(later + ms(2000));
        assert_eq!(orders, [Order { peer: None, addrs: vec![addr(1)] }]);
        dialer.failed_nameless(&addr(1), true, later);
        assert!(dialer.nameless.is_empty());
    }

    #[test]
    fn a_connection_that_ends_early_does_not_reset_the_pause() {
        let mut now = Instant::now();
        let mut dialer = dialer(&[SMALL], now);
        dialer.learn(SMALL, addr(1), Origin::Known, now);
        for _ in 0..12 {
            assert_eq!(dialer.due(now).len(), 1);
            dialer.connected(SMALL, Some(&addr(1)), true, now);
            now += Duration::from_secs(10);
            dialer.disconnected(SMALL, now);
            now = dialer.states[&SMALL].next;
        }
        assert!(dialer.states[&SMALL].attempts >= 12);
        dialer.due(now);
        dialer.connected(SMALL, Some(&addr(1)), true, now);
        now += limits::STEADY;
        dialer.disconnected(SMALL, now);
        assert!(dialer.states[&SMALL].next - now <= ms(600));
    }
}
