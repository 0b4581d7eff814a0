//! The wall as an RTSP stream: what the graph encodes, handed on to every client's media.

use std::{sync::Arc, thread};

use anyhow::Context;
use gst::{glib, prelude::*};
use gst_app::{AppSink, AppSinkCallbacks, AppSrc};
use gst_rtsp_server::prelude::*;
use parking_lot::Mutex;

use crate::rtsp_server::forget_silent_clients;

/// A server that runs until it is dropped.
pub struct Served {
    context: glib::MainContext,
    main_loop: glib::MainLoop,
    server: gst_rtsp_server::RTSPServer,
    thread: Option<thread::JoinHandle<()>>,
    uri: String,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("uri", &self.uri).finish_non_exhaustive()
    }
}

impl Served {
    pub fn uri(&self) -> &str {
        &self.uri
    }
}

type Clients = Arc<Mutex<Vec<AppSrc>>>;

/// The two parts of an address to listen on.
///
/// # Errors
/// It is none.
pub fn host_and_port(address: &str) -> anyhow::Result<(&str, &str)> {
    address
        .rsplit_once(':')
        .filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        .with_context(|| format!("{address:?} is no address such as 0.0.0.0:8556"))
}

/// Serves what comes to `sink` at `rtsp://{address}/wall`.
///
/// # Errors
/// The address is not `host:port`, or cannot be listened on.
pub fn serve(sink: &AppSink, address: &str) -> anyhow::Result<Served> {
    let (host, port) = host_and_port(address)?;
    let server = gst_rtsp_server::RTSPServer::new();
    server.set_address(host.trim_start_matches('[').trim_end_matches(']'));
    server.set_service(port);
    let clients = Clients::default();
    let factory = gst_rtsp_server::RTSPMediaFactory::new();
    factory.set_launch("( appsrc name=source ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )");
    factory.set_shared(true);
    factory.set_latency(0);
    factory.connect_media_configure({
        let (clients, sink) = (clients.clone(), sink.downgrade());
        move |_, media| configure(media, &clients, &sink)
    });
    let mounts = server.mount_points().context("the RTSP server has no mount points")?;
    mounts.add_factory("/wall", factory);
    feed(sink, clients);

    let context = glib::MainContext::new();
    // The listener goes with the context.
    let _listener = server
        .attach(Some(&context))
        .with_context(|| format!("the RTSP server could not listen on {address}"))?;
    forget_silent_clients(&server, &context)?;
    let main_loop = glib::MainLoop::new(Some(&context), false);
    let thread = thread::Builder::new().name("wall-rtsp".into()).spawn({
        let (main_loop, context) = (main_loop.clone(), context.clone());
        move || {
            // Fails only where another thread owns this private context.
            let _ = context.with_thread_default(|| main_loop.run());
        }
    })?;
    let uri = format!("rtsp://{host}:{}/wall", server.bound_port());
    Ok(Served { context, main_loop, server, thread: Some(thread), uri })
}

fn configure(media: &gst_rtsp_server::RTSPMedia, clients: &Clients, sink: &glib::WeakRef<AppSink>) {
    let source = media.element().downcast::<gst::Bin>().ok().and_then(|bin| bin.by_name("source"));
    let Some(source) = source.and_downcast::<AppSrc>() else { return };
    source.set_is_live(true);
    source.set_format(gst::Format::Time);
    source.set_property("do-timestamp", true);
    source.set_leaky_type(gst_app::AppLeakyType::Downstream);
    source.set_max_buffers(50);
    source.set_max_bytes(0);
    media.connect_unprepared({
        let (clients, source) = (clients.clone(), source.downgrade());
        move |_| clients.lock().retain(|known| source.upgrade().is_some_and(|gone| *known != gone))
    });
    clients.lock().push(source);
    // A client sees nothing before the next keyframe.
    if let Some(sink) = sink.upgrade() {
        sink.send_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
    }
}

fn feed(sink: &AppSink, clients: Clients) {
    sink.set_callbacks(
        AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let known = clients.lock().clone();
                for client in known {
                    let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps()) else { continue };
                    let mut buffer = buffer.copy();
                    if let Some(buffer) = buffer.get_mut() {
                        // Each client's pipeline has a time of its own.
                        buffer.set_pts(gst::ClockTime::NONE);
                        buffer.set_dts(gst::ClockTime::NONE);
                    }
                    client.set_caps(Some(&caps.to_owned()));
                    // One that is going away takes nothing more.
                    let _ = client.push_buffer(buffer);
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
}

impl Drop for Served {
    fn drop(&mut self) {
        let (server, main_loop) = (self.server.clone(), self.main_loop.clone());
        self.context.invoke(move || {
            server.client_filter(Some(&mut |_, _| gst_rtsp_server::RTSPFilterResult::Remove));
            main_loop.quit();
        });
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported already.
            let _ = thread.join();
        }
    }
}
