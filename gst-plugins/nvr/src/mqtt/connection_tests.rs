use std::io::{Read, Write};
use std::net::TcpListener;

use super::super::fake::{FakeBroker, Manner, TIMEOUT};
use super::super::tests::options;
use super::super::{Message, Publisher};
use super::*;

#[test]
fn a_newcomer_hears_of_the_end_of_an_outage_last() {
    gst::init().unwrap();
    let broker = FakeBroker::start(Manner::Silent);
    let options = options(&broker.url()).unwrap();
    // A connection without a worker: this test tells what happens to it.
    let shared = Arc::new(Shared::new(options.clone()));
    let connection = Connection { shared: shared.clone(), worker: std::thread::current().id() };
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (inside, entered) = std::sync::mpsc::channel();
    let observer = {
        let heard = heard.clone();
        move |notice| {
            let connected = matches!(notice, Notice::Connected);
            if !connected {
                inside.send(()).unwrap();
                // Time for the other to overtake, were it allowed to.
                let deadline = Instant::now() + Duration::from_millis(200);
                while heard.lock().len() < 2 && Instant::now() < deadline {
                    std::thread::yield_now();
                }
            }
            heard.lock().push(connected);
        }
    };
    let publisher = Publisher::open(&options, 1, observer).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while heard.lock().is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    shared.disconnected("away", false);
    std::thread::scope(|scope| {
        scope.spawn(|| connection.join(publisher.inner()));
        entered.recv().unwrap();
        shared.connected();
    });
    assert_eq!(*heard.lock(), [true, false, true]);
}

/// Numbers that look random and are the same each time (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Something between noise and MQTT: plausible packet types, small lengths and ids.
fn noise(numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..numbers.next() % 6 {
        let len = numbers.next() % 9;
        bytes.push(if numbers.next().is_multiple_of(8) {
            numbers.next() as u8
        } else {
            (numbers.next() % 16) as u8 * 16 + 2
        });
        bytes.push(if numbers.next().is_multiple_of(8) { numbers.next() as u8 } else { len as u8 });
        bytes.extend((0..len).map(|_| (numbers.next() % 12) as u8));
    }
    bytes
}

#[test]
fn a_broker_that_stops_confirming_is_left_and_nothing_is_lost() {
    gst::init().unwrap();
    let broker = FakeBroker::start(Manner::Silent);
    let options = options(&broker.url()).unwrap();
    let shared = Shared { patience: Duration::from_millis(300), ..Shared::new(options.clone()) };
    let publisher = Publisher::open(&Options { port: 1, ..options }, 1000, |_| ()).unwrap();
    shared.add(publisher.inner());
    for i in 0..150 {
        publisher.publish(Message::new("t", vec![i], QoS::AtLeastOnce, false, 0));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let session = async { time::timeout(TIMEOUT, session(&shared, &mut 0)).await };
    let ended = runtime.block_on(session).expect("left with the window full and pings answered");
    let failure = ended.unwrap_err();
    assert!(failure.connected && !failure.refused && failure.why.contains("confirm"), "{}", failure.why);
    let stats = publisher.stats();
    assert_eq!((stats.queued, stats.dropped), (150, 0), "{stats:?}");
}

#[test]
fn no_broker_can_make_the_client_panic() {
    const ROUNDS: usize = 2000;
    gst::init().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for i in 0..ROUNDS {
            let (mut stream, _) = listener.accept().unwrap();
            let mut greeting = [0; 1024];
            let _ = stream.read(&mut greeting);
            if i % 4 != 0 {
                let _ = stream.write_all(&[0x20, 2, 0, 0]);
            }
            let _ = stream.write_all(&noise(&mut numbers));
        }
    });
    let mut options = options(&format!("mqtt://127.0.0.1:{port}")).unwrap();
    let shared = Shared::new(options.clone());
    // A publisher of a broker that is not there, whose queue this session drains.
    options.port = 1;
    let publisher = Publisher::open(&options, 100, |_| ()).unwrap();
    shared.add(publisher.inner());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for i in 0..ROUNDS {
        publisher.publish(Message::new("t", vec![0; i % 50], QoS::AtLeastOnce, false, 0));
        assert!(runtime.block_on(session(&shared, &mut 0)).is_err());
    }
    server.join().unwrap();
    let stats = publisher.stats();
    assert_eq!(stats.queued + stats.acknowledged + stats.dropped, ROUNDS as u64, "none got lost: {stats:?}");
}
