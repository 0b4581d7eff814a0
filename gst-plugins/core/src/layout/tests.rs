use proptest::prelude::*;

use super::*;

fn wall(layout: Layout, columns: u32, spacing: u32) -> Wall {
    Wall { width: 1920, height: 1080, layout, columns, focus: 0, shape: (16, 9), spacing }
}

fn tiles(count: usize) -> Vec<Position> {
    vec![Position::default(); count]
}

fn at(column: u32, row: u32) -> Position {
    Position { row: Some(row), column: Some(column), ..Position::default() }
}

#[test]
fn automatic_columns_make_the_tiles_largest() {
    for (count, columns) in [(1, 1), (2, 2), (3, 2), (4, 2), (5, 3), (6, 3), (7, 3), (9, 3), (12, 4), (16, 4)]
    {
        let areas = arrange(&wall(Layout::Grid, 0, 0), &tiles(count));
        let width = (1920 / columns) & !1;
        assert!(areas.iter().all(|area| area.width == width), "{count}: {areas:?}");
    }
    let small = Wall { width: 1280, height: 720, ..wall(Layout::Grid, 0, 0) };
    assert_eq!(arrange(&small, &tiles(5))[0].width, 426, "no rounding decides");
    // A wall in portrait has one column of two.
    let tall = Wall { width: 1080, height: 1920, ..wall(Layout::Grid, 0, 0) };
    assert_eq!(arrange(&tall, &tiles(2)), [Area::new(0, 0, 1080, 960), Area::new(0, 960, 1080, 960)]);
}

#[test]
fn gaps_are_equal_and_tiles_have_one_size() {
    let areas = arrange(&wall(Layout::Grid, 4, 4), &tiles(12));
    assert_eq!(areas[0], Area::new(6, 4, 474, 354));
    assert_eq!(areas[1].x - areas[0].right(), 4);
    assert_eq!(areas[4].y - areas[0].bottom(), 4);
    assert_eq!(1920 - areas[3].right(), 6);
    assert!(areas.iter().all(|area| (area.width, area.height) == (474, 354)));
}

#[test]
fn focus_puts_the_others_around_the_large_one() {
    for (count, large) in [(1, 1920), (2, 960), (4, 960), (6, 1280), (8, 1440), (12, 1600)] {
        let mut wall = wall(Layout::Focus, 0, 0);
        wall.focus = count / 2;
        let areas = arrange(&wall, &tiles(count));
        assert_eq!(areas[count / 2], Area::new(0, 0, large, large * 9 / 16), "{count}");
        assert!(areas.iter().all(|area| !area.is_empty()), "{count}: {areas:?}");
    }
    // Many cameras take a second row of small tiles before they become specks.
    let areas = arrange(&wall(Layout::Focus, 0, 0), &tiles(29));
    assert_eq!(areas[0], Area::new(0, 4, 1440, 804));
    assert_eq!(areas[1].width, 240);
}

#[test]
fn custom_positions_spans_and_conflicts() {
    let wide = Position { row_span: 2, column_span: 2, ..at(0, 0) };
    let areas = arrange(&wall(Layout::Custom, 3, 0), &[wide, at(2, 0), at(0, 0), Position::default()]);
    assert_eq!(areas[0], Area::new(0, 0, 1280, 720));
    assert_eq!(areas[1], Area::new(1280, 0, 640, 360));
    // The third wants a cell that is taken, the fourth none in particular.
    assert_eq!(areas[2], Area::new(1280, 360, 640, 360));
    assert_eq!(areas[3], Area::new(0, 720, 640, 360));
    let column = Position { column: Some(1), ..Position::default() };
    let areas = arrange(&wall(Layout::Custom, 2, 0), &[column, column]);
    assert_eq!([areas[0].x, areas[1].x], [960, 960]);
    assert!(areas[1].y > areas[0].y);
}

