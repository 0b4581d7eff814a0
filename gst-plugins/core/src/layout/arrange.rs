//! Tiles on a wall.

use super::Area;

/// How the tiles are arranged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub enum Layout {
    /// All of one size, row by row.
    #[default]
    Grid,
    /// One large, the others around its right and lower side.
    Focus,
    /// Where each of them asks to be.
    Custom,
}

/// Where a tile asks to be in a custom layout. What asks for nothing takes the first free cell.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct Position {
    pub row: Option<u32>,
    pub column: Option<u32>,
    pub row_span: u32,
    pub column_span: u32,
}

impl Default for Position {
    fn default() -> Self {
        Self { row: None, column: None, row_span: 1, column_span: 1 }
    }
}

/// The wall as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct Wall {
    pub width: u32,
    pub height: u32,
    pub layout: Layout,
    /// Cells in a row; 0 takes what makes the tiles largest.
    pub columns: u32,
    /// Index of the tile that `Layout::Focus` shows large.
    pub focus: usize,
    /// Shape that the automatic number of columns aims at, width by height.
    pub shape: (u32, u32),
    /// Pixels between tiles and around them.
    pub spacing: u32,
}

/// Rows and columns that a wall has at most; positions beyond are taken for the last.
pub const MAX_CELLS: u32 = 64;

/// The area of each tile. A wall without room for a tile of two by two pixels gives it an empty area.
pub fn arrange(wall: &Wall, tiles: &[Position]) -> Vec<Area> {
    if tiles.is_empty() {
        return Vec::new();
    }
    match wall.layout {
        Layout::Grid => {
            let columns = if wall.columns == 0 { best_columns(wall, tiles.len()) } else { wall.columns };
            let columns = columns.clamp(1, tiles.len() as u32);
            let rows = (tiles.len() as u32).div_ceil(columns);
            let cells = Cells::new(wall, columns, rows);
            (0..tiles.len() as u32).map(|n| cells.area(n % columns, n / columns, 1, 1)).collect()
        }
        Layout::Focus => focus(wall, tiles.len()),
        Layout::Custom => custom(wall, tiles),
    }
}

/// Columns with which `count` tiles of the wanted shape are largest.
fn best_columns(wall: &Wall, count: usize) -> u32 {
    let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    let (shape_w, shape_h) = (u128::from(wall.shape.0.max(1)), u128::from(wall.shape.1.max(1)));
    // Size of a tile as a fraction: of the wall's width and height, whichever binds.
    let mut best = ((0, 1), u32::MAX, 1);
    for columns in 1..=count.min(MAX_CELLS * MAX_CELLS) {
        let rows = count.div_ceil(columns);
        let empty = columns * rows - count;
        let (c, r) = (u128::from(columns), u128::from(rows));
        let size = ((u128::from(wall.width) * shape_h * r).min(u128::from(wall.height) * shape_w * c), c * r);
        let (here, there) = (size.0 * best.0.1, best.0.0 * size.1);
        // Of equals the one without holes, then the one with more columns: walls are wider than high.
        if here > there || (here == there && empty <= best.1) {
            best = (size, empty, columns);
        }
    }
    best.2
}

/// Cells of one size with equal gaps; what does not divide evenly is left over on both sides alike.
struct Cells {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
    gap: u32,
}

impl Cells {
    fn new(wall: &Wall, columns: u32, rows: u32) -> Self {
        // A wall full of gaps shows nothing.
        let least = wall.width.min(wall.height) / (4 * (columns.max(rows) + 1));
        let gap = wall.spacing.min(least) & !1;
        let size = |length: u32, count: u32| (length.saturating_sub(gap * (count + 1)) / count) & !1;
        let (width, height) = (size(wall.width, columns), size(wall.height, rows));
        let start = |length: u32, size: u32, count: u32| {
            (length.saturating_sub(count * size + (count - 1) * gap) / 2) & !1
        };
        Self {
            left: start(wall.width, width, columns),
            top: start(wall.height, height, rows),
            width,
            height,
            gap,
        }
    }

    fn area(&self, column: u32, row: u32, column_span: u32, row_span: u32) -> Area {
        if self.width == 0 || self.height == 0 {
            return Area::default();
        }
        Area::new(
            self.left + column * (self.width + self.gap),
            self.top + row * (self.height + self.gap),
            column_span * self.width + (column_span - 1) * self.gap,
            row_span * self.height + (row_span - 1) * self.gap,
        )
    }
}

