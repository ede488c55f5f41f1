//! Embed a swarmkv peer: a replica of a serverless key-value store in your own process.
//!
//! [`init`] makes a swarm, [`join`] joins one on a ticket, [`Node::start`] runs the peer of a data
//! directory, and [`Handle`] reads and writes. Everything a peer receives is checked against the
//! swarm's roster before it is passed on, and proven before it is shown; a write is acknowledged when
//! it is on disk.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = std::path::Path::new("data");
//! swarmkv_node::init(dir, "home", "laptop")?;
//! let node = swarmkv_node::Node::start(swarmkv_node::Config::new(dir)).await?;
//! let version = node.handle().put(b"greeting", b"hello").await?;
//! println!("written as {version}");
//! assert_eq!(node.handle().get(b"greeting")?, Some(b"hello".to_vec()));
//! node.stop().await;
//! # Ok(())
//! # }
//! ```

pub mod api;
mod blocklist;
mod clock;
mod config;
mod data_dir;
mod driver;
mod durability;
mod error;
mod event;
mod handle;
mod incoming;
mod keystore;
pub mod network;
mod node;
mod ports;
mod readers;
mod request;
mod roll;
mod setup;
mod standing;
mod status;
mod storage;

pub use config::Config;
pub use data_dir::belongs_to;
pub use error::{
    DirError, InitError, InviteError, JoinError, ReadError, RevokeError, StartError, WriteError,
};
pub use event::NodeEvent;
pub use handle::{Handle, Watch};
pub use network::stranger;
pub use node::Node;
pub use setup::{Founded, Joined, init, join};
pub use swarmkv_protocol as protocol;
pub use swarmkv_protocol::ticket::Ticket;
