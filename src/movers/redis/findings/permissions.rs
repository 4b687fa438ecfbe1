//! Asks both servers which commands of a user they would refuse: `ACL DRYRUN`, which runs nothing.
//!
//! Rules are not interpreted here: what a category holds differs between versions, and the server knows. On the movers' thread.

use super::acl::User;
use crate::error::JobError;
use base::model::{Endpoint, limits};
use follow::redis::client::RedisClient;
use wire::resp::value::{Value, encode_request_into};

/// What the servers said.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// Per user the commands that the source would run for it and the target would not; only users with any.
    pub commands: Vec<(String, Vec<String>)>,
    /// Users about whom there is no answer, and why.
    pub unasked: Vec<String>,
    pub why: String,
}

/// `pairs` are one user as it is on the source and as it is on the target.
///
/// # Errors
/// [`JobError`] when a server is lost.
pub(super) async fn refused_commands(
    source: &Endpoint,
    target: &Endpoint,
    pairs: &[(&User, &User)],
) -> Result<Refused, JobError> {
    let mut refused = Refused::default();
    let differing: Vec<&str> =
        pairs.iter().filter(|(from, to)| !from.same_commands(to)).map(|(from, _)| from.name.as_str()).collect();
    if differing.is_empty() {
        return Ok(refused);
    }
    let (mut from, mut to) = (RedisClient::connect(source).await?, RedisClient::connect(target).await?);
    let commands = leaves(&from.call(&[b"COMMAND"]).await?);
    for (nth, name) in differing.iter().enumerate() {
        if nth == limits::FINDING_USERS_COMPARED_MAX {
            refused.why = format!("no more than {} are compared", limits::FINDING_USERS_COMPARED_MAX);
            refused.unasked.extend(differing[nth..].iter().map(|name| (*name).to_owned()));
            break;
        }
        let answers = (ask(&mut from, name, &commands).await?, ask(&mut to, name, &commands).await?);
        match answers {
            (Ok(there), Ok(here)) => {
                let lost = commands.iter().zip(there.iter().zip(here)).filter(|(_, (there, here))| !**there && *here);
                let lost: Vec<String> = lost.map(|(command, _)| command.words.join(" ")).collect();
                if !lost.is_empty() {
                    refused.commands.push(((*name).to_owned(), lost));
                }
            }
            (Err(why), _) | (_, Err(why)) => {
                refused.why = why;
                refused.unasked.push((*name).to_owned());
            }
        }
    }
    Ok(refused)
}

#[derive(Debug, PartialEq, Eq)]
struct Leaf {
    /// `["config", "get"]`
    words: Vec<String>,
    /// Of the shortest request, the words included.
    length: usize,
}

/// Commands and subcommands that can be run, from the reply to `COMMAND`.
fn leaves(table: &Value) -> Vec<Leaf> {
    let mut found = Vec::new();
    for entry in table.items().unwrap_or_default() {
        let Some(fields) = entry.items() else { continue };
        let subcommands = fields.get(9).and_then(Value::items).unwrap_or_default();
        let entries = if subcommands.is_empty() { std::slice::from_ref(entry) } else { subcommands };
        found.extend(entries.iter().filter_map(leaf));
    }
    found
}

fn leaf(entry: &Value) -> Option<Leaf> {
    let fields = entry.items()?;
    let name = String::from_utf8_lossy(fields.first()?.bytes()?).into_owned();
    let length = usize::try_from(fields.get(1)?.integer()?.unsigned_abs()).ok()?;
    // An arity is a small number; what a server says is not trusted with memory.
    (1..=64).contains(&length).then(|| Leaf { words: name.split('|').map(str::to_owned).collect(), length })
}

/// For each command whether the server would refuse `user` to run it, whatever the keys; or why it does not say.
async fn ask(client: &mut RedisClient, user: &str, commands: &[Leaf]) -> Result<Result<Vec<bool>, String>, JobError> {
    let mut requests = Vec::new();
    for command in commands {
        let mut words: Vec<&[u8]> = vec![b"ACL", b"DRYRUN", user.as_bytes()];
        words.extend(command.words.iter().map(|word| word.as_bytes()));
        words.resize(3 + command.length.max(command.words.len()), b"1");
        encode_request_into(&mut requests, &words);
    }
    let replies = client.pipeline(&requests, commands.len()).await?;
    let who = client.who();
    for error in replies.iter().filter_map(Value::error) {
        // Others are about the command: not known there, or not with these arguments.
        if error.starts_with("NOPERM") || error.contains("DRYRUN") || error.contains("unknown command 'ACL'") {
            return Ok(Err(format!("{who} says {error}: grant +acl|dryrun")));
        }
    }
    Ok(Ok(replies.iter().map(denied).collect()))
}

/// A refusal of the command is a plain string, as a permission is; a refusal of its keys or channels is worded otherwise.
fn denied(reply: &Value) -> bool {
    reply.bytes().is_some_and(|text| String::from_utf8_lossy(text).contains("no permissions to run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    #[test]
    fn subcommands_stand_for_their_command_and_nonsense_is_left_out() {
        let entry = |name: &str, arity: i64, subcommands: Vec<Value>| {
            let mut fields = vec![text(name), Value::Integer(arity)];
            fields.resize(9, Value::Null);
            fields.push(Value::Array(subcommands));
            Value::Array(fields)
        };
        let table = Value::Array(vec![
            entry("set", -3, vec![]),
            entry("config", -2, vec![entry("config|get", -3, vec![]), entry("config|set", -4, vec![])]),
            entry("vast", i64::MIN, vec![]),
            Value::Null,
        ]);
        let found: Vec<(String, usize)> =
            leaves(&table).into_iter().map(|leaf| (leaf.words.join(" "), leaf.length)).collect();
        assert_eq!(found, [("set".to_owned(), 3), ("config get".to_owned(), 3), ("config set".to_owned(), 4)]);
    }

    #[test]
    fn only_a_refused_command_counts() {
        for (reply, refused) in [
            (Value::Simple(b"OK".to_vec()), false),
            (text("This user has no permissions to run the 'get' command"), true),
            (text("User app has no permissions to run the 'config|get' command"), true),
            (text("This user has no permissions to access the '1' key"), false),
            (Value::Error(b"ERR Command 'get' not found".to_vec()), false),
        ] {
            assert_eq!(denied(&reply), refused, "{reply:?}");
        }
    }
}
