//! Every limit of the program, in one place, each with its reason. A full queue is a typed outcome, never growth.

use std::time::Duration;

/// Longest name of an endpoint, interlay or migration: fits a file name, a metric label and a line of a table.
pub const NAME_BYTES_MAX: usize = 64;

// ---- frames -------------------------------------------------------------------------------------------------------

/// Longest bulk string accepted; Redis' own `proto-max-bulk-len` default (512 MB), so that every value Redis accepts passes.
pub const BULK_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Longest inline command or line header; Redis' `PROTO_INLINE_MAX_SIZE`.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Most elements in a command array; Redis' own bound is 1 M (networking.c, `processMultibulkBuffer`).
pub const COMMAND_ARGS_MAX: u64 = 1024 * 1024;
/// Deepest nesting of a reply; deepest seen in Redis is 5 (`COMMAND DOCS`), scripts may return more.
pub const REPLY_DEPTH_MAX: usize = 64;

/// Longest reply to one of Crossfade's own requests at log-in (the longest is CLIENT LIST of a server with 100 000 clients).
pub const DIALOGUE_BYTES_MAX: usize = 64 * 1024 * 1024;

// ---- cores --------------------------------------------------------------------------------------------------------

/// Directives waiting for one core; control sends a handful per second plus copy batches bounded by credits.
pub const DIRECTIVE_QUEUE_LEN: usize = 1024;
/// Reports waiting for the control thread, from all cores.
pub const REPORT_QUEUE_LEN: usize = 16 * 1024;
/// Messages between two cores (lane hand-over); more makes the sender pause its client reads.
pub const HANDOVER_QUEUE_LEN: usize = 64 * 1024;
/// How long control waits for every core's ack of a plan before it reports the cores that are late.
pub const PLAN_ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a core lets local commands of the old plan finish before it closes the connections that still have one.
pub const BARRIER_TIMEOUT: Duration = Duration::from_secs(3);
/// The same when the plan changes the authority: writes are held meanwhile, so it is as long as the default fence.
pub const FLIP_BARRIER_TIMEOUT: Duration = FENCE_BUDGET_DEFAULT;

// ---- backfill and verification --------------------------------------------------------------------------------------

/// Keys named in one copy order, and by one SCAN call.
pub const COPY_BATCH_KEYS: usize = 512;
/// Copy orders outstanding at once; bounds the lane's memory and the time a client's write waits behind copies.
pub const COPY_BATCHES_IN_FLIGHT: usize = 4;
/// Probe orders outstanding at once.
pub const PROBES_IN_FLIGHT: usize = 256;

// ---- workflow -------------------------------------------------------------------------------------------------------

/// Time budget of a flip's fence; exceeded means released to the current authority with nothing changed.
pub const FENCE_BUDGET_DEFAULT: Duration = Duration::from_millis(500);
/// Default grace of the TTL rule: at least 2 × (clock skew + round trip).
pub const TTL_GRACE_DEFAULT_MS: u64 = 1000;
/// Divergences kept by name in the ledger; the rest are counted.
pub const DIVERGENCE_LEDGER_LEN: usize = 1000;
/// Events kept in memory for replay to a late subscriber; older ones are in the journal.
pub const EVENT_RING_LEN: usize = 4096;

// ---- admin API ------------------------------------------------------------------------------------------------------

/// Largest request body the admin API reads.
pub const ADMIN_BODY_BYTES_MAX: usize = 64 * 1024;
/// Longest an admin request may take before it is answered with 503.
pub const ADMIN_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

const _: () = assert!(COPY_QUIET_US < COPY_AGE_US && COPY_OF_KEY_BYTES_PER_SECOND < COPIES_BYTES_PER_SECOND);
const _: () = assert!(PIECES_FROM_BYTES < DUMP_BYTES_MAX && (DUMP_BYTES_MAX as u64) < BULK_BYTES_MAX);
const _: () = assert!(LANE_STATUS_TURN_US < LANE_STATUS_US);
const _: () = assert!(INTENT_LOG_WORDS.is_power_of_two() && INTENT_NAME_BYTES_MAX < INTENT_LOG_WORDS);
const _: () = assert!(WAITER_SCRIPT_POLL_US < WAITER_POLL_US);
const _: () = assert!(COPY_BATCHES_IN_FLIGHT * 8 < DIRECTIVE_QUEUE_LEN);
const _: () = assert!(PROBES_IN_FLIGHT < DIRECTIVE_QUEUE_LEN);

// ---- sockets ---------------------------------------------------------------------------------------------------------

/// Most bytes taken from a socket at once, into a buffer that all connections of a core share: large values need few calls, and the
/// buffer stays in the cache.
pub const SOCKET_READ_BYTES: usize = 128 * 1024;
/// Unsent requests of one upstream connection above which they are sent before all ready clients have been read, so that the server
/// works while the proxy goes on reading. The size of one read of Redis. Measured: docs/PERFORMANCE.md.
pub const UPSTREAM_FLUSH_BYTES: usize = 16 * 1024;
/// Sent buffers kept for the next output; one for each connection that is busy at the same moment is enough.
pub const SPARE_BUFFERS_MAX: usize = 256;
/// A sent buffer larger than this is not kept.
pub const SPARE_BUFFER_BYTES_MAX: usize = 64 * 1024;

// ---- relay ----------------------------------------------------------------------------------------------------------

