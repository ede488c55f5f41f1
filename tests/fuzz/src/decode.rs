//! Decoding: whatever is accepted encodes to the very bytes it came from.

use swarmkv_protocol::codec;
use swarmkv_protocol::commit::{SignedCommit, SignedHeader, VerifiedHeader};
use swarmkv_protocol::id::{LogId, SwarmId, Version};
use swarmkv_protocol::message::{self, Gossip, Repair};
use swarmkv_protocol::op::Op;
use swarmkv_protocol::roster::Roster;
use swarmkv_protocol::ticket::{JoinAnswer, JoinRequest, Ticket};

/// The first byte names what the rest is taken for.
pub fn decode(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 9 {
        0 => {
            if let Ok(message) = message::decode::<Gossip>(bytes) {
                assert_eq!(message::encode(&message), bytes);
            }
        }
        1 => {
            if let Ok(message) = message::decode::<Repair>(bytes) {
                assert_eq!(message::encode(&message), bytes);
            }
        }
        2 => {
            let log = LogId::from_bytes(&[7; LogId::LEN]);
            if let Ok(op) = Op::decode(&log, bytes) {
                assert_eq!(codec::encode(&op), bytes);
            }
        }
        3 => {
            if let Ok(header) = SignedHeader::decode(bytes) {
                let claim = header.claim();
                assert!(claim.first_seq() >= 1 && claim.first_seq() <= claim.last_seq);
            }
            let _ = VerifiedHeader::from_store(bytes);
        }
        4 => {
            if let Ok(commit) = SignedCommit::decode(bytes, SwarmId::new([7; 32])) {
                assert!(commit.claim().count > 0);
            }
        }
        5 => drop(Roster::open(bytes)),
        6 => {
            let (roster, _) = crate::bed::Bed::fresh().parts();
            let mut roster = roster;
            let before = roster.hash();
            let (fresh, _) = roster.insert(&[bytes.into()]);
            assert!(fresh.is_empty() && roster.hash() == before, "nobody signed that");
        }
        7 => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                if let Ok(ticket) = Ticket::parse(text) {
                    assert_eq!(Ticket::parse(&ticket.to_text()).as_ref(), Ok(&ticket));
                }
                if let Ok(version) = text.parse::<Version>() {
                    assert_eq!(version.to_string().parse::<Version>(), Ok(version));
                }
            }
        }
        _ => {
            if let Ok(request) = message::decode::<JoinRequest>(bytes) {
                assert_eq!(message::encode(&request), bytes);
            }
            if let Ok(answer) = message::decode::<JoinAnswer>(bytes) {
                assert_eq!(message::encode(&answer), bytes);
            }
        }
    }
}
