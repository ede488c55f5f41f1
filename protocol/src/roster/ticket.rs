//! Joining: tickets that admit a device once, and introductions between members who have not heard
//! of each other.

use serde::{Deserialize, Serialize};

use crate::codec::{self, Bytes, tuple_codec};
use crate::crypto::{self, Domain};
use crate::id::{DeviceId, Hash, Hash8, SwarmId, from_text, to_text};
use crate::limits::VERSION;
use crate::roster::Role;

const PREFIX: &str = "swarmkv-";
const MAX_TEXT: usize = 4096;

/// An invitation, as text that survives a chat message.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Protocol version.
    pub version: u8,
    /// The swarm.
    pub swarm: SwarmId,
    /// The device that answers for it.
    pub inviter: DeviceId,
    /// Where it listens (multiaddresses).
    pub addrs: Vec<String>,
    /// Known to the inviter and to whoever holds the ticket.
    pub secret: Bytes,
    /// Unix milliseconds after which it is refused.
    pub expires_at: u64,
}
tuple_codec!(Ticket { version, swarm, inviter, addrs, secret, expires_at });

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({:?} by {:?}, secret redacted)", self.swarm, self.inviter)
    }
}

/// Text that is no usable ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTicket {
    /// Does not begin like a ticket.
    #[error("this is not a ticket: a ticket begins with \"{PREFIX}\"")]
    NotOne,
    /// Begins like one, but was cut short or changed on the way.
    #[error("the ticket is damaged: a part was lost or changed when it was copied")]
    Damaged,
    /// Made by another protocol version.
    #[error("the ticket was made by protocol version {0}, this build speaks {VERSION}: upgrade")]
    Version(u8),
}

impl Ticket {
    /// The ticket as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut bytes = codec::encode(self);
        let check = crypto::hash(Domain::Ticket, &[&bytes]);
        bytes.extend_from_slice(&check.as_bytes()[..4]);
        format!("{PREFIX}{}", to_text(&bytes))
    }

    /// Reads a ticket; white space that a chat program put in is passed over.
    ///
    /// # Errors
    /// Says whether the text is no ticket, or a damaged one, or one of another version.
    pub fn parse(text: &str) -> Result<Self, BadTicket> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).take(MAX_TEXT).collect();
        let text = text.strip_prefix(PREFIX).ok_or(BadTicket::NotOne)?;
        let bytes = from_text(text).ok_or(BadTicket::Damaged)?;
        let (body, check) = bytes.split_last_chunk::<4>().ok_or(BadTicket::Damaged)?;
        if crypto::hash(Domain::Ticket, &[body]).as_bytes()[..4] != check[..] {
            return Err(BadTicket::Damaged);
        }
        let ticket: Self = codec::decode(body).map_err(|_| BadTicket::Damaged)?;
        if ticket.version != VERSION {
            return Err(BadTicket::Version(ticket.version));
        }
        Ok(ticket)
    }

    /// What the inviter knows the ticket by.
    #[must_use]
    pub fn id(&self) -> Hash8 {
        secret_key(&self.secret).short8()
    }

    /// Proof of holding the ticket, good for this joiner only.
    #[must_use]
    pub fn proof(&self, joiner: &DeviceId) -> Hash {
        proof(&secret_key(&self.secret), joiner, &self.inviter)
    }

    /// The words that both sides show for this joiner.
    #[must_use]
    pub fn check_words(&self, joiner: &DeviceId) -> String {
        check_words(&secret_key(&self.secret), joiner, &self.inviter)
    }
}

fn secret_key(secret: &[u8]) -> Hash {
    crypto::hash(Domain::Ticket, &[b"secret", secret])
}

fn proof(key: &Hash, joiner: &DeviceId, inviter: &DeviceId) -> Hash {
    let parts: [&[u8]; 4] = [b"proof", key.as_bytes(), joiner.as_bytes(), inviter.as_bytes()];
    crypto::hash(Domain::Ticket, &parts)
}

/// Two pronounceable words from 32 bits (Wilkerson, "A Proposal for Proquints", 2009).
fn check_words(key: &Hash, joiner: &DeviceId, inviter: &DeviceId) -> String {
    const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
    const VOWELS: &[u8; 4] = b"aiou";
    let parts: [&[u8]; 3] = [key.as_bytes(), joiner.as_bytes(), inviter.as_bytes()];
    let hash = crypto::hash(Domain::CheckWords, &parts);
    let word = |hi: u8, lo: u8| {
        let bits = u16::from_be_bytes([hi, lo]);
        let consonant = |shift: u16| char::from(CONSONANTS[usize::from(bits >> shift & 15)]);
        let vowel = |shift: u16| char::from(VOWELS[usize::from(bits >> shift & 3)]);
        [consonant(12), vowel(10), consonant(6), vowel(4), consonant(0)].iter().collect::<String>()
    };
    let b = hash.as_bytes();
    format!("{}-{}", word(b[0], b[1]), word(b[2], b[3]))
}

/// A use of a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) device: DeviceId,
    pub(crate) label: String,
    pub(crate) at: u64,
}
tuple_codec!(Use { device, label, at });

/// What the inviter keeps of a ticket: enough to check a proof, not the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TicketRecord {
    pub(crate) key: Hash,
    pub(crate) role: Role,
    pub(crate) prefix: Bytes,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) expires_at: u64,
    pub(crate) uses: u32,
    pub(crate) used: Vec<Use>,
    pub(crate) confirm: bool,
}
tuple_codec!(TicketRecord { key, role, prefix, max_bytes, expires_at, uses, used, confirm });

