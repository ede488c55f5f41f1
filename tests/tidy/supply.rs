//! What is built in: from where, and not older than is safe. Advisories as such cannot be looked up without a
//! database; the CI script says what it could not check.

use std::fs;
use std::path::Path;

/// Packages with published advisories below a version, and what those were.
const FLOORS: &[(&str, [u64; 3], &str)] = &[
    ("libp2p-gossipsub", [0, 50, 1], "panics and floods that a peer can cause"),
    ("yamux", [0, 13, 10], "a panic that a peer can cause"),
    ("libp2p-quic", [0, 13, 1], "a panic that a peer can cause"),
    ("quinn-proto", [0, 11, 15], "a panic that a peer can cause"),
    ("ed25519-dalek", [2, 0, 0], "signing with somebody else's public key"),
    ("curve25519-dalek", [4, 1, 3], "timing that depends on secrets"),
    ("snow", [0, 9, 5], "a nonce that a peer can move"),
    ("hickory-proto", [0, 25, 0], "DNSSEC proofs that prove nothing"),
    ("ring", [0, 17, 12], "a panic on long inputs"),
    ("rustls", [0, 23, 18], "a loop that a peer can cause"),
    ("tokio", [1, 44, 2], "an unsound broadcast channel"),
    ("crossbeam-channel", [0, 5, 15], "a double free"),
    ("idna", [1, 0, 0], "names that compare equal and are not"),
    ("hyper", [1, 0, 0], "floods of resets"),
];

struct Package {
    name: String,
    version: [u64; 3],
    source: Option<String>,
    checksum: bool,
}

fn packages() -> Vec<Package> {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let lock = fs::read_to_string(lock).expect("the lock file is in the repository");
    let field = |block: &str, name: &str| {
        let lead = format!("{name} = \"");
        let line = block.lines().find_map(|line| line.strip_prefix(&lead)?.strip_suffix('"'));
        line.map(str::to_owned)
    };
    let number = |text: &str| text.parse().unwrap_or(0);
    let package = |block: &str| {
        let version = field(block, "version")?;
        let plain = version.split(['-', '+']).next()?.to_owned();
        let mut parts = plain.split('.').map(number);
        Some(Package {
            name: field(block, "name")?,
            version: std::array::from_fn(|_| parts.next().unwrap_or(0)),
            source: field(block, "source"),
            checksum: field(block, "checksum").is_some(),
        })
    };
    lock.split("[[package]]").skip(1).filter_map(package).collect()
}

#[test]
fn nothing_older_than_is_safe_is_built_in() {
    let packages = packages();
    for (name, floor, why) in FLOORS {
        for package in packages.iter().filter(|package| package.name == *name) {
            assert!(
                package.version >= *floor,
                "{name} {:?} is below {floor:?}: {why}",
                package.version
            );
        }
    }
    // The floors that matter most are really there.
    for name in ["libp2p-gossipsub", "yamux", "libp2p-quic", "quinn-proto", "ed25519-dalek"] {
        assert!(packages.iter().any(|package| package.name == name), "{name} is not built in");
    }
}

#[test]
fn whatever_is_not_ours_comes_from_the_registry_with_a_checksum() {
    for package in packages() {
        match &package.source {
            None => {
                assert!(package.name.starts_with("swarmkv"), "{} comes from a path", package.name)
            }
            Some(source) => {
                assert!(source.starts_with("registry+"), "{} comes from {source}", package.name);
                assert!(package.checksum, "{} has no checksum", package.name);
            }
        }
    }
}
