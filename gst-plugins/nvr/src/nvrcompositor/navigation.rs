//! What a click or a key in the window means.

use nvr_core::layout::Area;

use super::{NvrCompositorLayout, settings::Settings};

/// Where a tile is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spot {
    pub source_id: u32,
    pub area: Area,
}

/// What is to be done about an event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Show(NvrCompositorLayout, i32),
    /// A key for the application.
    Key(String),
}

/// `None` for what means nothing here. A click on a tile shows it large, one on the large tile all again; 1 to 9
/// show that tile, 0 and Escape all of them.
pub(super) fn decide(event: &gst::StructureRef, settings: &Settings, spots: &[Spot]) -> Option<Action> {
    let show =
        |source_id: u32| Action::Show(NvrCompositorLayout::Focus, i32::try_from(source_id).unwrap_or(-1));
    let all = Action::Show(NvrCompositorLayout::Grid, settings.focus);
    let is_large = |source_id: u32| {
        settings.layout == NvrCompositorLayout::Focus
            && (i64::from(settings.focus) == i64::from(source_id)
                || (settings.focus < 0 && spots.first().is_some_and(|spot| spot.source_id == source_id)))
    };
    match event.get::<&str>("event").ok()? {
        "mouse-button-press" if event.get::<i32>("button") == Ok(1) => {
            let (x, y) = (event.get::<f64>("pointer_x").ok()?, event.get::<f64>("pointer_y").ok()?);
            let spot = spots.iter().find(|spot| spot.area.contains(x, y))?;
            Some(if is_large(spot.source_id) { all } else { show(spot.source_id) })
        }
        "key-press" => {
            let key = event.get::<&str>("key").ok()?;
            // Sinks disagree on names: 1, KP_1.
            let plain = key.strip_prefix("KP_").unwrap_or(key);
            match plain {
                "0" | "Escape" => Some(all),
                "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" => {
                    let index = plain.parse::<usize>().ok()? - 1;
                    spots.get(index).map(|spot| show(spot.source_id))
                }
                _ => Some(Action::Key(key.to_owned())),
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clicks_and_keys() {
        gst::init().unwrap();
        let spots = [
            Spot { source_id: 4, area: Area::new(0, 0, 100, 100) },
            Spot { source_id: 7, area: Area::new(100, 0, 100, 100) },
        ];
        let grid = Settings::default();
        let focus = Settings { layout: NvrCompositorLayout::Focus, focus: 7, ..grid };
        let click = |x: f64| {
            gst::Structure::builder("application/x-gst-navigation")
                .field("event", "mouse-button-press")
                .field("button", 1)
                .field("pointer_x", x)
                .field("pointer_y", 50.0)
                .build()
        };
        let key = |name: &str| {
            gst::Structure::builder("application/x-gst-navigation")
                .field("event", "key-press")
                .field("key", name)
                .build()
        };
        let large = |id| Some(Action::Show(NvrCompositorLayout::Focus, id));
        for (event, settings, wanted) in [
            (click(150.0), &grid, large(7)),
            (click(50.0), &grid, large(4)),
            (click(350.0), &grid, None),
            (click(f64::NAN), &grid, None),
            (click(150.0), &focus, Some(Action::Show(NvrCompositorLayout::Grid, 7))),
            (click(50.0), &focus, large(4)),
            (key("2"), &grid, large(7)),
            (key("KP_1"), &grid, large(4)),
            (key("9"), &grid, None),
            (key("Escape"), &focus, Some(Action::Show(NvrCompositorLayout::Grid, 7))),
            (key("q"), &grid, Some(Action::Key("q".into()))),
            (gst::Structure::new_empty("application/x-gst-navigation"), &grid, None),
        ] {
            assert_eq!(decide(&event, settings, &spots), wanted, "{event}");
        }
    }
}
