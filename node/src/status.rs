//! Puts together what `status` and `peers` say.

use swarmkv_protocol::id::DeviceId;
use swarmkv_protocol::io::{Later, LaterKind, LogStatus};

use crate::api::wire::{Counters, LogInfo, PeerInfo, Progress, Status, Upgrade};
use crate::driver::{Driver, source_word, transport_word};
use crate::network::peer_id_text;
use crate::standing::standing;

impl Driver {
    pub(crate) fn status(&self) -> Status {
        let roster = self.engine.roster();
        let me = self.identity.me;
        let logs = self.engine.logs();
        let role = roster.role(&me).map(|role| role.to_string()).unwrap_or_default();
        let progress = self.engine.progress().filter(|p| p.planned > 0);
        Status {
            swarm: roster.genesis().name.clone(),
            swarm_id: roster.swarm().to_string(),
            device: self.label(&me),
            device_id: me.to_string(),
            role,
            data_dir: self.identity.dir.path().display().to_string(),
            pid: std::process::id(),
            uptime_ms: self.clock.uptime_ms(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            caught_up: self.readers.borrow().caught_up,
            progress: progress.map(|p| Progress {
                from: self.label(&p.from),
                received: p.received,
                planned: p.planned,
            }),
            standing: standing(roster, &me).to_owned(),
            revoked_by: roster
                .revocation(&me)
                .filter(|revoked| revoked.by != me)
                .map(|revoked| self.label(&revoked.by)),
            listen: self.listening.iter().cloned().collect(),
            members: roster.members().count(),
            peers: self.peers().into_iter().filter(|peer| peer.connected).collect(),
            slots: logs.iter().map(|log| log.slots).sum(),
            bytes: logs.iter().map(|log| log.bytes).sum(),
            logs: logs.iter().map(|log| self.log_info(log)).collect(),
            disk_bytes: self.disk.bytes(),
            disk_full: self.disk.is_full(),
            in_memory: self.disk.is_in_memory(),
            state: self.readers.borrow().hash.to_string(),
            scrub_left: self.engine.to_scrub(),
            upgrade: self.engine.later().map(|later| self.upgrade(&later)),
            counters: self.counters(),
        }
    }

    fn upgrade(&self, later: &Later) -> Upgrade {
        let what = match later.what {
            LaterKind::Message => "message",
            LaterKind::Write => "write",
            LaterKind::Statement => "statement",
        };
        Upgrade {
            what: what.to_owned(),
            device: self.label(&later.from),
            device_id: later.from.to_string(),
        }
    }

    fn log_info(&self, log: &LogStatus) -> LogInfo {
        let word = match log {
            LogStatus { aside: true, .. } | LogStatus { lost: true, .. } => Some("damaged"),
            LogStatus { forked: true, .. } => Some("forked"),
            LogStatus { frozen: Some(_), .. } => Some("frozen"),
            _ => None,
        };
        LogInfo {
            author: self.label(&log.branch.log.author),
            author_id: log.branch.log.author.to_string(),
            epoch: format!("{:016x}", log.branch.log.epoch),
            seq: log.seq,
            slots: log.slots,
            bytes: log.bytes,
            trouble: word.map(str::to_owned),
        }
    }

    fn counters(&self) -> Counters {
        let core = self.engine.counters();
        Counters {
            commits_signed: core.commits_signed,
            commits_applied: core.commits_applied,
            logs_repaired: core.logs_repaired,
            slots_received: core.slots_received,
            slots_in_vain: core.slots_in_vain,
            repairs: core.pulls,
            repairs_equal: core.pulls_equal,
            gap_repairs: core.gap_pulls,
            scrubbed: core.scrubbed,
            set_aside: core.set_aside,
            rejected: core.rejected,
            ignored: core.ignored,
            strangers_refused: self.strangers_refused,
        }
    }

    pub(crate) fn peers(&self) -> Vec<PeerInfo> {
        let others = self.engine.roster().members().filter(|m| m.device != self.identity.me);
        let scores = self.network.scores();
        let score = |device| scores.get(device).copied();
        others.map(|m| self.peer(&m.device, m.role.to_string(), score(&m.device))).collect()
    }

    fn peer(&self, device: &DeviceId, role: String, score: Option<f64>) -> PeerInfo {
        let link = self.links.get(device).filter(|link| link.member);
        let stand = self.engine.peers().into_iter().find(|peer| peer.device == *device);
        let now = self.clock.uptime_ms();
        PeerInfo {
            device: self.label(device),
            device_id: device.to_string(),
            peer_id: peer_id_text(device),
            role,
            connected: link.is_some(),
            source: link.map(|link| source_word(link.source).to_owned()),
            transport: link.map(|link| transport_word(link.transport).to_owned()),
            addr: link.map(|link| link.addr.clone()),
            behind: stand.map_or(0, |peer| peer.behind),
            ahead: stand.map_or(0, |peer| peer.ahead),
            score,
            offences: self.identity.blocklist.offences(device),
            blocked_until: self.identity.blocklist.until(device),
            equal_ms_ago: stand.and_then(|peer| Some(now.saturating_sub(peer.equal_at?))),
        }
    }
}
