//! `gst-inspect-1.0` shows the plugin and each of its elements completely, from the file that is installed, on a
//! machine without ONNX Runtime and without a broker.

use nvr_tests::plugin::PluginFolder;

fn inspect(plugin: &PluginFolder, name: &str) -> String {
    let output = plugin
        .tool("gst-inspect-1.0")
        .arg(name)
        .env("ORT_DYLIB_PATH", "/nonexistent/libonnxruntime.so")
        .env("NVR_DATA_DIR", plugin.path())
        .output()
        .expect("gst-inspect-1.0 is installed with GStreamer's tools");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "gst-inspect-1.0 {name}: {}\n{complaints}", output.status);
    assert!(!complaints.contains("WARN") && !complaints.contains("CRITICAL"), "{name}: {complaints}");
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
    let folder = PluginFolder::new();
    let plugin = inspect(&folder, "nvr");
    assert_eq!(field(&plugin, "License"), "MIT/X11");
    assert!(field(&plugin, "Version").starts_with(env!("CARGO_PKG_VERSION")), "{plugin}");
    assert!(field(&plugin, "Filename").ends_with("libgstnvr.so"), "{plugin}");

    // "  nvrinfer: NVR inference"
    let elements: Vec<_> = plugin
        .lines()
        .filter_map(|line| line.trim_start().split_once(": NVR "))
        .map(|(name, _)| name)
        .collect();
    for name in [
        "nvrcompositor",
        "nvrcontrol",
        "nvrinfer",
        "nvrmotion",
        "nvrmqttsink",
        "nvroverlay",
        "nvrrecordsink",
        "nvrsrc",
        "nvrtestsrc",
        "nvrtrack",
        "nvrzones",
    ] {
        assert!(elements.contains(&name), "{name} is not in the plugin:\n{plugin}");
    }

    for name in elements {
        let text = inspect(&folder, name);
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