/// A request larger than this is forwarded as it arrives, on a connection of its own, instead of being gathered first.
pub const STREAM_REQUEST_BYTES: usize = 256 * 1024;
/// Largest request gathered in memory; Redis' `client-query-buffer-limit` default (1 GB).
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Unsent replies of one client above which no more of its requests are read.
pub const CLIENT_OUTPUT_SOFT_BYTES: usize = 1024 * 1024;
/// Unsent replies of one client above which it is closed, like Redis' `client-output-buffer-limit`; one largest value must fit.
pub const CLIENT_OUTPUT_HARD_BYTES: usize = 1024 * 1024 * 1024;
/// Unsent requests on one upstream connection above which its clients are not read.
pub const UPSTREAM_OUTPUT_SOFT_BYTES: usize = 8 * 1024 * 1024;
/// A shared connection on which the server says nothing for so long, microseconds, and for so many times what it usually takes, gets no more work: a
/// script runs there, or writes are paused.
pub const SHARED_SILENCE_US: u64 = 10_000;
pub const SHARED_SILENCE_TIMES: u64 = 8;
/// Connections of one core that were replaced for that reason and are still waited for; then new work waits behind the last.
pub const SHARED_REPLACED_MAX: usize = 16;
/// How long it counts that a server lets clients without a log-in run commands, microseconds; a command through the same core that may change it
/// ends that at once.
pub const STRANGERS_CHECKED_US: u64 = 100_000;
/// What a blocked client may have sent behind its blocking command and is read: up to here it is noticed when it goes away.
pub const BLOCKED_INPUT_BYTES_MAX: usize = 1024 * 1024;
/// Commands one client may have outstanding; more wait in its socket.
pub const CLIENT_OUTSTANDING_MAX: u32 = 32 * 1024;
/// Bytes of one client's queued MULTI block.
pub const TRANSACTION_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Clients per core and interlay; more are refused with Redis' own error text.
pub const CLIENTS_MAX: usize = 65_536;
/// Idle pinned connections kept per core for the next client that needs one.
pub const IDLE_PINNED_MAX: usize = 16;
/// How long the start retries a listening address that is in use.
pub const LISTEN_RETRY: Duration = Duration::from_millis(1500);
/// Time to send the refusal to a connection that is refused.
pub const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(500);
/// Time to connect to a server and log in.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(CLIENT_OUTPUT_HARD_BYTES as u64 > BULK_BYTES_MAX);
const _: () = assert!(REQUEST_BYTES_MAX as u64 > BULK_BYTES_MAX);
const _: () = assert!(FLIP_BARRIER_TIMEOUT.as_millis() < BARRIER_TIMEOUT.as_millis());

// ---- sessions -------------------------------------------------------------------------------------------------------

/// Sessions named in one list, per core; more are counted.
pub const SESSIONS_LISTED_MAX: usize = 1000;
/// Statements kept as samples between two collections, per core and interlay; of more, one in 2, 4, 8 … is kept, evenly over the time.
pub const STATEMENT_SAMPLES_MAX: usize = 256;
/// Samples of one session whose statements are still running: those of a pipeline.
pub const SAMPLES_IN_FLIGHT_MAX: usize = 16;
/// Bytes of a statement kept as a sample.
pub const STATEMENT_SAMPLE_BYTES: usize = 8 * 1024;
/// Unsent bytes in one direction of a session above which the other side is not read.
pub const SESSION_BUFFER_SOFT_BYTES: usize = 256 * 1024;
/// Time for a client to log in; PostgreSQL's `authentication_timeout` default.
pub const PG_LOG_IN_TIMEOUT: Duration = Duration::from_secs(60);
/// Parse frames up to this length are gathered whole, so that the session's prepared statements are known; longer ones pass as they
/// come and are counted as unknown.
pub const PARSE_GATHERED_BYTES_MAX: usize = 128 * 1024;
/// The part of a Bind that holds the names of portal and statement (63 bytes each in PostgreSQL; drivers' are longer).
pub const BIND_NAMES_BYTES_MAX: usize = 1024;
/// The part of a ReadyForQuery, CommandComplete or ErrorResponse that is examined: status, tag, severity.
pub const SERVER_BODY_LOOKED_AT_BYTES: usize = 64;
const _: () = assert!(
    PARSE_GATHERED_BYTES_MAX + 5 < SESSION_BUFFER_SOFT_BYTES,
    "otherwise a gathered frame could never become whole"
);
/// Deadline of a pause when none is given: a drain that takes longer waits for an open transaction.
pub const PAUSE_DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
/// Longest deadline of a pause; the admin request must outlive it.
pub const PAUSE_DEADLINE_MAX: Duration = Duration::from_secs(25);
/// Time after which a pause is released automatically, unless the operator gives another: a forgotten pause is an outage.
pub const PAUSE_HOLD_DEFAULT: Duration = Duration::from_secs(600);
pub const PAUSE_HOLD_MAX: Duration = Duration::from_secs(3600);

// ---- lane -----------------------------------------------------------------------------------------------------------

