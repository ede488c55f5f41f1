//! Wire messages. A version byte leads each; another version, or a kind that this build does not have, is
//! ignored, never punished.

use serde::{Deserialize, Serialize};

use crate::codec::{self, Bytes, CodecError, tuple_codec};
use crate::id::{DeviceId, Hash, Hash8, LogId};
use crate::io::Fault;
use crate::later;
use crate::limits::VERSION;
use crate::log::digest::{DigestKey, Entry};
use crate::log::live_set::{Block, Named, Range};
use crate::model::slot::RawSlot;
use crate::time::Hlc;

/// Bytes that are no message of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Nothing at all.
    #[error("empty message")]
    Empty,
    /// Another protocol version: an upgrade may help.
    #[error("message of protocol version {0}, this build speaks {VERSION}")]
    Version(u8),
    /// Of a kind that this build does not have: an upgrade may help.
    #[error("message is of a kind that this build does not know")]
    Kind,
    /// Not canonical.
    #[error("message is {0}")]
    Codec(#[from] CodecError),
}

impl BadMessage {
    /// Whether it is of a later version.
    pub(crate) fn is_later(&self) -> bool {
        match self {
            Self::Version(version) => *version > VERSION,
            Self::Kind => true,
            Self::Empty | Self::Codec(_) => false,
        }
    }

    /// The fault of whoever sent it: of another version, nobody's.
    pub(crate) fn fault(self, from: DeviceId) -> Fault {
        match self {
            Self::Version(_) | Self::Kind => Fault::nobody(from, self),
            bad => Fault::sender(from, bad),
        }
    }
}

/// Encodes a message with its version byte.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend(codec::encode(message));
    out
}

/// Decodes a message.
///
/// # Errors
/// When it is of another version, of an unknown kind, or not canonical.
pub fn decode<'a, T: Serialize + Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, BadMessage> {
    match bytes.split_first() {
        None => Err(BadMessage::Empty),
        Some((&VERSION, rest)) => codec::decode(rest).map_err(|bad| {
            let unknown = later::is_unknown_variant::<T>(rest);
            if unknown { BadMessage::Kind } else { bad.into() }
        }),
        Some((&other, _)) => Err(BadMessage::Version(other)),
    }
}

/// What members gossip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gossip {
    /// A whole commit.
    Commit(Bytes),
    /// The signed header of a commit too large to gossip: pull it.
    Announce(Bytes),
    /// A roster statement.
    Statement(Bytes),
}

/// One message of a repair session. The initiator pulls, the other side serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Repair {
    /// Initiator: hash of roster and version digest.
    Hello(Hash),
    /// Server: ours is the same; done.
    Same(Completeness),
    /// Server: ours differs; the hash is the roster's.
    Differs(Hash),
    /// Initiator: rosters differ; short names of the statements held, ascending.
    Roster(Vec<Hash8>),
    /// Server: the statements that the initiator lacks, and short names of all.
    Statements(Statements),
    /// Initiator: statements that the server lacks, and the version digest, in one or several frames.
    Digest(Digest),
    /// Server: what the digest goes on from is not known here: it is to be told whole.
    TellAll,
    /// Server: what could follow.
    Plan(Plan),
    /// Initiator: what of the plan, by its place there (ascending), is not to be sent: another member sends
    /// it already, or it would not be taken.
    Except(Vec<u32>),
    /// Server: a log's slots follow.
    Start(Start),
    /// Server: slots, ascending.
    Slots(Vec<SlotRecord>),
    /// Server: of the log begun, sums over the slots that follow those summed before.
    Sums(Sums),
    /// Initiator, when all sums are there or names have come: what it lacks, and what else differs.
    Ask(Ask),
    /// Server, after the slots that were asked for: the names of those in the ranges asked for.
    Names(Names),
    /// Server: the log's slots are all sent; this signed header proves them.
    End(Bytes),
    /// Server: all sent.
    Done,
}

