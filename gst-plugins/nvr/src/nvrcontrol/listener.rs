//! The thread that listens: reads commands, says at once that they were received, and defends the instance's name.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread,
    time::Duration,
};

use gst::{glib, prelude::*};
use nvr_core::{
    command::{AckStatus, Answer, Bucket, Claim, Incoming, Policy, Status, read},
    topic,
};

use super::{
    IDENTITY_MESSAGE, NvrControl,
    announce::{Job, Order, Shared},
    imp::{CAT, Settings},
    surroundings, worker,
};
use crate::mqtt::{Delivery, Options, OptionsError, QoS, Signal, Subscription};

/// Messages that wait to be read.
const QUEUE: usize = 2000;
/// Messages that are read before other events are looked at.
const TURN: usize = 256;
/// How long a command at work may hold up the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Messages of elements after which the status is another.
const STATES: [&str; 3] = ["nvr-source-state", "nvr-record-state", "nvr-tier-state"];

/// What wakes the listener.
#[derive(Debug)]
pub enum Event {
    /// Something is in the subscription's queue.
    Received,
    Subscribed,
    Disconnected(Arc<str>),
    Refused(Arc<str>),
    /// Find out whether a name is free, and keep it for us.
    Claim {
        id: String,
        reply: SyncSender<Result<(), String>>,
    },
    /// The claimed name is ours now, and the old one is not; or, with `false`, the claim is dropped.
    Settle {
        renamed: bool,
    },
    Stop,
}

/// Everything that lives from READY to NULL.
pub struct Running {
    pub shared: Arc<Shared>,
    events: SyncSender<Event>,
    watch: Option<(gst::Bus, glib::SignalHandlerId)>,
    listener: Option<thread::JoinHandle<()>>,
}

impl Running {
    pub fn start(
        element: &NvrControl,
        settings: &Settings,
        options: &Options,
        policy: Policy,
    ) -> Result<Self, OptionsError> {
        topic::check_instance_id(&settings.instance_id)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
        let shared = Arc::new(Shared::new(element, settings, options, policy)?);
        // Room for every kind of event: whoever finds no room need not wake the listener.
        let (events, receiver) = sync_channel(64);
        let received = Arc::new(AtomicBool::new(false));
        let subscription = {
            let events = events.clone();
            let filters = filters(&shared.prefix, &[&settings.instance_id]);
            let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), QoS::AtLeastOnce)).collect();
            let received = received.clone();
            Subscription::open(options, &filters, QUEUE, move |signal| {
                let event = match signal {
                    // One that waits means all messages: a flood takes no room from what else has happened.
                    Signal::Received if received.swap(true, Ordering::AcqRel) => return,
                    Signal::Received => Event::Received,
                    Signal::Subscribed => Event::Subscribed,
                    Signal::Disconnected(why) => Event::Disconnected(why),
                    Signal::Refused(why) => Event::Refused(why),
                    Signal::Connected => return,
                };
                // A full queue: the listener has something to do already and empties the subscription then.
                let _ = events.try_send(event);
            })?
        };
        let worker = {
            let (shared, events) = (shared.clone(), events.clone());
            move || {
                worker::run(&shared, &events);
                shared.worker_ended();
            }
        };
        thread::Builder::new().name("nvrcontrol-work".into()).spawn(worker)?;
        let listener = Listener {
            claim: Claim::new(&shared.client_id, &shared.started),
            id: settings.instance_id.clone(),
            other: None,
            bucket: Bucket::new(shared.max_rate, (shared.max_rate * 2.0).max(1.0), 0),
            complaints: Bucket::new(shared.max_rate, (shared.max_rate * 2.0).max(1.0), 0),
            shared: shared.clone(),
            subscription,
            received,
            told: false,
            unheard: false,
        };
        let listener = thread::Builder::new()
            .name("nvrcontrol".into())
            .spawn(move || listener.run(&receiver))
            // The other thread would wait for commands for ever.
            .inspect_err(|_| shared.close(Duration::ZERO))?;
        let watch = surroundings::bus(element.upcast_ref()).map(|bus| {
            let shared = Arc::downgrade(&shared);
            bus.enable_sync_message_emission();
            let handler = bus.connect_sync_message(None, move |_, message| {
                let changed = matches!(message.view(), gst::MessageView::Element(element)
                    if element.structure().is_some_and(|s| STATES.contains(&s.name().as_str())));
                if changed && let Some(shared) = shared.upgrade() {
                    shared.announce_soon();
                }
            });
            (bus, handler)
        });
        Ok(Self { shared, events, watch, listener: Some(listener) })
    }

    /// Ends in order: what was asked for is answered, and the last status says that the end was meant.
    pub fn stop(mut self) {
        if let Some((bus, handler)) = self.watch.take() {
            bus.disconnect(handler);
            bus.disable_sync_message_emission();
        }
        self.shared.close(PATIENCE);
        let _ = self.events.send(Event::Stop);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        self.shared.farewell();
    }
}

