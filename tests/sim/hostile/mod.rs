//! Hostile seeds: members that may sign any history and send any frame, half of the swarm at most, beside
//! honest ones with narrow prefixes, tiny quotas, and many epochs.
//!
//! `SWARMKV_SIM_HOSTILE_SEED=n` replays one seed, `SWARMKV_SIM_HOSTILE_SEEDS=n` runs that many.

pub mod author;
mod compare;
mod faults;
mod grammar;
mod plan;
mod relay;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::crypto::{self, Domain};
use swarmkv_protocol::io::{Input, SessionId};
use swarmkv_protocol::limits::REPAIR_EVERY_MS;
use swarmkv_protocol::roster::{Grant, Role as Rank, Roster};

pub use plan::Hostility;

use crate::event::Event;
use crate::invariants;
use crate::plan::Plan;
use crate::world::{Outcome, World};
use author::{Author, Granted};
use relay::Script;

/// Rounds in which honest logs must be complete, and honest replicas equal.
const ROUNDS: u64 = 20;
const BOUND_MS: u64 = ROUNDS * REPAIR_EVERY_MS * 2;
/// How long an equal swarm is watched.
const REST_MS: u64 = 20_000;
/// How long a hostile member goes by what it last looked up: looking at every frame would take most of a run.
const STALE_MS: u64 = 400;
/// Sessions that one hostile member keeps open of its own.
const OPEN: usize = 6;
/// Hostile members number the sessions that they open from here on: engines do not come so far.
const FIRST_SESSION: u64 = 1 << 40;

/// One hostile member.
pub struct Hostile {
    role: plan::Role,
    author: Option<Author>,
    pub sessions: BTreeMap<SessionId, Script>,
    /// Sessions of its replica that it leaves alone.
    pub honest_sessions: BTreeSet<SessionId>,
    next: u64,
    /// What it last looked up of its replica, until when that will do, and in which life.
    truth: Option<(u64, u64, Rc<relay::Truth>)>,
    sight: Option<(u64, u64, Rc<grammar::Sight>)>,
}

/// What phase the run is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Everything goes wrong.
    #[default]
    Chaos,
    /// The network is whole; hostile members go on.
    Hostile,
    /// Nothing new is signed by hostile authors.
    Signed,
    /// All honest replicas were seen equal.
    Equal,
}

impl World {
    /// The grants of a hostile seed, and the hostile members themselves.
    pub fn grant_hostile(
        &mut self,
        roster: &mut Roster,
        late: Option<usize>,
    ) -> Result<(), String> {
        let Some(hostility) = self.plan.hostility.clone() else { return Ok(()) };
        let owner = self.nodes[0].key();
        for n in 1..self.nodes.len() {
            let role = hostility.roles[n];
            let mut grants = Vec::new();
            let reader = plan_reader();
            let rights: Vec<_> = match hostility.rights[n].is_empty() {
                true => vec![(Rank::Reader, &reader)],
                false => {
                    let rank = if hostility.admins[n] { Rank::Admin } else { Rank::Writer };
                    hostility.rights[n].iter().map(|right| (rank, right)).collect()
                }
            };
            for (rank, right) in rights.into_iter().filter(|_| Some(n) != late) {
                let grant = Grant {
                    device: self.nodes[n].id,
                    label: format!("node {n}"),
                    role: rank,
                    prefix: right.prefix.clone(),
                    max_bytes: right.max_bytes,
                };
                let statement = roster.grant(&owner, grant).map_err(|e| e.to_string())?;
                let name = crypto::hash(Domain::StatementName, &[&statement]);
                roster.insert(&[statement]);
                grants.push(Granted { name, prefix: right.prefix.clone() });
            }
            if let Some(role) = role {
                let (key, swarm) = (self.nodes[n].key(), roster.swarm());
                let signs = role.author.then(|| Author::new(&mut self.rng, key, swarm, grants));
                let hostile = Hostile {
                    role,
                    author: signs,
                    sessions: BTreeMap::new(),
                    honest_sessions: BTreeSet::new(),
                    next: FIRST_SESSION,
                    truth: None,
                    sight: None,
                };
                self.hostile.insert(n, hostile);
                self.agenda.at(self.rng.below(2_000), Event::Hostile(n));
            }
        }
        Ok(())
    }

