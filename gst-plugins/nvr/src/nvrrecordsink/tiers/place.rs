//! Where a tier is, and how a recording gets there so that no moment of the way loses or doubles it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{self, Path, PathBuf};
use std::sync::Arc;

use super::super::catalog::{CatalogError, Recording};
use super::super::checksum::Checksum;
use super::super::volume::{Volume, VolumeError};
use super::address;
use super::mover::Breath;
use super::s3::{Bucket, Remote, S3Error};

/// Ending of a file that is being copied.
const PART: &str = "mp4-part";
/// Bytes that are copied at a time.
const CHUNK: usize = 256 << 10;
/// Bytes that are written before they go to the disk: what others write there waits for no more than that.
const SYNC: u64 = 8 << 20;

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    S3(#[from] S3Error),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{path} cannot be read: {error}")]
    Source { path: PathBuf, error: io::Error },
    #[error("{0} reads back other than it was written; it was taken away again")]
    Damaged(PathBuf),
    #[error("{0} exists already and is no recording of this catalogue; move it away")]
    Occupied(PathBuf),
    #[error("stopped")]
    Stopped,
}

impl PlaceError {
    /// Whether other files of the same place may fare better.
    pub fn concerns_a_file(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Source { .. } | Self::Occupied(_))
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> PlaceError {
    move |error| PlaceError::Io { path: path.to_owned(), error }
}

/// A volume that recordings can be moved to and read from.
#[derive(Clone, Debug)]
pub enum Place {
    Folder(Volume),
    Bucket(Arc<Bucket>),
}

impl Place {
    /// Opens what a `…-location` property names, with the identity that it had before, if it is known. `credentials`
    /// is the file with the key to a bucket.
    pub fn open(
        location: &str,
        wanted: Option<&str>,
        credentials: Option<&Path>,
    ) -> Result<Self, PlaceError> {
        if address::is_bucket(location) {
            return Ok(Self::Bucket(Arc::new(Bucket::open(location, wanted, credentials)?)));
        }
        Ok(Self::Folder(Volume::open(Path::new(&Self::canonical(location)), wanted)?))
    }

    /// The one way to write a location, wherever it is read. It holds no secret, even if the location did.
    pub fn canonical(location: &str) -> String {
        if address::is_bucket(location) {
            return address::canonical(location);
        }
        let path = Path::new(location);
        let path = path::absolute(path).unwrap_or_else(|_| path.to_owned());
        path.components().collect::<PathBuf>().display().to_string()
    }

    pub fn volume(&self) -> &Volume {
        match self {
            Self::Folder(volume) => volume,
            Self::Bucket(bucket) => &bucket.volume,
        }
    }

    /// Whether it is there, and the same.
    pub fn check(&self) -> Result<(), PlaceError> {
        match self {
            Self::Folder(volume) => Ok(volume.check()?),
            Self::Bucket(bucket) => bucket.check(),
        }
    }

    /// The same where nothing has to be asked for it: whether a directory is the mounted one.
    pub fn mounted(&self) -> Result<(), PlaceError> {
        match self {
            Self::Folder(volume) => Ok(volume.check()?),
            Self::Bucket(_) => Ok(()),
        }
    }

    /// Whether what was just put here is here: a mount that went or came meanwhile would have it elsewhere.
    pub fn kept(&self, path: &Path) -> Result<(), PlaceError> {
        self.mounted()?;
        match self {
            Self::Folder(volume) => {
                let file = volume.root.join(path);
                fs::metadata(&file).map(|_| ()).map_err(io_error(&file))
            }
            Self::Bucket(_) => Ok(()),
        }
    }

    /// Bytes that can still be written, where that has a limit.
    pub fn free(&self) -> Option<u64> {
        match self {
            Self::Folder(volume) => volume.free().ok(),
            Self::Bucket(_) => None,
        }
    }

    /// Size of a file, if there is one.
    pub fn size(&self, path: &Path) -> Result<Option<u64>, PlaceError> {
        match self {
            Self::Folder(volume) => {
                let file = volume.root.join(path);
                match fs::metadata(&file) {
                    Ok(found) => Ok(Some(found.len())),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(io_error(&file)(error)),
                }
            }
            Self::Bucket(bucket) => Ok(bucket.size(path)?),
        }
    }

    pub fn read(&self, path: &Path) -> Result<Box<dyn Read + Send>, PlaceError> {
        match self {
            Self::Folder(volume) => {
                let path = volume.root.join(path);
                let file = File::open(&path).map_err(|error| PlaceError::Source { path, error })?;
                Ok(Box::new(file))
            }
            Self::Bucket(bucket) => Ok(Box::new(Remote::open(bucket, path)?)),
        }
    }