/// Effects queued for the shadow above which the keys of further ones become dirty, until half of the queue has drained.
pub const SHADOW_QUEUE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Dirty keys kept by name; more start a full pass instead.
pub const DIRTY_KEYS_MAX: usize = 1_000_000;
/// Key hashes remembered as clean during a pass (16 bytes each); more cost a second copy, never an error.
pub const CLEAN_KEYS_MAX: usize = 64_000_000;
/// Key hashes remembered as possibly volatile; above this, every key is treated as volatile, which costs a read per write.
pub const VOLATILE_KEYS_MAX: usize = 16_000_000;
/// Repair copies outstanding at once.
pub const REPAIRS_IN_FLIGHT: usize = 64;
/// Wait before a copy that the shadow refused is retried, microseconds.
pub const REPAIR_RETRY_US: u64 = 200_000;
/// A write whose result can only be copied (scripts, SORT STORE) waits this long for further ones on its keys, microseconds: a pipeline of them
/// costs one copy.
pub const COPY_QUIET_US: u64 = 20_000;
/// Where they do not pause, a copy is made this often.
pub const COPY_AGE_US: u64 = 200_000;
/// A key is copied again so seldom that its copies have a tenth of the lane's time: servers dump and restore some 150 MB in a second. A key of
/// 3 MB is copied five times a second at most, one of 64 MB every four seconds.
pub const COPY_OF_KEY_BYTES_PER_SECOND: u64 = 16 * 1024 * 1024;
/// Below this length the above is a few milliseconds, and not worth remembering.
pub const COPY_PACED_BYTES: u64 = 64 * 1024;
/// Keys for which it is remembered.
pub const COPIES_PACED_MAX: usize = 65_536;
/// The same for all keys together that wait for such a copy: less than half of the lane's time.
pub const COPIES_BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;
/// A longer dump does not pass whole: it would hold up server, lane and shadow for a second, and beyond 512 MB no server takes it. It is asked
/// for once; what arrives of it is not kept.
pub const DUMP_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A value whose dump the shadow refuses is read in pieces if its dump is longer than this; one read then shows shorter ones whole.
pub const PIECES_FROM_BYTES: usize = 1024 * 1024;
/// Keys known to be that long.
pub const BY_TYPE_KEYS_MAX: usize = 65_536;
/// For this long after a script, microseconds, a key that begins to be watched has its value read, as another script may write it undeclared.
pub const SCRIPTS_REMEMBERED_US: u64 = 60_000_000;
/// Times the keys that a client watches are read before its block, where blocks of other clients come between; then it is not run.
pub const WATCH_READS_MAX: u32 = 8;
/// Scripts and functions whose runs are counted each; applications have dozens, or generate them without end.
pub const SCRIPTS_KNOWN_MAX: usize = 4096;
/// Consumers of groups that the shadow is known to have, by hash; with more the knowledge is gathered anew, at one copy of a stream each.
pub const CONSUMERS_KNOWN_MAX: usize = 65_536;
/// A key whose deadline is closer than this to the moment a write was acknowledged is copied again: it may have expired on one side.
pub const DEADLINE_DOUBT_MS: i64 = 50;
/// Largest reply repeated on the shadow for comparison; longer ones are counted as not compared.
pub const COMPARED_REPLY_BYTES_MAX: usize = 64 * 1024;
/// Names of keys in the intent log of one lane, in words of 8 bytes: over half a million keys with names of 60 bytes, which is some seconds of writes.
/// A shadow that is later than that costs a copy of every key after a kill of the process. A power of two.
pub const INTENT_LOG_WORDS: usize = 8 * 1024 * 1024;
/// In front of them: one page that says whose they are.
pub const INTENT_HEADER_WORDS: usize = 512;
/// A key with a longer name stands in the intent log as "every key".
pub const INTENT_NAME_BYTES_MAX: usize = 4096;
/// Records of the intent log that are not needed any more and are left where they are, besides as many as there are dirty keys.
pub const INTENT_RECORDS_SPARE: u64 = 64;
/// How often it is told that the intent log is full, microseconds: a shadow that is late for long would fill the journal.
pub const INTENT_LOG_TOLD_US: u64 = 60_000_000;
/// Copy, probe and repair orders that wait for the lane while a side is away: a pass and a comparison have at most a few dozen outstanding.
pub const LANE_ORDERS_PARKED_MAX: usize = 1024;
/// Interval of lane status reports, microseconds.
pub const LANE_STATUS_US: u64 = 100_000;
/// Least interval where the dirty set becomes or stops being empty, which writes that are copied do all the time.
pub const LANE_STATUS_TURN_US: u64 = 10_000;
/// How often those clients that are first in line for a key look again, microseconds, for what strangers brought: what arrives through the
/// lane wakes them itself.
pub const WAITER_POLL_US: u64 = 1_000_000;
/// The same after a script, which may have written keys that it did not declare.
pub const WAITER_SCRIPT_POLL_US: u64 = 50_000;
/// Most that look at one time, in turn: about a thousand commands a second where scripts run all the time.
pub const WAITER_POLLS_MAX: usize = 64;

// ---- jobs -----------------------------------------------------------------------------------------------------------

