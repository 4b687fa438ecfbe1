//! Checks that cross files: transcripts recorded from PostgreSQL 15, a model server against the tracker, streams cut everywhere.
//! Tests only.

use std::collections::VecDeque;

use super::frame::{self, Head};
use super::tracker::{Boundary, Copy, Tracker};
use super::{encode, startup};
use base::model::session::SessionState;

/// Tags the client sends, tags the server answers (Z with its status after it), and how the tracker sees the session then: I idle,
/// B busy, T in transaction, E in a failed one, F fed by a COPY.
type Step = (&'static str, &'static str, char);

/// Recorded from PostgreSQL 15 with a script that sends these frames and prints what comes.
const TRANSCRIPTS: &[(&str, &[Step])] = &[
    ("pipeline", &[("PBDESPBESS", "12TDCZI12DCZIZI", 'I')]),
    ("pipeline, half answered", &[("PBDESPBESS", "12TDCZI12DC", 'B'), ("", "ZI", 'B'), ("", "ZI", 'I')]),
    ("flush leaves the batch open", &[("PBDEH", "12TDC", 'B'), ("S", "ZI", 'I')]),
    ("suspended portal", &[("PBEEES", "12DsDsDCZI", 'I')]),
    ("error in mid-pipeline", &[("PBEPBESPBES", "1EZI12DCZI", 'I')]),
    ("an error skips a Query before the Sync", &[("PBEQ", "E", 'B'), ("S", "ZI", 'I')]),
    ("the same, known too late", &[("PBEQS", "EZI", 'I')]),
    ("a Query ends a batch", &[("PBEQ", "12DCTDCTDCZI", 'I'), ("S", "ZI", 'I')]),
    ("a FunctionCall that fails in a batch", &[("PBEFS", "12DCEZI", 'B'), ("", "ZI", 'I')]),
    ("a FunctionCall", &[("F", "EZI", 'I'), ("S", "ZI", 'I'), ("F", "VZI", 'I')]),
    ("descriptions and closes", &[("PDCCS", "1tT33ZI", 'I'), ("CS", "3ZI", 'I')]),
    ("COPY in", &[("Q", "G", 'F'), ("dd", "", 'F'), ("c", "CZI", 'I')]),
    ("COPY in, not waited for", &[("QdcQ", "GCZI", 'B'), ("", "TDCZI", 'I')]),
    ("two COPYs in one Query", &[("Q", "G", 'F'), ("dc", "CG", 'F'), ("dc", "CTDCZI", 'I')]),
    ("two COPYs, not waited for", &[("QdcdcQ", "GCGCZITDCZI", 'I')]),
    ("Sync within a COPY of a Query", &[("Q", "G", 'F'), ("SHdSc", "CZI", 'I'), ("S", "ZI", 'I')]),
    ("COPY fails in the middle", &[("Q", "G", 'F'), ("dd", "EZI", 'I'), ("dc", "", 'I'), ("Q", "TDCZI", 'I')]),
    ("COPY fails and a Sync behind it counts", &[("Q", "G", 'F'), ("dSdc", "EZI", 'I'), ("", "ZI", 'I')]),
    ("CopyFail", &[("Q", "G", 'F'), ("df", "EZI", 'I')]),
    ("COPY that never begins", &[("QdcQ", "EZITDCZI", 'I')]),
    ("COPY as libpq sends it", &[("PBDES", "12nG", 'F'), ("dcS", "CZI", 'I')]),
    ("the same, its last Sync late", &[("PBDES", "12nG", 'F'), ("dc", "C", 'B'), ("S", "ZI", 'I')]),
    ("extended COPY, no first Sync", &[("PBDEdcSPBES", "12nGCZI", 'B'), ("", "12DCZI", 'I')]),
    ("extended COPY, all at once", &[("PBDESdcSPBES", "12nGCZI", 'B'), ("", "12DCZI", 'I')]),
    ("extended COPY with Flush", &[("PBDEH", "12nG", 'F'), ("dHSdc", "", 'F'), ("H", "C", 'B'), ("S", "ZI", 'I')]),
    ("extended COPY fails", &[("PBDES", "12nG", 'F'), ("dd", "E", 'B'), ("cS", "ZI", 'I'), ("Q", "TDCZI", 'I')]),
    ("extended COPY fails, all at once", &[("PBDESddcSPBES", "12nGEZI", 'B'), ("", "12DCZI", 'I')]),
    ("extended CopyFail", &[("PBDES", "12nG", 'F'), ("dfS", "EZI", 'I')]),
    ("extended COPY that never begins", &[("PBDESdcS", "12nEZI", 'B'), ("", "ZI", 'I')]),
    ("extended COPY fails unread", &[("PBDES", "12nGEZI", 'I'), ("cS", "ZI", 'I'), ("Q", "TDCZI", 'I')]),
    ("COPY fails unread", &[("Q", "GEZI", 'I'), ("dc", "", 'I'), ("Q", "TDCZI", 'I')]),
    ("COPY out", &[("Q", "HddcCTDCZI", 'I')]),
    ("extended COPY out", &[("PBDES", "12nHddcCZI", 'I')]),
    ("COPY out fails", &[("Q", "HdEZI", 'I'), ("PBDEPBES", "12nHdEZI", 'I')]),
    ("stray COPY frames", &[("dcfH", "", 'I'), ("QcQ", "TDCZITDCZI", 'I')]),
    ("empty statements", &[("Q", "IZI", 'I'), ("PBDES", "12nIZI", 'I')]),
    ("a commit fails at the Sync", &[("PBES", "12CEZI", 'I'), ("Q", "TDCZI", 'I')]),
    ("a transaction", &[("Q", "CZT", 'T'), ("Q", "EZE", 'E'), ("Q", "EZE", 'E'), ("Q", "CZI", 'I')]),
    (
        "asynchronous frames",
        &[("", "NSA", 'I'), ("Q", "CCTDCAZI", 'I'), ("Q", "CZISNA", 'I'), ("PBE", "1N2SD", 'B'), ("S", "ACZI", 'I')],
    ),
    ("the server goes away", &[("Q", "TDE", 'B'), ("", "", 'B')]),
    ("the server goes away between units", &[("", "E", 'I')]),
    ("Terminate", &[("X", "", 'I')]),
    ("replication", &[("Q", "W", 'B'), ("ddd", "dddd", 'B'), ("c", "cCCZI", 'I')]),
];

