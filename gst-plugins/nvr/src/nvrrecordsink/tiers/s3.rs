//! A tier in a bucket of an S3-compatible store: `rusty-s3` signs the requests, `ureq` sends them.
//!
//! A recording goes up in parts of a few megabytes, so that neither memory nor a repetition after an interruption
//! grows with it. Each part carries its MD5, and the store refuses one that arrived otherwise.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use gst::glib;
use nvr_core::backoff::Backoff;
use rusty_s3::actions::{CompleteMultipartUploadResponse, CreateMultipartUpload};
use rusty_s3::{Bucket as Signer, S3Action, UrlStyle};
use ureq::http::{Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use url::Url;

use super::super::catalog::Recording;
use super::super::checksum::Checksum;
use super::super::imp::CAT;
use super::super::volume::{IDENTITY, Volume, VolumeError, new_identity};
use super::address::{Address, address, canonical, region};
use super::mover::Breath;
use super::place::PlaceError;
use super::secrets::Secrets;

/// Bytes that go up or down with one request. Stores take no parts below 5 MiB.
const PART: usize = 8 << 20;
/// How long a signature is good for; a request begins well before.
const VALID: Duration = Duration::from_mins(15);
/// How often one request is tried before the tier counts as not there.
const ATTEMPTS: usize = 4;
/// Bytes of an answer that says something.
const ANSWER: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    #[error("{0}; expected s3:https://host[:port]/bucket[/prefix]")]
    Address(&'static str),
    #[error("{0}")]
    Secrets(String),
    #[error("the store refuses it: {status} {code}; check the key, its rights, and the clock of this host")]
    Refused { status: u16, code: String },
    #[error("there is no such object or bucket: {0}")]
    Missing(String),
    #[error("the store failed: {status} {code}")]
    Failed { status: u16, code: String },
    #[error("{0}")]
    Network(String),
    #[error("the store answers otherwise than S3 does: {0}")]
    Answer(&'static str),
}

impl S3Error {
    /// Whether the same request may succeed a little later.
    fn passes(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::Network(_) => true,
            Self::Address(_)
            | Self::Secrets(_)
            | Self::Refused { .. }
            | Self::Missing(_)
            | Self::Answer(_) => false,
        }
    }
}

/// One bucket, or a part of it below a prefix.
pub struct Bucket {
    agent: ureq::Agent,
    signer: Signer,
    secrets: Secrets,
    /// Empty, or ends with a slash.
    prefix: String,
    pub volume: Volume,
}

/// Without the secrets.
impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("volume", &self.volume).finish_non_exhaustive()
    }
}

fn agent() -> ureq::Agent {
    let certificates = rustls_native_certs::load_native_certs().certs;
    let certificates: Vec<_> =
        certificates.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned()).collect();
    let mut tls = TlsConfig::builder();
    if !certificates.is_empty() {
        tls = tls.root_certs(RootCerts::Specific(Arc::new(certificates)));
    }
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    ureq::Agent::config_builder()
        .tls_config(tls.build())
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_resolve(seconds(10))
        .timeout_connect(seconds(10))
        // Eight megabytes over a line of half a megabit per second.
        .timeout_send_body(seconds(150))
        .timeout_recv_response(seconds(60))
        .timeout_recv_body(seconds(150))
        .build()
        .into()
}

/// What a refused or failed request is about, from the answer's XML.
fn code(body: &mut ureq::Body) -> String {
    let text = body.with_config().limit(ANSWER).lossy_utf8(true).read_to_string().unwrap_or_default();
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let code = code.map_or("", |(code, _)| code);
    code.chars().filter(char::is_ascii_alphanumeric).take(64).collect()
}

/// Why there was no answer. Addresses with signatures are left out of it.
fn network(error: &ureq::Error) -> S3Error {
    S3Error::Network(match error {
        ureq::Error::Io(error) => format!("the store cannot be reached: {error}"),
        ureq::Error::Timeout(which) => format!("the store does not answer: timeout ({which})"),
        ureq::Error::HostNotFound => "the host of the store is not known".into(),
        ureq::Error::Rustls(error) => format!("the store's certificate is not accepted: {error}"),
        ureq::Error::BadUri(_) => "the address of the store is not understood".into(),
        other => format!("the store cannot be talked to: {other}"),
    })
}