/// How long a job waits for a server to accept a connection and log in; a server on the same network needs milliseconds.
pub const JOB_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a job waits for the next bytes of a reply; a server busy with one slow command answers within this time or has failed.
pub const JOB_REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest reply a job accepts: one value of the largest size Redis keeps, and its frame.
pub const JOB_REPLY_BYTES_MAX: usize = BULK_BYTES_MAX as usize + 64 * 1024 * 1024;
/// Times a job reconnects in a row without one reply before it fails.
pub const JOB_RECONNECTS_MAX: u32 = 8;
/// First wait before reconnecting; doubles up to [`JOB_RECONNECT_PAUSE_MAX`].
pub const JOB_RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(50);
pub const JOB_RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// One read of a replication stream or snapshot, and one piece of a spill.
pub const FOLLOW_READ_BYTES: usize = 256 * 1024;
/// Emptied pieces of that size that a stream keeps to fill them again.
pub const FOLLOW_SPARE_PIECES_MAX: usize = 4;
/// A primary lets its replicas hear something every `repl-ping-replica-period`, 10 s by default, and while it prepares a snapshot every second.
pub const FOLLOW_SILENCE_MAX: Duration = Duration::from_secs(60);
/// How often a replica acknowledges; as Redis' own do.
pub const FOLLOW_ACK_INTERVAL: Duration = Duration::from_secs(1);
/// The same until the first byte of the stream, which a primary may send only after an acknowledgement.
pub const FOLLOW_ACK_FIRST: Duration = Duration::from_millis(50);
/// A stream whose end was just read is continued there at once, unless the server fails over in between.
pub const FOLLOW_PRIME_TRIES: u32 = 5;
/// How often a server that has just got its first replica is asked whether it keeps a stream now.
pub const FOLLOW_PRIME_PAUSE: Duration = Duration::from_millis(5);
/// Commands in one transaction on a shadow, but for those that one transaction of the authority has: a shadow is busy with it for milliseconds.
pub const FEED_BATCH_COMMANDS: usize = 2_000;
/// The same in bytes; also one piece of a large value.
pub const FEED_BATCH_BYTES: usize = 1024 * 1024;
/// A string of a snapshot up to this length is set instead of restored.
pub const FEED_STRING_BYTES_MAX: usize = 64 * 1024;
/// Loaded scripts that one core keeps for a new authority, and their bytes: many more than an application has.
pub const SCRIPTS_KEPT_MAX: usize = 1000;
pub const SCRIPTS_KEPT_BYTES_MAX: usize = 1024 * 1024;
/// Reads that one core keeps for a comparison between two samples, and their bytes: each costs the servers one more read.
pub const SAMPLED_READS_MAX: usize = 256;
pub const SAMPLED_READS_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a stream given at a time, and a little more: as much as goes into one batch.
pub const FOLLOW_GIVEN_BYTES: usize = FEED_BATCH_BYTES;
/// Keys of a feed that are copied again at a time, and how long the feed then goes on before the next.
pub const FEED_REPAIRS_AT_ONCE: usize = 128;
pub const FEED_REPAIR_PAUSE: Duration = Duration::from_millis(2);
/// Keys that a shadow did not have whose deadlines are asked for at a time.
pub const FEED_ABSENT_AT_ONCE: usize = 512;
/// How much of a stream that was applied already is looked at again for keys that may differ; a shadow that wants more is filled anew.
pub const FEED_UNSETTLED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How finely, and how far back, a feed remembers when what it has not applied yet arrived.
pub const FOLLOW_ARRIVAL_STEP: Duration = Duration::from_millis(10);
pub const FOLLOW_ARRIVALS_MAX: usize = 1024;
/// How long a batch is gathered while more is known to come and nobody waits for it.
pub const FEED_GATHER: Duration = Duration::from_millis(1);
/// Slots of 8 bytes in which a feed keeps when a key of each was touched last.
pub const FEED_TOUCH_SLOTS: usize = 1 << 17;
/// How much later than at the authority deadlines are stored while the history is being written and its stream caught up with: longer than any
/// of that takes. Then they are corrected.
pub const FEED_HISTORY_GRACE_MS: i64 = 24 * 3600 * 1000;
/// Keys whose deadlines are corrected at a time.
pub const FEED_DEADLINES_AT_ONCE: usize = 512;
pub const FEED_DEADLINE_BATCHES_IN_FLIGHT: usize = 4;
/// How long one comparison waits for the shadow to have what the authority had when it was read.
pub const FEED_PROBE_PATIENCE: Duration = Duration::from_secs(20);
/// Times the authority is read until nothing else was executed in between, for a comparison at one exact position.
pub const FEED_EXACT_TRIES: u32 = 20;
/// Reads that wait for the exact position of a feed.
pub const FEED_EXACT_READS_MAX: usize = 64;
/// Commands that are read at one position while a feed stands still; the values of one more comparison may come on top.
pub const FEED_EXACT_READS_AT_ONCE: usize = 256;
/// Pairs of connections a feed keeps for comparisons.
pub const FEED_PROBE_PAIRS_MAX: usize = VERIFY_PROBES_IN_FLIGHT;
/// Keys read in one look beside a feed: no client waits behind it.
pub const FEED_KEYS_PER_PROBE: usize = 128;
/// What arrives of a stream and waits for the shadow: in memory, then in a file in the temporary folder.
pub const FEED_SPILL_MEMORY_BYTES: u64 = 64 * 1024 * 1024;
pub const FEED_SPILL_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// How long a change of authority waits, clients held, for the last of the old direction; both sides were equal a moment before.
pub const FEED_EXCHANGE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a change of authority waits, clients held, until the commands of blocked clients wait at the new authority in their order.
pub const FEED_MOVE_PATIENCE: Duration = Duration::from_millis(200);
/// How long one look at a server for the facts of a feed takes before the server counts as silent.
pub const FEED_LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// Sampled reads waiting to be compared; the oldest give way.
pub const FEED_READS_WAITING_MAX: usize = 4096;
/// Sampled reads compared at a time.
pub const FEED_READS_AT_ONCE: usize = 32;
/// What a feed tells of itself and is not heard yet.
pub const FEED_EVENTS_LEN: usize = 64;
/// Elements in one command that writes a value by its type: a shadow is not busy with one for long.
pub const FEED_ELEMENTS_AT_ONCE: usize = 128;
/// How slow the slowest hundredth of a source's answers may be while a snapshot is read, milliseconds; 0: as slow as it gets.
pub const SOURCE_P99_DEFAULT_MS: u64 = 25;
pub const SOURCE_P99_MAX_MS: u64 = 10_000;
/// How often a source is asked meanwhile, how often it is decided how fast to read, and the answers that a measurement is made of (5 s).
pub const PACE_PING_INTERVAL: Duration = Duration::from_millis(20);
pub const PACE_STEP: Duration = Duration::from_millis(500);
pub const PACE_ANSWERS_MAX: usize = 250;
/// Bytes of a snapshot read in a second however slow the source is: a source keeps a copy of what changes until its snapshot is read.
pub const PACE_RATE_MIN: u64 = 1024 * 1024;
/// Values that a shadow cannot hold as the authority does, kept by name; all are counted. Of those, how many are told as events.
pub const FEED_LOSSES_MAX: usize = 10_000;
pub const FEED_LOSSES_TOLD_MAX: usize = 20;
/// How long a feed looks at another Crossfade's connections before it refuses to begin; how often; and for how long such a process must have been
/// silent to count as gone: a living one asks its servers ten times a second.
pub const FEED_RIVAL_PATIENCE: Duration = Duration::from_secs(3);
pub const FEED_RIVAL_LOOK: Duration = Duration::from_millis(100);
pub const FEED_RIVAL_SILENCE_SECONDS: u64 = 2;
/// Patterns of keys that a migration excludes, and the bytes of one: every key of every command of the stream is matched against all of them.
pub const EXCLUDE_PATTERNS_MAX: usize = 64;
pub const EXCLUDE_PATTERN_BYTES_MAX: usize = 256;
/// Keys that a target may hold under conflict policy `skip`, and the bytes of their names: all are kept in memory and on the shadow.
pub const FEED_KEPT_KEYS_MAX: usize = 100_000;
pub const FEED_KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Keys removed from a shadow, or noted there as kept, at a time.
pub const FEED_NAMES_AT_ONCE: usize = 512;
/// Keys named in an error that says what a target holds.
pub const FEED_KEYS_NAMED_MAX: usize = 3;
/// ACL users whose rights are compared by ACL DRYRUN; each costs two round trips for a few hundred commands.
pub const FINDING_USERS_COMPARED_MAX: usize = 32;
/// Names listed in one finding, and bytes of each: it is read by a person.
pub const FINDING_NAMES_MAX: usize = 12;
pub const FINDING_NAME_BYTES_MAX: usize = 64;
/// Jobs and orders waiting for the movers' thread to start them; control has a handful for each interlay.
pub const MOVER_WORK_LEN: usize = 256;
/// Reports of companions and holds waiting for the movers' thread; as long as the bus that feeds it.
pub const MOVER_NEWS_LEN: usize = REPORT_QUEUE_LEN;
/// Movers' unsolicited reports waiting for the control thread: some per second for each interlay, and divergences as they are found.
pub const MOVER_EVENTS_LEN: usize = 4096;
/// How long an order waits for room in the lane core's mailbox.
pub const LANE_QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a job waits for the lane's answer; a copy order of large values through a slow target takes seconds.
pub const LANE_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Keys read in one probe: enough to be quick, few enough that a client's write behind it waits well below a millisecond.
pub const VERIFY_KEYS_PER_PROBE: usize = 32;
/// Probes the verifier keeps outstanding; more would only lengthen the lane's queue ahead of clients' writes.
pub const VERIFY_PROBES_IN_FLIGHT: usize = 16;
/// Estimated value bytes in one probe; a larger value gets a probe of its own.
pub const VERIFY_PROBE_BYTES_MAX: u64 = 1024 * 1024;
/// A value estimated larger than this is compared piece by piece: it never is in one reply as a whole.
pub const VERIFY_PIECES_FROM_BYTES: u64 = 4 * 1024 * 1024;
/// One such piece, bytes (of elements: estimated by their average), and its elements: a server reads it in a millisecond or so.
pub const VERIFY_PIECE_BYTES: usize = 256 * 1024;
pub const VERIFY_PIECE_ELEMENTS_MIN: usize = 4;
pub const VERIFY_PIECE_ELEMENTS_MAX: usize = 512;
/// Times the comparison of a large list begins again because the list moved too far between two pieces.
pub const VERIFY_LIST_RESTARTS_MAX: u8 = 3;
/// Times a key is read again when its type changed between being named and being probed.
pub const VERIFY_TYPE_RETRIES: u8 = 3;
/// Times a key that differed while the lane knew it to be dirty or uncopied is read again before it counts as inconclusive. A key
/// that differs without the lane knowing is divergent at once.
pub const VERIFY_CONFIRMATIONS: u8 = 4;
/// Wait before each of these reads; together longer than the lane takes to copy a dirty key.
pub const VERIFY_CONFIRM_PAUSE: Duration = Duration::from_millis(250);
/// Divergences a verification keeps by name; the ledger keeps no more.
pub const VERIFY_DIVERGENCES_MAX: usize = DIVERGENCE_LEDGER_LEN;
/// Keys in one pipelined batch of a whole-server digest.
pub const DIGEST_BATCH_KEYS: usize = 256;

