//! Gossipsub: its configuration and how peers are scored.
//!
//! The numbers are for swarms of 2 to 50 members: one bad message an hour costs nothing, one a second
//! graylists within seconds, quiet and slow honest peers are never punished.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, IdentTopic, IdentityTransform, Message, MessageAuthenticity,
    MessageId, PeerScoreParams, PeerScoreThresholds, TopicHash, TopicScoreParams, ValidationMode,
    WhitelistSubscriptionFilter, score_parameter_decay,
};
use swarmkv_protocol::id::{DeviceId, SwarmId};

use super::config::NetworkError;
use super::limits;
use super::peer;

/// Gossip scores of connected members: below 0 is out of favour, below the thresholds shut out.
pub type Scores = BTreeMap<DeviceId, f64>;

/// Gossipsub as used here: only the swarm's own topic may be subscribed to.
pub(super) type Gossip = Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// Gossip's protocol, under the swarm's prefix and without its version.
pub(super) const MESHSUB: &str = "meshsub";

/// The swarm's one topic. Its name goes out with every message, so it is short; the protocol's name says
/// which swarm it is.
pub(super) fn topic() -> IdentTopic {
    IdentTopic::new("w")
}

/// Names a message by its whole content, so that no forged copy can burn a genuine one's id.
pub(super) fn message_id(data: &[u8]) -> [u8; 20] {
    let mut id = [0; 20];
    id.copy_from_slice(&blake3::hash(data).as_bytes()[..20]);
    id
}

/// Gossipsub, subscribed and scoring.
pub(super) fn gossipsub(swarm: &SwarmId) -> Result<Gossip, NetworkError> {
    let setup = |what: String| NetworkError::Setup(format!("gossipsub: {what}"));
    let topic = topic();
    let config = config(swarm).build().map_err(|error| setup(error.to_string()))?;
    let mut gossip = Gossip::new_with_subscription_filter(
        MessageAuthenticity::Anonymous,
        config,
        WhitelistSubscriptionFilter(HashSet::from([topic.hash()])),
    )
    .map_err(|error| setup(error.into()))?;
    gossip.with_peer_score(score(topic.hash()), thresholds()).map_err(setup)?;
    gossip.subscribe(&topic).map_err(|error| setup(error.to_string()))?;
    Ok(gossip)
}

fn config(swarm: &SwarmId) -> ConfigBuilder {
    let mut config = ConfigBuilder::default();
    config
        .protocol_id_prefix(format!("/swarmkv/{}/{MESHSUB}", peer::swarm_tag(swarm)))
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message: &Message| MessageId::from(message_id(&message.data).to_vec()))
        .max_transmit_size(limits::GOSSIP_TRANSMIT)
        .max_control_message_size(limits::GOSSIP_TRANSMIT)
        .max_control_messages_sent(2000)
        .history_length(3)
        .history_gossip(2)
        .mesh_n(8)
        .mesh_n_low(6)
        .mesh_n_high(12)
        .mesh_outbound_min(2)
        .flood_publish(true);
    config
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -40.0,
        publish_threshold: -80.0,
        graylist_threshold: -160.0,
        ..PeerScoreThresholds::default()
    }
}

fn score(topic: TopicHash) -> PeerScoreParams {
    let decay = |seconds| score_parameter_decay(Duration::from_secs(seconds));
    let topic_score = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 300.0,
        first_message_deliveries_weight: 0.5,
        first_message_deliveries_decay: decay(60),
        first_message_deliveries_cap: 20.0,
        // Off: repair answers withholding, and a quiet honest peer must not sink.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -20.0,
        invalid_message_deliveries_decay: decay(600),
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: HashMap::from([(topic, topic_score)]),
        topic_score_cap: 0.0,
        app_specific_weight: 0.0,
        // Off: many nodes may stand behind one address.
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: -5.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: decay(60),
        slow_peer_weight: 0.0,
        ..PeerScoreParams::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gossipsub_takes_our_numbers() {
        assert!(gossipsub(&SwarmId::new([9; 32])).is_ok());
    }

    #[test]
    fn three_bad_messages_graylist_and_one_does_not_even_silence() {
        let topic = topic().hash();
        let params = score(topic.clone());
        let bad = |n: f64| params.topics[&topic].invalid_message_deliveries_weight * n * n;
        assert!(bad(1.0) > thresholds().gossip_threshold);
        assert!(bad(3.0) < thresholds().graylist_threshold);
        let hour = params.topics[&topic].invalid_message_deliveries_decay.powi(3600);
        assert!(hour < 0.001);
    }
}
