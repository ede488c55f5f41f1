//! Admitting devices: tickets, and introductions between members who have not heard of each other.

use super::Replica;
use crate::codec::{self, Bytes};
use crate::id::DeviceId;
use crate::io::{InviteRefused, Knock, Output, Token};
use crate::limits::{
    MAX_JOIN_ANSWER, MAX_JOIN_REQUEST, MAX_KNOCKS, MAX_LABEL, MAX_STATEMENT, MAX_TICKET_MS,
    MAX_TICKETS,
};
use crate::message;
use crate::roster::ticket::{
    Introduce, Invite, JoinAnswer, JoinRequest, Redeem, Refusal, TicketRecord, Use, UsedBy, Welcome,
};
use crate::roster::{Grant, Role};
use crate::store::{Store, Write};
use crate::time::Now;

impl<S: Store> Replica<S> {
    /// Makes a ticket durable.
    pub(crate) fn invite(&mut self, now: Now, token: Token, secret: [u8; 16], invite: &Invite) {
        let result = self.check_invite(now, invite);
        if result.is_ok() {
            let record = TicketRecord::new(&secret, invite);
            self.keep_ticket(record);
        }
        self.fx.push(Output::Invited(token, result));
    }

    fn check_invite(&mut self, now: Now, invite: &Invite) -> Result<(), InviteRefused> {
        let rank = self.roster.member(&self.me).map_or(Role::Reader, |m| m.role);
        if rank < Role::Admin || invite.role >= rank {
            return Err(InviteRefused::NotAllowed);
        }
        let longest = now.wall.saturating_add(MAX_TICKET_MS);
        if invite.uses == 0 || invite.expires_at <= now.wall || invite.expires_at > longest {
            return Err(InviteRefused::Invalid);
        }
        if self.tickets.len() >= MAX_TICKETS {
            self.drop_old_tickets(now);
        }
        if self.tickets.len() >= MAX_TICKETS { Err(InviteRefused::TooMany) } else { Ok(()) }
    }

    /// A ticket past its time is kept for a day, so that a late comer is told what became of it.
    fn drop_old_tickets(&mut self, now: Now) {
        let day_ago = now.wall.saturating_sub(24 * 3_600_000);
        let old = self.tickets.iter().filter(|(_, t)| t.expires_at < day_ago);
        let old: Vec<_> = old.map(|(id, _)| *id).collect();
        for id in &old {
            self.tickets.remove(id);
        }
        self.fx.persist(old.into_iter().map(|id| Write::RemoveTicket { id }).collect());
    }

    fn keep_ticket(&mut self, record: TicketRecord) {
        let id = record.id();
        self.fx.persist(vec![Write::Ticket { id, record: Bytes(codec::encode(&record)) }]);
        self.tickets.insert(id, record);
    }

    /// Answers whatever was asked on the join protocol.
    pub(crate) fn asked(&mut self, now: Now, token: Token, peer: DeviceId, bytes: &[u8]) {
        let request =
            if bytes.len() <= MAX_JOIN_REQUEST { message::decode(bytes).ok() } else { None };
        let answer = match request {
            Some(JoinRequest::Redeem(redeem)) => self.redeem(now, peer, redeem),
            Some(JoinRequest::Introduce(introduce)) => self.introduced_to(peer, &introduce),
            None => Err(Refusal::Invalid),
        };
        let answer = answer.unwrap_or_else(JoinAnswer::Refused);
        self.fx.push(Output::Answer(token, message::encode(&answer)));
    }

    fn redeem(
        &mut self,
        now: Now,
        device: DeviceId,
        redeem: Redeem,
    ) -> Result<JoinAnswer, Refusal> {
        let me = self.me;
        self.refuse_revoked(&device)?;
        let ticket = self.tickets.get(&redeem.ticket).ok_or(Refusal::UnknownTicket)?;
        if !ticket.proves(&redeem.proof, &device, &me) {
            return Err(Refusal::UnknownTicket);
        }
        // Whoever was admitted on it asks again after a crash: the same answer, no second grant.
        if ticket.used.iter().any(|used| used.device == device) && self.is_member(&device) {
            return Ok(self.welcome(&device));
        }
        if ticket.expires_at <= now.wall {
            return Err(Refusal::Expired);
        }
        let unused = ticket.used.iter().all(|used| used.device != device);
        if unused && ticket.used.len() >= ticket.uses as usize {
            let last = ticket.used.last().ok_or(Refusal::Unable)?;
            let Use { device, label, at } = last.clone();
            return Err(Refusal::Used(UsedBy { device, label, at }));
        }
        let label = tidy_label(&redeem.label, &device);
        if ticket.confirm && unused {
            let check_words = ticket.check_words(&device, &me);
            self.confirmed(Knock { device, label: label.clone(), check_words })?;
        }
        let ticket = self.tickets.get(&redeem.ticket).ok_or(Refusal::UnknownTicket)?;
        let grant = Grant {
            device,
            label: label.clone(),
            role: ticket.role,
            prefix: ticket.prefix.clone(),
            max_bytes: ticket.max_bytes,
        };
        let mut ticket = ticket.clone();
        let check_words = ticket.check_words(&device, &me);
        if unused {
            ticket.used.push(Use { device, label: label.clone(), at: now.wall });
            // Durably spent before the grant exists: a crash in between costs a ticket, never a
            // second admission.
            self.keep_ticket(ticket);
        }
        let statement = self.roster.grant(self.writer.key(), grant).map_err(|_| Refusal::Unable)?;
        if self.take_statements(&[statement], true).unwrap_or(0) == 0 {
            return Err(Refusal::Unable);
        }
        self.fx.push(Output::Admitted { device, label, check_words });
        Ok(self.welcome(&device))
    }

