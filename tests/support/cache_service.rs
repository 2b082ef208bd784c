//! A cache service for tests, in versions 2 and 1, with a blob server of its own or with Azurite behind
//! signed URLs, and with faults of many kinds.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};

/// The token that the service accepts. Its last part must not appear in any output.
pub const TOKEN: &str = "e30.e30.runtime-token-of-the-test";

/// A token of a job that a user without write access triggered. The service accepts it for lookups only.
pub fn read_only_token() -> String {
    let scopes = r#"{"ac":"[{\"Scope\":\"refs/heads/main\",\"Permission\":1}]"}"#;
    format!("e30.{}.read-only-token-of-the-test", URL_SAFE_NO_PAD.encode(scopes))
}

/// Part of every signed URL. It must not appear in any output either.
pub const SIGNATURE: &str = "signature-of-the-test";

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestKind {
    Lookup,
    Reserve,
    Finalize,
    /// A block, a piece of version 1, or a blob in one request.
    Block,
    BlockList,
    /// Reads a blob.
    Range,
}

/// A fault in one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is reset before the request is carried out.
    Reset,
    /// The request is carried out, and the connection is reset before the response.
    LostAnswer,
    /// The connection is reset in the middle of the response's body.
    ResetInBody,
    /// Half of the body is sent, then nothing.
    StallInBody,
    /// No response is sent.
    Stall,
    /// The body is shorter than its announced length, and the connection ends in an orderly way.
    Short,
    /// An error with this status and body.
    Status(u16, &'static str),
    /// As [`Fault::Status`], with `Retry-After` in seconds.
    Later(u16, u64),
    /// An HTML page, as a proxy sends it.
    Page,
    /// The whole blob in response to a range request.
    WholeBody,
    /// The whole blob, in chunks and without a length.
    WholeInChunks,
    /// Half of the blob without a length, as if that were all.
    HalfWithoutLength,
    /// A range other than the requested one.
    OtherRange,
    /// An entity tag other than before.
    OtherTag,
    /// One bit of the body is flipped.
    Flip,
    /// The request is carried out a little later than the following ones.
    Slow,
    /// No fault.
    Nothing,
    /// The request is carried out twice, as if something on the network had repeated it.
    Twice,
    /// The response is sent twice, the second time where the client expects the next response.
    AnsweredTwice,
    /// The body is sent in small pieces with pauses: slow, but never silent.
    Drips,
    /// One bit of the body is flipped.
    Flipped,
    /// All URLs signed so far become invalid.
    Expire,
    /// All entries are deleted, as when the cache is full.
    Evict,
    /// The request is carried out when the test calls [`CacheService::release_held_requests`].
    Hold,
    /// The service ends here.
    Die,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    pub place: RequestKind,
    pub connection: usize,
    pub headers: HashMap<String, String>,
    pub body: Value,
}

#[derive(Clone)]
struct Row {
    key: String,
    version: String,
    blob: String,
    done: bool,
}

#[derive(Default)]
struct Blob {
    blocks: BTreeMap<String, Vec<u8>>,
    pieces: BTreeMap<u64, Vec<u8>>,
    content: Option<Arc<Vec<u8>>>,
}

#[derive(Default)]
struct State {
    rows: Vec<Row>,
    blobs: HashMap<String, Blob>,
    faults: HashMap<RequestKind, VecDeque<Fault>>,
    signatures: HashSet<String>,
    seen: Vec<ReceivedRequest>,
    /// Number of blocks whose bodies are being received.
    at_once: usize,
    max_concurrent_blocks: usize,
    /// Number of lookups that will not see any entry.
    lag: usize,
    /// The URL under which clients see the service.
    front: Option<String>,
    /// The time that the service reports, in the format of HTTP.
    date: Option<String>,
}

/// Signs URLs of a blob server. The arguments are the name of a blob and whether the URL is for writing.
pub type Signer = dyn Fn(&str, bool) -> String + Send + Sync;

struct Shared {
    state: Mutex<State>,
    address: String,
    serial: AtomicUsize,
    speaks_v2: AtomicBool,
    signer: Option<Box<Signer>>,
    ends: AtomicBool,
    lets_go: AtomicBool,
}

