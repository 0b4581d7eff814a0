//! Messages on their way to the broker, and those that it answers with a cut.
//!
//! MQTT 3.1.1 has no word for "not this one": a broker that does not want a message (its access list forbids the topic,
//! or the message is too large) may close the connection, and a message that is sent again until it is confirmed would
//! then close every connection to come. So what is for a topic that was under way in two cuts travels alone from then
//! on. Where that is cut as well, it is the message: it is given up, and so are others for its topic for a while.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::{ConnectionError, Event, Outgoing, Packet, Publish, QoS, StateError, mqttbytes};

use super::CAT;
use super::connection::Shared;
use super::publisher::{self, Inner, Taken};

/// A topic that was under way in so many cuts is suspect: what is for it travels alone.
const SUSPECT_AFTER: u8 = 2;
/// So many cuts of messages that travel alone are no accident.
const TRIALS: u8 = 2;
/// A cut that comes later than this after a message has other reasons.
const PROMPT: Duration = Duration::from_secs(20);
/// How long nothing goes to a topic that the broker answers with a cut.
const BARRED_FOR: Duration = Duration::from_mins(5);
/// Topics that are remembered.
const MAX_TOPICS: usize = 1024;

/// Topics of messages that were under way when the broker closed a connection.
#[derive(Default)]
pub(super) struct Suspects(HashMap<String, Record>);

#[derive(Default)]
struct Record {
    cuts: u8,
    /// Of these, the ones where nothing else was under way.
    trials: u8,
    /// Nothing goes to the topic before this.
    barred: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Free,
    /// Nothing else may be under way.
    Alone,
    /// Not before then.
    Barred(Instant),
}

impl Suspects {
    fn judge(&self, topic: &str, qos: QoS, now: Instant) -> Verdict {
        match self.0.get(topic) {
            // Of QoS 0 nothing that was written is sent again.
            Some(Record { barred: Some(until), .. }) if qos != QoS::AtMostOnce => {
                if now < *until {
                    Verdict::Barred(*until)
                } else {
                    Verdict::Alone
                }
            }
            Some(record) if record.barred.is_none() && record.cuts >= SUSPECT_AFTER => Verdict::Alone,
            _ => Verdict::Free,
        }
    }

    /// The connection was cut while something for this topic was under way, `alone` or not. Whether to give that up,
    /// and whether it is the first.
    fn cut(&mut self, topic: &str, alone: bool, now: Instant) -> Option<bool> {
        if self.0.len() >= MAX_TOPICS && !self.0.contains_key(topic) {
            self.0.retain(|_, record| record.barred.is_some_and(|until| until > now));
            if self.0.len() >= MAX_TOPICS {
                self.0.clear();
            }
        }
        let record = self.0.entry(topic.to_owned()).or_default();
        record.cuts = record.cuts.saturating_add(1);
        if !alone {
            return None;
        }
        record.trials = record.trials.saturating_add(1);
        let first = record.barred.is_none();
        if first && record.trials < TRIALS {
            return None;
        }
        record.barred = Some(now + BARRED_FOR);
        Some(first)
    }

    fn confirmed(&mut self, topic: &str) {
        if !self.0.is_empty() {
            self.0.remove(topic);
        }
    }
}

/// What becomes of a message after a cut.
enum Sentence {
    Kept,
    /// And what to tell the user, where it is the first for its topic.
    GivenUp(Option<Arc<str>>),
}

/// Messages that rumqttc has been given, in order. They go back to their queues when this is dropped.
pub(super) struct Flight<'a> {
    shared: &'a Shared,
    /// Not written yet; since when.
    submitted: VecDeque<(Instant, Taken)>,
    /// Written and not confirmed, by packet id; since when.
    unconfirmed: VecDeque<(u16, Instant, Taken)>,
    /// Waits until nothing else is under way.
    held: Option<Taken>,
    /// What is under way has to stay alone.
    alone: bool,
    /// The broker has closed the connection.
    cut: bool,
    /// When the broker last confirmed something, or had nothing to confirm.
    progress: Instant,
}