    /// What a file reads like from the disk itself: how many of the first `bytes` bytes there are, and their checksum.
    pub fn reads(&self, path: &Path, bytes: u64) -> Result<(u64, Checksum), PlaceError> {
        let mut from: Box<dyn Read + Send> = match self {
            Self::Folder(volume) => {
                let path = volume.root.join(path);
                let file = File::open(&path).map_err(|error| PlaceError::Source { path, error })?;
                uncache(&file);
                Box::new(file)
            }
            Self::Bucket(_) => self.read(path)?,
        };
        let failed = |error| PlaceError::Source { path: self.volume().root.join(path), error };
        Checksum::of(&mut from, bytes).map_err(failed)
    }

    /// Copies a recording to this place, and looks whether it arrived as it was sent. Returns how much was read, and
    /// its checksum. When this fails, nothing is left here, or what is left can be told from `begun`: the name of an upload
    /// in parts, given before there is a part.
    pub(super) fn put(
        &self,
        recording: &Recording,
        from: &mut dyn Read,
        breath: &mut Breath<'_>,
        begun: &mut dyn FnMut(&str) -> Result<(), PlaceError>,
    ) -> Result<(u64, Checksum), PlaceError> {
        match self {
            Self::Bucket(bucket) => bucket.put(recording, from, breath, begun),
            Self::Folder(volume) => {
                let file = volume.root.join(&recording.path);
                let part = file.with_extension(PART);
                let result = copy(recording, from, volume, &file, &part, breath);
                if result.is_err() {
                    let _ = fs::remove_file(&part);
                }
                result
            }
        }
    }

    pub fn remove(&self, path: &Path) -> Result<(), PlaceError> {
        match self {
            Self::Folder(volume) => volume.remove(path).map_err(io_error(&volume.root.join(path))),
            Self::Bucket(bucket) => Ok(bucket.remove(path)?),
        }
    }

    /// Removes what a move that was not finished has left.
    pub fn discard(&self, path: &Path, upload: Option<&str>) -> Result<(), PlaceError> {
        match self {
            Self::Bucket(bucket) => upload.map_or(Ok(()), |upload| bucket.abort(path, upload))?,
            Self::Folder(volume) => {
                let part = path.with_extension(PART);
                volume.remove(&part).map_err(io_error(&volume.root.join(&part)))?;
            }
        }
        self.remove(path)
    }
}

fn copy(
    recording: &Recording,
    from: &mut dyn Read,
    volume: &Volume,
    file: &Path,
    part: &Path,
    breath: &mut Breath<'_>,
) -> Result<(u64, Checksum), PlaceError> {
    let fail = io_error(part);
    // Not onto the disk that a mount point lies on.
    volume.check()?;
    if fs::exists(file).map_err(&fail)? {
        return Err(PlaceError::Occupied(file.to_owned()));
    }
    let folder = file.parent().unwrap_or(&volume.root);
    make_folder(folder).map_err(&fail)?;
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).open(part).map_err(&fail)?;
    let mut checksum = Checksum::default();
    let mut buffer = vec![0; CHUNK];
    let (mut rest, mut unsynced) = (recording.bytes, 0);
    while rest > 0 {
        let most = usize::try_from(rest).map_or(CHUNK, |rest| rest.min(CHUNK));
        let count = match from.read(&mut buffer[..most]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(PlaceError::Source { path: recording.file(), error }),
        };
        checksum.update(&buffer[..count]);
        out.write_all(&buffer[..count]).map_err(&fail)?;
        rest -= count as u64;
        unsynced += count as u64;
        if unsynced >= SYNC {
            out.sync_data().map_err(&fail)?;
            unsynced = 0;
        }
        breath.take(count as u64)?;
    }
    out.sync_all().map_err(&fail)?;
    uncache(&out);
    let written = recording.bytes - rest;
    let mut back = File::open(part).map_err(&fail)?;
    let (read, copied) = Checksum::of(&mut back, u64::MAX).map_err(&fail)?;
    uncache(&back);
    if read != written || copied.text() != checksum.text() {
        return Err(PlaceError::Damaged(file.to_owned()));
    }
    fs::rename(part, file).map_err(&fail)?;
    // The name.
    sync_folder(folder).map_err(&fail)?;
    Ok((read, checksum))
}

/// Makes a folder, and those that it is in, so that a power cut takes none of them.
pub fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    make_folder(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other.and_then(|()| sync_folder(parent)),
    }
}

/// Has the system forget what it holds of a file in memory: what is read next comes from the disk, and what is needed
/// elsewhere keeps its room.
fn uncache(file: &File) {
    // SAFETY: the descriptor is open, and the call changes nothing but what is cached.
    let result = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    if result != 0 {
        gst::trace!(
            super::super::imp::CAT,
            "the cache is left as it is: {}",
            io::Error::from_raw_os_error(result)
        );
    }
}

pub fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // Some network file systems have no such thing.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}