const _: () = assert!(VERIFY_PROBES_IN_FLIGHT <= PROBES_IN_FLIGHT);
const _: () = assert!(VERIFY_KEYS_PER_PROBE <= COPY_BATCH_KEYS);

// ---- control side ---------------------------------------------------------------------------------------------------

/// [`FENCE_BUDGET_DEFAULT`] in the unit decisions are written in.
pub const FENCE_BUDGET_DEFAULT_MS: u64 = 500;
/// A fence shorter than this cannot drain one round trip on a real network.
pub const FENCE_BUDGET_MIN_MS: u64 = 10;
/// A fence longer than this outlasts the read timeout of common clients: it would be an outage, not a pause.
pub const FENCE_BUDGET_MAX_MS: u64 = 30_000;
/// More grace than this would hide a lost expiry for hours.
pub const TTL_GRACE_MAX_MS: u64 = 3_600_000;
/// Commands that must be seen before `analyze` may be left: enough that the common commands of an application have appeared.
pub const ANALYZE_MIN_COMMANDS_DEFAULT: u64 = 1000;
pub const ANALYZE_MIN_SECONDS_DEFAULT: u64 = 3;
/// Reads that must be compared before `compare` may be left.
pub const COMPARE_MIN_READS_DEFAULT: u64 = 1000;
/// Dirty keys a fence can copy well within its default budget.
pub const DIRTY_BEFORE_FENCE_MAX: u64 = 1000;
/// Wait between two attempts of a fence: three per second, so that writes run for most of each second.
pub const FENCE_RETRY_PAUSE: Duration = Duration::from_millis(333);
/// Longest wait after attempts that failed in a row: with the default budget, clients are then held for a twentieth of the time at most.
pub const FENCE_RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Of compared reads and those whose comparison was inconclusive, the share that may be inconclusive, in hundredths: with more, what was
/// compared says little about the rest.
pub const READS_INCONCLUSIVE_PER_HUNDRED_MAX: u64 = 10;
/// Below this many tried comparisons their share is chance.
pub const READS_INCONCLUSIVE_MIN_TRIED: u64 = 100;
/// A lane status older than this is not used: the gates that read it are unmet. The lane sends one every 100 ms.
pub const LANE_STATUS_AGE_MAX: Duration = Duration::from_secs(2);
/// Pieces in which one large value is compared, as a multiple of those it had when that began; and as many more.
pub const VERIFY_PIECES_TIMES_MAX: u64 = 8;
pub const VERIFY_PIECES_SPARE: u64 = 4096;
/// Rounds over the deadlines of a first copy while databases are exchanged meanwhile; what is left then the comparison finds.
pub const FEED_DEADLINE_ROUNDS_MAX: u32 = 16;
/// How often the servers are compared again while two are kept in step, for what changed since `analyze`.
pub const FINDINGS_PERIOD: Duration = Duration::from_secs(30);
/// Wait before a failed job (check, backfill, verification) is retried.
pub const JOB_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Wait between two routine comparisons of all keys; four times the length of one if that is more (so at most a fifth of the time).
pub const VERIFY_PAUSE_MIN: Duration = Duration::from_secs(10);
/// How often the control loop evaluates every migration.
pub const CONTROL_TICK: Duration = Duration::from_millis(100);
/// How often counters are sampled and job progress is announced.
pub const SAMPLE_PERIOD: Duration = Duration::from_secs(1);
/// Default time for commands in flight to finish at a stop.
pub const DRAIN_DEADLINE_DEFAULT_MS: u64 = 5_000;
pub const DRAIN_DEADLINE_MAX_MS: u64 = 600_000;
/// Admin requests waiting for the control loop; more are answered with 503.
pub const ADMIN_QUEUE_LEN: usize = 256;
/// Events waiting for one SSE subscriber; a slower one is disconnected and resumes with `Last-Event-ID`.
pub const EVENT_SUBSCRIBER_LEN: usize = 1024;
/// Event numbers reserved durably at a time, so that no number is used twice after a restart.
pub const EVENT_NUMBER_RESERVE: u64 = 10_000;
/// Longest name or reason a person may give in an approval, waiver, rollback or forced commit.
pub const REASON_BYTES_MAX: usize = 1000;
/// A configuration with more cores than this is a mistake.
pub const CORES_MAX: u64 = 256;
/// Largest `auth_file` of a PostgreSQL interlay: a hundred thousand users with verifiers.
pub const AUTH_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How long control waits for the cores' lists of sessions: a core answers within one turn of its loop or has failed.
pub const SESSIONS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long control waits for every core to release a hold before it reports the delay.
pub const GATE_OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// Different statements kept by fingerprint per interlay; the smallest are added up as "others". An application has tens to hundreds.
pub const FINGERPRINTS_MAX: usize = 1000;
/// Samples fingerprinted before the control thread does other work: parsing one of 8 KiB takes up to a millisecond.
pub const FINGERPRINTS_PER_TURN: usize = 16;
/// Samples waiting to be fingerprinted, over all interlays; more are counted and dropped.
pub const FINGERPRINT_QUEUE_LEN: usize = 4096;
/// Bytes of normalised text kept of one fingerprint.
pub const FINGERPRINT_TEXT_BYTES: usize = 2048;
/// Fingerprints in one reply of `analyze`, by default and at most.
pub const ANALYSIS_LIMIT_DEFAULT: usize = 50;
/// Largest configuration file read.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