impl<'a> Flight<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            submitted: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            held: None,
            alone: false,
            cut: false,
            progress: Instant::now(),
        }
    }

    /// Since when the broker has owed a confirmation and given none.
    pub fn owing_since(&self) -> Option<Instant> {
        (!self.unconfirmed.is_empty()).then_some(self.progress)
    }

    /// The next message to hand over. `None` where there is none or none may go now.
    pub fn next(this: &RefCell<Self>) -> Option<Publish> {
        let shared = this.borrow().shared;
        loop {
            if this.borrow().alone {
                return None;
            }
            let held = this.borrow_mut().held.take();
            let taken = held.or_else(|| publisher::next(shared))?;
            let verdict =
                shared.suspects().judge(taken.message.topic(), taken.message.publish.qos, Instant::now());
            let Verdict::Barred(until) = verdict else {
                return this.borrow_mut().submit(taken, verdict == Verdict::Alone);
            };
            taken.barred(until);
        }
    }

    fn submit(&mut self, taken: Taken, alone: bool) -> Option<Publish> {
        if alone && !self.is_empty() {
            self.held = Some(taken);
            return None;
        }
        self.alone = alone;
        let publish = taken.message.publish.clone();
        self.submitted.push_back((Instant::now(), taken));
        Some(publish)
    }

    fn is_empty(&self) -> bool {
        self.submitted.is_empty() && self.unconfirmed.is_empty()
    }

    /// Keeps book of what the event loop did. Messages are written in the order in which they were submitted.
    pub fn follow(this: &RefCell<Self>, event: &Event) {
        match event {
            Event::Outgoing(Outgoing::Publish(id)) => {
                let written = this.borrow_mut().submitted.pop_front();
                if let Some((since, taken)) = written
                    && let Some(taken) = taken.written()
                {
                    let mut this = this.borrow_mut();
                    if this.unconfirmed.is_empty() {
                        this.progress = Instant::now();
                    }
                    this.unconfirmed.push_back((*id, since, taken));
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                let confirmed = {
                    let mut this = this.borrow_mut();
                    this.progress = Instant::now();
                    let list = &mut this.unconfirmed;
                    let position = list.iter().position(|(id, ..)| *id == ack.pkid);
                    position.and_then(|position| list.remove(position))
                };
                if let Some((_, _, taken)) = confirmed {
                    this.borrow().shared.suspects().confirmed(taken.message.topic());
                    taken.confirmed();
                }
            }
            _ => return,
        }
        let mut this = this.borrow_mut();
        if (this.alone || this.held.is_some()) && this.is_empty() {
            this.alone = false;
            this.shared.wake();
        }
    }

    /// The connection has ended in this way.
    pub fn ended(&mut self, error: &ConnectionError) {
        self.cut = is_cut(error);
    }

    /// Notes what was under way in a cut. Says whether that is to be given up.
    fn blame(&self, under_way: &[(Instant, Taken)]) -> Sentence {
        let alone = self.alone && matches!(under_way, [(since, _)] if since.elapsed() < PROMPT);
        let topics: BTreeSet<_> = under_way.iter().map(|(_, taken)| taken.message.topic()).collect();
        let mut verdict = None;
        for topic in topics {
            verdict = self.shared.suspects().cut(topic, alone, Instant::now());
        }
        let (Some(first), [(_, Taken { message, .. }), ..]) = (verdict, under_way) else {
            return Sentence::Kept;
        };
        let why = first.then(|| {
            let why = format!(
                "MQTT broker {}: closes the connection over messages for {} (the last one of {} bytes): check its \
                 access list and its size limit. They are dropped or kept in the spool, and one is tried every {} \
                 minutes",
                self.shared.options(),
                message.topic(),
                message.payload().len(),
                BARRED_FOR.as_secs() / 60
            );
            gst::warning!(CAT, "{why}");
            why.into()
        });
        Sentence::GivenUp(why)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let unconfirmed = std::mem::take(&mut self.unconfirmed);
        let submitted = std::mem::take(&mut self.submitted);
        let mut under_way: Vec<_> =
            unconfirmed.into_iter().map(|(_, since, taken)| (since, taken)).chain(submitted).collect();
        if self.cut
            && let Sentence::GivenUp(why) = self.blame(&under_way)
        {
            for (_, taken) in under_way.drain(..) {
                taken.refused(why.clone());
            }
        }
        let mut back: Vec<_> = under_way.into_iter().map(|(_, taken)| taken).collect();
        back.extend(self.held.take());
        let mut groups: Vec<(Arc<Inner>, Vec<_>)> = Vec::new();
        for taken in back {
            match groups.iter_mut().find(|(owner, _)| Arc::ptr_eq(owner, &taken.owner)) {
                Some((_, messages)) => messages.push(taken.message),
                None => groups.push((taken.owner, vec![taken.message])),
            }
        }
        for (owner, messages) in groups {
            owner.give_back(messages);
        }
    }
}

