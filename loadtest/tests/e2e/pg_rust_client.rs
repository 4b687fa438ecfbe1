//! What tokio-postgres sees, as a repeatable transcript: no pids, no oids of new objects, no times.

use std::fmt::Write as _;
use std::pin::pin;
use std::time::Duration;

use crossfade_loadtest::pg_client::{Login, fnv1a};
use crossfade_loadtest::pg_rust::{Notices, cancel, connect};
use futures_util::{SinkExt, TryStreamExt};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Error, IsolationLevel, SimpleQueryMessage};

/// The transcript, which must be the same direct and through the proxy.
///
/// # Panics
/// When the runtime cannot be made.
#[must_use]
pub fn transcript(login: &Login) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut text = String::new();
        if let Err(error) = everything(login, &mut text).await {
            let _ = writeln!(text, "ENDED BY {}", told(&error));
        }
        text
    })
}

fn told(error: &Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            format!("{} {} {:?} {:?} {:?}", db.code().code(), db.message(), db.detail(), db.hint(), db.position())
        }
        None => format!("{error}: {:?}", std::error::Error::source(error).map(ToString::to_string)),
    }
}

async fn everything(login: &Login, text: &mut String) -> Result<(), Error> {
    let (mut client, mut notices) = connect(login, "rust é").await?;
    simple(&client, text).await?;
    extended(&client, text).await?;
    pipelined(&client, text).await;
    transactions(&mut client, text).await?;
    portals(&mut client, text).await?;
    copying(&client, text).await?;
    unasked(&client, login, &mut notices, text).await?;
    cancelling(&client, login, text).await?;
    let _ = writeln!(text, "== log-ins that fail");
    for (user, password) in [("app", "wrong"), ("nobody", "x")] {
        let error = connect(&login.clone().user(user, password), "x").await.err().map(|error| told(&error));
        let _ = writeln!(text, "{error:?}");
    }
    let error = connect(&login.clone().database("nowhere"), "x").await.err().map(|error| told(&error));
    let _ = writeln!(text, "{error:?}\n== end");
    Ok(())
}

async fn simple(client: &Client, text: &mut String) -> Result<(), Error> {
    let _ = writeln!(text, "== simple");
    for query in
        ["SELECT 1 AS a, NULL, 'é'; CREATE TEMP TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1), (2)", "", ";"]
    {
        for message in client.simple_query(query).await? {
            let _ = match message {
                SimpleQueryMessage::Row(row) => {
                    writeln!(text, "row {:?}", (0..row.len()).map(|n| row.get(n)).collect::<Vec<_>>())
                }
                SimpleQueryMessage::CommandComplete(rows) => writeln!(text, "done {rows}"),
                SimpleQueryMessage::RowDescription(columns) => {
                    writeln!(text, "columns {:?}", columns.iter().map(|column| column.name()).collect::<Vec<_>>())
                }
                _ => writeln!(text, "something else"),
            };
        }
    }
    for query in ["SELECT 1/0", "INSERT INTO t VALUES (3); INSERT INTO t VALUES (1)", "SELEKT"] {
        let _ = writeln!(text, "{:?}", client.simple_query(query).await.err().map(|error| told(&error)));
    }
    let _ = writeln!(text, "{:?}", client.query_one("SELECT count(*) FROM t", &[]).await?.get::<_, i64>(0));
    Ok(())
}

async fn extended(client: &Client, text: &mut String) -> Result<(), Error> {
    let _ = writeln!(text, "== extended");
    let statement =
        client.prepare_typed("SELECT $1, $2::int8 * 2, $3::bytea, $4::float8, $5::bool", &[Type::TEXT]).await?;
    let _ = writeln!(
        text,
        "{:?} {:?}",
        statement.params(),
        statement.columns().iter().map(|c| c.type_()).collect::<Vec<_>>()
    );
    for n in 0..3i64 {
        let bytes = vec![n as u8; 70_000 * n as usize];
        let row = client.query_one(&statement, &[&"é", &n, &bytes, &(n as f64 / 3.0), &None::<bool>]).await?;
        let (a, b, c): (&str, i64, &[u8]) = (row.get(0), row.get(1), row.get(2));
        let (d, e): (f64, Option<bool>) = (row.get(3), row.get(4));
        let _ = writeln!(text, "{a} {b} {} {d} {e:?}", c.len());
    }
    for query in ["SELECT nothing", "SELECT 1; SELECT 2", "SELECT $1::int + $2::nosuchtype"] {
        let _ = writeln!(text, "{:?}", client.prepare(query).await.err().map(|error| told(&error)));
    }
    // Thousands of statements prepared and dropped: names are closed while others are in use.
    for n in 0..500 {
        let statement = client.prepare(&format!("SELECT {n} + $1::int")).await?;
        let row = client.query_one(&statement, &[&n]).await?;
        assert_eq!(row.get::<_, i32>(0), 2 * n);
    }
    let big = "0123456789abcdef".repeat(50 << 16);
    let row = client.query_one("SELECT $1::text, md5($1::text)", &[&big]).await?;
    let _ = writeln!(text, "{:x} {}", fnv1a(&[row.get(0)]), row.get::<_, &str>(1));
    Ok(())
}

/// Sent before the first is answered; every 50th fails and fails alone.
async fn pipelined(client: &Client, text: &mut String) {
    let _ = writeln!(text, "== pipelined");
    let sent = (0..400i32).map(|n| async move {
        let query = if n % 50 == 7 { "SELECT 100 / ($1::int - $1::int)" } else { "SELECT $1::int + 1" };
        client.query_one(query, &[&n]).await.map(|row| row.get::<_, i32>(0)).map_err(|error| told(&error))
    });
    let answers = futures_util::future::join_all(sent).await;
    let _ = writeln!(text, "{answers:?}");
}

