//! Downloads against a local server that misbehaves on command.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use super::*;

/// What the server does with one request.
#[derive(Clone, Debug)]
enum Answer {
    /// As it should; honours Range and If-Range.
    Good,
    /// The whole, whatever was asked for.
    IgnoreRange,
    /// Closes after so many bytes of the body.
    CutAfter(usize),
    /// Bytes flipped.
    Corrupt,
    Redirect(String),
    Status(u16),
    /// Without saying how long the answer is.
    Chunkless,
    /// A longer file than announced to the client beforehand.
    Endless,
    RangeNotSatisfiable,
}

struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

const ETAG: &str = "\"v1\"";

/// Answers one connection after the other as told; the last answer repeats.
fn serve(body: Vec<u8>, answers: Vec<Answer>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/yolo.onnx", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = requests.clone();
    thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            let answer = answers.get(index).or(answers.last()).cloned().unwrap_or(Answer::Good);
            let Ok(stream) = stream else { return };
            let request = read_request(&stream);
            let _ = answer_one(stream, &body, &request, &answer);
            log.lock().unwrap().push(request);
        }
    });
    Server { url, requests }
}

fn read_request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    while reader.read_line(&mut request).is_ok_and(|count| count > 2) {}
    request.to_lowercase()
}

fn answer_one(mut stream: TcpStream, body: &[u8], request: &str, answer: &Answer) -> std::io::Result<()> {
    let asked: Option<usize> =
        request.lines().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
    let matches =
        request.lines().find_map(|line| line.strip_prefix("if-range: ")).is_none_or(|etag| etag == ETAG);
    let start = asked
        .filter(|start| matches && *start < body.len() && !matches!(answer, Answer::IgnoreRange))
        .unwrap_or(0);
    let rest = &body[start..];
    match answer {
        Answer::Redirect(to) => {
            return write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        Answer::Status(code) => {
            return write!(stream, "HTTP/1.1 {code} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        Answer::RangeNotSatisfiable if asked.is_some() => {
            return write!(stream, "HTTP/1.1 416 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        Answer::Chunkless => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            return stream.write_all(body);
        }
        _ => {}
    }
    if start > 0 {
        write!(
            stream,
            "HTTP/1.1 206 Partial\r\nContent-Range: bytes {start}-{}/{}\r\n",
            body.len() - 1,
            body.len()
        )?;
    } else {
        write!(stream, "HTTP/1.1 200 OK\r\n")?;
    }
    let extra = if matches!(answer, Answer::Endless) { 10 } else { 0 };
    write!(stream, "ETag: {ETAG}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len() + extra)?;
    match answer {
        Answer::CutAfter(count) => stream.write_all(&rest[..(*count).min(rest.len())]),
        Answer::Corrupt => {
            let flipped: Vec<u8> = rest.iter().map(|byte| byte ^ 1).collect();
            stream.write_all(&flipped)
        }
        _ => stream.write_all(rest),
    }
}

struct Quiet;

impl Progress for Quiet {
    fn at(&self, _done: u64, _total: Option<u64>) {}

    fn note(&self, _text: &str) {}
}

struct Notes(mpsc::Sender<String>);

impl Progress for Notes {
    fn at(&self, _: u64, _: Option<u64>) {}
    fn note(&self, text: &str) {
        let _ = self.0.send(text.into());
    }
    fn pause(&self, time: Duration) {
        let _ = self.0.send(format!("pause of {} s", time.as_secs()));
    }
}

fn model() -> (Vec<u8>, String) {
    let body: Vec<u8> = (0..200_000_u32).map(|i| (i * 31 % 251) as u8).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &body).unwrap();
    let (hash, _) = sha256_of(file.path()).unwrap();
    (body, hash)
}

struct Case {
    folder: tempfile::TempDir,
    request: Request,
    notes: mpsc::Receiver<String>,
    progress: Notes,
}

fn case(url: &str, sha256: &str, bytes: Option<u64>) -> Case {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("models/yolo.onnx");
    let (sender, notes) = mpsc::channel();
    Case {
        request: Request { url: url.into(), sha256: sha256.into(), bytes, target },
        folder,
        notes,
        progress: Notes(sender),
    }
}

impl Case {
    fn run(&self) -> Result<(), DownloadError> {
        download(&self.request, &self.progress)
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.folder.path().join("models"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn a_file_arrives_whole_and_nothing_else_stays() {
    let (body, hash) = model();
    for answer in [Answer::Good, Answer::Chunkless] {
        let server = serve(body.clone(), vec![answer]);
        let case = case(&server.url, &hash, None);
        case.run().unwrap();
        assert_eq!(fs::read(&case.request.target).unwrap(), body);
        assert_eq!(case.files(), ["yolo.onnx"]);
    }
}

#[test]
fn a_cut_connection_is_taken_up_where_it_ended() {
    let (body, hash) = model();
    let server = serve(body.clone(), vec![Answer::CutAfter(50_000), Answer::CutAfter(50_000), Answer::Good]);
    let case = case(&server.url, &hash, Some(body.len() as u64));
    case.run().unwrap();
    assert_eq!(fs::read(&case.request.target).unwrap(), body);
    let requests = server.requests.lock().unwrap().clone();
    assert!(!requests[0].contains("range:"), "{requests:?}");
    assert!(
        requests[1].contains("range: bytes=") && requests[1].contains("if-range: \"v1\""),
        "{requests:?}"
    );
    assert!(case.notes.try_iter().any(|note| note.contains("going on after")));
}

#[test]
fn a_later_process_goes_on_too() {
    let (body, hash) = model();
    let server = serve(
        body.clone(),
        vec![
            Answer::CutAfter(70_000),
            Answer::CutAfter(0),
            Answer::CutAfter(0),
            Answer::CutAfter(0),
            Answer::Good,
        ],
    );
    let case = case(&server.url, &hash, None);
    let message = case.run().unwrap_err().to_string();
    assert!(
        message.contains("cut after") && message.contains("of 200000 bytes") && message.contains("again"),
        "{message}"
    );
    let pauses: Vec<String> = case.notes.try_iter().filter(|note| note.starts_with("pause")).collect();
    assert_eq!(pauses, ["pause of 1 s", "pause of 2 s", "pause of 4 s"]);
    assert_eq!(case.files(), ["yolo.onnx.part", "yolo.onnx.part.etag"]);
    case.run().unwrap();
    assert_eq!(fs::read(&case.request.target).unwrap(), body);
    assert_eq!(case.files(), ["yolo.onnx"]);
}

#[test]
fn a_server_that_gives_next_to_nothing_per_connection_is_not_asked_without_end() {
    let (body, hash) = model();
    let server = serve(body, vec![Answer::CutAfter(1)]);
    let case = case(&server.url, &hash, None);
    let message = case.run().unwrap_err().to_string();
    assert!(message.contains("cut after 3 of 200000 bytes"), "{message}");
}

#[test]
fn a_server_that_ignores_ranges_or_has_another_file_now_gives_a_whole_file() {
    let (body, hash) = model();
    for second in [Answer::IgnoreRange, Answer::RangeNotSatisfiable] {
        let server = serve(body.clone(), vec![Answer::CutAfter(70_000), second, Answer::Good]);
        let case = case(&server.url, &hash, None);
        case.run().unwrap();
        assert_eq!(fs::read(&case.request.target).unwrap(), body);
    }
}

#[test]
fn wrong_bytes_never_get_into_place() {
    let (body, hash) = model();
    let server = serve(body.clone(), vec![Answer::Corrupt]);
    let corrupt = case(&server.url, &hash, None);
    let message = corrupt.run().unwrap_err().to_string();
    assert!(message.contains(&hash) && message.contains("deleted"), "{message}");
    assert!(corrupt.files().is_empty(), "{:?}", corrupt.files());
    let server = serve(body.clone(), vec![Answer::Endless]);
    let long = case(&server.url, &hash, Some(body.len() as u64));
    assert!(matches!(long.run(), Err(DownloadError::TooLong { limit: 200_000, .. })));
    assert!(!long.request.target.exists());
}

#[test]
fn redirects_are_followed_and_refusals_named() {
    let (body, hash) = model();
    let good = serve(body.clone(), vec![Answer::Good]);
    let server = serve(body.clone(), vec![Answer::Redirect(good.url.clone())]);
    let followed = case(&server.url, &hash, None);
    followed.run().unwrap();
    assert_eq!(fs::read(&followed.request.target).unwrap(), body);
    let missing = case(&serve(body, vec![Answer::Status(404)]).url, &hash, None);
    assert!(missing.run().unwrap_err().to_string().ends_with("the server answers 404"));
}

#[test]
fn no_network_and_no_room_are_said_plainly() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = case(&format!("http://user:geheim@{closed}/m.onnx"), &"0".repeat(64), None);
    let message = nobody.run().unwrap_err().to_string();
    assert!(message.contains("cannot be reached") && !message.contains("geheim"), "{message}");
    // What writing to /dev/full gives is what a full disk gives.
    let mut full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = download::file_error(Path::new("models/x.onnx.part"))(full.write_all(b"x").unwrap_err());
    assert_eq!(error.to_string(), "the disk that holds models/x.onnx.part is full");
}

#[test]
fn a_file_that_another_download_has_put_into_place_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let (part, target) = (folder.path().join("m.onnx.part"), folder.path().join("m.onnx"));
    let file = fs::File::create(&part).unwrap();
    assert!(download::is_at(&file, &part).unwrap());
    fs::rename(&part, &target).unwrap();
    assert!(!download::is_at(&file, &part).unwrap());
    fs::write(&part, "another").unwrap();
    assert!(!download::is_at(&file, &part).unwrap());
    // Several at once: whoever does not wait its turn is told so, and the model is whole at any time.
    let (body, hash) = model();
    let server = serve(body.clone(), vec![Answer::Good]);
    let case = case(&server.url, &hash, Some(body.len() as u64));
    case.run().unwrap();
    let request = &case.request;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let result = download(request, &Quiet);
                    assert!(matches!(result, Ok(()) | Err(DownloadError::Busy { .. })), "{result:?}");
                    assert_eq!(fs::read(&request.target).unwrap(), body);
                }
            });
        }
    });
}

