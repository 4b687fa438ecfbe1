//! The routes of the API, by subject. Each handler is annotated with its description: the router and the OpenAPI document are generated from it.

mod endpoints;
mod events;
mod filters;
mod interlays;
mod migrations;
mod process;

use axum::extract::DefaultBodyLimit;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::types;
use crate::reconcile::Handle;
use crate::reconcile::views::limits;

/// The parts of the document other than the paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Crossfade admin API",
        description = "Errors are RFC 9457 problem documents. Unknown fields are refused. Times are milliseconds since the Unix epoch."
    ),
    components(schemas(types::Event)),
    tags(
        (name = "process", description = "Health, readiness, metrics"),
        (name = "endpoints", description = "Database servers"),
        (name = "interlays", description = "Listeners that applications connect to"),
        (name = "migrations", description = "Moving an interlay from source to target, and back"),
        (name = "filters", description = "Policy filters and the slots they decide in"),
        (name = "events", description = "Events, as they happen")
    )
)]
struct Document;

/// Every route that the document describes.
pub fn documented() -> OpenApiRouter<Handle> {
    let filter = OpenApiRouter::new()
        .routes(routes!(filters::filter, filters::load, filters::unload))
        .layer(DefaultBodyLimit::max(limits::FILTER_BODY_BYTES_MAX));
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(process::healthz))
        .routes(routes!(process::readyz))
        .routes(routes!(process::metrics_page))
        .routes(routes!(process::status))
        .routes(routes!(endpoints::endpoints))
        .routes(routes!(endpoints::endpoint))
        .routes(routes!(endpoints::check_endpoint))
        .routes(routes!(interlays::interlays))
        .routes(routes!(interlays::interlay))
        .routes(routes!(interlays::drain))
        .routes(routes!(interlays::pause_interlay))
        .routes(routes!(interlays::resume_interlay))
        .routes(routes!(interlays::sessions))
        .routes(routes!(interlays::analysis))
        .routes(routes!(migrations::list, migrations::create))
        .routes(routes!(migrations::show))
        .routes(routes!(migrations::run))
        .routes(routes!(migrations::advance))
        .routes(routes!(migrations::approve))
        .routes(routes!(migrations::waive))
        .routes(routes!(migrations::pause))
        .routes(routes!(migrations::resume))
        .routes(routes!(migrations::rollback))
        .routes(routes!(migrations::commit))
        .routes(routes!(migrations::abandon))
        .routes(routes!(migrations::traffic))
        .routes(routes!(migrations::report_of))
        .routes(routes!(migrations::divergences))
        .routes(routes!(events::events))
        .routes(routes!(filters::filters))
        .merge(filter)
        .routes(routes!(filters::policies))
        .routes(routes!(filters::set, filters::inherit))
}
