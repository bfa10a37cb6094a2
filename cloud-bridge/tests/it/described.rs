//! `openapi.json` beside what the bridge answers: every answer has to be one that is described, and every description one that
//! is answered.

use edgeveil_bridge::anonymise::JobId;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Mutex,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What the bridge said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn id(&self) -> JobId {
        assert_eq!(self.status, 202, "{} {}", self.status, String::from_utf8_lossy(&self.body));
        self.json()["id"].as_str().unwrap().parse().unwrap()
    }
}

/// One request of HTTP/1.1 on a connection of its own. What does not get through, as the answer came before, does not matter.
pub async fn ask(
    http: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(http).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !headers.iter().any(|(name, _)| *name == "content-length" || *name == "transfer-encoding") {
        head += &format!("content-length: {}\r\n", body.len());
    }
    stream.write_all((head + "\r\n").as_bytes()).await.unwrap();
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer with a head");
    let mut body = answer.split_off(end + 4);
    let head = String::from_utf8(answer).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    assert!(!headers.iter().any(|(name, _)| name == "transfer-encoding"), "{headers:?}");
    if method == "HEAD" {
        body.clear();
    }
    Answer { status, headers, body }
}

/// A client that trusts the description and nothing else.
pub struct Described {
    http: SocketAddr,
    token: Option<String>,
    description: Value,
    seen: Mutex<BTreeMap<String, BTreeSet<u16>>>,
}

impl Described {
    /// Reads the description from the bridge.
    pub async fn of(http: SocketAddr, token: Option<&str>) -> Self {
        let answer = ask(http, "GET", "/v1/openapi.json", &[], b"").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        let described = Self {
            http,
            token: token.map(str::to_owned),
            description: answer.json(),
            seen: Mutex::default(),
        };
        described.hold("GET", "/v1/openapi.json", &answer);
        described
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"").await
    }

    pub async fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.ask("POST", "/v1/images", headers, body).await
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut headers = headers.to_vec();
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        if let (Some(bearer), false) = (&bearer, headers.iter().any(|(name, _)| *name == "authorization")) {
            headers.push(("authorization", bearer));
        }
        let answer = ask(self.http, method, path, &headers, body).await;
        self.hold(method, path, &answer);
        answer
    }

    /// Finds the answer in the description: status, headers, kind and body.
    fn hold(&self, method: &str, path: &str, answer: &Answer) {
        let levels: Vec<_> = path.split('?').next().unwrap().split('/').collect();
        let fits = |template: &str| {
            let wanted: Vec<_> = template.split('/').collect();
            wanted.len() == levels.len()
                && wanted.iter().zip(&levels).all(|(want, is)| want.starts_with('{') || want == is)
        };
        let paths = self.description["paths"].as_object().unwrap();
        let (template, operations) =
            paths.iter().find(|(template, _)| fits(template)).expect("a path that is described");
        let operation = &operations[method.to_ascii_lowercase()];
        let mut described = &operation["responses"][answer.status.to_string()];
        if let Some(place) = described["$ref"].as_str() {
            described = self.description.pointer(&place[1..]).expect("what is referred to");
        }
        let told = String::from_utf8_lossy(&answer.body);
        assert!(
            described.is_object(),
            "{method} {path} answers {}, which is not described: {told}",
            answer.status
        );
        for (name, header) in described["headers"].as_object().into_iter().flatten() {
            let value = answer.header(&name.to_ascii_lowercase());
            assert!(value.is_some() || header["required"] != json!(true), "{method} {path}: no {name}");
            if let (Some(value), Some("integer")) = (value, header["schema"]["type"].as_str()) {
                assert!(value.parse::<u64>().is_ok(), "{name}: {value}");
            }
        }
        let (kind, content) = described["content"].as_object().unwrap().iter().next().unwrap();
        assert_eq!(answer.header("content-type"), Some(kind.as_str()), "{method} {path}");
        if kind.ends_with("json") {
            let mut schema = content["schema"].clone();
            schema["components"] = self.description["components"].clone();
            let errors: Vec<_> = jsonschema::options()
                .should_validate_formats(true)
                .build(&schema)
                .unwrap()
                .iter_errors(&answer.json())
                .map(|error| error.to_string())
                .collect();
            assert!(errors.is_empty(), "{method} {path} {}: {errors:?} in {told}", answer.status);
        }
        if kind == "application/problem+json" {
            assert_eq!(answer.json()["status"], json!(answer.status));
        }
        let name = format!("{method} {template}");
        self.seen.lock().unwrap().entry(name).or_default().insert(answer.status);
    }

    /// What is described below an address and was not answered, but for these.
    pub fn unseen(&self, below: &str, but: &[u16]) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let mut unseen = Vec::new();
        let paths = self.description["paths"].as_object().unwrap();
        for (template, operations) in paths.iter().filter(|(template, _)| template.starts_with(below)) {
            for (method, operation) in operations.as_object().unwrap() {
                let name = format!("{} {template}", method.to_uppercase());
                for status in operation["responses"].as_object().unwrap().keys() {
                    let status: u16 = status.parse().unwrap();
                    if !but.contains(&status) && !seen.get(&name).is_some_and(|seen| seen.contains(&status)) {
                        unseen.push(format!("{name} {status}"));
                    }
                }
            }
        }
        unseen
    }
}