/// One large tile; the others down its right side and then along its lower side. The cells have the wall's own
/// shape, so the large tile has it too.
fn focus(wall: &Wall, count: usize) -> Vec<Area> {
    let large = wall.focus.min(count - 1);
    let others = (count - 1) as u32;
    if others == 0 {
        return vec![Cells::new(wall, 1, 1).area(0, 0, 1, 1)];
    }
    // The smallest grid whose border, `thick` cells wide, holds the others. A thicker border comes before cells that
    // are too small to tell anything.
    let (side, thick) = (1..=MAX_CELLS)
        .map(|thick| ((others + thick * thick).div_ceil(2 * thick).max(thick + 1), thick))
        .find(|(side, thick)| *side <= 6 * thick)
        .unwrap_or((MAX_CELLS, 1));
    let cells = Cells::new(wall, side, side);
    let inner = side - thick;
    let right = (0..inner).flat_map(|row| (inner..side).map(move |column| (column, row)));
    let below = (inner..side).flat_map(|row| (0..side).map(move |column| (column, row)));
    let mut border = right.chain(below);
    (0..count)
        .map(|index| {
            if index == large {
                return cells.area(0, 0, inner, inner);
            }
            border.next().map_or_else(Area::default, |(column, row)| cells.area(column, row, 1, 1))
        })
        .collect()
}

fn custom(wall: &Wall, tiles: &[Position]) -> Vec<Area> {
    let last = MAX_CELLS - 1;
    let span = |span: u32| span.clamp(1, MAX_CELLS);
    let fixed = |tile: &Position| Some((tile.column?.min(last), tile.row?.min(last)));
    // As wide as asked for, and as what has a place of its own needs.
    let mut columns = wall.columns.min(MAX_CELLS);
    for tile in tiles {
        let start = tile.column.map_or(0, |column| column.min(last));
        columns = columns.max((start + span(tile.column_span)).min(MAX_CELLS));
    }
    if wall.columns == 0 && tiles.iter().all(|tile| fixed(tile).is_none()) {
        columns = columns.max(best_columns(wall, tiles.len()).min(MAX_CELLS));
    }
    let mut taken = Taken { columns, cells: Vec::new() };
    let mut places: Vec<Option<[u32; 4]>> = vec![None; tiles.len()];
    for (place, tile) in places.iter_mut().zip(tiles) {
        let Some((column, row)) = fixed(tile) else { continue };
        let wide = span(tile.column_span).min(columns - column);
        let high = span(tile.row_span).min(MAX_CELLS - row);
        // Two that want one cell: the first has it, the other goes where there is room.
        if taken.is_free(column, row, wide, high) {
            taken.take(column, row, wide, high);
            *place = Some([column, row, wide, high]);
        }
    }
    for (place, tile) in places.iter_mut().zip(tiles).filter(|(place, _)| place.is_none()) {
        let wide = span(tile.column_span).min(columns);
        let high = span(tile.row_span);
        let only_row = tile.row.filter(|_| tile.column.is_none()).map(|row| row.min(last));
        let only_column = tile.column.filter(|_| tile.row.is_none()).map(|column| column.min(columns - 1));
        let found = taken
            .first_free(wide, high, only_row, only_column)
            .or_else(|| taken.first_free(wide, high, None, None))
            .or_else(|| taken.first_free(1, 1, None, None).map(|(column, row, _, _)| (column, row, 1, 1)));
        if let Some((column, row, wide, high)) = found {
            taken.take(column, row, wide, high);
            *place = Some([column, row, wide, high]);
        }
    }
    let rows = places.iter().flatten().map(|[_, row, _, high]| row + high).max().unwrap_or(1);
    let cells = Cells::new(wall, columns, rows);
    places
        .into_iter()
        .map(|place| {
            place.map_or_else(Area::default, |[column, row, wide, high]| cells.area(column, row, wide, high))
        })
        .collect()
}

/// Which cells of a custom layout have a tile.
struct Taken {
    columns: u32,
    cells: Vec<bool>,
}

impl Taken {
    fn is_free(&self, column: u32, row: u32, wide: u32, high: u32) -> bool {
        column + wide <= self.columns
            && row + high <= MAX_CELLS
            && (row..row + high).all(|row| {
                (column..column + wide)
                    .all(|column| !self.cells.get((row * self.columns + column) as usize).unwrap_or(&false))
            })
    }

    fn take(&mut self, column: u32, row: u32, wide: u32, high: u32) {
        let need = ((row + high) * self.columns) as usize;
        if self.cells.len() < need {
            self.cells.resize(need, false);
        }
        for row in row..row + high {
            let start = (row * self.columns + column) as usize;
            self.cells[start..start + wide as usize].fill(true);
        }
    }

    fn first_free(
        &self,
        wide: u32,
        high: u32,
        only_row: Option<u32>,
        only_column: Option<u32>,
    ) -> Option<(u32, u32, u32, u32)> {
        (0..MAX_CELLS)
            .filter(|row| only_row.is_none_or(|only| only == *row))
            .flat_map(|row| (0..self.columns).map(move |column| (column, row)))
            .filter(|(column, _)| only_column.is_none_or(|only| only == *column))
            .find(|(column, row)| self.is_free(*column, *row, wide, high))
            .map(|(column, row)| (column, row, wide, high))
    }
}