/// A service that runs until this value is dropped.
pub struct CacheService {
    shared: Arc<Shared>,
}

struct Request {
    method: String,
    path: String,
    query: HashMap<String, String>,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Arc<Vec<u8>>,
    range: Option<std::ops::Range<usize>>,
}

impl CacheService {
    pub fn start() -> CacheService {
        Self::with(None)
    }

    /// Starts a service whose blobs are on another server.
    pub fn with(signer: Option<Box<Signer>>) -> CacheService {
        Self::at("127.0.0.1", signer)
    }

    /// Starts a service on another address of this machine.
    pub fn at(host: &str, signer: Option<Box<Signer>>) -> CacheService {
        let listener = TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            address,
            serial: AtomicUsize::new(0),
            speaks_v2: AtomicBool::new(true),
            signer,
            ends: AtomicBool::new(false),
            lets_go: AtomicBool::new(false),
        });
        let for_all = Arc::clone(&shared);
        thread::spawn(move || {
            for connection in listener.incoming() {
                if for_all.ends.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&for_all);
                let number = shared.serial.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || shared.serve(connection.unwrap(), number));
            }
        });
        CacheService { shared }
    }

    /// With the slash at the end that the runner writes.
    pub fn url(&self) -> String {
        format!("http://{}/", self.shared.address)
    }

    /// From now on, signed URLs lead to a proxy that forwards requests to this service.
    pub fn set_public_url(&self, url: String) {
        self.state().front = Some(url);
    }

    /// Queues faults for the next requests of a kind, one for each request.
    pub fn inject_faults(&self, place: RequestKind, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.entry(place).or_default().extend(faults);
    }

    /// Drops the queued faults.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Resumes the requests that [`Fault::Hold`] holds.
    pub fn release_held_requests(&self) {
        self.shared.lets_go.store(true, Ordering::Relaxed);
    }

    /// Number of faults that have not been used yet.
    pub fn unused_faults(&self) -> usize {
        self.state().faults.values().map(VecDeque::len).sum()
    }

    /// From now on, the service does not support version 2.
    pub fn support_v1_only(&self) {
        self.shared.speaks_v2.store(false, Ordering::Relaxed);
    }

    /// Makes all URLs signed so far invalid.
    pub fn expire_urls(&self) {
        self.state().signatures.clear();
    }

    /// From now on, the service reports this time, as in `Thu, 01 Jan 1970 00:00:00 GMT`.
    pub fn set_date(&self, date: &str) {
        self.state().date = Some(date.to_owned());
    }

    /// Hides all entries from this many lookups.
    pub fn hide_new_entries(&self, lookups: usize) {
        self.state().lag = lookups;
    }

    pub fn seen(&self, place: RequestKind) -> Vec<ReceivedRequest> {
        self.state().seen.iter().filter(|seen| seen.place == place).cloned().collect()
    }

    /// The highest number of blocks that were received at the same time.
    pub fn max_concurrent_blocks(&self) -> usize {
        self.state().max_concurrent_blocks
    }

    /// Keys of the finished entries, oldest first.
    pub fn keys(&self) -> Vec<String> {
        self.state().rows.iter().filter(|row| row.done).map(|row| row.key.clone()).collect()
    }

    /// Adds an entry, as another client would.
    pub fn put(&self, key: &str, version: &str, content: &[u8]) {
        let blob = self.shared.number().to_string();
        let mut state = self.state();
        let content = Some(Arc::new(content.to_vec()));
        state.blobs.insert(blob.clone(), Blob { content, ..Blob::default() });
        let (key, version) = (key.to_owned(), version.to_owned());
        state.rows.push(Row { key, version, blob, done: true });
    }

    /// The content of an entry on the service's own blob server.
    pub fn content(&self, key: &str) -> Vec<u8> {
        let state = self.state();
        let row = state.rows.iter().find(|row| row.key == key && row.done).expect(key);
        state.blobs[&row.blob].content.clone().unwrap().to_vec()
    }

    /// The name of an entry's blob, as the signer knows it.
    pub fn blob_of(&self, key: &str) -> String {
        self.state().rows.iter().find(|row| row.key == key && row.done).expect(key).blob.clone()
    }

    pub fn version_of(&self, key: &str) -> String {
        self.state().rows.iter().find(|row| row.key == key).expect(key).version.clone()
    }

    pub fn evict(&self, key: &str) {
        let mut state = self.state();
        let at = state.rows.iter().position(|row| row.key == key).expect(key);
        let row = state.rows.remove(at);
        state.blobs.remove(&row.blob);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl Drop for CacheService {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.shared.address);
    }
}

