//! A picture of what was recorded: a row for each camera, its recordings and what was seen on one line of time, with
//! hours in UTC and in local time.
//!
//! Colours are those of Okabe and Ito, which people who see few colours tell apart; nothing is said by colour alone.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::trigger::Reason;
use crate::draw::{Canvas, Rgba, Typeface};

const PAPER: Rgba = Rgba::WHITE;
const INK: Rgba = Rgba::rgb(0x22, 0x26, 0x2b);
const FAINT: Rgba = Rgba::rgb(0x6b, 0x72, 0x7b);
const LINE: Rgba = Rgba::rgb(0xe3, 0xe6, 0xea);
const DAY: Rgba = Rgba::rgb(0x9a, 0xa2, 0xac);
const EMPTY: Rgba = Rgba::rgb(0xef, 0xf1, 0xf4);
/// Colours of the classes, each with a lane of its own; the last one is of all that are left.
const CLASSES: [Rgba; 5] = [
    Rgba::rgb(0xd5, 0x5e, 0x00),
    Rgba::rgb(0x00, 0x00, 0x00),
    Rgba::rgb(0x00, 0x9e, 0x73),
    Rgba::rgb(0xcc, 0x79, 0xa7),
    Rgba::rgb(0x6b, 0x72, 0x7b),
];

const MARGIN: f32 = 24.0;
const TITLE: f32 = 22.0;
const TEXT: f32 = 15.0;
const SMALL: f32 = 13.0;
const BAR: u32 = 22;
const LANE: u32 = 7;
const MARK: u32 = 5;
const GAP: u32 = 14;
/// Room that a label of the axis needs, in pixels.
const LABEL: f64 = 64.0;
/// Narrower pictures have no room for a line of time.
const MIN_WIDTH: u32 = 480;
/// As wide as a canvas can be.
const MAX_WIDTH: u32 = 16_000;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAYS: i64 = 24 * HOUR;
/// More than any archive holds.
const LONGEST: i64 = 36_500 * DAYS;
const STEPS: [i64; 17] = [
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAYS,
    2 * DAYS,
    7 * DAYS,
    14 * DAYS,
    28 * DAYS,
    364 * DAYS,
];

fn meaning(reason: Reason) -> (&'static str, Rgba) {
    match reason {
        Reason::Continuous => ("recorded", Rgba::rgb(0x00, 0x72, 0xb2)),
        Reason::Motion => ("recorded for motion", Rgba::rgb(0x56, 0xb4, 0xe9)),
        Reason::Events => ("recorded for events", Rgba::rgb(0xe6, 0x9f, 0x00)),
        Reason::OnDemand => ("recorded on demand", Rgba::rgb(0xcc, 0x79, 0xa7)),
    }
}

/// A time without a pause, in microseconds since 1970.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stretch {
    pub start_us: i64,
    pub end_us: i64,
    pub reason: Reason,
}

/// Something that was seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mark {
    pub class: String,
    pub first_us: i64,
    pub last_us: i64,
}

/// One camera. Stretches are in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Row {
    pub name: String,
    pub bytes: u64,
    pub stretches: Vec<Stretch>,
    pub marks: Vec<Mark>,
}

impl Row {
    /// Microseconds of the time from `from_us` to `to_us` that are recorded.
    pub fn covered_us(&self, from_us: i64, to_us: i64) -> i64 {
        let mut end = from_us;
        let within = self.stretches.iter().map(|s| {
            let (start, stop) = (s.start_us.clamp(end, to_us.max(end)), s.end_us.clamp(end, to_us.max(end)));
            end = end.max(stop);
            (stop - start).max(0)
        });
        within.sum()
    }

    /// Times within which nothing was recorded.
    pub fn gaps(&self, from_us: i64, to_us: i64) -> Vec<(i64, i64)> {
        let mut gaps = Vec::new();
        let mut end = from_us;
        for stretch in &self.stretches {
            let start = stretch.start_us.min(to_us);
            if start > end {
                gaps.push((end, start));
            }
            end = end.max(stretch.end_us);
        }
        if end < to_us {
            gaps.push((end, to_us));
        }
        gaps
    }
}

/// What is to be drawn.
#[derive(Clone, Debug)]
pub struct Chart<'a> {
    pub from_us: i64,
    pub to_us: i64,
    pub rows: &'a [Row],
    /// Whose hours stand below.
    pub zone: TimeZone,
    /// Pixels.
    pub width: u32,
}

/// Where times lie in the picture.
#[derive(Clone, Copy, Debug)]
struct Axis {
    from_us: i64,
    to_us: i64,
    left: u32,
    width: u32,
}

