//! Making a swarm, and joining one.

use std::path::Path;
use std::time::Duration;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::crypto::DeviceKey;
use swarmkv_protocol::id::{DeviceId, SwarmId};
use swarmkv_protocol::message;
use swarmkv_protocol::roster::{BadStatement, Role, Roster};
use swarmkv_protocol::store::Write;
use swarmkv_protocol::ticket::{JoinAnswer, JoinRequest, Redeem, Refusal, Ticket, Welcome};

use crate::clock;
use crate::data_dir::DataDir;
use crate::driver::minutes_ago;
use crate::error::{DirError, InitError, JoinError};
use crate::keystore;
use crate::network::ask_once;
use crate::storage::{Addresses, Disk};

/// A swarm that was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founded {
    /// Its name.
    pub swarm: String,
    /// Its id.
    pub swarm_id: SwarmId,
    /// This device.
    pub device_id: DeviceId,
    /// This device's label.
    pub label: String,
}

/// A swarm that was just joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its name.
    pub swarm: String,
    /// Its id.
    pub swarm_id: SwarmId,
    /// This device.
    pub device_id: DeviceId,
    /// What this device may do.
    pub role: Role,
    /// Label of the device that invited.
    pub inviter: String,
    /// The words that the inviting device shows, too.
    pub check_words: String,
}

/// Makes this device's key and a new swarm that it owns.
///
/// # Errors
/// When the directory cannot be used or already belongs to a swarm, or a name is unusable.
pub fn init(data_dir: &Path, name: &str, label: &str) -> Result<Founded, InitError> {
    for (text, what) in [(name, "name"), (label, "label")] {
        let fits = !text.is_empty() && text.len() <= swarmkv_protocol::limits::MAX_LABEL;
        if !fits || text.chars().any(char::is_control) {
            return Err(InitError::Name(what));
        }
    }
    let dir = DataDir::create(data_dir)?;
    let disk = vacant(&dir)?;
    let key = keystore::load_or_create(dir.path())?;
    let roster = Roster::found(&key, name, label, clock::random())
        .map_err(|_| InitError::Name("name or label"))?;
    disk.set_genesis(roster.genesis_bytes());
    disk.set_fingerprint(&dir.fingerprint()?);
    // Its own swarm's first replica lacks nothing.
    disk.apply(vec![Write::CaughtUp(true)]);
    disk.sync().map_err(DirError::Store)?;
    dir.note_swarm(name)?;
    Ok(Founded {
        swarm: name.to_owned(),
        swarm_id: roster.swarm(),
        device_id: key.id(),
        label: label.to_owned(),
    })
}

/// Opens the store of a directory that belongs to no swarm yet.
fn vacant(dir: &DataDir) -> Result<Disk, DirError> {
    let disk = keystore::open_store(dir)?;
    match disk.genesis()? {
        None => Ok(disk),
        Some(genesis) => {
            let swarm = Roster::open(&genesis).map(|r| r.genesis().name.clone());
            let swarm = swarm.unwrap_or_else(|_| "unknown".to_owned());
            dir.note_swarm(&swarm)?;
            Err(DirError::HasSwarm { dir: dir.path().to_owned(), swarm })
        }
    }
}

/// Joins a swarm on a ticket: asks the inviting device and keeps what it answers. `label` is how this
/// device wishes to be called.
///
/// # Errors
/// When the directory cannot be used, the inviting device cannot be reached within `limit`, or it
/// refuses.
pub async fn join(
    data_dir: &Path,
    ticket: &Ticket,
    label: &str,
    limit: Duration,
) -> Result<Joined, JoinError> {
    let dir = DataDir::create(data_dir)?;
    let disk = vacant(&dir)?;
    let key = keystore::load_or_create(dir.path())?;
    let request = JoinRequest::Redeem(Redeem {
        ticket: ticket.id(),
        proof: ticket.proof(&key.id()),
        label: label.to_owned(),
    });
    let request = message::encode(&request);
    let answer = ask_once(&key.seed(), ticket.inviter, &ticket.addrs, request, limit)
        .await
        .map_err(|e| JoinError::Unreachable(e.to_string()))?;
    let answer = message::decode(&answer).map_err(|e| JoinError::Answer(e.to_string()))?;
    let welcome = match answer {
        JoinAnswer::Welcome(welcome) => welcome,
        JoinAnswer::Refused(Refusal::Unconfirmed) => {
            return Err(JoinError::Unconfirmed { check_words: ticket.check_words(&key.id()) });
        }
        JoinAnswer::Refused(refusal) => return Err(refused(refusal)),
        JoinAnswer::Introduced(_) => return Err(JoinError::Answer("out of turn".into())),
    };
    let joined = accept(&welcome, ticket, &key)?;
    disk.set_genesis(&welcome.genesis);
    let mut roster = Roster::open(&welcome.genesis).map_err(answer_error)?;
    let (fresh, _) = roster.insert(&welcome.statements);
    let keep = |(name, bytes): (_, Bytes)| Write::Statement { name, bytes };
    disk.apply(fresh.into_iter().map(keep).collect());
    let mut addresses = Addresses::load(&disk).map_err(DirError::Store)?;
    for addr in &ticket.addrs {
        addresses.remember(&disk, &ticket.inviter, addr, clock::wall_millis());
    }
    disk.set_fingerprint(&dir.fingerprint()?);
    disk.sync().map_err(DirError::Store)?;
    dir.note_swarm(&joined.swarm)?;
    Ok(joined)
}

#[expect(clippy::needless_pass_by_value, reason = "used as a map_err argument")]
fn answer_error(e: BadStatement) -> JoinError {
    JoinError::Answer(e.to_string())
}

/// Checks that the answer is the ticket's swarm and really admits this device.
fn accept(welcome: &Welcome, ticket: &Ticket, key: &DeviceKey) -> Result<Joined, JoinError> {
    let mut roster = Roster::open(&welcome.genesis).map_err(answer_error)?;
    if roster.swarm() != ticket.swarm {
        return Err(JoinError::Answer("it is of another swarm than the ticket".into()));
    }
    roster.insert(&welcome.statements);
    let missing = || JoinError::Answer("it does not admit this device".into());
    let member = roster.member(&key.id()).ok_or_else(missing)?;
    let inviter = roster.member(&ticket.inviter).map(|m| m.label.clone());
    Ok(Joined {
        swarm: roster.genesis().name.clone(),
        swarm_id: roster.swarm(),
        device_id: key.id(),
        role: member.role,
        inviter: inviter.unwrap_or_else(|| ticket.inviter.short()),
        check_words: ticket.check_words(&key.id()),
    })
}

fn refused(refusal: Refusal) -> JoinError {
    match refusal {
        Refusal::UnknownTicket => JoinError::Unknown,
        Refusal::Expired => JoinError::Expired,
        Refusal::Used(by) => JoinError::Used {
            label: by.label,
            device: by.device.short(),
            minutes_ago: minutes_ago(by.at),
        },
        Refusal::Invalid | Refusal::NotAMember | Refusal::Unconfirmed => {
            JoinError::Answer("it makes no sense of the request".into())
        }
        Refusal::Revoked(_) => JoinError::Revoked,
        Refusal::Declined => JoinError::Declined,
        Refusal::Unable => JoinError::Answer("it can admit nobody just now".into()),
    }
}