#[test]
fn pictures_in_tiles() {
    let tile = Area::new(480, 0, 480, 360);
    for (fit, width, height, source, target) in [
        (Fit::Letterbox, 640, 360, Area::new(0, 0, 640, 360), Area::new(480, 44, 480, 270)),
        (Fit::Letterbox, 360, 640, Area::new(0, 0, 360, 640), Area::new(618, 0, 202, 360)),
        (Fit::Stretch, 640, 360, Area::new(0, 0, 640, 360), tile),
        (Fit::Crop, 640, 360, Area::new(80, 0, 480, 360), tile),
        (Fit::Crop, 360, 640, Area::new(0, 184, 360, 270), tile),
        // As good as the tile's own shape.
        (Fit::Letterbox, 644, 480, Area::new(0, 0, 644, 480), tile),
    ] {
        let found = place(fit, tile, width, height, (1, 1)).unwrap();
        assert_eq!((found.source, found.target), (source, target), "{fit:?} {width}x{height}");
    }
    // PAL: 704 × 576 pixels that are 12/11 as wide as high make 4:3.
    assert_eq!(place(Fit::Letterbox, tile, 704, 576, (12, 11)).unwrap().target, tile);
    assert_eq!(place(Fit::Letterbox, tile, 0, 576, (1, 1)), None);
    assert_eq!(place(Fit::Letterbox, tile, 704, 576, (1, 0)), None);
}

#[test]
fn boxes_move_with_the_picture() {
    let placement = place(Fit::Crop, Area::new(480, 0, 480, 360), 640, 360, (1, 1)).unwrap();
    assert_eq!(placement.to_wall(&Rect::new(80.0, 0.0, 48.0, 36.0)), Some(Rect::new(480.0, 0.0, 48.0, 36.0)));
    // Half of it is cut off, and all of it.
    assert_eq!(placement.to_wall(&Rect::new(60.0, 0.0, 40.0, 36.0)), Some(Rect::new(480.0, 0.0, 20.0, 36.0)));
    assert_eq!(placement.to_wall(&Rect::new(0.0, 0.0, 40.0, 36.0)), None);
    assert_eq!(placement.to_wall(&Rect::new(f32::NAN, 0.0, 40.0, 36.0)), None);
}

fn any_wall() -> impl Strategy<Value = Wall> {
    let layout = prop_oneof![Just(Layout::Grid), Just(Layout::Focus), Just(Layout::Custom)];
    (1u32..4000, 1u32..4000, layout, 0u32..80, 0usize..90, (0u32..30, 0u32..30), 0u32..64).prop_map(
        |(width, height, layout, columns, focus, shape, spacing)| Wall {
            width,
            height,
            layout,
            columns,
            focus,
            shape,
            spacing,
        },
    )
}

fn any_position() -> impl Strategy<Value = Position> {
    let cell = || prop::option::of(prop_oneof![0u32..9, any::<u32>()]);
    let span = || prop_oneof![0u32..4, any::<u32>()];
    (cell(), cell(), span(), span()).prop_map(|(row, column, row_span, column_span)| Position {
        row,
        column,
        row_span,
        column_span,
    })
}

proptest! {
    #[test]
    fn tiles_lie_on_the_wall_evenly_and_apart(
        wall in any_wall(),
        tiles in prop::collection::vec(any_position(), 0..40),
    ) {
        let areas = arrange(&wall, &tiles);
        prop_assert_eq!(areas.len(), tiles.len());
        for (index, area) in areas.iter().enumerate() {
            prop_assert!(area.right() <= wall.width && area.bottom() <= wall.height, "{:?}", area);
            prop_assert!([area.x, area.y, area.width, area.height].iter().all(|n| n % 2 == 0), "{:?}", area);
            prop_assert!(areas[..index].iter().all(|other| !other.intersects(area)), "{:?} {:?}", index, areas);
        }
    }

    #[test]
    fn a_picture_fills_its_tile_in_one_direction(
        fit in prop_oneof![Just(Fit::Letterbox), Just(Fit::Crop), Just(Fit::Stretch)],
        tile in (0u32..2000, 0u32..2000, 1u32..1000, 1u32..1000),
        size in (1u32..5000, 1u32..5000),
        par in (1u32..100, 1u32..100),
    ) {
        let tile = Area::new(tile.0 * 2, tile.1 * 2, tile.2 * 2, tile.3 * 2);
        let found = place(fit, tile, size.0, size.1, par).unwrap();
        let (source, target) = (found.source, found.target);
        prop_assert!(!source.is_empty() && source.right() <= size.0 && source.bottom() <= size.1);
        prop_assert!(!target.is_empty() && target.x >= tile.x && target.y >= tile.y);
        prop_assert!(target.right() <= tile.right() && target.bottom() <= tile.bottom());
        prop_assert!(target.width == tile.width || target.height == tile.height);
        prop_assert!([target.x, target.y, target.width, target.height].iter().all(|n| n % 2 == 0));
        prop_assert!(source.x % 2 == 0 && source.y % 2 == 0);
    }
}
