//! mDNS and Kademlia as they are set up.

use std::time::Duration;

use libp2p::swarm::StreamProtocol;
use libp2p::{PeerId, kad, mdns};

use super::config::NetworkError;
use super::limits;

/// mDNS with an interval and lifetimes that survive a lost packet.
pub(super) fn mdns(me: PeerId) -> Result<mdns::tokio::Behaviour, NetworkError> {
    let config = mdns::Config {
        ttl: limits::MDNS_TTL,
        query_interval: limits::MDNS_QUERY,
        enable_ipv6: false,
    };
    mdns::tokio::Behaviour::new(config, me)
        .map_err(|error| NetworkError::Setup(format!("mdns: {error}")))
}

/// Kademlia that finds peers and stores nothing; only we put peers into its table.
pub(super) fn kademlia(
    me: PeerId,
    protocol: StreamProtocol,
) -> kad::Behaviour<kad::store::MemoryStore> {
    let mut config = kad::Config::new(protocol);
    config
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_query_timeout(Duration::from_secs(20))
        .set_periodic_bootstrap_interval(Some(limits::LOOKUP_QUIET));
    let nothing = kad::store::MemoryStoreConfig {
        max_records: 0,
        max_value_bytes: 0,
        max_providers_per_key: 0,
        max_provided_keys: 0,
    };
    let store = kad::store::MemoryStore::with_config(me, nothing);
    let mut kad = kad::Behaviour::with_config(me, store, config);
    kad.set_mode(Some(kad::Mode::Server));
    kad
}