/// What an instance with these names listens to.
fn filters(prefix: &str, ids: &[&str]) -> Vec<String> {
    let status = ids.iter().map(|id| topic::status(prefix, id));
    [topic::commands(prefix)].into_iter().chain(status).collect()
}

/// A name that is being asked for.
struct Other {
    id: String,
    claim: Claim,
    reply: SyncSender<Result<(), String>>,
}

struct Listener {
    shared: Arc<Shared>,
    subscription: Subscription,
    /// An event says that there is something to read.
    received: Arc<AtomicBool>,
    id: String,
    claim: Claim,
    other: Option<Other>,
    bucket: Bucket,
    /// Answers to commands beyond that; more than as many are not even told so.
    complaints: Bucket,
    /// The application knows how the claim stands.
    told: bool,
    /// That the broker swallows the claim has been said.
    unheard: bool,
}

impl Listener {
    fn run(mut self, events: &Receiver<Event>) {
        // Whether there may be more to read.
        let mut more = false;
        loop {
            let deadline = [Some(&self.claim), self.other.as_ref().map(|other| &other.claim)]
                .into_iter()
                .flatten()
                .filter_map(Claim::deadline_ns)
                .min();
            let event = match deadline {
                _ if more => match events.try_recv() {
                    Ok(event) => Some(event),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return,
                },
                Some(at) => {
                    let wait = Duration::from_nanos(at.saturating_sub(self.shared.elapsed_ns()));
                    events.recv_timeout(wait).ok()
                }
                None => events.recv().ok(),
            };
            match event {
                Some(Event::Stop) => return,
                Some(event) => self.handle(event),
                None if deadline.is_none() && !more => return,
                None => {}
            }
            // Before reading: what comes from now on is told of again.
            self.received.store(false, Ordering::Release);
            more = self.read();
            let now = self.shared.elapsed_ns();
            let answer = self.claim.tick(now);
            self.follow(answer);
            let answer = self.other.as_mut().map(|other| other.claim.tick(now));
            if let Some(answer) = answer {
                self.follow_other(answer);
            }
        }
    }

