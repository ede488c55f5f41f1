//! A cloneable client of a running peer, for the program that embeds it.

use std::sync::Arc;
use std::time::Duration;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::{DeviceId, SwarmId, Version};
use swarmkv_protocol::io::{Change, Condition, Edit};
use swarmkv_protocol::limits::VERSION;
use swarmkv_protocol::model::cell::Cell;
use swarmkv_protocol::store::StoreError;
use swarmkv_protocol::ticket::{Invite, Ticket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::api::wire::{
    Data, InviteAnswer, InviteRequest, KnockInfo, ListAnswer, ListRequest, MemberInfo, PeerInfo,
    RevokeAnswer, RevokeRequest, Sibling, Status, WriteOp, role_from_name,
};
use crate::clock;
use crate::error::{InviteError, ReadError, RevokeError, WriteError};
use crate::readers::ReadState;
use crate::request::{Request, Target};

/// How often members are looked at while they are expected to confirm a revocation.
const CONFIRM_EVERY: Duration = Duration::from_millis(50);

/// Addresses in a ticket, at most.
const TICKET_ADDRS: usize = 8;

/// Talks to a running peer. Reads go straight to the store and never wait for writers; writes return
/// when they are on disk.
#[derive(Clone)]
pub struct Handle {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) readers: watch::Receiver<Arc<ReadState>>,
    pub(crate) listen_addrs: watch::Receiver<Vec<String>>,
    pub(crate) me: DeviceId,
    pub(crate) swarm: SwarmId,
}