impl Shared {
    fn number(&self) -> usize {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    fn serve(&self, connection: TcpStream, number: usize) {
        connection.set_nodelay(true).unwrap();
        // A client that disconnects in the middle of a request is not an error.
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        while let Some(request) = read(&mut reader, self) {
            let Some(place) = place(&request) else {
                let none = self.error(404, "no such route");
                if send(&connection, &request, &none).is_none() {
                    return;
                }
                continue;
            };
            let fault = {
                let mut state = self.state.lock().unwrap();
                if place == RequestKind::Block {
                    state.at_once -= 1;
                }
                let body = serde_json::from_slice(&request.body).unwrap_or_default();
                let headers = request.headers.clone();
                state.seen.push(ReceivedRequest { place, connection: number, headers, body });
                state.faults.get_mut(&place).and_then(VecDeque::pop_front)
            };
            if self.handle(&connection, &request, place, fault).is_none() {
                return;
            }
        }
    }

    /// Carries out a request and responds. Returns `None` when the connection has ended.
    fn handle(
        &self,
        connection: &TcpStream,
        request: &Request,
        place: RequestKind,
        fault: Option<Fault>,
    ) -> Option<()> {
        let stalled = || thread::sleep(Duration::from_secs(60));
        if self.ends.load(Ordering::Relaxed) {
            return reset(connection);
        }
        match fault {
            Some(Fault::Reset) => return reset(connection),
            Some(Fault::Stall) => {
                stalled();
                return None;
            }
            Some(Fault::Status(status, text)) => {
                return send(connection, request, &self.error(status, text));
            }
            Some(Fault::Later(status, seconds)) => {
                let mut answer = self.error(status, "slow down");
                answer.headers.push(("Retry-After", seconds.to_string()));
                return send(connection, request, &answer);
            }
            Some(Fault::Page) => {
                let body = Arc::new(b"<html>please log in</html>".to_vec());
                let headers = vec![("Content-Type", "text/html; charset=utf-8".into())];
                let answer = Answer { status: 200, headers, body, range: None };
                return send(connection, request, &answer);
            }
            Some(Fault::Slow) => thread::sleep(Duration::from_millis(60)),
            Some(Fault::Hold) => {
                while !self.lets_go.load(Ordering::Relaxed) && !self.ends.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                }
            }
            Some(Fault::Die) => {
                self.ends.store(true, Ordering::Relaxed);
                // Wakes the listener, so that it ends.
                let _ = TcpStream::connect(&self.address);
                return reset(connection);
            }
            Some(Fault::Expire) => self.state.lock().unwrap().signatures.clear(),
            Some(Fault::Evict) => {
                let mut state = self.state.lock().unwrap();
                (state.rows, state.blobs) = Default::default();
            }
            _ => {}
        }
        let mut answer = self.answer(request, place);
        if fault == Some(Fault::Twice) {
            answer = self.answer(request, place);
        }
        let body = Arc::clone(&answer.body);
        let range = answer.range.clone().unwrap_or(0..body.len());
        let half = &body[range.start..range.start + range.len() / 2];
        match fault {
            Some(Fault::LostAnswer) => return reset(connection),
            Some(Fault::ResetInBody) => {
                write_head(connection, &answer, range.len())?;
                (&*connection).write_all(half).ok()?;
                // Lets the client receive the data before the reset discards it.
                thread::sleep(Duration::from_millis(20));
                return reset(connection);
            }
            Some(Fault::StallInBody) => {
                write_head(connection, &answer, range.len())?;
                (&*connection).write_all(half).ok()?;
                stalled();
                return None;
            }
            Some(Fault::Short) => {
                write_head(connection, &answer, range.len())?;
                (&*connection).write_all(half).ok()?;
                return None;
            }
            Some(Fault::Drips) => {
                write_head(connection, &answer, range.len())?;
                for piece in body[range.clone()].chunks(range.len().div_ceil(20).max(1)) {
                    (&*connection).write_all(piece).ok()?;
                    thread::sleep(Duration::from_millis(25));
                }
                return Some(());
            }
            Some(Fault::AnsweredTwice) => send(connection, request, &answer)?,
            Some(Fault::Flipped) if !range.is_empty() => {
                let mut other = body.to_vec();
                other[range.start + range.len() / 2] ^= 1;
                answer.body = Arc::new(other);
            }
            Some(Fault::WholeBody) if answer.range.is_some() => {
                (answer.status, answer.range) = (200, None);
            }
            Some(Fault::WholeInChunks) if answer.range.is_some() => {
                let head =
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
                (&*connection).write_all(head.as_bytes()).ok()?;
                for piece in body.chunks(10_000) {
                    write!(&*connection, "{:x}\r\n", piece.len()).ok()?;
                    (&*connection).write_all(piece).ok()?;
                    (&*connection).write_all(b"\r\n").ok()?;
                }
                (&*connection).write_all(b"0\r\n\r\n").ok()?;
                return None;
            }
            Some(Fault::HalfWithoutLength) => {
                (&*connection).write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").ok()?;
                (&*connection).write_all(&body[..body.len() / 2]).ok()?;
                return None;
            }
            Some(Fault::OtherRange) => {
                if let Some(range) = &mut answer.range {
                    *range = 0..range.len().min(7);
                }
            }
            Some(Fault::Flip) => {
                let mut flipped = body.to_vec();
                flipped[range.start + range.len() / 2] ^= 1;
                answer.body = Arc::new(flipped);
            }
            Some(Fault::OtherTag) => {
                answer.headers.retain(|(name, _)| *name != "ETag");
                answer.headers.push(("ETag", "\"another\"".into()));
            }
            _ => {}
        }
        send(connection, request, &answer)
    }

