//! Every limit of the simulation, in one place. Times are virtual.

/// What the model servers' clocks show when a run begins, milliseconds since the Unix epoch.
pub const EPOCH_MS: i64 = 1_900_000_000_000;

/// Seeds of one run of the tests; `SEEDS` sets another number, `CROSSFADE_SEED` the only one.
pub const SEEDS: u64 = 240;
/// Within so many seeds each ablation must be found out.
pub const ABLATION_SEEDS: u64 = 60;

/// A run of many seeds ends when so many have found something.
pub const FOUND_ENOUGH: usize = 10;

pub const CORES: usize = 2;
pub const CLIENTS: usize = 6;
/// How long clients and faults go on.
pub const ACTIVE_US: (u64, u64) = (1_000_000, 3_000_000);
/// How long it may take until both servers are equal once nothing is written any more.
pub const REST_US_MAX: u64 = 30_000_000;
/// How often it is looked whether they are.
pub const REST_LOOK_US: u64 = 20_000;

/// One way, per connection.
pub const LATENCY_US: (u64, u64) = (100, 3_000);
/// Added to the connections of the feed while its network is slow.
pub const LAG_US: (u64, u64) = (20_000, 300_000);
pub const LAG_LASTS_US: (u64, u64) = (50_000, 600_000);
/// How much later the other end of a cut connection notices.
pub const CUT_NOTICED_US: (u64, u64) = (0, 40_000);
/// Until a server or a process that was killed is there again.
pub const RESTART_US: (u64, u64) = (5_000, 250_000);

pub const THINK_US: (u64, u64) = (500, 40_000);
pub const RECONNECT_US: (u64, u64) = (2_000, 40_000);
/// Commands in one write of a client.
pub const PIPELINE_MAX: u64 = 4;
/// Deadlines that clients set, milliseconds.
pub const DEADLINE_MS: (u64, u64) = (15, 900);
/// A client closes its connection after so many acts, on average.
pub const CLIENT_LEAVES_ONCE_IN: u64 = 120;

pub const FAULT_EVERY_US: (u64, u64) = (60_000, 700_000);
pub const FLIP_EVERY_US: (u64, u64) = (150_000, 900_000);
/// How long the record of the authority takes to be durable.
pub const RECORD_US: (u64, u64) = (200, 5_000);

/// Later than at the authority by so much are deadlines stored.
pub const GRACE_MS: u64 = 1_000;
/// Clocks of servers differ by at most this.
pub const SKEW_MS: (u64, u64) = (0, 20);
/// A key may outlive its deadline at a new authority by the grace, until deadlines are corrected, and by what finding it takes.
pub const OUTLIVE_MS_MAX: i64 = 2 * GRACE_MS as i64 + 1_000;

pub const SERVER_TICK_US: u64 = 4_000;
/// As the cores have it: while something is under way, and while nothing is.
pub const BUSY_TICK_US: u64 = 2_000;
pub const IDLE_TICK_US: u64 = 50_000;
/// How often reads are gathered for comparison.
pub const SAMPLE_EVERY_US: u64 = 100_000;
/// Share of reads that are compared, in ten thousandths.
pub const COMPARED_SHARE: u16 = 3_000;

/// A key whose time is over is found by one look in so many.
pub const EXPIRY_FOUND_ONCE_IN: u64 = 3;
pub const SNAPSHOT_DELAY_US: (u64, u64) = (1_000, 120_000);
pub const REPLICATION_PING_US: u64 = 500_000;
/// What a server keeps of its stream for a replica that comes back, in bytes; small enough to be too little at times.
pub const KEPT_BYTES: [usize; 3] = [2_000, 20_000, 1_000_000];

/// Ablation: how much later than its transaction a position is stored.
pub const POSITION_APART_US: u64 = 15_000;
/// Ablation: how long after a flip the other direction begins.
pub const REVERSE_LATE_US: u64 = 100_000;

/// A blocking pop has arrived at the authority and waits there this long after its client sent it, however many connections have to be made.
pub const BLOCKED_BY_US: u64 = 60_000;

/// Violations of one run that are kept.
pub const VIOLATIONS_MAX: usize = 8;
