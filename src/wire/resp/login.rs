//! The log-in of Crossfade's own connections to a server, and a few requests whose replies are gathered whole. Not the data path.

use super::effect::{integer, is_error};
use super::encode::push_request;
use super::frame::{ReplyFeed, ReplyStep};
use base::model::{Credentials, limits};

/// The state a connection is to have before it is used.
#[derive(Debug, Clone)]
pub struct LogIn {
    pub credentials: Option<Credentials>,
    pub database: u32,
    /// 2 or 3.
    pub resp: u8,
    /// Whether to send a PING, which shows if the server lets a connection without log-in run commands.
    pub learn_anonymous: bool,
    /// The connection's name in CLIENT LIST; empty for none.
    pub name: String,
}

/// What the server answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoggedIn {
    /// CLIENT ID; 0 when the server refused to answer.
    pub client_id: u64,
    pub anonymous_allowed: Option<bool>,
}

/// Names of Crossfade's connections are `crossfade/<role>/<interlay>/<token>`; neither part can contain a '/'.
#[must_use]
pub fn connection_name(role: &str, interlay: &str, token: u64) -> String {
    format!("crossfade/{role}/{interlay}/{token:x}")
}

impl LogIn {
    /// A user may not be allowed to choose a database; a connection that has not logged in perhaps is, and a user that logs in stays in it.
    fn selects_first(&self) -> bool {
        self.credentials.is_some() && self.database != 0
    }

    /// Number of requests whose refusal fails the log-in: AUTH, HELLO, SELECT.
    fn must_succeed(&self) -> usize {
        usize::from(self.credentials.is_some()) + usize::from(self.resp == 3) + usize::from(self.database != 0)
    }

    /// The requests, to be answered through the dialogue.
    #[must_use]
    pub fn begin(&self) -> (Vec<u8>, Dialogue) {
        let database = self.database.to_string();
        let mut out = Vec::new();
        let mut count = self.must_succeed();
        if self.selects_first() {
            push_request(&mut out, &[b"SELECT", database.as_bytes()]);
            count += 1;
        }
        if let Some(credentials) = &self.credentials {
            let mut auth = vec![b"AUTH".as_slice()];
            auth.extend(credentials.user.as_ref().map(|user| user.as_bytes()));
            auth.push(credentials.password.expose());
            push_request(&mut out, &auth);
        }
        if self.resp == 3 {
            push_request(&mut out, &[b"HELLO", b"3"]);
        }
        if self.database != 0 {
            push_request(&mut out, &[b"SELECT", database.as_bytes()]);
        }
        push_request(&mut out, &[b"CLIENT", b"ID"]);
        count += 1;
        if !self.name.is_empty() {
            push_request(&mut out, &[b"CLIENT", b"SETNAME", self.name.as_bytes()]);
            count += 1;
        }
        if self.learn_anonymous {
            push_request(&mut out, &[b"PING"]);
            count += 1;
        }
        (out, Dialogue::expecting(count))
    }

    /// What the gathered replies mean.
    ///
    /// # Errors
    /// The server's refusal, an error reply.
    pub fn outcome(&self, replies: &[Vec<u8>]) -> Result<LoggedIn, Vec<u8>> {
        let must_succeed = self.must_succeed();
        let (first, replies) = replies.split_at(usize::from(self.selects_first()).min(replies.len()));
        let selected = first.first().is_some_and(|reply| !is_error(reply));
        let refused = |(nth, reply): &(usize, &Vec<u8>)| {
            let is_select = self.database != 0 && nth + 1 == must_succeed;
            is_error(reply) && !(is_select && selected && reply.starts_with(b"-NOPERM"))
        };
        if let Some((_, refusal)) = replies.iter().take(must_succeed).enumerate().find(refused) {
            return Err(refusal.clone());
        }
        let client_id = replies.get(must_succeed).and_then(|reply| integer(reply)).unwrap_or(0) as u64;
        let anonymous = self.learn_anonymous.then(|| replies.last().map(|reply| !reply.starts_with(b"-NOAUTH")));
        Ok(LoggedIn { client_id, anonymous_allowed: anonymous.flatten() })
    }
}

