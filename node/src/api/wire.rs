//! Requests and answers of the local API. The command line's `--json` prints the same shapes.

use std::fmt;
use std::time::Duration;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use swarmkv_protocol::roster::Role;

/// Bytes of a key or value: text where they are UTF-8, else `{"base64": "…"}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Data(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded {
    base64: String,
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => s.serialize_str(text),
            Err(_) => Encoded { base64: BASE64.encode(&self.0) }.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Encoded(Encoded),
        }
        match Either::deserialize(d)? {
            Either::Text(text) => Ok(Self(text.into_bytes())),
            Either::Encoded(encoded) => BASE64
                .decode(encoded.base64.as_bytes())
                .map(Self)
                .map_err(|_| de::Error::custom("not base64")),
        }
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Data {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// One operation of a write request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteOp {
    /// The key.
    pub key: Data,
    /// The value; absent: delete the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Data>,
    /// Unix milliseconds after which the value is no longer shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Only if nothing is shown on the key at this replica.
    #[serde(default)]
    pub if_absent: bool,
    /// Only if the values on the key at this replica are exactly these versions; deletes do not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_version: Option<Vec<String>>,
}

/// Waits until what the peer shows is something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangedRequest {
    /// What was seen last, see [`ChangedAnswer::state`]; nothing: answer at once.
    #[serde(default)]
    pub state: String,
    /// Longest wait in milliseconds.
    pub timeout_ms: u64,
}

/// What the peer shows now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedAnswer {
    /// A hash of everything shown.
    pub state: String,
}

/// Operations that take effect together or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteRequest {
    /// The operations, in order.
    pub ops: Vec<WriteOp>,
}

/// A write is on this disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteAnswer {
    /// One name an operation, in order.
    pub versions: Vec<String>,
}

/// Asks for one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetRequest {
    /// The key.
    pub key: Data,
    /// Wait until this replica has that write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<String>,
    /// How long to wait for `at_least`, or for a first catch-up, in milliseconds.
    #[serde(default)]
    pub timeout_ms: u64,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetAnswer {
    /// The shown value; absent: there is none.
    pub value: Option<Data>,
    /// All undominated writes: live values first, of them the shown one; then what has expired, and
    /// deletes. More than one are concurrent.
    pub siblings: Vec<Sibling>,
}

/// One of a key's undominated writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sibling {
    /// Names the write.
    pub version: String,
    /// Its value; absent: a delete.
    pub value: Option<Data>,
    /// Label of the device that wrote it.
    pub author: String,
    /// That device's id.
    pub author_id: String,
    /// The author's stamp, in Unix milliseconds.
    pub written_at: u64,
    /// Unix milliseconds after which the value is no longer shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

impl Sibling {
    /// Whether it is a value that can be shown, by this machine's clock.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.value.is_some() && !self.expired()
    }

    /// Whether its value is past its time, by this machine's clock.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.expires_at.is_some_and(|at| at <= crate::clock::wall_millis())
    }
}

/// Asks for one page of keys, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRequest {
    /// Only keys that begin with this.
    #[serde(default)]
    pub prefix: Data,
    /// Only this key and greater ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Data>,
    /// Only keys greater than this: the last page's `next`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Data>,
    /// Leave the values out.
    #[serde(default)]
    pub keys_only: bool,
    /// Most items wanted; a page may hold fewer.
    pub limit: usize,
    /// How long to wait for a first catch-up, in milliseconds.
    #[serde(default)]
    pub timeout_ms: u64,
}

/// One page of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListAnswer {
    /// The keys that show a value.
    pub items: Vec<ListItem>,
    /// Ask on after this key; absent: that was all.
    pub next: Option<Data>,
}

/// One key that shows a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListItem {
    /// The key.
    pub key: Data,
    /// Its value, unless left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Data>,
    /// Length of the value in bytes.
    pub size: usize,
    /// Values on the key: more than one are concurrent.
    pub siblings: usize,
    /// Names the shown write.
    pub version: String,
    /// Label of the device that wrote it.
    pub author: String,
    /// The author's stamp, in Unix milliseconds.
    pub written_at: u64,
    /// Unix milliseconds after which the value is no longer shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// Asks for a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// What the new device may do: `reader`, `writer` or `admin`.
    pub role: String,
    /// Keys that it may write begin with this.
    #[serde(default)]
    pub prefix: Data,
    /// Bytes of live operations that it may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
    /// How long the ticket is good, in milliseconds.
    pub expires_ms: u64,
    /// Devices that it admits.
    pub uses: u32,
    /// Whether a person is to compare the check words first, see [`KnockInfo`].
    #[serde(default)]
    pub confirm: bool,
}

