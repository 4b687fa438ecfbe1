//! Reads at one exact position of the authority's stream, and nothing of it later. Lives on the movers' thread.
//!
//! The reads run in one MULTI with ROLE, which tells the offset they are at (Redis `replication.c`, `roleCommand`; within MULTI the offset
//! is that in front of the transaction). What expires while it is read is deleted behind the transaction: then the offset behind it differs, and
//! "absent" may be later than the offset says.

use crate::error::JobError;
use base::model::limits;
use follow::redis::client::RedisClient;
use wire::resp::encode::push_request;
use wire::resp::value::Value;

/// What the authority answered at one position.
#[derive(Debug)]
pub struct ReadAt {
    pub offset: u64,
    /// Nothing was executed between the reads and the look behind them: an absent key was absent at `offset` already.
    pub settled: bool,
    pub replies: Vec<Value>,
}

/// Reads, each a whole request acting on `database`, with a connection that is in database 0 before and after.
///
/// # Errors
/// [`JobError`]; also when the server is no primary.
pub async fn read_at(client: &mut RedisClient, database: u32, reads: &[Box<[u8]>]) -> Result<ReadAt, JobError> {
    let mut requests = Vec::with_capacity(reads.iter().map(|read| read.len()).sum::<usize>() + 256);
    let number = database.to_string();
    push_request(&mut requests, &[b"MULTI"]);
    push_request(&mut requests, &[b"ROLE"]);
    push_request(&mut requests, &[b"SELECT", number.as_bytes()]);
    reads.iter().for_each(|read| requests.extend_from_slice(read));
    push_request(&mut requests, &[b"SELECT", b"0"]);
    push_request(&mut requests, &[b"EXEC"]);
    push_request(&mut requests, &[b"ROLE"]);
    let mut tries = 0;
    loop {
        tries += 1;
        let mut answers = client.pipeline(&requests, reads.len() + 6).await?;
        let behind = answers.pop().as_ref().and_then(offset_of);
        let executed = match answers.pop() {
            Some(Value::Array(executed)) if executed.len() == reads.len() + 3 => executed,
            other => {
                let refused = answers.iter().find_map(Value::error);
                let gave = other.map_or_else(|| "nothing".to_owned(), |value| value.brief());
                return Err(JobError::answer(client.who(), format!("EXEC gave {}", refused.unwrap_or(gave))));
            }
        };
        let mut executed = executed.into_iter();
        let at = executed.next().as_ref().and_then(offset_of);
        let (Some(at), Some(behind)) = (at, behind) else {
            return Err(JobError::answer(client.who(), "ROLE gives no offset: is it a primary?"));
        };
        if at == behind || tries >= limits::FEED_EXACT_TRIES {
            let replies = executed.skip(1).take(reads.len()).collect();
            return Ok(ReadAt { offset: at, settled: at == behind, replies });
        }
    }
}

/// Reads, each a whole request acting on `database`, whatever position that is at; with a connection that is in database 0 before and after.
///
/// # Errors
/// [`JobError`].
pub async fn read_now(client: &mut RedisClient, database: u32, reads: &[Box<[u8]>]) -> Result<Vec<Value>, JobError> {
    let mut requests = Vec::new();
    push_request(&mut requests, &[b"SELECT", database.to_string().as_bytes()]);
    reads.iter().for_each(|read| requests.extend_from_slice(read));
    push_request(&mut requests, &[b"SELECT", b"0"]);
    let mut answers = client.pipeline(&requests, reads.len() + 2).await?;
    answers.pop();
    answers.remove(0);
    Ok(answers)
}

/// Where the stream of a primary ends now.
///
/// # Errors
/// [`JobError`]; also when the server is no primary.
pub async fn end_of_stream(client: &mut RedisClient) -> Result<u64, JobError> {
    let role = client.must(&[b"ROLE"]).await?;
    offset_of(&role).ok_or_else(|| JobError::answer(client.who(), "ROLE gives no offset: is it a primary?"))
}

pub(super) fn offset_of(role: &Value) -> Option<u64> {
    let items = role.items()?;
    if items.first()?.bytes() != Some(b"master") {
        return None;
    }
    u64::try_from(items.get(1)?.integer()?).ok()
}
