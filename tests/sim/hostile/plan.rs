//! What a hostile seed stands for: who is hostile and how, what each member is granted, and the load.

use swarmkv_protocol::codec::Bytes;

use crate::plan::Plan;
use crate::rng::Rng;

/// What a hostile member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// Signs whatever its grants allow, and more.
    pub author: bool,
    /// Sends any frame at any time.
    pub relay: bool,
}

/// A grant beside role and device.
#[derive(Clone, Debug)]
pub struct Right {
    pub prefix: Bytes,
    pub max_bytes: Option<u64>,
}

/// The part of a plan that is about hostile members.
#[derive(Clone, Debug, Default)]
pub struct Hostility {
    /// By node: nothing for an honest one.
    pub roles: Vec<Option<Role>>,
    /// By node: the grants that it gets; none: the node is a reader.
    pub rights: Vec<Vec<Right>>,
    /// Restarts open a new log this often, in percent.
    pub fresh_epochs: u64,
    /// Pause between two acts of a hostile member, in milliseconds, at most.
    pub every: u64,
}

const PREFIXES: [&str; 4] = ["", "k", "u", "c"];

fn right(rng: &mut Rng, hostile: bool) -> Right {
    let open = rng.percent(if hostile { 30 } else { 65 });
    let prefix = if open { "" } else { PREFIXES[rng.index(4)] };
    let most = if hostile { 6_000 } else { 40_000 };
    let max_bytes = rng.percent(50).then(|| rng.range(1_000, most));
    Right { prefix: prefix.as_bytes().into(), max_bytes }
}

/// The plan of a hostile seed. The owner is honest, and at least half of the swarm.
pub fn from_seed(seed: u64) -> Plan {
    let mut rng = Rng::new(seed ^ 0x0b5e_55ed);
    let nodes = usize::try_from(rng.range(3, 8)).expect("small");
    let hostile = 1 + rng.index(nodes / 2);
    let (mut roles, mut rights) = (vec![None; nodes], vec![Vec::new(); nodes]);
    for n in 1..nodes {
        let role = (n >= nodes - hostile).then(|| match rng.below(3) {
            0 => Role { author: true, relay: false },
            1 => Role { author: false, relay: true },
            _ => Role { author: true, relay: true },
        });
        let reads = role.is_some_and(|role| !role.author) && rng.percent(50);
        let grants = if role.is_some_and(|r| r.author) { rng.range(1, 4) } else { 1 };
        if !reads {
            rights[n] = (0..grants).map(|_| right(&mut rng, role.is_some())).collect();
        }
        roles[n] = role;
    }
    let calm = rng.percent(15);
    let base = Plan::from_seed(seed);
    Plan {
        nodes,
        loss: if calm { 0 } else { rng.below(25) },
        duplication: if calm { 0 } else { rng.below(40) },
        kills: !calm && rng.percent(80),
        churn: !calm && rng.percent(60),
        partitions: !calm && rng.percent(50),
        restores: false,
        rot: false,
        naps: false,
        sync_errors: false,
        reader: false,
        rogue: None,
        rogue_stays: true,
        late_joiner: rng.percent(20) && nodes - hostile > 2,
        revocations: false,
        writes_every: rng.range(100, 900),
        keys: rng.range(2, 12),
        chaos_ms: rng.range(15_000, 45_000),
        hostility: Some(Hostility {
            roles,
            rights,
            fresh_epochs: rng.below(60),
            every: rng.range(80, 900),
        }),
        ..base
    }
}
