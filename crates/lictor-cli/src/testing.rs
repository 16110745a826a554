//! For tests: a server that answers from a script, and a run of one command line.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, BufWriter, Cursor, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use crate::commands::Ui;

/// What a command did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Each request as `METHOD target body`.
    pub(crate) asked: Vec<String>,
    pub(crate) out: String,
    /// What went to standard error beside the failure.
    pub(crate) err: String,
    /// The exit code; 1 with a failure.
    pub(crate) code: u8,
    /// The line on standard error; `None` with exit code 0.
    pub(crate) failed: Option<String>,
}

/// Runs `line` (words separated by blanks; `_` stands for an empty word) against a server that gives `answers`, each
/// a status and a body, one a request.
pub(crate) fn run(line: &str, stdin: &str, answers: &[(u16, &str)]) -> Ran {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let answers: Vec<_> = answers
        .iter()
        .map(|(status, body)| (*status, (*body).to_owned()))
        .collect();
    let (asked, requests) = mpsc::channel();
    let server = std::thread::spawn(move || {
        if !answers.is_empty() {
            let (stream, _) = listener.accept().expect("a client");
            serve(stream, &answers, &asked);
        }
    });

    let words = line
        .split(' ')
        .map(|word| OsString::from(if word == "_" { "" } else { word }));
    let command = crate::parse(words).expect("a valid command line").command;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut input = Cursor::new(stdin.as_bytes().to_vec());
    let env = |name: &str| (name == "CONSUL_HTTP_ADDR").then(|| OsString::from(&address));
    let mut ui = Ui {
        out: BufWriter::new(&mut out),
        err: &mut err,
        input: &mut input,
        env: &env,
        interactive: false,
        definitions: None,
    };
    let exit = crate::run_client_command(command, &mut ui);
    ui.out.flush().expect("a vector takes everything");
    drop(ui);

    // Wakes a server that nobody asked.
    let _ = TcpStream::connect(&address);
    server.join().expect("the server saw what it understands");
    Ran {
        asked: requests.into_iter().collect(),
        out: String::from_utf8_lossy(&out).into_owned(),
        err: String::from_utf8_lossy(&err).into_owned(),
        code: *exit.as_ref().unwrap_or(&1),
        failed: exit.err().map(|failure| failure.0),
    }
}

fn serve(stream: TcpStream, answers: &[(u16, String)], asked: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut writer = stream;
    for (status, answer) in answers {
        let mut first = String::new();
        if reader.read_line(&mut first).expect("a request") == 0 {
            return;
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).expect("a header");
            match header.trim().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().expect("a number");
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let target = first.trim().trim_end_matches(" HTTP/1.1");
        let request = format!("{target} {}", String::from_utf8_lossy(&body));
        asked.send(request.trim_end().to_owned()).expect("the test waits");
        let location = if *status == 307 {
            format!("Location: {answer}\r\n")
        } else {
            String::new()
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{location}\r\n",
            answer.len()
        );
        writer
            .write_all(format!("{head}{answer}").as_bytes())
            .expect("the client reads");
    }
}