fn look(tracker: &Tracker) -> char {
    match (tracker.copy(), tracker.state()) {
        (Copy::In, _) => 'F',
        (_, SessionState::Idle) => 'I',
        (_, SessionState::IdleInTransaction) => 'T',
        (_, SessionState::FailedTransaction) => 'E',
        _ => 'B',
    }
}

fn answer(tracker: &mut Tracker, tags: &str) -> Vec<Boundary> {
    let mut tags = tags.bytes();
    let mut found = Vec::new();
    while let Some(tag) = tags.next() {
        let status = if tag == b'Z' { tags.next().unwrap_or(0) } else { 0 };
        found.push(tracker.server_frame(tag, status));
    }
    found
}

#[test]
fn transcripts_of_a_real_server() {
    for (name, steps) in TRANSCRIPTS {
        let mut tracker = Tracker::new();
        for (at, (client, server, expected)) in steps.iter().enumerate() {
            client.bytes().for_each(|tag| tracker.client_frame(tag));
            let boundaries = answer(&mut tracker, server);
            assert_eq!(look(&tracker), *expected, "{name}, step {at}: {tracker:?}");
            assert_eq!(tracker.is_idle(), *expected == 'I', "{name}, step {at}");
            let units = boundaries.iter().filter(|boundary| matches!(boundary, Boundary::UnitDone { .. })).count();
            assert_eq!(units, server.matches('Z').count(), "{name}, step {at}");
            if *expected == 'I' && !server.ends_with('E') {
                assert_eq!(tracker, Tracker::new(), "{name}, step {at}: something is left over");
            }
        }
    }
}