    /// One act of a hostile member, then the next is planned.
    pub fn hostile_act(&mut self, n: usize) -> Result<(), String> {
        let every = self.plan.hostility.as_ref().map_or(500, |hostility| hostility.every);
        let pause = 20 + self.rng.below(every);
        self.agenda.at(self.time + pause, Event::Hostile(n));
        if self.nodes[n].engine.is_none() {
            return Ok(());
        }
        self.sign_and_hand_out(n);
        let leaves = self.plan.hostility.as_ref().is_some_and(|hostility| hostility.leaves);
        if leaves && self.chaos && self.rng.below(60) == 0 && !self.outcasts.contains(&n) {
            self.leave_falsely(n);
        }
        let Some(hostile) = self.hostile.get_mut(&n) else { return Ok(()) };
        let open = hostile.sessions.values().filter(|script| script.end == 0).count();
        let opens = if hostile.role.relay { 30 } else { 4 };
        if open < OPEN && self.rng.percent(opens) {
            hostile.next += 2;
            let id = SessionId(hostile.next);
            self.open_hostile(n, id);
        }
        self.play(n);
        Ok(())
    }

    fn sign_and_hand_out(&mut self, n: usize) {
        if self.stage >= Stage::Signed || self.hostile[&n].author.is_none() {
            return;
        }
        let Some(sight) = self.recent_sight(n) else { return };
        let Some(author) = self.hostile.get_mut(&n).and_then(|hostile| hostile.author.as_mut())
        else {
            return;
        };
        let mut out = Vec::new();
        let count = if self.rng.percent(60) { 1 + self.rng.below(3) } else { 0 };
        for _ in 0..count {
            let signed = match self.rng.below(60) {
                0 => author.of_later_version(&mut self.rng, &sight),
                _ => author.act(&mut self.rng, &sight),
            };
            // Now and then it keeps one back.
            out.extend(signed.filter(|_| self.rng.percent(85)));
        }
        if self.rng.percent(20) && !author.signed.is_empty() {
            out.push(author.signed[self.rng.index(author.signed.len())].clone());
        }
        let most = author.signed.len().saturating_sub(300);
        author.signed.drain(..most);
        if self.rng.percent(30) {
            out.reverse();
        }
        for signed in out {
            let announce = self.rng.percent(10);
            let chance = [100, 60, 30][self.rng.index(3)];
            self.hand_out(n, signed.gossip(announce), chance);
        }
    }

    /// Sends what is due in the sessions that are in its own hand.
    fn play(&mut self, n: usize) {
        let ids: Vec<SessionId> = self.hostile[&n].sessions.keys().copied().collect();
        for id in ids {
            if self.rng.percent(10) {
                self.with_script(n, id, |script, world, truth| {
                    script.more(&mut world.rng, world.time, truth);
                });
            }
            let Some(script) = self.hostile.get_mut(&n).and_then(|h| h.sessions.get_mut(&id))
            else {
                continue;
            };
            let (s, end, over) = (script.session, script.end, script.until <= self.time);
            let due = script.due(self.time);
            for frame in due {
                if !self.sessions[s].cut {
                    self.transmit(s, end, frame);
                }
            }
            if over || self.sessions[s].cut || self.sessions[s].lives[end] != self.nodes[n].life {
                self.hostile.get_mut(&n).expect("hostile").sessions.remove(&id);
                self.close_session(n, id);
            }
        }
    }

    fn with_script(
        &mut self,
        n: usize,
        id: SessionId,
        act: impl FnOnce(&mut Script, &mut Self, &relay::Truth),
    ) {
        let Some(mut hostile) = self.hostile.remove(&n) else { return };
        let life = self.nodes[n].life;
        let stale = |(until, of, _): &(u64, u64, _)| *until <= self.time || *of != life;
        if hostile.truth.as_ref().is_none_or(stale) {
            let histories = hostile.author.as_ref().filter(|_| self.stage < Stage::Signed);
            let truth = self.truth(n, histories.map_or(&[][..], |author| &author.histories));
            hostile.truth = truth.map(|truth| (self.time + STALE_MS, life, Rc::new(truth)));
        }
        let truth = hostile.truth.as_ref().map(|(.., truth)| Rc::clone(truth));
        if let (Some(script), Some(truth)) = (hostile.sessions.get_mut(&id), truth) {
            act(script, self, &truth);
        }
        self.hostile.insert(n, hostile);
    }

