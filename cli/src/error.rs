//! Everything that can go wrong, as people and scripts are told: kinds, exit codes, messages, hints.

use std::io;
use std::path::Path;

use serde::{Serialize, Serializer};
use swarmkv_node::api::ClientError;
use swarmkv_node::api::wire::{ApiError, ErrorKind};
use swarmkv_node::{DirError, InitError, JoinError, StartError};

/// What kind of failure it is. Each has one name for `--json` and one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was tried and failed.
    Failed,
    /// It makes no sense as typed.
    Usage,
    /// There is no such key.
    NotFound,
    /// No peer is running, or it cannot be reached.
    Unreachable,
    /// This device may not do that.
    NotAllowed,
    /// `--if-absent` or `--if-version` does not hold.
    Condition,
    /// Not done in time, or still catching up.
    Timeout,
    /// A stream ended before its end.
    Interrupted,
    /// Another process runs on this data directory.
    AlreadyRunning,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::Unreachable,
        Self::NotAllowed,
        Self::Condition,
        Self::Timeout,
        Self::Interrupted,
        Self::AlreadyRunning,
    ];

    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Unreachable => 4,
            Self::NotAllowed => 5,
            Self::Condition => 6,
            Self::Timeout => 7,
            Self::Interrupted => 8,
            Self::AlreadyRunning => 9,
        }
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::Unreachable => "unreachable",
            Self::NotAllowed => "not_allowed",
            Self::Condition => "condition",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
            Self::AlreadyRunning => "already_running",
        }
    }

    /// The kind behind another process's exit code.
    pub fn from_code(code: Option<i32>) -> Self {
        let same = |kind: &Self| code == Some(i32::from(kind.code()));
        Self::ALL.into_iter().find(same).unwrap_or(Self::Failed)
    }
}

/// A failure as it is told: what happened and why, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its kind.
    #[serde(serialize_with = "kind_name")]
    pub kind: Kind,
    /// What happened and why: a sentence.
    pub message: String,
    /// What to do next: a sentence.
    pub hint: Option<String>,
}

fn kind_name<S: Serializer>(kind: &Kind, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(kind.name())
}

impl Failure {
    /// A failure of some kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: sentence(message.into()), hint: None }
    }

    /// It was tried and failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// It makes no sense as typed.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A file or stream that cannot be read or written.
    pub fn io(what: impl std::fmt::Display, error: &io::Error) -> Self {
        Self::failed(format!("{what}: {error}"))
    }

    /// Whoever read our standard output has gone. That is nobody's fault: it ends the run quietly.
    pub fn reader_gone() -> Self {
        Self { kind: Kind::Interrupted, message: String::new(), hint: None }
    }

    /// Whether this is [`Failure::reader_gone`].
    pub fn is_silent(&self) -> bool {
        self.message.is_empty()
    }

    /// A failed request to the running peer of `data_dir`.
    pub fn client(error: ClientError, data_dir: &Path) -> Self {
        match error {
            ClientError::NotRunning => Self::no_peer(data_dir),
            ClientError::Broken(why) => Self::new(
                Kind::Unreachable,
                format!("the running peer did not answer: {why}"),
            )
            .hint(format!(
                "See whether it still runs: swarmkv status. Started with --detach, its last \
                         words are in {}",
                data_dir.join("up.log").display()
            )),
            ClientError::Refused(error) => Self::from(error),
        }
    }

    /// Nobody runs on `data_dir`; what to do depends on whether there is a swarm.
    pub fn no_peer(data_dir: &Path) -> Self {
        let failure = Self::new(Kind::Unreachable, "No peer is running for this data directory.");
        match swarmkv_node::belongs_to(data_dir) {
            Some(_) => failure.hint("Start one with: swarmkv up"),
            None => failure.hint(format!("There is no swarm here yet. {NO_SWARM_HINT}")),
        }
    }

    /// The running peer gave no answer within the time allowed.
    pub fn no_answer(limit: std::time::Duration) -> Self {
        let time = crate::text::duration(limit);
        Self::new(Kind::Timeout, format!("The running peer gave no answer within {time}."))
            .hint("Wait longer with: --timeout 1m")
    }
}

const NO_SWARM_HINT: &str = "Make one with: swarmkv init, or join one with: swarmkv join TICKET";

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let kind = match error.kind {
            ErrorKind::Invalid => Kind::Usage,
            ErrorKind::NotAllowed => Kind::NotAllowed,
            ErrorKind::NotFound => Kind::NotFound,
            ErrorKind::Condition => Kind::Condition,
            ErrorKind::CatchingUp | ErrorKind::Timeout => Kind::Timeout,
            ErrorKind::Busy | ErrorKind::Full | ErrorKind::Failed => Kind::Failed,
        };
        let hint = error.hint.or_else(|| default_hint(error.kind).map(str::to_owned)).map(sentence);
        Self { hint, ..Self::new(kind, error.message) }
    }
}

fn default_hint(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::CatchingUp => {
            Some("See how far it is: swarmkv status. Wait longer with: --timeout 1m")
        }
        ErrorKind::Timeout => Some("Wait longer with: --timeout 1m"),
        ErrorKind::Condition => Some("See what the key holds: swarmkv get --siblings KEY"),
        ErrorKind::Busy => Some("Try again."),
        ErrorKind::NotAllowed => Some("See this device's role: swarmkv status"),
        ErrorKind::Full | ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Failed => None,
    }
}

