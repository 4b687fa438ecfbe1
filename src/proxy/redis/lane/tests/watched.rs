//! WATCH where the lane cannot know from its own commands whether a key is what it was.

use super::*;

const BLOCK_RUN: &str = "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n";

impl Stage {
    fn watches(&mut self, client: u64, line: &str) {
        let frame = request(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        self.item(client, LaneItem::Watch { len: frame.len() }, frame);
    }

    /// Scripts run here, and client 1 watches a key whose dump is this.
    fn with_watched_key() -> Self {
        let mut stage = Self::in_step();
        stage.says(9, "EVAL x 1 other");
        stage.answers(Side::Source, b":1\r\n");
        stage.hears(Side::Source);
        stage.watches(1, "WATCH k");
        assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME k", "DUMP k"]);
        stage.answers(Side::Source, b":-1\r\n");
        stage.answers(Side::Source, &dump(0));
        stage.told();
        stage
    }
}

#[test]
fn a_block_is_not_run_when_a_script_wrote_a_watched_key_undeclared() {
    for (now, runs) in [(dump(0), true), (dump(1), false), (b"$-1\r\n".to_vec(), false)] {
        let mut stage = Stage::with_watched_key();
        stage.says(9, "EVAL x 1 other");
        stage.runs_block(1, &["SET m mine"]);
        assert_eq!(stage.hears(Side::Source), ["EVAL x 1 other", "WATCH k", "DUMP k", "PEXPIRETIME k"]);
        stage.answers(Side::Source, b":1\r\n+OK\r\n");
        stage.answers(Side::Source, &now);
        stage.told();
        stage.answers(Side::Source, b":-1\r\n");
        if runs {
            assert_eq!(stage.hears(Side::Source), ["MULTI", "SET m mine", "EXEC"]);
            stage.answers(Side::Source, BLOCK_RUN.as_bytes());
            assert_eq!(stage.told(), [(1, "*1\r\n+OK\r\n".to_owned())]);
        } else {
            assert!(stage.hears(Side::Source).is_empty());
            assert_eq!(stage.told(), [(1, "*-1\r\n".to_owned())]);
        }
    }
}

#[test]
fn a_script_behind_a_watch_without_a_value_ends_it() {
    let mut stage = Stage::in_step();
    stage.watches(1, "WATCH k");
    stage.answers(Side::Source, b":-1\r\n");
    stage.says(9, "EVAL x 1 other");
    stage.runs_block(1, &["SET m mine"]);
    assert_eq!(stage.hears(Side::Source), ["PEXPIRETIME k", "EVAL x 1 other"]);
    stage.answers(Side::Source, b":1\r\n");
    assert_eq!(stage.told().last(), Some(&(1, "*-1\r\n".to_owned())));
}

#[test]
fn a_watched_key_that_expires_ends_the_block() {
    let deadline = WALL_MS + 50;
    for (now, runs) in [(deadline, true), (-2, false)] {
        let mut stage = Stage::in_step();
        stage.watches(1, "WATCH k");
        stage.answers(Side::Source, format!(":{deadline}\r\n").as_bytes());
        stage.hears(Side::Source);
        stage.runs_block(1, &["SET m mine"]);
        assert_eq!(stage.hears(Side::Source), ["WATCH k", "PEXPIRETIME k"]);
        stage.answers(Side::Source, format!("+OK\r\n:{now}\r\n").as_bytes());
        assert_eq!(stage.hears(Side::Source).is_empty(), !runs);
    }
}

#[test]
fn a_block_that_the_server_does_not_run_has_no_effects() {
    let mut stage = Stage::with_watched_key();
    stage.says(9, "EVAL x 1 other");
    stage.runs_block(1, &["EXPIRE m 9"]);
    stage.answers(Side::Source, b":1\r\n+OK\r\n");
    stage.answers(Side::Source, &dump(0));
    stage.answers(Side::Source, b":-1\r\n");
    stage.told();
    stage.answers(Side::Source, b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*-1\r\n");
    assert_eq!(stage.told(), [(1, "*-1\r\n".to_owned())], "it expired between the read and the block");
    assert!(stage.hears(Side::Target).is_empty());
}

/// Its EXEC takes the server's watch away, and must not be ended by it.
#[test]
fn blocks_of_others_come_between_and_the_keys_are_read_again() {
    let mut stage = Stage::with_watched_key();
    stage.says(9, "EVAL x 1 other");
    stage.runs_block(1, &["SET m mine"]);
    stage.runs_block(2, &["SET n theirs"]);
    let sent = stage.hears(Side::Source);
    assert_eq!(sent[1..], ["WATCH k", "DUMP k", "PEXPIRETIME k", "UNWATCH", "MULTI", "SET n theirs", "EXEC"]);
    stage.answers(Side::Source, b":1\r\n+OK\r\n");
    stage.answers(Side::Source, &dump(0));
    stage.answers(Side::Source, b":-1\r\n+OK\r\n");
    stage.answers(Side::Source, BLOCK_RUN.as_bytes());
    assert_eq!(stage.hears(Side::Source), ["WATCH k", "DUMP k", "PEXPIRETIME k"]);
    stage.answers(Side::Source, b"+OK\r\n");
    stage.answers(Side::Source, &dump(0));
    stage.answers(Side::Source, b":-1\r\n");
    assert_eq!(stage.hears(Side::Source), ["MULTI", "SET m mine", "EXEC"]);
}

#[test]
fn a_write_between_the_read_and_the_block_ends_it() {
    let mut stage = Stage::with_watched_key();
    stage.says(9, "EVAL x 1 other");
    stage.runs_block(1, &["SET m mine"]);
    stage.says(2, "SET k theirs");
    stage.answers(Side::Source, b":1\r\n+OK\r\n");
    stage.answers(Side::Source, &dump(0));
    stage.hears(Side::Source);
    stage.answers(Side::Source, b":-1\r\n+OK\r\n");
    assert!(stage.hears(Side::Source).is_empty());
    let told = stage.told();
    assert!(told.contains(&(1, "*-1\r\n".to_owned())), "{told:?}");
}

#[test]
fn what_a_client_sends_behind_its_block_waits_for_it() {
    let mut stage = Stage::with_watched_key();
    stage.says(9, "EVAL x 1 other");
    stage.runs_block(1, &["SET m mine"]);
    stage.says(1, "SET m later");
    stage.says(2, "SET n theirs");
    assert_eq!(stage.hears(Side::Source).last().map(String::as_str), Some("SET n theirs"), "others do not wait");
    stage.answers(Side::Source, b":1\r\n+OK\r\n");
    stage.answers(Side::Source, &dump(0));
    stage.answers(Side::Source, b":-1\r\n");
    assert_eq!(stage.hears(Side::Source), ["MULTI", "SET m mine", "EXEC", "SET m later"]);
}

#[test]
fn a_lost_connection_ends_a_client_whose_block_is_being_verified() {
    let mut stage = Stage::with_watched_key();
    stage.says(9, "EVAL x 1 other");
    stage.runs_block(1, &["SET m mine"]);
    stage.lane.lost(Side::Source, "reset", stage.now);
    let told = stage.told();
    assert!(told.contains(&(1, "closed".to_owned())), "{told:?}");
}
