//! What an interlay is configured to do and the plan in force. Read by every session of the relay; lives on one core.

use std::sync::Arc;

use base::model::{AuthMode, CoreId, Endpoint, InterlaySpec, PostgresSpec, RequireTls, RoutePlan, Side};

/// One relay's configuration and plan.
#[derive(Debug)]
pub struct Settings {
    pub spec: InterlaySpec,
    pub postgres: PostgresSpec,
    pub plan: Arc<RoutePlan>,
    pub core: CoreId,
    /// How many cores there are; at least 1.
    pub cores: u16,
}

impl Settings {
    /// The side clients are connected to.
    pub fn side(&self) -> Side {
        self.plan.authority.side
    }

    /// The server clients are connected to.
    pub fn endpoint(&self) -> &Endpoint {
        self.plan.endpoint(self.side())
    }

    pub fn requires_tls(&self) -> bool {
        self.spec.tls.as_ref().is_some_and(|tls| tls.require == RequireTls::Yes)
    }

    pub fn mode(&self) -> AuthMode {
        self.postgres.auth
    }

    /// The user every session has on the server; `None` where each keeps its own.
    pub fn mapped_user(&self) -> Option<String> {
        match self.mode() {
            AuthMode::Mapped => self.endpoint().credentials.as_ref().and_then(|own| own.user.clone()),
            AuthMode::Scram | AuthMode::Relay | AuthMode::Md5 | AuthMode::Trust => None,
        }
    }
}
