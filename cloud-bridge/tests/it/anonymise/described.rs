//! `openapi.json` beside what the bridge answers: every answer has to be one that is described, and every description one that
//! is answered.

use super::{Answer, ask};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Mutex,
};

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
        let levels: Vec<_> = path.split('/').collect();
        let fits = |template: &str| {
            let wanted: Vec<_> = template.split('/').collect();
            wanted.len() == levels.len()
                && wanted.iter().zip(&levels).all(|(want, is)| want.starts_with('{') || want == is)
        };
        let paths = self.description["paths"].as_object().unwrap();
        let (template, operations) =
            paths.iter().find(|(template, _)| fits(template)).expect("a path that is described");
        let operation = &operations[method.to_ascii_lowercase()];
        let described = &operation["responses"][answer.status.to_string()];
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

    /// What is described and was not answered, but for these.
    pub fn unseen(&self, but: &[u16]) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let mut unseen = Vec::new();
        for (template, operations) in self.description["paths"].as_object().unwrap() {
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
