//! nvrmqttsink with a real mosquitto.

use std::path::Path;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstnvr::meta;
use nvr_core::detection::{Analysis, CaptureTime, Clock, Detection, FrameFacts};
use nvr_core::event::DetectionEvent;
use nvr_core::geometry::Rect;
use nvr_tests::mosquitto::{Access, Mosquitto, PASSWORD_IN_URL, Received, TIMEOUT};

const TOPIC: &str = "nvr/detections/7";
/// 2025-10-25T10:30:00.123Z
const CAPTURE_NS: u64 = 1_761_388_200_123_000_000;

fn init() {
    static REGISTERED: std::sync::Once = std::sync::Once::new();
    REGISTERED.call_once(|| {
        gst::init().unwrap();
        gstnvr::plugin_register_static().unwrap();
    });
}

/// A camera whose frames the test makes: appsrc ! nvrmqttsink.
struct Camera {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    sink: gst::Element,
}

impl Camera {
    fn new(broker: &str, properties: &[(&str, &str)]) -> Self {
        init();
        let caps = gst_video::VideoInfo::builder(gst_video::VideoFormat::Gray8, 1280, 720)
            .fps(gst::Fraction::new(25, 1))
            .build()
            .and_then(|info| info.to_caps())
            .unwrap();
        let source = gst_app::AppSrc::builder()
            .caps(&caps)
            .format(gst::Format::Time)
            .is_live(true)
            .do_timestamp(true)
            .build();
        let sink = gst::ElementFactory::make("nvrmqttsink")
            .property("broker", broker)
            .property("source-id", 7u32)
            .property("instance-id", "test")
            .build()
            .unwrap();
        for (name, value) in properties {
            sink.set_property_from_str(name, value);
        }
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([source.upcast_ref(), &sink]).unwrap();
        source.link(&sink).unwrap();
        Self { pipeline, source, sink }
    }

    fn playing(broker: &str, properties: &[(&str, &str)]) -> Self {
        let camera = Self::new(broker, properties);
        let begun = Instant::now();
        camera.pipeline.set_state(gst::State::Playing).unwrap();
        let (result, state, _) = camera.pipeline.state(gst::ClockTime::from_seconds(5));
        result.unwrap();
        assert_eq!(state, gst::State::Playing);
        assert!(begun.elapsed() < Duration::from_secs(2), "the broker must not hold up the start");
        camera
    }

    /// One frame with these facts and detections. The frame has hardly any memory: nobody looks at it.
    fn push(&self, facts: &FrameFacts, detections: &[Detection]) {
        let mut buffer = gst::Buffer::with_size(1).unwrap();
        {
            let buffer = buffer.get_mut().unwrap();
            meta::set_facts(buffer, facts);
            meta::add_detections(buffer, 1280, 720, detections);
        }
        self.source.push_buffer(buffer).unwrap();
    }

    fn person(&self, frame_id: u64) {
        self.push(&analysed(frame_id), &[person()]);
    }

    fn persons(&self, frame_ids: std::ops::Range<u64>) {
        frame_ids.for_each(|id| self.person(id));
    }

    fn stat(&self, name: &str) -> u64 {
        self.sink.property::<gst::Structure>("stats").get(name).unwrap()
    }

    fn connected(&self) -> bool {
        self.sink.property::<gst::Structure>("stats").get("connected").unwrap()
    }

