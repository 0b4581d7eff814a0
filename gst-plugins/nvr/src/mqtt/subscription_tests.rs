use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::fake::{FakeBroker, Manner, TIMEOUT};
use super::tests::options;
use super::*;

/// Remembers what an observer was told.
#[derive(Clone, Default)]
struct Signals(Arc<(Mutex<Vec<Signal>>, Condvar)>);

impl Signals {
    fn observer(&self) -> impl Fn(Signal) + Send + Sync + 'static {
        let this = self.clone();
        move |signal| {
            this.0.0.lock().push(signal);
            this.0.1.notify_all();
        }
    }

    fn until(&self, done: impl Fn(&[Signal]) -> bool) -> Vec<Signal> {
        let deadline = Instant::now() + TIMEOUT;
        let mut list = self.0.0.lock();
        while !done(&list) {
            assert!(!self.0.1.wait_until(&mut list, deadline).timed_out(), "gave up waiting: {list:?}");
        }
        list.clone()
    }

    /// Waits for so many of one kind.
    fn count(&self, count: usize, kind: impl Fn(&Signal) -> bool) {
        self.until(|list| list.iter().filter(|signal| kind(signal)).count() >= count);
    }
}

fn subscribed(signal: &Signal) -> bool {
    matches!(signal, Signal::Subscribed)
}

fn received(signal: &Signal) -> bool {
    matches!(signal, Signal::Received)
}

fn listen(broker: &FakeBroker, filters: &[&str], capacity: usize) -> (Subscription, Signals) {
    let signals = Signals::default();
    let filters: Vec<_> = filters.iter().map(|filter| (*filter, QoS::AtMostOnce)).collect();
    let options = options(&broker.url()).unwrap();
    let subscription = Subscription::open(&options, &filters, capacity, signals.observer()).unwrap();
    (subscription, signals)
}

fn texts(subscription: &Subscription) -> Vec<String> {
    std::iter::from_fn(|| subscription.try_recv())
        .map(|delivery| String::from_utf8(delivery.payload().to_vec()).unwrap())
        .collect()
}

#[test]
fn each_gets_what_falls_under_its_filters_over_one_connection() {
    let broker = FakeBroker::start(Manner::Polite);
    let (one, one_signals) = listen(&broker, &["nvr/detections/1", "nvr/control/#"], 10);
    let (all, all_signals) = listen(&broker, &["nvr/detections/+"], 10);
    one_signals.count(1, subscribed);
    all_signals.count(1, subscribed);
    for (topic, payload) in [
        ("nvr/detections/1", "a"),
        ("nvr/detections/2", "b"),
        ("nvr/control/commands", "c"),
        ("other/detections/1", "d"),
        ("nvr/detections/1", "e"),
    ] {
        broker.send(topic, payload.as_bytes());
    }
    one_signals.count(3, received);
    all_signals.count(3, received);
    assert_eq!(texts(&one), ["a", "c", "e"]);
    assert_eq!(texts(&all), ["a", "b", "e"]);
    assert_eq!(
        one.stats(),
        SubscriptionStats { received: 3, bytes: 3, connected: true, ..Default::default() }
    );
    assert_eq!(broker.look(|seen| seen.connections), 1);

    // What nobody needs any more is given up, and the last to leave takes the connection along.
    drop(one);
    broker.until(|seen| seen.filters.iter().filter(|filter| filter.starts_with('-')).count() == 2, |_| ());
    all.set_filters(&[("nvr/detections/7", QoS::AtLeastOnce)]).unwrap();
    let filters = broker.until(
        |seen| seen.filters.contains(&"-nvr/detections/+".to_string()) && seen.filters.len() == 7,
        |seen| seen.filters.clone(),
    );
    assert!(filters.contains(&"nvr/detections/7".to_string()), "{filters:?}");
    drop(all);
    broker.until(|seen| seen.farewells == 1, |_| ());
}

#[test]
fn filters_are_asked_for_again_after_a_cut() {
    let broker = FakeBroker::start(Manner::Polite);
    let (subscription, signals) = listen(&broker, &["a/+", "b/#"], 10);
    signals.count(1, subscribed);
    broker.send("a/1", b"before");
    signals.count(1, received);
    broker.cut();
    signals.until(|list| list.iter().any(|signal| matches!(signal, Signal::Disconnected(_))));
    signals.count(2, subscribed);
    broker.send("b/1", b"after");
    signals.count(2, received);
    assert_eq!(texts(&subscription), ["before", "after"]);
    assert_eq!(broker.look(|seen| seen.filters.clone()), ["a/+", "b/#", "a/+", "b/#"]);
    assert_eq!(subscription.stats().reconnects, 1);
}

