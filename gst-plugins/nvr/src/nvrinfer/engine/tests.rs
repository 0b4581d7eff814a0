use std::thread;

use nvr_core::frame::{ColorMatrix, ColorRange, PixelFormat, Plane};

use super::*;

fn reply(mailbox: &Arc<Mailbox>, ticket: u64) -> Reply {
    Reply { mailbox: Some(mailbox.clone()), ticket, tag: FrameTag::default() }
}

#[test]
fn a_device_that_fails_over_the_model_is_passed_over() {
    let all = [Device::Cuda, Device::Openvino, Device::Cpu];
    let attempt = |working: Device| move |device| if device == working { Ok(device) } else { Err(device) };
    assert_eq!(first_that_works(&all, attempt(Device::Cuda)), Ok((Device::Cuda, vec![])));
    assert_eq!(
        first_that_works(&all, attempt(Device::Cpu)),
        Ok((Device::Cpu, vec![Device::Cuda, Device::Openvino]))
    );
    assert_eq!(first_that_works(&all, attempt(Device::Tensorrt)), Err(Device::Cpu));
    assert_eq!(first_that_works(&all[..1], attempt(Device::Cpu)), Err(Device::Cuda));
}

/// The engine of the built-in model, where ONNX Runtime is.
fn engine() -> Option<Arc<Engine>> {
    gst::init().unwrap();
    let key = EngineKey {
        instance: String::new(),
        source: Source::BuiltIn("demo"),
        model_type: None,
        labels_file: None,
        device: Device::Cpu,
        threads: 2,
        batch_size: 4,
        batch_timeout: Duration::ZERO,
        runtime_library: None,
    };
    match Engine::load(&key) {
        Ok(engine) => Some(engine),
        Err(LoadError::Runtime(error)) => {
            assert!(std::env::var_os("NVR_NO_SKIP").is_none(), "{error}");
            println!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn without_a_thread_there_is_no_client_that_waits_for_ever() {
    let Some(engine) = engine() else { return };
    let none = |_, work: Box<dyn FnOnce() + Send>| {
        drop(work);
        Err(io::Error::from(io::ErrorKind::OutOfMemory))
    };
    assert!(matches!(engine.attach_with(none), Err(LoadError::Thread { .. })));
    assert_eq!(engine.users(), 0);
    // The session is still there for the next one, and one worker is enough for two.
    let first = engine.attach().unwrap();
    let second = engine.attach_with(none).unwrap();
    assert_eq!((engine.users(), engine.workers.lock().len()), (2, 1));
    drop((first, second));
}

#[test]
fn a_worker_that_has_ended_is_replaced() {
    let Some(engine) = engine() else { return };
    let failed = engine.attach_with(|_, _| Ok(thread::spawn(|| {}))).unwrap();
    let ended = || engine.workers.lock().iter().all(|worker| worker.thread.is_finished());
    while !ended() {
        thread::yield_now();
    }
    let client = engine.attach().unwrap();
    let workers = engine.workers.lock();
    assert_eq!((workers.len(), workers[0].number), (1, 0));
    assert!(!workers[0].thread.is_finished());
    drop(workers);
    drop((failed, client));
}

/// A camera whose worker is no thread at all, and that has handed a grey picture over.
fn handed_over(engine: &Arc<Engine>) -> (Client, u64) {
    let client = engine.attach_with(|_, _| Ok(thread::spawn(|| {}))).unwrap();
    let grey = [128; 64 * 64];
    let frame = Frame {
        format: PixelFormat::Gray8,
        width: 64,
        height: 64,
        planes: [Plane { data: &grey, stride: 64 }, Plane::default(), Plane::default()],
        matrix: ColorMatrix::Bt601,
        range: ColorRange::Full,
    };
    let params = DecodeParams { threshold: 0.5, iou_threshold: 0.5, max_detections: 9, classes: None };
    let mut preprocessor = Preprocessor::new(client.info().spec.input.clone());
    let tag = FrameTag::default();
    let submitted = client.submit(&mut preprocessor, &frame, params.into(), tag, true).unwrap();
    (client, submitted.ticket)
}

#[test]
fn one_that_waits_does_the_work_itself_where_there_are_few() {
    let Some(engine) = engine() else { return };
    // What the first worker would bring.
    let runner = engine.first.lock().take().unwrap();
    engine.shared.queue.lock().desk = Some(Desk::new(runner));
    let (first, ticket) = handed_over(&engine);
    assert!(first.wait(ticket).unwrap().result.is_ok());
    let is_free = || engine.shared.queue.lock().desk.is_some();
    assert!(is_free());

    // With three cameras and two workers it is the workers' business.
    let _bystander = engine.attach_with(|_, _| Ok(thread::spawn(|| {}))).unwrap();
    let (third, ticket) = handed_over(&engine);
    third.mailbox().interrupt();
    assert!(third.wait(ticket).is_none());
    assert!(is_free() && engine.shared.queue.lock().slots.is_only(third.slot));
}

/// Else a worker with less to do answers the newer one first, and a camera's results are out of order.
#[test]
fn no_newer_job_of_a_camera_begins_before_the_older_one_is_answered() {
    let Some(engine) = engine() else { return };
    let shared = &engine.shared;
    let mailbox = Arc::<Mailbox>::default();
    let spec = &shared.info.spec.input;
    let transform = Transform { scale_x: 1.0, scale_y: 1.0, offset_x: 0.0, offset_y: 0.0 };
    let params = DecodeParams { threshold: 0.5, iou_threshold: 0.5, max_detections: 9, classes: None };
    let picture = PictureFacts { transform, width: spec.width, height: spec.height, params: params.into() };
    let job = |ticket| Job {
        tensor: TensorBuf::new(spec, 1),
        picture: picture.clone(),
        reply: reply(&mailbox, ticket),
    };
    let mut desk = Desk::new(engine.first.lock().take().unwrap());
    let id = {
        let mut queue = shared.queue.lock();
        let id = queue.slots.attach();
        queue.slots.offer(id, 0, job(1)).unwrap();
        assert_eq!(queue.slots.take(0, shared.batching, &mut desk.batch), Next::Run);
        queue.slots.offer(id, 0, job(2)).unwrap();
        id
    };
    let take = || {
        let mut begun = Vec::new();
        let next = shared.queue.lock().slots.take(0, shared.batching, &mut begun);
        for (_, job) in begun {
            job.reply.forget();
        }
        next
    };
    // Nothing can be answered while this is held.
    let held = mailbox.state.lock();
    let early = thread::scope(|scope| {
        scope.spawn(|| run_batch(shared, &mut desk));
        // The tensor comes back when the inference is over.
        let begun = Instant::now();
        while shared.queue.lock().free.is_empty() {
            assert!(begun.elapsed() < Duration::from_mins(1), "no inference");
            thread::yield_now();
        }
        let early = take();
        drop(held);
        early
    });
    assert_eq!(early, Next::Idle);
    assert_eq!(mailbox.take().map(|outcome| outcome.ticket), Some(1));
    assert_eq!(take(), Next::Run);
    shared.queue.lock().slots.detach(id);
}

#[test]
fn a_job_that_is_lost_answers_all_the_same() {
    let mailbox = Arc::<Mailbox>::default();
    let lost = reply(&mailbox, 1);
    let worker = thread::spawn(move || {
        let _held = lost;
        panic!("as a worker might");
    });
    assert!(mailbox.wait(1).unwrap().result.is_err());
    assert!(worker.join().is_err());
}

#[test]
fn a_job_that_nobody_waits_for_answers_nobody() {
    let mailbox = Arc::<Mailbox>::default();
    reply(&mailbox, 1).forget();
    assert!(mailbox.take().is_none());
}

#[test]
fn the_newest_answer_counts_and_each_is_taken_once() {
    let mailbox = Arc::<Mailbox>::default();
    reply(&mailbox, 2).answer(Ok(Vec::new()), Duration::ZERO);
    reply(&mailbox, 1).answer(Ok(Vec::new()), Duration::ZERO);
    assert_eq!(mailbox.take().map(|outcome| outcome.ticket), Some(2));
    assert!(mailbox.take().is_none());
}

#[test]
fn a_wait_ends_with_its_own_answer_or_an_interruption() {
    let mailbox = Arc::<Mailbox>::default();
    reply(&mailbox, 1).answer(Ok(Vec::new()), Duration::ZERO);
    let waiting = {
        let mailbox = mailbox.clone();
        thread::spawn(move || mailbox.wait(2).map(|outcome| outcome.ticket))
    };
    reply(&mailbox, 2).answer(Ok(Vec::new()), Duration::ZERO);
    assert_eq!(waiting.join().unwrap(), Some(2), "not the answer to the frame before");

    let waiting = {
        let mailbox = mailbox.clone();
        thread::spawn(move || mailbox.wait(3).is_none())
    };
    mailbox.interrupt();
    assert!(waiting.join().unwrap());
    assert!(mailbox.wait(3).is_none(), "until it is allowed again");
    mailbox.resume();
    reply(&mailbox, 3).answer(Ok(Vec::new()), Duration::ZERO);
    assert!(mailbox.wait(3).is_some());
}
