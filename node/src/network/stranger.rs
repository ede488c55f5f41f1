//! An outsider that tries to write: knows a member's address and the swarm's id, has a key of its own
//! and no grant. It shows, over real connections, what a stranger gets: for the demo and for tests.

use std::time::Duration;

use libp2p::StreamProtocol;
use swarmkv_protocol::crypto::DeviceKey;
use swarmkv_protocol::engine::Engine;
use swarmkv_protocol::id::{DeviceId, Hash, Hash8, SwarmId};
use swarmkv_protocol::io::{Change, Input, Output, Token};
use swarmkv_protocol::memory::MemoryStore;
use swarmkv_protocol::message;
use swarmkv_protocol::roster::Roster;
use swarmkv_protocol::ticket::{JoinAnswer, JoinRequest, Redeem};
use swarmkv_protocol::time::Now;
use zeroize::Zeroizing;

use super::behaviour::{JOIN_PROTOCOL, REPAIR};
use super::call::ask_on;
use super::command::AskError;
use super::peer;
use super::scoring::MESHSUB;
use crate::clock;

const TIME: Duration = Duration::from_secs(5);

/// How each attempt was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnedAway {
    /// The attempt to gossip a forged write.
    pub gossip: String,
    /// The attempt to open a repair session.
    pub repair: String,
    /// The attempt to join on a made-up ticket.
    pub join: String,
}

/// Tries to set `key` to `value` in a swarm that this outsider is no member of, through the member
/// `target` at `addr`.
///
/// # Errors
/// Says what was *not* refused, or why the member could not be reached at all.
pub async fn try_to_write(
    addr: &str,
    target: DeviceId,
    swarm: SwarmId,
    key: &[u8],
    value: &[u8],
) -> Result<TurnedAway, String> {
    let seed = Zeroizing::new(clock::random::<32>());
    let addrs = [addr.to_owned()];
    let tag = peer::swarm_tag(&swarm);
    let forged = forged_write(&seed, key, value)?;
    let mut refusals = Vec::new();
    for name in [format!("{MESHSUB}/1.1.0"), REPAIR.to_owned()] {
        let protocol = StreamProtocol::try_from_owned(format!("/swarmkv/{tag}/{name}"))
            .map_err(|e| e.to_string())?;
        match ask_on(protocol, &seed, target, &addrs, forged.clone(), TIME).await {
            Err(AskError::Refused) => {
                refusals.push("not spoken with strangers: the connection offers no such protocol");
            }
            Err(other) => return Err(format!("{name}: {other}")),
            Ok(_) => return Err(format!("{name}: a stranger was answered")),
        }
    }
    let request = JoinRequest::Redeem(Redeem {
        ticket: Hash8::new(clock::random()),
        proof: Hash::new(clock::random()),
        label: "outsider".into(),
    });
    let answer =
        ask_on(JOIN_PROTOCOL, &seed, target, &addrs, message::encode(&request), TIME).await;
    let answer = answer.map_err(|e| format!("join: {e}"))?;
    match message::decode(&answer) {
        Ok(JoinAnswer::Refused(_)) => Ok(TurnedAway {
            gossip: refusals[0].to_owned(),
            repair: refusals[1].to_owned(),
            join: "refused: the ticket is unknown".to_owned(),
        }),
        other => Err(format!("join: a stranger was answered {other:?}")),
    }
}

/// A write that is signed and well-formed, but by nobody whom the swarm knows.
fn forged_write(seed: &[u8; 32], key: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
    let device = DeviceKey::from_seed(seed);
    let roster = Roster::found(&device, "outsider", "outsider", clock::random())
        .map_err(|e| e.to_string())?;
    let recovered = Default::default();
    let mut engine = Engine::open(device, roster, recovered, MemoryStore::default(), 0, false)
        .map_err(|e| e.to_string())?;
    let now = Now { wall: clock::wall_millis(), mono: 0 };
    for input in [Input::Write(Token(0), vec![Change::put(key, value)]), Input::Commit] {
        engine.handle(now, input).map_err(|e| e.to_string())?;
    }
    while let Some(output) = engine.poll_output() {
        if let Output::Publish(bytes) = output {
            return Ok(bytes);
        }
    }
    Err("nothing was signed".to_owned())
}