impl Dialogue {
    /// The error with which a server that closes the connection at once says why.
    #[must_use]
    pub fn refusal(&self) -> Option<&Vec<u8>> {
        self.replies.first().filter(|reply| is_error(reply) && !reply.starts_with(b"-NOAUTH"))
    }
}

/// Gathers a number of whole replies.
#[derive(Debug, Default)]
pub struct Dialogue {
    missing: usize,
    feed: ReplyFeed,
    gathered: Vec<u8>,
    replies: Vec<Vec<u8>>,
}

impl Dialogue {
    #[must_use]
    pub fn expecting(missing: usize) -> Self {
        Self { missing, ..Self::default() }
    }

    /// The replies, once all are complete.
    ///
    /// # Errors
    /// The bytes are not RESP, more than the expected replies, or larger than any reply Crossfade expects.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<Option<Vec<Vec<u8>>>, String> {
        while !bytes.is_empty() {
            if self.missing == 0 {
                return Err("the server sent more replies than it got requests".to_owned());
            }
            if self.gathered.len() + bytes.len() > limits::DIALOGUE_BYTES_MAX {
                return Err(format!("an answer at log-in is longer than {} bytes", limits::DIALOGUE_BYTES_MAX));
            }
            match self.feed.feed(bytes) {
                ReplyStep::Partial => {
                    self.gathered.extend_from_slice(bytes);
                    break;
                }
                ReplyStep::Invalid(why) => return Err(why),
                ReplyStep::Complete { consumed, .. } => {
                    let (piece, rest) = bytes.split_at(consumed);
                    bytes = rest;
                    let mut whole = std::mem::take(&mut self.gathered);
                    whole.extend_from_slice(piece);
                    self.replies.push(whole);
                    self.missing -= 1;
                }
            }
        }
        Ok((self.missing == 0).then(|| std::mem::take(&mut self.replies)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::model::Secret;

    #[test]
    fn a_log_in_is_read_at_every_split_point() {
        let credentials = Some(Credentials { user: None, password: Secret::new(b"pw") });
        let log_in = LogIn { credentials, database: 3, resp: 2, learn_anonymous: false, name: "n".to_owned() };
        let (requests, _) = log_in.begin();
        let select = b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n".as_slice();
        assert!(requests.starts_with(&[select, b"*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n", select].concat()));
        let answers = b"-NOAUTH\r\n+OK\r\n+OK\r\n:77\r\n+OK\r\n";
        for split in 1..answers.len() {
            let (_, mut dialogue) = log_in.begin();
            assert_eq!(dialogue.feed(&answers[..split]), Ok(None));
            let replies = dialogue.feed(&answers[split..]).unwrap().expect("all five");
            assert_eq!(log_in.outcome(&replies), Ok(LoggedIn { client_id: 77, anonymous_allowed: None }));
        }
        let (_, mut dialogue) = log_in.begin();
        let replies =
            dialogue.feed(b"+OK\r\n-WRONGPASS no\r\n-NOAUTH\r\n-NOAUTH\r\n-NOAUTH\r\n").unwrap().expect("all");
        assert_eq!(log_in.outcome(&replies), Err(b"-WRONGPASS no\r\n".to_vec()));
        assert!(dialogue.feed(b"+more\r\n").is_err());
    }

    #[test]
    fn a_user_that_may_not_choose_stays_in_the_database_that_was_chosen_before() {
        let credentials = Some(Credentials { user: Some("eve".to_owned()), password: Secret::new(b"pw") });
        let log_in = LogIn { credentials, database: 9, resp: 3, learn_anonymous: false, name: String::new() };
        for (answers, agreed) in [
            ("+OK +OK %0 +OK :1", true),
            ("+OK +OK %0 -NOPERM :1", true),
            ("-NOAUTH +OK %0 +OK :1", true),
            ("-NOAUTH +OK %0 -NOPERM :1", false),
            ("+OK -WRONGPASS %0 +OK :1", false),
            ("+OK +OK %0 -BUSY :1", false),
        ] {
            let (_, mut dialogue) = log_in.begin();
            let bytes: String = answers.split(' ').map(|answer| format!("{answer}\r\n")).collect();
            let replies = dialogue.feed(bytes.as_bytes()).unwrap().expect("all");
            assert_eq!(log_in.outcome(&replies).is_ok(), agreed, "{answers}");
        }
    }
}