impl Axis {
    fn x(&self, us: i64) -> f64 {
        let span = (self.to_us - self.from_us).max(1) as f64;
        f64::from(self.left) + (us - self.from_us) as f64 / span * f64::from(self.width)
    }

    /// The shortest of the usual steps whose labels do not touch.
    fn step(&self) -> i64 {
        let per_label = (self.to_us - self.from_us) as f64 * LABEL / f64::from(self.width.max(1));
        STEPS.into_iter().find(|step| *step as f64 >= per_label).unwrap_or(STEPS[STEPS.len() - 1])
    }

    /// The round times of a zone within the axis: each with its time of day, midnight with its day.
    fn ticks(&self, zone: &TimeZone) -> Vec<(i64, String, bool)> {
        let step = self.step();
        // Every zone is a multiple of a quarter of an hour away from UTC.
        let grain = step.min(15 * MINUTE);
        let first = self.from_us.div_euclid(grain) + i64::from(self.from_us.rem_euclid(grain) > 0);
        (first..=self.to_us.div_euclid(grain))
            .map(|number| number * grain)
            .filter_map(|at| label(at, step, zone).map(|(label, midnight)| (at, label, midnight)))
            .collect()
    }
}

fn zoned(us: i64, zone: &TimeZone) -> Zoned {
    Timestamp::from_microsecond(us).unwrap_or_default().to_zoned(zone.clone())
}

/// What stands at a time, where something does.
fn label(us: i64, step: i64, zone: &TimeZone) -> Option<(String, bool)> {
    let time = zoned(us, zone);
    let of_day = (i64::from(time.hour()) * 60 + i64::from(time.minute())) * MINUTE;
    let midnight = time.time() == Time::midnight();
    // Where the clocks are set over midnight, a day has none.
    let day = time.date().duration_since(jiff::civil::date(1970, 1, 1)).as_hours() / 24;
    if step >= DAYS {
        let wanted = midnight && day.rem_euclid(step / DAYS) == 0;
        return wanted.then(|| (time.strftime("%-d %b").to_string(), true));
    }
    (of_day % step == 0).then(|| {
        let text = if midnight { time.strftime("%a %-d %b") } else { time.strftime("%H:%M") };
        (text.to_string(), midnight)
    })
}

/// Bytes as people say them.
fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    if value < 9.95 && unit > 0 {
        format!("{value:.1} {}", units[unit])
    } else {
        format!("{value:.0} {}", units[unit])
    }
}

/// A share, and never a hundred percent of what is not whole.
pub fn share(part: i64, of: i64) -> String {
    let percent = part as f64 / of.max(1) as f64 * 100.0;
    if part >= of {
        "100 %".into()
    } else if percent >= 99.9 {
        "99.9 %".into()
    } else if percent >= 10.0 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.2} %")
    }
}

struct Pen {
    canvas: Canvas,
    typeface: Typeface,
}

impl Pen {
    fn text(&mut self, x: f32, baseline: f32, size: f32, text: &str, ink: Rgba) {
        self.typeface.draw(&mut self.canvas, (x, baseline), size, text, ink);
    }

    fn fill(&mut self, x: f64, y: u32, (width, height): (f64, u32), colour: Rgba) {
        self.canvas.fill((x.round() as i32, y as i32), (width.round().max(1.0) as u32, height), colour);
    }
}

/// Classes by how often they were seen, as many as have a lane of their own, and whether there are others.
fn classes(rows: &[Row]) -> (Vec<&str>, bool) {
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for mark in rows.iter().flat_map(|row| &row.marks) {
        match counted.iter_mut().find(|(class, _)| *class == mark.class) {
            Some((_, count)) => *count += 1,
            None => counted.push((&mark.class, 1)),
        }
    }
    counted.sort_by(|(a, many), (b, more)| more.cmp(many).then(a.cmp(b)));
    let most = CLASSES.len() - 1;
    let others = counted.len() > most;
    (counted.into_iter().take(most).map(|(class, _)| class).collect(), others)
}

