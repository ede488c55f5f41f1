//! Fuzz targets: each takes any bytes and panics when something that must hold does not.

mod bed;
mod decode;
mod script;

pub use decode::decode;

/// A hostile member on the other end of repair sessions: well-formed frames with real log ids and
/// genuine headers, frames of noise, in any order.
pub fn session(data: &[u8]) {
    script::run(data, script::Mix::Session);
}

/// Any sequence of inputs to an engine.
pub fn engine(data: &[u8]) {
    script::run(data, script::Mix::Everything);
}

/// Genuine gossip messages and repair frames, to start from.
pub fn genuine() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let bed = bed::Bed::fresh();
    (bed.gossip, bed.frames)
}