/// Whether the broker has closed the connection: in order, which ends the stream, or with a reset, which it sends where
/// it has not read all that came. rumqttc wraps what a socket says of that in an error of its codec.
fn is_cut(error: &ConnectionError) -> bool {
    matches!(
        error,
        ConnectionError::Io(_)
            | ConnectionError::MqttState(
                StateError::Io(_)
                    | StateError::ConnectionAborted
                    | StateError::Deserialization(mqttbytes::Error::Io(_))
            )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_and_other_ends() {
        let reset = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let state = ConnectionError::MqttState;
        for cut in [
            ConnectionError::Io(reset()),
            state(StateError::ConnectionAborted),
            state(StateError::Io(reset())),
            state(StateError::Deserialization(mqttbytes::Error::Io(reset()))),
        ] {
            assert!(is_cut(&cut), "{cut}");
        }
        for other in [
            ConnectionError::NetworkTimeout,
            state(StateError::AwaitPingResp),
            state(StateError::Deserialization(mqttbytes::Error::PayloadSizeLimitExceeded(1))),
        ] {
            assert!(!is_cut(&other), "{other}");
        }
    }

    #[test]
    fn a_topic_is_barred_for_a_while_and_free_once_confirmed() {
        const QOS: QoS = QoS::AtLeastOnce;
        let now = Instant::now();
        let later = now + BARRED_FOR;
        let mut suspects = Suspects::default();
        assert_eq!(suspects.judge("a", QOS, now), Verdict::Free);
        assert_eq!(suspects.cut("a", false, now), None);
        assert_eq!(suspects.judge("a", QOS, now), Verdict::Free, "one cut is an accident");
        assert_eq!(suspects.cut("a", false, now), None);
        assert_eq!(suspects.judge("a", QOS, now), Verdict::Alone);
        assert_eq!(suspects.cut("a", true, now), None);
        assert_eq!(suspects.cut("a", true, now), Some(true), "the first");

        assert_eq!(suspects.judge("a", QOS, now), Verdict::Barred(later));
        assert_eq!(suspects.judge("a", QoS::AtMostOnce, now), Verdict::Free);
        assert_eq!(suspects.judge("b", QOS, now), Verdict::Free);
        assert_eq!(suspects.judge("a", QOS, later), Verdict::Alone);
        assert_eq!(suspects.cut("a", true, later), Some(false), "told already");
        assert_eq!(suspects.judge("a", QOS, later), Verdict::Barred(later + BARRED_FOR));
        suspects.confirmed("a");
        assert_eq!(suspects.judge("a", QOS, now), Verdict::Free);

        for i in 0..3 * MAX_TOPICS {
            suspects.cut(&i.to_string(), true, now);
            assert_eq!(suspects.cut(&i.to_string(), true, now), Some(true));
        }
        assert!(suspects.0.len() <= MAX_TOPICS);
    }
}
