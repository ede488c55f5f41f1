//! What goes into the engine and what comes out of it.

pub use crate::blame::Blame;
use crate::codec::Bytes;
use crate::id::{BranchId, DeviceId, Hash, Version};
use crate::model::cell::Cell;
use crate::roster::ticket::Invite;
use crate::store::{StoreError, Write};

/// Names a request of the driver's, so that the answer finds its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Names a repair session. Those this side opens are even, those it serves odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// One operation that a local user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The cell.
    pub cell: Cell,
    /// What is done to it.
    pub edit: Edit,
    /// Unix milliseconds after which the value is no longer shown.
    pub expires_at: Option<u64>,
    /// Done only if this holds on this replica.
    pub condition: Option<Condition>,
}

impl Change {
    /// Sets a key's value.
    #[must_use]
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::of(key, Edit::Put(value.into()))
    }

    /// Removes a key.
    #[must_use]
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::of(key, Edit::Delete)
    }

    /// Adds to a key's counter.
    #[must_use]
    pub fn add(key: impl Into<Bytes>, amount: i64) -> Self {
        Self::of(key, Edit::Add(amount))
    }

    fn of(key: impl Into<Bytes>, edit: Edit) -> Self {
        Self { cell: Cell::value(key), edit, expires_at: None, condition: None }
    }
}

/// What a local write does to its cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Sets the value.
    Put(Bytes),
    /// Removes what is there.
    Delete,
    /// Adds to the counter; to a decimal value as well, which then is a counter.
    Add(i64),
}

/// What must hold of a cell for a write to go ahead. It promises only this replica's view, and an
/// incomplete replica does not judge it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing is shown on it.
    Absent,
    /// The values on it are exactly these; tombstones do not matter.
    Values(Vec<Version>),
}

/// Everything that can happen to a replica.
#[derive(Debug)]
pub enum Input {
    /// Local users' operations, one transaction: queued until [`Input::Commit`].
    Write(Token, Vec<Change>),
    /// The driver is ready to make a commit durable: sign what is queued, one group at a time.
    Commit,
    /// A gossip message; answered by [`Output::Verdict`] in any case.
    Gossip {
        /// Names the message for the verdict.
        token: Token,
        /// Who handed it over (not who wrote it).
        from: DeviceId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A member is connected.
    Connected(DeviceId),
    /// It no longer is.
    Disconnected(DeviceId),
    /// A peer is connected that one side takes for a stranger.
    Stranger(DeviceId),
    /// A member opened a repair session to this replica.
    SessionOpened(SessionId, DeviceId),
    /// The session can take one more frame.
    SessionReady(SessionId),
    /// A frame arrived on it.
    SessionFrame(SessionId, Vec<u8>),
    /// So many more bytes of a frame have arrived that is not whole yet. A driver says so every few seconds
    /// while a large frame crosses a slow line; it can do without.
    SessionBytes(SessionId, u64),
    /// It is over, whoever ended it.
    SessionClosed(SessionId),
    /// Somebody, perhaps a stranger, asked something on the join protocol.
    Asked {
        /// Names the request for [`Output::Answer`].
        token: Token,
        /// Who asks: the transport has proven this key.
        peer: DeviceId,
        /// The request.
        bytes: Vec<u8>,
    },
    /// The answer to an [`Output::Ask`].
    Answered(DeviceId, Vec<u8>),
    /// A local user invites; answered by [`Output::Invited`].
    Invite {
        /// Names the request.
        token: Token,
        /// Fresh random bytes.
        secret: [u8; 16],
        /// What is allowed.
        invite: Invite,
    },
    /// A local user has compared a device's check words.
    Confirm {
        /// The device.
        device: DeviceId,
        /// Whether they are the same.
        same: bool,
    },
    /// A local user takes a device out, or leaves; answered by [`Output::Revoked`].
    Revoke {
        /// Names the request.
        token: Token,
        /// The device.
        device: DeviceId,
    },
    /// Everything that any connected member has is to be pulled now; done when [`Engine::pulling`] says
    /// so.
    ///
    /// [`Engine::pulling`]: crate::engine::Engine::pulling
    PullAll,
    /// A local user asks for everything stored to be checked against what was signed, now.
    Scrub,
    /// A reader met a damaged slot of this history.
    Suspect(BranchId),
    /// The peer is about to stop: what a start would have to sum up is written.
    Flush,
    /// Nothing but time passed.
    Tick,
}

/// What a forwarded message deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Genuine: pass it on.
    Accept,
    /// No honest node would send it: it counts against the sender.
    Reject,
    /// Not for us to judge: drop it, blame nobody.
    Ignore,
}

