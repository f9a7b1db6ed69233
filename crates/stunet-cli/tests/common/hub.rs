//! A server on the loopback that behaves like the Hugging Face hub, and misbehaves when told to.
//!
//! Two ports: the hub, which says what a file is and redirects, and the place where the bytes are.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stunet_testing::prng::sha256;

/// The commit of the first version.
pub const COMMIT: &str = "a50a937b0c3f4d5e6f708192a3b4c5d6e7f80912";

/// What goes wrong with the next answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The connection ends after so many bytes of a body.
    BreakAfter(usize),
    /// Nothing more comes after so many bytes, and the connection stays.
    StallAfter(usize),
    /// The place of the bytes answers with this status.
    Status(u16),
    /// The hub answers with this status.
    HubStatus(u16),
    /// All bytes come whatever was asked for.
    NoRanges,
    /// One byte is another.
    WrongBytes,
    /// More bytes than were stated.
    TooMany,
    /// A little at a time.
    Slow,
    /// No answer.
    Silent,
    /// The hub says no commit.
    NoCommit,
    /// The hub says a commit that would be a path.
    OddCommit,
    /// The hub redirects to itself.
    Loop,
    /// Questions without a body are not answered.
    NoQuestions,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method and path.
    pub line: String,
    /// The header of that name.
    pub range: Option<String>,
    /// The header of that name.
    pub authorization: Option<String>,
}

struct State {
    content: Vec<u8>,
    commit: String,
    faults: Vec<(Fault, usize)>,
    asked: Vec<Asked>,
    bytes_port: u16,
}

/// The server; it ends with the test.
pub struct Hub {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// One with a file.
    pub fn new(content: Vec<u8>) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, bytes) = (listen(), listen());
        let [port, bytes_port] = [&hub, &bytes].map(|of| of.local_addr().unwrap().port());
        let (faults, asked) = (Vec::new(), Vec::new());
        let state = State { content, commit: COMMIT.to_owned(), faults, asked, bytes_port };
        let state = Arc::new(Mutex::new(state));
        for listener in [hub, bytes] {
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = Arc::clone(&state);
                    // Who has gone need not be answered.
                    std::thread::spawn(move || drop(serve(&stream, &state)));
                }
            });
        }
        Self { port, state }
    }

    /// `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Of the file.
    pub fn sha256(&self) -> String {
        sha256(&self.state.lock().unwrap().content)
    }

    /// Another version of the file.
    pub fn publish(&self, content: Vec<u8>, commit: &str) {
        let mut state = self.state.lock().unwrap();
        (state.content, state.commit) = (content, commit.to_owned());
    }

    /// What goes wrong with the next answers that it can happen to, after earlier faults.
    pub fn fault(&self, fault: Fault, times: usize) {
        self.state.lock().unwrap().faults.push((fault, times));
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// All that was asked for.
    pub fn requests(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }
}

impl State {
    /// The fault that is due, if it is of a kind.
    fn due(&mut self, of: impl Fn(Fault) -> bool) -> Option<Fault> {
        let (fault, left) = self.faults.first_mut()?;
        if !of(*fault) {
            return None;
        }
        let due = *fault;
        *left -= 1;
        if *left == 0 {
            self.faults.remove(0);
        }
        Some(due)
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            break;
        }
        let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
        let (mut range, mut authorization) = (None, None);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => range = Some(value.trim().to_owned()),
                "authorization" => authorization = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        let asked = Asked { line, range, authorization };
        state.lock().unwrap().asked.push(asked.clone());
        let on_hub = asked.line.contains("/resolve/") || asked.line.contains("/elsewhere");
        let go_on = match on_hub {
            true => say_what_it_is(stream, state)?,
            false => give(stream, state, &asked)?,
        };
        if !go_on {
            break;
        }
    }
    Ok(())
}

fn say_what_it_is(mut stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<bool> {
    let mut state = state.lock().unwrap();
    let of_hub = |fault| {
        matches!(fault, Fault::HubStatus(_) | Fault::NoCommit | Fault::OddCommit | Fault::Loop)
    };
    let fault = state.due(of_hub);
    if let Some(Fault::HubStatus(status)) = fault {
        write!(stream, "HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(true);
    }
    if fault == Some(Fault::Loop) {
        write!(stream, "HTTP/1.1 307 To\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(true);
    }
    let commit = match fault {
        Some(Fault::NoCommit) => String::new(),
        Some(Fault::OddCommit) => "X-Repo-Commit: ../../x\r\n".to_owned(),
        _ => format!("X-Repo-Commit: {}\r\n", state.commit),
    };
    let (tag, size, port) = (sha256(&state.content), state.content.len(), state.bytes_port);
    write!(
        stream,
        "HTTP/1.1 302 Found\r\n{commit}X-Linked-Etag: \"{tag}\"\r\nX-Linked-Size: {size}\r\n\
         Location: http://127.0.0.1:{port}/blob?Signature=xyz\r\nContent-Length: 0\r\n\r\n"
    )?;
    Ok(true)
}

fn give(mut stream: &TcpStream, state: &Mutex<State>, asked: &Asked) -> std::io::Result<bool> {
    let (mut content, fault) = {
        let mut state = state.lock().unwrap();
        // A question about a file is no time for another fault.
        let question = asked.line.starts_with("HEAD");
        let fault = state.due(|fault| question == (fault == Fault::NoQuestions));
        (state.content.clone(), fault)
    };
    let first = asked.range.as_ref().filter(|_| fault != Some(Fault::NoRanges));
    let first = first.and_then(|range| range["bytes=".len()..].trim_end_matches('-').parse().ok());
    let (from, total) = (first.unwrap_or(0usize), content.len());
    match fault {
        Some(Fault::Silent) => {
            std::thread::sleep(Duration::from_secs(60));
            return Ok(false);
        }
        Some(Fault::Status(status)) => {
            write!(stream, "HTTP/1.1 {status} Out of order\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(true);
        }
        Some(Fault::NoQuestions) => {
            write!(stream, "HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(true);
        }
        Some(Fault::WrongBytes) => content[total / 2] ^= 1,
        Some(Fault::TooMany) => content.extend([0; 100_000]),
        _ => {}
    }
    if from >= content.len() && from > 0 {
        write!(stream, "HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(true);
    }
    let body = &content[from..];
    let status = match first {
        Some(_) => format!("206 Part\r\nContent-Range: bytes {from}-{}/{total}", total - 1),
        None => "200 OK".to_owned(),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nETag: \"v1\"\r\nContent-Length: {length}\r\n\r\n")?;
    if asked.line.starts_with("HEAD") {
        return Ok(true);
    }
    match fault {
        Some(Fault::BreakAfter(count)) if count < body.len() => {
            stream.write_all(&body[..count])?;
            stream.flush()?;
            // Closed in order: what was sent arrives.
            stream.shutdown(std::net::Shutdown::Write)?;
            return Ok(false);
        }
        Some(Fault::StallAfter(count)) => {
            stream.write_all(&body[..count])?;
            std::thread::sleep(Duration::from_secs(60));
            return Ok(false);
        }
        Some(Fault::Slow) => {
            for piece in body.chunks(200_000) {
                stream.write_all(piece)?;
                std::thread::sleep(Duration::from_millis(600));
            }
        }
        _ => stream.write_all(body)?,
    }
    Ok(true)
}
