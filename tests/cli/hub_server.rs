//! A small Hub: an endpoint with one repository, and a second host for its large files.
//! It records all requests and makes the faults that tests choose.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use sha1::Digest as _;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How a response goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A status, with additional header lines.
    Status(u16, &'static str),
    /// The connection ends after this number of bytes of the body.
    CutAfter(usize),
    /// After this number of bytes, it sends one byte at a time.
    SlowAfter(usize),
    /// The whole file whatever range was requested, cut after this number of bytes.
    NoRanges(usize),
    /// One byte is wrong.
    Damaged,
}

/// A request that the server received.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whether the second host received it.
    pub elsewhere: bool,
    pub method: String,
    pub path: String,
    headers: BTreeMap<String, String>,
    /// The number of bytes of the body that were sent at once.
    pub sent: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[derive(Default)]
struct State {
    repository: String,
    files: BTreeMap<String, Vec<u8>>,
    /// Wrong sizes for the listing.
    claims: BTreeMap<String, u64>,
    /// Whether the listing lacks sizes and checksums.
    bare: bool,
    elsewhere: String,
    faults: Vec<(String, VecDeque<Fault>)>,
    requests: Vec<Request>,
}

pub struct HubServer {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

impl HubServer {
    /// Serves a repository until the test ends. Safetensors and GGUF are large files.
    pub fn new(repository: &str, files: impl IntoIterator<Item = (String, Vec<u8>)>) -> HubServer {
        let state = Arc::new(Mutex::new(State {
            repository: repository.into(),
            files: files.into_iter().collect(),
            ..State::default()
        }));
        let endpoint = listen(state.clone(), false);
        let elsewhere = listen(state.clone(), true);
        state.lock().unwrap().elsewhere = elsewhere;
        HubServer { endpoint, state }
    }

    /// The faults of the next requests with `part` in their path, in order.
    pub fn fail(&self, part: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults.push((part.into(), faults.into_iter().collect()));
    }

    /// Makes the listing say that a file has this size.
    pub fn claim(&self, file: &str, bytes: u64) {
        self.state.lock().unwrap().claims.insert(file.into(), bytes);
    }

    /// Makes the listing contain names alone.
    pub fn list_names_only(&self) {
        self.state.lock().unwrap().bare = true;
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

pub fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".gguf")
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

pub fn git_hash(bytes: &[u8]) -> String {
    hex(&sha1::Sha1::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat()))
}

/// The name of a file's content in the cache.
pub fn etag(name: &str, bytes: &[u8]) -> String {
    if is_large(name) { sha256(bytes) } else { git_hash(bytes) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn listen(state: Arc<Mutex<State>>, elsewhere: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (state, stream) = (state.clone(), stream.unwrap());
            // Some tests drop the connection.
            thread::spawn(move || answer(&state, stream, elsewhere).ok());
        }
    });
    format!("http://{address}")
}

fn answer(state: &Mutex<State>, mut stream: TcpStream, elsewhere: bool) -> std::io::Result<()> {
    let Some(request) = read_request(&stream, elsewhere)? else { return Ok(()) };
    let (mut reply, fault, number) = {
        let mut state = state.lock().unwrap();
        let queue = state
            .faults
            .iter_mut()
            .find(|(part, queue)| request.path.contains(part) && !queue.is_empty());
        let fault = queue.and_then(|(_, queue)| queue.pop_front());
        let reply = state.reply(&request);
        state.requests.push(request.clone());
        (reply, fault, state.requests.len() - 1)
    };
    if let Some(Fault::Status(status, headers)) = fault {
        reply = Reply { status, headers: headers.into(), body: b"no".to_vec() };
    }
    if request.method == "GET" && reply.status == 200 && !matches!(fault, Some(Fault::NoRanges(_)))
    {
        reply.take_range(request.header("range"));
    }
    if let (Some(Fault::Damaged), Some(byte)) = (&fault, reply.body.last_mut()) {
        *byte ^= 1;
    }
    let length = match &fault {
        Some(Fault::CutAfter(length) | Fault::SlowAfter(length) | Fault::NoRanges(length)) => {
            *length
        }
        _ if request.method == "HEAD" => 0,
        _ => reply.body.len(),
    };
    let (now, later) = reply.body.split_at(length.min(reply.body.len()));
    let head = format!(
        "HTTP/1.1 {} Status\r\nConnection: close\r\nContent-Length: {}\r\n{}\r\n",
        reply.status,
        reply.body.len(),
        reply.headers
    );
    // The number is set before the bytes are sent, so a client that has them sees the right number.
    if let Some(request) = state.lock().unwrap().requests.get_mut(number) {
        request.sent = now.len();
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(now)?;
    if let Some(Fault::SlowAfter(_)) = fault {
        for byte in later {
            thread::sleep(Duration::from_millis(10));
            stream.write_all(&[*byte])?;
        }
    }
    Ok(())
}

fn read_request(stream: &TcpStream, elsewhere: bool) -> std::io::Result<Option<Request>> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(None) };
    let mut words = first.split(' ').map(String::from);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Some(Request { elsewhere, method, path, headers, sent: 0 }))
}

struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Reply {
    fn take_range(&mut self, range: Option<&str>) {
        let Some(from) =
            range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        else {
            return;
        };
        let all = self.body.len();
        self.status = 206;
        self.body = self.body.split_off(from);
        self.headers += &format!("Content-Range: bytes {from}-{}/{all}\r\n", all - 1);
    }
}

impl State {
    fn reply(&self, request: &Request) -> Reply {
        let (repository, path) = (&self.repository, request.path.split('?').next().unwrap());
        let not_found = || Reply { status: 404, headers: String::new(), body: b"{}".to_vec() };
        if request.elsewhere {
            let file = path.strip_prefix("/data/").and_then(|name| self.files.get(name));
            return file.map_or_else(not_found, |body| Reply {
                status: 200,
                headers: String::new(),
                body: body.clone(),
            });
        }
        if path.starts_with(&format!("/api/models/{repository}/revision/")) {
            return Reply {
                status: 200,
                headers: String::new(),
                body: self.listing().to_string().into(),
            };
        }
        // Small files are behind a redirect within the host, as on huggingface.co.
        let (linked, direct) = (
            format!("/{repository}/resolve/{COMMIT}/"),
            format!("/api/resolve-cache/{repository}/"),
        );
        let name = path.strip_prefix(&linked).or_else(|| path.strip_prefix(&direct));
        let Some((name, body)) = name.and_then(|name| self.files.get_key_value(name)) else {
            return not_found();
        };
        let (tag, bytes) = (etag(name, body), body.len());
        match path.starts_with(&direct) {
            true => {
                Reply { status: 200, headers: format!("ETag: \"{tag}\"\r\n"), body: body.clone() }
            }
            false if is_large(name) => {
                let location = format!("{}/data/{name}?signature=x", self.elsewhere);
                let headers = format!(
                    "Location: {location}\r\nX-Linked-Etag: \"{tag}\"\r\n\
                     X-Linked-Size: {bytes}\r\nETag: \"other\"\r\n"
                );
                Reply { status: 302, headers, body: Vec::new() }
            }
            false => Reply {
                status: 307,
                headers: format!("Location: {direct}{name}\r\n"),
                body: Vec::new(),
            },
        }
    }

    fn listing(&self) -> Value {
        let file = |(name, bytes): (&String, &Vec<u8>)| {
            let size = self.claims.get(name).copied().unwrap_or(bytes.len() as u64);
            let mut file = json!({ "rfilename": name });
            if !self.bare {
                // The blob of a large file is the pointer to it.
                file["size"] = size.into();
                file["blobId"] = git_hash(if is_large(name) { b"pointer" } else { bytes }).into();
            }
            if !self.bare && is_large(name) {
                file["lfs"] = json!({ "sha256": sha256(bytes), "size": size, "pointerSize": 7 });
            }
            file
        };
        let siblings: Vec<Value> = self.files.iter().map(file).collect();
        json!({ "id": self.repository, "sha": COMMIT, "siblings": siblings })
    }
}