#[test]
fn what_begins_a_unit() {
    let mut tracker = Tracker::new();
    for (tag, begins) in [
        (b'Q', true),
        (b'P', true),
        (b'B', true),
        (b'S', true),
        (b'F', true),
        (b'X', false),
        (b'H', false),
        (b'd', false),
    ] {
        assert_eq!(tracker.begins_unit(tag), begins, "{}", char::from(tag));
    }
    tracker.client_frame(b'P');
    assert!(!tracker.begins_unit(b'Q'));
    answer(&mut tracker, "1");
    assert_eq!(tracker.state(), SessionState::Active, "no Sync yet");
    tracker.client_frame(b'S');
    assert_eq!(answer(&mut tracker, "ZT"), [Boundary::UnitDone { status: b'T', failed: false }]);
    assert!(!tracker.begins_unit(b'Q'), "in a transaction");
    assert_eq!((tracker.state(), tracker.status(), tracker.outstanding()), (SessionState::IdleInTransaction, b'T', 0));
    tracker.client_frame(b'Q');
    assert_eq!((tracker.state(), tracker.outstanding()), (SessionState::ActiveInTransaction, 1));
    assert_eq!(answer(&mut tracker, "EZE")[1], Boundary::UnitDone { status: b'E', failed: true });
    assert_eq!(tracker.state(), SessionState::FailedTransaction);
    tracker.client_frame(b'Q');
    assert_eq!(answer(&mut tracker, "CZI")[1], Boundary::UnitDone { status: b'I', failed: false });
    tracker.client_frame(b'Q');
    answer(&mut tracker, "Hd");
    assert_eq!((tracker.state(), tracker.copy()), (SessionState::CopyOut, Copy::Out));
}

/// What the model server is to do with a frame of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Succeed,
    Fail,
    CopyIn,
}

/// A server that reads frames one by one as PostgreSQL does: skipping after errors, swallowing in COPY.
#[derive(Default)]
struct Model {
    inbox: VecDeque<(u8, Fate)>,
    copying: bool,
    skipping: bool,
    /// The COPY belongs to a Query.
    of_query: bool,
    /// An implicit transaction waits for its Sync.
    open: bool,
}

impl Model {
    /// Reads one frame; the tags it answers with.
    fn read(&mut self) -> Vec<u8> {
        let Some((tag, fate)) = self.inbox.pop_front() else { return Vec::new() };
        if self.copying {
            return self.read_in_copy(tag, fate);
        }
        if self.skipping && tag != b'S' {
            return Vec::new();
        }
        self.skipping = false;
        self.open = b"PBDEC".contains(&tag) || (self.open && !b"SQF".contains(&tag));
        let begins_copy = fate == Fate::CopyIn && matches!(tag, b'E' | b'Q');
        if begins_copy {
            (self.copying, self.of_query) = (true, tag == b'Q');
            return vec![b'G'];
        }
        let failed = fate == Fate::Fail;
        self.skipping = failed && b"PBDEC".contains(&tag);
        let good: &[u8] = match tag {
            b'P' => b"1",
            b'B' => b"2",
            b'D' => b"tT",
            b'C' => b"3",
            b'E' => b"DDC",
            b'Q' => b"TDCCZ",
            b'F' => b"VZ",
            b'S' => b"Z",
            _ => b"",
        };
        match (tag, failed) {
            (b'P' | b'B' | b'D' | b'E' | b'C', true) => vec![b'N', b'E'],
            (b'Q' | b'F' | b'S', true) => vec![b'E', b'Z'],
            _ => good.to_vec(),
        }
    }

    fn read_in_copy(&mut self, tag: u8, fate: Fate) -> Vec<u8> {
        match tag {
            b'd' | b'c' if fate == Fate::Fail => self.copy_failed(),
            b'f' => self.copy_failed(),
            b'c' => {
                self.copying = false;
                if self.of_query { b"CZ".to_vec() } else { b"C".to_vec() }
            }
            _ => Vec::new(),
        }
    }