    /// Waits for a condition on the statistics, which nothing announces.
    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !condition(self) {
            let stats = self.sink.property::<gst::Structure>("stats");
            assert!(Instant::now() < deadline, "never {what}: {stats}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The next warning, in words.
    fn warning(&self) -> String {
        let bus = self.pipeline.bus().unwrap();
        let message = bus
            .timed_pop_filtered(
                gst::ClockTime::from_seconds(TIMEOUT.as_secs()),
                &[gst::MessageType::Warning, gst::MessageType::Error],
            )
            .expect("a warning");
        match message.view() {
            gst::MessageView::Warning(warning) => warning.error().to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn warnings_left(&self) -> usize {
        let bus = self.pipeline.bus().unwrap();
        std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Warning, gst::MessageType::Error])).count()
    }

    fn end_of_stream(&self) {
        self.source.end_of_stream().unwrap();
        let bus = self.pipeline.bus().unwrap();
        bus.timed_pop_filtered(gst::ClockTime::from_seconds(10), &[gst::MessageType::Eos]).expect("EOS");
    }

    fn stop(&self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn person() -> Detection {
    Detection {
        class_name: "person".into(),
        class_id: Some(0),
        confidence: 0.92,
        rect: Rect::new(100.0, 150.0, 80.0, 200.0),
        tracker_id: Some(42),
    }
}

fn analysed(frame_id: u64) -> FrameFacts {
    FrameFacts {
        frame_id: Some(frame_id),
        capture: Some(CaptureTime { unix_ns: CAPTURE_NS, clock: Clock::Ntp }),
        analysis: Some(Analysis {
            model_id: "yolox-nano".into(),
            inference_time_ms: 14.2,
            capture: None,
            frame_id: None,
        }),
    }
}

fn events(messages: &[Received]) -> Vec<DetectionEvent> {
    messages.iter().map(|m| DetectionEvent::from_json(&m.payload).unwrap()).collect()
}

fn frame_ids(messages: &[Received]) -> Vec<u64> {
    events(messages).iter().map(|event| event.frame_id).collect()
}

/// Without the repetitions that QoS 1 allows.
fn first_of_each(ids: &[u64]) -> Vec<u64> {
    let mut seen = std::collections::HashSet::new();
    ids.iter().copied().filter(|id| seen.insert(*id)).collect()
}

#[test]
fn events_arrive_complete_and_in_order() {
    for qos in ["0", "1"] {
        let Some(broker) = Mosquitto::start(Access::Open) else { return };
        let subscriber = broker.subscribe("nvr/detections/+");
        let camera = Camera::playing(&broker.url(), &[("qos", qos)]);
        camera.persons(0..200);
        let messages = subscriber.wait(200).unwrap();
        assert_eq!(frame_ids(&messages), (0..200).collect::<Vec<_>>());
        let first = &messages[0];
        assert_eq!((first.topic.as_str(), first.retain, first.qos.to_string().as_str()), (TOPIC, false, qos));
        let text = std::str::from_utf8(&first.payload).unwrap();
        let start = concat!(
            r#"{"version":"1.0","instance_id":"test","source_id":7,"frame_id":0,"#,
            r#""timestamp":"2025-10-25T10:30:00.123Z","clock":"ntp","model_id":"yolox-nano","#,
            r#""inference_time_ms":14.2,"frame_width":1280,"frame_height":720,"#,
            r#""detections":[{"class_name":"person","class_id":0,"confidence":0.92,"#,
            r#""bbox":{"x":100.0,"y":150.0,"width":80.0,"height":200.0},"tracker_id":42}],"latency_ms":"#
        );
        assert!(text.starts_with(start), "{text}");
        let last = events(&messages).pop().unwrap();
        assert!(
            last.fps.is_some_and(|fps| fps > 0.0) && last.latency_ms.is_some_and(|ms| ms > 0.0),
            "{last:?}"
        );

        camera.until("counted", |c| c.stat("published") == 200 && c.stat("queued") == 0);
        assert_eq!(camera.stat("acknowledged"), if qos == "1" { 200 } else { 0 });
        assert_eq!((camera.stat("frames"), camera.stat("events"), camera.stat("dropped")), (200, 200, 0));
        let bytes: usize = messages.iter().map(|m| m.payload.len()).sum();
        assert_eq!(camera.stat("bytes"), bytes as u64);
        assert_eq!(camera.warnings_left(), 0);
    }
}

#[test]
fn every_encoding_arrives_and_changes_while_playing() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let subscriber = broker.subscribe("#");
    let camera = Camera::playing(&broker.url(), &[("payload", "msgpack"), ("topic-prefix", "nvr/shop-7")]);
    camera.person(1);
    let messages = subscriber.wait(1).unwrap();
    assert_eq!(messages[0].topic, "nvr/shop-7/detections/7");
    let value: serde_json::Value = rmp_serde::from_slice(&messages[0].payload).unwrap();
    assert_eq!(value["detections"][0]["bbox"]["height"], 200.0);
    assert_eq!(value["timestamp"], "2025-10-25T10:30:00.123Z");

    camera.sink.set_property_from_str("payload", "dlstreamer");
    camera.person(2);
    let messages = subscriber.wait(2).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&messages[1].payload).unwrap();
    let object = &value["objects"][0];
    assert_eq!(object["detection"]["bounding_box"]["x_min"], 0.078125);
    assert_eq!(
        (&object["roi_type"], &object["id"], &object["w"]),
        (&"person".into(), &42.into(), &80.into())
    );
    assert_eq!(value["resolution"]["width"], 1280);
    assert_eq!(value["tags"]["frame_id"], 2);

    camera.sink.set_property_from_str("payload", "json");
    camera.sink.set_property("instance-id", "renamed");
    camera.person(3);
    let event = events(&subscriber.wait(3).unwrap()[2..]).remove(0);
    assert_eq!((event.instance_id.as_str(), event.frame_id), ("renamed", 3));
}

#[test]
fn only_analysed_frames_are_events() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let subscriber = broker.subscribe("#");
    let camera = Camera::playing(&broker.url(), &[]);
    let passing = |id| FrameFacts { analysis: None, ..analysed(id) };
    camera.push(&passing(1), &[]);
    camera.push(&analysed(2), &[]);
    camera.push(&passing(3), &[person()]);
    camera.push(&FrameFacts::default(), &[person()]);
    let list = events(&subscriber.wait(3).unwrap());
    assert_eq!(
        list.iter().map(|e| e.frame_id).collect::<Vec<_>>(),
        [2, 3, 3],
        "the last is the fourth frame: 3"
    );
    assert_eq!(list.iter().map(|e| e.detections.len()).collect::<Vec<_>>(), [0, 1, 1]);
    assert_eq!(list[1].model_id, "external");
    assert_eq!(list[2].clock, Clock::Arrival);
    let age = list[2].latency_ms.unwrap();
    assert!((-1.0..2000.0).contains(&age), "arrival time from running time: {age} ms");