/// What the driver must do, in this order. A [`Output::Persist`] is durable before any later output is
/// carried out, verdicts excepted.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Make these writes durable, together or not at all.
    Persist(Vec<Write>),
    /// Pass a verdict on a gossip message. May be carried out at once.
    Verdict(Token, Verdict),
    /// Gossip a message of our own.
    Publish(Vec<u8>),
    /// Open a repair session.
    OpenSession(SessionId, DeviceId),
    /// Send a frame on it; the next is due after [`Input::SessionReady`].
    SendFrame(SessionId, Vec<u8>),
    /// End it.
    CloseSession(SessionId),
    /// Answer an [`Input::Asked`].
    Answer(Token, Vec<u8>),
    /// Ask a connected peer on the join protocol.
    Ask(DeviceId, Vec<u8>),
    /// A local write is durable; the names of its operations, in order.
    Written(Token, Vec<Version>),
    /// A local write was refused before anything was written.
    WriteRefused(Token, WriteRefused),
    /// The ticket is durable, or the reason why there is none.
    Invited(Token, Result<(), InviteRefused>),
    /// The revocation is durable, or the reason why there is none.
    Revoked(Token, Result<(), RevokeRefused>),
    /// What readers see moved: heads as of this point in the order.
    Advanced,
    /// The set of members changed.
    MembersChanged,
    /// A device holds a ticket of ours that needs a person's word, see [`Input::Confirm`]. Said once.
    Knocked(Knock),
    /// A device was admitted on a ticket of ours.
    Admitted {
        /// The device.
        device: DeviceId,
        /// Its name.
        label: String,
        /// The words that it shows as well.
        check_words: String,
    },
}

/// A device that waits for a person to compare its check words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knock {
    /// The device.
    pub device: DeviceId,
    /// Its name, as it wishes.
    pub label: String,
    /// The words that it shows.
    pub check_words: String,
}

/// Why a local write was refused. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefused {
    /// The role or prefix does not allow it.
    #[error("this device is not allowed to write there: {0}")]
    NotAllowed(&'static str),
    /// Too large, or malformed.
    #[error("{0}")]
    Invalid(String),
    /// The condition does not hold; the siblings that are there instead.
    #[error("the condition is not met")]
    Condition(Vec<Version>),
    /// What is stored on its key, or of the log that it would go to, is damaged. It is being mended;
    /// the write can be tried again at once.
    #[error("what is stored there is damaged and is being fetched afresh: try again")]
    Damaged,
    /// A condition cannot be judged before this replica is complete: what is missing may decide it.
    #[error("this device is still catching up: a condition cannot be judged yet")]
    CatchingUp,
    /// Too many writes wait already.
    #[error("too many writes are waiting")]
    Busy,
}

/// Why a device was not revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevokeRefused {
    /// No such member is known here.
    #[error("no such member is known here")]
    Unknown,
    /// It was revoked, or left, already.
    #[error("it is no member any more already")]
    Already,
    /// Nobody outranks the owner, and a swarm without one admits no more admins.
    #[error("the owner can neither be revoked nor leave")]
    Owner,
    /// This device does not outrank it.
    #[error("this device's rank does not reach")]
    NotAllowed,
    /// This device has stated as much as it may.
    #[error("this device has made as many statements as one may")]
    Full,
    /// This device, in a later version, has stated what this one does not understand.
    #[error("a later version has run on this device: upgrade it first")]
    Later,
}