    fn answer(&self, request: &Request, place: RequestKind) -> Answer {
        let mut answer = self.response_without_date(request, place);
        let date = self.state.lock().unwrap().date.clone();
        answer.headers.extend(date.map(|date| ("Date", date)));
        answer
    }

    fn response_without_date(&self, request: &Request, place: RequestKind) -> Answer {
        if request.path.starts_with("/twirp/") {
            if !self.speaks_v2.load(Ordering::Relaxed) {
                return text(404, "404 page not found");
            }
            return self.twirp(request, place);
        }
        if request.path.starts_with("/blob/") {
            return self.blob(request);
        }
        self.v1(request, place)
    }

    fn authorized(&self, request: &Request) -> bool {
        let token = request.headers.get("authorization").and_then(|it| it.strip_prefix("Bearer "));
        let reads = place(request) == Some(RequestKind::Lookup);
        token.is_some_and(|token| token == TOKEN || reads && token == read_only_token())
    }

    fn twirp(&self, request: &Request, place: RequestKind) -> Answer {
        if !self.authorized(request) {
            return self.error(401, "no valid token");
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let (key, version) = (text("key"), text("version"));
        match place {
            RequestKind::Lookup => {
                let mut keys = vec![key];
                let more = body["restore_keys"].as_array().cloned().unwrap_or_default();
                keys.extend(more.iter().map(|key| key.as_str().unwrap().to_owned()));
                assert!(keys.len() <= 10, "too many keys: {keys:?}");
                match self.lookup(&keys, &version) {
                    Some(row) => answer(json!({
                        "ok": true,
                        "signed_download_url": self.sign(&row.blob, false),
                        "matched_key": row.key,
                    })),
                    None => answer(json!({ "ok": false })),
                }
            }
            RequestKind::Reserve => match self.reserve(&key, &version) {
                Some(row) => answer(json!({
                    "ok": true,
                    "signed_upload_url": self.sign(&row.blob, true),
                })),
                None => {
                    let msg = "cache entry with the same key, version, and scope already exists";
                    code(409, "already_exists", msg)
                }
            },
            _ => {
                let size: u64 = text("size_bytes").parse().unwrap();
                if self.finalize(|row| row.key == key && row.version == version, size) {
                    answer(json!({ "ok": true, "entry_id": "1" }))
                } else {
                    code(404, "not_found", "no such upload")
                }
            }
        }
    }

    fn v1(&self, request: &Request, place: RequestKind) -> Answer {
        if !self.authorized(request) {
            return self.error(401, "no valid token");
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let number = request.path.rsplit('/').next().unwrap().to_owned();
        match place {
            RequestKind::Lookup => {
                let keys = request.query["keys"].split(',').map(str::to_owned).collect::<Vec<_>>();
                match self.lookup(&keys, &request.query["version"]) {
                    Some(row) => answer(json!({
                        // In lower case, as act returns it.
                        "cacheKey": row.key.to_lowercase(),
                        "scope": "refs/heads/main",
                        "archiveLocation": self.sign(&row.blob, false),
                    })),
                    None => text(204, ""),
                }
            }
            RequestKind::Reserve => {
                let field = |name: &str| body[name].as_str().unwrap().to_owned();
                match self.reserve(&field("key"), &field("version")) {
                    Some(row) => answer(json!({ "cacheId": row.blob.parse::<i64>().unwrap() })),
                    None => self.error(409, "it is there"),
                }
            }
            RequestKind::Block => {
                let range = &request.headers["content-range"];
                let start = range.strip_prefix("bytes ").unwrap().split('-').next().unwrap();
                let mut state = self.state.lock().unwrap();
                let blob = state.blobs.entry(number).or_default();
                blob.pieces.insert(start.parse().unwrap(), request.body.clone());
                text(204, "")
            }
            _ => {
                {
                    let mut state = self.state.lock().unwrap();
                    let blob = state.blobs.entry(number.clone()).or_default();
                    let mut content = Vec::new();
                    for (at, piece) in &blob.pieces {
                        assert_eq!(*at, content.len() as u64);
                        content.extend_from_slice(piece);
                    }
                    blob.content = Some(Arc::new(content));
                }
                let size = body["size"].as_u64().unwrap();
                match self.finalize(|row| row.blob == number, size) {
                    true => text(204, ""),
                    false => self.error(400, "no such upload"),
                }
            }
        }
    }

    /// Returns the newest entry of the first key that has one: an exact match first, then a prefix match. The
    /// first key matches only exactly, as in act, which is the strictest server.
    fn lookup(&self, keys: &[String], version: &str) -> Option<Row> {
        let mut state = self.state.lock().unwrap();
        if state.lag > 0 {
            state.lag -= 1;
            return None;
        }
        let rows: Vec<Row> = state.rows.iter().rev().cloned().collect();
        let rows = rows.into_iter().filter(|row| row.done && row.version == version);
        let rows: Vec<Row> = rows.collect();
        let lower = |text: &str| text.to_lowercase();
        keys.iter().enumerate().find_map(|(number, key)| {
            let exact = rows.iter().find(|row| lower(&row.key) == lower(key));
            let prefix = rows.iter().find(|row| lower(&row.key).starts_with(&lower(key)));
            exact.or(prefix.filter(|_| number > 0)).cloned()
        })
    }

    fn reserve(&self, key: &str, version: &str) -> Option<Row> {
        let mut state = self.state.lock().unwrap();
        if state.rows.iter().any(|row| row.key == key && row.version == version) {
            return None;
        }
        let blob = self.number().to_string();
        let row = Row { key: key.into(), version: version.into(), blob, done: false };
        state.rows.push(row.clone());
        Some(row)
    }

    /// Finishes an upload, which is possible once and only with its true size.
    fn finalize(&self, which: impl Fn(&Row) -> bool, size: u64) -> bool {
        let mut state = self.state.lock().unwrap();
        let Some(at) = state.rows.iter().position(|row| which(row) && !row.done) else {
            return false;
        };
        let blob = state.rows[at].blob.clone();
        let real = match &self.signer {
            Some(signer) => length(&signer(&blob, false)),
            None => {
                state.blobs.get(&blob).and_then(|blob| Some(blob.content.as_ref()?.len() as u64))
            }
        };
        if real == Some(size) {
            state.rows[at].done = true;
        }
        real == Some(size)
    }

    fn sign(&self, blob: &str, write: bool) -> String {
        if let Some(signer) = &self.signer {
            return signer(blob, write);
        }
        // With escapes, as in real URLs.
        let signature = format!("{SIGNATURE}-{}%2B%2F%3D", self.number());
        self.state.lock().unwrap().signatures.insert(signature.clone());
        let mut state = self.state.lock().unwrap();
        let front = state.front.get_or_insert_with(|| format!("http://{}/", self.address));
        format!("{front}blob/{blob}?sv=2025-01-05&sp={write}&sig={signature}")
    }

    fn blob(&self, request: &Request) -> Answer {
        let name = request.path.trim_start_matches("/blob/").to_owned();
        let mut state = self.state.lock().unwrap();
        if !state.signatures.contains(&request.query["sig"]) {
            let mut answer = text(403, &format!("Signature {SIGNATURE} did not match"));
            answer.headers.push(("x-ms-error-code", "AuthenticationFailed".into()));
            return answer;
        }
        let comp = request.query.get("comp").map(String::as_str);
        match (request.method.as_str(), comp) {
            ("PUT", Some("block")) => {
                let blob = state.blobs.entry(name).or_default();
                blob.blocks.insert(request.query["blockid"].clone(), request.body.clone());
                text(201, "")
            }
            ("PUT", Some("blocklist")) => {
                let list = String::from_utf8(request.body.clone()).unwrap();
                let blob = state.blobs.entry(name).or_default();
                let mut content = Vec::new();
                for id in list.split("<Latest>").skip(1) {
                    let id = id.split('<').next().unwrap().replace('+', "%2B").replace('/', "%2F");
                    content.extend_from_slice(&blob.blocks[&id]);
                }
                blob.content = Some(Arc::new(content));
                text(201, "")
            }
            ("PUT", _) => {
                assert_eq!(request.headers["x-ms-blob-type"], "BlockBlob");
                let content = Some(Arc::new(request.body.clone()));
                state.blobs.insert(name, Blob { content, ..Blob::default() });
                text(201, "")
            }
            _ => {
                let Some(content) = state.blobs.get(&name).and_then(|blob| blob.content.clone())
                else {
                    let mut answer = text(404, "gone");
                    answer.headers.push(("x-ms-error-code", "BlobNotFound".into()));
                    return answer;
                };
                let tag = format!("\"tag-{name}\"");
                if request.headers.get("if-match").is_some_and(|wanted| *wanted != tag) {
                    return text(412, "");
                }
                let mut headers = vec![("ETag", tag)];
                let range = request.headers.get("range").or(request.headers.get("x-ms-range"));
                let Some(range) = range else {
                    return Answer { status: 200, headers, body: content, range: None };
                };
                let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                if first >= content.len() {
                    return text(416, "");
                }
                let range = first..content.len().min(last + 1);
                headers.push(("x-served-by", "the test".into()));
                Answer { status: 206, headers, body: content, range: Some(range) }
            }
        }
    }

    /// An error that repeats secrets, as careless servers do.
    fn error(&self, status: u16, said: &str) -> Answer {
        let name = match status {
            403 => "permission_denied",
            404 => "not_found",
            409 => "already_exists",
            429 => "resource_exhausted",
            _ => "internal",
        };
        if let Some(message) = said.strip_prefix("ok: ") {
            return answer(json!({ "ok": false, "message": message }));
        }
        let url = format!("http://{}/blob/1?sig={SIGNATURE}", self.address);
        let msg = match said.starts_with("cache ") {
            true => said.to_owned(),
            false => format!("{said} (token {TOKEN}, {url})"),
        };
        code(status, name, &msg)
    }
}

fn place(request: &Request) -> Option<RequestKind> {
    let path = request.path.as_str();
    let rpc = path.strip_prefix("/twirp/github.actions.results.api.v1.CacheService/");
    match (request.method.as_str(), rpc) {
        (_, Some("GetCacheEntryDownloadURL")) => return Some(RequestKind::Lookup),
        (_, Some("CreateCacheEntry")) => return Some(RequestKind::Reserve),
        (_, Some("FinalizeCacheEntryUpload")) => return Some(RequestKind::Finalize),
        _ => {}
    }
    let v1 = path.strip_prefix("/_apis/artifactcache/");
    let comp = request.query.get("comp").map(String::as_str);
    Some(match (request.method.as_str(), v1) {
        ("GET", Some("cache")) => RequestKind::Lookup,
        ("POST", Some("caches")) => RequestKind::Reserve,
        ("POST", Some(_)) => RequestKind::Finalize,
        ("PATCH", Some(_)) => RequestKind::Block,
        ("GET" | "HEAD", None) if path.starts_with("/blob/") => RequestKind::Range,
        ("PUT", None) if comp == Some("blocklist") => RequestKind::BlockList,
        ("PUT", None) if path.starts_with("/blob/") => RequestKind::Block,
        _ => return None,
    })
}

fn read(reader: &mut BufReader<TcpStream>, shared: &Shared) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    // Requests to a proxy have the whole URL.
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest[rest.find('/').unwrap()..].to_owned(),
        None => target,
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(name, value)| {
        // Signatures and ids are compared as they were sent; keys are unescaped.
        let value = if name == "keys" { unescaped(value) } else { value.to_owned() };
        (name.to_owned(), value)
    });
    let mut request = Request {
        method,
        path: path.to_owned(),
        query: query.collect(),
        headers,
        body: Vec::new(),
    };
    let block = place(&request) == Some(RequestKind::Block);
    if block {
        let mut state = shared.state.lock().unwrap();
        state.at_once += 1;
        state.max_concurrent_blocks = state.max_concurrent_blocks.max(state.at_once);
    }
    let length = request.headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    assert!(!request.headers.contains_key("transfer-encoding"), "Azure takes no chunks");
    request.body.resize(length, 0);
    if reader.read_exact(&mut request.body).is_err() {
        if block {
            shared.state.lock().unwrap().at_once -= 1;
        }
        return None;
    }
    Some(request)
}