    /// Reads what has come, so much at a time that the end and deadlines are seen. Whether there may be more.
    fn read(&mut self) -> bool {
        for _ in 0..TURN {
            let Some(delivery) = self.subscription.try_recv() else { return false };
            self.take(&delivery);
        }
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Received | Event::Stop => {}
            Event::Subscribed => {
                let now = self.shared.elapsed_ns();
                let answer = self.claim.subscribed(now);
                self.follow(answer);
                let answer = self.other.as_mut().map(|other| other.claim.subscribed(now));
                if let Some(answer) = answer {
                    self.follow_other(answer);
                }
                // What has changed meanwhile was not told.
                self.shared.announce_soon();
            }
            Event::Disconnected(why) | Event::Refused(why) => {
                self.warn(&why);
                self.tell("unreachable");
            }
            Event::Claim { id, reply } => {
                let claim = Claim::new(&self.shared.client_id, &self.shared.started);
                self.listen_to(&[&self.id, &id]);
                self.other = Some(Other { id, claim, reply });
            }
            Event::Settle { renamed } => {
                if let Some(other) = self.other.take()
                    && renamed
                {
                    (self.id, self.claim) = (other.id, other.claim);
                }
                self.listen_to(&[&self.id]);
            }
        }
    }

    fn listen_to(&self, ids: &[&str]) {
        let filters = filters(&self.shared.prefix, ids);
        let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), QoS::AtLeastOnce)).collect();
        if let Err(error) = self.subscription.set_filters(&filters) {
            gst::error!(CAT, "cannot listen to {ids:?}: {error}");
        }
    }

    fn take(&mut self, delivery: &Delivery) {
        let topic = delivery.topic();
        if topic == topic::commands(&self.shared.prefix) {
            self.command(delivery);
            return;
        }
        let Some(status) = Status::parse(delivery.payload()) else { return };
        let now = self.shared.elapsed_ns();
        if topic == topic::status(&self.shared.prefix, &self.id) {
            let answer = self.claim.heard(&status, delivery.retained(), now);
            self.follow(answer);
        } else if let Some(other) = &mut self.other
            && topic == topic::status(&self.shared.prefix, &other.id)
        {
            let answer = other.claim.heard(&status, delivery.retained(), now);
            self.follow_other(answer);
        }
    }

    fn follow(&mut self, answer: Answer) {
        match answer {
            Answer::Nothing => {}
            Answer::Ask => self.shared.ask(&self.id),
            Answer::Unheard => {
                let topic = topic::status(&self.shared.prefix, &self.id);
                if !std::mem::replace(&mut self.unheard, true) {
                    self.warn(&format!(
                        "the broker does not give back what is published on {topic}; its access list has to let this \
                         user publish and subscribe there"
                    ));
                }
                self.tell("unreachable");
                self.shared.ask(&self.id);
            }
            Answer::Assert => self.shared.announce_soon(),
            Answer::Claimed => {
                self.unheard = false;
                self.shared.claimed();
                self.tell("owner");
            }
            Answer::Taken(by) => {
                self.shared.lost();
                if let Some(element) = self.shared.element() {
                    gst::element_error!(
                        element,
                        gst::ResourceError::Busy,
                        (
                            "instance id {:?} is in use by another process ({by}); stop that one, or give this one \
                             another instance id",
                            self.id
                        )
                    );
                }
            }
        }
    }

    fn follow_other(&mut self, answer: Answer) {
        let Some(other) = &self.other else { return };
        match answer {
            Answer::Nothing | Answer::Assert => {}
            Answer::Ask | Answer::Unheard => self.shared.ask(&other.id),
            Answer::Claimed => drop(other.reply.try_send(Ok(()))),
            Answer::Taken(by) => {
                let why = format!("instance id {:?} is in use by another process ({by})", other.id);
                let _ = other.reply.try_send(Err(why));
            }
        }
    }

    fn command(&mut self, delivery: &Delivery) {
        let shared = &self.shared;
        // Until the name is ours, another process may be the one that is meant.
        if !shared.is_owner() {
            return;
        }
        let message = match read(delivery.payload(), &shared.id()) {
            Incoming::NotForUs => {
                shared.counters.ignored.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Incoming::Noise(why) => {
                shared.counters.malformed.fetch_add(1, Ordering::Relaxed);
                gst::debug!(CAT, "{} bytes that are no command: {why}", delivery.payload().len());
                return;
            }
            Incoming::Message(message) => message,
        };
        shared.counters.received.fetch_add(1, Ordering::Relaxed);
        // Before anything is answered: what is refused costs as much as what is carried out.
        let now = shared.elapsed_ns();
        if !self.bucket.take(now) {
            shared.counters.limited.fetch_add(1, Ordering::Relaxed);
            if self.complaints.take(now) {
                let why = format!("too many commands: {} per second are carried out", shared.max_rate);
                shared.answer(&message, Err(why), None);
            }
            return;
        }
        let command = match message.command.clone() {
            _ if delivery.retained() => {
                Err("a retained command is not carried out; publish it without the retain flag".into())
            }
            Ok(command) => shared.policy.check(&command).map(|()| command),
            Err(error) => Err(error),
        };
        match command {
            Err(error) => shared.answer(&message, Err(error), None),
            Ok(command) => {
                shared.answer(&message, Ok(AckStatus::Received), None);
                if let Err(why) =
                    shared.queue(Job::Command(Box::new(Order { message: message.clone(), command })))
                {
                    shared.answer(&message, Err(why), None);
                }
            }
        }
    }

    fn warn(&self, why: &str) {
        if let Some(element) = self.shared.element() {
            gst::element_warning!(element, gst::ResourceError::OpenReadWrite, ("no commands: {why}"));
        }
    }

    /// Tells the application, once, how the claim to the name stands.
    fn tell(&mut self, identity: &str) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        if let Some(element) = self.shared.element() {
            let structure = gst::Structure::builder(IDENTITY_MESSAGE)
                .field("instance-id", &self.id)
                .field("identity", identity)
                .build();
            // Fails only where no bus listens.
            let _ = element.post_message(gst::message::Element::builder(structure).src(&element).build());
        }
    }
}
