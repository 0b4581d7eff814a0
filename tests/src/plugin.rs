//! The plugin as other programs load it: `libgstnvr.so` in a folder of its own.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// A folder that holds nothing but the plugin, so that only it is scanned, and a registry of its own.
#[derive(Debug)]
pub struct PluginFolder(tempfile::TempDir);

impl PluginFolder {
    /// Cargo builds the plugin because the tests depend on its crate; it lies beside the test itself.
    ///
    /// # Panics
    /// When it was not built.
    #[allow(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let test = std::env::current_exe().expect("a test knows its own file");
        let built = test.parent().expect("a file is in a folder").join("libgstnvr.so");
        assert!(built.is_file(), "{} was not built", built.display());
        let folder = tempfile::tempdir().expect("temporary folder");
        std::os::unix::fs::symlink(&built, folder.path().join("libgstnvr.so")).expect("link");
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A GStreamer tool that finds the plugin.
    pub fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("GST_PLUGIN_PATH", self.path())
            .env("GST_REGISTRY", self.path().join("registry.bin"))
            .env("LC_ALL", "C")
            .env_remove("GST_DEBUG")
            .stdin(Stdio::null());
        command
    }
}
