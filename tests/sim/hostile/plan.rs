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
    /// By node: whether it is an honest admin.
    pub admins: Vec<bool>,
    /// By node: whether its data is in memory only.
    pub memory: Vec<bool>,
    /// Honest owners and admins take members out, members leave.
    pub revocations: bool,
    /// Hostile authors leave, and lie about where their logs end.
    pub leaves: bool,
    /// How often somebody invites, asks for everything, or has everything read again, in percent of half seconds.
    pub people: u64,
    /// How many honest writes go to fields and elements, in percent.
    pub fields: u64,
    /// Restarts open a new log this often, in percent.
    pub fresh_epochs: u64,
    /// Pause between two acts of a hostile member, in milliseconds, at most.
    pub every: u64,
}

const PREFIXES: [&str; 4] = ["", "k", "u", "c"];

pub fn right(rng: &mut Rng, hostile: bool) -> Right {
    let open = rng.percent(if hostile { 30 } else { 65 });
    let prefix = if open { "" } else { PREFIXES[rng.index(4)] };
    let most = if hostile { 6_000 } else { 40_000 };
    let max_bytes = rng.percent(50).then(|| rng.range(1_000, most));
    Right { prefix: prefix.as_bytes().into(), max_bytes }
}

/// Who is hostile, and what each member is granted.
fn members(rng: &mut Rng, nodes: usize, hostile: usize) -> Hostility {
    let (mut roles, mut rights) = (vec![None; nodes], vec![Vec::new(); nodes]);
    for n in 1..nodes {
        let role = (n >= nodes - hostile).then(|| match rng.below(3) {
            0 => Role { author: true, relay: false },
            1 => Role { author: false, relay: true },
            _ => Role { author: true, relay: true },
        });
        let reads = role.is_some_and(|role| !role.author) && rng.percent(50);
        let several = role.is_some_and(|r| r.author) || role.is_none() && rng.percent(35);
        let grants = if several { rng.range(1, 4) } else { 1 };
        if !reads {
            rights[n] = (0..grants).map(|_| right(rng, role.is_some())).collect();
        }
        roles[n] = role;
    }
    Hostility { roles, rights, ..Hostility::default() }
}

/// What is lost of disks: at most one copy of anything, so that somebody has it.
struct Losses {
    rot: bool,
    restores: bool,
    memory: bool,
}

fn losses(rng: &mut Rng) -> Losses {
    let (rot, restores, memory) = match rng.below(100) {
        0..25 => (true, false, false),
        25..45 => (false, true, false),
        45..65 => (false, rng.percent(30), true),
        _ => (false, false, false),
    };
    Losses { rot, restores, memory }
}

/// The plan of a hostile seed. The owner is honest, and at least half of the swarm.
pub fn from_seed(seed: u64) -> Plan {
    let mut rng = Rng::new(seed ^ 0x0b5e_55ed);
    // Most faults need few members and little time: then there are more seeds for them.
    let small = rng.percent(65);
    let nodes = usize::try_from(rng.range(3, if small { 6 } else { 8 })).expect("small");
    let hostile = 1 + rng.index(nodes / 2);
    let mut hostility = members(&mut rng, nodes, hostile);
    let calm = rng.percent(15);
    let (admins, losses) = (rng.percent(50), losses(&mut rng));
    for role in &hostility.roles {
        // The owner's device has to have the swarm on disk.
        let honest = role.is_none() && !hostility.admins.is_empty();
        hostility.admins.push(honest && admins && rng.percent(50));
        hostility.memory.push(honest && !calm && losses.memory && rng.percent(60));
    }
    hostility.revocations = rng.percent(35);
    hostility.leaves = hostility.revocations && rng.percent(40);
    hostility.fields = if rng.percent(50) { rng.below(40) } else { 0 };
    hostility.fresh_epochs = rng.below(60);
    hostility.every = rng.range(80, 900);
    hostility.people = if rng.percent(40) { rng.range(1, 12) } else { 0 };
    Plan {
        nodes,
        loss: if calm { 0 } else { rng.below(25) },
        duplication: if calm { 0 } else { rng.below(40) },
        kills: !calm && rng.percent(80),
        churn: !calm && rng.percent(60),
        partitions: !calm && rng.percent(50),
        restores: !calm && losses.restores,
        unnoticed: rng.percent(40),
        rot: !calm && losses.rot,
        naps: !calm && rng.percent(15),
        sync_errors: !calm && rng.percent(15),
        reader: false,
        rogue: None,
        rogue_stays: true,
        late_joiner: rng.percent(20) && nodes - hostile > 2,
        revocations: false,
        writes_every: rng.range(100, 900),
        keys: rng.range(2, 12),
        chaos_ms: if small { rng.range(6_000, 16_000) } else { rng.range(15_000, 45_000) },
        hostility: Some(hostility),
        ..Plan::from_seed(seed)
    }
}
