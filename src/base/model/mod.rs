//! The vocabulary of the product: plain data with invariants, no I/O and no protocol.
//!
//! Crosses threads: every type here is `Send` and is copied or shared by `Arc` between the control thread and the cores.

pub mod authority;
pub mod divergence;
pub mod endpoint;
mod endpoint_url;
pub mod ids;
mod key_pattern;
pub mod kind;
pub mod limits;
pub mod login;
pub mod migration;
pub mod plan;
pub mod policy;
mod postgres_url;
pub mod sampled_read;
pub mod session;
pub mod statement;
pub mod tls;
mod url_parts;

pub use authority::{Authority, Epoch, Side};
pub use divergence::{Ledger, LedgerEntry, Sighting};
pub use endpoint::{Address, Credentials, Endpoint, EndpointProtocol, Secret};
pub use ids::{CoreId, EndpointName, Generation, InterlayName, MigrationId, NameError, Timestamp};
pub use key_pattern::{KeyPattern, PatternError};
pub use kind::ProtocolKind;
pub use login::{AllowReplication, AuthMode, Md5Hash, PostgresSpec, ScramVerifier, StoredSecret};
pub use migration::{
    Approval, ApprovalScope, AutoThrough, ConflictPolicy, DataMovement, DecisionError, Decisions, FailureHandling,
    FeedChoice, FeedKind, Flip, MigrationStatus, ReadRouting, ShadowFrom, Strategy, Thresholds, Waiver,
    WriteConsistency,
};
pub use plan::{CompareReads, InterlayProtocol, InterlaySpec, PlanMode, RoutePlan, Sharing};
pub use policy::{
    BUILTIN_PREFIX, FilterName, OnFault, PolicyChoice, PolicyMode, PolicySetting, PolicySettings, PolicySlot,
};
pub use sampled_read::SampledRead;
pub use session::{SessionInfo, SessionState};
pub use statement::StatementSample;
pub use tls::{ClientTls, RequireTls, ServerTls, TlsMode};
pub use url_parts::UrlError;
