use std::sync::Arc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use parking_lot::{Condvar, Mutex};
use proptest::prelude::*;

use super::fake::{FakeBroker, Manner, TIMEOUT};
use super::*;

fn settings(properties: &[(&str, &str)]) -> BrokerSettings {
    gst::init().unwrap();
    let specs = BrokerSettings::properties();
    let mut settings = BrokerSettings::default();
    for (name, value) in properties {
        let spec = specs.iter().find(|spec| spec.name() == *name).unwrap();
        assert!(settings.set(&value.to_value(), spec), "{name}");
    }
    settings
}

pub(super) fn options(broker: &str) -> Result<Options, OptionsError> {
    settings(&[("broker", broker)]).resolve()
}

fn read(settings: &BrokerSettings, name: &str) -> Option<String> {
    let specs = BrokerSettings::properties();
    let spec = specs.iter().find(|spec| spec.name() == name).unwrap();
    settings.get(spec).unwrap().get().unwrap()
}

/// Remembers what an observer was told.
#[derive(Clone, Default)]
struct Notices(Arc<(Mutex<Vec<Notice>>, Condvar)>);

impl Notices {
    fn observer(&self) -> impl Fn(Notice) + Send + Sync + 'static {
        let this = self.clone();
        move |notice| {
            this.0.0.lock().push(notice);
            this.0.1.notify_all();
        }
    }

    fn until(&self, done: impl Fn(&[Notice]) -> bool) -> Vec<Notice> {
        let deadline = Instant::now() + TIMEOUT;
        let mut list = self.0.0.lock();
        while !done(&list) {
            assert!(!self.0.1.wait_until(&mut list, deadline).timed_out(), "gave up waiting: {list:?}");
        }
        list.clone()
    }

    fn outages(&self) -> Vec<String> {
        outages(&self.0.0.lock())
    }
}

fn outages(list: &[Notice]) -> Vec<String> {
    let why = |notice: &Notice| match notice {
        Notice::Disconnected(why) => Some(why.to_string()),
        _ => None,
    };
    list.iter().filter_map(why).collect()
}

fn open(broker: &FakeBroker, capacity: usize) -> (Publisher, Notices) {
    let notices = Notices::default();
    let publisher = Publisher::open(&options(&broker.url()).unwrap(), capacity, notices.observer()).unwrap();
    (publisher, notices)
}

fn message(text: &str, qos: QoS, token: u64) -> Message {
    Message::new("nvr/detections/1", text.as_bytes().to_vec(), qos, false, token)
}

