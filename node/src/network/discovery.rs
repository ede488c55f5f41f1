//! What is made of the reports of mDNS, identify and Kademlia. What is dialled, and when, is the dialer's.

use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{FromSwarm, NetworkBehaviour as _};
use libp2p::{identify, kad, mdns};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::book::Origin;
use super::event::Event;
use super::finders;
use super::limits;
use super::peer;
use super::task::Task;

impl Task {
    pub(super) fn on_mdns(&mut self, event: mdns::Event) {
        let now = Instant::now();
        match event {
            mdns::Event::Discovered(found) => {
                for (peer, addr) in found.into_iter().take(limits::MDNS_RECORDS) {
                    let addr = peer::bare(&addr);
                    if let Some(device) = peer::to_device(&peer)
                        && peer::dialable(&addr, false)
                    {
                        self.dialer.learn(device, addr, Origin::Mdns, now);
                    }
                }
                self.reset_mdns_when_full();
            }
            mdns::Event::Expired(gone) => {
                for (peer, addr) in gone {
                    if let Some(device) = peer::to_device(&peer) {
                        self.dialer.expire(device, &peer::bare(&addr), now);
                    }
                }
            }
        }
    }

    /// mDNS keeps every record that anyone on the network claims, for as long as they claim: past
    /// our bound it is replaced by a fresh one.
    fn reset_mdns_when_full(&mut self) {
        let me = *self.swarm.local_peer_id();
        let records =
            self.swarm.behaviour().mdns.as_ref().map_or(0, |mdns| mdns.discovered_nodes().len());
        if records <= limits::MDNS_RECORDS {
            return;
        }
        warn!(records, "mDNS is flooded: starting it afresh");
        let mut fresh = match finders::mdns(me) {
            Ok(fresh) => fresh,
            Err(error) => {
                warn!(%error, "mDNS cannot start again");
                self.swarm.behaviour_mut().mdns = Toggle::from(None);
                return;
            }
        };
        for (listener, addr) in &self.listening {
            fresh.on_swarm_event(FromSwarm::NewListenAddr(libp2p::swarm::NewListenAddr {
                listener_id: *listener,
                addr,
            }));
        }
        self.swarm.behaviour_mut().mdns = Toggle::from(Some(fresh));
    }

    pub(super) fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { connection_id, peer_id, info } = event else { return };
        let Some(conn) = self.conns.get(&connection_id) else { return };
        if !conn.member || info.public_key.to_peer_id() != peer_id {
            return;
        }
        let (device, dialer, remote) = (conn.peer, conn.dialer, peer::ip_of(&conn.remote));
        let loopback = remote.is_some_and(|ip| ip.is_loopback());
        let now = Instant::now();
        let mut learned = 0;
        for addr in info.listen_addrs.into_iter().take(limits::ADDRESSES_PER_REPORT) {
            let addr = peer::bare(&addr);
            if !peer::dialable(&addr, loopback) {
                continue;
            }
            // The address that the connection came from most likely works again.
            let same_host = peer::ip_of(&addr) == remote;
            if !dialer && same_host && learned < limits::LEARNED_PER_CONNECTION {
                learned += 1;
                self.outbox.push(Event::AddressLearned { peer: device, addr: addr.to_string() });
            }
            self.dialer.learn(device, addr.clone(), Origin::Identify, now);
            self.swarm.behaviour_mut().inside().kad.add_address(&peer_id, addr);
        }
        self.look_up_soon();
    }

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        let kad::Event::OutboundQueryProgressed { result, .. } = event else { return };
        let kad::QueryResult::GetClosestPeers(result) = result else { return };
        let peers = match result {
            Ok(found) => found.peers,
            Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
        };
        let now = Instant::now();
        for found in peers {
            let Some(device) = peer::to_device(&found.peer_id) else { continue };
            if !self.members.contains(&device) || self.is_connected(&device) {
                continue;
            }
            for addr in found.addrs.into_iter().take(limits::ADDRESSES_PER_REPORT) {
                let addr = peer::bare(&addr);
                // Loopback too: the member that told us may share a machine with both of us.
                if peer::dialable(&addr, true) {
                    self.dialer.learn(device, addr, Origin::Kad, now);
                }
            }
        }
    }

    /// Looks for members through members shortly: something changed.
    pub(super) fn look_up_soon(&mut self) {
        self.lookup_at = self.lookup_at.min(Instant::now() + limits::LOOKUP_SOON);
    }

    /// Asks members for the peers nearest to us, when it is time.
    pub(super) fn look_up(&mut self, now: Instant) {
        if now < self.lookup_at {
            return;
        }
        let me = *self.swarm.local_peer_id();
        let missing = self.members.iter().any(|one| *one != self.device && !self.is_connected(one));
        let pause = if missing { limits::LOOKUP_MISSING } else { limits::LOOKUP_QUIET };
        self.lookup_at = now + pause;
        if self.conns.values().any(|conn| conn.member) {
            debug!("looking for members through members");
            self.swarm.behaviour_mut().inside().kad.get_closest_peers(me);
        }
    }
}