    /// What a hostile author has seen of the swarm lately.
    fn recent_sight(&mut self, n: usize) -> Option<Rc<grammar::Sight>> {
        let life = self.nodes[n].life;
        let known = self.hostile.get(&n)?.sight.as_ref();
        let recent = known.filter(|(until, of, _)| *until > self.time && *of == life);
        if let Some((.., sight)) = recent {
            return Some(Rc::clone(sight));
        }
        self.learn_grant(n);
        let sight = Rc::new(self.sight(n)?);
        let until = self.time + STALE_MS;
        self.hostile.get_mut(&n)?.sight = Some((until, life, Rc::clone(&sight)));
        Some(sight)
    }

    /// A hostile author uses what it was granted since.
    fn learn_grant(&mut self, n: usize) {
        let Some(roster) = self.nodes[n].engine.as_ref().map(|engine| engine.roster()) else {
            return;
        };
        let Some(name) = roster.member(&self.nodes[n].id).map(|member| member.grant) else {
            return;
        };
        let Some(right) = roster.right(&name).filter(|right| right.role >= Rank::Writer) else {
            return;
        };
        let granted = Granted { name, prefix: right.prefix.clone() };
        let author = self.hostile.get_mut(&n).and_then(|hostile| hostile.author.as_mut());
        if let Some(author) = author
            && author.grants.iter().all(|grant| grant.name != name)
        {
            author.grants.push(granted);
        }
    }

    /// What of a hostile member's inputs its replica gets to see.
    pub fn intercept(&mut self, n: usize, input: Input) -> Option<Input> {
        if !self.hostile.contains_key(&n) {
            return Some(input);
        }
        match &input {
            Input::SessionOpened(id, _) => {
                let own = if self.hostile[&n].role.relay { 65 } else { 45 };
                if !self.rng.percent(own) {
                    if self.rng.percent(60) {
                        self.hostile.get_mut(&n)?.honest_sessions.insert(*id);
                    }
                    return Some(input);
                }
                let session = *self.nodes[n].sessions.get(id)?;
                let script = Script::new(&mut self.rng, session, 1, self.time);
                self.hostile.get_mut(&n)?.sessions.insert(*id, script);
                None
            }
            Input::SessionReady(id) if self.hostile[&n].sessions.contains_key(id) => {
                let first = self.hostile[&n].sessions[id].ask.is_some();
                if first && self.rng.percent(90) {
                    self.with_script(n, *id, |script, world, truth| {
                        script.begin(&mut world.rng, world.time, truth);
                    });
                }
                None
            }
            Input::SessionFrame(id, bytes) if self.hostile[&n].sessions.contains_key(id) => {
                self.with_script(n, *id, |script, world, truth| match script.ask {
                    None => script.asked(&mut world.rng, world.time, bytes, truth),
                    Some(_) => script.heard(&mut world.rng, world.time, bytes, truth),
                });
                None
            }
            Input::SessionClosed(id) if self.hostile[&n].sessions.contains_key(id) => {
                self.hostile.get_mut(&n)?.sessions.remove(id);
                None
            }
            Input::SessionReady(id) | Input::SessionFrame(id, _) if id.0 >= FIRST_SESSION => None,
            _ => Some(input),
        }
    }
}

fn plan_reader() -> plan::Right {
    plan::Right { prefix: Bytes::default(), max_bytes: None }
}

