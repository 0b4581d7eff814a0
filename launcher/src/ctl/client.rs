//! A client of the control plane: sends commands, hears answers and status.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use gstnvr::mqtt::{BrokerSettings, Message, Publisher, QoS, Signal, Subscription};
use nvr_core::{
    command::{Ack, AckStatus, Command, Status},
    topic,
};
use serde_json::json;

/// How long the broker may take to let us in.
const CONNECT: Duration = Duration::from_secs(5);
/// Retained messages follow each other at once: this long without one, and all are there.
const QUIET: Duration = Duration::from_millis(150);
/// Messages that may wait to be read.
const QUEUE: usize = 10_000;

/// Which broker, as text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Broker {
    pub uri: String,
    pub topic_prefix: String,
    pub ca_file: Option<String>,
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
}

/// Something that came.
#[derive(Clone, Debug)]
pub enum Event {
    Ack(Ack),
    Status(Status),
    /// The retained status of this instance was cleared: it has another name now.
    Cleared(String),
    /// On another topic: topic, payload, and whether the broker had kept it.
    Other(String, Vec<u8>, bool),
    Disconnected(String),
    /// The subscriptions stand (again).
    Subscribed,
}

/// A connection to one broker.
#[derive(Debug)]
pub struct Client {
    prefix: String,
    publisher: Publisher,
    subscription: Subscription,
    signals: Receiver<Signal>,
    /// A signal says that there is something to read.
    received: Arc<AtomicBool>,
    connected: bool,
    /// What every instance last said of itself.
    pub statuses: BTreeMap<String, Status>,
}

impl Client {
    /// Connects in the background and listens to status and answers, and to `more` topic filters.
    ///
    /// # Errors
    /// The address, a file or a filter is wrong.
    pub fn open(broker: &Broker, more: &[String]) -> Result<Self, String> {
        let mut settings = BrokerSettings::default();
        for pspec in BrokerSettings::properties() {
            let value = match pspec.name() {
                "broker" => Some(&broker.uri),
                "topic-prefix" => Some(&broker.topic_prefix),
                "ca-file" => broker.ca_file.as_ref(),
                "cert-file" => broker.cert_file.as_ref(),
                "key-file" => broker.key_file.as_ref(),
                _ => None,
            };
            if let Some(value) = value {
                settings.set(&value.to_value(), &pspec);
            }
        }
        let options = settings.resolve().map_err(|error| error.to_string().replace("property ", ""))?;
        let prefix = broker.topic_prefix.clone();
        let mut filters = vec![topic::status(&prefix, "+")];
        filters.extend(more.iter().cloned());
        let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), QoS::AtLeastOnce)).collect();
        let (sender, signals) = sync_channel(64);
        let received = Arc::new(AtomicBool::new(false));
        let waits = received.clone();
        let subscription = Subscription::open(&options, &filters, QUEUE, move |signal| {
            // One that waits means all messages: the many that a broker has kept take no room from what else has
            // happened.
            if matches!(signal, Signal::Received) && waits.swap(true, Ordering::AcqRel) {
                return;
            }
            let _ = sender.try_send(signal);
        })
        .map_err(|error| error.to_string())?;
        let publisher = Publisher::open(&options, QUEUE, |_| {}).map_err(|error| error.to_string())?;
        let statuses = BTreeMap::new();
        Ok(Self { prefix, publisher, subscription, signals, received, connected: false, statuses })
    }

    /// Connects, and waits until all that the broker remembers has been read.
    ///
    /// # Errors
    /// As [`Self::open`], and what is wrong with the connection.
    pub fn connect(broker: &Broker, more: &[String]) -> Result<Self, String> {
        let mut client = Self::open(broker, more)?;
        client.ready()?;
        Ok(client)
    }

    /// Waits until all that the broker remembers has been read.
    ///
    /// # Errors
    /// What is wrong with the connection.
    pub fn ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + CONNECT;
        while !self.connected {
            match self.next(deadline.saturating_duration_since(Instant::now())) {
                // Who waits here does not try again.
                Some(Event::Disconnected(why)) => {
                    return Err(why.strip_suffix("; trying again").unwrap_or(&why).to_owned());
                }
                Some(_) => {}
                None => return Err(format!("the broker does not answer within {} s", CONNECT.as_secs())),
            }
        }
        while self.next(QUIET).is_some() {}
        Ok(())
    }

    /// Sends a command.
    pub fn send(&self, command: &Command, targets: &[String], request_id: &str) {
        let payload = json!({
            "command": command.name(),
            "params": command.params(),
            "target_instances": targets,
            "request_id": request_id,
        });
        let topic = topic::commands(&self.prefix);
        let payload = payload.to_string().into_bytes();
        self.publisher.publish(Message::new(&topic, payload, QoS::AtLeastOnce, false, 0));
    }

    /// Publishes something else.
    pub fn publish(&self, topic: &str, payload: Vec<u8>, retain: bool) {
        self.publisher.publish(Message::new(topic, payload, QoS::AtLeastOnce, retain, 0));
    }

    /// Waits until everything sent is with the broker, for a second at most.
    pub fn flush(&self) {
        self.publisher.drain(Duration::from_secs(1));
    }

    /// What comes next, within `timeout`.
    pub fn next(&mut self, timeout: Duration) -> Option<Event> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(delivery) = self.subscription.try_recv() {
                if let Some(event) = self.read(delivery.topic(), delivery.payload(), delivery.retained()) {
                    return Some(event);
                }
                continue;
            }
            match self.signals.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Signal::Disconnected(why) | Signal::Refused(why)) => {
                    self.connected = false;
                    return Some(Event::Disconnected(why.to_string()));
                }
                Ok(Signal::Subscribed) => {
                    self.connected = true;
                    return Some(Event::Subscribed);
                }
                Ok(Signal::Received) => self.received.store(false, Ordering::Release),
                Ok(Signal::Connected) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn read(&mut self, topic: &str, payload: &[u8], retained: bool) -> Option<Event> {
        let id = topic.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix("/control/status/"));
        match id {
            Some("ack") => serde_json::from_slice(payload).ok().map(Event::Ack),
            Some(id) if payload.is_empty() => {
                self.statuses.remove(id);
                Some(Event::Cleared(id.into()))
            }
            Some(id) => {
                // A process that only asks for the name is not the instance yet.
                let status = Status::parse(payload).filter(|s| s.instance_id == id && !s.claiming)?;
                self.statuses.insert(id.into(), status.clone());
                Some(Event::Status(status))
            }
            None => Some(Event::Other(topic.into(), payload.into(), retained)),
        }
    }

    /// The instances that are there, or were when they were last heard of.
    pub fn alive(&self) -> Vec<String> {
        let alive = self.statuses.values().filter(|status| status.status.is_alive());
        alive.map(|status| status.instance_id.clone()).collect()
    }

    /// Sends a command and waits for the last answer of everybody in `expected`; other events go to `other`.
    pub fn call(
        &mut self,
        command: &Command,
        targets: &[String],
        expected: &[String],
        timeout: Duration,
        mut other: impl FnMut(Event),
    ) -> BTreeMap<String, Result<Ack, String>> {
        let request_id = request_id();
        self.send(command, targets, &request_id);
        let mut answers: BTreeMap<String, Result<Ack, String>> = BTreeMap::new();
        let mut received = Vec::new();
        let deadline = Instant::now() + timeout;
        while !expected.iter().all(|id| answers.contains_key(id)) {
            match self.next(deadline.saturating_duration_since(Instant::now())) {
                Some(Event::Ack(ack)) if ack.request_id.as_deref() == Some(&request_id) => {
                    // A renamed instance answers by its new name.
                    let id = match command {
                        Command::RenameInstance { new_instance_id }
                            if *new_instance_id == ack.instance_id =>
                        {
                            expected.first().cloned().unwrap_or_else(|| ack.instance_id.clone())
                        }
                        _ => ack.instance_id.clone(),
                    };
                    // Whoever reads the command can answer it, under any name.
                    if !expected.is_empty() && !expected.contains(&id) {
                        continue;
                    }
                    match ack.ack_status {
                        AckStatus::Received => received.push(id),
                        AckStatus::Completed => drop(answers.insert(id, Ok(ack))),
                        AckStatus::Error => {
                            let error = ack.error.unwrap_or_else(|| "failed".into());
                            answers.insert(id, Err(error));
                        }
                    }
                }
                Some(event) => other(event),
                None => break,
            }
        }
        for id in expected {
            let why = if received.contains(id) { "received, and not finished in time" } else { "no answer" };
            answers.entry(id.clone()).or_insert_with(|| Err(why.into()));
        }
        answers
    }
}