    camera.sink.set_property_from_str("publish", "detections-only");
    camera.push(&analysed(5), &[]);
    camera.person(6);
    assert_eq!(frame_ids(&subscriber.wait(4).unwrap()), [2, 3, 3, 6]);
    assert_eq!((camera.stat("frames"), camera.stat("events")), (6, 4));
}

#[test]
fn a_result_of_async_inference_belongs_to_its_own_frame() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let subscriber = broker.subscribe("#");
    let camera = Camera::playing(&broker.url(), &[]);
    let mut facts = analysed(20);
    if let Some(analysis) = &mut facts.analysis {
        analysis.frame_id = Some(15);
        analysis.capture = Some(CaptureTime { unix_ns: CAPTURE_NS - 200_000_000, clock: Clock::Ntp });
    }
    camera.push(&facts, &[person()]);
    let event = events(&subscriber.wait(1).unwrap()).remove(0);
    assert_eq!((event.frame_id, event.timestamp.as_str()), (15, "2025-10-25T10:29:59.923Z"));
}

#[test]
fn tls_by_a_certificate_authority_of_ones_own() {
    let Some(broker) = Mosquitto::start(Access::Tls) else { return };
    let subscriber = broker.subscribe("#");
    let ca = broker.path("ca.crt").display().to_string();
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("mqtts://{host}:{}", broker.port());
        let camera = Camera::playing(&url, &[("ca-file", &ca), ("qos", "1")]);
        camera.person(1);
        camera.until("acknowledged", |c| c.stat("acknowledged") == 1);
    }
    assert_eq!(subscriber.wait(2).unwrap().len(), 2);

    let stranger = tempfile::tempdir().unwrap();
    nvr_tests::mosquitto::certificates(stranger.path()).unwrap();
    let other = stranger.path().join("ca.crt").display().to_string();
    let camera = Camera::playing(&broker.url(), &[("ca-file", &other)]);
    let warning = camera.warning();
    assert!(warning.contains("certificate") && warning.contains("ca-file"), "{warning}");
}

