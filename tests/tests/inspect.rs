//! `gst-inspect-1.0` shows the plugin and each of its elements completely, from the file that is installed, on a
//! machine without ONNX Runtime and without a broker.

use std::{path::Path, process::Command};

/// A folder that holds nothing but the plugin, so that only it is scanned. Cargo builds the file because the tests
/// depend on the crate; it lies beside the test itself.
fn plugin_folder() -> tempfile::TempDir {
    let test = std::env::current_exe().expect("a test knows its own file");
    let built = test.parent().expect("a file is in a folder").join("libgstnvr.so");
    assert!(built.is_file(), "{} was not built", built.display());
    let folder = tempfile::tempdir().expect("temporary folder");
    std::os::unix::fs::symlink(&built, folder.path().join("libgstnvr.so")).expect("link");
    folder
}

fn inspect(plugins: &Path, arguments: &[&str]) -> String {
    let output = Command::new("gst-inspect-1.0")
        .args(arguments)
        .env("GST_PLUGIN_PATH", plugins)
        .env("GST_REGISTRY", plugins.join("registry.bin"))
        .env("ORT_DYLIB_PATH", "/nonexistent/libonnxruntime.so")
        .env("NVR_DATA_DIR", plugins)
        .env("LC_ALL", "C")
        .env_remove("GST_DEBUG")
        .output()
        .expect("gst-inspect-1.0 is installed with GStreamer's tools");
    assert!(
        output.status.success(),
        "gst-inspect-1.0 {arguments:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(!complaints.contains("WARN") && !complaints.contains("CRITICAL"), "{arguments:?}: {complaints}");
    String::from_utf8(output.stdout).expect("gst-inspect-1.0 prints UTF-8")
}

/// The value after a label such as `Long-name`.
fn field<'a>(text: &'a str, label: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.trim_start().strip_prefix(label))
        .unwrap_or_else(|| panic!("no {label} in:\n{text}"))
        .trim()
}

#[test]
fn plugin_and_elements_are_complete_without_onnx_runtime() {
    let folder = plugin_folder();
    let plugin = inspect(folder.path(), &["nvr"]);
    assert_eq!(field(&plugin, "License"), "MIT/X11");
    assert!(field(&plugin, "Version").starts_with(env!("CARGO_PKG_VERSION")), "{plugin}");
    assert!(field(&plugin, "Filename").ends_with("libgstnvr.so"), "{plugin}");

    // "  nvrinfer: NVR inference"
    let elements: Vec<_> =
        plugin.lines().filter_map(|line| line.trim_start().split_once(": NVR ")).map(|(name, _)| name).collect();
    for name in ["nvrinfer", "nvrmqttsink", "nvrsrc", "nvrtestsrc"] {
        assert!(elements.contains(&name), "{name} is not in the plugin:\n{plugin}");
    }

    for name in elements {
        let text = inspect(folder.path(), &[name]);
        assert!(field(&text, "Rank").starts_with("none"), "{name}: {}", field(&text, "Rank"));
        assert!(field(&text, "Long-name").starts_with("NVR "), "{name}: {}", field(&text, "Long-name"));
        for label in ["Klass", "Description", "Author"] {
            assert!(!field(&text, label).is_empty(), "{name}: no {label}");
        }
        for section in ["Pad Templates:", "Pads:", "Element Properties:"] {
            assert!(text.contains(section), "{name}: no {section}\n{text}");
        }
        // Every element counts what it does.
        assert!(text.contains("  stats "), "{name}: no stats property\n{text}");
    }
}
