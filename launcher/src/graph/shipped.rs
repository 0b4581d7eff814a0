//! The graphs that are compiled in.

/// A graph that comes with the launcher.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    pub name: &'static str,
    pub text: &'static str,
}

/// Every shipped graph.
pub const SHIPPED: &[Shipped] = &[
    Shipped { name: "processor", text: include_str!("../../../pipelines/processor.toml") },
    Shipped { name: "recorder", text: include_str!("../../../pipelines/recorder.toml") },
    Shipped { name: "nvr", text: include_str!("../../../pipelines/nvr.toml") },
    Shipped { name: "wall", text: include_str!("../../../pipelines/wall.toml") },
];
