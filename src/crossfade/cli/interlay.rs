//! `crossfade interlay …`: authority, pauses, sessions, the analysis of statements.

use serde_json::json;

use super::args::{InterlayCommand, Output};
use super::{Console, Done, print, put, text, to_json};
use crate::cli::ClientError;
use control::api::types::{Analysis, Interlay, InterlayPolicies, PauseBody, Paused, Problem, Resumed, Sessions};

impl Console {
    pub(super) fn interlay(&self, command: InterlayCommand) -> Done {
        match command {
            InterlayCommand::List => self.show("/api/v1/interlays", |all: &Vec<Interlay>| print::interlays(all)),
            InterlayCommand::Show { name } => {
                self.show(&path(&name, ""), |one: &Interlay| print::interlays(std::slice::from_ref(one)))
            }
            InterlayCommand::Pause { name, deadline, hold } => {
                let ms = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
                let body = PauseBody { deadline_ms: deadline.map(ms), hold_ms: hold.map(ms) };
                let paused = self.client.post(&path(&name, "/pause"), &body).map_err(|error| self.refused(error))?;
                self.print(&paused, |paused: &Paused| print::paused(paused))
            }
            InterlayCommand::Resume { name } => {
                let resumed = self.client.post(&path(&name, "/resume"), &json!({})).map_err(text)?;
                self.print(&resumed, |resumed: &Resumed| print::resumed(resumed))
            }
            InterlayCommand::Policies { name } => {
                self.show(&path(&name, "/policies"), |found: &InterlayPolicies| print::interlay_policies(found))
            }
            InterlayCommand::Sessions { name } => {
                self.show(&path(&name, "/sessions"), |all: &Sessions| print::sessions(all))
            }
            InterlayCommand::Analyze { name, target, limit } => {
                let limit = limit.map(|limit| format!("limit={limit}"));
                let target = target.map(|target| format!("target={target}"));
                let query: Vec<_> = [target, limit].into_iter().flatten().collect();
                let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
                self.show(&path(&name, &format!("/analysis{query}")), |found: &Analysis| print::analysis(found))
            }
        }
    }

    pub(super) fn print<T: serde::Serialize>(&self, value: &T, print: fn(&T) -> String) -> Done {
        match self.output {
            Output::Json => put(&serde_json::to_string_pretty(&to_json(value)?).map_err(text)?),
            Output::Table => put(&print(value)),
        }
        Ok(())
    }

    /// The text for a refusal. For a pause that failed it lists the sessions that did not finish, as a table or in the problem document.
    /// Goes to standard error.
    fn refused(&self, error: ClientError) -> String {
        match error {
            ClientError::Refused(problem) => match self.output {
                Output::Json => {
                    eprintln!("{}", serde_json::to_string_pretty(&*problem).unwrap_or_default());
                    // The whole problem is printed already; more text would not be JSON.
                    String::new()
                }
                Output::Table => with_sessions(&problem),
            },
            other @ (ClientError::Unreachable(_) | ClientError::Nonsense(_)) => other.to_string(),
        }
    }
}

fn with_sessions(problem: &Problem) -> String {
    if problem.sessions.is_empty() {
        return problem.detail.clone();
    }
    format!("{}\n{}", problem.detail, print::session_table(&problem.sessions))
}

fn path(name: &str, rest: &str) -> String {
    format!("/api/v1/interlays/{name}{rest}")
}