/// One hostile seed: chaos; then honest logs become complete although the hostile go on; then honest
/// replicas become equal although hostile relays go on; then they rest.
pub fn course(plan: Plan) -> Result<Outcome, String> {
    let mut world = World::new(plan)?;
    let chaos_ms = world.plan.chaos_ms;
    crate::run_until(&mut world, chaos_ms)?;
    world.stage = Stage::Hostile;
    world.calm()?;
    wait(&mut world, invariants::complete::lacking)?;
    world.stage = Stage::Signed;
    let took = wait(&mut world, invariants::complete::differing)?;
    world.stage = Stage::Equal;
    let before = invariants::rest::Before::note(&world);
    let until = world.time + REST_MS;
    crate::run_until(&mut world, until)?;
    invariants::rest::holds(&world, &before, REST_MS)?;
    for n in (0..world.nodes.len()).filter(|n| world.honest(*n) && world.belongs(*n)) {
        let live = invariants::live_sets(&world, n)?;
        invariants::cut::holds(&world, n)?;
        invariants::acknowledged::holds(&world, n, &live)?;
        invariants::deleted::holds(&world, n, &live)?;
        invariants::kept::holds(&world, n)?;
    }
    Ok(Outcome {
        simulated_ms: world.time,
        converged_ms: took,
        commits: world.model.commits,
        events: world.events,
        fingerprint: world.fingerprint,
    })
}

/// Runs until nothing is lacking; says how long that took.
fn wait(world: &mut World, lacking: impl Fn(&mut World) -> Option<String>) -> Result<u64, String> {
    let from = world.time;
    let mut again = true;
    loop {
        let next = world.time + 500;
        crate::run_until(world, next)?;
        let Some(lack) = lacking(world) else { return Ok(world.time - from) };
        // Whoever had the state at a cut may be gone, or it was a lie: the owner ends those logs once more.
        if again && world.time > from + BOUND_MS / 3 {
            world.cut_again()?;
            again = false;
        }
        let patience = crate::number("SWARMKV_SIM_PATIENCE").unwrap_or(1);
        if world.time > from + BOUND_MS * patience {
            return Err(lack);
        }
    }
}

/// Runs one hostile seed; a failure or panic names it.
fn run_seed(seed: u64) -> Result<Outcome, String> {
    let result = catch_unwind(AssertUnwindSafe(|| crate::run(plan::from_seed(seed))));
    let report = match result {
        Ok(Ok(outcome)) => return Ok(outcome),
        Ok(Err(report)) => report,
        Err(_) => "panic: see above".into(),
    };
    Err(format!(
        "hostile seed {seed}: {report}\n  replay: SWARMKV_SIM_HOSTILE_SEED={seed} cargo test -p \
         swarmkv-tests --test sim hostile_seeds\n  {:?}",
        plan::from_seed(seed)
    ))
}

/// A hostile seed with a fault planted in the core.
pub fn planted(seed: u64, plant: crate::plan::Plant) -> Plan {
    Plan { plant, ..plan::from_seed(seed) }
}

#[test]
fn hostile_seeds() {
    let began = Instant::now();
    let count = crate::number("SWARMKV_SIM_HOSTILE_SEEDS").unwrap_or(70);
    let first = crate::number("SWARMKV_SIM_HOSTILE_FIRST").unwrap_or(1);
    let seeds = match crate::number("SWARMKV_SIM_HOSTILE_SEED") {
        Some(seed) => vec![seed],
        None => (first..first + count).collect(),
    };
    let (mut failures, mut millis, mut slowest) = (Vec::new(), 0, (0, 0));
    for seed in &seeds {
        match run_seed(*seed) {
            Ok(one) => {
                millis += one.simulated_ms;
                slowest = slowest.max((one.converged_ms, *seed));
            }
            Err(report) => {
                println!("{report}");
                failures.push(report);
            }
        }
    }
    println!(
        "{} hostile seeds in {:.1} s, {:.2} simulated hours, slowest convergence {} ms (seed {})",
        seeds.len(),
        began.elapsed().as_secs_f64(),
        millis as f64 / 3_600_000.0,
        slowest.0,
        slowest.1
    );
    let first = failures.first().cloned().unwrap_or_default();
    assert!(failures.is_empty(), "{} of {} seeds failed:\n{first}", failures.len(), seeds.len());
}

#[test]
fn a_hostile_seed_replays_exactly() {
    assert_eq!(run_seed(3), run_seed(3));
}