    /// Whether a person has confirmed a device's check words; if nobody was asked yet, they are now.
    fn confirmed(&mut self, knock: Knock) -> Result<(), Refusal> {
        let device = knock.device;
        match self.knocks.get(&device) {
            Some((known, said)) if known.check_words == knock.check_words => match said {
                Some(true) => {
                    self.knocks.remove(&device);
                    Ok(())
                }
                Some(false) => Err(Refusal::Declined),
                None => Err(Refusal::Unconfirmed),
            },
            None if self.knocks.len() >= MAX_KNOCKS => Err(Refusal::Unable),
            _ => {
                self.knocks.insert(device, (knock.clone(), None));
                self.fx.push(Output::Knocked(knock));
                Err(Refusal::Unconfirmed)
            }
        }
    }

    /// A person has compared a device's check words.
    pub(crate) fn confirm(&mut self, device: DeviceId, same: bool) {
        if let Some((_, said)) = self.knocks.get_mut(&device) {
            *said = Some(same);
        }
    }

    /// Whoever was revoked is told so, with the proof.
    fn refuse_revoked(&self, device: &DeviceId) -> Result<(), Refusal> {
        match self.roster.revocation(device) {
            Some(_) => Err(Refusal::Revoked(self.roster.proof_of_revocation(device))),
            None => Ok(()),
        }
    }

    fn is_member(&self, device: &DeviceId) -> bool {
        self.roster.member(device).is_some()
    }

    /// The genesis, what admits `device`, and as much of the rest as fits.
    fn welcome(&self, device: &DeviceId) -> JoinAnswer {
        let mut statements = self.roster.path(device);
        let mut size: usize = statements.iter().map(|s| s.len() + 8).sum();
        for other in self.roster.beyond(&[]) {
            size += other.len() + 8;
            if size >= MAX_JOIN_ANSWER - 2 * MAX_STATEMENT {
                break;
            }
            if !statements.contains(&other) {
                statements.push(other);
            }
        }
        JoinAnswer::Welcome(Welcome { genesis: self.roster.genesis_bytes().clone(), statements })
    }

    fn introduced_to(
        &mut self,
        peer: DeviceId,
        introduce: &Introduce,
    ) -> Result<JoinAnswer, Refusal> {
        if introduce.swarm != self.roster.swarm() {
            return Err(Refusal::NotAMember);
        }
        let _ = self.take_statements(&introduce.statements, false);
        self.refuse_revoked(&peer)?;
        if self.is_member(&peer) {
            Ok(JoinAnswer::Introduced(self.roster.path(&self.me)))
        } else {
            Err(Refusal::NotAMember)
        }
    }

    /// Introduces this device to a peer that may not have heard of it.
    pub(crate) fn introduce(&mut self, peer: DeviceId) {
        let request = JoinRequest::Introduce(Introduce {
            swarm: self.roster.swarm(),
            statements: self.roster.path(&self.me),
        });
        self.fx.push(Output::Ask(peer, message::encode(&request)));
    }

    /// Takes the answer to an introduction.
    pub(crate) fn answered(&mut self, bytes: &[u8]) {
        let statements = match message::decode(bytes) {
            Ok(JoinAnswer::Introduced(statements)) => statements,
            Ok(JoinAnswer::Refused(Refusal::Revoked(proof))) => proof,
            _ => return,
        };
        let _ = self.take_statements(&statements, false);
    }
}

/// A label that can be shown: printable, short, not empty.
fn tidy_label(wish: &str, device: &DeviceId) -> String {
    let mut label = String::new();
    for c in wish.trim().chars().filter(|c| !c.is_control()) {
        if label.len() + c.len_utf8() > MAX_LABEL {
            break;
        }
        label.push(c);
    }
    if label.is_empty() { device.short() } else { label }
}