#[test]
fn tls_with_a_client_certificate() {
    let Some(broker) = Mosquitto::start(Access::MutualTls) else { return };
    let file = |name: &str| broker.path(name).display().to_string();
    let (ca, cert, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
    let all = [("ca-file", ca.as_str()), ("cert-file", &cert), ("key-file", &key), ("qos", "1")];
    let camera = Camera::playing(&broker.url(), &all);
    camera.person(1);
    camera.until("acknowledged", |c| c.stat("acknowledged") == 1);

    let camera = Camera::playing(&broker.url(), &all[..1]);
    let warning = camera.warning();
    assert!(warning.contains("mqtts://localhost"), "{warning}");
    assert!(!camera.connected());

    let camera = Camera::new(&broker.url(), &all[..2]);
    assert!(camera.pipeline.set_state(gst::State::Playing).is_err());
}

#[test]
fn passwords_open_the_door_and_stay_secret() {
    let Some(broker) = Mosquitto::start(Access::Password) else { return };
    let subscriber = broker.subscribe("#");
    let camera = Camera::playing(&broker.url(), &[]);
    camera.person(1);
    subscriber.wait(1).unwrap();
    let shown: String = camera.sink.property("broker");
    assert!(shown.contains("camera") && !shown.contains(PASSWORD_IN_URL), "{shown}");

    let wrong = broker.url().replace(PASSWORD_IN_URL, "hunter2");
    let camera = Camera::playing(&wrong, &[]);
    camera.person(2);
    let warning = camera.warning();
    assert!(warning.contains(&format!("127.0.0.1:{}", broker.port())), "{warning}");
    assert!(warning.contains("password") && !warning.contains("hunter2"), "{warning}");
    let begun = Instant::now();
    camera.stop();
    assert!(begun.elapsed() < Duration::from_secs(1), "stopping waits for nobody");
    // The broker may answer before it writes its log.
    let attempts = || broker.log().matches("not authorised").count();
    camera.until("in the broker's log", |_| attempts() > 0);
    assert_eq!(attempts(), 1, "a broker that refuses is not asked again at once");
    camera.until("counted", |c| c.stat("dropped") == 1);
    assert_eq!(camera.stat("published"), 0);
}

#[test]
fn a_topic_that_the_access_list_forbids_costs_the_others_nothing() {
    let Some(mut broker) = Mosquitto::stopped(Access::Acl) else { return };
    std::fs::write(broker.path("acl"), "user camera\ntopic write nvr/detections/7\n").unwrap();
    broker.restart();
    let subscriber = broker.subscribe("#");
    let allowed = Camera::playing(&broker.url(), &[("qos", "1")]);
    let forbidden = Camera::playing(&broker.url(), &[("qos", "1"), ("source-id", "9")]);
    forbidden.person(0);
    allowed.persons(0..50);
    allowed.until("confirmed", |camera| camera.stat("acknowledged") == 50);
    forbidden.until("done with", |camera| camera.stat("queued") == 0);
    forbidden.person(1);
    forbidden.until("done with", |camera| camera.stat("queued") == 0);
    allowed.person(50);
    allowed.until("confirmed", |camera| camera.stat("acknowledged") == 51);
    // Some versions of mosquitto confirm what they throw away, others close the connection.
    if forbidden.stat("acknowledged") == 0 {
        assert_eq!(forbidden.stat("dropped"), 2);
        let about = |warning: &str| warning.contains("nvr/detections/9");
        let bus = forbidden.pipeline.bus().unwrap();
        let warnings = std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Warning]));
        let told = warnings.filter(|message| match message.view() {
            gst::MessageView::Warning(warning) => about(&warning.error().to_string()),
            _ => false,
        });
        assert_eq!(told.count(), 1);
    }
    let all = subscriber.wait(51).unwrap();
    assert!(all.iter().all(|message| message.topic == TOPIC));
    assert_eq!(first_of_each(&frame_ids(&all)), (0..51).collect::<Vec<_>>());
}

#[test]
fn ipv6_addresses_are_brokers_too() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("SKIPPED: ipv6_addresses_are_brokers_too needs IPv6");
        return;
    }
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let subscriber = broker.subscribe("#");
    let camera = Camera::playing(&format!("mqtt://[::1]:{}", broker.port()), &[]);
    camera.person(1);
    assert_eq!(subscriber.wait(1).unwrap().len(), 1);
}