/// How much of each column of pixels is recorded, and as what most of it.
fn columns(row: &Row, axis: &Axis) -> Vec<(f64, Reason)> {
    let mut covered = vec![[0.0_f64; Reason::ALL.len()]; axis.width as usize];
    let mut end_us = axis.from_us;
    for stretch in &row.stretches {
        // What overlaps counts once.
        let start = stretch.start_us.clamp(end_us, axis.to_us.max(end_us));
        let stop = stretch.end_us.clamp(start, axis.to_us.max(start));
        end_us = stop;
        let place = |us| (axis.x(us) - f64::from(axis.left)).clamp(0.0, f64::from(axis.width));
        let (from, to) = (place(start), place(stop));
        for (at, column) in covered.iter_mut().enumerate().take(to.ceil() as usize).skip(from as usize) {
            let part = to.min((at + 1) as f64) - from.max(at as f64);
            column[stretch.reason as usize] += part.max(0.0);
        }
    }
    let most = |column: &[f64; 4]| {
        let least = (Reason::Continuous, 0.0);
        let each = Reason::ALL.into_iter().zip(*column);
        each.fold(least, |most, each| if each.1 > most.1 { each } else { most }).0
    };
    covered.iter().map(|column| (column.iter().sum::<f64>(), most(column))).collect()
}

/// Draws a chart. Its height follows from what is in it.
pub fn draw(chart: &Chart<'_>) -> Canvas {
    let rows = chart.rows;
    let (classes, others) = classes(rows);
    let lanes = classes.len() as u32 + u32::from(others);
    let row_height = BAR + if lanes > 0 { lanes * LANE + 3 } else { 0 } + GAP;
    let widest = |texts: &mut dyn Iterator<Item = f32>| texts.fold(0.0_f32, f32::max);
    let names = widest(&mut rows.iter().map(|row| Typeface::width(&row.name, TEXT))).max(70.0);
    let left = (MARGIN + names.min(220.0) + 16.0).ceil() as u32 + 1;
    let right = (MARGIN + 74.0) as u32;
    let width = chart.width.clamp(MIN_WIDTH.max(left + right + 100), MAX_WIDTH);
    let to_us =
        chart.to_us.clamp(chart.from_us.saturating_add(SECOND), chart.from_us.saturating_add(LONGEST));
    let axis = Axis { from_us: chart.from_us, to_us, left, width: width - left - right };
    let local = (zoned(chart.from_us, &chart.zone), zoned(to_us, &chart.zone));
    let is_utc = local.0.offset().seconds() == 0 && local.1.offset().seconds() == 0;
    let top = 92;
    let bottom = top + rows.len() as u32 * row_height;
    let height = bottom + if is_utc { 66 } else { 96 };
    let mut canvas = Canvas::new(width, height);
    canvas.fill((0, 0), (width, height), PAPER);
    let mut pen = Pen { canvas, typeface: Typeface::new() };

    let title = format!(
        "{} – {} UTC",
        zoned(chart.from_us, &TimeZone::UTC).strftime("%Y-%m-%d %H:%M"),
        zoned(to_us, &TimeZone::UTC).strftime("%Y-%m-%d %H:%M")
    );
    pen.text(MARGIN, 40.0, TITLE, "Recordings", INK);
    let after = MARGIN + Typeface::width("Recordings", TITLE) + 16.0;
    pen.text(after, 40.0, TEXT, &title, FAINT);

    for (at, text, midnight) in axis.ticks(&TimeZone::UTC) {
        let colour = if midnight { DAY } else { LINE };
        pen.fill(axis.x(at), top - 10, (1.0, bottom - top + 10), colour);
        centred(&mut pen, &axis, at, top as f32 - 18.0, &text, if midnight { INK } else { FAINT });
    }
    pen.text(MARGIN, top as f32 - 18.0, SMALL, "UTC", FAINT);
    for (number, row) in rows.iter().enumerate() {
        self::row(&mut pen, &axis, row, top + number as u32 * row_height, &classes, others);
    }
    if !is_utc {
        let y = bottom as f32 + 22.0;
        for (at, text, midnight) in axis.ticks(&chart.zone) {
            pen.fill(axis.x(at), bottom, (1.0, 6), DAY);
            centred(&mut pen, &axis, at, y, &text, if midnight { INK } else { FAINT });
        }
        let zone = local.0.strftime("%Z").to_string();
        pen.text(MARGIN, y, SMALL, &zone, FAINT);
    }
    legend(&mut pen, rows, &classes, others, height as f32 - 22.0);
    pen.canvas
}

/// A label of an axis, where it does not stand out at the sides.
fn centred(pen: &mut Pen, axis: &Axis, at: i64, baseline: f32, text: &str, ink: Rgba) {
    let half = Typeface::width(text, SMALL) / 2.0;
    let x = axis.x(at) as f32;
    if x + half <= (axis.left + axis.width) as f32 + 40.0 {
        pen.text(x - half, baseline, SMALL, text, ink);
    }
}