/// Whether a replica has once had all that its peers had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Completeness {
    /// It has.
    Complete,
    /// It is still catching up.
    Incomplete,
}

impl From<bool> for Completeness {
    fn from(complete: bool) -> Self {
        if complete { Self::Complete } else { Self::Incomplete }
    }
}

/// See [`Repair::Statements`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statements {
    /// Signed statements that the other side lacks.
    pub missing: Vec<Bytes>,
    /// Short names of the statements held, ascending.
    pub names: Vec<Hash8>,
}
tuple_codec!(Statements { missing, names });

/// See [`Repair::Digest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Signed statements that the other side lacks.
    pub statements: Vec<Bytes>,
    /// Under which heads are cut short: drawn by the initiator for each connection.
    pub key: DigestKey,
    /// Counts the digests told on this connection, from 1.
    pub number: u64,
    /// The digest that this one goes on from: it names the logs that changed since. 0: it names all.
    pub since: u64,
    /// The entries, ascending; all of a log's if any.
    pub entries: Vec<Entry>,
    /// If there are any: only these logs are asked for, a gap on the live path is to be closed.
    pub only: Vec<LogId>,
    /// What follows this frame.
    pub then: Then,
}
tuple_codec!(Digest { statements, key, number, since, entries, only, then });

/// What follows a frame of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Then {
    /// More of it.
    More,
    /// Nothing: the server sends its plan and all that it planned.
    Send,
    /// Nothing: the server sends its plan and waits for [`Repair::Except`].
    Wait,
}

/// See [`Repair::Plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whether the server is complete.
    pub complete: Completeness,
    /// The logs that will be sent.
    pub logs: Vec<Planned>,
}
tuple_codec!(Plan { complete, logs });

/// One log of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The log.
    pub log: LogId,
    /// Its last sequence number now.
    pub seq: u64,
    /// The hash of the header that ends there.
    pub head: Hash,
    /// About how many slots will be sent: for showing progress.
    pub slots: u64,
}
tuple_codec!(Planned { log, seq, head, slots });

/// See [`Repair::Start`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The log.
    pub log: LogId,
    /// Which of the receiver's heads the slots go on from; zero: none, the log is sent whole.
    pub base: Hash8,
    /// Whether the server knows that its log goes through that head. If not, the live root will tell.
    pub linked: bool,
    /// Slots sent are greater than this: what the receiver said it has or has staged.
    pub from: u64,
    /// Whether the live sets are compared first: sums follow, and only what differs is sent.
    pub compare: bool,
    /// The server's newest signed header now: bounds what the receiver must set aside. A log that grows
    /// beyond that while it is sent is started again from where it is.
    pub header: Bytes,
}
tuple_codec!(Start { log, base, linked, from, compare, header });

/// See [`Repair::Sums`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Blocks, ascending.
    pub blocks: Vec<Block>,
    /// Whether these were the last.
    pub last: bool,
}
tuple_codec!(Sums { blocks, last });

/// See [`Repair::Ask`]. If it names no range, the rest of the log follows the slots that it wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Places of the slots to send, ascending.
    pub wanted: Vec<u64>,
    /// Ranges whose slots are to be named then, ascending, apart from each other.
    pub ranges: Vec<Range>,
}
tuple_codec!(Ask { wanted, ranges });

/// See [`Repair::Names`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// All live slots of the ranges asked for, ascending, as far as `upto`.
    pub names: Vec<Named>,
    /// How far that is; the rest is to be asked for again.
    pub upto: u64,
}
tuple_codec!(Names { names, upto });

/// A slot on the wire; its log is that of the [`Start`] before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRecord {
    /// Place in the log.
    pub seq: u64,
    /// Stamp of the commit that carried it.
    pub hlc: Hlc,
    /// The encoded operation.
    pub op: Bytes,
}
tuple_codec!(SlotRecord { seq, hlc, op });

impl From<RawSlot> for SlotRecord {
    fn from(raw: RawSlot) -> Self {
        Self { seq: raw.seq, hlc: raw.hlc, op: raw.op }
    }
}
