//! Many cameras, one engine: nobody sees what another camera saw.

use std::thread;

use crate::util::*;

/// What camera `camera` shows in its frame `frame`, as a class: every camera something else at any time.
fn shown(camera: usize, frame: u64) -> usize {
    (camera * 3 + frame as usize * (camera + 1)) % 11
}

fn run(model_name: &str, prefix: &str, properties: &[(&str, &str)], cameras: usize, frames: u64) {
    let mut harnesses: Vec<_> = (0..cameras).map(|_| Camera::new(model_name, properties)).collect();
    let users = harnesses[0].stat("users");
    assert_eq!(users, cameras as u64, "one engine for all");

    let is_async = properties.contains(&("mode", "async"));
    let analysed: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = harnesses
            .iter_mut()
            .enumerate()
            .map(|(number, camera)| {
                scope.spawn(move || {
                    let mut last = None;
                    let mut count = 0;
                    for frame in 0..frames {
                        let seen = camera.look(value_of(shown(number, frame)));
                        assert!(is_async || seen.is_some(), "camera {number} frame {frame}");
                        let Some(seen) = seen else { continue };
                        if !is_async {
                            assert_eq!(seen.frame_id, frame);
                        }
                        assert!(last < Some(seen.frame_id), "results in order, each once");
                        last = Some(seen.frame_id);
                        let expected = format!("{prefix}{}", shown(number, seen.frame_id));
                        assert_eq!(seen.class, Some(expected), "camera {number} frame {}", seen.frame_id);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (camera, analysed) in harnesses.iter().zip(&analysed) {
        assert_eq!(camera.stat("frames"), frames);
        assert_eq!(camera.stat("analysed"), *analysed);
        assert_eq!(camera.stat("errors"), 0);
    }
    if is_async {
        assert!(analysed.iter().sum::<u64>() > 0, "{analysed:?}");
    }
}

#[test]
fn results_stay_with_their_camera() {
    if !runtime() {
        return;
    }
    // The instance id keeps these engines apart from those of other tests in this process.
    run("grey_a", "a", &[("threads", "2"), ("model-instance-id", "one")], 8, 300);
    run("grey_a", "a", &[("threads", "3"), ("mode", "async"), ("model-instance-id", "two")], 8, 300);
}

#[test]
fn results_stay_with_their_camera_in_batches() {
    if !runtime() {
        return;
    }
    for (name, prefix) in [("grey_batch", "n"), ("grey_batch4", "f")] {
        for mode in ["sync", "async"] {
            let id = format!("{name}-{mode}");
            let properties = [
                ("threads", "2"),
                ("batch-size", "4"),
                ("batch-timeout", "2"),
                ("mode", mode),
                ("model-instance-id", &id),
            ];
            run(name, prefix, &properties, 7, 150);
        }
    }
}

#[test]
fn a_slow_camera_is_served_among_fast_ones() {
    if !runtime() {
        return;
    }
    let properties = [("threads", "1"), ("mode", "async"), ("model-instance-id", "fair")];
    let mut fast: Vec<_> = (0..4).map(|_| Camera::new("grey_slow", &properties)).collect();
    let mut slow = Camera::new("grey_slow", &[("threads", "1"), ("model-instance-id", "fair")]);
    assert_eq!(slow.stat("users"), 5);
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for camera in &mut fast {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    camera.look(value_of(1));
                    thread::yield_now();
                }
            });
        }
        let waited: Vec<_> = (0..10)
            .map(|_| {
                let begun = std::time::Instant::now();
                assert_eq!(slow.class(value_of(9)), Some("s9".into()));
                begun.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        // Behind the one that runs and at most one of each other camera.
        let inference = slow.element_stat_ms("inference-p99-ms");
        let worst = waited.iter().copied().fold(0.0, f64::max);
        assert!(worst < inference * 8.0 + 200.0, "waited {worst} ms with {inference} ms an inference");
    });
}

#[test]
fn engines_end_with_their_last_user_and_instance_ids_keep_apart() {
    if !runtime() {
        return;
    }
    let one = Camera::new("grey_b", &[("model-instance-id", "x")]);
    let two = Camera::new("grey_b", &[("model-instance-id", "x")]);
    let other = Camera::new("grey_b", &[("model-instance-id", "y")]);
    let other_model = Camera::new("grey_a", &[("model-instance-id", "x")]);
    assert_eq!((one.stat("users"), two.stat("users")), (2, 2));
    assert_eq!((other.stat("users"), other_model.stat("users")), (1, 1));
    drop(two);
    assert_eq!(one.stat("users"), 1);
}

#[test]
fn cameras_that_start_together_load_the_model_once() {
    if !runtime() {
        return;
    }
    let barrier = std::sync::Barrier::new(6);
    let cameras: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    Camera::new("grey_slow", &[("model-instance-id", "together")])
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(cameras[0].stat("users"), 6);
    let loads: Vec<_> = cameras.iter().map(|camera| camera.element_stat_ms("load-time-ms")).collect();
    assert!(loads.iter().all(|load| *load == loads[0]), "{loads:?}");
}