impl Handle {
    /// Sets a key. The returned version names the write on every replica.
    ///
    /// # Errors
    /// When the write is refused; then nothing was written.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<Version, WriteError> {
        self.one(Change::put(key, value)).await
    }

    /// Deletes a key. What others write at the same time is not deleted.
    ///
    /// # Errors
    /// When the write is refused; then nothing was written.
    pub async fn delete(&self, key: &[u8]) -> Result<Version, WriteError> {
        self.one(Change::delete(key)).await
    }

    async fn one(&self, change: Change) -> Result<Version, WriteError> {
        let versions = self.change(vec![change]).await?;
        versions.first().copied().ok_or(WriteError::Stopped)
    }

    /// Writes several operations as one transaction: all of them or none, here and on every replica.
    ///
    /// # Errors
    /// When the transaction is refused; then nothing was written.
    pub async fn write(&self, ops: Vec<WriteOp>) -> Result<Vec<Version>, WriteError> {
        let changes = ops.into_iter().map(change).collect::<Result<_, _>>()?;
        self.change(changes).await
    }

    async fn change(&self, changes: Vec<Change>) -> Result<Vec<Version>, WriteError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Write(changes, reply);
        self.requests.send(request).await.map_err(|_| WriteError::Stopped)?;
        answer.await.map_err(|_| WriteError::Stopped)?
    }

    fn state(&self) -> Result<Arc<ReadState>, ReadError> {
        let state = Arc::clone(&self.readers.borrow());
        if state.caught_up { Ok(state) } else { Err(ReadError::CatchingUp) }
    }

    /// Reads the value that a key shows on this replica.
    ///
    /// # Errors
    /// [`ReadError::CatchingUp`] on a replica that has never been whole.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.noted(self.state()?.value(key))
    }

    /// Reads all concurrent values of a key, the shown one first; deletes are among them.
    ///
    /// # Errors
    /// As [`Handle::get`].
    pub fn siblings(&self, key: &[u8]) -> Result<Vec<Sibling>, ReadError> {
        Ok(self.noted(self.state()?.look(key))?.1)
    }

    /// A key's value and its siblings, of one moment; waits for a first catch-up and for `at_least`,
    /// `limit` in all.
    pub(crate) async fn look(
        &self,
        key: &[u8],
        at_least: Option<&Version>,
        limit: Duration,
    ) -> Result<(Option<Vec<u8>>, Vec<Sibling>), ReadError> {
        let mut readers = self.readers.clone();
        let ready = |state: &Arc<ReadState>| {
            state.caught_up && at_least.is_none_or(|version| state.covers(version))
        };
        let state = match timeout(limit, readers.wait_for(ready)).await {
            Ok(Ok(state)) => Arc::clone(&state),
            Ok(Err(_)) => return Err(ReadError::Stopped),
            Err(_) => {
                self.state()?;
                return Err(at_least.map_or(ReadError::CatchingUp, |v| ReadError::NotYet(*v)));
            }
        };
        if at_least.is_some_and(|version| state.contradicts(key, version)) {
            return Err(ReadError::NoSuchVersion);
        }
        self.noted(state.look(key))
    }

    /// Reads one page of keys, ascending. Each page is one moment of the replica.
    ///
    /// # Errors
    /// As [`Handle::get`].
    pub fn list(&self, request: &ListRequest) -> Result<ListAnswer, ReadError> {
        self.noted(self.state()?.list(request))
    }

    /// Has a damaged slot looked after before the reader hears of it.
    fn noted<T>(&self, read: Result<T, StoreError>) -> Result<T, ReadError> {
        read.map_err(|e| match e {
            StoreError::Damaged { branch, .. } => {
                // If there is no room, the next reader that meets it will say so.
                let _ = self.requests.try_send(Request::Suspect(branch));
                ReadError::Damaged
            }
            StoreError::Failed(_) => ReadError::Store(e),
        })
    }

    /// Has everything stored checked against what was signed, now instead of little by little;
    /// [`Status::scrub_left`] says when it is done. `None` when the peer has stopped.
    pub async fn scrub(&self) -> Option<()> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Scrub(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Waits until this replica has a write.
    ///
    /// # Errors
    /// [`ReadError::NotYet`] when it did not arrive within `limit`.
    pub async fn wait_for(&self, version: &Version, limit: Duration) -> Result<(), ReadError> {
        let mut readers = self.readers.clone();
        match timeout(limit, readers.wait_for(|state| state.covers(version))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::NotYet(*version)),
        }
    }

    /// Waits until this replica has once been whole.
    ///
    /// # Errors
    /// [`ReadError::CatchingUp`] when that did not happen within `limit`.
    pub async fn caught_up(&self, limit: Duration) -> Result<(), ReadError> {
        let mut readers = self.readers.clone();
        match timeout(limit, readers.wait_for(|state| state.caught_up)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::CatchingUp),
        }
    }

    /// Tells when what this replica shows may have changed.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let mut readers = self.readers.clone();
        readers.mark_unchanged();
        Watch(readers)
    }

    /// A hash of what this replica shows, once it is another than `state` or `limit` has passed; `None` when
    /// the peer has stopped.
    pub(crate) async fn other_than(&self, state: &str, limit: Duration) -> Option<String> {
        let mut readers = self.readers.clone();
        let other = readers.wait_for(|now| now.hash.to_string() != state);
        match timeout(limit, other).await {
            Ok(Ok(now)) => Some(now.hash.to_string()),
            Ok(Err(_)) => None,
            Err(_) => Some(state.to_owned()),
        }
    }

    /// Makes a ticket that admits a device.
    ///
    /// # Errors
    /// When this device may not, or the request makes no sense.
    pub async fn invite(&self, request: InviteRequest) -> Result<InviteAnswer, InviteError> {
        let role = role_from_name(&request.role).ok_or(InviteError::Invalid)?;
        let expires_at = clock::wall_millis().saturating_add(request.expires_ms);
        let invite = Invite {
            role,
            prefix: Bytes(request.prefix.0),
            max_bytes: request.quota,
            expires_at,
            uses: request.uses,
            confirm: request.confirm,
        };
        let secret = clock::random::<16>();
        let (reply, answer) = oneshot::channel();
        let ask = Request::Invite(secret, invite, reply);
        self.requests.send(ask).await.map_err(|_| InviteError::Stopped)?;
        answer.await.map_err(|_| InviteError::Stopped)??;
        let addrs = ticket_addrs(&self.listen_addrs.borrow());
        let ticket = Ticket {
            version: VERSION,
            swarm: self.swarm,
            inviter: self.me,
            addrs: addrs.clone(),
            secret: Bytes(secret.to_vec()),
            expires_at,
        };
        let role = role.to_string();
        Ok(InviteAnswer { ticket: ticket.to_text(), expires_at, role, addrs })
    }

    /// Devices that wait for a person to compare their check words; `None` when the peer has stopped.
    pub async fn knocks(&self) -> Option<Vec<KnockInfo>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Knocks(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Says whether a device's check words are the same on both sides. `None` when the peer has stopped.
    pub async fn confirm(&self, device: DeviceId, same: bool) -> Option<()> {
        self.requests.send(Request::Confirm(device, same)).await.ok()
    }

    /// Everybody who is or was a member; `None` when the peer has stopped.
    pub async fn members(&self) -> Option<Vec<MemberInfo>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Members(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Takes a device out of the swarm, for ever; or leaves, if it is this device. What connected members
    /// have of it is pulled first: its logs end where this device has them then.
    ///
    /// # Errors
    /// When this device may not, or no such member is known. Nothing was changed then.
    pub async fn revoke(&self, request: RevokeRequest) -> Result<RevokeAnswer, RevokeError> {
        let limit = Duration::from_millis(request.timeout_ms);
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::PullAll(reply)).await.map_err(|_| RevokeError::Stopped)?;
        let pulled = timeout(limit, answer).await.is_ok();
        let mut target = self.target(&request.device).await?;
        target.allowed.map_err(RevokeError::Refused)?;
        let (missing, away) = (target.missing, target.away.clone());
        if !request.preview {
            let this = target.device == self.me;
            if this && !request.force && target.info.slots > 0 && target.holders == 0 {
                return Err(RevokeError::NotSafe);
            }
            let (reply, answer) = oneshot::channel();
            let ask = Request::Revoke(target.device, reply);
            self.requests.send(ask).await.map_err(|_| RevokeError::Stopped)?;
            answer.await.map_err(|_| RevokeError::Stopped)??;
            target = self.confirmed(&target.device.to_string(), this, limit).await?;
        }
        let Target { info, holders, connected, .. } = target;
        Ok(RevokeAnswer { device: info, pulled, missing, holders, connected, away })
    }

    async fn target(&self, name: &str) -> Result<Target, RevokeError> {
        let (reply, answer) = oneshot::channel();
        let ask = Request::Target(name.to_owned(), reply);
        self.requests.send(ask).await.map_err(|_| RevokeError::Stopped)?;
        answer.await.map_err(|_| RevokeError::Stopped)?
    }

    /// Waits until every connected member holds what stays of a device, or, having left, until they
    /// have all said goodbye.
    async fn confirmed(
        &self,
        id: &str,
        this: bool,
        limit: Duration,
    ) -> Result<Target, RevokeError> {
        let began = tokio::time::Instant::now();
        loop {
            let target = self.target(id).await?;
            let done =
                if this { target.connected == 0 } else { target.holders == target.connected };
            if done || began.elapsed() >= limit {
                return Ok(target);
            }
            tokio::time::sleep(CONFIRM_EVERY).await;
        }
    }

    /// How this peer is; `None` when it has stopped.
    pub async fn status(&self) -> Option<Status> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Status(reply)).await.ok()?;
        answer.await.ok()
    }

    /// All members other than this device, connected or not; `None` when the peer has stopped.
    pub async fn peers(&self) -> Option<Vec<PeerInfo>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Peers(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Addresses that this peer listens on now.
    #[must_use]
    pub fn listening(&self) -> Vec<String> {
        self.listen_addrs.borrow().clone()
    }

    /// Waits until this peer listens somewhere, and says where.
    pub async fn wait_listening(&self) -> Vec<String> {
        let mut addrs = self.listen_addrs.clone();
        addrs
            .wait_for(|addrs| !addrs.is_empty())
            .await
            .map(|addrs| addrs.clone())
            .unwrap_or_default()
    }

    /// This device.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        self.me
    }

    /// The swarm.
    #[must_use]
    pub fn swarm_id(&self) -> SwarmId {
        self.swarm
    }
}

