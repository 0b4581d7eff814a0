//! Whether catalogue and files agree, and making them agree.

use std::{fs::File, path::Path};

use gstnvr::nvrrecordsink::{
    catalog::{Recording, Repairs, Store},
    volume::Volume,
};
use nvr_core::segment::read;

use crate::cli::{CommandResult, Failure};

/// Entries that are read at a time.
const PAGE: u32 = 1000;

pub fn verify(store: &Store, root: &Path) -> CommandResult {
    let volume = volume(root)?;
    let (mut after, mut checked, mut wrong) = (0, 0_u64, 0_u64);
    loop {
        let page = store.page(after, PAGE).map_err(Failure::failed)?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for recording in page.iter().filter(|r| r.volume == volume.id && r.end_us.is_some()) {
            checked += 1;
            if let Err(problem) = check(root, recording) {
                wrong += 1;
                println!("{}: {problem}", root.join(&recording.path).display());
            }
        }
    }
    println!("{checked} recordings checked, {wrong} wrong");
    if wrong == 0 {
        Ok(())
    } else {
        Err(Failure::failed("recordings are missing or damaged; they are named above"))
    }
}

fn check(root: &Path, recording: &Recording) -> Result<(), String> {
    let mut file = File::open(root.join(&recording.path)).map_err(|error| error.to_string())?;
    let found = read::contents(&mut file).map_err(|error| error.to_string())?;
    if found.whole < recording.bytes {
        return Err(format!("whole up to byte {}, {} are known", found.whole, recording.bytes));
    }
    if found.frames() != recording.frames {
        return Err(format!("{} pictures, {} are known", found.frames(), recording.frames));
    }
    Ok(())
}

pub fn repair(file: &Path, root: &Path) -> CommandResult {
    let volume = volume(root)?;
    // A catalogue that was lost is made anew from the files.
    let mut store = Store::open(file).map_err(Failure::failed)?;
    let mut done = Repairs::default();
    store.close_open(&volume, None, &mut done).map_err(Failure::failed)?;
    let folders =
        std::fs::read_dir(root).map_err(|error| Failure::failed(format!("{}: {error}", root.display())))?;
    for folder in folders.flatten() {
        let Some(source) = folder.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        store.enter_new(&volume, source, None, &mut done).map_err(Failure::failed)?;
    }
    println!(
        "{} closed, {} entered, {} removed, {} could not be read",
        done.closed, done.entered, done.removed, done.failed
    );
    Ok(())
}

/// The volume as it is; one without an identity is not a recorder's.
fn volume(root: &Path) -> Result<Volume, Failure> {
    let identity = root.join(gstnvr::nvrrecordsink::volume::IDENTITY);
    if !identity.exists() {
        return Err(Failure::usage(format!(
            "{} does not exist: nothing was recorded there, or the disk is not mounted",
            identity.display()
        )));
    }
    Volume::open(root, None).map_err(Failure::failed)
}
