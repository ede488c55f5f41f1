//! `swarmkv init`: this device's key and a new swarm.

use serde_json::json;

use crate::args::Init;
use crate::error::Failure;
use crate::output::Output;
use crate::settings::{Settings, label};

/// Makes them.
pub fn run(args: Init, settings: &Settings, out: Output) -> Result<(), Failure> {
    let label = label(args.label);
    let made = swarmkv_node::init(settings.data_dir(), &args.name, &label)?;
    if out.is_json() {
        return out.json(&json!({
            "swarm": made.swarm,
            "swarm_id": made.swarm_id.to_string(),
            "device": made.label,
            "device_id": made.device_id.to_string(),
            "data_dir": settings.data_dir().to_string_lossy(),
        }));
    }
    out.talk(format!("Made the swarm \"{}\" ({}).", made.swarm, made.swarm_id.short()));
    out.talk(format!("This device is \"{}\" ({}), its owner.", made.label, made.device_id.short()));
    out.talk(format!("Its key and data are in {}.", settings.data_dir().display()));
    out.talk("Next: swarmkv up, then swarmkv invite to admit another device.");
    Ok(())
}
