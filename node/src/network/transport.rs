//! Building a swarm: TCP with Noise and Yamux, and QUIC, under the device's identity.

use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Swarm, SwarmBuilder, noise, tcp, yamux};
use zeroize::Zeroizing;

use super::config::NetworkError;
use super::limits;

/// The libp2p key of a device.
pub(super) fn keypair(seed: &Zeroizing<[u8; 32]>) -> Result<Keypair, NetworkError> {
    let mut copy = Zeroizing::new(**seed);
    Keypair::ed25519_from_bytes(copy.as_mut_slice())
        .map_err(|error| NetworkError::Setup(error.to_string()))
}

/// A swarm of one behaviour over our transports.
pub(super) fn swarm<B: NetworkBehaviour>(
    key: Keypair,
    behaviour: B,
) -> Result<Swarm<B>, NetworkError> {
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, multiplexer)
        .map_err(|error| NetworkError::Setup(error.to_string()))?
        .with_quic_config(|mut quic| {
            quic.max_concurrent_stream_limit =
                u32::try_from(limits::STREAMS_PER_CONNECTION).unwrap_or(u32::MAX);
            // Fewer keep-alives than the defaults (5 s and 10 s): an idle member costs less.
            quic.keep_alive_interval = std::time::Duration::from_secs(10);
            quic.max_idle_timeout = 30_000;
            quic
        })
        .with_behaviour(|_| behaviour)
        .map_err(|error| NetworkError::Setup(error.to_string()))?
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(limits::IDLE_CONNECTION)
                .with_max_negotiating_inbound_streams(limits::NEGOTIATING_STREAMS)
        })
        .with_connection_timeout(limits::CONNECT_TIMEOUT)
        .build();
    Ok(swarm)
}

/// Yamux with few streams. Its windows cannot be set through libp2p 0.57: they grow by themselves
/// up to 1 GiB for a connection whose streams we read fast, starting at 256 KiB a stream.
fn multiplexer() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(limits::STREAMS_PER_CONNECTION);
    config
}
