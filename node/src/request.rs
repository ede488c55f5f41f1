//! What callers ask of the loop, and the answers that have no other home.

use swarmkv_protocol::id::{BranchId, DeviceId, Version};
use swarmkv_protocol::io::{Change, RevokeRefused};
use swarmkv_protocol::ticket::Invite;
use tokio::sync::oneshot;

use crate::api::wire::{KnockInfo, MemberInfo, PeerInfo, Status};
use crate::error::{InviteError, RevokeError, WriteError};

/// What callers ask of the loop.
pub(crate) enum Request {
    Write(Vec<Change>, oneshot::Sender<Result<Vec<Version>, WriteError>>),
    Invite([u8; 16], Invite, oneshot::Sender<Result<(), InviteError>>),
    Status(oneshot::Sender<Status>),
    Members(oneshot::Sender<Vec<MemberInfo>>),
    Knocks(oneshot::Sender<Vec<KnockInfo>>),
    Confirm(DeviceId, bool),
    /// Pull all that connected members have; answered when that is done.
    PullAll(oneshot::Sender<()>),
    /// How things stand with the device of this name.
    Target(String, oneshot::Sender<Result<Target, RevokeError>>),
    Revoke(DeviceId, oneshot::Sender<Result<(), RevokeError>>),
    Peers(oneshot::Sender<Vec<PeerInfo>>),
    /// Check everything stored now; answered when that has begun.
    Scrub(oneshot::Sender<()>),
    /// A reader met a damaged slot.
    Suspect(BranchId),
    Stop(oneshot::Sender<()>),
}

/// What is known of a device that is to be taken out.
pub(crate) struct Target {
    pub(crate) device: DeviceId,
    pub(crate) info: MemberInfo,
    /// Operations that connected members told of and that are not here.
    pub(crate) missing: u64,
    pub(crate) holders: usize,
    pub(crate) connected: usize,
    pub(crate) away: Vec<String>,
    /// Whether this device may take it out.
    pub(crate) allowed: Result<(), RevokeRefused>,
}
