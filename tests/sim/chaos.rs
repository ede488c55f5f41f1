//! What goes wrong: connections come and go, paths are blocked, nodes die, clocks jump; then it ends.

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::crypto::{self, Domain};
use swarmkv_protocol::id::Hash;
use swarmkv_protocol::io::Input;
use swarmkv_protocol::store::RawSlot;

use crate::event::Event;
use crate::invariants;
use crate::plan::Plant;
use crate::world::World;

impl World {
    /// Every half second: mend what is to be mended, break what is to be broken.
    pub fn stir(&mut self) -> Result<(), String> {
        self.agenda.at(self.time + 500, Event::Chaos);
        self.reconnect();
        for a in 0..self.nodes.len() {
            let peers: Vec<usize> = self.nodes[a].links.keys().copied().collect();
            for b in peers {
                self.introduce(a, b)?;
            }
        }
        if !self.chaos {
            return Ok(());
        }
        if self.plan.churn && self.rng.percent(8) {
            let (a, b) = (self.rng.index(self.nodes.len()), self.rng.index(self.nodes.len()));
            self.disconnect(a, b);
        }
        if self.plan.partitions && self.rng.percent(5) {
            self.part();
        }
        if self.plan.kills && self.rng.percent(5) {
            let n = self.rng.index(self.nodes.len());
            let orderly = self.rng.percent(30);
            if orderly {
                // It was about to stop in good order.
                self.input(n, Input::Flush)?;
            }
            self.stop(n, orderly);
        }
        if self.plan.clocks && self.rng.percent(3) {
            let n = self.rng.index(self.nodes.len());
            let skew = self.plan.clone().skew(&mut self.rng);
            self.nodes[n].skew = skew;
        }
        if self.plan.restores && self.rng.percent(4) {
            let n = self.rng.index(self.nodes.len());
            let copy = self.nodes[n].disk.borrow().durable.clone();
            self.nodes[n].old_copy = Some(copy);
        }
        if self.plan.rot && self.rng.percent(3) {
            let n = self.rng.index(self.nodes.len());
            self.rot(n);
        }
        if self.plan.naps && self.rng.percent(2) {
            let n = self.rng.index(self.nodes.len());
            self.nodes[n].asleep_until = self.time + self.rng.range(1_000, 40_000);
        }
        if self.plan.revocations && self.rng.percent(3) {
            self.revoke()?;
        }
        if self.plan.hostility.as_ref().is_some_and(|h| h.revocations) && self.rng.percent(6) {
            self.expel()?;
        }
        let people = self.plan.hostility.as_ref().map_or(0, |hostility| hostility.people);
        if people > 0 && self.rng.percent(people) {
            self.person()?;
        }
        if let Some(rogue) = self.plan.rogue {
            crate::rogue::act(self, rogue);
        }
        Ok(())
    }

    /// Somebody takes somebody out, or leaves.
    fn revoke(&mut self) -> Result<(), String> {
        let issuer = self.rng.index(self.nodes.len());
        let leaves = self.rng.percent(20);
        let target = if leaves { issuer } else { self.rng.index(self.nodes.len()) };
        let device = self.nodes[target].id;
        // A rogue's replica may be the only one with the state at its cut, and then be gone.
        let Some(engine) = self.nodes[issuer].engine.as_ref().filter(|_| self.honest(issuer))
        else {
            return Ok(());
        };
        let may = engine.roster().may_revoke(&self.nodes[issuer].id, &device)
            && engine.roster().member(&device).is_some();
        if !may || (self.outcasts.len() + 1) * 2 > self.nodes.len() {
            return Ok(());
        }
        self.outcasts.insert(target);
        let token = self.token();
        self.input(issuer, Input::Revoke { token, device })
    }