impl Bucket {
    /// Opens what a location names, with the identity that it had before, if it is known.
    pub fn open(
        location: &str,
        wanted: Option<&str>,
        credentials: Option<&Path>,
    ) -> Result<Self, PlaceError> {
        let Address { endpoint, bucket, prefix } = address(location)?;
        let secrets = Secrets::read(credentials).map_err(S3Error::Secrets)?;
        let region = region(&secrets, &endpoint);
        let signer = Signer::new(endpoint, UrlStyle::Path, bucket, region)
            .map_err(|_| S3Error::Address("that is no address of a bucket"))?;
        let root = PathBuf::from(canonical(location));
        let volume = Volume { root: root.clone(), id: String::new() };
        let mut this = Self { agent: agent(), signer, secrets, prefix, volume };
        let id = match (this.identity()?, wanted) {
            (Some(found), Some(wanted)) if found != wanted => {
                return Err(VolumeError::Other { path: root, found, wanted: wanted.to_owned() }.into());
            }
            (Some(found), _) => found,
            (None, Some(_)) => return Err(VolumeError::Gone(root).into()),
            (None, None) => {
                let id = new_identity();
                this.put_part(Path::new(IDENTITY), id.as_bytes())?;
                id
            }
        };
        this.volume.id = id;
        if this.signer.base_url().scheme() == "http" {
            gst::warning!(CAT, "{}: recordings travel unencrypted", this.volume.root.display());
        }
        Ok(this)
    }

    pub fn check(&self) -> Result<(), PlaceError> {
        let root = || self.volume.root.clone();
        match self.identity()? {
            Some(found) if found == self.volume.id => Ok(()),
            Some(found) => {
                Err(VolumeError::Other { path: root(), found, wanted: self.volume.id.clone() }.into())
            }
            None => Err(VolumeError::Gone(root()).into()),
        }
    }

    fn identity(&self) -> Result<Option<String>, S3Error> {
        let key = self.key(Path::new(IDENTITY));
        let url = self.signer.get_object(Some(&self.secrets.key), &key).sign(VALID);
        let mut answer = match self.ask("GET", &url, &[], None) {
            Err(S3Error::Missing(code)) if code != "NoSuchBucket" => return Ok(None),
            other => other?,
        };
        let text = answer.body_mut().with_config().limit(ANSWER).read_to_string();
        let text = text.map_err(|error| network(&error))?;
        Ok(Some(text.trim().chars().take(64).collect()))
    }

    /// Names of objects have slashes as paths do.
    fn key(&self, path: &Path) -> String {
        format!("{}{}", self.prefix, path.display())
    }

