//! Models: the known ones, those on this machine, and how they get here.

pub(crate) mod command;
mod download;
#[cfg(test)]
mod tests;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

pub use download::{DownloadError, Progress, Request, download, sha256_of};

/// A model that can be downloaded by name.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub name: &'static str,
    pub url: &'static str,
    pub sha256: &'static str,
    pub bytes: u64,
    pub licence: &'static str,
    /// Width × height of the input in pixels.
    pub input: &'static str,
    pub origin: &'static str,
    /// `type` and `labels` of the facts file.
    pub model_type: &'static str,
    pub labels: &'static str,
}

/// Known models. Size and hash are those of the release assets.
pub const KNOWN: &[Known] = &[
    Known {
        name: "yolox-nano",
        url: "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_nano.onnx",
        sha256: "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d",
        bytes: 3_659_407,
        licence: "Apache-2.0",
        input: "416×416",
        origin: "Megvii YOLOX 0.1.1rc0",
        model_type: "yolox",
        labels: "coco-80",
    },
    Known {
        name: "yolox-tiny",
        url: "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_tiny.onnx",
        sha256: "427cc366d34e27ff7a03e2899b5e3671425c262ea2291f88bb942bc1cc70b0f7",
        bytes: 20_219_662,
        licence: "Apache-2.0",
        input: "416×416",
        origin: "Megvii YOLOX 0.1.1rc0",
        model_type: "yolox",
        labels: "coco-80",
    },
    Known {
        name: "yolox-s",
        url: "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_s.onnx",
        sha256: "c5c2d13e59ae883e6af3b45daea64af4833a4951c92d116ec270d9ddbe998063",
        bytes: 35_858_002,
        licence: "Apache-2.0",
        input: "640×640",
        origin: "Megvii YOLOX 0.1.1rc0",
        model_type: "yolox",
        labels: "coco-80",
    },
];

/// Name of the model that is part of the plugin.
pub const BUILT_IN: &str = "demo";

/// Folders that may hold models, strongest first; models are written to the first.
pub fn model_folders() -> Vec<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = variable("NVR_DATA_DIR")
        .or_else(|| variable("XDG_DATA_HOME").map(|folder| folder.join("nvr")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".local/share/nvr")));
    own.into_iter()
        .chain(["/usr/local/share/nvr".into(), "/usr/share/nvr".into()])
        .map(|folder| folder.join("models"))
        .collect()
}

/// Finds an installed model by name.
pub fn installed(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    folders.iter().map(|folder| folder.join(format!("{name}.onnx"))).find(|path| path.is_file())
}

/// Names and files of all installed models; of two with one name, the stronger folder's.
pub fn all_installed(folders: &[PathBuf]) -> Vec<(String, PathBuf)> {
    let mut models: Vec<(String, PathBuf)> = Vec::new();
    for folder in folders {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_model = path.extension().is_some_and(|extension| extension == "onnx") && path.is_file();
            let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
            if is_model && !models.iter().any(|(known, _)| known == name) {
                models.push((name.to_owned(), path.clone()));
            }
        }
    }
    models.sort();
    models
}

/// Whether `name` can be a model's name: it becomes part of a path.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// The facts file beside a model.
pub fn facts_path(model: &Path) -> PathBuf {
    model.with_extension("toml")
}

/// Text of the facts file. Where nothing is known about the outputs, they tell their type themselves.
pub fn facts(known: Option<&Known>, origin: &str, sha256: &str, bytes: u64) -> String {
    let mut table = toml::Table::new();
    let mut put = |key: &str, value: &str| drop(table.insert(key.into(), value.into()));
    if let Some(known) = known {
        put("type", known.model_type);
        put("labels", known.labels);
        put("licence", known.licence);
        put("input", known.input);
    }
    put("origin", origin);
    put("sha256", sha256);
    table.insert("size".into(), (bytes as i64).into());
    format!("# Facts about the model beside this file; see the documentation of model facts.\n{table}")
}