/// A name for a request that no other process and no other request has.
pub fn request_id() -> String {
    use std::{
        hash::{BuildHasher, Hasher},
        sync::atomic::{AtomicU32, Ordering},
    };
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let nonce = std::hash::RandomState::new().build_hasher().finish() as u32;
    format!("{}-{nonce:08x}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use nvr_core::command::State;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn broker() -> Broker {
        crate::cli::init_gstreamer().unwrap();
        let uri = crate::broker::Broker::start(0).unwrap().uri();
        Broker { uri, topic_prefix: "nvr".into(), ..Broker::default() }
    }

    #[test]
    fn answers_of_instances_that_were_not_asked_are_none() {
        let broker = broker();
        let mut other = Client::connect(&broker, &[topic::commands("nvr")]).unwrap();
        let answers = std::thread::spawn(move || {
            let request = loop {
                match other.next(PATIENCE) {
                    Some(Event::Other(_, payload, _)) => {
                        break serde_json::from_slice::<serde_json::Value>(&payload).unwrap();
                    }
                    Some(_) => {}
                    None => return,
                }
            };
            let id = request["request_id"].as_str();
            for (instance, outcome) in
                [("\u{1b}]0;x\u{7}", Err("no".into())), ("gate", Ok(AckStatus::Completed))]
            {
                let ack = Ack::new(instance, "pause", id, outcome, 0);
                other.publish(&topic::ack("nvr"), serde_json::to_vec(&ack).unwrap(), false);
            }
            other.flush();
        });
        let mut client = Client::connect(&broker, &[]).unwrap();
        let expected = ["gate".to_owned()];
        let found = client.call(&Command::Pause { source_id: None }, &[], &expected, PATIENCE, |_| {});
        answers.join().unwrap();
        assert!(found.len() == 1 && found["gate"].is_ok(), "{found:?}");
    }

    #[test]
    fn many_messages_leave_room_for_what_else_has_happened() {
        let broker = broker();
        let mut client = Client::connect(&broker, &[]).unwrap();
        let writer = Client::connect(&broker, &[]).unwrap();
        // More than there is room for signals, before anybody reads them.
        for _ in 0..90 {
            writer.publish(
                &topic::status("nvr", "gate"),
                Status::new("gate", State::Stopped).to_json(),
                false,
            );
        }
        let deadline = Instant::now() + PATIENCE;
        while client.subscription.stats().received < 90 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(client.subscription.stats().received, 90);
        assert_eq!(client.signals.try_iter().filter(|signal| matches!(signal, Signal::Received)).count(), 1);
        // What is read now is read as ever.
        client.received.store(false, Ordering::Release);
        let count =
            std::iter::from_fn(|| client.next(QUIET)).filter(|e| matches!(e, Event::Status(_))).count();
        assert_eq!(count, 90);
    }
}
