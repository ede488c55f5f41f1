//! What a peer tells whoever runs it, as it happens.

use swarmkv_protocol::id::DeviceId;

/// Something worth showing to a person. Missing one loses nothing: `status` has the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    /// This peer can be reached here.
    Listening {
        /// A multiaddress.
        addr: String,
    },
    /// A member is connected.
    Connected {
        /// Its label.
        device: String,
        /// Its id.
        device_id: DeviceId,
        /// How it was found: `mdns`, `kad` or `direct`.
        source: &'static str,
        /// What carries the connection: `tcp` or `quic`.
        transport: &'static str,
        /// Where it is.
        addr: String,
    },
    /// A member is no longer connected.
    Disconnected {
        /// Its label.
        device: String,
    },
    /// A device waits for a person to compare its check words.
    Knocked {
        /// Its label.
        device: String,
        /// The words that it shows.
        check_words: String,
    },
    /// A device was admitted on a ticket made here.
    Admitted {
        /// Its label.
        device: String,
        /// The words that it shows, too.
        check_words: String,
    },
    /// A member was taken out, or left.
    Removed {
        /// Its label.
        device: String,
        /// Label of whoever took it out; `None`: it left.
        by: Option<String>,
    },
    /// This device was taken out, or left. Its copy stays readable.
    Expelled {
        /// Label of whoever took it out; `None`: it left.
        by: Option<String>,
    },
    /// A new replica's first catch-up goes on.
    CatchingUp {
        /// Label of the member pulled from.
        from: String,
        /// Slots received.
        received: u64,
        /// Slots that will come in all, about.
        planned: u64,
    },
    /// This replica is whole for the first time.
    CaughtUp,
    /// A member handed on what nobody honest would, again and again: it is not talked to for an hour.
    Blocked {
        /// Its label.
        device: String,
        /// What it did last.
        reason: String,
    },
    /// A stranger was turned away.
    StrangerRefused {
        /// What it wanted.
        what: String,
    },
    /// The disk is full: nothing can be written until there is room; reads go on. Or there is room again.
    Full {
        /// Whether it is.
        full: bool,
    },
    /// Something needs a person's attention.
    Trouble {
        /// What happened and what to do.
        message: String,
    },
}
