//! A small blocking client of the admin API. Used by every command, and by the demo.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use control::api::types::{Event, Migration, Problem};

/// Longer than the API's own timeout, so that its answer comes first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a request failed.
#[derive(Debug, Clone)]
pub enum ClientError {
    /// No answer. If the connection broke half-way, it is unknown whether the change was made.
    Unreachable(String),
    /// The API refused, with the reason.
    Refused(Box<Problem>),
    /// An answer that Crossfade never gives: something else listens there.
    Nonsense(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(text) | Self::Nonsense(text) => f.write_str(text),
            Self::Refused(problem) if problem.gates.is_empty() => f.write_str(&problem.detail),
            Self::Refused(problem) => {
                let step = problem.detail.split(';').next().unwrap_or_default();
                write!(f, "{step}")?;
                for gate in &problem.gates {
                    write!(f, "\n  {}: {} (needs {})", gate.name, gate.measured, gate.threshold)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ClientError {}

impl ClientError {
    /// True when unmet gates are the only reason: trying again later may succeed.
    #[must_use]
    pub fn is_unmet(&self) -> bool {
        match self {
            Self::Refused(problem) => !problem.gates.is_empty(),
            Self::Unreachable(_) | Self::Nonsense(_) => false,
        }
    }
}

#[derive(Debug, Clone)]
pub struct AdminClient {
    base: String,
    agent: ureq::Agent,
}

impl AdminClient {
    /// `base` is a URL such as `http://127.0.0.1:7171`.
    #[must_use]
    pub fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(PATIENCE))
            .proxy(None);
        Self { base: base.trim_end_matches('/').to_owned(), agent: config.build().into() }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn unreachable(&self, error: &ureq::Error) -> ClientError {
        ClientError::Unreachable(format!(
            "no answer from {}: {error}; start `crossfade serve` there, or name another address with --admin URL or CROSSFADE_ADMIN",
            self.base
        ))
    }

    fn read<T: DeserializeOwned>(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, ClientError> {
        let mut answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let text = answer.body_mut().read_to_string().map_err(|error| self.unreachable(&error))?;
        let nonsense = |error: serde_json::Error| {
            ClientError::Nonsense(format!(
                "{} answered {status} in an unexpected form: {error}; is it Crossfade's admin API?",
                self.base
            ))
        };
        if status.is_success() {
            return serde_json::from_str(&text).map_err(nonsense);
        }
        Err(ClientError::Refused(Box::new(serde_json::from_str(&text).map_err(nonsense)?)))
    }

    /// # Errors
    /// [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.read(self.agent.get(self.url(path)).call())
    }

    /// # Errors
    /// [`ClientError`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.read(self.agent.post(self.url(path)).send_json(body))
    }

    /// # Errors
    /// [`ClientError`].
    pub fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.read(self.agent.put(self.url(path)).send_json(body))
    }

    /// # Errors
    /// [`ClientError`].
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.read(self.agent.delete(self.url(path)).call())
    }

    /// # Errors
    /// [`ClientError`].
    pub fn migration(&self, id: &str) -> Result<Migration, ClientError> {
        self.get(&format!("/api/v1/migrations/{id}"))
    }

    /// `verb` is one such as `advance`; the body is that of docs/API.md.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn verb(&self, id: &str, verb: &str, body: &impl Serialize) -> Result<Migration, ClientError> {
        self.post(&format!("/api/v1/migrations/{id}/{verb}"), body)
    }

    /// The API's JSON unchanged, for `--output json`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn raw(&self, path: &str) -> Result<Value, ClientError> {
        self.get(path)
    }

    /// Calls `each` with every event after number `after`. Ends when `each` returns false or, without `follow`, after the known events.
    ///
    /// # Errors
    /// [`ClientError`]; also when the stream breaks.
    pub fn events(
        &self,
        migration: Option<&str>,
        after: u64,
        follow: bool,
        mut each: impl FnMut(&Event) -> bool,
    ) -> Result<(), ClientError> {
        let only = migration.map(|id| format!("&migration={id}")).unwrap_or_default();
        let path = format!("/api/v1/events?after={after}&past_only={}{only}", !follow);
        let answer = self.agent.get(self.url(&path)).header("Accept", "text/event-stream").call();
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        if !answer.status().is_success() {
            return self.read::<Value>(Ok(answer)).map(drop);
        }
        let broken = |error: std::io::Error| ClientError::Unreachable(format!("the event stream broke: {error}"));
        for line in BufReader::new(answer.into_body().into_reader()).lines() {
            let line = line.map_err(broken)?;
            // The `data:` line has everything that is shown; `id:` and `event:` repeat parts of it.
            let Some(data) = line.strip_prefix("data:") else { continue };
            let event: Event = serde_json::from_str(data.trim_start())
                .map_err(|error| ClientError::Nonsense(format!("an event is not valid JSON: {error}")))?;
            if !each(&event) {
                return Ok(());
            }
        }
        if follow { Err(ClientError::Unreachable("the proxy closed the event stream".to_owned())) } else { Ok(()) }
    }
}
