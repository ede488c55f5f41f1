//! What a seed stands for: size of the swarm, faults, workload; and faults planted to be caught.

use swarmkv_protocol::plant::Plant as Fault;

use crate::rng::Rng;

const YEAR_MS: i64 = 365 * 86_400_000;

/// A fault planted in the harness so that a checker has something to catch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    Nothing,
    /// Storage forgets one write in so many.
    DropWrites(u64),
    /// Storage swaps a value for another.
    ChangeValue,
    /// Storage shows a head before the rest of the transaction.
    TearTransaction,
    /// Outputs are carried out before what they follow is durable, and a kill comes in between.
    SendBeforeSync,
    /// A kill loses what was synced.
    ForgetSynced,
    /// A member that is counted honest sends changed bytes.
    MutateHonest,
    /// In the core itself.
    Core(Fault),
}

/// Everything that a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    pub loss: u64,
    pub duplication: u64,
    pub delay: u64,
    pub tail: u64,
    pub kills: bool,
    pub churn: bool,
    pub partitions: bool,
    pub restores: bool,
    /// A restore that the program itself cannot notice: the author forks its own log.
    pub unnoticed: bool,
    /// Disks lose or change bytes.
    pub rot: bool,
    /// The machine sleeps for a while.
    pub naps: bool,
    /// A sync fails: the process ends.
    pub sync_errors: bool,
    pub clocks: bool,
    pub reader: bool,
    pub rogue: Option<usize>,
    pub rogue_stays: bool,
    pub late_joiner: bool,
    /// Members take each other out, and leave; there are admins besides the owner.
    pub revocations: bool,
    pub writes_every: u64,
    pub keys: u64,
    pub chaos_ms: u64,
    /// Members that sign and send anything: nothing in ordinary seeds.
    pub hostility: Option<crate::hostile::Hostility>,
    pub plant: Plant,
}

impl Plan {
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let nodes =
            if rng.percent(60) { 5 } else { usize::try_from(rng.range(2, 9)).expect("small") };
        let calm = rng.percent(10);
        let rogue = (nodes > 3 && rng.percent(35)).then(|| nodes - 1);
        let mut plan = Self {
            seed,
            nodes,
            loss: if calm { 0 } else { rng.below(31) },
            duplication: if calm { 0 } else { rng.below(51) },
            delay: rng.range(1, 80),
            tail: rng.below(6),
            kills: !calm && rng.percent(70),
            churn: !calm && rng.percent(70),
            partitions: !calm && rng.percent(50),
            restores: !calm && rng.percent(20),
            unnoticed: rng.percent(50),
            rot: false,
            naps: !calm && rng.percent(25),
            sync_errors: !calm && rng.percent(25),
            clocks: rng.percent(50),
            reader: nodes > 3 && rng.percent(30),
            rogue,
            rogue_stays: rng.percent(50),
            late_joiner: nodes > 2 && rng.percent(50),
            revocations: false,
            writes_every: rng.range(40, 600),
            keys: rng.range(3, 30),
            chaos_ms: rng.range(20_000, 90_000),
            hostility: None,
            plant: Plant::Nothing,
        };
        // Where a disk rots, another is not put back to an older state: one of them has to have it.
        plan.rot = !calm && !plan.restores && rng.percent(30);
        // The state at a cut may be on one disk only.
        plan.revocations = nodes > 3 && !plan.restores && !plan.rot && rng.percent(40);
        plan
    }

    /// A seed with a fault planted, and with the troubles in which that fault matters.
    pub fn planted(seed: u64, plant: Plant) -> Self {
        let plan = Self::from_seed(seed);
        let plan =
            Self { plant, rogue: None, rot: false, restores: false, revocations: false, ..plan };
        let rogue = Self { nodes: 5, rogue: Some(4), rogue_stays: false, ..plan.clone() };
        match plant {
            Plant::SendBeforeSync | Plant::ForgetSynced => Self { kills: true, ..plan },
            // Contexts matter where several write the same few keys.
            Plant::Core(Fault::RootWithoutContext) => Self { keys: 3, writes_every: 80, ..rogue },
            Plant::Core(Fault::SkipRoot | Fault::ShowStaged | Fault::SkipSignature) => rogue,
            Plant::Core(Fault::LongerReplaces | Fault::ReuseEpoch | Fault::DigestWithoutHeads) => {
                let unnoticed = plant != Plant::Core(Fault::ReuseEpoch);
                Self { kills: true, restores: true, unnoticed, nodes: 5, ..plan }
            }
            Plant::Core(Fault::IgnoreCut) => Self { nodes: 5, revocations: true, ..plan },
            Plant::Core(Fault::ScrubOff | Fault::ShowAside) => Self { rot: true, ..plan },
            _ => plan,
        }
    }

    /// The load at which the simulator's speed is stated: five replicas, ten commits a second in all,
    /// faults on.
    pub fn stated(seed: u64) -> Self {
        let plan = Self::from_seed(seed);
        let (kills, churn, partitions) = (true, true, true);
        Self {
            nodes: 5,
            rogue: None,
            revocations: false,
            writes_every: 500,
            loss: 10,
            kills,
            churn,
            partitions,
            ..plan
        }
    }

    /// Which nodes keep their data in memory.
    pub fn memory(&self) -> &[bool] {
        self.hostility.as_ref().map_or(&[], |hostility| &hostility.memory)
    }

    /// How far a node's wall clock is off.
    pub fn skew(&self, rng: &mut Rng) -> i64 {
        match rng.below(4) {
            0 if self.clocks => rng.range(0, 2 * YEAR_MS.unsigned_abs()).cast_signed() - YEAR_MS,
            1 if self.clocks => rng.below(20_000).cast_signed() - 10_000,
            _ => rng.below(200).cast_signed() - 100,
        }
    }
}
