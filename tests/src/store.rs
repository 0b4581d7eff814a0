//! A small S3-compatible store with one bucket, for one test. It checks signatures with `aws-sigv4`, the code of those
//! who defined them, and misbehaves on command.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use parking_lot::Mutex;

pub const BUCKET: &str = "recordings";
pub const KEY: &str = "AKIDEXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const REGION: &str = "us-east-1";
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// What the store holds, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Contents {
    pub objects: BTreeMap<String, Vec<u8>>,
    /// Uploads in parts that were begun and not ended.
    pub uploads: HashMap<String, BTreeMap<u16, Vec<u8>>>,
    /// Method and path of each request.
    pub requests: Vec<String>,
    /// Connections are closed without an answer.
    pub down: bool,
    /// This many requests from now on are answered with 503.
    pub busy: u32,
    /// This many bodies, up or down, are cut in the middle.
    pub cuts: u32,
    /// What is written is another thing than what was sent.
    pub forgetful: bool,
    begun: u32,
}

#[derive(Debug)]
pub struct Store {
    pub contents: Arc<Mutex<Contents>>,
    port: u16,
}

struct Query {
    method: String,
    /// Path and query as they came.
    target: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    fn error(status: u16, code: &str) -> Self {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
        Self { body: body.into_bytes(), ..Self::new(status) }
    }

    fn xml(name: &str, inner: &str) -> Self {
        let body = format!("<?xml version=\"1.0\"?><{name} xmlns=\"{NAMESPACE}\">{inner}</{name}>");
        Self { body: body.into_bytes(), ..Self::new(200) }
    }
}

impl Store {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on this host");
        let port = listener.local_addr().expect("it has just been bound").port();
        let contents = Arc::new(Mutex::new(Contents::default()));
        let shared = Arc::downgrade(&contents);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // The store ends with the test that holds it.
                let Some(contents) = shared.upgrade() else { break };
                thread::spawn(move || serve(&stream, &contents));
            }
        });
        Self { contents, port }
    }

    pub fn location(&self, prefix: &str) -> String {
        format!("s3:http://127.0.0.1:{}/{BUCKET}/{prefix}", self.port)
    }

    /// A file with the key to it.
    pub fn credentials(folder: &std::path::Path, secret: &str) -> std::path::PathBuf {
        let file = folder.join("credentials");
        let text = format!("[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {secret}\n");
        std::fs::write(&file, text).expect("a folder to write to");
        file
    }
}

/// One connection: requests until the other side has enough.
fn serve(stream: &TcpStream, contents: &Mutex<Contents>) {
    let _ = stream.set_read_timeout(Some(Duration::from_mins(1)));
    let mut reader = BufReader::new(stream);
    loop {
        if contents.lock().down {
            break;
        }
        let Some(query) = read(&mut reader, contents) else { break };
        let mut answer = answer(&query, contents);
        let mut cut = None;
        if query.method == "GET" && answer.body.len() > 1000 && take(&mut contents.lock().cuts) {
            cut = Some(answer.body.len() / 2);
        }
        let length = answer.body.len();
        if query.method == "HEAD" {
            answer.body.clear();
        }
        let mut head = format!("HTTP/1.1 {} X\r\ncontent-length: {length}\r\n", answer.status);
        for (name, value) in &answer.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        let body = &answer.body[..cut.unwrap_or(answer.body.len())];
        let mut out = stream;
        if out.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| out.write_all(body)).is_err()
            || cut.is_some()
        {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn take(count: &mut u32) -> bool {
    let any = *count > 0;
    *count = count.saturating_sub(1);
    any
}

fn read(reader: &mut BufReader<&TcpStream>, contents: &Mutex<Contents>) -> Option<Query> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    if length > 1000 && take(&mut contents.lock().cuts) {
        let mut half = vec![0; length / 2];
        let _ = reader.read_exact(&mut half);
        return None;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Query { method, target, headers, body })
}

fn answer(query: &Query, contents: &Mutex<Contents>) -> Answer {
    let (path, parameters) = query.target.split_once('?').unwrap_or((&query.target, ""));
    let mut contents = contents.lock();
    contents.requests.push(format!("{} {path}", query.method));
    if take(&mut contents.busy) {
        return Answer::error(503, "SlowDown");
    }
    let parameters: Vec<(&str, &str)> = parameters
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .collect();
    if let Err(code) = signature(query, path, &parameters) {
        return Answer::error(403, code);
    }
    let Some(key) = path.strip_prefix(&format!("/{BUCKET}/")) else {
        return Answer::error(404, "NoSuchBucket");
    };
    let get = |name: &str| parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    if let Some(sum) = query.headers.get("content-md5")
        && *sum != md5(&query.body)
    {
        return Answer::error(400, "BadDigest");
    }
    match (query.method.as_str(), get("uploadId"), get("partNumber")) {
        ("POST", None, None) if get("uploads").is_some() => {
            contents.begun += 1;
            let id = format!("upload-{}", contents.begun);
            contents.uploads.insert(id.clone(), BTreeMap::new());
            let inner = format!("<Bucket>{BUCKET}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>");
            Answer::xml("InitiateMultipartUploadResult", &inner)
        }
        ("PUT", Some(id), Some(number)) => {
            let (Some(upload), Ok(number)) = (contents.uploads.get_mut(id), number.parse()) else {
                return Answer::error(404, "NoSuchUpload");
            };
            upload.insert(number, query.body.clone());
            let tag = ("etag", format!("\"part-{number}\""));
            Answer { headers: vec![tag], ..Answer::new(200) }
        }
        ("POST", Some(id), None) => {
            let Some(parts) = contents.uploads.remove(id) else { return Answer::error(404, "NoSuchUpload") };
            let wanted = String::from_utf8_lossy(&query.body).into_owned();
            let named = parts.keys().all(|number| {
                wanted.contains(&format!("<PartNumber>{number}</PartNumber>"))
                    && (wanted.contains(&format!("\"part-{number}\""))
                        || wanted.contains(&format!("&quot;part-{number}&quot;")))
            });
            if !named {
                return Answer::error(400, "InvalidPart");
            }
            contents.objects.insert(key.to_owned(), parts.into_values().flatten().collect());
            Answer::xml("CompleteMultipartUploadResult", "<ETag>\"all\"</ETag>")
        }
        ("DELETE", Some(id), None) => {
            contents.uploads.remove(id);
            Answer::new(204)
        }
        ("PUT", None, None) => {
            let mut body = query.body.clone();
            if contents.forgetful {
                body.truncate(body.len() / 2);
            }
            contents.objects.insert(key.to_owned(), body);
            Answer { headers: vec![("etag", "\"one\"".into())], ..Answer::new(200) }
        }
        ("DELETE", None, None) => {
            contents.objects.remove(key);
            Answer::new(204)
        }
        ("GET" | "HEAD", None, None) => {
            let Some(object) = contents.objects.get(key) else { return Answer::error(404, "NoSuchKey") };
            let range = query.headers.get("range").and_then(|range| {
                let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
                Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()?))
            });
            match range {
                Some((from, to)) if from <= to && to < object.len() => {
                    Answer { body: object[from..=to].to_vec(), ..Answer::new(206) }
                }
                Some(_) => Answer::error(416, "InvalidRange"),
                None => Answer { body: object.clone(), ..Answer::new(200) },
            }
        }
        _ => Answer::error(501, "NotImplemented"),
    }
}

