//! Whether what enters a branch also leaves it: a branch whose elements are stuck says nothing by itself.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;

/// Every way out of a branch.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    exits: Vec<Exit>,
}

#[derive(Debug)]
struct Exit {
    /// What stands at the end.
    name: String,
    marks: Arc<Marks>,
    watch: Watch,
}

/// Written by the streaming threads.
#[derive(Debug, Default)]
struct Marks {
    /// Something has come in since the last that went out.
    inside: AtomicBool,
    left: AtomicU64,
}

impl Pulse {
    /// Watches a branch that has not been started. `links` are its pads into the shared graph. A way out whose
    /// beginning is not linked yet is not watched.
    pub fn of(bin: &gst::Bin, links: &[gst::Pad]) -> Self {
        let mut pulse = Self::default();
        for sink in bin.iterate_sinks().into_iter().flatten() {
            for pad in sink.sink_pads() {
                pulse.watch(&sink.name(), &pad);
            }
        }
        for link in links {
            // The pad outside tells nothing about the elements that lead to it; its target does.
            let target = link.downcast_ref::<gst::GhostPad>().and_then(GhostPadExt::target);
            if let Some(target) = target {
                let name = target.parent_element().map_or_else(|| link.name(), |element| element.name());
                pulse.watch(&name, &target);
            }
        }
        pulse
    }

    fn watch(&mut self, name: &str, exit: &gst::Pad) {
        let mut entries = Vec::new();
        let mut known = BTreeSet::new();
        let first =
            if exit.direction() == gst::PadDirection::Sink { exit.peer() } else { Some(exit.clone()) };
        upstream(first, &mut known, &mut entries);
        // Where a source is linked to the end itself, nothing stands between.
        if entries.is_empty() || entries.contains(exit) {
            return;
        }
        let marks = Arc::<Marks>::default();
        for entry in entries {
            let marks = marks.clone();
            entry.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                marks.inside.store(true, Ordering::Relaxed);
                gst::PadProbeReturn::Ok
            });
        }
        let counted = marks.clone();
        exit.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            counted.inside.store(false, Ordering::Relaxed);
            counted.left.fetch_add(1, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
        self.exits.push(Exit { name: name.to_owned(), marks, watch: Watch::default() });
    }

    pub fn is_watching(&self) -> bool {
        !self.exits.is_empty()
    }

    /// The end that nothing has reached for `patience` although the source sends. `sending`: the source says so.
    pub fn stuck(&mut self, sending: bool, patience: Duration, now: Instant) -> Option<&str> {
        self.exits.iter_mut().find_map(|exit| {
            let inside = exit.marks.inside.load(Ordering::Relaxed);
            let left = exit.marks.left.load(Ordering::Relaxed);
            exit.watch.is_stuck(sending && inside, left, patience, now).then_some(exit.name.as_str())
        })
    }
}

/// The source pads that feed `pad`, through any elements.
fn upstream(pad: Option<gst::Pad>, known: &mut BTreeSet<gst::Element>, entries: &mut Vec<gst::Pad>) {
    let Some((pad, element)) = pad.and_then(|pad| Some((pad.clone(), pad.parent_element()?))) else { return };
    let inputs = element.sink_pads();
    if inputs.is_empty() {
        entries.push(pad);
    } else if known.insert(element) {
        for input in inputs {
            upstream(input.peer(), known, entries);
        }
    }
}

/// One way out, looked at now and then.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    left: u64,
    since: Option<Instant>,
}

impl Watch {
    /// `inside`: something has come in that has not gone out. Before the first has gone out, anything may take long:
    /// models are loaded, hardware is prepared.
    fn is_stuck(&mut self, inside: bool, left: u64, patience: Duration, now: Instant) -> bool {
        if !inside || left == 0 || left != self.left {
            *self = Self { left, since: None };
            return false;
        }
        now.saturating_duration_since(*self.since.get_or_insert(now)) >= patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuck_is_what_comes_in_and_does_not_go_out() {
        let (mut watch, start, patience) = (Watch::default(), Instant::now(), Duration::from_secs(30));
        let mut look =
            |inside, left, at| watch.is_stuck(inside, left, patience, start + Duration::from_secs(at));
        assert!(!look(true, 0, 0) && !look(true, 0, 900), "nothing has ever gone out");
        assert!(!look(true, 5, 1000) && !look(true, 9, 1040), "it flows");
        assert!(!look(false, 9, 1100), "the camera is silent");
        assert!(!look(true, 9, 1200) && !look(true, 9, 1229) && look(true, 9, 1230));
        assert!(!look(true, 10, 1231) && !look(true, 10, 1232), "it goes on");
    }

    #[test]
    fn both_ends_of_every_way_are_found() {
        gst::init().unwrap();
        let bin = super::super::parse(
            "fakesrc name=a ! tee name=t ! queue ! fakesink name=one t. ! queue ! identity ! fakesink name=two \
             fakesrc name=b ! fakesink name=three decodebin name=d ! fakesink name=four",
            "camera-0",
        )
        .unwrap();
        let pulse = Pulse::of(&bin, &[]);
        let mut names: Vec<_> = pulse.exits.iter().map(|exit| exit.name.as_str()).collect();
        names.sort_unstable();
        // The decoder's sink pad leads to no source, and its pads do not exist yet.
        assert_eq!(names, ["one", "three", "two"]);
    }
}
