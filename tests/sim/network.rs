//! The simulated network: connections, gossip with loss and repeats, ordered streams that can be cut.

use std::rc::Rc;

use swarmkv_protocol::crypto::{self, Domain};
use swarmkv_protocol::id::DeviceId;
use swarmkv_protocol::io::{Input, SessionId};

use crate::event::Event;
use crate::plan::Plant;
use crate::world::{Session, World};

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl World {
    pub fn latency(&mut self) -> u64 {
        let delay = self.plan.delay;
        let base = 1 + self.rng.below(2 * delay);
        let tail = self.chaos && self.rng.percent(self.plan.tail);
        if tail { base + self.rng.below(6_000) } else { base }
    }

    pub fn blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.get(&(from, to)).is_some_and(|until| *until > self.time)
    }

    // ---- connections --------------------------------------------------------------------------

    pub fn connect(&mut self, a: usize, b: usize) {
        self.next_link += 1;
        let link = self.next_link;
        self.links.insert(pair(a, b), link);
        for (node, peer) in [(a, b), (b, a)] {
            let pause = self.rng.range(1, 60);
            let life = self.nodes[node].life;
            self.agenda.at(self.time + pause, Event::Up { node, life, peer, link });
        }
    }

    pub fn disconnect(&mut self, a: usize, b: usize) {
        let Some(link) = self.links.remove(&pair(a, b)) else { return };
        for s in 0..self.sessions.len() {
            if self.sessions[s].link == link && !self.sessions[s].cut {
                self.cut(s);
            }
        }
        for (node, peer) in [(a, b), (b, a)] {
            let pause = self.rng.range(61, 3_000);
            let life = self.nodes[node].life;
            self.agenda.at(self.time + pause, Event::Down { node, life, peer, link });
        }
    }

    /// Ends a session at once for both sides; what is on the way is lost.
    pub fn cut(&mut self, s: usize) {
        self.sessions[s].cut = true;
        for end in 0..2 {
            let pause = self.rng.range(1, 2_000);
            self.agenda.at(self.time + pause, Event::Closed(s, end));
        }
    }

    pub fn link_up(
        &mut self,
        node: usize,
        life: u64,
        peer: usize,
        link: u64,
    ) -> Result<(), String> {
        if self.nodes[node].life != life || self.links.get(&pair(node, peer)) != Some(&link) {
            return Ok(());
        }
        self.nodes[node].links.entry(peer).or_default().insert(link);
        self.tell_members(node)?;
        self.introduce(node, peer)
    }

    /// Where one side does not know the other, both hear that they are strangers.
    pub fn introduce(&mut self, node: usize, peer: usize) -> Result<(), String> {
        let knows = |a: usize, b: usize| {
            let engine = self.nodes[a].engine.as_ref();
            engine.is_some_and(|e| e.roster().member(&self.nodes[b].id).is_some())
        };
        if knows(node, peer) && knows(peer, node) {
            return Ok(());
        }
        let id = self.nodes[peer].id;
        self.input(node, Input::Stranger(id))
    }

    /// Tells the engine of every connected peer that its roster names by now.
    pub fn tell_members(&mut self, node: usize) -> Result<(), String> {
        let peers: Vec<usize> = self.nodes[node].links.keys().copied().collect();
        for peer in peers {
            let id = self.nodes[peer].id;
            let member = |e: &swarmkv_protocol::engine::Engine<_>| e.roster().member(&id).is_some();
            let known = self.nodes[node].engine.as_ref().is_some_and(member);
            if known && self.nodes[node].told.insert(peer) {
                self.input(node, Input::Connected(id))?;
            } else if !known && self.nodes[node].told.remove(&peer) {
                let link = self.links.get(&pair(node, peer)).copied();
                for s in 0..self.sessions.len() {
                    if Some(self.sessions[s].link) == link && !self.sessions[s].cut {
                        self.cut(s);
                    }
                }
                self.input(node, Input::Disconnected(id))?;
            }
        }
        Ok(())
    }

    pub fn link_down(
        &mut self,
        node: usize,
        life: u64,
        peer: usize,
        link: u64,
    ) -> Result<(), String> {
        if self.nodes[node].life != life {
            return Ok(());
        }
        if let Some(links) = self.nodes[node].links.get_mut(&peer) {
            links.remove(&link);
            if links.is_empty() {
                self.nodes[node].links.remove(&peer);
                if self.nodes[node].told.remove(&peer) {
                    let id = self.nodes[peer].id;
                    return self.input(node, Input::Disconnected(id));
                }
            }
        }
        Ok(())
    }

    // ---- gossip -------------------------------------------------------------------------------

    /// Sends a message to every neighbour but the one it came from.
    pub fn spread(&mut self, n: usize, except: Option<usize>, bytes: &Rc<[u8]>) {
        if self.replay.len() < 64 {
            self.replay.push(Rc::clone(bytes));
        } else {
            let slot = self.rng.index(64);
            self.replay[slot] = Rc::clone(bytes);
        }
        for peer in 0..self.nodes.len() {
            if Some(peer) == except || !self.links.contains_key(&pair(n, peer)) || peer == n {
                continue;
            }
            let mutate = !self.honest(n) || (self.plan.plant == Plant::MutateHonest && n == 0);
            let bytes =
                if mutate { crate::rogue::gossip(self, n, bytes) } else { Rc::clone(bytes) };
            self.post(n, peer, bytes);
        }
    }

    /// One message on its way: perhaps lost, perhaps several times.
    pub fn post(&mut self, from: usize, to: usize, bytes: Rc<[u8]>) {
        let lost = self.chaos && self.rng.percent(self.plan.loss);
        if lost || self.blocked(from, to) {
            return;
        }
        let pause = self.latency();
        self.mix(&bytes);
        self.agenda.at(self.time + pause, Event::Gossip { to, from, bytes: Rc::clone(&bytes) });
        if self.chaos && self.rng.percent(self.plan.duplication) {
            let again = pause + self.latency();
            self.agenda.at(self.time + again, Event::Gossip { to, from, bytes });
        }
    }

    pub fn gossip_arrives(
        &mut self,
        to: usize,
        from: usize,
        bytes: Rc<[u8]>,
    ) -> Result<(), String> {
        // Strangers have no gossip stream.
        if self.nodes[to].engine.is_none() || !self.nodes[to].told.contains(&from) {
            return Ok(());
        }
        let id = crypto::hash(Domain::Content, &[&bytes]);
        // Now and then the transport has forgotten that it saw a message.
        let forgets = self.rng.percent(5);
        if !self.nodes[to].seen.insert(id) && !forgets {
            return Ok(());
        }
        let token = self.token();
        let device = self.nodes[from].id;
        self.nodes[to].verdicts.insert(token, (from, Rc::clone(&bytes)));
        self.input(to, Input::Gossip { token, from: device, bytes: bytes.to_vec() })
    }

    // ---- streams ------------------------------------------------------------------------------

    pub fn open_session(&mut self, n: usize, id: SessionId, peer: &DeviceId) {
        let peer = self.index(peer).expect("engines only know nodes");
        let link = self.links.get(&pair(n, peer)).copied();
        let s = self.sessions.len();
        self.sessions.push(Session {
            ends: [n, peer],
            lives: [self.nodes[n].life, self.nodes[peer].life],
            ids: [Some(id), None],
            link: link.unwrap_or(0),
            cut: false,
            last: [0, 0],
            sent: Vec::new(),
        });
        self.nodes[n].sessions.insert(id, s);
        if link.is_none() || self.blocked(n, peer) || self.blocked(peer, n) {
            return self.cut(s);
        }
        let pause = self.latency();
        self.sessions[s].last = [self.time + 2 * pause, self.time + pause];
        self.agenda.at(self.time + pause, Event::Opened(s));
        self.agenda.at(self.time + 2 * pause, Event::Ready(s, 0));
    }

    fn live(&self, s: usize, end: usize) -> Option<(usize, SessionId)> {
        let session = &self.sessions[s];
        let n = session.ends[end];
        let id = session.ids[end]?;
        let current = self.nodes[n].life == session.lives[end];
        (current && self.nodes[n].sessions.get(&id) == Some(&s)).then_some((n, id))
    }

    pub fn session_opened(&mut self, s: usize) -> Result<(), String> {
        let [from, to] = self.sessions[s].ends;
        if self.sessions[s].cut || self.nodes[to].life != self.sessions[s].lives[1] {
            return Ok(());
        }
        if !self.nodes[to].told.contains(&from) {
            // A stranger's stream is refused.
            self.cut(s);
            return Ok(());
        }
        let id = SessionId(self.nodes[to].next_session);
        self.nodes[to].next_session += 2;
        self.nodes[to].sessions.insert(id, s);
        self.sessions[s].ids[1] = Some(id);
        self.agenda.at(self.time, Event::Ready(s, 1));
        let device = self.nodes[from].id;
        self.input(to, Input::SessionOpened(id, device))
    }

    pub fn session_ready(&mut self, s: usize, end: usize) -> Result<(), String> {
        match self.live(s, end) {
            Some((n, id)) if !self.sessions[s].cut => self.input(n, Input::SessionReady(id)),
            _ => Ok(()),
        }
    }

    pub fn send_frame(&mut self, n: usize, id: SessionId, bytes: Vec<u8>) {
        let Some(&s) = self.nodes[n].sessions.get(&id) else { return };
        if self.sessions[s].cut {
            return;
        }
        let end = usize::from(self.sessions[s].ends[0] != n);
        let leaves = |h: &crate::hostile::Hostile| h.honest_sessions.contains(&id);
        let alone = self.hostile.get(&n).is_some_and(leaves);
        let mutate =
            !self.honest(n) && !alone || (self.plan.plant == Plant::MutateHonest && n == 0);
        let bytes = if mutate { crate::rogue::frame(self, s, bytes) } else { Some(bytes) };
        let Some(bytes) = bytes else { return };
        self.transmit(s, end, bytes);
    }

    /// Puts a frame on its way, as it is.
    pub fn transmit(&mut self, s: usize, end: usize, bytes: Vec<u8>) {
        self.count_idle(s, end, &bytes);
        if self.chaos && self.plan.churn && self.rng.percent(2) {
            return self.cut(s);
        }
        self.mix(&bytes);
        let pause = self.latency();
        let other = 1 - end;
        let at = (self.time + pause).max(self.sessions[s].last[other]);
        self.sessions[s].last[other] = at;
        self.agenda.at(at, Event::Frame(s, other, bytes));
        // Queued, not delivered: the next may follow before this one arrives.
        let ready = self.rng.range(1, pause + 2);
        self.agenda.at(self.time + ready, Event::Ready(s, end));
    }

    /// Counts slots that pass between honest replicas that were seen equal, and were sent to the same one
    /// since then already. Those that are new to it do not count: hostile members bring out what they kept
    /// back, and their largest commits alone have more slots than may be sent in vain.
    fn count_idle(&mut self, s: usize, end: usize, bytes: &[u8]) {
        use swarmkv_protocol::codec;
        use swarmkv_protocol::message::{self, Repair};
        let [a, b] = self.sessions[s].ends;
        let to = self.sessions[s].ends[1 - end];
        if self.stage == crate::hostile::Stage::Equal
            && self.honest(a)
            && self.honest(b)
            && let Ok(Repair::Slots(slots)) = message::decode(bytes)
        {
            for slot in slots {
                let name = crypto::hash(Domain::Content, &[&codec::encode(&slot)]);
                self.idle_slots += u64::from(!self.sent_idle.insert((to, name)));
            }
        }
    }

    pub fn frame_arrives(&mut self, s: usize, end: usize, bytes: Vec<u8>) -> Result<(), String> {
        match self.live(s, end) {
            Some((n, id)) if !self.sessions[s].cut => self.input(n, Input::SessionFrame(id, bytes)),
            _ => Ok(()),
        }
    }

    pub fn close_session(&mut self, n: usize, id: SessionId) {
        let Some(&s) = self.nodes[n].sessions.get(&id) else { return };
        self.nodes[n].sessions.remove(&id);
        let other = usize::from(self.sessions[s].ends[0] == n);
        let pause = self.latency();
        let at = (self.time + pause).max(self.sessions[s].last[other]);
        self.agenda.at(at, Event::Closed(s, other));
    }

    pub fn session_closed(&mut self, s: usize, end: usize) -> Result<(), String> {
        let Some((n, id)) = self.live(s, end) else { return Ok(()) };
        self.nodes[n].sessions.remove(&id);
        self.input(n, Input::SessionClosed(id))
    }
}