fn row(pen: &mut Pen, axis: &Axis, row: &Row, y: u32, classes: &[&str], others: bool) {
    let baseline = y as f32 + 16.0;
    let room = axis.left as f32 - 16.0 - MARGIN;
    pen.text(MARGIN, baseline, TEXT, &Typeface::fit(&row.name, TEXT, room), INK);
    let side = (axis.left + axis.width) as f32 + 12.0;
    let covered = row.covered_us(axis.from_us, axis.to_us);
    pen.text(side, baseline - 3.0, SMALL, &share(covered, axis.to_us - axis.from_us), INK);
    pen.text(side, baseline + 12.0, SMALL, &size(row.bytes), FAINT);
    pen.fill(f64::from(axis.left), y, (f64::from(axis.width), BAR), EMPTY);
    for (at, (part, reason)) in columns(row, axis).into_iter().enumerate() {
        if part > 0.0 {
            // A pause of a second in a day is seen, and so is a second in a day of pause.
            let strength = if part >= 0.9995 { 1.0 } else { 0.2 + 0.45 * part };
            let x = f64::from(axis.left) + at as f64;
            pen.fill(x, y, (1.0, BAR), meaning(reason).1.with_alpha(strength as f32));
        }
    }
    for mark in row.marks.iter().filter(|m| m.last_us >= axis.from_us && m.first_us < axis.to_us) {
        let lane = classes.iter().position(|class| *class == mark.class);
        let Some(lane) = lane.or_else(|| others.then_some(classes.len())) else { continue };
        let colour = if lane < classes.len() { CLASSES[lane] } else { CLASSES[CLASSES.len() - 1] };
        let (from, to) = (axis.x(mark.first_us.max(axis.from_us)), axis.x(mark.last_us.min(axis.to_us)));
        let (from, end) = (from.floor(), f64::from(axis.left + axis.width));
        let width = (to - from).max(2.0).min(end - from);
        pen.fill(from, y + BAR + 3 + lane as u32 * LANE, (width, MARK), colour);
    }
}