#[test]
fn urls_of_brokers() {
    for (url, shown) in [
        ("mqtt://broker", "mqtt://broker:1883"),
        ("mqtts://broker/", "mqtts://broker:8883"),
        ("mqtt://user:secret@10.0.0.7:1884", "mqtt://10.0.0.7:1884"),
        ("mqtt://user@host", "mqtt://host:1883"),
        ("mqtt://[fe80::1]:2000", "mqtt://[fe80::1]:2000"),
        ("mqtt://a_b.local", "mqtt://a_b.local:1883"),
    ] {
        assert_eq!(options(url).unwrap_or_else(|e| panic!("{url}: {e}")).to_string(), shown);
    }
    for url in [
        "localhost",
        "localhost:1883",
        "http://host",
        "mqtt://",
        "mqtt://:1883",
        "mqtt://host:0",
        "mqtt://host:70000",
        "mqtt://host/topic",
        "mqtt://host?x=1",
        "mqtt://host#x",
        "mqtt://:secret@host",
        "mqtt://us%zz:secret@host",
        "mqtt://us%ff:secret@host",
        "mqtt://ho st",
        "mqtt://[::1",
        "\u{1}",
    ] {
        let error = options(url).expect_err(url).to_string();
        assert!(error.contains("property `broker`") && error.contains("mqtt://"), "{url}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn settings_are_checked_before_anything_starts() {
    for (name, value, expected) in [
        ("topic-prefix", "nvr/#", "topic prefix"),
        ("topic-prefix", "/nvr", "topic prefix"),
        ("client-id", "a\nb", "client-id"),
        ("client-id", &*"x".repeat(257), "client-id"),
    ] {
        let error = settings(&[(name, value)]).resolve().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let directory = tempfile::tempdir().unwrap();
    let junk = directory.path().join("junk.pem");
    std::fs::write(&junk, "-----BEGIN CERTIFICATE-----\n????\n").unwrap();
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for path in [&junk, &empty, &directory.path().join("missing.pem"), &directory.path().to_path_buf()] {
        let path = path.display().to_string();
        let error =
            settings(&[("broker", "mqtts://host"), ("ca-file", &path)]).resolve().unwrap_err().to_string();
        assert!(error.contains("ca-file") && error.contains(&path), "{error}");
        settings(&[("broker", "mqtt://host"), ("ca-file", &path)]).resolve().unwrap();
    }
}

#[test]
fn passwords_do_not_read_back() {
    let secret = settings(&[("broker", "mqtts://user:hunter2@host:99")]);
    assert_eq!(read(&secret, "broker").as_deref(), Some("mqtts://user:***@host:99"));
    let broken = settings(&[("broker", "mqtt:// user:hunter2@host")]);
    for shown in [format!("{secret:?}"), format!("{broken:?}"), read(&broken, "broker").unwrap()] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    for (text, shown) in [
        ("user:hunter2@host:1883", "(not a broker URL)"),
        ("rtsp://user:hunter2@host", "(not a broker URL)"),
        ("mqtt:hunter2", "(not a broker URL)"),
        ("mqtt://user:hunter2@", "(not a broker URL)"),
        ("mqtt://user:hun/ter#2?@host:1883", "mqtt://user:***@host:1883"),
        ("mqtt://user:1883/hunter2@host", "mqtt://user:***@host"),
        ("mqtt://host?password=hunter2", "mqtt://host"),
        ("mqtt://host/x#hunter2", "mqtt://host"),
        ("mqtt://localhost:1883", "mqtt://localhost:1883"),
        ("mqtts://[::1]:8883", "mqtts://[::1]:8883"),
    ] {
        assert_eq!(read(&settings(&[("broker", text)]), "broker").as_deref(), Some(shown), "{text}");
    }
    assert!(!format!("{:?}", options("mqtt://user:hunter2@host").unwrap()).contains("hunter2"));
    assert_eq!(read(&settings(&[("client-id", "me"), ("client-id", "")]), "client-id"), None);
    assert_eq!(read(&settings(&[("topic-prefix", "a/b")]), "topic-prefix").as_deref(), Some("a/b"));
}

proptest! {
    #[test]
    fn no_url_is_a_panic(url in "(mqtts?://)?[^\0]{0,40}") {
        let _ = options(&url);
        let _ = read(&settings(&[("broker", &url)]), "broker");
    }
}

#[test]
fn messages_arrive_and_are_confirmed_in_order() {
    let broker = FakeBroker::start(Manner::Polite);
    let (publisher, notices) = open(&broker, 1000);
    for i in 0..250 {
        publisher.publish(message(&i.to_string(), QoS::AtLeastOnce, i));
    }
    assert!(publisher.drain(TIMEOUT));
    assert_eq!(broker.payloads(250), (0..250).map(|i| i.to_string()).collect::<Vec<_>>());
    let confirmed: Vec<_> = notices
        .until(|list| list.len() == 251)
        .into_iter()
        .filter_map(|notice| if let Notice::Acknowledged(token) = notice { Some(token) } else { None })
        .collect();
    assert_eq!(confirmed, (0..250).collect::<Vec<_>>());
    let stats = publisher.stats();
    assert_eq!((stats.published, stats.acknowledged, stats.dropped, stats.queued), (250, 250, 0, 0));
    assert!(stats.connected && stats.bytes == (0..250).map(|i: u32| i.to_string().len() as u64).sum::<u64>());
    drop(publisher);
    broker.until(|seen| seen.farewells == 1, |_| ());
}

#[test]
fn a_cut_costs_no_confirmed_message_and_no_waiting_one() {
    let broker = FakeBroker::start(Manner::CutAfter(5));
    let (publisher, notices) = open(&broker, 1000);
    for i in 0..40 {
        publisher.publish(message(&i.to_string(), QoS::AtLeastOnce, i));
    }
    notices.until(|list| !outages(list).is_empty());
    broker.behave(Manner::Polite);
    assert!(wait(|| publisher.stats().acknowledged == 40));
    let payloads = broker.look(|seen| seen.messages.iter().map(|m| m.1.clone()).collect::<Vec<_>>());
    let second: Vec<_> = payloads[payloads.len() - 40..].to_vec();
    let expected: Vec<_> = (0..40).map(|i: u32| i.to_string().into_bytes()).collect();
    assert_eq!(second, expected, "everything that was not confirmed comes again, in order");
    let stats = publisher.stats();
    assert_eq!((stats.published, stats.reconnects, stats.dropped), (40, 1, 0));
    assert!(stats.retransmitted >= 5);
}

/// Waits for a condition that nothing announces.
fn wait(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

#[test]
fn a_broker_that_confirms_nothing_fills_the_queue_and_no_more() {
    let broker = FakeBroker::start(Manner::Silent);
    let (publisher, _notices) = open(&broker, 20);
    let begun = Instant::now();
    let mut count = 0;
    let full = wait(|| publisher.stats().connected)
        && wait(|| {
            publisher.publish(message("x", QoS::AtLeastOnce, 0));
            publisher.stats().published == 100
        });
    assert!(full, "the window of unconfirmed messages");
    for i in 0..10_000 {
        publisher.publish(message(&i.to_string(), QoS::AtLeastOnce, i));
        count += 1;
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
    let stats = publisher.stats();
    assert!(stats.published == 100 && stats.queued <= 123 && stats.dropped >= count - 23, "{stats:?}");
    let before = stats.queued + stats.dropped;
    assert!(!publisher.drain(Duration::from_millis(20)));
    publisher.interrupt(true);
    assert!(!publisher.drain(TIMEOUT), "an interrupted wait is over at once");
    assert!(begun.elapsed() < TIMEOUT);
    publisher.close();
    publisher.publish(message("late", QoS::AtMostOnce, 0));
    let stats = publisher.stats();
    assert_eq!((stats.queued, stats.dropped), (0, before + 1));
}

#[test]
fn every_way_to_be_turned_away_has_its_words() {
    for (manner, words) in [
        (Manner::Refuse(4), "user name or password"),
        (Manner::Refuse(5), "user name or password"),
        (Manner::Refuse(2), "client id"),
        (Manner::Refuse(3), "refuses the connection"),
        (Manner::Refuse(77), "cannot connect"),
        (Manner::Garble(&[b'H'; 200]), "cannot connect"),
        (Manner::Garble(&[0x20, 0xff, 0xff, 0xff, 0xff, 0xff]), "cannot connect"),
        (Manner::Garble(&[0x30, 0x02, 0, 0]), "cannot connect"),
        (Manner::HangUp, "connection lost"),
    ] {
        let broker = FakeBroker::start(manner);
        let (_publisher, notices) = open(&broker, 10);
        let why = outages(&notices.until(|list| !outages(list).is_empty())).remove(0);
        let place = format!("MQTT broker mqtt://127.0.0.1:{}", broker.port);
        assert!(why.starts_with(&place) && why.contains(words) && why.ends_with("trying again"), "{why}");
    }
}

#[test]
fn a_broker_that_hangs_up_is_not_hammered() {
    let broker = FakeBroker::start(Manner::HangUp);
    let begun = Instant::now();
    let (_publisher, notices) = open(&broker, 10);
    broker.until(|seen| seen.connections == 3, |_| ());
    assert!(begun.elapsed() >= Duration::from_millis(1500), "{:?}", begun.elapsed());
    // The connection is made each time, so each loss is an outage of its own.
    assert!((2..=3).contains(&notices.outages().len()), "{:?}", notices.outages());
}

#[test]
fn a_latecomer_learns_of_the_outage() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let options = options(&format!("mqtt://127.0.0.1:{port}")).unwrap();
    let first = Notices::default();
    let publisher = Publisher::open(&options, 10, first.observer()).unwrap();
    first.until(|list| !list.is_empty());
    let second = Notices::default();
    let _other = Publisher::open(&options, 10, second.observer()).unwrap();
    assert_eq!(second.outages(), first.outages());
    publisher.publish(message("lost", QoS::AtMostOnce, 0));
    let begun = Instant::now();
    assert!(!publisher.drain(TIMEOUT), "nothing to wait for");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn equal_settings_share_a_connection_and_others_do_not() {
    let broker = FakeBroker::start(Manner::Polite);
    let plain = options(&broker.url()).unwrap();
    let will = Will { topic: "nvr/control/status/x".into(), payload: b"offline".to_vec(), retain: true };
    let list = [
        plain.clone(),
        plain.clone(),
        Options { will: Some(will.clone()), ..plain.clone() },
        settings(&[("broker", &broker.url()), ("client-id", "own")]).resolve().unwrap(),
    ];
    let publishers: Vec<_> = list.iter().map(|o| Publisher::open(o, 10, |_| ()).unwrap()).collect();
    for (i, publisher) in publishers.iter().enumerate() {
        publisher.publish(message(&i.to_string(), QoS::AtLeastOnce, 0));
        assert!(publisher.drain(TIMEOUT));
    }
    let (mut ids, connections) = broker.look(|seen| (seen.client_ids.clone(), seen.connections));
    assert_eq!(connections, 3);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids.contains(&"own".to_string()));
    drop(publishers);
    broker.until(|seen| seen.farewells == 3, |_| ());

    let _publisher = Publisher::open(&list[2], 10, |_| ()).unwrap();
    let seen = broker.until(|seen| seen.connections == 4 && seen.will.is_some(), |seen| seen.will.clone());
    assert_eq!(seen, Some((will.topic, will.payload)));
}

#[test]
fn a_busy_publisher_leaves_room_for_the_others() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    // Queued before there is a connection, so that the order depends on nothing but the turns.
    let options = options(&format!("mqtt://127.0.0.1:{port}")).unwrap();
    let notices = Notices::default();
    let busy = Publisher::open(&options, 1000, notices.observer()).unwrap();
    let modest = Publisher::open(&options, 1000, |_| ()).unwrap();
    notices.until(|list| !list.is_empty());
    for i in 0..500 {
        busy.publish(message(&format!("busy {i}"), QoS::AtMostOnce, i));
    }
    modest.publish(message("modest", QoS::AtMostOnce, 0));
    let broker = FakeBroker::start_at(port, Manner::Polite);
    let payloads = broker.payloads(501);
    let position = payloads.iter().position(|payload| payload == "modest").unwrap();
    assert!(position <= 2, "{position}");
}

#[test]
fn a_message_that_the_broker_cuts_over_is_given_up_alone() {
    let broker = FakeBroker::start(Manner::Touchy("nvr/forbidden"));
    let (publisher, notices) = open(&broker, 100);
    for i in 0..30 {
        let topic = if i == 10 { "nvr/forbidden" } else { "nvr/detections/1" };
        let text = i.to_string();
        publisher.publish(Message::new(topic, text.into_bytes(), QoS::AtLeastOnce, false, i));
    }
    assert!(wait(|| publisher.stats().acknowledged == 29 && publisher.stats().queued == 0));
    let refused = |list: &[Notice]| -> Vec<_> {
        list.iter()
            .filter_map(|notice| match notice {
                Notice::Refused(token, why) => Some((*token, why.clone())),
                _ => None,
            })
            .collect()
    };
    let list = refused(&notices.until(|list| !refused(list).is_empty()));
    let why = list[0].1.clone().unwrap();
    assert_eq!((list.len(), list[0].0), (1, 10));
    assert!(why.contains("over messages for nvr/forbidden") && why.contains("access list"), "{why}");
    assert_eq!(publisher.stats().dropped, 1);

    // More of the same costs no further cut and no further words.
    let connections = broker.look(|seen| seen.connections);
    publisher.publish(Message::new("nvr/forbidden", b"again".to_vec(), QoS::AtLeastOnce, false, 50));
    publisher.publish(message("after", QoS::AtLeastOnce, 51));
    assert!(publisher.drain(TIMEOUT));
    let barred = |list: &[Notice]| {
        list.iter().any(|notice| matches!(notice, Notice::Barred(50, until) if *until > Instant::now()))
    };
    let list = refused(&notices.until(barred));
    assert_eq!(list.len(), 1, "the owner may want to keep what was never tried: {list:?}");
    assert_eq!((publisher.stats().dropped, publisher.stats().acknowledged), (2, 30));
    assert_eq!(broker.look(|seen| seen.connections), connections);
}