#[test]
fn elements_with_the_same_settings_share_a_connection() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let subscriber = broker.subscribe("#");
    let cameras: Vec<_> = (0..4)
        .map(|i| {
            Camera::playing(&broker.url(), &[("source-id", &i.to_string()), ("client-id", "shared-one")])
        })
        .collect();
    for id in 0..25 {
        for camera in &cameras {
            camera.person(id);
        }
    }
    let messages = subscriber.wait(100).unwrap();
    for i in 0..4 {
        let topic = format!("nvr/detections/{i}");
        let own: Vec<_> = messages.iter().filter(|m| m.topic == topic).cloned().collect();
        assert_eq!(frame_ids(&own), (0..25).collect::<Vec<_>>());
    }
    assert_eq!(broker.log().matches("as shared-one").count(), 1, "{}", broker.log());
    drop(cameras);
    let deadline = Instant::now() + TIMEOUT;
    while !broker.log().contains("Client shared-one disconnected") {
        assert!(Instant::now() < deadline, "the last one out says goodbye: {}", broker.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_broker_may_come_later() {
    let Some(mut broker) = Mosquitto::stopped(Access::Open) else { return };
    let camera = Camera::playing(&broker.url(), &[("qos", "1")]);
    camera.persons(0..50);
    let warning = camera.warning();
    assert!(warning.contains("cannot connect") && warning.contains("trying again"), "{warning}");
    assert!(!camera.connected());
    broker.restart();
    // Nobody listens when the first events come: what counts is that the broker took them.
    camera.until("acknowledged", |c| c.stat("acknowledged") == 50);
    assert_eq!((camera.stat("dropped"), camera.stat("reconnects")), (0, 0));
    assert_eq!(camera.warnings_left(), 0, "one warning per outage");
}

#[test]
fn an_outage_drops_the_oldest_beyond_the_queue() {
    let Some(mut broker) = Mosquitto::start(Access::Open) else { return };
    let subscriber = broker.subscribe("nvr/#");
    let camera = Camera::playing(&broker.url(), &[("qos", "1"), ("queue-size", "10")]);
    camera.person(0);
    camera.until("acknowledged", |c| c.stat("acknowledged") == 1);
    subscriber.wait(1).unwrap();

    broker.kill();
    let warning = camera.warning();
    assert!(warning.contains("connection lost"), "{warning}");
    let begun = Instant::now();
    camera.persons(1..501);
    camera.until("dropped", |c| c.stat("dropped") == 490);
    assert!(begun.elapsed() < Duration::from_secs(5), "the video went on meanwhile");
    assert_eq!(camera.stat("queued"), 10);

    broker.restart();
    let ids = frame_ids(&subscriber.until(|m| frame_ids(m).contains(&500)).unwrap());
    assert_eq!(first_of_each(&ids)[1..], (491..501).collect::<Vec<_>>());
    camera.until("all is confirmed", |c| c.stat("acknowledged") == 11);
    assert_eq!((camera.stat("reconnects"), camera.stat("published")), (1, 11));
    camera.person(501);
    subscriber.until(|m| frame_ids(m).contains(&501)).unwrap();
    assert_eq!(camera.warnings_left(), 0, "one warning per outage");
}

#[test]
fn a_broker_that_freezes_holds_nobody_up() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let subscriber = broker.subscribe("#");
    let camera = Camera::playing(&broker.url(), &[("qos", "1"), ("queue-size", "100")]);
    camera.person(0);
    subscriber.wait(1).unwrap();
    broker.signal("STOP");
    let begun = Instant::now();
    camera.persons(1..3001);
    camera.until("rendered", |c| c.stat("frames") == 3001);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(camera.stat("dropped") >= 2700);
    assert!(camera.stat("queued") <= 210);
    let begun = Instant::now();
    camera.stop();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(camera.stat("queued"), 0, "what was not confirmed is given up and counted");
    assert_eq!(camera.stat("acknowledged") + camera.stat("dropped"), 3001);
    broker.signal("CONT");
}

#[test]
fn end_of_stream_waits_for_the_queue() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    for _ in 0..3 {
        let camera = Camera::playing(&broker.url(), &[("qos", "1")]);
        camera.persons(0..300);
        camera.end_of_stream();
        assert_eq!(camera.stat("acknowledged"), 300);
        camera.stop();
        assert_eq!(camera.stat("acknowledged"), 300, "the counters can be read after the end");
    }
}

#[test]
fn without_a_broker_the_end_comes_at_once() {
    let Some(broker) = Mosquitto::stopped(Access::Open) else { return };
    let camera = Camera::playing(&broker.url(), &[("qos", "1")]);
    camera.persons(0..10);
    camera.warning();
    let begun = Instant::now();
    camera.end_of_stream();
    camera.stop();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(camera.stat("dropped"), 10);
}

#[test]
fn a_spool_bridges_an_outage_in_order() {
    let Some(mut broker) = Mosquitto::start(Access::Open) else { return };
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().display().to_string();
    let subscriber = broker.subscribe("nvr/#");
    let camera = Camera::playing(&broker.url(), &[("qos", "1"), ("spool", &spool)]);
    camera.persons(0..50);
    subscriber.wait(50).unwrap();

    broker.kill();
    camera.warning();
    // More than the connection would hold by itself.
    camera.persons(50..850);
    camera.until("on disk", |c| c.stat("spool-messages") >= 800);
    broker.restart();
    camera.persons(850..900);
    let messages = subscriber.until(|m| frame_ids(m).contains(&899)).unwrap();
    assert_eq!(first_of_each(&frame_ids(&messages)), (0..900).collect::<Vec<_>>());
    camera.until("empty", |c| c.stat("spool-messages") == 0 && c.stat("spool-bytes") == 0);
    assert_eq!(camera.stat("dropped"), 0);
    assert!(segments(directory.path()).is_empty());
}

