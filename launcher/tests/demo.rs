//! What `make demo` shows: built-in cameras, the real processor, a built-in broker, and a picture as proof. No network,
//! nothing downloaded.

use std::{fs, process::Command};

#[test]
fn the_demo_shows_events_of_every_camera_and_writes_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("proof.png");
    let output = Command::new(env!("CARGO_BIN_EXE_nvr-launch"))
        .args(["demo", "--cameras", "2", "--seconds", "4", "--picture"])
        .arg(&picture)
        // Neither a site's own settings nor a broker or a model of this machine belong to it.
        .env_remove("NVR_CONFIG")
        .env_remove("NVR_BROKER")
        .env_remove("NVR_MODEL")
        .output()
        .unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);

    for camera in ["camera 0", "camera 1"] {
        let events: Vec<_> =
            text.lines().filter(|line| line.contains(camera) && line.contains("  frame ")).collect();
        assert!(events.len() >= 10, "{camera}: 4 s at 5 events per second gave {}\n{text}", events.len());
        assert!(
            events.iter().any(|line| ["person", "car", "dog"].iter().any(|class| line.contains(class))),
            "{camera} saw nothing\n{text}"
        );
    }

    let png = fs::read(&picture).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"), "not a PNG");
    // Two cameras side by side, or one above the other: IHDR holds width and height.
    let side = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    let (width, height) = (side(16), side(20));
    assert!(width >= 640 && height >= 360 && width * height >= 2 * 640 * 360, "{width}x{height}");
}
