//! GitHub's REST API for the tests, limited to cache entries and the branches and pull requests that they
//! belong to. The entries are those of a [`CacheService`] and others of other refs. Every exchange without an
//! injected fault is validated against GitHub's own description of the API.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::azurite;
use super::cache_service::{CacheService, reset, unescaped};

/// The token that the service accepts. It must not appear in any output.
pub const TOKEN: &str = "ghs_rest-token-of-the-test";

/// The only repository of the service.
pub const REPOSITORY: &str = "some-owner/some.repo";

/// The prefix of the API's paths, as on GHES.
const BASE: &str = "/api/v3";

/// The ref of the cache service's entries by default.
pub const MAIN: &str = "refs/heads/main";

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    List,
    Delete,
    /// Asks for the repository.
    Repository,
    /// Asks for a pull request.
    Pull,
}

/// A fault in one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The connection is reset before the request is carried out.
    Reset,
    /// No response is sent.
    Stall,
    /// The head of a response and one byte are sent, then nothing.
    StallInBody,
    /// An error with this status and message.
    Status(u16, &'static str),
    /// As [`Fault::Status`], with a header.
    With(u16, &'static str, &'static str, &'static str),
    /// The response is 404, as if another client had deleted the entry just before.
    Gone,
    /// An HTML page, as a proxy sends it.
    Page,
    /// A response with status 200 and this text.
    Text(&'static str),
    /// A response without end.
    Endless,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    pub call: Call,
    pub at: Instant,
    pub path: String,
    pub query: HashMap<String, String>,
    pub headers: HashMap<String, String>,
}

/// An entry as lists show it.
#[derive(Clone, Debug)]
pub struct Row {
    pub id: i64,
    pub reference: String,
    pub key: String,
    pub version: String,
    pub size: u64,
    /// RFC 3339.
    pub created: String,
    pub used: String,
}

/// The time of every event whose time is not given.
pub const TIME: &str = "2026-11-22T09:55:23.123456Z";

impl Default for Row {
    fn default() -> Row {
        Row {
            id: 0,
            reference: MAIN.into(),
            key: "key".into(),
            version: "0".repeat(64),
            size: 7,
            created: TIME.into(),
            used: TIME.into(),
        }
    }
}

struct State {
    /// Entries that the cache service does not have.
    others: Vec<Row>,
    reference: String,
    hides_newest: bool,
    /// Whether lists of all refs are allowed. Runs in jobs list their own ref only.
    allow_all_refs: bool,
    default_branch: String,
    closed: Vec<u64>,
    /// The pull requests that the token can see; all if the list is empty.
    numbers: Vec<u64>,
    /// Entries that other clients write, one before each page.
    arriving: VecDeque<Row>,
    /// The highest number of rows of a page.
    page: usize,
    /// The ID of the last entry that was added here.
    next: i64,
    faults: HashMap<Call, VecDeque<Fault>>,
    seen: Vec<ReceivedRequest>,
    wrong: Vec<String>,
}

struct Shared {
    service: Arc<CacheService>,
    state: Mutex<State>,
    judge: Mutex<ResponseValidator>,
    address: String,
    ends: AtomicBool,
}

/// The API, which runs until this value is dropped.
pub struct RestService {
    shared: Arc<Shared>,
}

struct Request {
    method: String,
    path: String,
    query: HashMap<String, String>,
    headers: HashMap<String, String>,
}

impl RestService {
    /// Starts the API of the repository whose entries are in `service`.
    pub fn over(service: &Arc<CacheService>) -> RestService {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = State {
            others: Vec::new(),
            reference: MAIN.into(),
            hides_newest: false,
            allow_all_refs: false,
            default_branch: "main".into(),
            closed: Vec::new(),
            numbers: Vec::new(),
            arriving: VecDeque::new(),
            page: 100,
            next: 1_000_000,
            faults: HashMap::new(),
            seen: Vec::new(),
            wrong: Vec::new(),
        };
        let service = Arc::clone(service);
        let (state, judge) = (Mutex::new(state), Mutex::new(ResponseValidator::start()));
        let ends = AtomicBool::new(false);
        let shared = Arc::new(Shared { service, state, judge, address, ends });
        let for_all = Arc::clone(&shared);
        thread::spawn(move || {
            for connection in listener.incoming() {
                if for_all.ends.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&for_all);
                thread::spawn(move || shared.serve(&connection.unwrap()));
            }
        });
        RestService { shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}{BASE}", self.shared.address)
    }

    /// The variables that the runner and the step set in a job of this repository.
    pub fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("GITHUB_API_URL", self.url()),
            ("GITHUB_REPOSITORY", REPOSITORY.into()),
            ("GITHUB_REF", MAIN.into()),
            ("GITHUB_TOKEN", TOKEN.into()),
        ]
    }

    /// Assigns the entries of the cache service to another ref from now on.
    pub fn set_ref(&self, reference: &str) {
        self.state().reference = reference.into();
    }

    /// Adds an entry that the cache service does not have.
    pub fn put(&self, reference: &str, key: &str, version: &str) {
        let (reference, key, version) = (reference.into(), key.into(), version.into());
        self.add_entry(Row { reference, key, version, ..Row::default() });
    }

    /// As [`RestService::put`], with size and times. Returns the ID of the entry.
    pub fn add_entry(&self, row: Row) -> i64 {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        state.others.push(Row { id, ..row });
        id
    }

    /// Allows lists of all refs from now on.
    pub fn allow_all_refs(&self) {
        self.state().allow_all_refs = true;
    }

    pub fn set_default_branch(&self, name: &str) {
        self.state().default_branch = name.into();
    }

    /// Closes a pull request. All others are open.
    pub fn close_pull_request(&self, number: u64) {
        self.state().closed.push(number);
    }

    /// Hides all pull requests except these.
    pub fn hide_other_pull_requests(&self, numbers: &[u64]) {
        self.state().numbers = numbers.to_vec();
    }

    /// Adds these entries, one before each page that is requested, as if other clients wrote them.
    pub fn add_entries_before_pages(&self, rows: impl IntoIterator<Item = Row>) {
        self.state().arriving.extend(rows);
    }

    /// Limits pages to this many rows, whatever the request asks for.
    pub fn set_page_size(&self, rows: usize) {
        self.state().page = rows;
    }

    /// IDs of the entries that the cache service does not have.
    pub fn numbers(&self) -> Vec<i64> {
        self.state().others.iter().map(|row| row.id).collect()
    }

    /// Hides the newest entry from lists.
    pub fn hide_new_entries(&self) {
        self.state().hides_newest = true;
    }

    /// Queues faults for the next requests of a kind, one for each request.
    pub fn inject_faults(&self, call: Call, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.entry(call).or_default().extend(faults);
    }

    pub fn seen(&self, call: Call) -> Vec<ReceivedRequest> {
        self.state().seen.iter().filter(|seen| seen.call == call).cloned().collect()
    }

    /// Ref and key of the entries that the cache service does not have.
    pub fn others(&self) -> Vec<(String, String)> {
        let others = self.state().others.clone();
        others.into_iter().map(|row| (row.reference, row.key)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl Drop for RestService {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.shared.address);
        let wrong = std::mem::take(&mut self.state().wrong);
        if !thread::panicking() {
            assert!(wrong.is_empty(), "not as GitHub describes it: {wrong:#?}");
        }
    }
}