const _: () = assert!(FENCE_BUDGET_DEFAULT_MS == FENCE_BUDGET_DEFAULT.as_millis() as u64);
const _: () = assert!(PAUSE_DEADLINE_DEFAULT.as_millis() <= PAUSE_DEADLINE_MAX.as_millis());
// Deadline, list of sessions and release must all fit into one admin request.
const _: () = assert!(
    PAUSE_DEADLINE_MAX.as_millis() + SESSIONS_TIMEOUT.as_millis() + GATE_OPEN_TIMEOUT.as_millis()
        < ADMIN_REQUEST_TIMEOUT.as_millis()
);
const _: () = assert!(EVENT_SUBSCRIBER_LEN <= EVENT_RING_LEN);
const _: () = assert!(FENCE_RETRY_PAUSE.as_millis() < FENCE_RETRY_PAUSE_MAX.as_millis());
const _: () = assert!(20 * FENCE_BUDGET_DEFAULT.as_millis() <= FENCE_RETRY_PAUSE_MAX.as_millis());

// ---- postgres -------------------------------------------------------------------------------------------------------

/// Longest startup packet after its length word: PostgreSQL's `MAX_STARTUP_PACKET_LENGTH` (pqcomm.h).
pub const PG_STARTUP_BYTES_MAX: usize = 10_000;
/// Longest frame, its length word included: PostgreSQL's `PQ_LARGE_MESSAGE_LIMIT` (MaxAllocSize - 1, just below 1 GiB).
pub const PG_FRAME_BYTES_MAX: usize = 0x3fff_fffe;
/// The same for the client's frames that PostgreSQL itself keeps short: its `PQ_SMALL_MESSAGE_LIMIT`.
pub const PG_SMALL_FRAME_BYTES_MAX: usize = 10_000;
/// Longest frame of a log-in: PostgreSQL's `PG_MAX_AUTH_TOKEN_LENGTH`, which is what a Kerberos ticket may need.
pub const PG_LOGIN_FRAME_BYTES_MAX: usize = 65_535;
/// Longest server frame of a type that libpq does not expect to be long (fe-protocol3.c, `pqParseInput3`).
pub const PG_SERVER_SMALL_FRAME_BYTES_MAX: usize = 30_000;
/// Cancel keys: 4 bytes in protocol 3.0, up to 256 in 3.2 (protocol-message-formats, BackendKeyData).
pub const PG_CANCEL_KEY_BYTES_MIN: usize = 4;
pub const PG_CANCEL_KEY_BYTES_MAX: usize = 256;
/// Most SCRAM iterations of a verifier: PostgreSQL's default is 4096, and a client computes all of them at each log-in.
pub const SCRAM_ITERATIONS_MAX: u32 = 1_000_000;
/// Longest salt of a verifier; PostgreSQL makes 16 bytes.
pub const SCRAM_SALT_BYTES_MAX: usize = 1024;
/// Named prepared statements remembered per session; drivers keep a few hundred. A session with more cannot be moved.
pub const PG_PREPARED_MAX: usize = 4096;
/// Bytes of all Parse frames remembered per session, those not yet confirmed included.
pub const PG_PREPARED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Settings remembered per session; PostgreSQL 17 knows under 400, applications add a few.
pub const PG_SETTINGS_MAX: usize = 512;
/// Bytes of the text of one remembered setting; a longer one is remembered by name and read back from the server.
pub const PG_SETTING_BYTES_MAX: usize = 8 * 1024;
/// LISTEN channels remembered per session.
pub const PG_CHANNELS_MAX: usize = 4096;
/// Changes one transaction may make to its session's remembered state before that state counts as incomplete.
pub const PG_JOURNAL_MAX: usize = 64 * 1024;
/// Commands of one pipeline whose effect on the session waits for the server's reply; with more, the state counts as incomplete too.
pub const PG_PENDING_MAX: usize = 64 * 1024;