    fn copy_failed(&mut self) -> Vec<u8> {
        self.copying = false;
        self.skipping = !self.of_query;
        if self.of_query { b"EZ".to_vec() } else { b"E".to_vec() }
    }
}

/// One unit as a client may send it, from three random bytes.
fn unit(kind: u8, fates: u8, more: u8) -> Vec<(u8, Fate)> {
    let fate = |bit: u8| if fates & (1 << bit) != 0 && fates & 0xc0 == 0 { Fate::Fail } else { Fate::Succeed };
    let good = |tag: u8| (tag, Fate::Succeed);
    let rows = (0..more % 3).map(|row| (b'd', fate(row)));
    match kind % 7 {
        0 => vec![(b'Q', fate(0))],
        1 => vec![(b'P', fate(0)), (b'B', fate(1)), (b'D', fate(2)), (b'E', fate(3)), (b'S', fate(4))],
        2 => vec![(b'P', fate(0)), good(b'H'), (b'C', fate(1)), (b'Q', fate(2)), (b'S', fate(3))],
        3 => vec![(b'B', fate(0)), (b'E', fate(1)), (b'F', fate(2)), (b'B', fate(3)), (b'E', fate(4)), good(b'S')],
        // COPY by a Query; it may turn out to be something else, and its rows stray.
        4 => {
            let begins = if more & 0x80 == 0 { Fate::CopyIn } else { fate(5) };
            let end = if more & 0x40 == 0 { (b'c', fate(4)) } else { good(b'f') };
            [(b'Q', begins)].into_iter().chain(rows).chain([end]).collect()
        }
        // COPY by an Execute, with libpq's Sync or without.
        5 => {
            let mut frames = vec![(b'P', fate(5)), good(b'B'), good(b'D'), (b'E', Fate::CopyIn)];
            frames.extend((more & 0x20 != 0).then_some(good(b'S')));
            frames.extend(rows);
            frames.extend([(b'c', fate(4)), good(b'S')]);
            frames
        }
        _ => vec![good(b'S')],
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 2000, ..Default::default() })]

    /// Whatever the order in which the two directions pass, the tracker is never idle while the server owes an answer or will read
    /// something it acts on, and always is when all is answered.
    #[test]
    fn the_tracker_agrees_with_a_model_server(units in proptest::collection::vec((0u8.., 0u8.., 0u8..), 1..6), turns: Vec<u8>) {
        let mut to_send: VecDeque<(u8, Fate)> = units.iter().flat_map(|(kind, fates, more)| unit(*kind, *fates, *more)).collect();
        let (mut model, mut tracker) = (Model::default(), Tracker::new());
        let mut answers: VecDeque<u8> = VecDeque::new();
        let mut turns = turns.into_iter().chain([0, 1, 2].into_iter().cycle());
        while !(to_send.is_empty() && model.inbox.is_empty() && answers.is_empty()) {
            match turns.next().unwrap_or(0) % 3 {
                0 => if let Some(frame) = to_send.pop_front() {
                    tracker.client_frame(frame.0);
                    model.inbox.push_back(frame);
                },
                1 => answers.extend(model.read()),
                _ => if let Some(tag) = answers.pop_front() {
                    tracker.server_frame(tag, b'I');
                },
            }
            let acts = model.inbox.iter().any(|(tag, _)| !matches!(tag, b'd' | b'c' | b'f' | b'H'));
            let owed = answers.iter().any(|tag| *tag == b'Z');
            if acts && !model.copying && !model.skipping || owed || model.open {
                proptest::prop_assert!(!tracker.is_idle(), "{:?}", tracker);
            }
        }
        proptest::prop_assert!(!model.copying && !model.skipping);
        proptest::prop_assert_eq!(tracker, Tracker::new());
    }

    #[test]
    fn no_order_of_frames_makes_the_tracker_panic(frames: Vec<(bool, u8, u8)>) {
        let mut tracker = Tracker::new();
        let (client, server) = (b"PBDECHSQFXdcfp", b"123CDEGHIWZcdnstTNSAV");
        for (from_client, tag, status) in frames {
            if from_client {
                tracker.client_frame(client[usize::from(tag) % client.len()]);
            } else {
                tracker.server_frame(server[usize::from(tag) % server.len()], status);
            }
            proptest::prop_assert!(!tracker.is_idle() || tracker.outstanding() == 0);
            let _ = (tracker.state(), tracker.begins_unit(tag));
        }
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes: Vec<u8>) {
        let _ = (frame::client_head(&bytes), frame::server_head(&bytes));
        let _ = (frame::error_fields(&bytes).count(), frame::data_row(&bytes).count());
        let _ = (frame::Parse::read(&bytes), frame::Bind::read(&bytes), frame::Execute::read(&bytes));
        let _ = (frame::Close::read(&bytes), frame::Describe::read(&bytes), frame::query_text(&bytes));
        let _ = (frame::backend_key_data(&bytes), frame::negotiate_protocol_version(&bytes));
        let _ = (frame::parameter_status(&bytes), frame::command_tag(&bytes));
        let _ = (super::auth::AuthRequest::read(&bytes), super::auth::sasl_initial(&bytes), super::auth::password(&bytes));
    }
}