/// Waits for changes, see [`Handle::watch`].
pub struct Watch(watch::Receiver<Arc<ReadState>>);

impl Watch {
    /// Returns when what the replica shows may have changed since the last call, many changes at once;
    /// `false` when the peer has stopped.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

fn change(op: WriteOp) -> Result<Change, WriteError> {
    let condition = match (op.if_absent, op.if_version) {
        (true, Some(_)) => {
            let text = "a key cannot both be absent and hold a version".to_owned();
            return Err(WriteError::Invalid(text));
        }
        (true, None) => Some(Condition::Absent),
        (false, Some(versions)) => {
            let versions = versions.iter().map(|text| text.parse()).collect::<Result<_, _>>();
            Some(Condition::Values(versions.map_err(|e| WriteError::Invalid(format!("{e}")))?))
        }
        (false, None) => None,
    };
    let edit = match op.value {
        Some(Data(value)) => Edit::Put(Bytes(value)),
        None => Edit::Delete,
    };
    Ok(Change { cell: Cell::value(op.key.0), edit, expires_at: op.expires_at, condition })
}

/// Addresses worth putting into a ticket: loopback ones only if there are no others.
fn ticket_addrs(listening: &[String]) -> Vec<String> {
    let local = |addr: &&String| addr.starts_with("/ip4/127.") || addr.starts_with("/ip6/::1/");
    let (loopback, others): (Vec<&String>, Vec<&String>) = listening.iter().partition(local);
    let chosen = if others.is_empty() { loopback } else { others };
    chosen.into_iter().take(TICKET_ADDRS).cloned().collect()
}
