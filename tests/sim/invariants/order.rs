//! A log's head never goes back, also not over a restart, as far as readers were shown it.

use crate::node::{Node, heads};

pub fn holds(node: &mut Node) -> Result<(), String> {
    let Some(engine) = node.engine.as_ref() else { return Ok(()) };
    let heads = heads(engine);
    for (log, before) in &node.last_heads {
        let now = heads.get(log).copied().unwrap_or(0);
        if now < *before {
            return Err(format!("order: {log:?} went back from {before} to {now}"));
        }
    }
    node.last_heads = heads;
    Ok(())
}

pub fn holds_over_a_restart(node: &Node) -> Result<(), String> {
    let Some(engine) = node.engine.as_ref() else { return Ok(()) };
    let heads = heads(engine);
    for (log, shown) in &node.shown {
        let now = heads.get(log).copied().unwrap_or(0);
        if now < *shown {
            return Err(format!("order: a restart took {log:?} from {shown} back to {now}"));
        }
    }
    Ok(())
}