/// Signs the request once more, with the right key, and compares.
fn signature(query: &Query, path: &str, parameters: &[(&str, &str)]) -> Result<(), &'static str> {
    let get = |name: &str| parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let (Some(given), Some(date), Some(expires)) =
        (get("X-Amz-Signature"), get("X-Amz-Date"), get("X-Amz-Expires"))
    else {
        return Err("AccessDenied");
    };
    let date = basic_date(date).ok_or("AuthorizationQueryParametersError")?;
    let expires = Duration::from_secs(expires.parse().map_err(|_| "AuthorizationQueryParametersError")?);
    let now = SystemTime::now();
    if now > date + expires || date > now + Duration::from_mins(15) {
        return Err("AccessDenied");
    }
    if !get("X-Amz-Credential").unwrap_or_default().starts_with(KEY) {
        return Err("InvalidAccessKeyId");
    }
    let signed = get("X-Amz-SignedHeaders").unwrap_or_default().replace("%3B", ";");
    let host = query.headers.get("host").cloned().unwrap_or_default();
    let headers =
        signed.split(';').filter_map(|name| query.headers.get(name).map(|value| (name, value.as_str())));
    let rest: Vec<_> = parameters
        .iter()
        .filter(|(name, _)| !name.starts_with("X-Amz-"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let uri = format!("http://{host}{path}?{}", rest.join("&"));
    let uri = uri.trim_end_matches('?').to_owned();
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.expires_in = Some(expires);
    let identity = Credentials::new(KEY, SECRET, None, None, "test").into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(REGION)
        .name("s3")
        .time(date)
        .settings(settings)
        .build()
        .map_err(|_| "InternalError")?
        .into();
    let request = SignableRequest::new(&query.method, uri, headers, SignableBody::UnsignedPayload)
        .map_err(|_| "InvalidURI")?;
    let (_, expected) = sign(request, &params).map_err(|_| "InternalError")?.into_parts();
    if expected == given { Ok(()) } else { Err("SignatureDoesNotMatch") }
}

/// A date as signatures have it: `20261121T100000Z`.
fn basic_date(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let part = |text: &str, from: usize, to: usize| text.get(from..to).map(str::to_owned);
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(date, 0, 4)?,
        part(date, 4, 6)?,
        part(date, 6, 8)?,
        part(time, 0, 2)?,
        part(time, 2, 4)?,
        part(time, 4, 6)?
    );
    let ns = nvr_core::event::parse_timestamp(&text)?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(ns as u64))
}

fn md5(bytes: &[u8]) -> String {
    let mut sum = gst::glib::Checksum::new(gst::glib::ChecksumType::Md5).expect("GLib knows MD5");
    sum.update(bytes);
    gst::glib::base64_encode(&sum.digest()).into()
}
