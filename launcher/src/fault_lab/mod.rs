//! Cameras that misbehave on command: real RTSP servers with a proxy in front of them that stalls, cuts, loses,
//! damages and lies. For the tests, and as `nvr-launch fault-lab` for everybody's own site.
//!
//! [`fault`] is what can be ordered, [`schedule`] how a rehearsal is written, `orders` what is wrong at a moment,
//! `tamper` what that does to one connection, `proxy` the sockets.

mod auth;
pub mod camera;
pub(crate) mod command;
pub mod fault;
mod framing;
mod orders;
mod outbox;
mod proxy;
mod rtp;
mod rtsp;
pub mod schedule;
mod tamper;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, bail};
use gst::prelude::*;

pub use self::{
    auth::USER,
    camera::{Audio, Codec, Spec},
    fault::{Fault, Media, Order, Sdp, Secret},
    proxy::{Counts, Event, Observer},
};
use self::{camera::SIZE, proxy::Proxy};
use crate::rtsp_server::{Camera, Options as ServerOptions, RtspServer, SendHook};

/// How a lab is set up.
#[derive(Clone)]
pub struct Options {
    /// Where clients find the cameras; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Told of what happens to the cameras.
    pub observer: Option<Observer>,
    /// Told of every frame of a recording that is sent.
    pub on_send: Option<SendHook>,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), observer: None, on_send: None }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// A running lab; its cameras vanish when it is dropped.
#[derive(Debug)]
pub struct Lab {
    // Dropped in this order: clients lose their connections before the server ends.
    proxy: Proxy,
    server: RtspServer,
}

impl Lab {
    /// A lab on any free port of the loopback interface.
    pub fn start() -> anyhow::Result<Self> {
        Self::with_options(Options::default())
    }

    pub fn with_options(options: Options) -> anyhow::Result<Self> {
        let server =
            RtspServer::with_options(ServerOptions { on_send: options.on_send, ..ServerOptions::default() })?;
        let proxy = Proxy::start(options.listen, server.port(), options.observer)?;
        Ok(Self { proxy, server })
    }

    pub fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// The address of camera `id`.
    pub fn uri(&self, id: u32) -> String {
        format!("rtsp://{}/{id}", self.proxy.address())
    }

    /// Camera `id` shows `camera`; gives its address.
    pub fn add(&self, id: u32, camera: &Camera) -> anyhow::Result<String> {
        self.server.add_camera(&id.to_string(), camera)?;
        self.proxy.add(id);
        Ok(self.uri(id))
    }

    /// Camera `id` encodes the built-in scene.
    pub fn add_spec(&self, id: u32, spec: &Spec) -> anyhow::Result<String> {
        self.add(id, &Camera::Launch(spec.launch().map_err(anyhow::Error::msg)?))
    }

    /// Has camera `id` misbehave, for `lasts` or for good.
    ///
    /// # Errors
    /// There is no such camera, or its picture has a size that cannot be changed now.
    pub fn order(&self, id: u32, order: &Order) -> anyhow::Result<()> {
        if let Fault::Resize(width, height) = order.fault {
            self.resize(id, width, height)?;
        }
        if !self.proxy.apply(id, order) {
            bail!("there is no camera {id}");
        }
        Ok(())
    }

    /// The same, as it is written in a schedule: `stall 30s`.
    ///
    /// # Errors
    /// What is no fault, or no camera.
    pub fn tell(&self, id: u32, text: &str) -> anyhow::Result<()> {
        self.order(id, &text.parse()?)
    }

    /// What has passed to and from a camera.
    pub fn counts(&self, id: u32) -> Counts {
        self.proxy.counts(id).unwrap_or_default()
    }

    /// Waits until the counts of a camera are as wanted. `None` where they are not within `patience`.
    pub fn wait(&self, id: u32, patience: Duration, wanted: impl Fn(&Counts) -> bool) -> Option<Counts> {
        self.proxy.wait(id, patience, wanted)
    }

    fn resize(&self, id: u32, width: u32, height: u32) -> anyhow::Result<()> {
        let size = self.server.element(&id.to_string(), SIZE);
        let size = size.with_context(|| {
            format!("camera {id} cannot take another size: nobody watches it, or it shows a recording")
        })?;
        let caps =
            gst::Caps::builder("video/x-raw").field("width", width as i32).field("height", height as i32);
        size.set_property("caps", caps.build());
        Ok(())
    }
}