impl InviteRequest {
    /// For one writer of any key, for so long.
    #[must_use]
    pub fn writer(lasting: Duration) -> Self {
        Self {
            role: "writer".into(),
            prefix: Data::default(),
            quota: None,
            expires_ms: u64::try_from(lasting.as_millis()).unwrap_or(u64::MAX),
            uses: 1,
            confirm: false,
        }
    }
}

/// A ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteAnswer {
    /// The ticket as text.
    pub ticket: String,
    /// Unix milliseconds after which it is refused.
    pub expires_at: u64,
    /// What the new device may do.
    pub role: String,
    /// Addresses in it, as multiaddresses.
    pub addrs: Vec<String>,
}

/// A device that waits for a person to compare its check words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnockInfo {
    /// Its label.
    pub device: String,
    /// Its id.
    pub device_id: String,
    /// The words that it shows.
    pub check_words: String,
}

/// What a person said about a device's check words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmRequest {
    /// The device's id.
    pub device_id: String,
    /// Whether the words are the same on both sides.
    pub same: bool,
}

/// How this peer is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The swarm's name.
    pub swarm: String,
    /// The swarm's id.
    pub swarm_id: String,
    /// This device's label.
    pub device: String,
    /// This device's id.
    pub device_id: String,
    /// This device's role.
    pub role: String,
    /// The directory it lives in.
    pub data_dir: String,
    /// Process id.
    pub pid: u32,
    /// Milliseconds since the peer started.
    pub uptime_ms: u64,
    /// Version of the program.
    pub version: String,
    /// Whether this replica has once been whole; until then reads answer "catching up".
    pub caught_up: bool,
    /// A running repair, if it has begun to bring something.
    pub progress: Option<Progress>,
    /// Addresses that this peer listens on.
    pub listen: Vec<String>,
    /// `member`, `revoked` or `left`.
    pub standing: String,
    /// Label of whoever revoked this device.
    pub revoked_by: Option<String>,
    /// Members of the swarm, this device counted.
    pub members: usize,
    /// Connected members.
    pub peers: Vec<PeerInfo>,
    /// How each log stands.
    pub logs: Vec<LogInfo>,
    /// Live slots over all logs: values, tombstones and values hidden by newer ones.
    pub slots: u64,
    /// Bytes of their operations.
    pub bytes: u64,
    /// Bytes of the store on disk.
    pub disk_bytes: u64,
    /// The disk is full: nothing can be written until there is room.
    #[serde(default)]
    pub disk_full: bool,
    /// Data is in memory only: gone when the peer stops.
    #[serde(default)]
    pub in_memory: bool,
    /// A hash of everything this replica has: equal replicas, equal hashes.
    pub state: String,
    /// Histories still to be checked on request, see `swarmkv scrub`; 0: none.
    pub scrub_left: usize,
    /// Something of a later version was met: this device should be upgraded.
    #[serde(default)]
    pub upgrade: Option<Upgrade>,
    /// Running totals since the start.
    pub counters: Counters,
}

/// What of a later version was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// `message`, `write` or `statement`.
    pub what: String,
    /// Label of the member that stated it or handed it over.
    pub device: String,
    /// That member's id.
    pub device_id: String,
}

/// A running repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Label of the member pulled from.
    pub from: String,
    /// Slots received in this session.
    pub received: u64,
    /// Slots that it said it would send, about.
    pub planned: u64,
}

/// One member, connected or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its label.
    pub device: String,
    /// Its id.
    pub device_id: String,
    /// Its libp2p peer id.
    pub peer_id: String,
    /// Its role.
    pub role: String,
    /// Whether it is connected.
    pub connected: bool,
    /// How it was found: `mdns`, `kad` or `direct`.
    pub source: Option<String>,
    /// What it is connected by: `tcp` or `quic`.
    pub transport: Option<String>,
    /// The address it is connected at.
    pub addr: Option<String>,
    /// Operations that this replica has and the peer, when it last told, had not.
    pub behind: u64,
    /// Operations that the peer has and this replica has not.
    pub ahead: u64,
    /// Milliseconds since both were last seen equal.
    pub equal_ms_ago: Option<u64>,
    /// Its gossip score: below 0 it is out of favour, below -160 nothing is taken from it.
    pub score: Option<f64>,
    /// What it handed on lately that nobody honest would; ten in ten minutes block it.
    pub offences: usize,
    /// Unix millisecond until which it is not talked to.
    pub blocked_until: Option<u64>,
}