#[test]
fn a_spool_outlives_the_element() {
    let Some(mut broker) = Mosquitto::start(Access::Open) else { return };
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().display().to_string();
    let subscriber = broker.subscribe("nvr/#");
    broker.kill();
    let properties = [("qos", "1"), ("spool", spool.as_str())];
    let camera = Camera::playing(&broker.url(), &properties);
    camera.persons(0..120);
    camera.until("taken", |c| c.stat("events") == 120);
    let rival = Camera::new(&broker.url(), &properties);
    assert!(rival.pipeline.set_state(gst::State::Playing).is_err());
    camera.stop();
    assert_eq!(camera.stat("dropped"), 0);
    drop(camera);
    assert!(!segments(directory.path()).is_empty());

    let camera = Camera::playing(&broker.url(), &properties);
    camera.persons(120..150);
    camera.until("found again", |c| c.stat("spool-messages") == 150);
    broker.restart();
    let messages = subscriber.until(|m| frame_ids(m).contains(&149)).unwrap();
    assert_eq!(first_of_each(&frame_ids(&messages)), (0..150).collect::<Vec<_>>());
    camera.until("empty", |c| c.stat("spool-messages") == 0);
}

#[test]
fn a_spool_is_bounded() {
    let Some(broker) = Mosquitto::stopped(Access::Open) else { return };
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().display().to_string();
    let properties = [("qos", "1"), ("spool", spool.as_str()), ("spool-max-bytes", "65536")];
    let camera = Camera::playing(&broker.url(), &properties);
    camera.persons(0..600);
    camera.until("on disk", |c| c.stat("spooled") + c.stat("dropped") >= 600 && c.stat("spool-dropped") > 0);
    let bytes: u64 = segments(directory.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes > 0 && bytes <= 65536, "{bytes}");
}

#[test]
fn a_spool_without_its_disk_loses_events_and_says_so_once() {
    let Some(broker) = Mosquitto::stopped(Access::Open) else { return };
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().display().to_string();
    let camera = Camera::playing(&broker.url(), &[("qos", "1"), ("spool", &spool)]);
    let warning = camera.warning();
    assert!(warning.contains("cannot connect"), "{warning}");
    std::fs::remove_dir_all(directory.path()).unwrap();
    camera.persons(0..10);
    let warning = camera.warning();
    assert!(warning.contains("spool"), "{warning}");
    camera.until("counted", |c| c.stat("dropped") == 10);
    assert_eq!(camera.warnings_left(), 0);
}

#[test]
fn the_sample_configuration_of_the_broker_works() {
    let Some(broker) = Mosquitto::start(Access::Sample) else { return };
    let subscriber = broker.subscribe("#");
    let camera = Camera::playing(&broker.url(), &[("qos", "1")]);
    camera.person(1);
    assert_eq!(subscriber.wait(1).unwrap().len(), 1);
}

fn segments(spool: &Path) -> Vec<std::path::PathBuf> {
    let folder = spool.join("source-7");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|e| e == "spool")).collect()
}

#[test]
fn huge_events_are_sent_and_absurd_ones_counted() {
    let Some(broker) = Mosquitto::start(Access::Open) else { return };
    let subscriber = broker.subscribe("#");
    let camera = Camera::playing(&broker.url(), &[("qos", "1")]);
    camera.push(&analysed(1), &vec![person(); 3000]);
    let absurd = Detection { class_name: "x".repeat(5 << 20).into(), ..person() };
    camera.push(&analysed(2), &[absurd]);
    let odd = Detection { class_name: "\u{7}\"\\ \u{1f980} \u{202e}".into(), ..person() };
    camera.push(&analysed(3), std::slice::from_ref(&odd));
    let messages = subscriber.wait(2).unwrap();
    assert!(messages[0].payload.len() > 300_000);
    let list = events(&messages);
    assert_eq!((list[0].detections.len(), list[1].frame_id), (3000, 3));
    assert_eq!(list[1].detections[0].class_name, *odd.class_name);
    camera.until("counted", |c| c.stat("dropped") == 1 && c.stat("acknowledged") == 2);
    assert_eq!(camera.stat("reconnects"), 0);
}