#[test]
fn hashes_are_sha_256() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "abc").unwrap();
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sha256_of(file.path()).unwrap(), (expected.to_owned(), 3));
}

#[test]
fn known_models_are_well_formed() {
    for known in KNOWN {
        assert!(is_name(known.name) && known.name != BUILT_IN);
        assert!(known.sha256.len() == 64 && known.url.starts_with("https://"));
        let facts = facts(Some(known), known.origin, known.sha256, known.bytes);
        nvr_core::model::ModelHints::from_toml(&facts).unwrap_or_else(|error| panic!("{error}: {facts}"));
    }
    for name in ["", "../x", "a/b", ".hidden", "-x", "a b"] {
        assert!(!is_name(name), "{name}");
    }
}

fn known_at(url: String, sha256: String, bytes: u64) -> Known {
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    Known { url: leak(url), sha256: leak(sha256), bytes, ..KNOWN[0] }
}

#[test]
fn get_installs_by_name_url_and_file() {
    let (body, hash) = model();
    let server = serve(body.clone(), vec![Answer::Good]);
    let folder = tempfile::tempdir().unwrap();
    let folders = [folder.path().join("models")];
    let known = [known_at(server.url.clone(), hash.clone(), body.len() as u64)];
    let path = command::get(&folders, &known, "yolox-nano", None, None).unwrap();
    assert_eq!(path, folders[0].join("yolox-nano.onnx"));
    let facts = fs::read_to_string(folders[0].join("yolox-nano.toml")).unwrap();
    assert!(facts.contains("type = \"yolox\"") && facts.contains(&hash), "{facts}");
    // Once more: intact, no request.
    let before = server.requests.lock().unwrap().len();
    command::get(&folders, &known, "yolox-nano", None, None).unwrap();
    assert_eq!(server.requests.lock().unwrap().len(), before);
    // A URL needs a hash.
    let refused = command::get(&folders, &known, &server.url, None, None).unwrap_err();
    assert!(refused.message.contains("--sha256"));
    let path = command::get(&folders, &known, &server.url, Some(hash.clone()), None).unwrap();
    assert_eq!(path, folders[0].join("yolo.onnx"));
    // A file, under another name, with and without the right hash.
    let file = folder.path().join("mine.onnx");
    fs::write(&file, &body).unwrap();
    let text = file.to_str().unwrap();
    let path = command::get(&folders, &known, text, Some(hash), Some("gate".into())).unwrap();
    assert_eq!(fs::read(path).unwrap(), body);
    assert!(
        command::get(&folders, &known, text, Some("0".repeat(64)), None)
            .unwrap_err()
            .message
            .contains("expected")
    );
    assert!(command::get(&folders, &known, text, None, Some("../x".into())).is_err());
    // What a browser saves where there was no model, and what git leaves of a large file.
    let page = folder.path().join("page.onnx");
    for wrong in ["<!DOCTYPE html>\n<title>Übersicht</title>", "version https://git-lfs.github.com/spec/v1\n"]
    {
        fs::write(&page, wrong).unwrap();
        let refused = command::get(&folders, &known, page.to_str().unwrap(), None, None).unwrap_err();
        assert!(refused.message.contains("page.onnx: this is text and no model"), "{}", refused.message);
    }
    let refused = command::get(&folders, &known, "http://", Some("0".repeat(64)), None).unwrap_err();
    assert!(refused.message.contains("is no URL that can be fetched: empty host"), "{}", refused.message);
    let unknown = command::get(&folders, &known, "yolox-nan", None, None).unwrap_err();
    assert!(unknown.message.contains("did you mean \"yolox-nano\"?"), "{}", unknown.message);
    // What a person has written about a model stays; what was written about other bytes does not.
    let facts = folders[0].join("gate.toml");
    for (written, stays) in [
        ("type = \"yolov8\" # mine", true),
        ("type = ", true),
        (&*format!("sha256 = \"{}\"", "0".repeat(64)), false),
    ] {
        fs::write(&facts, written).unwrap();
        command::get(&folders, &known, text, None, Some("gate".into())).unwrap();
        assert_eq!(fs::read_to_string(&facts).unwrap() == written, stays, "{written}");
    }
    let names: Vec<_> = all_installed(&folders).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["gate", "yolo", "yolox-nano"]);
    let mut rest = Vec::new();
    fs::File::open(folders[0].join("gate.toml")).unwrap().read_to_end(&mut rest).unwrap();
    assert!(!rest.is_empty());
}
