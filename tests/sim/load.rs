//! The workload: puts, overwrites, deletes, transactions, big values, expiry, conditions; joining.

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::io::{Change, Condition, Edit, Input, Token};
use swarmkv_protocol::limits::VERSION;
use swarmkv_protocol::message;
use swarmkv_protocol::model::cell::{Cell, Tag};
use swarmkv_protocol::roster::Role;
use swarmkv_protocol::ticket::{Invite, JoinAnswer, JoinRequest, Redeem, Ticket};
use swarmkv_protocol::view::View;

use crate::event::Event;
use crate::world::World;

impl World {
    /// One write at a node, then the next is planned.
    pub fn load(&mut self, n: usize) -> Result<(), String> {
        if !self.chaos || self.nodes[n].engine.is_none() || self.hostile.contains_key(&n) {
            return Ok(());
        }
        let pause = self.rng.below(2 * self.plan.writes_every);
        self.agenda.at(self.time + pause, Event::Load(n));
        let ops = match self.rng.below(100) {
            0 => self.rng.range(260, 400),
            1..=12 => self.rng.range(2, 12),
            _ => 1,
        };
        let changes: Vec<Change> = (0..ops).map(|_| self.change(n, ops)).collect();
        let token = self.token();
        self.nodes[n].writes.insert(token, changes.clone());
        self.input(n, Input::Write(token, changes))
    }

    fn change(&mut self, n: usize, ops: u64) -> Change {
        // What is no number can be added to nothing: counters have keys of their own.
        let counts = self.rng.percent(5);
        let key = match self.rng.below(100) {
            _ if counts => format!("c{}", self.rng.below(3)),
            0..85 => format!("k{}", self.rng.below(self.plan.keys)),
            _ => format!("u{n}-{}", self.rng.below(4_000)),
        };
        let cell = self.cell(key.into_bytes());
        let edit = match self.rng.below(100) {
            0..20 => Edit::Delete,
            20..25 if counts => Edit::Put(Bytes(self.rng.below(100).to_string().into_bytes())),
            _ if counts => Edit::Add(self.rng.below(19).cast_signed() - 9),
            _ => Edit::Put(self.value(ops)),
        };
        let wall = self.nodes[n].now(self.time).wall;
        let expires_at = self.rng.percent(8).then(|| wall.saturating_add(self.rng.below(60_000)));
        let condition = self.rng.percent(8).then(|| {
            if self.rng.percent(50) { Condition::Absent } else { Condition::Values(Vec::new()) }
        });
        let condition = match condition {
            Some(Condition::Values(_)) => {
                let view = self.view(n, &cell.index_key());
                let there = view.map(|v| v.values(wall).map(|s| s.version).collect());
                Some(Condition::Values(there.unwrap_or_default()))
            }
            other => other,
        };
        Change { cell, edit, expires_at, condition }
    }

    /// Mostly the key itself; where the plan wants it a field or an element, also such as cannot be written.
    fn cell(&mut self, key: Vec<u8>) -> Cell {
        let fields = self.plan.hostility.as_ref().map_or(0, |hostility| hostility.fields);
        if fields == 0 || !self.rng.percent(fields) {
            return Cell::value(key);
        }
        let tag = match self.rng.below(10) {
            0 => Tag::Set,
            1 => Tag::Ttl,
            _ => Tag::Map,
        };
        let name = [b'f', u8::try_from(self.rng.below(4)).expect("few")];
        Cell { key: Bytes(key), tag, field: tag.has_field().then(|| Bytes(name.to_vec())) }
    }

    /// No two values are the same.
    fn value(&mut self, ops: u64) -> Bytes {
        self.values += 1;
        let length = match self.rng.below(100) {
            0 if ops == 1 => self.rng.range(70_000, 300_000),
            1..4 if ops < 12 => self.rng.range(16_000, 40_000),
            _ => self.rng.range(8, 120),
        };
        let mut value = self.values.to_be_bytes().to_vec();
        value.resize(usize::try_from(length).expect("small"), 0x2a);
        Bytes(value)
    }

    /// The merged view of the cell with this index key.
    pub fn view(&self, n: usize, key: &Bytes) -> Option<View> {
        use swarmkv_protocol::store::Store as _;
        let engine = self.nodes[n].engine.as_ref()?;
        let heads = engine.heads();
        View::merge(&engine.store().slots(key).ok()?, |branch| heads.of(branch)).ok()
    }

    // ---- joining ------------------------------------------------------------------------------

    pub fn join(&mut self, n: usize) -> Result<(), String> {
        if self.nodes[n].genesis.is_some() {
            return Ok(());
        }
        self.agenda.at(self.time + 3_000, Event::Join(n));
        if self.nodes[0].engine.is_none() {
            return Ok(());
        }
        let (token, secret) = (self.token(), self.rng.bytes());
        self.invites.insert(token, (n, secret));
        let expires_at = self.nodes[0].now(self.time).wall + 60_000;
        let invite = Invite {
            role: Role::Writer,
            prefix: Bytes::default(),
            max_bytes: None,
            expires_at,
            uses: 1,
            confirm: false,
        };
        self.input(0, Input::Invite { token, secret, invite })
    }

    pub fn invited(&mut self, inviter: usize, token: Token, made: bool) {
        let Some((joiner, secret)) = self.invites.remove(&token) else { return };
        if !made {
            return;
        }
        let ticket = Ticket {
            version: VERSION,
            swarm: self.nodes[inviter].engine.as_ref().expect("it just spoke").roster().swarm(),
            inviter: self.nodes[inviter].id,
            addrs: Vec::new(),
            secret: Bytes(secret.to_vec()),
            expires_at: 0,
        };
        let hostile = self.plan.hostility.is_some();
        let (label, thief) = match self.rng.below(10) {
            0 if hostile => ("  \u{7}".into(), false),
            1 if hostile => ("é".repeat(60), false),
            2 if hostile && self.nodes[joiner].engine.is_some() => ("thief".into(), true),
            _ => ("late".to_owned(), false),
        };
        // A proof holds for one joiner only.
        let whose = if thief { inviter } else { joiner };
        let proof = ticket.proof(&self.nodes[whose].id);
        let redeem = Redeem { ticket: ticket.id(), proof, label };
        let bytes = message::encode(&JoinRequest::Redeem(redeem));
        // Impatient people ask twice.
        let late = if hostile { 4_000 } else { 0 };
        for pause in [self.latency(), self.latency() + late] {
            let bytes = bytes.clone();
            self.agenda.at(self.time + pause, Event::Asked { to: inviter, from: joiner, bytes });
        }
    }

    pub fn asked(&mut self, to: usize, from: usize, bytes: Vec<u8>) -> Result<(), String> {
        if self.nodes[to].engine.is_none() {
            return Ok(());
        }
        let token = self.token();
        self.asked.insert(token, from);
        let peer = self.nodes[from].id;
        self.input(to, Input::Asked { token, peer, bytes })
    }

    pub fn answered(&mut self, to: usize, from: usize, bytes: &[u8]) -> Result<(), String> {
        let peer = self.nodes[from].id;
        if self.nodes[to].engine.is_some() {
            return self.input(to, Input::Answered(peer, bytes.to_vec()));
        }
        if self.nodes[to].genesis.is_some() {
            return Ok(());
        }
        match message::decode(bytes) {
            Ok(JoinAnswer::Welcome(welcome)) => {
                self.prepare(to, welcome.genesis, &welcome.statements, false);
                self.start(to, false)
            }
            _ => Ok(()),
        }
    }
}
