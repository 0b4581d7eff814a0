//! Downloads a file: resumes, verifies, and puts it into place in one step.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};
use ureq::{
    Agent,
    http::{Response, StatusCode, header},
};

use crate::redact::{redact, redact_address};

/// What to download.
#[derive(Clone, Debug)]
pub struct Request {
    pub url: String,
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// Size, where it is known beforehand.
    pub bytes: Option<u64>,
    /// Where the finished file goes.
    pub target: PathBuf,
}

/// Told how far a download is.
pub trait Progress {
    /// `total` is `None` where the server does not say.
    fn at(&self, done: u64, total: Option<u64>);
    /// Something worth a line: resumed, begun anew.
    fn note(&self, text: &str);
    /// Between two attempts: a router that restarts, or a wireless network that is gone, comes back.
    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("{url} cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("{url}: the server answers {status}")]
    Status { url: String, status: u16 },
    #[error(
        "{url}: the connection was cut after {done} of {total} bytes; run the command again to go on from there"
    )]
    Cut { url: String, done: u64, total: String },
    #[error("{url}: more than {limit} bytes; that is not the file that was asked for")]
    TooLong { url: String, limit: u64 },
    #[error(
        "{url}: SHA-256 is {actual}, expected {expected}. The file is not the one that was asked for and has been deleted"
    )]
    Hash { url: String, expected: String, actual: String },
    #[error("the disk that holds {} is full", path.display())]
    DiskFull { path: PathBuf },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("another download of {} is running", path.display())]
    Busy { path: PathBuf },
}

/// ONNX files end at 2 GiB.
const MAX_BYTES: u64 = 1 << 31;
/// Attempts in a row that bring next to nothing before giving up.
const ATTEMPTS: u32 = 3;
/// Less than this is next to nothing: a server that gives one byte per connection is not asked without end.
const WORTH_IT: u64 = 64 << 10;
/// Before the first further attempt; twice as long before each one that follows one in vain.
const PAUSE: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn file_error(path: &Path) -> impl Fn(io::Error) -> DownloadError + '_ {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            DownloadError::DiskFull { path: path.into() }
        }
        _ => DownloadError::File { path: path.into(), source },
    }
}

/// SHA-256 of a file in hexadecimal digits, and its size.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_of(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        bytes += count as u64;
    }
    Ok((hexadecimal(&hasher.finalize()), bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
        text
    })
}

/// Downloads a file. What a cut connection leaves stays beside the target as `.part`, and the next attempt, also
/// that of a later process, goes on from there.
///
/// # Errors
/// See [`DownloadError`]. Only a complete and verified file ever appears at the target.
pub fn download(request: &Request, progress: &dyn Progress) -> Result<(), DownloadError> {
    let folder = request.target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(file_error(folder))?;
    let part = Part::open(&request.target)?;
    let agent = Agent::new_with_config(
        Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(TIMEOUT))
            .timeout_recv_response(Some(TIMEOUT))
            .timeout_per_read(Some(TIMEOUT))
            .user_agent(concat!("nvr-launch/", env!("CARGO_PKG_VERSION")))
            .build(),
    );
    let transfer = Transfer { request, agent, part, progress, url: redact_address(&request.url) };
    transfer.run()
}

/// The unfinished file, locked against other processes, and the validator that the server gave for it.
struct Part {
    path: PathBuf,
    validator_path: PathBuf,
    file: File,
}

impl Part {
    fn open(target: &Path) -> Result<Self, DownloadError> {
        let beside = |ending: &str| {
            let mut name = target.file_name().unwrap_or_default().to_owned();
            name.push(ending);
            target.with_file_name(name)
        };
        let path = beside(".part");
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(file_error(&path))?;
            match file.try_lock() {
                Err(fs::TryLockError::WouldBlock) => return Err(DownloadError::Busy { path: target.into() }),
                // A file system without locks: go on without.
                Ok(()) | Err(fs::TryLockError::Error(_)) => {}
            }
            // Between the opening and the lock, another download may have made it the installed model.
            if is_at(&file, &path).map_err(file_error(&path))? {
                return Ok(Self { validator_path: beside(".part.etag"), path, file });
            }
        }
    }

    fn length(&self) -> Result<u64, DownloadError> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(file_error(&self.path))
    }

    /// The validator of what is there, if it came from this address.
    fn validator(&self, url: &str) -> Option<String> {
        let text = fs::read_to_string(&self.validator_path).ok()?;
        let (from, validator) = text.split_once('\n')?;
        (from == fingerprint(url) && !validator.is_empty()).then(|| validator.to_owned())
    }

    /// Begins anew, with the validator of what will come.
    fn restart(&mut self, url: &str, validator: Option<&str>) -> Result<(), DownloadError> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(file_error(&self.path))?;
        let Some(validator) = validator else {
            let _ = fs::remove_file(&self.validator_path);
            return Ok(());
        };
        fs::write(&self.validator_path, format!("{}\n{validator}", fingerprint(url)))
            .map_err(file_error(&self.validator_path))
    }

    fn discard(&self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.validator_path);
    }
}