impl TicketRecord {
    pub(crate) fn new(secret: &[u8], invite: &Invite) -> Self {
        Self {
            key: secret_key(secret),
            role: invite.role,
            prefix: invite.prefix.clone(),
            max_bytes: invite.max_bytes,
            expires_at: invite.expires_at,
            uses: invite.uses,
            used: Vec::new(),
            confirm: invite.confirm,
        }
    }

    pub(crate) fn id(&self) -> Hash8 {
        self.key.short8()
    }

    pub(crate) fn proves(&self, given: &Hash, joiner: &DeviceId, inviter: &DeviceId) -> bool {
        proof(&self.key, joiner, inviter) == *given
    }

    pub(crate) fn check_words(&self, joiner: &DeviceId, inviter: &DeviceId) -> String {
        check_words(&self.key, joiner, inviter)
    }
}

/// What an invitation allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Role of the devices admitted.
    pub role: Role,
    /// Keys that they may write begin with this; empty: all keys.
    pub prefix: Bytes,
    /// Bytes of live operations that each may hold; `None`: no bound.
    pub max_bytes: Option<u64>,
    /// Unix milliseconds after which it is refused.
    pub expires_at: u64,
    /// Devices that it admits.
    pub uses: u32,
    /// Whether a person is to compare the check words before a device is admitted.
    pub confirm: bool,
}

/// What anyone may say on the join protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinRequest {
    /// Asks to be admitted on a ticket.
    Redeem(Redeem),
    /// Shows the statements that admit the asking device, to a member that has not seen them.
    Introduce(Introduce),
}

/// See [`JoinRequest::Redeem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeem {
    /// The ticket's id.
    pub ticket: Hash8,
    /// Proof of holding it.
    pub proof: Hash,
    /// How the device wishes to be called.
    pub label: String,
}
tuple_codec!(Redeem { ticket, proof, label });

/// See [`JoinRequest::Introduce`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduce {
    /// The swarm meant.
    pub swarm: SwarmId,
    /// Signed statements that admit the sender.
    pub statements: Vec<Bytes>,
}
tuple_codec!(Introduce { swarm, statements });

/// The answer on the join protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAnswer {
    /// Admitted.
    Welcome(Welcome),
    /// The introduction is taken; here is the answering side's own.
    Introduced(Vec<Bytes>),
    /// Refused.
    Refused(Refusal),
}

/// See [`JoinAnswer::Welcome`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The signed genesis.
    pub genesis: Bytes,
    /// Signed statements, among them those that admit the new device.
    pub statements: Vec<Bytes>,
}
tuple_codec!(Welcome { genesis, statements });

/// Why a join request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No such ticket, or the proof is wrong: the two are not told apart.
    UnknownTicket,
    /// Past its time.
    Expired,
    /// Used up; by whom and when (Unix milliseconds).
    Used(UsedBy),
    /// The request makes no sense to this device.
    Invalid,
    /// Another swarm, or statements that admit nobody.
    NotAMember,
    /// This device can admit nobody just now.
    Unable,
    /// A person has yet to compare the check words: ask again.
    Unconfirmed,
    /// A person compared the check words and said no.
    Declined,
    /// The asking device was revoked, or has left: these statements prove it.
    Revoked(Vec<Bytes>),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownTicket => f.write_str("its ticket is unknown here"),
            Self::Expired => f.write_str("its ticket has expired"),
            Self::Used(by) => write!(f, "its ticket was already used by \"{}\"", by.label),
            Self::Invalid => f.write_str("its request makes no sense"),
            Self::NotAMember => f.write_str("it is no member of this swarm"),
            Self::Revoked(_) => f.write_str("it was revoked: a new key would have to be admitted"),
            Self::Unconfirmed => f.write_str("its check words have not been confirmed yet"),
            Self::Declined => f.write_str("its check words were not the right ones"),
            Self::Unable => f.write_str("this device can admit nobody just now"),
        }
    }
}

/// See [`Refusal::Used`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedBy {
    /// The device that the ticket admitted.
    pub device: DeviceId,
    /// Its name.
    pub label: String,
    /// When, in Unix milliseconds.
    pub at: u64,
}
tuple_codec!(UsedBy { device, label, at });

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            version: VERSION,
            swarm: SwarmId::new([1; 32]),
            inviter: DeviceId::new([2; 32]),
            addrs: vec!["/ip4/192.0.2.1/tcp/4001".into()],
            secret: Bytes(vec![3; 16]),
            expires_at: 1_000,
        }
    }

    #[test]
    fn a_ticket_survives_a_chat_message() {
        let text = ticket().to_text();
        let (a, b) = text.split_at(40);
        assert_eq!(Ticket::parse(&format!(" {a}\r\n  {b}\n")), Ok(ticket()));
    }

    #[test]
    fn a_damaged_ticket_says_so() {
        let text = ticket().to_text();
        assert_eq!(Ticket::parse(&text[..text.len() - 1]), Err(BadTicket::Damaged));
        let last = if text.ends_with('a') { "b" } else { "a" };
        let changed = format!("{}{last}", &text[..text.len() - 1]);
        assert_eq!(Ticket::parse(&changed), Err(BadTicket::Damaged));
        assert_eq!(Ticket::parse("hello"), Err(BadTicket::NotOne));
    }

    #[test]
    fn check_words_are_two_proquints_that_depend_on_the_joiner() {
        let a = ticket().check_words(&DeviceId::new([7; 32]));
        let b = ticket().check_words(&DeviceId::new([8; 32]));
        assert_eq!((a.len(), a.split('-').count()), (11, 2));
        assert_ne!(a, b);
    }
}