    /// Whoever had the state at a cut is gone with it: the owner ends those logs where it has them.
    pub fn cut_again(&mut self) -> Result<(), String> {
        let Some(owner) = self.nodes[0].engine.as_ref() else { return Ok(()) };
        let revoked = owner.roster().revoked().map(|(device, ..)| *device);
        let lacking: Vec<_> = revoked.filter(|device| owner.lacks_cut(device)).collect();
        for device in lacking {
            let token = self.token();
            self.input(0, Input::Revoke { token, device })?;
        }
        Ok(())
    }

    fn reconnect(&mut self) {
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                let up = self.nodes[a].engine.is_some() && self.nodes[b].engine.is_some();
                let free = !self.blocked(a, b) && !self.blocked(b, a);
                let absent = !self.links.contains_key(&(a, b));
                if up && free && absent && (!self.chaos || self.rng.percent(30)) {
                    self.connect(a, b);
                }
            }
        }
    }

    /// Halves that do not hear each other, or one direction that is dead.
    fn part(&mut self) {
        let until = self.time + self.rng.range(2_000, 25_000);
        let count = self.nodes.len();
        if self.rng.percent(40) {
            let (a, b) = (self.rng.index(count), self.rng.index(count));
            self.blocked.insert((a, b), until);
            return;
        }
        if self.rng.percent(25) {
            // A ring: everybody hears two neighbours only.
            for a in 0..count {
                for b in (0..count).filter(|b| (a + 1) % count != *b && (b + 1) % count != a) {
                    self.blocked.insert((a, b), until);
                    self.disconnect(a, b);
                }
            }
            return;
        }
        let side: Vec<bool> = (0..count).map(|_| self.rng.percent(50)).collect();
        for a in 0..count {
            for b in 0..count {
                if side[a] != side[b] {
                    self.blocked.insert((a, b), until);
                    self.disconnect(a, b);
                }
            }
        }
    }

    /// A slot on a disk goes bad: one that somebody else has as well.
    fn rot(&mut self, n: usize) {
        use swarmkv_protocol::store::Store as _;
        let node = &self.nodes[n];
        let Some(engine) = node.engine.as_ref().filter(|_| self.honest(n) && node.rotten.is_none())
        else {
            return;
        };
        let heads = engine.heads();
        let keys: Vec<Bytes> = node.disk.borrow().durable.keys().cloned().collect();
        if keys.is_empty() {
            return;
        }
        let key = keys[self.rng.index(keys.len())].clone();
        let slots = self.nodes[n].disk.borrow().durable.slots(&key).unwrap_or_default();
        // Shown there, durable, and whole: a copy that is damaged or set aside itself is none.
        let there = |other: usize, log: &swarmkv_protocol::id::LogId| {
            let node = &self.nodes[other];
            let whole = node.engine.as_ref().filter(|_| node.rotten.is_none());
            let heads = whole.map(crate::node::heads).unwrap_or_default();
            let shown = heads.get(log).copied().unwrap_or(0);
            shown.min(self.durable_head(other, log))
        };
        let others = |log: &swarmkv_protocol::id::LogId| {
            let member = |other: &usize| {
                *other != n && self.honest(*other) && !self.outcasts.contains(other)
            };
            (0..self.nodes.len()).filter(member).map(|other| there(other, log)).max().unwrap_or(0)
        };
        let shown = |slot: &&RawSlot| {
            let log = &slot.branch.log;
            self.honest_author(log) && slot.seq <= heads.of(&slot.branch).min(others(log))
        };
        let Some(slot) = slots.iter().find(shown).cloned() else { return };
        let visible = self.nodes[n].disk.borrow().visible.slots(&key).unwrap_or_default();
        if visible.contains(&slot) {
            self.nodes[n].disk.borrow_mut().rot(&key, slot.clone());
            self.nodes[n].rotten = Some((key, slot));
        }
    }

    /// A process dies, now.
    pub fn kill(&mut self, n: usize) {
        self.stop(n, false);
    }

    fn stop(&mut self, n: usize, orderly: bool) {
        if self.nodes[n].engine.is_none() {
            return;
        }
        for peer in 0..self.nodes.len() {
            self.disconnect(n, peer);
        }
        let lucky = self.rng.below(4);
        if self.nodes[n].memory {
            self.forget(n, orderly);
        } else {
            self.nodes[n].kill(lucky);
        }
        if self.plan.plant == Plant::ForgetSynced && n == 0 && self.time > 5_000 {
            let keep = swarmkv_protocol::memory::MemoryStore::default();
            self.nodes[n].disk.borrow_mut().restore(&keep);
        }
        let pause = self.rng.range(50, 15_000);
        self.agenda.at(self.time + pause, Event::Restart(n));
    }

    pub fn restart(&mut self, n: usize) -> Result<(), String> {
        if self.nodes[n].engine.is_some() || self.nodes[n].genesis.is_none() {
            return Ok(());
        }
        let restored = self.plan.restores && self.rng.percent(40);
        let restored = restored && !self.nodes[n].memory;
        let copy = if restored { self.nodes[n].old_copy.clone() } else { None };
        let often = self.plan.hostility.as_ref().map_or(0, |hostility| hostility.fresh_epochs);
        let fresh = self.rng.percent(often);
        let Some(copy) = copy else { return self.start(n, fresh) };
        self.waive(n);
        self.nodes[n].disk.borrow_mut().restore(&copy);
        self.nodes[n].shown.clear();
        self.nodes[n].rotten = None;
        // A rogue goes on in the same log, as if nothing had happened: it forks itself. And so does who
        // cannot notice.
        let noticed = self.honest(n) && !self.plan.unnoticed;
        if !noticed {
            let author = self.nodes[n].id;
            let own = self.model.logs.keys().filter(|log| log.author == author);
            self.forked.extend(own.copied());
        }
        self.start(n, noticed)
    }

    /// A disk is lost, or its device is taken out: what no other member holds durably may go with it, of its
    /// own logs and of those that others lost before.
    pub fn waive(&mut self, n: usize) {
        let logs: Vec<_> = self.model.logs.keys().copied().collect();
        for log in logs {
            let holds = |other: &usize| {
                *other != n && self.honest(*other) && !self.outcasts.contains(other)
            };
            let others = (0..self.nodes.len()).filter(holds);
            let safe = others.map(|other| self.durable_head(other, &log)).max().unwrap_or(0);
            let entry = self.model.waived.entry(log).or_insert(u64::MAX);
            *entry = safe.min(*entry);
        }
    }

    /// Where the highest header of a log on a node's durable disk ends that a commit of it has.
    pub fn durable_head(&self, n: usize, log: &swarmkv_protocol::id::LogId) -> u64 {
        let Some(written) = self.model.logs.get(log) else { return 0 };
        let disk = self.nodes[n].disk.borrow();
        // Another header there is of another history.
        let there = |(seq, hash): &(&u64, &Hash)| {
            let mut headers = crate::disk::headers_at(&disk.durable, log, **seq);
            headers.any(|bytes| crypto::hash(Domain::Header, &[&bytes]) == **hash)
        };
        written.ends.iter().rev().find(there).map_or(0, |(seq, _)| *seq)
    }

    /// Faults end: everybody is up, the network is whole, clocks stay as wrong as they are.
    pub fn calm(&mut self) -> Result<(), String> {
        invariants::kept::note(self);
        self.chaos = false;
        self.blocked.clear();
        for n in 0..self.nodes.len() {
            let gone = !self.honest(n) && !self.plan.rogue_stays;
            if gone {
                self.kill(n);
                self.nodes[n].genesis = None;
            } else if self.nodes[n].genesis.is_some() {
                self.restart(n)?;
            } else {
                self.agenda.at(self.time, Event::Join(n));
            }
            self.nodes[n].asleep_until = 0;
            self.input(n, Input::Tick)?;
            if self.honest(n) {
                self.input(n, Input::Scrub)?;
            }
        }
        Ok(())
    }
}