pub(super) fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                let digits = String::from_utf8(digits.to_vec()).unwrap();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap());
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn answer(json: Value) -> Answer {
    text(200, &json.to_string())
}

fn code(status: u16, code: &str, msg: &str) -> Answer {
    text(status, &json!({ "code": code, "msg": msg }).to_string())
}

fn text(status: u16, text: &str) -> Answer {
    Answer { status, headers: vec![], body: Arc::new(text.as_bytes().to_vec()), range: None }
}

fn write_head(mut connection: &TcpStream, answer: &Answer, length: usize) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} x\r\nContent-Length: {length}\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(range) = &answer.range {
        let (first, last) = (range.start, range.end - 1);
        head.push_str(&format!("Content-Range: bytes {first}-{last}/{}\r\n", answer.body.len()));
    }
    head.push_str("\r\n");
    connection.write_all(head.as_bytes()).ok()
}

fn send(mut connection: &TcpStream, request: &Request, answer: &Answer) -> Option<()> {
    let range = answer.range.clone().unwrap_or(0..answer.body.len());
    if answer.status == 204 {
        return connection.write_all(b"HTTP/1.1 204 x\r\n\r\n").ok();
    }
    write_head(connection, answer, range.len())?;
    if request.method == "HEAD" {
        return Some(());
    }
    connection.write_all(&answer.body[range]).ok()
}

/// Closes the connection such that the client sees a reset and not an orderly end.
pub(super) fn reset(connection: &TcpStream) -> Option<()> {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(connection, sockopt::Linger, &linger).unwrap();
    None
}

/// Length of a blob on another server.
fn length(url: &str) -> Option<u64> {
    let (host, path) = url.strip_prefix("http://")?.split_once('/')?;
    let mut connection = TcpStream::connect(host).ok()?;
    let request = format!("HEAD /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    let line = answer.lines().find(|line| line.to_lowercase().starts_with("content-length:"))?;
    answer.lines().next()?.contains(" 200").then(|| line.split(':').nth(1)?.trim().parse().ok())?
}