impl Shared {
    fn serve(&self, connection: &TcpStream) {
        connection.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        while let Some(request) = read(&mut reader) {
            let call = match &request.path {
                _ if request.method == "DELETE" => Call::Delete,
                path if path.contains("/pulls/") => Call::Pull,
                path if path.ends_with("/caches") => Call::List,
                _ => Call::Repository,
            };
            let fault = {
                let mut state = self.state.lock().unwrap();
                let Request { path, query, headers, .. } = &request;
                state.seen.push(ReceivedRequest {
                    call,
                    at: Instant::now(),
                    path: path.clone(),
                    query: query.clone(),
                    headers: headers.clone(),
                });
                state.faults.get_mut(&call).and_then(VecDeque::pop_front)
            };
            if self.handle(connection, &request, fault).is_none() {
                return;
            }
        }
    }

    fn handle(
        &self,
        mut connection: &TcpStream,
        request: &Request,
        fault: Option<Fault>,
    ) -> Option<()> {
        let json = "application/json; charset=utf-8";
        let message = |said| request.message(said);
        let (status, extra, body) = match fault {
            Some(Fault::Reset) => return reset(connection),
            Some(Fault::Stall) => {
                thread::sleep(Duration::from_secs(60));
                return None;
            }
            Some(Fault::StallInBody) => {
                let head = "HTTP/1.1 200 x\r\nContent-Length: 5000\r\n\r\n{";
                connection.write_all(head.as_bytes()).ok()?;
                thread::sleep(Duration::from_secs(60));
                return None;
            }
            Some(Fault::Endless) => {
                let head = "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n";
                connection.write_all(head.as_bytes()).ok()?;
                let chunk = format!("10000\r\n{}\r\n", " ".repeat(65536));
                while connection.write_all(chunk.as_bytes()).is_ok() {}
                return None;
            }
            Some(Fault::Page) => {
                return send(connection, 200, "text/html", "", "<html>please log in</html>");
            }
            Some(Fault::Text(text)) => return send(connection, 200, json, "", text),
            Some(Fault::Status(status, said)) => (status, String::new(), Some(message(said))),
            Some(Fault::With(status, said, name, value)) => {
                (status, format!("{name}: {value}\r\n"), Some(message(said)))
            }
            Some(Fault::Gone) => {
                self.answer(request);
                (404, String::new(), Some(message("Not Found")))
            }
            None => {
                let (status, body) = self.answer(request);
                (status, String::new(), body)
            }
        };
        // Requests below another path are not for GitHub's API, so they are not validated.
        if let Some(path) = request.path.strip_prefix(BASE) {
            let Request { method, query, .. } = request;
            let exchange = json!({
                "method": method, "path": path, "query": query, "status": status, "body": body,
            });
            let verdict = self.judge.lock().unwrap().verdict(&exchange);
            if !verdict.is_empty() {
                self.state.lock().unwrap().wrong.push(verdict);
            }
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        send(connection, status, json, &extra, &body)
    }

    fn answer(&self, request: &Request) -> (u16, Option<Value>) {
        let message = |said| request.message(said);
        if request.headers.get("authorization") != Some(&format!("Bearer {TOKEN}")) {
            return (401, Some(message("Bad credentials")));
        }
        let not_found = (404, Some(message("Not Found")));
        let Some(rest) = request.path.strip_prefix(&format!("{BASE}/repos/{REPOSITORY}")) else {
            return not_found;
        };
        if let Some(number) = rest.strip_prefix("/pulls/") {
            let number = number.parse().unwrap();
            let state = self.state.lock().unwrap();
            if !state.numbers.is_empty() && !state.numbers.contains(&number) {
                return not_found;
            }
            let open = if state.closed.contains(&number) { "closed" } else { "open" };
            return (200, Some(self.example("pull-request", "state", open)));
        }
        if rest.is_empty() {
            let name = self.state.lock().unwrap().default_branch.clone();
            let kind = "full-repository-default-response";
            return (200, Some(self.example(kind, "default_branch", &name)));
        }
        let Some(rest) = rest.strip_prefix("/actions/caches") else { return not_found };
        let rows = self.rows();
        if request.method == "GET" && rest.is_empty() {
            return (200, Some(self.list(rows, &request.query)));
        }
        let id = rest.trim_start_matches('/').parse::<i64>().ok();
        match id.and_then(|id| rows.into_iter().find(|row| row.id == id)) {
            Some(row) if request.method == "DELETE" => {
                let mut state = self.state.lock().unwrap();
                let before = state.others.len();
                state.others.retain(|other| other.id != row.id);
                if state.others.len() == before {
                    self.service.evict(&row.key);
                }
                (204, None)
            }
            _ => not_found,
        }
    }

    /// An example response of GitHub's description, with one field changed.
    fn example(&self, name: &str, field: &str, value: &str) -> Value {
        let text = self.judge.lock().unwrap().verdict(&json!({ "example": name }));
        let mut example: Value = serde_json::from_str(&text).unwrap();
        example[field] = value.into();
        example
    }

    /// All entries, oldest first.
    fn rows(&self) -> Vec<Row> {
        let mut state = self.state.lock().unwrap();
        if let Some(row) = state.arriving.pop_front() {
            state.next += 1;
            let id = state.next;
            state.others.push(Row { id, ..row });
        }
        let here = self.service.keys().into_iter().map(|key| Row {
            id: self.service.blob_of(&key).parse().unwrap(),
            reference: state.reference.clone(),
            version: self.service.version_of(&key),
            size: self.service.content(&key).len() as u64,
            key,
            ..Row::default()
        });
        state.others.iter().cloned().chain(here).collect()
    }

    /// One page of the list, with GitHub's default for each parameter.
    fn list(&self, mut rows: Vec<Row>, query: &HashMap<String, String>) -> Value {
        if self.state.lock().unwrap().hides_newest {
            rows.pop();
        }
        let given = |name: &str| query.get(name).map(String::as_str);
        rows.retain(|row| given("key").is_none_or(|prefix| row.key.starts_with(prefix)));
        // The list is not filtered by ref, as on a server that does not know the parameter.
        if given("ref").is_none() {
            let mut state = self.state.lock().unwrap();
            if !state.allow_all_refs {
                state.wrong.push("asks for all refs".into());
            }
        }
        rows.reverse();
        if given("direction") == Some("asc") {
            rows.reverse();
        }
        let number = |name, unset| given(name).map_or(unset, |text| text.parse().unwrap());
        let (size, page): (usize, usize) = (number("per_page", 30), number("page", 1));
        let size = size.min(self.state.lock().unwrap().page);
        let shown = rows.iter().skip((page - 1) * size).take(size).map(|row| {
            json!({
                "id": row.id,
                "ref": row.reference,
                "key": row.key,
                "version": row.version,
                "last_accessed_at": row.used,
                "created_at": row.created,
                "size_in_bytes": row.size,
            })
        });
        json!({ "total_count": rows.len(), "actions_caches": shown.collect::<Vec<_>>() })
    }
}

impl Request {
    /// An error in GitHub's format. It repeats the token, as a careless server would.
    fn message(&self, said: &str) -> Value {
        let token = self.headers.get("authorization").map_or("", |value| &value[7..]);
        let url = "https://docs.github.com/rest";
        json!({ "message": format!("{said} ({token})"), "documentation_url": url, "status": "x" })
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines[0].split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines[1..].iter().filter_map(|line| line.split_once(':'));
    let headers: HashMap<_, _> =
        headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    assert!(!headers.contains_key("content-length"), "none of its requests has a body");
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(name, value)| (name.to_owned(), unescaped(&value.replace('+', " "))));
    Some(Request { method, path: unescaped(path), query: query.collect(), headers })
}

fn send(
    mut connection: &TcpStream,
    status: u16,
    kind: &str,
    extra: &str,
    body: &str,
) -> Option<()> {
    let length = body.len();
    let length =
        if status == 204 { String::new() } else { format!("Content-Length: {length}\r\n") };
    let head = format!("HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\n{length}{extra}\r\n");
    connection.write_all(format!("{head}{body}").as_bytes()).ok()
}

/// A validator in node that reads GitHub's description of the API.
struct ResponseValidator {
    child: Child,
    exchanges: ChildStdin,
    verdicts: BufReader<ChildStdout>,
}

impl ResponseValidator {
    fn start() -> ResponseValidator {
        let mut command = azurite::script("rest_validator.mjs");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cannot run node");
        let exchanges = child.stdin.take().unwrap();
        let verdicts = BufReader::new(child.stdout.take().unwrap());
        let mut judge = ResponseValidator { child, exchanges, verdicts };
        // After this exchange, the validator has read the description, so no request with a timeout waits for
        // that.
        judge.verdict(
            &json!({ "method": "GET", "path": "/", "query": {}, "status": 404, "body": {} }),
        );
        judge
    }

    /// Returns the problems of an exchange, or an empty string.
    fn verdict(&mut self, exchange: &Value) -> String {
        writeln!(self.exchanges, "{exchange}").unwrap();
        let mut verdict = String::new();
        let length = self.verdicts.read_line(&mut verdict).unwrap();
        assert!(length > 0, "the validator has exited");
        verdict.trim().to_owned()
    }
}

impl Drop for ResponseValidator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