/// Whether the file that is open is (still) the one at `path`.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((open.dev(), open.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// An address that may hold a password does not go to disk.
fn fingerprint(url: &str) -> String {
    hexadecimal(&Sha256::digest(url.as_bytes()))
}

struct Transfer<'a> {
    request: &'a Request,
    agent: Agent,
    part: Part,
    progress: &'a dyn Progress,
    /// For messages.
    url: String,
}

impl Transfer<'_> {
    fn run(mut self) -> Result<(), DownloadError> {
        let mut useless = 0;
        loop {
            let before = self.part.length()?;
            match self.attempt() {
                Ok(()) => break,
                Err(error @ (DownloadError::Cut { .. } | DownloadError::Unreachable { .. })) => {
                    let gained = self.part.length()?.saturating_sub(before);
                    useless = if gained >= WORTH_IT { 0 } else { useless + 1 };
                    // Whether there is a network at all is known after the first attempt.
                    let hopeless =
                        matches!(error, DownloadError::Unreachable { .. }) && before == 0 && gained == 0;
                    if useless >= ATTEMPTS || hopeless {
                        return Err(error);
                    }
                    self.progress.note("the connection was cut; going on from there");
                    self.progress.pause(PAUSE * (1 << useless));
                }
                Err(error) => return Err(error),
            }
        }
        self.finish()
    }

    fn attempt(&mut self) -> Result<(), DownloadError> {
        let have = self.part.length()?;
        if self.request.bytes.is_some_and(|bytes| have == bytes) {
            return Ok(());
        }
        let validator = self.part.validator(&self.request.url);
        let mut call = self.agent.get(&self.request.url);
        // Without a validator, going on is safe only because the whole is verified in the end.
        if have > 0 {
            call = call.header(header::RANGE, format!("bytes={have}-"));
            if let Some(validator) = &validator {
                call = call.header(header::IF_RANGE, validator);
            }
        }
        let mut response = call.call().map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let start = match status {
            StatusCode::PARTIAL_CONTENT if have > 0 && range_start(&response) == Some(have) => {
                self.progress.note(&format!("going on after {have} bytes"));
                have
            }
            StatusCode::OK => {
                self.part.restart(&self.request.url, strong_etag(&response))?;
                0
            }
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT if have > 0 => {
                // What is here is not a beginning of what is there.
                self.part.restart(&self.request.url, None)?;
                return Err(DownloadError::Cut { url: self.url.clone(), done: 0, total: "?".into() });
            }
            _ => return Err(DownloadError::Status { url: self.url.clone(), status: status.as_u16() }),
        };
        let total = response.body().content_length().map(|rest| start.saturating_add(rest));
        let limit = self.request.bytes.unwrap_or(MAX_BYTES);
        if total.is_some_and(|total| total > limit) {
            return Err(DownloadError::TooLong { url: self.url.clone(), limit });
        }
        self.receive(&mut response, start, total, limit)
    }

    fn receive(
        &mut self,
        response: &mut Response<ureq::Body>,
        start: u64,
        total: Option<u64>,
        limit: u64,
    ) -> Result<(), DownloadError> {
        let cut = |done: u64| DownloadError::Cut {
            url: self.url.clone(),
            done,
            total: total.map_or_else(|| "?".into(), |total| total.to_string()),
        };
        let path = self.part.path.clone();
        self.part.file.seek(SeekFrom::Start(start)).map_err(file_error(&path))?;
        let mut reader = response.body_mut().as_reader();
        let mut buffer = vec![0; 64 * 1024];
        let mut done = start;
        loop {
            let count = reader.read(&mut buffer).map_err(|_| cut(done))?;
            if count == 0 {
                break;
            }
            if done + count as u64 > limit {
                return Err(DownloadError::TooLong { url: self.url.clone(), limit });
            }
            self.part.file.write_all(&buffer[..count]).map_err(file_error(&path))?;
            done += count as u64;
            self.progress.at(done, total.or(self.request.bytes));
        }
        // A server that does not say how long the answer is may have been cut as well.
        if total.or(self.request.bytes).is_some_and(|total| done < total) {
            return Err(cut(done));
        }
        Ok(())
    }

    fn finish(self) -> Result<(), DownloadError> {
        let path = &self.part.path;
        self.part.file.sync_all().map_err(file_error(path))?;
        let (actual, _) = sha256_of(path).map_err(file_error(path))?;
        if !actual.eq_ignore_ascii_case(&self.request.sha256) {
            self.part.discard();
            let expected = self.request.sha256.clone();
            return Err(DownloadError::Hash { url: self.url, expected, actual });
        }
        fs::rename(path, &self.request.target).map_err(file_error(&self.request.target))?;
        let _ = fs::remove_file(&self.part.validator_path);
        Ok(())
    }

    fn unreachable(&self, error: &ureq::Error) -> DownloadError {
        DownloadError::Unreachable { url: self.url.clone(), reason: redact(&error.to_string()).into_owned() }
    }
}

/// Where a partial answer begins.
fn range_start(response: &Response<ureq::Body>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// An entity tag that names exactly these bytes; weak ones do not.
fn strong_etag(response: &Response<ureq::Body>) -> Option<&str> {
    response.headers().get(header::ETAG)?.to_str().ok().filter(|etag| etag.starts_with('"'))
}