async fn transactions(client: &mut Client, text: &mut String) -> Result<(), Error> {
    let _ = writeln!(text, "== transactions");
    let mut outer = client.build_transaction().isolation_level(IsolationLevel::Serializable).start().await?;
    outer.execute("INSERT INTO t VALUES (10)", &[]).await?;
    let inner = outer.savepoint("within").await?;
    let refused = inner.execute("INSERT INTO t VALUES (10)", &[]).await.err().map(|error| told(&error));
    let aborted = inner.execute("SELECT 1", &[]).await.err().map(|error| told(&error));
    let _ = writeln!(text, "{refused:?} {aborted:?}");
    inner.rollback().await?;
    outer.execute("INSERT INTO t VALUES (11)", &[]).await?;
    outer.commit().await?;
    // Dropped without commit: rolled back by the client.
    let forgotten = client.transaction().await?;
    forgotten.execute("INSERT INTO t VALUES (12)", &[]).await?;
    drop(forgotten);
    let rows = client.query("SELECT n FROM t ORDER BY n", &[]).await?;
    let _ = writeln!(text, "{:?}", rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>());
    Ok(())
}

async fn portals(client: &mut Client, text: &mut String) -> Result<(), Error> {
    let _ = writeln!(text, "== portals");
    let transaction = client.transaction().await?;
    let portal = transaction.bind("SELECT n FROM generate_series(1, 100) n", &[]).await?;
    let mut sums = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 33).await?;
        if rows.is_empty() {
            break;
        }
        sums.push(rows.iter().map(|row| row.get::<_, i32>(0)).sum::<i32>());
    }
    let _ = writeln!(text, "{sums:?}");
    transaction.commit().await?;
    let parameters: [&(dyn ToSql + Sync); 1] = [&5_000i32];
    let stream = client.query_raw("SELECT repeat('x', n) FROM generate_series(1, $1::int) n", parameters).await?;
    let mut stream = pin!(stream);
    let mut total = 0;
    while let Some(row) = stream.try_next().await? {
        total += row.get::<_, &str>(0).len();
    }
    let _ = writeln!(text, "{total}");
    Ok(())
}

async fn copying(client: &Client, text: &mut String) -> Result<(), Error> {
    let _ = writeln!(text, "== copy");
    client.batch_execute("CREATE TEMP TABLE copied (n int, w text)").await?;
    let mut sink = pin!(client.copy_in::<_, bytes::Bytes>("COPY copied FROM STDIN").await?);
    for n in 0..2_000 {
        sink.send(bytes::Bytes::from(format!("{n}\t{}\n", "w".repeat(n % 300)))).await?;
    }
    let _ = writeln!(text, "{}", sink.finish().await?);
    let out = client.copy_out("COPY (SELECT * FROM copied ORDER BY n) TO STDOUT").await?;
    let all: Vec<bytes::Bytes> = out.try_collect().await?;
    let all = all.concat();
    let _ = writeln!(text, "{} {:x}", all.len(), fnv1a(&[&String::from_utf8_lossy(&all)]));
    let mut sink = pin!(client.copy_in::<_, bytes::Bytes>("COPY copied FROM STDIN").await?);
    sink.send(bytes::Bytes::from_static(b"1\tx\nwrong\ty\n")).await?;
    let refused = sink.finish().await.err().map(|error| told(&error));
    let _ = writeln!(text, "{refused:?}");
    // A COPY that the client abandons: dropping the sink sends CopyFail.
    {
        let mut sink = Box::pin(client.copy_in::<_, bytes::Bytes>("COPY copied FROM STDIN").await?);
        sink.send(bytes::Bytes::from_static(b"1\tx\n")).await?;
    }
    let row = client.query_one("SELECT count(*) FROM copied", &[]).await?;
    let _ = writeln!(text, "{}", row.get::<_, i64>(0));
    Ok(())
}

async fn unasked(client: &Client, login: &Login, notices: &mut Notices, text: &mut String) -> Result<(), Error> {
    let _ = writeln!(text, "== unasked");
    client.batch_execute("LISTEN news; DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$").await?;
    let (other, _) = connect(login, "other").await?;
    for n in 0..3 {
        other.batch_execute(&format!("NOTIFY news, 'message {n}'")).await?;
    }
    for _ in 0..5 {
        match tokio::time::timeout(Duration::from_secs(10), notices.recv()).await {
            Ok(Some(AsyncMessage::Notice(notice))) => {
                let _ = writeln!(text, "notice {} {}", notice.code().code(), notice.message());
            }
            Ok(Some(AsyncMessage::Notification(told))) => {
                let _ = writeln!(text, "notification {} {}", told.channel(), told.payload());
            }
            other => {
                let _ = writeln!(text, "{:?}", other.map(|message| message.is_some()));
            }
        }
    }
    client.batch_execute("UNLISTEN *").await
}

async fn cancelling(client: &Client, login: &Login, text: &mut String) -> Result<(), Error> {
    let _ = writeln!(text, "== cancel");
    for _ in 0..3 {
        let sleeping = client.batch_execute("SELECT pg_sleep(30)");
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cancel(client, login).await
        };
        let (slept, stopped) = futures_util::future::join(sleeping, stopping).await;
        stopped?;
        let _ = writeln!(text, "{:?}", slept.err().map(|error| told(&error)));
        // For one request the server signals the process and then its group (`signal_child` in postmaster.c): on a busy machine the second
        // arrives behind the statement that the first has ended, and ends the next. This client does not wait for the server to be done.
        let again = async || client.query_one("SELECT 'still here'", &[]).await;
        let row = match again().await {
            Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => again().await?,
            other => other?,
        };
        let _ = writeln!(text, "{}", row.get::<_, &str>(0));
    }
    Ok(())
}
