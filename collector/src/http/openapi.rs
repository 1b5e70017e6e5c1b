//! `/api/v1/openapi.json`: the paths as they are written, the schemas as the types of the
//! answers define them.

use std::sync::LazyLock;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use monitor_proto::json::{Hosts, Reports, StatsResponse, Summary, Top};
use problems::Problems;
use schemars::{
    JsonSchema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Value, json};

use super::{heatmap, partial::PartialAnswer, problem::Problem, series};

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let mut document: Value =
        serde_json::from_str(include_str!("openapi.json")).unwrap_or_default();
    document["components"] = json!({"schemas": schemas()});
    document.to_string()
});

/// The description of this API; a test holds it against what is answered.
pub(super) async fn document() -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        DOCUMENT.as_str(),
    )
        .into_response()
}

/// Of everything that is answered, by name.
fn schemas() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.contract = Contract::Serialize;
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    define::<PartialAnswer<Hosts>>(&mut generator);
    define::<PartialAnswer<Reports>>(&mut generator);
    define::<PartialAnswer<StatsResponse>>(&mut generator);
    define::<PartialAnswer<series::Answer>>(&mut generator);
    define::<PartialAnswer<heatmap::Answer>>(&mut generator);
    define::<Summary>(&mut generator);
    define::<Top>(&mut generator);
    define::<Problems>(&mut generator);
    define::<Problem>(&mut generator);
    generator.take_definitions(true).into()
}

fn define<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}