    fn ask(
        &self,
        method: &str,
        url: &Url,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response<ureq::Body>, S3Error> {
        let mut request = Request::builder().method(method).uri(url.as_str());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bad = |_| S3Error::Address("the request cannot be written");
        let answer = match body {
            Some(body) => self.agent.run(request.body(body).map_err(bad)?),
            None => self.agent.run(request.body(()).map_err(bad)?),
        };
        let mut answer = answer.map_err(|error| network(&error))?;
        match answer.status().as_u16() {
            200..300 => Ok(answer),
            404 => Err(S3Error::Missing(code(answer.body_mut()))),
            status @ (408 | 429 | 500..) => Err(S3Error::Failed { status, code: code(answer.body_mut()) }),
            status => Err(S3Error::Refused { status, code: code(answer.body_mut()) }),
        }
    }

    /// Size of an object, if there is one.
    pub fn size(&self, path: &Path) -> Result<Option<u64>, S3Error> {
        let key = self.key(path);
        let url = self.signer.head_object(Some(&self.secrets.key), &key).sign(VALID);
        let answer = match self.ask("HEAD", &url, &[], None) {
            Err(S3Error::Missing(_)) => return Ok(None),
            other => other?,
        };
        let length =
            answer.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        length.map(Some).ok_or(S3Error::Answer("an object without a length"))
    }

    pub fn remove(&self, path: &Path) -> Result<(), S3Error> {
        let key = self.key(path);
        let url = self.signer.delete_object(Some(&self.secrets.key), &key).sign(VALID);
        match self.ask("DELETE", &url, &[], None) {
            Err(S3Error::Missing(code)) if code != "NoSuchBucket" => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Ends an upload in parts that comes to nothing, so that its parts are not kept, and paid for, for ever.
    pub fn abort(&self, path: &Path, upload: &str) -> Result<(), S3Error> {
        let key = self.key(path);
        let url = self.signer.abort_multipart_upload(Some(&self.secrets.key), &key, upload).sign(VALID);
        match self.ask("DELETE", &url, &[], None) {
            Err(S3Error::Missing(code)) if code != "NoSuchBucket" => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Puts an object with one request.
    fn put_part(&self, path: &Path, body: &[u8]) -> Result<(), S3Error> {
        let key = self.key(path);
        let sum = md5(body);
        let mut action = self.signer.put_object(Some(&self.secrets.key), &key);
        action.headers_mut().insert("content-md5", sum.as_str());
        self.ask("PUT", &action.sign(VALID), &[("content-md5", &sum)], Some(body)).map(|_| ())
    }

    /// Uploads a recording, and looks whether all of it is there. Returns how much was read, and its checksum. `begun`
    /// is told the name of an upload in parts before there is a part.
    pub(super) fn put(
        &self,
        recording: &Recording,
        from: &mut dyn Read,
        breath: &mut Breath<'_>,
        begun: &mut dyn FnMut(&str) -> Result<(), PlaceError>,
    ) -> Result<(u64, Checksum), PlaceError> {
        let mut source = Source { recording, from, rest: recording.bytes, checksum: Checksum::default() };
        let mut part = vec![0; PART.min(usize::try_from(recording.bytes).unwrap_or(PART))];
        let mut count = source.fill(&mut part)?;
        if source.rest == 0 || count < part.len() {
            breath.take(count as u64)?;
            patiently(breath, || self.put_part(&recording.path, &part[..count]))?;
        } else {
            let key = self.key(&recording.path);
            let upload = patiently(breath, || self.begin(&key))?;
            begun(&upload)?;
            let result = (|| {
                let mut tags = Vec::new();
                while count > 0 {
                    breath.take(count as u64)?;
                    let number =
                        u16::try_from(tags.len() + 1).map_err(|_| S3Error::Answer("too many parts"))?;
                    tags.push(patiently(breath, || self.upload(&key, &upload, number, &part[..count]))?);
                    count = source.fill(&mut part)?;
                }
                patiently(breath, || self.complete(&key, &upload, &tags))?;
                Ok(())
            })();
            if let Err(error) = result {
                if let Err(error) = self.abort(&recording.path, &upload) {
                    gst::info!(CAT, "an upload could not be ended, and is at the next start: {error}");
                }
                return Err(error);
            }
        }
        let sent = recording.bytes - source.rest;
        if patiently(breath, || self.size(&recording.path))? != Some(sent) {
            self.remove(&recording.path)?;
            return Err(PlaceError::Damaged(self.volume.root.join(&recording.path)));
        }
        Ok((sent, source.checksum))
    }

    fn begin(&self, key: &str) -> Result<String, S3Error> {
        let url = self.signer.create_multipart_upload(Some(&self.secrets.key), key).sign(VALID);
        let text = Self::text(self.ask("POST", &url, &[], Some(&[]))?)?;
        let answer = CreateMultipartUpload::parse_response(&text)
            .map_err(|_| S3Error::Answer("no name for an upload in parts"))?;
        Ok(answer.upload_id().to_owned())
    }

    fn upload(&self, key: &str, upload: &str, number: u16, body: &[u8]) -> Result<String, S3Error> {
        let sum = md5(body);
        let mut action = self.signer.upload_part(Some(&self.secrets.key), key, number, upload);
        action.headers_mut().insert("content-md5", sum.as_str());
        let answer = self.ask("PUT", &action.sign(VALID), &[("content-md5", &sum)], Some(body))?;
        let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        tag.ok_or(S3Error::Answer("a part without an ETag"))
    }

    fn complete(&self, key: &str, upload: &str, tags: &[String]) -> Result<(), S3Error> {
        let tags = tags.iter().map(String::as_str);
        let action = self.signer.complete_multipart_upload(Some(&self.secrets.key), key, upload, tags);
        let url = action.sign(VALID);
        let answer = match self.ask("POST", &url, &[], Some(action.body().as_bytes())) {
            // A repetition after an answer that got lost: whether all is there is looked at next.
            Err(S3Error::Missing(code)) if code == "NoSuchUpload" => return Ok(()),
            other => other?,
        };
        // A store may begin to answer before it knows.
        let text = Self::text(answer)?;
        CompleteMultipartUploadResponse::parse(&text)
            .map(|_| ())
            .map_err(|_| S3Error::Failed { status: 200, code: "and an error in the answer".into() })
    }

    fn text(mut answer: Response<ureq::Body>) -> Result<String, S3Error> {
        let text = answer.body_mut().with_config().limit(ANSWER).read_to_string();
        text.map_err(|error| network(&error))
    }

    /// Bytes of an object, at most [`PART`].
    fn fetch(&self, key: &str, at: u64, count: u64) -> Result<Vec<u8>, S3Error> {
        let url = self.signer.get_object(Some(&self.secrets.key), key).sign(VALID);
        let range = format!("bytes={at}-{}", at + count - 1);
        let mut answer = self.ask("GET", &url, &[("range", &range)], None)?;
        if answer.status() != 206 && at > 0 {
            return Err(S3Error::Answer("a range is not heeded"));
        }
        let mut bytes = Vec::with_capacity(count as usize);
        let read = answer.body_mut().as_reader().take(count).read_to_end(&mut bytes);
        match read {
            Ok(_) if bytes.len() as u64 == count => Ok(bytes),
            Ok(_) => Err(S3Error::Network("the store ended its answer too early".into())),
            Err(error) => Err(S3Error::Network(format!("the store broke off its answer: {}", error.kind()))),
        }
    }
}

/// A recording on its way up.
struct Source<'a> {
    recording: &'a Recording,
    from: &'a mut dyn Read,
    rest: u64,
    checksum: Checksum,
}

impl Source<'_> {
    /// Fills a part, as far as there is something.
    fn fill(&mut self, part: &mut [u8]) -> Result<usize, PlaceError> {
        let mut count = 0;
        while count < part.len() && self.rest > 0 {
            let most = (part.len() - count).min(usize::try_from(self.rest).unwrap_or(usize::MAX));
            match self.from.read(&mut part[count..count + most]) {
                Ok(0) => break,
                Ok(read) => {
                    count += read;
                    self.rest -= read as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(PlaceError::Source { path: self.recording.file(), error }),
            }
        }
        self.checksum.update(&part[..count]);
        Ok(count)
    }
}

/// Tries a request again with the shared backoff, as long as it makes sense and nobody wants to go.
fn patiently<T>(breath: &Breath<'_>, request: impl Fn() -> Result<T, S3Error>) -> Result<T, PlaceError> {
    again(request, |delay| breath.pause(delay))
}

fn again<T>(
    request: impl Fn() -> Result<T, S3Error>,
    pause: impl Fn(Duration) -> Result<(), PlaceError>,
) -> Result<T, PlaceError> {
    let mut backoff = Backoff::default();
    loop {
        match request() {
            Err(error) if error.passes() && backoff.failures() + 1 < ATTEMPTS => {
                gst::info!(CAT, "a request is repeated: {error}");
                pause(backoff.next_delay(0.5))?;
            }
            other => return Ok(other?),
        }
    }
}

fn md5(bytes: &[u8]) -> String {
    let mut sum = glib::Checksum::new(glib::ChecksumType::Md5).expect("GLib knows MD5");
    sum.update(bytes);
    glib::base64_encode(&sum.digest()).into()
}

/// Reads an object, a part at a time.
pub struct Remote {
    bucket: Arc<Bucket>,
    key: String,
    size: u64,
    /// What is fetched next, and what was fetched.
    at: u64,
    part: io::Cursor<Vec<u8>>,
}

impl Remote {
    pub fn open(bucket: &Arc<Bucket>, path: &Path) -> Result<Self, PlaceError> {
        let size = again(|| bucket.size(path), sleep)?;
        let size = size.ok_or_else(|| PlaceError::Source {
            path: bucket.volume.root.join(path),
            error: ErrorKind::NotFound.into(),
        })?;
        let (bucket, key) = (bucket.clone(), bucket.key(path));
        Ok(Self { bucket, key, size, at: 0, part: io::Cursor::default() })
    }
}

#[allow(clippy::unnecessary_wraps, reason = "a pause that somebody may end looks like this")]
fn sleep(delay: Duration) -> Result<(), PlaceError> {
    thread::sleep(delay);
    Ok(())
}

impl Read for Remote {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.part.read(buffer)?;
        if count > 0 || buffer.is_empty() || self.at == self.size {
            return Ok(count);
        }
        let next = (self.size - self.at).min(PART as u64);
        let part = again(|| self.bucket.fetch(&self.key, self.at, next), sleep).map_err(io::Error::other)?;
        self.at += next;
        self.part = io::Cursor::new(part);
        self.part.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_is_written_as_the_header_wants_it() {
        assert_eq!(md5(b""), "1B2M2Y8AsgTpgAmY7PhCfg==");
    }
}
