//! What the network brings, handed to the core.

use swarmkv_protocol::id::DeviceId;
use swarmkv_protocol::io::{Input, SessionId};
use tracing::debug;

use crate::clock;
use crate::driver::{Driver, Link, source_word, transport_word};
use crate::event::NodeEvent;
use crate::network::{AskError, Command, Event};
use crate::ports;

impl Driver {
    pub(crate) fn network_event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Listening { addr } => {
                if let Some((transport, port)) = ports::of(&addr) {
                    self.dirty |= self.disk.set_port(transport, port);
                }
                self.listening.insert(addr.clone());
                self.publish_listening();
                self.tell(NodeEvent::Listening { addr });
            }
            Event::NotListening { addr } => {
                self.listening.remove(&addr);
                self.publish_listening();
            }
            Event::Connected { peer, addr, source, transport, member, dialer } => {
                self.links.insert(peer, Link { addr, source, transport, member });
                self.connected(peer, member, dialer)?;
            }
            Event::Disconnected { peer } => {
                if self.links.remove(&peer).is_some_and(|link| link.member) {
                    self.tell(NodeEvent::Disconnected { device: self.label(&peer) });
                    self.feed(Input::Disconnected(peer))?;
                }
            }
            Event::Gossip { from, token: name, bytes } => {
                let token = self.token();
                self.gossip.insert(token, name);
                self.feed(Input::Gossip { token, from, bytes })?;
            }
            Event::SessionOpened { session, peer } => {
                self.feed(Input::SessionOpened(SessionId(session), peer))?;
            }
            Event::SessionReady { session } => {
                self.feed(Input::SessionReady(SessionId(session)))?;
            }
            Event::SessionBytes { session, bytes } => {
                let _ = (session, bytes);
            }
            Event::SessionFrame { session, frame } => {
                self.feed(Input::SessionFrame(SessionId(session), frame))?;
            }
            Event::SessionClosed { session, refused } => {
                let session = SessionId(session);
                self.feed(Input::SessionClosed(session))?;
                if let Some(peer) = self.sessions.remove(&session).filter(|_| refused) {
                    self.feed(Input::Stranger(peer))?;
                }
            }
            Event::Asked { peer, request, reply } => {
                let token = self.token();
                self.asked.insert(token, reply);
                self.feed(Input::Asked { token, peer, bytes: request })?;
            }
            Event::AddressLearned { peer, addr } => {
                let now = clock::wall_millis();
                self.dirty |= self.identity.addresses.remember(&self.disk, &peer, &addr, now);
            }
        }
        Ok(())
    }

    fn connected(&mut self, peer: DeviceId, member: bool, dialer: bool) -> Result<(), String> {
        if !member {
            return if dialer { self.feed(Input::Stranger(peer)) } else { Ok(()) };
        }
        if let Some(link) = self.links.get(&peer) {
            self.tell(NodeEvent::Connected {
                device: self.label(&peer),
                device_id: peer,
                source: source_word(link.source),
                transport: transport_word(link.transport),
                addr: link.addr.clone(),
            });
        }
        self.feed(Input::Connected(peer))
    }

    pub(crate) fn answered(
        &mut self,
        peer: DeviceId,
        answer: Result<Vec<u8>, AskError>,
    ) -> Result<(), String> {
        match answer {
            Ok(bytes) => self.feed(Input::Answered(peer, bytes))?,
            Err(e) => {
                debug!(peer = %peer.short(), "introduction was not answered: {e}");
                return Ok(());
            }
        }
        if self.engine.roster().member(&peer).is_none() {
            // Of another swarm, or not admitted: left alone for a while.
            self.commands.push_back(Command::Disconnect { peer });
        }
        Ok(())
    }

    fn publish_listening(&self) {
        self.listen_addrs.send_replace(self.listening.iter().cloned().collect());
    }
}
