//! What the lane asks of a server before it uses a connection to it: no connection of a predecessor may still execute anything, and
//! who is the server?

use base::model::Endpoint;
use wire::resp::effect::bulk;
use wire::resp::encode::push_request;
use wire::resp::login::{Dialogue, LogIn, connection_name};

/// One connection's introduction. Lives on the lane's core until the server has answered.
#[derive(Debug)]
pub struct Introduction {
    log_in: LogIn,
    /// The part before the token in the names of our connections, and our own name.
    interlay: String,
    token: u64,
    /// CLIENT ID of this process' last connection to the same side; 0 = none.
    predecessor: u64,
    client_id: u64,
    step: Step,
    dialogue: Dialogue,
    /// To be sent. Kept apart from the lane's own bytes, which wait until the introduction is over.
    pub output: Vec<u8>,
}

#[derive(Debug)]
enum Step {
    LogIn,
    Questions,
    Kills { run_id: Vec<u8> },
}

impl Introduction {
    #[must_use]
    pub fn begin(endpoint: &Endpoint, interlay: &str, token: u64, predecessor: u64) -> Self {
        let name = connection_name("lane", interlay, token);
        let credentials = endpoint.credentials.clone();
        let log_in = LogIn { credentials, database: 0, resp: 2, learn_anonymous: false, name };
        let (output, dialogue) = log_in.begin();
        Self {
            log_in,
            interlay: interlay.to_owned(),
            token,
            predecessor,
            client_id: 0,
            step: Step::LogIn,
            dialogue,
            output,
        }
    }

    /// CLIENT ID of this connection once it is logged in: the predecessor of the next.
    #[must_use]
    pub fn client_id(&self) -> u64 {
        self.client_id
    }

    /// Bytes arrived. When the introduction is over: the identity of the server process, which changes with a restart.
    ///
    /// # Errors
    /// What went wrong, in words; the connection is of no use.
    pub fn input(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let Some(replies) = self.dialogue.feed(bytes)? else { return Ok(None) };
        match std::mem::replace(&mut self.step, Step::LogIn) {
            Step::LogIn => {
                let logged_in = self
                    .log_in
                    .outcome(&replies)
                    .map_err(|reply| format!("log-in refused: {}", String::from_utf8_lossy(&reply).trim()))?;
                push_request(&mut self.output, &[b"CLIENT", b"LIST"]);
                push_request(&mut self.output, &[b"INFO", b"server"]);
                self.dialogue = Dialogue::expecting(2);
                self.client_id = logged_in.client_id;
                self.step = Step::Questions;
                Ok(None)
            }
            Step::Questions => {
                let [list, info] = replies.as_slice() else { return Err("an answer is missing".to_owned()) };
                let info =
                    bulk(info).ok_or_else(|| format!("INFO was refused: {}", String::from_utf8_lossy(info).trim()))?;
                let run_id = info
                    .split(|&b| b == b'\n')
                    .find_map(|line| line.strip_prefix(b"run_id:"))
                    .map(|id| id.trim_ascii().to_vec())
                    .unwrap_or_default();
                let mut doomed = zombies(bulk(list).unwrap_or_default(), &self.interlay, self.token);
                doomed.push(self.predecessor.to_string());
                for id in &doomed {
                    // Bytes of a lost connection may still be waiting there: once it is killed they are never executed.
                    push_request(&mut self.output, &[b"CLIENT", b"KILL", b"ID", id.as_bytes()]);
                }
                self.dialogue = Dialogue::expecting(doomed.len());
                self.step = Step::Kills { run_id };
                Ok(None)
            }
            // A connection to be killed may be gone already; that is as good.
            Step::Kills { run_id } => Ok(Some(run_id)),
        }
    }
}

/// Ids of the connections another process made for this interlay, from a CLIENT LIST.
fn zombies(list: &[u8], interlay: &str, token: u64) -> Vec<String> {
    let ours = format!("/{interlay}/{token:x}");
    let any = format!("/{interlay}/");
    String::from_utf8_lossy(list)
        .lines()
        .filter_map(|line| {
            let field = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key));
            let name = field("name=")?;
            let of_interlay = name.strip_prefix("crossfade/lane").or(name.strip_prefix("crossfade/core"))?;
            (of_interlay.starts_with(&any) && of_interlay != ours).then(|| field("id=").map(str::to_owned)).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::model::{EndpointName, ProtocolKind};

    #[test]
    fn only_connections_of_dead_processes_for_this_interlay_are_zombies() {
        let list = b"id=3 addr=1 name=crossfade/lane/orders/7 db=0\nid=4 addr=1 name=crossfade/lane/orders/8 db=0\n\
            id=5 name=crossfade/core/orders/7 db=0\nid=6 name=crossfade/lane/orders-2/7\nid=7 name=app db=0\nid=9 name= db=0\n";
        assert_eq!(zombies(list, "orders", 8), ["3", "5"]);
        assert_eq!(connection_name("lane", "orders", 8), "crossfade/lane/orders/8");
    }

    #[test]
    fn a_predecessor_is_killed_before_the_connection_is_used() {
        let endpoint =
            Endpoint::from_url(EndpointName::new("e").unwrap(), ProtocolKind::Redis, "redis://127.0.0.1").unwrap();
        let mut intro = Introduction::begin(&endpoint, "orders", 8, 41);
        assert_eq!(intro.input(b":42\r\n+OK\r\n"), Ok(None));
        intro.output.clear();
        let list = "id=3 name=crossfade/lane/orders/7\n";
        let info = "run_id:abc\r\n";
        let answers = format!("${}\r\n{list}\r\n${}\r\n{info}\r\n", list.len(), info.len());
        assert_eq!(intro.input(answers.as_bytes()), Ok(None));
        let kills = String::from_utf8(intro.output.clone()).unwrap();
        assert!(kills.contains("KILL\r\n$2\r\nID\r\n$1\r\n3\r\n") && kills.contains("ID\r\n$2\r\n41\r\n"), "{kills}");
        assert_eq!(intro.input(b"+OK\r\n-ERR No such client\r\n"), Ok(Some(b"abc".to_vec())));
        assert_eq!(intro.client_id(), 42);
    }
}
