use super::*;
use crate::mqtt::BrokerSettings;
use crate::mqtt::fake::{FakeBroker, Manner, TIMEOUT};
use gst::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

const TOPIC: &str = "nvr/detections/1";

fn open(broker: &FakeBroker, directory: &Path) -> Spooler {
    try_open(broker, directory, || false).unwrap()
}

fn try_open(
    broker: &FakeBroker,
    directory: &Path,
    is_abandoned: impl Fn() -> bool + Send + Sync + 'static,
) -> Result<Spooler, SpoolerError> {
    gst::init().unwrap();
    let mut settings = BrokerSettings::default();
    let specs = BrokerSettings::properties();
    let spec = specs.iter().find(|spec| spec.name() == "broker").unwrap();
    settings.set(&broker.url().to_value(), spec);
    Spooler::open(&settings.resolve().unwrap(), 1000, directory, 1 << 20, |_| (), is_abandoned)
}

fn publish(spooler: &Spooler, texts: impl IntoIterator<Item = u64>) {
    for text in texts {
        spooler.publish(Message::new(TOPIC, text.to_string().into_bytes(), QoS::AtLeastOnce, false, 0));
    }
}

/// Waits for what the worker has told of itself.
fn until(spooler: &Spooler, done: impl Fn(&Inbox) -> bool) {
    let deadline = Instant::now() + 2 * TIMEOUT;
    let mut inbox = spooler.shared.inbox.lock();
    while !done(&inbox) {
        let late = spooler.shared.changed.wait_until(&mut inbox, deadline).timed_out();
        assert!(!late, "gave up waiting: {:?}", inbox.totals);
    }
}

fn texts(list: impl IntoIterator<Item = u64>) -> Vec<String> {
    list.into_iter().map(|text| text.to_string()).collect()
}

#[test]
fn what_the_broker_did_not_confirm_comes_before_what_it_never_saw() {
    let directory = tempfile::tempdir().unwrap();
    let broker = FakeBroker::start(Manner::Silent);
    let spooler = open(&broker, directory.path());
    until(&spooler, |_| spooler.publisher.stats().connected);
    publish(&spooler, 0..100);
    broker.payloads(100);
    // The window is full: these wait, and are the first in the spool unless somebody sees to it.
    publish(&spooler, 100..200);
    spooler.close();
    drop(spooler);

    broker.behave(Manner::Polite);
    let spooler = open(&broker, directory.path());
    assert_eq!(broker.payloads(300)[100..], texts(0..200));
    drop(spooler);
}

#[test]
fn a_barred_topic_costs_the_message_on_trial_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let broker = FakeBroker::start(Manner::Touchy(TOPIC));
    let spooler = open(&broker, directory.path());
    publish(&spooler, 0..300);
    until(&spooler, |inbox| inbox.barred);
    publish(&spooler, 300..310);
    until(&spooler, |inbox| inbox.messages.is_empty() && inbox.totals.spool_messages == 309);
    assert!(!spooler.drain(TIMEOUT), "nothing to wait for");
    let (stats, totals) = spooler.stats();
    assert_eq!((stats.dropped, totals.spool_dropped, totals.spool_messages), (1, 1, 309), "{stats:?}");
    drop(spooler);

    let before = broker.look(|seen| seen.messages.len());
    broker.behave(Manner::Polite);
    let spooler = open(&broker, directory.path());
    assert_eq!(broker.payloads(before + 309)[before..], texts(1..310));
    drop(spooler);
}

#[test]
fn what_was_barred_goes_out_when_the_bar_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let broker = FakeBroker::start(Manner::Silent);
    let spooler = open(&broker, directory.path());
    until(&spooler, |_| spooler.publisher.stats().connected);
    publish(&spooler, [7]);
    broker.payloads(1);
    let bar = Instant::now() + Duration::from_millis(300);
    spooler.shared.tell(|inbox| inbox.notices.push_back(Notice::Barred(1, bar)));
    until(&spooler, |inbox| inbox.barred && inbox.totals.spool_messages == 1);
    assert_eq!(broker.payloads(2), texts([7, 7]));
    assert!(Instant::now() >= bar);
    until(&spooler, |inbox| !inbox.barred);
}

#[test]
fn the_spool_of_an_element_that_hangs_goes_to_its_successor() {
    let directory = tempfile::tempdir().unwrap();
    let broker = FakeBroker::start(Manner::Silent);
    let hangs = Arc::new(AtomicBool::new(false));
    let first = {
        let hangs = hangs.clone();
        try_open(&broker, directory.path(), move || hangs.load(Ordering::Relaxed)).unwrap()
    };
    publish(&first, 0..10);
    broker.payloads(10);
    let Err(error) = try_open(&broker, directory.path(), || false) else {
        panic!("one of two that are well")
    };
    assert!(error.to_string().contains("in use"), "{error}");

    hangs.store(true, Ordering::Relaxed);
    broker.behave(Manner::Polite);
    let second = open(&broker, directory.path());
    assert_eq!(broker.payloads(20)[10..], texts(0..10));
    // Whatever it still does, it does not do it with the spool.
    publish(&first, 10..20);
    publish(&second, 20..30);
    until(&second, |inbox| inbox.idle && inbox.messages.is_empty());
    assert_eq!(broker.payloads(30)[20..], texts(20..30));
    drop(first);
}
