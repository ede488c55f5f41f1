//! Replicas with equal digests show the same merged view of every key.

use std::collections::BTreeMap;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::{Hash, Version};

use crate::world::World;

type Views = BTreeMap<Bytes, Vec<Version>>;

fn views(world: &World, n: usize) -> Views {
    let keys: Vec<Bytes> = world.nodes[n].disk.borrow().visible.keys().cloned().collect();
    let mut views = Views::new();
    for key in keys {
        let view = world.view(n, &key);
        let names: Vec<Version> =
            view.iter().flat_map(|view| view.siblings().map(|seen| seen.version)).collect();
        // A key whose slots are all staged shows nothing.
        if !names.is_empty() {
            views.insert(key, names);
        }
    }
    views
}

pub fn holds(world: &mut World) -> Result<(), String> {
    let mut groups: BTreeMap<Hash, (usize, Views)> = BTreeMap::new();
    let mut states: BTreeMap<Hash, Vec<usize>> = BTreeMap::new();
    for n in 0..world.nodes.len() {
        if !world.honest(n) || world.nodes[n].rotten.is_some() {
            continue;
        }
        // Who lacks a log as it was when it was cut shows what remains here of it, and says that it lacks it.
        let lacks = world.nodes[n].engine.as_ref().is_some_and(super::complete::lacks_a_cut);
        if let Some(engine) = world.nodes[n].engine.as_mut().filter(|_| !lacks) {
            states.entry(engine.state_hash()).or_default().push(n);
        }
    }
    for (state, members) in states.into_iter().filter(|(_, members)| members.len() > 1) {
        for n in members {
            let mine = views(world, n);
            match groups.get(&state) {
                None => {
                    groups.insert(state, (n, mine));
                }
                Some((other, theirs)) if *theirs != mine => {
                    return Err(format!("same: nodes {other} and {n} show different things"));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}
