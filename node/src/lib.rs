//! The library people embed: libp2p networking, durable storage and one driver loop around the
//! pure core.

pub mod network;
