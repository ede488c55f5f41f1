//! Events on their way to the driver: one queue, so that their order is the order of happening.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::event::Event;

/// Holds events while the driver's channel is full. It does not refuse; the loop looks at
/// [`Outbox::len`] and [`Outbox::streamed`] before it makes more.
#[derive(Debug)]
pub(super) struct Outbox {
    events: mpsc::Sender<Event>,
    queue: VecDeque<(Event, bool)>,
    from_streams: usize,
}

impl Outbox {
    pub(super) fn new(events: mpsc::Sender<Event>) -> Self {
        Self { events, queue: VecDeque::new(), from_streams: 0 }
    }

    /// Queues an event of the loop.
    pub(super) fn push(&mut self, event: Event) {
        self.enqueue(event, false);
    }

    /// Queues an event of a stream task: these may be large, and are counted.
    pub(super) fn push_from_stream(&mut self, event: Event) {
        self.enqueue(event, true);
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn streamed(&self) -> usize {
        self.from_streams
    }

    /// Waits for room and hands one event over; `false` when the driver is gone. Dropping the
    /// future loses nothing.
    pub(super) async fn pump(&mut self) -> bool {
        let Ok(permit) = self.events.reserve().await else { return false };
        if let Some((event, from_stream)) = self.queue.pop_front() {
            self.from_streams -= usize::from(from_stream);
            permit.send(event);
        }
        true
    }

    fn enqueue(&mut self, event: Event, from_stream: bool) {
        if !self.queue.is_empty() {
            self.from_streams += usize::from(from_stream);
            self.queue.push_back((event, from_stream));
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
            self.from_streams += usize::from(from_stream);
            self.queue.push_back((event, from_stream));
        }
    }
}
