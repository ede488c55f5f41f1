//! What the test programs share: the real binary, devices that run it, and waiting for what must come.

mod binary;
mod device;
pub mod rogue;
mod small_disk;
mod wait;

pub use binary::{Ran, binary, signal};
pub use device::{Device, LOOPBACK, Sibling, free_port};
pub use small_disk::SmallDisk;
pub use wait::{PATIENCE, connected, equal, until, until_within};
