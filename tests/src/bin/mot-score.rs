//! Prints how well the tracker follows the labelled sequences of the shared test data, beside the reference of
//! `tests/bench/reference_track.py`: the table of docs/ref/tracking-accuracy.md.
//!
//! ```text
//! cargo run -p nvr-tests --bin mot-score
//! ```

use anyhow::Context;
use nvr_tests::{data, mot};

fn main() -> anyhow::Result<()> {
    let root = data::shared("mot").context("no shared test data")?;
    print!("{}", mot::table(&mot::compare(&root, &data::own("reference/tracking.json"))?));
    Ok(())
}
