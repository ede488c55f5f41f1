//! Any order and any repetition of the same commits gives the same state and the same view.

use proptest::prelude::*;
use swarmkv_protocol::id::{BranchId, Version};
use swarmkv_protocol::io::Change;
use swarmkv_protocol::store::Store as _;
use swarmkv_protocol::view::View;

use crate::swarm;
use crate::swarm::{Swarm, delete, put};

fn view(swarm: &Swarm, n: usize, key: &str) -> Vec<(Version, bool)> {
    let heads = swarm.nodes[n].engine.heads();
    let slots = swarm.nodes[n].disk.slots(&swarm::cell(key)).expect("memory does not fail");
    let head = |branch: &BranchId| heads.of(branch);
    let view = View::merge(&slots, head).expect("slots are sound");
    view.siblings().map(|seen| (seen.version, seen.dominated)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_order_of_the_same_commits_gives_one_state(
        writes in prop::collection::vec((0..3usize, 0..3u8, any::<bool>(), 0..4u8), 1..14),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let mut swarm = Swarm::new(5);
        let mut messages: Vec<(usize, Vec<u8>)> = Vec::new();
        for (i, (author, key, deletes, hears)) in writes.into_iter().enumerate() {
            let key = format!("k{key}");
            let change = if deletes {
                delete(&key)
            } else {
                put(&key, &format!("value {i}"))
            };
            swarm.write(author, vec![change, put("all", &i.to_string())]);
            let message = swarm.nodes[author].published.last().expect("just written").clone();
            // Some other author hears of it at once: its next write names what it saw.
            if usize::from(hears) < 3 && usize::from(hears) != author {
                swarm.hand_gossip(usize::from(hears), author, message.clone());
            }
            messages.push((author, message));
        }
        // Node 3 hears everything in order; node 4 in any order, some several times, then all.
        for (author, message) in &messages {
            swarm.hand_gossip(3, *author, message.clone());
        }
        for index in order {
            let (author, message) = &messages[index.index(messages.len())];
            swarm.hand_gossip(4, *author, message.clone());
        }
        for (author, message) in messages.iter().rev() {
            swarm.hand_gossip(4, *author, message.clone());
        }
        swarm.pass(10);
        prop_assert_eq!(swarm.hash(3), swarm.hash(4));
        for key in ["k0", "k1", "k2", "all"] {
            prop_assert_eq!(view(&swarm, 3, key), view(&swarm, 4, key));
        }
        prop_assert!(!swarm.damned());
    }

    #[test]
    fn what_is_shown_at_once_is_what_the_merged_view_shows(
        writes in prop::collection::vec((0..2usize, 0..4u8), 1..4),
        head in prop::sample::select(vec![0, 1, u64::MAX]),
        wall in 0..3u64,
    ) {
        let mut swarm = Swarm::new(3);
        for (author, kind) in writes {
            let change = match kind {
                0 => delete("k"),
                1 => Change::add(b"k".as_slice(), 3),
                _ => put("k", &kind.to_string()),
            };
            let expires_at = (kind == 3).then_some(1);
            swarm.write(author, vec![Change { expires_at, ..change }]);
            let message = swarm.nodes[author].published.last().expect("just written").clone();
            swarm.hand_gossip(2, author, message);
        }
        let slots = swarm.nodes[2].disk.slots(&swarm::cell("k")).expect("memory");
        let merged = View::merge(&slots, |_| head).expect("sound").shown(wall);
        prop_assert_eq!(View::shown_of(&slots, |_| head, wall).expect("sound"), merged);
    }

    #[test]
    fn the_order_of_logs_in_storage_does_not_matter(
        writes in prop::collection::vec((0..3usize, any::<bool>()), 1..10),
    ) {
        let mut swarm = Swarm::new(4);
        for (author, share) in writes {
            swarm.put(author, "k", "v");
            let message = swarm.nodes[author].published.last().expect("just written").clone();
            for to in 0..4 {
                if to != author && (share || to == 3) {
                    swarm.hand_gossip(to, author, message.clone());
                }
            }
        }
        let slots = swarm.nodes[3].disk.slots(&swarm::cell("k")).expect("memory");
        let mut turned = slots.clone();
        turned.sort_by_key(|slot| std::cmp::Reverse(slot.branch));
        let names = |slots: &[_]| {
            let view = View::merge(slots, |_| u64::MAX).expect("sound");
            view.siblings().map(|seen| seen.version).collect::<Vec<_>>()
        };
        prop_assert_eq!(names(&slots), names(&turned));
    }
}