/// Takes frames off as a session does.
fn tags_of(pieces: &[&[u8]], head: fn(&[u8]) -> Head) -> Vec<(u8, Vec<u8>)> {
    let (mut buffer, mut found) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match head(&buffer) {
                Head::Frame { tag, body_len } if buffer.len() >= frame::HEAD_BYTES + body_len => {
                    let rest = buffer.split_off(frame::HEAD_BYTES + body_len);
                    found.push((tag, buffer.split_off(frame::HEAD_BYTES)));
                    buffer = rest;
                }
                Head::Frame { .. } | Head::NeedMore => break,
                Head::Invalid(why) => panic!("{why}"),
            }
        }
    }
    assert!(buffer.is_empty());
    found
}

#[test]
fn every_split_point_gives_the_same_frames() {
    let mut server = Vec::new();
    encode::authentication_sasl(&mut server, &["SCRAM-SHA-256"]);
    encode::authentication_ok(&mut server);
    encode::parameter_status(&mut server, b"TimeZone", b"UTC");
    encode::backend_key_data(&mut server, 7, &[1; 32]);
    encode::negotiate_protocol_version(&mut server, 2, &["_pq_.x"]);
    encode::ready_for_query(&mut server, b'I');
    encode::notice_response(&mut server, "NOTICE", "00000", "hello", encode::More::NONE);
    encode::error_response(&mut server, "FATAL", "57P01", "moved", encode::More::hint("reconnect"));
    let whole = tags_of(&[&server], frame::server_head);
    assert_eq!(whole.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), b"RRSKvZNE");
    for at in 0..=server.len() {
        assert_eq!(tags_of(&[&server[..at], &server[at..]], frame::server_head), whole, "split at {at}");
    }

    let mut client = Vec::new();
    encode::query_with_parameter(&mut client, "select $1", b"x");
    encode::query(&mut client, "select 1");
    encode::parse(&mut client, b"a\0select 1\0\0\0");
    encode::password_message(&mut client, b"secret");
    encode::terminate(&mut client);
    let whole = tags_of(&[&client], frame::client_head);
    assert_eq!(whole.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), b"PBESQPpX");
    for at in 0..=client.len() {
        assert_eq!(tags_of(&[&client[..at], &client[at..]], frame::client_head), whole, "split at {at}");
    }
    let packet = startup::build_startup(0, &[("user", "ann")]);
    assert!(matches!(frame::client_head(&packet), Head::Invalid(_)), "a startup packet is no frame");
}