#[test]
fn a_reader_that_is_away_costs_messages_and_no_memory() {
    let broker = FakeBroker::start(Manner::Polite);
    let (few, few_signals) = listen(&broker, &["few"], 3);
    let (large, large_signals) = listen(&broker, &["large"], 1000);
    few_signals.count(1, subscribed);
    large_signals.count(1, subscribed);
    for i in 0..10 {
        broker.send("few", i.to_string().as_bytes());
    }
    // Each of these fits, and not all of them together; the last does not fit at all.
    let payload = vec![b'x'; 3 << 20];
    for _ in 0..4 {
        broker.send("large", &payload);
    }
    broker.send("large", &vec![b'x'; 10 << 20]);
    broker.send("large", b"end");
    few_signals.count(10, received);
    large_signals.count(5, received);
    assert_eq!(texts(&few), ["7", "8", "9"]);
    assert_eq!(few.stats().dropped, 7);
    let stats = large.stats();
    assert_eq!((stats.received, stats.queued, stats.dropped), (6, 3, 3), "{stats:?}");
    let sizes: Vec<_> = texts(&large).iter().map(String::len).collect();
    assert_eq!(sizes, [3 << 20, 3 << 20, 3]);
    assert_eq!(broker.look(|seen| seen.connections), 1, "a message that is too large costs no connection");
}

#[test]
fn waiting_ends_with_a_message_with_time_and_with_the_subscription() {
    let broker = FakeBroker::start(Manner::Polite);
    let (subscription, signals) = listen(&broker, &["t"], 3);
    signals.count(1, subscribed);
    assert!(subscription.recv(Duration::from_millis(1)).is_none());
    broker.send("t", b"1");
    let delivery = subscription.recv(TIMEOUT).expect("a message");
    assert_eq!((delivery.topic(), delivery.payload(), delivery.retained()), ("t", &b"1"[..], false));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| subscription.recv(TIMEOUT));
        subscription.close();
        assert!(waiting.join().unwrap().is_none());
    });
    assert!(begun.elapsed() < TIMEOUT / 2);
}

#[test]
fn what_the_broker_refuses_is_said_and_what_is_no_filter_too() {
    let broker = FakeBroker::start(Manner::Secretive);
    let (_subscription, signals) = listen(&broker, &["secret/#"], 3);
    let list = signals.until(|list| list.iter().any(|signal| matches!(signal, Signal::Refused(_))));
    let why = list.iter().find_map(|signal| match signal {
        Signal::Refused(why) => Some(why.clone()),
        _ => None,
    });
    assert!(why.is_some_and(|why| why.contains("secret/#") && why.contains("access list")));
    assert!(!list.iter().any(subscribed));
    let error =
        Subscription::open(&options(&broker.url()).unwrap(), &[("a/#/b", QoS::AtMostOnce)], 3, |_| ());
    assert!(error.unwrap_err().to_string().contains("a/#/b"));
}

#[test]
fn what_is_far_too_large_silences_its_own_filter_only() {
    let broker = FakeBroker::start(Manner::Heavy("a/heavy"));
    let publisher = Publisher::open(&options(&broker.url()).unwrap(), 10, |_| ()).unwrap();
    let (subscription, signals) = listen(&broker, &["a/heavy", "a/light"], 10);
    let list = signals.until(|list| list.iter().any(|signal| matches!(signal, Signal::Refused(_))));
    let lost = |signal: &Signal| match signal {
        Signal::Disconnected(why) | Signal::Refused(why) => Some(why.to_string()),
        _ => None,
    };
    let words: Vec<_> = list.iter().filter_map(lost).collect();
    assert!(words[0].contains("18.0 MiB") && words[0].contains("a/heavy, a/light"), "{words:?}");
    assert!(words.last().unwrap().contains("retains a message of 18.0 MiB under a/heavy"), "{words:?}");
    // From here on the connection lasts: the other filter is heard and messages are confirmed.
    broker.until(|seen| seen.connections == 3 && seen.filters.last().unwrap() == "a/light", |_| ());
    broker.send("a/light", b"feather");
    signals.count(1, received);
    assert_eq!(texts(&subscription), ["feather"]);
    publisher.publish(Message::new("b", b"x".to_vec(), QoS::AtLeastOnce, false, 0));
    assert!(publisher.drain(TIMEOUT));
    assert_eq!(broker.look(|seen| seen.connections), 3);
}