fn legend(pen: &mut Pen, rows: &[Row], classes: &[&str], others: bool, baseline: f32) {
    let mut x = MARGIN;
    let end = pen.canvas.width() as f32 - MARGIN;
    let mut entry = |pen: &mut Pen, colour: Rgba, tall: bool, text: &str| {
        let text = Typeface::fit(text, SMALL, 160.0);
        let width = 20.0 + Typeface::width(&text, SMALL) + 22.0;
        if x + width > end + 22.0 {
            return;
        }
        let (height, lift) = if tall { (12, 11.0) } else { (MARK, 7.0) };
        pen.canvas.fill((x as i32, (baseline - lift) as i32), (14, height), colour);
        pen.text(x + 20.0, baseline, SMALL, &text, INK);
        x += width;
    };
    for reason in Reason::ALL {
        if rows.iter().flat_map(|row| &row.stretches).any(|stretch| stretch.reason == reason) {
            let (text, colour) = meaning(reason);
            entry(pen, colour, true, text);
        }
    }
    entry(pen, EMPTY, true, "nothing recorded");
    for (class, colour) in classes.iter().zip(CLASSES) {
        entry(pen, colour, false, class);
    }
    if others {
        entry(pen, CLASSES[CLASSES.len() - 1], false, "others");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-21 00:00 UTC.
    const MIDNIGHT: i64 = 1_795_219_200 * SECOND;

    fn stretch(from: i64, to: i64) -> Stretch {
        Stretch { start_us: from, end_us: to, reason: Reason::Continuous }
    }

    fn chart(rows: &[Row], hours: i64) -> Chart<'_> {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        Chart { from_us: MIDNIGHT, to_us: MIDNIGHT + hours * HOUR, rows, zone, width: 1200 }
    }

    #[test]
    fn labels_are_round_in_their_zone() {
        let axis = |hours| Axis { from_us: MIDNIGHT, to_us: MIDNIGHT + hours * HOUR, left: 100, width: 1000 };
        let texts = |hours, zone: &TimeZone| {
            axis(hours).ticks(zone).into_iter().map(|(_, text, _)| text).collect::<Vec<_>>()
        };
        assert_eq!(texts(1, &TimeZone::UTC)[..3], ["Sat 21 Nov", "00:05", "00:10"]);
        let day = texts(24, &TimeZone::UTC);
        assert_eq!((day.len(), &*day[0], &*day[1], &*day[12]), (13, "Sat 21 Nov", "02:00", "Sun 22 Nov"));
        let nepal = TimeZone::fixed(jiff::tz::Offset::from_seconds(20_700).unwrap());
        assert_eq!(texts(24, &nepal)[..2], ["06:00", "08:00"]);
        let first = axis(24).ticks(&nepal)[0].0;
        assert_eq!(first - MIDNIGHT, 15 * MINUTE);
        assert_eq!(texts(24 * 7, &TimeZone::UTC)[..3], ["Sat 21 Nov", "12:00", "Sun 22 Nov"]);
        assert_eq!(texts(24 * 60, &TimeZone::UTC).len(), 8);
    }

    #[test]
    fn gaps_and_coverage_add_up() {
        let row =
            Row { stretches: vec![stretch(-5, 10), stretch(8, 20), stretch(30, 200)], ..Row::default() };
        assert_eq!(row.covered_us(0, 100), 90);
        assert_eq!(row.gaps(0, 100), [(20, 30)]);
        assert_eq!(row.gaps(-10, 300), [(-10, -5), (20, 30), (200, 300)]);
        assert_eq!(Row::default().gaps(0, 9), [(0, 9)]);
        assert_eq!([share(1, 1), share(99_999, 100_000), share(1, 40)], ["100 %", "99.9 %", "2.50 %"]);
        assert_eq!(
            [size(0), size(999), size(1500), size(12_300_000_000)],
            ["0 B", "999 B", "1.5 kB", "12 GB"]
        );
    }

    /// Neither a second of pause in a day nor a second of recording gets lost between two pixels.
    #[test]
    fn what_is_short_is_seen() {
        let noon = MIDNIGHT + 12 * HOUR;
        let whole = Row { stretches: vec![stretch(MIDNIGHT, MIDNIGHT + DAYS)], ..Row::default() };
        let paused = Row {
            stretches: vec![stretch(MIDNIGHT, noon), stretch(noon + SECOND, MIDNIGHT + DAYS)],
            ..Row::default()
        };
        let brief = Row { stretches: vec![stretch(noon, noon + SECOND)], ..Row::default() };
        let rows = [whole, paused, brief, Row::default()];
        let picture = draw(&chart(&rows, 24));
        let line = |row: u32| {
            let y = 92 + row * (BAR + GAP) + BAR / 2;
            (0..picture.width()).map(|x| picture.pixel(x, y)).collect::<Vec<_>>()
        };
        let (whole, paused, brief, none) = (line(0), line(1), line(2), line(3));
        let differ = |a: &[[u8; 4]], b: &[[u8; 4]]| a.iter().zip(b).filter(|(a, b)| a != b).count();
        // Apart from what is written beside.
        let bar = 120..1000;
        assert!((1..=2).contains(&differ(&whole[bar.clone()], &paused[bar.clone()])));
        assert!((1..=2).contains(&differ(&none[bar.clone()], &brief[bar])));
    }

    #[test]
    fn a_picture_has_all_rows_and_lanes() {
        let mark = |class: &str| Mark { class: class.into(), first_us: MIDNIGHT, last_us: MIDNIGHT };
        let mut rows = vec![Row { name: "Camera 1".into(), ..Row::default() }; 12];
        let plain = draw(&chart(&rows, 24)).height();
        rows[3].marks = ["person", "car", "person"].map(mark).to_vec();
        assert_eq!(draw(&chart(&rows, 24)).height(), plain + 12 * (2 * LANE + 3));
        rows[4].marks = ["a", "b", "c", "d", "e", "f"].map(mark).to_vec();
        assert_eq!(classes(&rows), (vec!["person", "a", "b", "c"], true));
        assert_eq!(draw(&chart(&rows, 24)).height(), plain + 12 * (5 * LANE + 3));
    }

    proptest! {
        #[test]
        fn any_recordings_can_be_drawn(
            mut times in proptest::collection::vec(-1_000_000_000_000_i64..1_000_000_000_000, 0..40),
            span in 0_i64..40_000, width in 0_u32..3000,
        ) {
            times.sort_unstable();
            let stretches = times.chunks_exact(2).map(|pair| stretch(MIDNIGHT + pair[0], MIDNIGHT + pair[1]));
            let row = Row { stretches: stretches.collect(), ..Row::default() };
            let to_us = MIDNIGHT + span * MINUTE;
            let covered = row.covered_us(MIDNIGHT, to_us);
            let gaps: i64 = row.gaps(MIDNIGHT, to_us).iter().map(|(from, to)| to - from).sum();
            prop_assert_eq!(covered + gaps, to_us - MIDNIGHT);
            let rows = [row];
            let picture = draw(&Chart { from_us: MIDNIGHT, to_us, rows: &rows, zone: TimeZone::UTC, width });
            prop_assert!(picture.width() >= MIN_WIDTH);
        }
    }
}