/// A device that is or was a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Its label.
    pub device: String,
    /// Its id.
    pub device_id: String,
    /// `member`, `revoked`, or `left`.
    pub standing: String,
    /// Its role, or what it was.
    pub role: String,
    /// Whether it is this device.
    pub this: bool,
    /// Whether it is connected.
    pub connected: bool,
    /// Keys that it may write begin with this.
    pub prefix: Data,
    /// Bytes of live operations that it may hold.
    pub quota: Option<u64>,
    /// Its live operations here: values, tombstones and values hidden by newer ones.
    pub slots: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Stamp of its last write here, in Unix milliseconds.
    pub last_write: Option<u64>,
    /// Label of whoever admitted it; `None`: it made the swarm.
    pub admitted_by: Option<String>,
    /// Label of whoever revoked it.
    pub revoked_by: Option<String>,
}

/// Asks for a device to be taken out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// A label, or any unambiguous start of an id; empty: this device itself.
    pub device: String,
    /// Only pull what others have, and say what would become of it.
    #[serde(default)]
    pub preview: bool,
    /// Leave even if no connected member has everything that this device wrote.
    #[serde(default)]
    pub force: bool,
    /// How long to wait for what others have, and then for them to confirm, in milliseconds each.
    pub timeout_ms: u64,
}

/// What taking a device out does, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeAnswer {
    /// The device.
    pub device: MemberInfo,
    /// Whether everything that connected members have of it was pulled first.
    pub pulled: bool,
    /// Operations of it that connected members told of and that did not arrive: they are lost.
    pub missing: u64,
    /// Connected members that hold its logs exactly as they stay.
    pub holders: usize,
    /// Connected members, the device itself not counted.
    pub connected: usize,
    /// Labels of members that are not connected: they learn of it later.
    pub away: Vec<String>,
}

/// One log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogInfo {
    /// Label of its author.
    pub author: String,
    /// Its author's id.
    pub author_id: String,
    /// Its epoch, in hexadecimal.
    pub epoch: String,
    /// Its last proven operation.
    pub seq: u64,
    /// Its live slots.
    pub slots: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Trouble: `damaged` (what is stored here of it is being fetched afresh), `frozen` (its author signed a
    /// wrong root) or `forked` (its author signed two histories; both are kept).
    pub trouble: Option<String>,
}

/// Running totals since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Commits signed here.
    pub commits_signed: u64,
    /// Commits of others applied from gossip.
    pub commits_applied: u64,
    /// Logs moved forward by repair.
    pub logs_repaired: u64,
    /// Slots received by repair.
    pub slots_received: u64,
    /// Of these, slots of logs that were not wanted any more when they came.
    pub slots_in_vain: u64,
    /// Repair sessions begun here.
    pub repairs: u64,
    /// Of these, sessions that found both sides equal.
    pub repairs_equal: u64,
    /// Sessions begun to close a gap on the live path.
    pub gap_repairs: u64,
    /// Stored slots checked against what was signed.
    pub scrubbed: u64,
    /// Histories found damaged here.
    pub set_aside: u64,
    /// Messages that every honest node would refuse.
    pub rejected: u64,
    /// Messages ignored without blame.
    pub ignored: u64,
    /// Requests of strangers turned away.
    pub strangers_refused: u64,
}

/// Why a request failed, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request makes no sense, or is too large.
    Invalid,
    /// This device is not allowed to do that.
    NotAllowed,
    /// There is no such device.
    NotFound,
    /// A condition was not met; nothing was written.
    Condition,
    /// This replica has never been whole: it would answer half a truth.
    CatchingUp,
    /// Not reached in time.
    Timeout,
    /// Too much is waiting; try again.
    Busy,
    /// The disk is full.
    Full,
    /// The peer is in trouble (disk, damage) or stopping.
    Failed,
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For programs.
    pub kind: ErrorKind,
    /// For people: what happened and why.
    pub message: String,
    /// For people: what to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ApiError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Reads a role's name.
#[must_use]
pub fn role_from_name(name: &str) -> Option<Role> {
    [Role::Reader, Role::Writer, Role::Admin, Role::Owner]
        .into_iter()
        .find(|role| role.to_string() == name)
}
