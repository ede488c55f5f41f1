//! The local API: what a program on the same machine may ask of a running peer, as HTTP and JSON over
//! a Unix socket that only its user can open.

mod client;
mod server;
mod socket;
pub mod wire;

pub use client::{Client, ClientError};
pub(crate) use server::serve;
pub(crate) use socket::listen;
