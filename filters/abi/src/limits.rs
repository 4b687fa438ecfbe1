//! Every limit of the ABI, with its reason. The host enforces them; ABI.md lists the same numbers.

/// A policy of ten times the size of the largest shipped one; keeps compiling on the control thread short.
pub const MODULE_BYTES_MAX: usize = 1 << 20;
/// 16 pages of 64 KiB: a pooling allocator reserves this much for each module on each core.
pub const MEMORY_PAGES_MAX: u32 = 16;
/// Function pointers of a small program; no table grows beyond it.
pub const TABLE_ELEMENTS_MAX: u32 = 1024;
/// One table is what compilers emit.
pub const TABLES_MAX: u32 = 1;
/// Time of one hook call, in microseconds: the first quarter on the wall, the rest as its thread has run. A command waits for its
/// policy about this long.
pub const HOOK_DEADLINE_US: u64 = 2_000;
/// Wall time of the start function and `cf_configure`, in microseconds, each. These run on the control thread or at a swap.
pub const LOAD_DEADLINE_US: u64 = 20_000;

/// The smallest exchange buffer that holds a useful view.
pub const BUFFER_BYTES_MIN: usize = 4 << 10;
/// What the SDKs declare.
pub const BUFFER_BYTES_RECOMMENDED: usize = 64 << 10;
/// A larger buffer is refused; the host never writes more than this.
pub const BUFFER_BYTES_MAX: usize = 256 << 10;

/// First bytes of the frame in a RequestView.
pub const FRAME_BYTES_MAX: usize = 1 << 10;
/// Keys listed in a RequestView: what a policy can look at well within its deadline.
pub const KEYS_MAX: usize = 256;
/// PostgreSQL allows 63, MongoDB 255.
pub const DATABASE_BYTES_MAX: usize = 255;
/// Longer than any command of the three protocols.
pub const COMMAND_BYTES_MAX: usize = 64;
/// A schema-qualified table or a collection.
pub const NAMESPACE_BYTES_MAX: usize = 511;
/// The migration's id in a WindowView.
pub const MIGRATION_BYTES_MAX: usize = 128;
/// Bytes of the request within a PairView; the replies matter more there.
pub const PAIR_REQUEST_BYTES_MAX: usize = 8 << 10;

/// A sentence for an operator or a client.
pub const TEXT_BYTES_MAX: usize = 512;
/// Names a class of divergence; becomes a metric label.
pub const CLASS_BYTES_MAX: usize = 64;
/// Distinct classes of divergence of one module; later ones are counted as "other".
pub const CLASSES_MAX: usize = 64;
/// The prefix length has eight bits in the verdict.
pub const MEMO_PREFIX_BYTES_MAX: usize = 255;
/// Different prefix lengths remembered for one command on one core: each costs a look-up.
pub const MEMO_PREFIX_LENGTHS_MAX: usize = 8;
/// Remembered answers on one core; the oldest give way.
pub const MEMO_ENTRIES_MAX: usize = 4096;

/// A longer line is cut.
pub const LOG_BYTES_MAX: usize = 1 << 10;
/// Lines of one module on one core within a second.
pub const LOG_LINES_PER_SECOND_MAX: u32 = 10;
/// `[a-z0-9_]`, and becomes a metric label.
pub const COUNTER_ID_BYTES_MAX: usize = 64;
/// Distinct counters of one module.
pub const COUNTERS_MAX: usize = 64;

/// This many faults within [`FAULT_WINDOW_S`] unload the module.
pub const FAULTS_MAX: u32 = 5;
pub const FAULT_WINDOW_S: u32 = 60;

const _: () = assert!(BUFFER_BYTES_MIN <= BUFFER_BYTES_RECOMMENDED && BUFFER_BYTES_RECOMMENDED <= BUFFER_BYTES_MAX);
const _: () = assert!(BUFFER_BYTES_MAX < MEMORY_PAGES_MAX as usize * 65_536, "buffer, stack and data share the memory");
const _: () = assert!(TEXT_BYTES_MAX <= BUFFER_BYTES_MIN && CLASS_BYTES_MAX <= TEXT_BYTES_MAX);
const _: () = assert!(
    crate::layout::REQUEST_FIXED + DATABASE_BYTES_MAX + COMMAND_BYTES_MAX + FRAME_BYTES_MAX < BUFFER_BYTES_MIN / 2,
    "a whole request fits into half of the smallest buffer, so a pair fits into it too"
);
const _: () = assert!(
    crate::layout::RECORD_FIXED + DATABASE_BYTES_MAX + NAMESPACE_BYTES_MAX < BUFFER_BYTES_MIN / 2
        && crate::layout::WINDOW_FIXED + MIGRATION_BYTES_MAX < BUFFER_BYTES_MIN
);
