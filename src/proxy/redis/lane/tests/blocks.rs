//! MULTI blocks: effects of single commands, with the lane's own reads inside the block.

use super::*;

impl Stage {
    pub(super) fn runs_block(&mut self, client: u64, lines: &[&str]) {
        let words = |line: &&str| request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        let frames: Vec<u8> = lines.iter().flat_map(words).collect();
        self.item(client, LaneItem::Transaction { commands: commands_of(&frames), len: frames.len() }, frames);
    }
}

#[test]
fn a_deadline_in_a_block_is_read_there_and_the_key_is_not_copied() {
    let mut stage = Stage::in_step();
    stage.runs_block(1, &["RPUSH l a", "EXPIRE l 9", "SPOP s", "GET x"]);
    assert_eq!(
        stage.hears(Side::Source),
        ["MULTI", "RPUSH l a", "EXPIRE l 9", "PEXPIRETIME l", "SPOP s", "GET x", "EXEC"]
    );
    let deadline = WALL_MS + 9000;
    let queued = "+QUEUED\r\n".repeat(5);
    let exec = format!("*5\r\n:1\r\n:1\r\n:{deadline}\r\n$1\r\nm\r\n$-1\r\n");
    stage.answers(Side::Source, format!("+OK\r\n{queued}{exec}").as_bytes());
    assert_eq!(stage.told(), [(1, "*4\r\n:1\r\n:1\r\n$1\r\nm\r\n$-1\r\n".to_owned())], "as the client wrote it");
    let later = deadline + 1000;
    assert_eq!(
        stage.hears(Side::Target),
        ["RPUSH l a".to_owned(), format!("PEXPIREAT l {later}"), "SREM s m".to_owned()]
    );
    assert_eq!(stage.dirty(), 0);
    stage.runs_block(1, &["RPUSH l b"]);
    assert_eq!(
        stage.hears(Side::Source),
        ["MULTI", "PEXPIRETIME l", "RPUSH l b", "EXEC"],
        "a volatile key is looked at"
    );
    let exec = format!("*2\r\n:{deadline}\r\n:2\r\n");
    stage.answers(Side::Source, format!("+OK\r\n+QUEUED\r\n+QUEUED\r\n{exec}").as_bytes());
    assert_eq!(stage.told(), [(1, "*1\r\n:2\r\n".to_owned())]);
    assert_eq!(stage.hears(Side::Target), ["PEXPIRETIME l", "RPUSH l b"]);
}

#[test]
fn each_command_of_a_block_has_its_own_outcome() {
    let mut stage = Stage::in_step();
    stage.runs_block(1, &["EXPIRE l 0", "RPUSH l x", "XADD s MAXLEN ~ 2 * f v", "SET k v NX", "ZINCRBY z 0.1 m"]);
    let sent = stage.hears(Side::Source);
    assert_eq!(sent[1..3], ["EXPIRE l 0", "PEXPIRETIME l"]);
    assert_eq!(sent[4..6], ["XADD s MAXLEN ~ 2 * f v", "XRANGE s - + COUNT 1"]);
    let entry = "*1\r\n*2\r\n$3\r\n6-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n";
    let exec = format!("*7\r\n:1\r\n:-2\r\n:1\r\n$3\r\n7-1\r\n{entry}$-1\r\n$3\r\n0.1\r\n");
    stage.answers(Side::Source, format!("+OK\r\n{}{exec}", "+QUEUED\r\n".repeat(7)).as_bytes());
    assert_eq!(
        stage.hears(Side::Target),
        ["DEL l", "RPUSH l x", "XADD s 7-1 f v", "XTRIM s MINID = 6-1", "ZADD z 0.1 m"]
    );
}

#[test]
fn a_key_copied_in_front_of_its_first_block_gets_effects() {
    let mut stage = Stage::in_first_pass();
    stage.runs_block(1, &["RPUSH l a"]);
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME l", "DUMP l", "MULTI", "PEXPIRETIME l", "RPUSH l a", "EXEC"]);
    stage.answers(Side::Source, b":-1\r\n");
    stage.answers(Side::Source, &dump(18));
    stage.answers(Side::Source, b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:-1\r\n:2\r\n");
    let shadow = stage.hears(Side::Target);
    assert!(shadow[0].starts_with("RESTORE l") && shadow[1..] == ["RPUSH l a"], "{shadow:?}");
}

#[test]
fn a_block_that_was_not_run_leaves_nothing_behind() {
    let mut stage = Stage::in_step();
    stage.runs_block(1, &["EXPIRE l 9", "NOSUCH"]);
    stage.hears(Side::Source);
    let abort = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    stage.answers(Side::Source, format!("+OK\r\n+QUEUED\r\n+QUEUED\r\n-ERR unknown\r\n{abort}").as_bytes());
    assert_eq!(stage.told(), [(1, abort.to_owned())]);
    assert!(stage.hears(Side::Target).is_empty());
    assert_eq!(stage.dirty(), 0);
}

#[test]
fn a_blocking_command_in_a_block_does_not_block_the_shadow() {
    let mut stage = Stage::in_step();
    stage.runs_block(1, &["BLPOP l 0"]);
    assert_eq!(stage.hears(Side::Source), ["MULTI", "BLPOP l 0", "EXEC"]);
    stage.answers(Side::Source, b"+OK\r\n+QUEUED\r\n*1\r\n*2\r\n$1\r\nl\r\n$1\r\na\r\n");
    assert_eq!(stage.hears(Side::Target), ["LMPOP 1 l LEFT"]);
}

#[test]
fn only_what_a_script_in_a_block_wrote_is_copied() {
    let mut stage = Stage::in_step();
    stage.runs_block(1, &["INCR c", "EVAL x 1 e", "INCR e"]);
    stage.hears(Side::Source);
    stage.answers(Side::Source, b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n:1\r\n:1\r\n:2\r\n");
    assert_eq!(stage.hears(Side::Target), ["INCR c"]);
    assert_eq!(stage.dirty(), 1);
}
