//! Signatures and hashes with domain separation. Nothing else in the project calls the curve library.
//!
//! Always `verify_strict`, never batch verification: crafted signatures pass in one batch and fail in
//! another, which would split a swarm.

use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::codec::{Bytes, tuple_codec};
use crate::id::{DeviceId, Hash};
use crate::meter::{self, Work};

/// What a hash or signature is for. Bytes signed for one purpose never verify for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A commit's header.
    Commit,
    /// The hash that chains and names signed headers.
    Header,
    /// The operations of a commit.
    Ops,
    /// What an operation says: body, context, what it took, expiry.
    Content,
    /// A cell's index key.
    Key,
    /// A slot: its name and its element of the live root.
    Slot,
    /// The live root.
    Root,
    /// A genesis.
    Genesis,
    /// A roster statement.
    Statement,
    /// The hash that names a signed statement.
    StatementName,
    /// A replica's version digest.
    Digest,
    /// A head's hash cut short in a digest.
    DigestEntry,
    /// A slot's name, and a block of such names, where live sets are compared.
    LiveSet,
    /// A roster as a set.
    Roster,
    /// Proof of knowing a ticket's secret.
    Ticket,
    /// Words compared by people when a device joins.
    CheckWords,
}

impl Domain {
    const ALL: [Self; 16] = [
        Self::Commit,
        Self::Header,
        Self::Ops,
        Self::Content,
        Self::Key,
        Self::Slot,
        Self::Root,
        Self::Genesis,
        Self::Statement,
        Self::StatementName,
        Self::Digest,
        Self::DigestEntry,
        Self::LiveSet,
        Self::Roster,
        Self::Ticket,
        Self::CheckWords,
    ];

    const fn tag(self) -> &'static str {
        match self {
            Self::Commit => "swarmkv 1 commit",
            Self::Header => "swarmkv 1 header",
            Self::Ops => "swarmkv 1 ops",
            Self::Content => "swarmkv 1 content",
            Self::Key => "swarmkv 1 key",
            Self::Slot => "swarmkv 1 slot",
            Self::Root => "swarmkv 1 live root",
            Self::Genesis => "swarmkv 1 genesis",
            Self::Statement => "swarmkv 1 statement",
            Self::StatementName => "swarmkv 1 statement name",
            Self::Digest => "swarmkv 1 digest",
            Self::DigestEntry => "swarmkv 1 digest entry",
            Self::LiveSet => "swarmkv 1 live set",
            Self::Roster => "swarmkv 1 roster",
            Self::Ticket => "swarmkv 1 ticket",
            Self::CheckWords => "swarmkv 1 check words",
        }
    }
}

/// The context keys of all domains, in their order: a slot is hashed five times, and each would begin by
/// hashing its tag.
static CONTEXT_KEYS: LazyLock<[ContextKey; Domain::ALL.len()]> =
    LazyLock::new(|| Domain::ALL.map(|domain| hash_derive_key_context(domain.tag())));

/// A hasher for one purpose: BLAKE3's key derivation with the domain's tag as context.
pub(crate) fn hasher(domain: Domain) -> blake3::Hasher {
    meter::count(Work::Hashes, 1);
    blake3::Hasher::new_from_context_key(&CONTEXT_KEYS[domain as usize])
}

/// Hashes `parts` one after another for one purpose. The caller keeps the boundaries unambiguous.
#[must_use]
pub fn hash(domain: Domain, parts: &[&[u8]]) -> Hash {
    let mut h = hasher(domain);
    for part in parts {
        meter::count(Work::HashedBytes, part.len());
        h.update(part);
    }
    Hash::new(*h.finalize().as_bytes())
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sig([u8; 64]);

impl Sig {
    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl std::fmt::Debug for Sig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sig")
    }
}

impl Serialize for Sig {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Sig {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        crate::codec::fixed_bytes(d).map(Self)
    }
}

/// Signed bytes: the one envelope of geneses, statements and headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) body: Bytes,
    pub(crate) sig: Sig,
}
tuple_codec!(Sealed { body, sig });

/// A device's secret key. Wiped from memory when dropped; never printed.
pub struct DeviceKey(SigningKey);

impl DeviceKey {
    /// The key that grows from a 32-byte secret.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The secret itself, for the key file and for the transport's identity.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        DeviceId::new(self.0.verifying_key().to_bytes())
    }

    /// Signs `bytes` for one purpose.
    #[must_use]
    pub fn sign(&self, domain: Domain, bytes: &[u8]) -> Sig {
        Sig(self.0.sign(hash(domain, &[bytes]).as_bytes()).to_bytes())
    }
}

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceKey({})", self.id().short())
    }
}

/// A public key in its one canonical encoding, not of small order.
#[derive(Clone, Debug)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Checks a device id; `None` for what is no usable key.
    #[must_use]
    pub fn new(id: &DeviceId) -> Option<Self> {
        let key = VerifyingKey::from_bytes(id.as_bytes()).ok()?;
        // A point has other encodings than the canonical one: one key must not be two devices.
        let canonical = key.to_edwards().compress().as_bytes() == id.as_bytes();
        (canonical && !key.is_weak()).then_some(Self(key))
    }

    /// Whether `sig` is this key's signature of `bytes` for this purpose.
    #[must_use]
    pub fn verifies(&self, domain: Domain, bytes: &[u8], sig: &Sig) -> bool {
        let message = hash(domain, &[bytes]);
        self.0.verify_strict(message.as_bytes(), &Signature::from_bytes(&sig.0)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_purpose_and_bytes_only() {
        let key = DeviceKey::from_seed(&[7; 32]);
        let public = PublicKey::new(&key.id()).expect("a real key");
        let sig = key.sign(Domain::Commit, b"bytes");
        assert!(public.verifies(Domain::Commit, b"bytes", &sig));
        assert!(!public.verifies(Domain::Statement, b"bytes", &sig));
        assert!(!public.verifies(Domain::Commit, b"byte5", &sig));
    }

    #[test]
    fn small_order_and_malformed_keys_are_no_keys() {
        for bad in [[0u8; 32], [1; 32].map(|_| 0xff), {
            let mut one = [0; 32];
            one[0] = 1;
            one
        }] {
            assert!(PublicKey::new(&DeviceId::new(bad)).is_none());
        }
    }

    #[test]
    fn a_malleated_signature_fails() {
        // Adding the group order to `s` gives a second encoding of the same scalar.
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
            0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let key = DeviceKey::from_seed(&[9; 32]);
        let public = PublicKey::new(&key.id()).expect("a real key");
        let mut sig = key.sign(Domain::Commit, b"x");
        let mut carry = 0u16;
        for (byte, order) in sig.0[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert!(!public.verifies(Domain::Commit, b"x", &sig));
    }
}