const _: () = assert!(PG_SMALL_FRAME_BYTES_MAX < PG_SERVER_SMALL_FRAME_BYTES_MAX);
const _: () = assert!(PG_LOGIN_FRAME_BYTES_MAX < PG_FRAME_BYTES_MAX && PG_PREPARED_BYTES_MAX < PG_FRAME_BYTES_MAX);
/// Longest text searched for settings, when it does more than read and write; the effect of a longer one counts as unknown.
pub const PG_TRACKED_TEXT_BYTES_MAX: usize = 16 * 1024;
/// Tokens of a set_config() call that are examined; its arguments are names and short values.
pub const PG_CONFIG_CALL_TOKENS_MAX: usize = 64;

// ---- policies -------------------------------------------------------------------------------------------------------
// The ABI's own file (filters/abi/src/limits.rs) limits what filters may do; these are the limits that only their host needs.

/// Deepest nesting of a filter's configuration; the shipped ones need two.
pub const FILTER_CONFIG_DEPTH_MAX: usize = 16;
/// Largest file of a filter: the ABI's own limit on modules, which applies to WAT text too.
pub const FILTER_MODULE_BYTES_MAX: usize = 1024 * 1024;
/// Largest file of recorded cases; the longest shipped one has 6 KiB.
pub const FILTER_CASES_BYTES_MAX: usize = 1024 * 1024;
/// Largest request body that uploads a filter: a module in base64 (4 bytes for 3), and cases in which every character may be escaped.
pub const FILTER_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Filters loaded at one time: four slots of a dozen interlays, and some replacements.
pub const FILTERS_MAX: usize = 64;
/// Loads of filters under way or waiting: one is compiled, one waits, more would time out.
pub const FILTER_LOADS_MAX: u32 = 2;
/// How long control waits for every core to adopt a set of filters before it reports the late ones: a core answers within one turn of
/// its loop.
pub const POLICIES_ADOPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Faults of one filter in one slot reported as events within [`POLICY_FAULTS_TOLD_WINDOW`]; the filter is unloaded at this number, so
/// further ones come from a core that has not unloaded it yet.
pub const POLICY_FAULTS_TOLD_MAX: usize = 5;
pub const POLICY_FAULTS_TOLD_WINDOW: Duration = Duration::from_secs(60);
/// Instances beyond those in force and those about to be: tests of a setting, recorded cases, replacements of spent ones.
pub const FILTER_INSTANCES_SPARE: u32 = 16;

