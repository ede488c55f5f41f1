//! Errors of setting up, starting and using a peer. Each variant says what a caller can do about it.

use std::io;
use std::path::PathBuf;

use swarmkv_protocol::id::Version;
use swarmkv_protocol::io::RevokeRefused;
use swarmkv_protocol::store::StoreError;
use swarmkv_protocol::ticket::BadTicket;

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Another process lives in it.
    #[error("a peer is already running on {dir}{}", pid.map_or(String::new(), |p| format!(" (process {p})")))]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The other process, if it said so.
        pid: Option<u32>,
    },
    /// No swarm was made or joined here yet.
    #[error("{0} belongs to no swarm yet")]
    NoSwarm(PathBuf),
    /// A swarm was made or joined here before.
    #[error("{dir} already belongs to the swarm \"{swarm}\"")]
    HasSwarm {
        /// The directory.
        dir: PathBuf,
        /// The swarm's name.
        swarm: String,
    },
    /// The device key cannot be trusted or read.
    #[error("device key {path}: {reason}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The store cannot be opened or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be made, read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

impl DirError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// A new swarm could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The name or label is empty, too long or not printable.
    #[error("the {0} must have 1 to 64 bytes and no control characters")]
    Name(&'static str),
}

/// This device could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The text is no usable ticket.
    #[error(transparent)]
    Ticket(#[from] BadTicket),
    /// The ticket's time is over.
    #[error("the ticket has expired")]
    Expired,
    /// The ticket admitted another device.
    #[error("the ticket was already used by \"{label}\" ({device}), {}", ago(*minutes_ago))]
    Used {
        /// That device's label.
        label: String,
        /// Start of its id.
        device: String,
        /// When that was.
        minutes_ago: u64,
    },
    /// The inviting side wants a person to compare the check words first: join again in a moment.
    #[error("the inviting side has not confirmed the check words yet: {check_words}")]
    Unconfirmed {
        /// The words that this side shows.
        check_words: String,
    },
    /// The inviting side compared the check words and said no.
    #[error("the inviting side says that the check words are not the same")]
    Declined,
    /// This device's key was revoked, or it left: that is for ever.
    #[error("this device was taken out of the swarm, and its key can never return")]
    Revoked,
    /// The inviting device does not know the ticket.
    #[error("the inviting device does not know this ticket")]
    Unknown,
    /// The inviting device could not be reached, or did not answer.
    #[error("the inviting device cannot be reached: {0}")]
    Unreachable(String),
    /// The inviting device answered something that makes no sense.
    #[error("the inviting device's answer cannot be used: {0}")]
    Answer(String),
}

/// A peer could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// An address cannot be listened on or makes no sense.
    #[error("network: {0}")]
    Network(String),
    /// The peer was to keep data in memory, but the directory holds some on disk: it would be hidden.
    #[error("this device has data on disk, which a peer in memory would not show")]
    HasData,
}

/// A device was not taken out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// The core refuses.
    #[error("{0}")]
    Refused(RevokeRefused),
    /// The name fits no member.
    #[error("no member is called \"{0}\"")]
    Unknown(String),
    /// The name fits several members: their ids.
    #[error("several members are called \"{name}\"")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// The ids of those that it fits.
        ids: Vec<String>,
    },
    /// What only this device has would be lost if it left now.
    #[error("no connected member has everything that this device wrote")]
    NotSafe,
    /// The peer has stopped.
    #[error("the peer has stopped")]
    Stopped,
}

/// A local write was not done. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The role, prefix or quota does not allow it.
    #[error("{0}")]
    NotAllowed(String),
    /// Too large, or malformed.
    #[error("{0}")]
    Invalid(String),
    /// The condition does not hold; the values that are there instead.
    #[error("the condition is not met")]
    Condition(Vec<Version>),
    /// This replica has never been complete: a condition cannot be judged on a part of what there is.
    #[error("still catching up: a condition cannot be judged yet")]
    CatchingUp,
    /// Too many writes wait already.
    #[error("too many writes are waiting")]
    Busy,
    /// The disk is full. The write is not on disk; one that waited already will be when there is room.
    #[error("the disk is full: nothing can be written here until there is room")]
    Full,
    /// The peer has stopped: the write may or may not be on disk.
    #[error("the peer has stopped")]
    Stopped,
}

/// A read was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This replica is not complete yet: what is missing may be the delete of what it would show.
    #[error("still catching up")]
    CatchingUp,
    /// What is stored there is damaged; it is fetched afresh if another member has it.
    #[error("what is stored there cannot be read; it is fetched afresh if another member has it")]
    Damaged,
    /// The wanted version did not arrive in time.
    #[error("version {0} has not arrived here")]
    NotYet(Version),
    /// The wanted version names no write: another stands in its place.
    #[error("there is no such version")]
    NoSuchVersion,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The peer has stopped.
    #[error("the peer has stopped")]
    Stopped,
}

/// No ticket was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// This device's rank does not allow it.
    #[error(
        "this device may not invite: only the owner and admins may, and only below their own rank"
    )]
    NotAllowed,
    /// Too many open tickets.
    #[error("too many tickets are open")]
    TooMany,
    /// No uses, or too long a life.
    #[error("a ticket needs at least one use and may live a week at most")]
    Invalid,
    /// The peer has stopped.
    #[error("the peer has stopped")]
    Stopped,
}

fn ago(minutes: u64) -> String {
    match minutes {
        0 => "less than a minute ago".to_owned(),
        1 => "a minute ago".to_owned(),
        2..120 => format!("{minutes} minutes ago"),
        _ => format!("{} hours ago", minutes / 60),
    }
}