/// Why no ticket was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InviteRefused {
    /// Only ranks above the role given may invite.
    #[error("this device's rank does not allow it")]
    NotAllowed,
    /// Too many open tickets.
    #[error("too many tickets are open")]
    TooMany,
    /// No uses, or too long a life.
    #[error("the ticket would be of no use, or live too long")]
    Invalid,
}

/// Why [`crate::engine::Engine::handle`] could not do all it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A peer sent something that was refused. State is untouched by it.
    #[error("{peer:?}: {reason}")]
    Peer {
        /// The peer that handed it over.
        peer: DeviceId,
        /// What was wrong.
        reason: String,
        /// Who is to blame.
        blame: Blame,
    },
    /// Storage failed: stop the replica.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Fault {
    /// A fault of the sender's.
    pub(crate) fn sender(peer: DeviceId, reason: impl ToString) -> Self {
        Self::Peer { peer, reason: reason.to_string(), blame: Blame::Sender }
    }

    /// A fault of nobody's.
    pub(crate) fn nobody(peer: DeviceId, reason: impl ToString) -> Self {
        Self::Peer { peer, reason: reason.to_string(), blame: Blame::Nobody }
    }
}

/// How one log stands, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStatus {
    /// The log, and which history of it.
    pub branch: BranchId,
    /// Last proven operation.
    pub seq: u64,
    /// Live slots, tombstones too.
    pub slots: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Stamp of the head, in Unix milliseconds.
    pub stamp: u64,
    /// Last sequence number set aside by repair; 0: none.
    pub staged: u64,
    /// A header whose live root its author got wrong: the log stands still here.
    pub frozen: Option<Hash>,
    /// Two histories of this log were seen.
    pub forked: bool,
    /// What was stored of it proved damaged: it is being fetched afresh.
    pub aside: bool,
    /// Kept only for what could not be read, or not be written again elsewhere: no member has it.
    pub lost: bool,
}

/// How far a connected member is behind this replica and ahead of it, by what it last said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The member.
    pub device: DeviceId,
    /// Operations that this replica has and the peer, when it last told, had not.
    pub behind: u64,
    /// Operations that the peer has and this replica has not.
    pub ahead: u64,
    /// Monotonic millisecond when both were last seen equal.
    pub equal_at: Option<u64>,
}

/// How a running catch-up stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The member pulled from.
    pub from: DeviceId,
    /// Slots received in this session.
    pub received: u64,
    /// Slots that the peer said it would send, about.
    pub planned: u64,
}

/// Something of a later version that was met. It was held or passed over, and nobody was blamed; an upgrade
/// of this device would help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later {
    /// What it was.
    pub what: LaterKind,
    /// Who stated it, or who handed it over: not always whoever made it.
    pub from: DeviceId,
}

/// What of a later version can be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaterKind {
    /// A gossip or repair message.
    Message,
    /// A commit or header, or an operation in one: that log stands still here.
    Write,
    /// A statement of a member: what its issuer stated from there on is not heeded here.
    Statement,
}

/// Running totals since the start, for `status` and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commits signed here.
    pub commits_signed: u64,
    /// Commits of others applied from gossip.
    pub commits_applied: u64,
    /// Logs moved forward by repair.
    pub logs_repaired: u64,
    /// Histories found damaged and set aside.
    pub set_aside: u64,
    /// Slots checked against what was signed.
    pub scrubbed: u64,
    /// Slots received by repair.
    pub slots_received: u64,
    /// Of these, slots of logs that were not wanted any more when they came.
    pub slots_in_vain: u64,
    /// Messages that every honest node would refuse.
    pub rejected: u64,
    /// Messages ignored without blame.
    pub ignored: u64,
    /// Repair sessions begun.
    pub pulls: u64,
    /// Repair sessions begun to close a gap on the live path.
    pub gap_pulls: u64,
    /// Repair sessions that found both sides equal.
    pub pulls_equal: u64,
}
