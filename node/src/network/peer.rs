//! Device ids as libp2p peer ids and back, and what makes an address usable.

use std::net::{IpAddr, TcpListener, UdpSocket};

use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId};
use swarmkv_protocol::id::{DeviceId, SwarmId};

use super::event::Transport;

/// Identity multihash of 36 bytes; protobuf: key type Ed25519, key of 32 bytes.
const ED25519_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// A device's libp2p peer id as text, for showing and for `/p2p/` suffixes.
#[must_use]
pub fn peer_id_text(device: &DeviceId) -> String {
    to_peer_id(device).to_base58()
}

/// The peer id of a device. Total: also bytes that are no curve point have one; nobody can prove it.
pub(super) fn to_peer_id(device: &DeviceId) -> PeerId {
    let mut bytes = [0; 38];
    bytes[..6].copy_from_slice(&ED25519_PREFIX);
    bytes[6..].copy_from_slice(device.as_bytes());
    PeerId::from_bytes(&bytes).expect("an identity multihash of 36 bytes is a peer id")
}

/// The device of a peer id; `None` if its key is not Ed25519.
pub(super) fn to_device(peer: &PeerId) -> Option<DeviceId> {
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&ED25519_PREFIX)?;
    Some(DeviceId::new(key.try_into().ok()?))
}

/// The first 16 hexadecimal digits of a swarm id: the part of protocol names that keeps swarms
/// apart.
pub(super) fn swarm_tag(swarm: &SwarmId) -> String {
    swarm.as_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads an address of ours to be, with the peer its `/p2p/` suffix names.
///
/// `None` unless it is IP, then TCP or QUIC, then at most `/p2p/`.
pub(super) fn parse_addr(text: &str) -> Option<(Multiaddr, Option<DeviceId>)> {
    let mut addr: Multiaddr = text.parse().ok()?;
    let peer = match addr.iter().last()? {
        Protocol::P2p(peer) => {
            addr.pop();
            Some(to_device(&peer)?)
        }
        _ => None,
    };
    transport_of(&addr)?;
    Some((addr, peer))
}

/// Whether an address can be listened on. The transport shares its port with whoever else would share
/// it; two peers on one port would each get half of the connections.
pub(super) fn check_free(addr: &Multiaddr) -> std::io::Result<()> {
    let mut parts = addr.iter();
    let ip: IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) => TcpListener::bind((ip, port)).map(drop),
        Some(Protocol::Udp(port)) => UdpSocket::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}

/// The last cause of an error: what the system said, without what every layer put around it.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Why nobody could be reached, for people: each address with what the system said of it.
pub(super) fn dial_reason(error: &DialError) -> String {
    let DialError::Transport(failures) = error else {
        return innermost(error);
    };
    let mut reasons = Vec::new();
    for (addr, failure) in failures {
        let reason = innermost(failure);
        let reason = reason.split(" (os error").next().unwrap_or(&reason);
        reasons.push(format!("{}: {reason}", bare(addr)));
    }
    reasons.join("; ")
}

/// Drops a `/p2p/` suffix.
pub(super) fn bare(addr: &Multiaddr) -> Multiaddr {
    addr.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

/// The transport of an address; `None` if it is not exactly IP and TCP or QUIC.
pub(super) fn transport_of(addr: &Multiaddr) -> Option<Transport> {
    let mut parts = addr.iter();
    if !matches!(parts.next()?, Protocol::Ip4(_) | Protocol::Ip6(_)) {
        return None;
    }
    match (parts.next()?, parts.next(), parts.next()) {
        (Protocol::Tcp(_), None, None) => Some(Transport::Tcp),
        (Protocol::Udp(_), Some(Protocol::QuicV1), None) => Some(Transport::Quic),
        _ => None,
    }
}

/// The IP address at the head of an address.
pub(super) fn ip_of(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    }
}

/// Whether an address that a peer reports is worth a dial: a unicast IP with a port, and loopback
/// only if we reach that peer by loopback too.
pub(super) fn dialable(addr: &Multiaddr, loopback: bool) -> bool {
    let (Some(ip), Some(_)) = (ip_of(addr), transport_of(addr)) else { return false };
    let port = addr.iter().find_map(|part| match part {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    });
    let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    port.is_some_and(|port| port != 0)
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !link_local
        && (loopback || !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_id_survives_the_way_to_a_peer_id_and_back() {
        let key = libp2p::identity::Keypair::ed25519_from_bytes([7; 32]).unwrap();
        let public = key.public().try_into_ed25519().unwrap().to_bytes();
        let device = DeviceId::new(public);
        assert_eq!(to_peer_id(&device), key.public().to_peer_id());
        assert_eq!(to_device(&key.public().to_peer_id()), Some(device));
        assert_eq!(to_device(&PeerId::random()), None);
    }

    #[test]
    fn only_ip_addresses_with_tcp_or_quic_are_read() {
        let peer = peer_id_text(&DeviceId::new([3; 32]));
        let (addr, found) = parse_addr(&format!("/ip4/10.0.0.1/tcp/9/p2p/{peer}")).unwrap();
        assert_eq!(
            (addr.to_string().as_str(), found),
            ("/ip4/10.0.0.1/tcp/9", Some(DeviceId::new([3; 32])))
        );
        assert!(parse_addr("/ip6/::1/udp/9/quic-v1").is_some());
        for bad in
            ["", "/ip4/10.0.0.1", "/ip4/10.0.0.1/udp/9", "/dns4/x/tcp/9", "/ip4/1.2.3.4/tcp/9/ws"]
        {
            assert!(parse_addr(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn reported_addresses_that_cannot_work_are_not_dialled() {
        let ok = |text: &str, loopback| dialable(&text.parse().unwrap(), loopback);
        assert!(ok("/ip4/10.0.0.1/tcp/9", false));
        assert!(ok("/ip4/127.0.0.1/tcp/9", true));
        for bad in [
            "/ip4/127.0.0.1/tcp/9",
            "/ip4/0.0.0.0/tcp/9",
            "/ip4/10.0.0.1/tcp/0",
            "/ip4/224.0.0.1/udp/9/quic-v1",
            "/ip6/fe80::1/tcp/9",
        ] {
            assert!(!ok(bad, false), "{bad}");
        }
    }
}