impl From<DirError> for Failure {
    fn from(error: DirError) -> Self {
        let message = error.to_string();
        match error {
            DirError::Locked { .. } => Self::new(Kind::AlreadyRunning, message)
                .hint("See how it is with: swarmkv status, or stop that process first."),
            DirError::NoSwarm(_) => Self::failed(message).hint(NO_SWARM_HINT),
            DirError::HasSwarm { .. } => Self::failed(message).hint(
                "Start its peer with: swarmkv up, or choose another place with: --data-dir DIR",
            ),
            DirError::Key { path, .. } => Self::failed(message)
                .hint(format!("The key must be this user's alone: chmod 600 {}", path.display())),
            DirError::Store(_) => Self::failed(message)
                .hint("See whether the disk is full or damaged, then try again."),
            DirError::Io { .. } => Self::failed(message)
                .hint("Check the directory's rights, or choose another with: --data-dir DIR"),
        }
    }
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        match error {
            InitError::Dir(error) => error.into(),
            InitError::Name(_) => {
                Self::usage(error.to_string()).hint("Choose others with: --name NAME --label LABEL")
            }
        }
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        const ASK: &str = "Ask for a new one, made with: swarmkv invite";
        let message = error.to_string();
        match error {
            JoinError::Dir(error) => error.into(),
            JoinError::Ticket(_) => {
                Self::usage(message).hint("Copy the whole line that `swarmkv invite` printed.")
            }
            JoinError::Unconfirmed { .. } => Self::new(Kind::Timeout, message)
                .hint("Ask there for them to be confirmed, then join again with the same ticket."),
            JoinError::Declined => Self::new(Kind::NotAllowed, message).hint(ASK),
            JoinError::Revoked => Self::new(Kind::NotAllowed, message).hint(
                "A new key can join. Move this data directory away, or choose another with: \
                 --data-dir DIR",
            ),
            JoinError::Expired | JoinError::Used { .. } | JoinError::Unknown => {
                Self::new(Kind::NotAllowed, message).hint(ASK)
            }
            JoinError::Unreachable(_) => Self::new(Kind::Unreachable, message).hint(
                "The inviting device must be up (swarmkv up) and on a network that this one \
                 reaches.",
            ),
            JoinError::Answer(_) => {
                Self::failed(message).hint("Compare the versions on both sides: swarmkv --version")
            }
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Dir(error) => error.into(),
            StartError::HasData => Self::failed(error.to_string()).hint(
                "Start it without --memory, or join anew in another directory with: --data-dir DIR",
            ),
            StartError::Network(_) => Self::failed(error.to_string())
                .hint("An address looks like /ip4/0.0.0.0/tcp/4001, and its port must be free."),
        }
    }
}

impl From<clap::Error> for Failure {
    /// What clap says, in our form: its first paragraph is the message, its tips are the hint.
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        let said = text.strip_prefix("error: ").unwrap_or(&text);
        let said = said.split("\n\nUsage:").next().unwrap_or(said);
        let said = said.split("\n\nFor more information").next().unwrap_or(said);
        let (tips, words): (Vec<&str>, Vec<&str>) = said
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .partition(|line| line.starts_with("tip: "));
        let tips: Vec<&str> = tips.iter().map(|tip| tip.trim_start_matches("tip: ")).collect();
        let hint = match tips.as_slice() {
            [] => format!("See: swarmkv{} --help", command_in(&text)),
            tips => sentence(tips.join("; ")),
        };
        Self { kind: Kind::Usage, message: sentence(words.join(" ")), hint: Some(hint) }
    }
}

/// The command that clap's usage line names, with a space before it.
fn command_in(text: &str) -> String {
    let usage = text.split("Usage: swarmkv ").nth(1).unwrap_or_default();
    let word = usage.split_whitespace().next().unwrap_or_default();
    let named = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
    if named { format!(" {word}") } else { String::new() }
}

/// Turns a library's lower-case fragment into a sentence.
fn sentence(text: String) -> String {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return text };
    let word_end = text.find(' ').unwrap_or(text.len());
    let plain = text[..word_end].chars().all(|c| c.is_ascii_lowercase() || "':".contains(c));
    let mut out = if plain { first.to_uppercase().chain(chars).collect() } else { text };
    if !out.ends_with(['.', '!', '?', ')', '"']) {
        out.push('.');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_code_and_name() {
        for (i, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.code()), i + 1);
            assert_eq!(Kind::from_code(Some(i32::from(kind.code()))), kind);
            assert_eq!(Kind::ALL.iter().filter(|k| k.name() == kind.name()).count(), 1);
        }
        assert_eq!(Kind::from_code(None), Kind::Failed);
    }

    #[test]
    fn fragments_become_sentences_and_paths_stay() {
        assert_eq!(sentence("the ticket has expired".into()), "The ticket has expired.");
        assert_eq!(sentence("/a/b: no".into()), "/a/b: no.");
        assert_eq!(sentence("Done.".into()), "Done.");
    }
}
