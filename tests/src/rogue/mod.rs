//! A peer written to attack: it holds a real key, joins with a real ticket where it needs to be a member,
//! and then breaks the rules over real connections. `src/bin/attacker.rs` runs one attack as a process of
//! its own, so that it can be pinned to a core of its own.

mod forge;
mod member;
mod raw;
mod reader;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use swarmkv_node::network::ask_once;
use swarmkv_node::protocol::codec::Bytes;
use swarmkv_node::protocol::crypto::DeviceKey;
use swarmkv_node::protocol::id::{DeviceId, SwarmId};
use swarmkv_node::protocol::message;
use swarmkv_node::protocol::roster::Roster;
use swarmkv_node::protocol::ticket::{JoinAnswer, JoinRequest, Redeem, Ticket};

/// What the attacker is told, as one JSON argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    /// The attack's name, see [`run`].
    pub attack: String,
    /// A ticket to join with first; without one it stays a stranger.
    pub ticket: Option<String>,
    /// The swarm's id.
    pub swarm: String,
    /// Whom it attacks: `ADDRESS DEVICE-ID`.
    pub victims: Vec<(String, String)>,
    /// How long, in milliseconds.
    pub millis: u64,
    /// Things a second, where the attack is a flood.
    pub rate: u64,
    /// What its key grows from.
    pub seed: u8,
}

/// What it did, as one JSON line on standard output.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Messages, frames, streams or dials.
    pub sent: u64,
    /// Repair sessions that it opened, where that is its attack.
    pub opened: u64,
    /// Repair sessions that others opened to it.
    pub served: u64,
    /// When the last connection to any victim was lost for good, in milliseconds from the first attack.
    pub cut_off_ms: Option<u64>,
    /// Answers that nobody should have given.
    pub wrongly_answered: u64,
}

/// A rogue, ready to act.
struct Rogue {
    orders: Orders,
    key: DeviceKey,
    swarm: SwarmId,
    victims: Vec<(String, DeviceId)>,
    /// Known to members only.
    roster: Option<Roster>,
}

impl Rogue {
    async fn ready(orders: Orders) -> Result<Self, String> {
        let key = DeviceKey::from_seed(&[orders.seed; 32]);
        let swarm = orders.swarm.parse().map_err(|e| format!("swarm: {e}"))?;
        let id = |text: &String| text.parse::<DeviceId>().map_err(|e| format!("victim: {e}"));
        let victims = orders.victims.iter().map(|(addr, text)| Ok((addr.clone(), id(text)?)));
        let victims = victims.collect::<Result<Vec<_>, String>>()?;
        let roster = match &orders.ticket {
            Some(ticket) => Some(join(&key, ticket).await?),
            None => None,
        };
        Ok(Self { orders, key, swarm, victims, roster })
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.orders.millis)
    }
}

/// Joins like anybody else.
async fn join(key: &DeviceKey, ticket: &str) -> Result<Roster, String> {
    let ticket = Ticket::parse(ticket).map_err(|e| e.to_string())?;
    let redeem =
        Redeem { ticket: ticket.id(), proof: ticket.proof(&key.id()), label: "rogue".into() };
    let request = message::encode(&JoinRequest::Redeem(redeem));
    let time = Duration::from_secs(10);
    let answer = ask_once(&key.seed(), ticket.inviter, &ticket.addrs, request, time).await;
    let answer = answer.map_err(|e| format!("join: {e}"))?;
    let Ok(JoinAnswer::Welcome(welcome)) = message::decode(&answer) else {
        return Err("the rogue was not let in".into());
    };
    let mut roster = Roster::open(&welcome.genesis).map_err(|e| e.to_string())?;
    roster.insert(&welcome.statements);
    Ok(roster)
}

/// Carries one attack out.
///
/// # Errors
/// When it could not even begin.
pub async fn run(orders: Orders) -> Result<Report, String> {
    let rogue = Rogue::ready(orders).await?;
    let began = Instant::now();
    let report = match rogue.orders.attack.as_str() {
        "slow" | "giant-frame" | "garbage-streams" => raw::streams(&rogue).await?,
        "dials" => raw::dials(&rogue).await?,
        "reader" => reader::attack(&rogue).await?,
        _ => member::attack(&rogue).await?,
    };
    let left = rogue.time().saturating_sub(began.elapsed());
    tokio::time::sleep(left).await;
    Ok(report)
}

fn bytes(n: u64, len: usize) -> Bytes {
    let mut bytes = n.to_be_bytes().to_vec();
    bytes.resize(len, 0x2a);
    Bytes(bytes)
}
