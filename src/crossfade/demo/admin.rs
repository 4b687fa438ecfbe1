//! The demo's client of the admin API: JSON over HTTP, as an operator's script would use it.

use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::process::stop_requested;

/// Time between two polls of a migration.
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Admin {
    agent: ureq::Agent,
    base: String,
}

/// An answer of the API: the status code and the body.
type Answer = (u16, Json);

impl Admin {
    pub fn new(port: u16) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(40)))
            .proxy(None)
            .build();
        Self { agent: config.into(), base: format!("http://127.0.0.1:{port}") }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn get(&self, path: &str) -> Result<Answer, String> {
        let url = format!("{}{path}", self.base);
        let mut response = self.agent.get(&url).call().map_err(|error| format!("GET {path}: {error}"))?;
        Ok((response.status().as_u16(), response.body_mut().read_json().unwrap_or(Json::Null)))
    }

    pub fn post(&self, path: &str, body: &Json) -> Result<Answer, String> {
        let url = format!("{}{path}", self.base);
        let mut response = self.agent.post(&url).send_json(body).map_err(|error| format!("POST {path}: {error}"))?;
        Ok((response.status().as_u16(), response.body_mut().read_json().unwrap_or(Json::Null)))
    }

    /// Waits until the API answers.
    pub fn wait_until_up(&self, deadline: Instant, mut still_alive: impl FnMut() -> bool) -> Result<(), String> {
        loop {
            match self.get("/readyz") {
                Ok((200, _)) => return Ok(()),
                Ok((status, body)) if Instant::now() > deadline => return Err(format!("/readyz: {status} {body}")),
                Err(error) if Instant::now() > deadline || !still_alive() => return Err(error),
                _ => pause()?,
            }
        }
    }

    /// The migration as it is now.
    pub fn migration(&self, id: &str) -> Result<Json, String> {
        match self.get(&format!("/api/v1/migrations/{id}"))? {
            (200, body) => Ok(body),
            (status, body) => Err(format!("migration {id}: {status} {}", problem(&body))),
        }
    }

    /// Posts until the answer is a success: a 409 names gates that are not met yet. `watch` sees the migration between attempts.
    pub fn post_when_possible(
        &self,
        id: &str,
        verb: &str,
        body: &Json,
        deadline: Instant,
        watch: &mut dyn FnMut(&Json),
    ) -> Result<(), String> {
        loop {
            let (status, answer) = self.post(&format!("/api/v1/migrations/{id}/{verb}"), body)?;
            match status {
                200..=299 => return Ok(()),
                409 if Instant::now() < deadline => {}
                409 => return Err(format!("{verb}: still refused at the deadline: {}", problem(&answer))),
                _ => return Err(format!("{verb}: {status} {}", problem(&answer))),
            }
            watch(&self.migration(id)?);
            pause()?;
        }
    }

    /// Polls the migration until `done`.
    pub fn wait(
        &self,
        id: &str,
        what: &str,
        deadline: Instant,
        watch: &mut dyn FnMut(&Json),
        done: impl Fn(&Json) -> bool,
    ) -> Result<Json, String> {
        loop {
            let now = self.migration(id)?;
            watch(&now);
            if done(&now) {
                return Ok(now);
            }
            if Instant::now() > deadline {
                return Err(format!("waiting for {what}: not reached in time; unmet: {}", unmet_gates(&now)));
            }
            pause()?;
        }
    }
}

fn pause() -> Result<(), String> {
    if stop_requested() {
        return Err("stopped by the user".to_owned());
    }
    std::thread::sleep(POLL);
    Ok(())
}

fn problem(body: &Json) -> String {
    match (body["title"].as_str(), body["detail"].as_str()) {
        (title, Some(detail)) => format!("{}: {detail}", title.unwrap_or("refused")),
        _ => body.to_string(),
    }
}

/// "verification (0 of 1), ..." for messages.
pub fn unmet_gates(migration: &Json) -> String {
    let gates = migration["gates"].as_array().cloned().unwrap_or_default();
    let unmet = gates.iter().filter(|gate| gate["met"] != Json::Bool(true));
    let lines: Vec<String> = unmet
        .map(|gate| {
            format!(
                "{} ({}; needs {})",
                gate["name"].as_str().unwrap_or("?"),
                gate["measured"].as_str().unwrap_or("?"),
                gate["threshold"].as_str().unwrap_or("?")
            )
        })
        .collect();
    if lines.is_empty() { "none".to_owned() } else { lines.join(", ") }
}