/// Instances of filters that may exist at one time. Of an interlay: one on each core (`mirror`), two on the lane's core (`compare`,
/// `records`), one on the control thread (`rollback`); twice, because a whole set is made before the one it replaces is dropped.
#[must_use]
pub fn filter_instances_max(cores: u16, interlays: usize) -> u32 {
    let interlays = u32::try_from(interlays).unwrap_or(u32::MAX);
    interlays.saturating_mul(2 * (u32::from(cores) + 3)).saturating_add(FILTER_INSTANCES_SPARE)
}

const _: () = assert!(FILTER_MODULE_BYTES_MAX.div_ceil(3) * 4 + 2 * FILTER_CASES_BYTES_MAX < FILTER_BODY_BYTES_MAX);
const _: () = assert!(POLICIES_ADOPT_TIMEOUT.as_millis() < ADMIN_REQUEST_TIMEOUT.as_millis());

/// Longest WAT text of a filter: a few times the module it is translated to, which has the ABI's limit.
pub const POLICY_WAT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Host stack of one call into a filter (ABI.md, section 8). A core's thread has 2 MiB.
pub const POLICY_STACK_BYTES: usize = 64 * 1024;
/// Interval of the deadline clock: a quarter of a hook's deadline, because a running call is first checked after that time.
pub const POLICY_TICK: Duration = Duration::from_micros(500);
/// The deadline clock stops when there were no calls for one to two times this long; waking it costs a system call.
pub const POLICY_CLOCK_IDLE: Duration = Duration::from_secs(1);
/// Bytes of one frame that `frame_read` can reach: as much as a filter's whole memory.
pub const POLICY_FRAME_BYTES_MAX: usize = 1024 * 1024;
/// An instance frees its copy of frames after a call that made it larger than this.
pub const POLICY_FRAME_BYTES_KEPT: usize = 64 * 1024;
/// Log lines of one instance that have not been collected yet; more are dropped and counted.
pub const POLICY_LOG_LINES_MAX: usize = 100;
/// One call in this many is measured: reading the clock twice costs more than the call.
pub const POLICY_CALL_SAMPLE: u64 = 64;
/// Compiled filters kept on disk; the oldest are removed first. A migration uses a handful, each in a few versions.
pub const POLICY_CACHE_FILES_MAX: usize = 64;
/// A longer file in the cache was not written by Crossfade: compiled code is about eight times as long as its module.
pub const POLICY_CACHE_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes that one field of a recorded case may expand to (`{"repeat": "x", "times": 5000}`): well beyond what any view holds.
pub const POLICY_CASE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How often a recorded case may repeat a step: a day of windows.
pub const POLICY_CASE_REPEAT_MAX: u64 = 100_000;
/// Calls between two readings of the clock when a filter is measured: the clock's own cost is then below a nanosecond per call.
pub const POLICY_BENCH_BATCH: u64 = 64;
/// Time for which one view is measured, and the most batches: enough for a 99th percentile, and a few seconds per filter.
pub const POLICY_BENCH_TIME: Duration = Duration::from_millis(500);
pub const POLICY_BENCH_BATCHES_MAX: usize = 10_000;

const _: () = assert!(POLICY_FRAME_BYTES_KEPT <= POLICY_FRAME_BYTES_MAX && POLICY_CALL_SAMPLE.is_power_of_two());
/// Reports about a filter that wait in its seat for the next collection: a filter is unloaded at five faults, log lines are bounded
/// to ten per second.
pub const POLICY_NOTES_MAX: usize = 64;
/// Warnings of one filter on one core reported per second; the rest are only counted.
pub const POLICY_WARNINGS_PER_SECOND_MAX: u32 = 3;
/// How often a key on which a records policy failed is reported, microseconds: a policy that fails on one key usually fails on many.
pub const RECORD_REFUSAL_TOLD_US: u64 = 60_000_000;
/// Altered keys kept by id: 17 bytes each, as for clean ones; beyond it every key counts as altered.
pub const ALTERED_KEYS_MAX: usize = 16 * 1024 * 1024;

// ---- snapshots ------------------------------------------------------------------------------------------------------

/// Longest key of an RDB stream that is read; a server accepts no longer one ([`BULK_BYTES_MAX`]).
pub const RDB_KEY_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Longest value of an RDB stream that is put together in memory; a longer one is handed on in pieces. RESTORE of this size takes a server
/// a few milliseconds.
pub const RDB_WHOLE_BYTES_MAX: usize = 1024 * 1024;
/// Longest operand of an RDB opcode: the code of a function library, by far the longest, is written by people.
pub const RDB_OPERAND_BYTES_MAX: usize = 16 * 1024 * 1024;

const _: () = assert!(RDB_KEY_BYTES_MAX as u64 == BULK_BYTES_MAX && RDB_WHOLE_BYTES_MAX < RDB_KEY_BYTES_MAX);
