//! Listening on the same ports again after a restart, so that tickets and remembered addresses stay
//! good.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

/// Where a listen address leaves the port to the system: the address's start and end around it.
const FREE: [(&str, &str, &str); 2] =
    [("tcp-port", "/tcp/", ""), ("quic-port", "/udp/", "/quic-v1")];

/// The name under which the port of a listening address is kept, and the port.
pub(crate) fn of(addr: &str) -> Option<(&'static str, u16)> {
    FREE.iter().find_map(|(name, before, after)| {
        let (_, rest) = addr.strip_suffix(after)?.split_once(before)?;
        Some((*name, rest.parse().ok()?))
    })
}

/// A listen address with a free choice of port becomes one with the port of last time, if that port is
/// known and still free.
pub(crate) fn again(addr: &str, last: impl Fn(&'static str) -> Option<u16>) -> String {
    let chosen = FREE.iter().find_map(|(name, before, after)| {
        let host = addr.strip_suffix(after)?.strip_suffix(&format!("{before}0"))?;
        let port = last(name)?;
        let ip: IpAddr = host.rsplit('/').next()?.parse().ok()?;
        is_free(SocketAddr::new(ip, port), *name == "tcp-port")
            .then(|| format!("{host}{before}{port}{after}"))
    });
    chosen.unwrap_or_else(|| addr.to_owned())
}

fn is_free(addr: SocketAddr, tcp: bool) -> bool {
    if tcp { TcpListener::bind(addr).is_ok() } else { UdpSocket::bind(addr).is_ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_last_time_is_taken_again_if_it_is_free() {
        let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = busy.local_addr().expect("bound").port();
        let addr = "/ip4/127.0.0.1/tcp/0";
        assert_eq!(again(addr, |_| Some(port)), addr);
        drop(busy);
        assert_eq!(again(addr, |_| Some(port)), format!("/ip4/127.0.0.1/tcp/{port}"));
        assert_eq!(again(addr, |_| None), addr);
        let fixed = "/ip4/127.0.0.1/tcp/4001";
        assert_eq!(again(fixed, |_| Some(port)), fixed);
    }

    #[test]
    fn ports_are_read_from_listening_addresses() {
        assert_eq!(of("/ip4/10.0.0.1/tcp/4001"), Some(("tcp-port", 4001)));
        assert_eq!(of("/ip4/10.0.0.1/udp/4001/quic-v1"), Some(("quic-port", 4001)));
        assert_eq!(of("/ip4/10.0.0.1/udp/4001"), None);
    }
}
