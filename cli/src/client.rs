//! A connection to the running peer whose every answer is waited for no longer than allowed.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use swarmkv_node::api::wire::{
    ChangedAnswer, ChangedRequest, ConfirmRequest, GetAnswer, GetRequest, InviteAnswer,
    InviteRequest, KnockInfo, ListAnswer, ListRequest, MemberInfo, PeerInfo, RevokeAnswer,
    RevokeRequest, Status, WriteAnswer, WriteOp, WriteRequest,
};
use swarmkv_node::api::{Client, ClientError};

use crate::error::Failure;
use crate::settings::Settings;

/// Given to the peer beyond `--timeout`, so that its own account of a time-out arrives.
const GRACE: Duration = Duration::from_secs(2);

/// The running peer of a data directory.
pub struct Peer {
    client: Client,
    data_dir: PathBuf,
    timeout: Duration,
}

impl Peer {
    /// Connects to the running peer.
    pub async fn connect(settings: &Settings) -> Result<Self, Failure> {
        let data_dir = settings.data_dir.clone();
        let timeout = settings.timeout;
        let client = in_time(timeout, Client::connect(&data_dir), &data_dir).await?;
        Ok(Self { client, data_dir, timeout })
    }

    /// Writes operations that take effect together.
    pub async fn write(&mut self, request: &WriteRequest) -> Result<WriteAnswer, Failure> {
        in_time(self.timeout, self.client.write(request), &self.data_dir).await
    }

    /// Writes one operation; answers its name.
    pub async fn write_one(&mut self, op: WriteOp) -> Result<String, Failure> {
        let answer = self.write(&WriteRequest { ops: vec![op] }).await?;
        let one = answer.versions.into_iter().next();
        one.ok_or_else(|| Failure::failed("the running peer's answer names no write"))
    }

    /// As [`Peer::write`], telling the client's own errors apart.
    pub async fn try_write(&mut self, request: &WriteRequest) -> Result<WriteAnswer, ClientError> {
        self.client.write(request).await
    }

    /// Reads one key; waits for what `request` wants within the time allowed.
    pub async fn get(&mut self, mut request: GetRequest) -> Result<GetAnswer, Failure> {
        request.timeout_ms = millis(self.timeout);
        in_time(self.timeout, self.client.get(&request), &self.data_dir).await
    }

    /// Waits until what the peer shows is something else, or the time given there has passed.
    pub async fn changed(&mut self, request: &ChangedRequest) -> Result<ChangedAnswer, Failure> {
        let limit = self.timeout.saturating_add(Duration::from_millis(request.timeout_ms));
        in_time(limit, self.client.changed(request), &self.data_dir).await
    }

    /// Reads one page of keys.
    pub async fn list(&mut self, request: &mut ListRequest) -> Result<ListAnswer, Failure> {
        request.timeout_ms = millis(self.timeout);
        in_time(self.timeout, self.client.list(request), &self.data_dir).await
    }

    /// Makes a ticket.
    pub async fn invite(&mut self, request: &InviteRequest) -> Result<InviteAnswer, Failure> {
        in_time(self.timeout, self.client.invite(request), &self.data_dir).await
    }

    /// Asks for everybody who is or was a member.
    pub async fn members(&mut self) -> Result<Vec<MemberInfo>, Failure> {
        in_time(self.timeout, self.client.members(), &self.data_dir).await
    }

    /// Asks which devices wait for a person to compare their check words.
    pub async fn knocks(&mut self) -> Result<Vec<KnockInfo>, Failure> {
        in_time(self.timeout, self.client.knocks(), &self.data_dir).await
    }

    /// Says whether a device's check words are the same on both sides.
    pub async fn confirm(&mut self, request: &ConfirmRequest) -> Result<(), Failure> {
        in_time(self.timeout, self.client.confirm(request), &self.data_dir).await
    }

    /// Takes a device out, or says what that would do; the peer waits for others up to twice as long as
    /// allowed.
    pub async fn revoke(&mut self, mut request: RevokeRequest) -> Result<RevokeAnswer, Failure> {
        request.timeout_ms = millis(self.timeout);
        let limit = self.timeout.saturating_mul(2);
        in_time(limit, self.client.revoke(&request), &self.data_dir).await
    }

    /// Asks how the peer is.
    pub async fn status(&mut self) -> Result<Status, Failure> {
        in_time(self.timeout, self.client.status(), &self.data_dir).await
    }

    /// Asks for the other members.
    pub async fn peers(&mut self) -> Result<Vec<PeerInfo>, Failure> {
        in_time(self.timeout, self.client.peers(), &self.data_dir).await
    }

    /// Has everything stored checked.
    pub async fn scrub(&mut self) -> Result<(), Failure> {
        in_time(self.timeout, self.client.scrub(), &self.data_dir).await
    }

    /// Names a failure of this peer.
    pub fn failure(&self, error: ClientError) -> Failure {
        Failure::client(error, &self.data_dir)
    }
}

async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, ClientError>>,
    data_dir: &std::path::Path,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit.saturating_add(GRACE), answer).await {
        Ok(answer) => answer.map_err(|error| Failure::client(error, data_dir)),
        Err(_) => Err(Failure::no_answer(limit)),
    }
}

/// A duration as the local API takes it.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock in Unix milliseconds.
pub fn now() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
